"""The configurations in `examples/`: each passes `check --strict`, and its events are what its comments say."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import pytest

from connector import vendors
from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import Schema, known_schemas, load_contracts, own_schemas
from connector.config.loader import Loaded, load
from connector.errors import Refusal
from connector.records import Record
from connector.routing.table import RouteTable, Skipped
from connector.runtime import checks
from connector.vendors.base import VendorKind

EXAMPLES = Path(__file__).parents[3] / "examples"
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
MILLIS = int(NOW.timestamp() * 1000)
NAMES = ("orders", "bookings", "telemetry", "subscriptions")
ORDER: dict[str, Any] = {
    "order_id": "o-1",
    "user": {"id": 42, "phone": None, "email": "Ann@Example.com", "consent": True},
    "items": [
        {"sku": "tea", "qty": 2, "price": Decimal("4.95")},
        {"sku": "cup", "qty": 1, "price": Decimal("10.08")},
    ],
    "total": Decimal("19.98"),
    "currency": "EUR",
    "created_at": NOW,
    "channel": "APP",
}
BOOKING: dict[str, Any] = {
    "booking_id": "12345678-1234-5678-1234-567812345678",
    "guest": {"number": "g-7", "email": "Ann@Example.com", "loyalty": None},
    "rooms": [{"kind": "double", "nights": 2, "rate": 80.5}, {"kind": "single", "nights": 1, "rate": 50.0}],
    "check_in": date(2026, 12, 1),
    "booked_at": NOW,
    "status": "CONFIRMED",
    "test": False,
}
READING: dict[str, Any] = {
    "device": "d-1",
    "owner": 7,
    "seconds": MILLIS // 1000,
    "kind": "measured",
    "firmware": "2.1",
    "values": {"temperature": 21.5, "serial": "s", "gone": None},
    "place": {"lat": 1.5, "lon": 2.5},
}
CHANGE: dict[str, Any] = {
    "id": "c-1",
    "account": {"id": 9, "email": "ann@example.com", "country": "de"},
    "plan": "pro",
    "addons": ["seats", "support"],
    "price": 9.5,
    "change": "RENEWED",
    "at": NOW,
}


@cache
def configured(name: str) -> Loaded:
    """Return an example as `check` reads it; every secret is set to something."""
    text = (EXAMPLES / name / "connector.yaml").read_text(encoding="utf-8")
    wanted = {part.split("}")[0] for part in text.split("${")[1:]}
    env = {each: "12345678901234567890" for each in wanted if ":-" not in each}
    kinds = {kind.name: kind.settings for kind in vendors.kinds().values()}
    return load(EXAMPLES / name / "connector.yaml", kinds, env, further=checks.route_faults)


@cache
def ready(name: str) -> tuple[Loaded, Schema, RouteTable, Mapping[str, VendorKind]]:
    """Return an example with its schema and its routes."""
    loaded, kinds = configured(name), vendors.kinds()
    (schema,) = own_schemas(loaded)
    return loaded, schema, RouteTable.compile(loaded.settings, kinds, known_schemas([schema])), kinds


def sent(
    name: str, datum: dict[str, Any], *, topic: str, offset: int = 0, headers: Any = ()
) -> dict[str, Any] | Skipped | Refusal:
    """Return, by destination, what an event becomes: encoded as Avro, decoded, routed and prepared as in a run."""
    loaded, schema, table, kinds = ready(name)
    value = io.BytesIO()
    fastavro.schemaless_writer(value, fastavro.parse_schema(schema.tree), datum)
    record = Record(topic, 0, offset, MILLIS, b"9", b"\xc3\x01" + schema.fingerprint + value.getvalue(), headers)
    event = Decoder(load_contracts(), clock=SystemClock(), schemas=[schema]).event(record)
    try:
        routed = table.route(event, record, "cluster")
    except Refusal as refusal:
        return refusal
    if isinstance(routed, Skipped):
        return routed
    found: dict[str, Any] = {}
    for each in routed:
        assert not isinstance(each.event, Refusal), each.event
        settings = loaded.settings.destinations[each.destination]
        kinds[settings.vendor].build(settings).encode(each.event, MILLIS)
        found[each.destination] = {name: field for name, field in each.event.fields.items() if field is not None}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_and_without_warnings(name: str) -> None:
    """Every example passes `check`, also with `--strict`."""
    assert configured(name).warnings == []


def test_orders() -> None:
    """An order goes to three vendors: parts, hashes, sums; no identifier that it lacks; nothing without consent."""
    found = sent("orders", ORDER, topic="orders")
    assert isinstance(found, dict)
    assert found["jiguang"]["properties"] == {
        "order_id": "o-1",
        "total": 19.98,
        "currency": "EUR",
        "channel": "app",
        "skus": ["tea", "cup"],
        "pieces": 3,
        "buyer": hashlib.sha256(b"ann@example.com").hexdigest(),
    }
    assert found["audience"]["customerIdList"] == [{"customerId": "42", "idMapping": "shop"}]
    attributes = found["audience"]["extendAttributes"]
    assert set(attributes) == {"order_id", "items", "total", "currency", "created_at", "channel"}
    assert json.loads(attributes["items"])[0] == {"sku": "tea", "qty": 2, "price": 4.95}
    key = b"12345678901234567890"
    assert found["tracker"]["customUserId"] == hmac.digest(key, b"42", "sha256").hex()
    assert found["tracker"]["customEventParams"] == {"total": "19.98", "first": "tea", "large": "false"}
    refused = sent("orders", {**ORDER, "user": {**ORDER["user"], "consent": False}}, topic="orders")
    assert isinstance(refused, Skipped)
    assert refused.reason == "routes[0]"
    unmet = sent("orders", {**ORDER, "channel": "SHOP"}, topic="orders")
    assert isinstance(unmet, Refusal)
    assert (unmet.code, unmet.field) == ("route.unmet", "where.channel")


def test_bookings() -> None:
    """A date, a nested optional record, microseconds, and sums over rooms."""
    found = sent("bookings", BOOKING, topic="bookings")
    assert isinstance(found, dict)
    assert found["audience"]["extendAttributes"] == {
        "check_in": "2026-12-01",
        "tier": "none",
        "rooms": '["double","single"]',
        "value": "211.0",
    }
    assert found["audience"]["eventTime"] == MILLIS
    assert found["tracker"]["customEventParams"] == {"nights": "3", "first_room": "double"}
    assert isinstance(sent("bookings", {**BOOKING, "test": True}, topic="bookings"), Skipped)


def test_telemetry() -> None:
    """A sample by record, a plain number of seconds, a map without one key, the same record each time."""
    found = [sent("telemetry", READING, topic="readings-eu", offset=offset) for offset in range(60)]
    taken = [each for each in found if isinstance(each, dict)]
    assert 1 <= len(taken) < 20
    assert taken[0]["jiguang"]["itime"] == MILLIS // 1000 * 1000
    properties = taken[0]["jiguang"]["properties"]
    assert properties.pop("device") == hashlib.sha256(b"d-1").hexdigest()
    assert properties == {"temperature": 21.5, "gone": None, "place": "1.5,2.5", "topic": "readings-eu"}
    for change in ({"kind": "heartbeat"}, {"owner": None}):
        assert isinstance(sent("telemetry", READING | change, topic="readings-eu"), Skipped)


def test_subscriptions() -> None:
    """Names from an expression, the key as the user, the whole event as JSON text, robots by a header."""
    found = sent("subscriptions", CHANGE, topic="subscriptions")
    assert isinstance(found, dict)
    assert found["jiguang"]["eventName"] == found["tracker"]["customEventName"] == "subscription_renewed"
    assert found["jiguang"]["properties"]["country"] == "DE"
    assert found["jiguang"]["properties"]["first_addon"] == "seats"
    assert json.loads(found["jiguang"]["properties"]["all"])["account"]["id"] == 9
    assert found["tracker"]["customUserId"] == "9"
    assert found["tracker"]["customEventParams"] == {"plan": "pro", "addons": "seats+support"}
    robot = sent("subscriptions", CHANGE, topic="subscriptions", headers=[("robot", b"true")])
    assert isinstance(robot, Refusal)
    assert robot.field == "where.$header.robot"
