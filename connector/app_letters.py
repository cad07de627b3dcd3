"""A dead letter looked into: its event decoded and routed anew, and what would be sent by today's rules."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from connector import vendors
from connector.app_checks import known_schemas, open_registry, own_schemas
from connector.clock import SystemClock
from connector.config import Loaded
from connector.dead_letters.reader import Letter
from connector.errors import ConnectorError, FatalError, Refusal, SchemaUnavailable
from connector.kafka.avro import Decoder
from connector.kafka.contracts import load_contracts
from connector.pipeline.routing import Routed, RouteTable
from connector.records import Event, Record

SCHEMA_SECONDS: Final = 15.0
"""How long the registry is asked for a letter's schema; an unknown id is asked again for ten of them."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """One destination by today's rules: what would be sent, as text, or the rule that is broken and why."""

    destination: str
    dedup_id: str | None = None
    fragment: str | None = None
    rule: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a letter holds: its event, or why there is none to see, and the destinations it would go to."""

    schema: str | None
    event: Any
    fault: str | None
    preparations: tuple[Preparation, ...]


async def inspect(loaded: Loaded, letter: Letter, cluster_id: str) -> Inspection:
    """Return what is in a letter, and what would be sent to its destination today; without one, to each of its routes.

    Nothing is sent, and no fault is raised but those of the configuration: `ConfigurationError`, `StartupError`.
    """
    settings = loaded.settings
    own = own_schemas(loaded)
    registry = None if settings.schema_registry is None else open_registry(settings.schema_registry)
    decoder = Decoder(
        load_contracts(), clock=SystemClock(), registry=registry, schemas=own, plain=settings.schemas.plain
    )
    routes = RouteTable.compile(settings, vendors.kinds(), known_schemas(own))
    record = letter.facts.first_record(letter.record)
    try:
        event = await _decode(decoder, record)
        if isinstance(event, str):
            return Inspection(None, None, event, ())
        shown = plain(event.datum)
        try:
            routed = routes.route(event, record, cluster_id)
        except (Refusal, FatalError) as error:
            return Inspection(event.schema, shown, str(error), ())
        return Inspection(event.schema, shown, None, tuple(_prepare(loaded, routed, letter.facts.destination)))
    finally:
        await decoder.close()
        if registry is not None:
            await registry.close()


async def _decode(decoder: Decoder, record: Record) -> Event | str:
    """Return the event, or why it cannot be seen."""
    for _ in range(2):
        try:
            return decoder.decode(record)
        except Refusal as refusal:
            return str(refusal)
        except SchemaUnavailable as error:
            try:
                await asyncio.wait_for(decoder.resolve(error.key), SCHEMA_SECONDS)
            except TimeoutError:
                return f"the registry gives no schema {error.key} within {SCHEMA_SECONDS:g} s"
            except ConnectorError as trouble:
                return str(trouble)
    return "its schema is not known"


def _prepare(loaded: Loaded, routed: Sequence[Routed], only: str | None) -> list[Preparation]:
    """Return what each destination would be sent; `only` the letter's own, where it names one."""
    settings, kinds = loaded.settings, vendors.kinds()
    now = int(SystemClock().wall() * 1000)
    found = []
    for one in routed:
        if only is not None and one.destination != only:
            continue
        try:
            if isinstance(one.event, Refusal):
                raise one.event
            vendor = kinds[settings.destinations[one.destination].vendor].build(settings.destinations[one.destination])
            body = vendor.encode(one.event, now).body
            limits = vendor.limits(vendor.group(one.event))
        except Refusal as refusal:
            found.append(Preparation(one.destination, rule=refusal.code, reason=str(refusal)))
            continue
        text = body.decode(errors="replace")
        fits = limits.overhead + len(body) <= limits.bytes
        reason = None if fits else f"its request alone would have more than the {limits.bytes} bytes that are allowed"
        found.append(Preparation(one.destination, one.event.dedup_id, text, None if fits else "too_large", reason))
    if only is not None and not found:
        why = (
            "no route sends such an event there today" if only in settings.destinations else "it is configured no more"
        )
        found.append(Preparation(only, reason=why))
    return found


def plain(value: Any) -> Any:
    """Return an Avro datum in JSON's types: times as ISO 8601, bytes in base64, a named union as {name: value}."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return {value[0]: plain(value[1])}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
