"""Two made-up vendors, and a table of routes over them in one line, for the tests of routing."""

from __future__ import annotations

from typing import Any

from connector.config.loader import DestinationSettings, Settings
from connector.errors import Refusal
from connector.records import Event, Record
from connector.routing.table import Routed, RouteTable
from connector.vendors.base import FieldKind, Vendor, VendorEvent, VendorKind

ENVELOPE = "connector.events.Event"
ALPHA, BETA = "connector.events.AlphaEvent", "connector.events.BetaEvent"
FOREIGN = "com.acme.UserEvent"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


def _build(_settings: DestinationSettings) -> Vendor:
    raise NotImplementedError


KINDS = {
    "alpha": VendorKind(
        "alpha",
        DestinationSettings,
        _build,
        ALPHA,
        {"cuid": FieldKind("long", required=True), "at": FieldKind("millis")},
    ),
    "beta": VendorKind("beta", DestinationSettings, _build, BETA, {"user": FieldKind("string", required=True)}),
}
RECORD = Record("app-events", 2, 7, 1_700_000_000_123, b"k1", b"value", [("source", b"app"), ("vip", b"true")])
POSITION = f"{CLUSTER}/app-events/2/7"
ALPHA_MAP, BETA_MAP = {"alpha": {"cuid": "user.id"}}, {"beta": {"user": "user.id"}}
DATUM: dict[str, Any] = {
    "user": {"id": 77},
    "platform": "ios",
    "event_id": "e-1",
    "count": 5,
    "paid": True,
    "none": None,
}
EVENT = Event(FOREIGN, DATUM)


def settings(
    routes: list[dict[str, Any]], destinations: dict[str, str] | None = None, unrouted: str = "dead_letter"
) -> Settings:
    """Return settings with these routes and destinations (name to vendor)."""
    named = destinations or {"a": "alpha", "b": "beta"}
    return Settings.model_validate(
        {
            "kafka": {"topics": ["app-events", "^other-.*"], "group_id": "g", "client": {"bootstrap.servers": "x:1"}},
            "destinations": {
                name: DestinationSettings.model_construct(vendor=vendor, base_url="http://localhost")
                for name, vendor in named.items()
            },
            "routes": routes,
            "unrouted": unrouted,
        }
    )


def table(routes: list[dict[str, Any]], *args: Any, **options: Any) -> RouteTable:
    """Return the compiled table of these routes."""
    return RouteTable.compile(settings(routes, *args, **options), KINDS)


def route(routes: list[dict[str, Any]], event: Event = EVENT, record: Record = RECORD, **options: Any) -> list[Routed]:
    """Return where one event goes."""
    return table(routes, **options).route(event, record, CLUSTER)


def fields(routed: Routed) -> dict[str, Any]:
    """Return the fields of a delivery that was not refused."""
    assert isinstance(routed.event, VendorEvent), routed.event
    return dict(routed.event.fields)


def refused(routed: Routed) -> Refusal:
    """Return why a delivery was refused."""
    assert isinstance(routed.event, Refusal)
    return routed.event


def envelope(target: str, body: Any, event_id: str = "e-9") -> Event:
    """Return an envelope as it is decoded."""
    return Event(ENVELOPE, {"id": event_id, "target": target, "body": body})
