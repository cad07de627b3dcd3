"""Prepares one event by a configuration: its destinations, and what each would be sent, or the rule that refuses it.

Needs neither Kafka nor a registry, and imports neither, so that `connector map` and `connector test` start at once.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from connector import vendors
from connector.config.loader import Settings
from connector.dead_letters.inspection import Inspection, Preparation
from connector.errors import FatalError, Refusal
from connector.records import Event, LogicalValue, Record
from connector.routing.conversions import Unfit, exact
from connector.routing.table import Routed, RouteTable, Skipped, why_skipped
from connector.tasks import refusing


class Preparer:
    """Routes events and checks the local rules as a run does; sends nothing.

    `schemas` are the known schemas (parsed JSON by full name). The constructor raises `ConfigurationError` for routes
    that are not valid.
    """

    def __init__(self, settings: Settings, schemas: Mapping[str, Any], cluster_id: str = "") -> None:
        kinds = vendors.kinds()
        self._cluster_id = cluster_id
        self.routes = RouteTable.compile(settings, kinds, schemas)
        self._vendors = {name: kinds[each.vendor].build(each) for name, each in settings.destinations.items()}

    def inspect(self, event: Event, record: Record, now: int) -> Inspection:
        """Return what each destination would be sent for an event at `now` (epoch milliseconds). Raises nothing."""
        shown = plain(event.datum)
        try:
            with refusing("routed"):
                routed = self.routes.route(event, record, self._cluster_id)
        except Refusal as refusal:
            return Inspection(event.schema, shown, refusal.message, (), code=refusal.code)
        except FatalError as error:
            return Inspection(event.schema, shown, str(error), (), code="route.unrouted")
        found = tuple(replace(self.prepared(each, now), route=each.route) for each in routed)
        return Inspection(event.schema, shown, None, found, skipped=skip_reason(routed))

    def prepared(self, routed: Routed, now: int) -> Preparation:
        """Return what one destination would be sent, or why nothing."""
        vendor = self._vendors[routed.destination]
        try:
            if isinstance(routed.event, Refusal):
                raise routed.event
            with refusing("prepared"):
                body = vendor.encode(routed.event, now).body
                limits = vendor.limits(vendor.group(routed.event))
        except Refusal as refusal:
            return Preparation(routed.destination, rule=refusal.code, reason=str(refusal))
        text = body.decode(errors="replace")
        if limits.overhead + len(body) <= limits.bytes:
            return Preparation(routed.destination, routed.event.dedup_id, text)
        reason = f"a request with it alone would be larger than the {limits.bytes} bytes that the vendor allows"
        return Preparation(routed.destination, routed.event.dedup_id, text, "too_large", reason)


def skip_reason(routed: Sequence[Routed]) -> str | None:
    """Return why the rules send an event nowhere; None if it goes somewhere."""
    return why_skipped(routed.reason) if isinstance(routed, Skipped) else None


def plain(value: Any) -> Any:
    """Return an Avro datum in JSON's types: times as ISO 8601, bytes in base64, a named union as {name: value}.

    A value that its logical type does not allow is shown as it was written.
    """
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return {value[0]: plain(value[1])}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, LogicalValue):
        try:
            return plain(exact(value))
        except Unfit:
            return plain(value.raw)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
