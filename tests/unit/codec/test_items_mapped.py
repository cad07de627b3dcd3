"""Items that compiled code writes from a schema that a route maps: what routing, mapping and `encode` make, or none."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import Schema, read_schema, without_logical_types
from connector.config.models import KafkaSettings, Settings
from connector.errors import Refusal
from connector.records import Record
from connector.routing.table import RouteTable
from connector.vendors.base import Shaped, Vendor, VendorEvent
from tests.unit.codec.test_items import ACCOUNTS, CONTRACTS, KINDS, NOW, TEXTS, TIMES, at_once, written

NAME: Final = "com.example.Deed"
MOMENT: Final = {"type": "long", "logicalType": "timestamp-micros"}
VALUES: Final = ["null", "string", "long", "boolean", "double", {"type": "array", "items": "string"}]
HOME: Final = {"type": "record", "name": "Home", "fields": [{"name": "city", "type": "string"}]}
USER: Final = {
    "type": "record",
    "name": "User",
    "fields": [
        {"name": "number", "type": ["int", "long", "string"]},
        {"name": "name", "type": ["null", "string", "long", "double"]},
        {"name": "home", "type": HOME},
    ],
}
TREE: Final[dict[str, Any]] = {
    "type": "record",
    "name": NAME,
    "fields": [
        {"name": "id", "type": ["null", "string"]},
        {"name": "noise", "type": {"type": "array", "items": ["null", "string", "bytes"]}},
        {"name": "user", "type": ["null", USER]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["login", "customEvent", "other"]}},
        {"name": "at", "type": ["long", "null", "string"]},
        {"name": "moment", "type": ["null", MOMENT]},
        {"name": "either", "type": [{"type": "array", "items": "string"}, {"type": "map", "values": "string"}]},
        {"name": "values", "type": ["null", {"type": "map", "values": VALUES}]},
    ],
}
JIGUANG: Final = {"cuid": "user.number", "eventName": "user.home.city", "itime": "at", "properties": "values"}
MYTRACKER: Final = {
    "method": {"const": "customEvent"},
    "customUserId": "user.name",
    "customEventName": "user.home.city",
    "eventTimestamp": "at",
    "customEventParams": "values",
}
QUICK_AUDIENCE: Final = {
    "customerId": "user.name",
    "eventCode": "user.home.city",
    "eventTime": "at",
    "comeFrom": {"const": 'a"é'},
    "extendAttributes": "values",
}
ROUTES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "jiguang": ("jiguang", {"fields": JIGUANG}),
    "jiguang, own id": ("jiguang", {"fields": JIGUANG, "id": "id"}),
    "jiguang, seconds": ("jiguang", {"fields": JIGUANG | {"itime": {"path": "at", "unit": "s"}}}),
    "jiguang, moment": ("jiguang", {"fields": JIGUANG | {"itime": "moment"}}),
    "mytracker, moment": ("mytracker", {"fields": MYTRACKER | {"eventTimestamp": "moment"}}),
    "jiguang, condition": ("jiguang", {"fields": JIGUANG, "where": {"kind": ["login", "other"]}}),
    "mytracker": ("mytracker", {"fields": MYTRACKER}),
    "mytracker, method": ("mytracker", {"fields": MYTRACKER | {"method": "kind"}}),
    "mytracker, milliseconds": ("mytracker", {"fields": MYTRACKER | {"eventTimestamp": {"path": "at", "unit": "ms"}}}),
    "mytracker, no time": (
        "mytracker",
        {"fields": {name: source for name, source in MYTRACKER.items() if name != "eventTimestamp"}},
    ),
    "jiguang, id as text": ("jiguang", {"fields": JIGUANG | {"randomId": "id"}, "id": "id", "where": {"id": "own"}}),
    "jiguang, enum": ("jiguang", {"fields": JIGUANG | {"eventName": "kind"}}),
    "jiguang, list or map": ("jiguang", {"fields": JIGUANG | {"properties": "either"}}),
    "quick_audience, order and list": (
        "quick_audience",
        {"fields": QUICK_AUDIENCE | {"isOrder": "id", "customerIdList": "either"}},
    ),
    "quick_audience": ("quick_audience", {"fields": QUICK_AUDIENCE, "where": {"user.home.city": "c"}}),
}
CITIES: Final = st.just("c") | TEXTS
NUMBERS: Final = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([NOW, NOW * 1000, NOW // 1000]) | TIMES
VALUE: Final = (
    st.none()
    | TEXTS
    | NUMBERS
    | st.booleans()
    | st.floats()
    | st.lists(TEXTS, max_size=2)
    | st.sampled_from([1e16, 1.5])
)
DATA: Final = st.fixed_dictionaries(
    {
        "id": st.none() | TEXTS,
        "noise": st.lists(st.none() | TEXTS | st.binary(max_size=2), max_size=2),
        "user": st.none()
        | st.fixed_dictionaries(
            {
                "number": NUMBERS | TEXTS,
                "name": st.just("u") | st.none() | TEXTS | NUMBERS | st.floats(),
                "home": st.fixed_dictionaries({"city": CITIES}),
            }
        ),
        "kind": st.sampled_from(["login", "customEvent", "other"]),
        "at": NUMBERS | st.none() | TEXTS,
        "moment": st.none() | NUMBERS,
        "either": st.lists(TEXTS, max_size=1) | st.dictionaries(TEXTS, TEXTS, max_size=1),
        "values": st.none() | st.dictionaries(TEXTS, VALUE, max_size=4),
    }
)
"""Any event; most of them are not plain for some route."""
PLAIN: Final[dict[str, Any]] = {
    "id": "own",
    "noise": [],
    "user": {"number": 7, "name": "u", "home": {"city": "c"}},
    "kind": "login",
    "at": NOW,
    "moment": NOW * 1000 + 999,
    "either": {"a": "b"},
    "values": {"a": "b", "c": None, "d": 1, "e": True, "f": 1e16, "g": ["h", '"']},
}


@cache
def schema() -> Schema:
    """Return the foreign schema."""
    return read_schema(json.dumps(TREE))


@cache
def decoder() -> Decoder:
    """Return a decoder that knows it."""
    return Decoder(CONTRACTS, clock=SystemClock(), schemas=[schema()])


def compiled(vendor: str, route: dict[str, Any]) -> tuple[RouteTable, Vendor]:
    """Return the table of one route to a vendor, and the vendor."""
    account = KINDS[vendor].settings(vendor=vendor, **ACCOUNTS[vendor])
    configured = Settings.model_validate(
        {
            "kafka": KafkaSettings(topics=("topic",), group_id="g", client={"bootstrap.servers": "none"}),
            "destinations": {"d": account},
            "routes": [{**route, "schema": NAME, "to": ["d"], "fields": {vendor: route["fields"]}}],
        }
    )
    return RouteTable.compile(configured, KINDS), KINDS[vendor].build(account)


@cache
def table(name: str) -> tuple[RouteTable, Vendor]:
    """Return the table of one of the routes, and its vendor."""
    return compiled(*ROUTES[name])


def record_of(offset: int, datum: dict[str, Any]) -> Record:
    """Return a record with the event."""
    value = written(without_logical_types(schema().tree), datum, schema().fingerprint)
    return Record("topic", 3, offset, NOW, b"key", value, ())


def assert_same(name: str, records: list[Record]) -> int:
    """Compare both ways record by record; return how many compiled code wrote."""
    routes, vendor = table(name)
    straight = routes.straight("topic", NAME)
    assert straight is not None
    made = at_once(vendor, decoder(), records, straight.mapping)
    for record, (group, delivery) in zip(records, made, strict=False):
        (routed,) = routes.route(decoder().event(record), record, "cluster")
        assert isinstance(routed.event, VendorEvent)
        assert (group, delivery.item) == (vendor.group(routed.event), vendor.encode(routed.event, NOW))
        assert delivery.identity == routed.identity
    return len(made)


def plain_for(name: str) -> dict[str, Any]:
    """Return an event that is plain for a route."""
    in_seconds = name in ("jiguang, seconds", "mytracker", "mytracker, method")
    plain = PLAIN | {"at": NOW // 1000 if in_seconds else NOW, "kind": "customEvent" if "method" in name else "login"}
    return plain | {"id": "1", "either": []} if name == "quick_audience, order and list" else plain


@pytest.mark.parametrize("name", ROUTES)
def test_plain_records_of_a_mapped_schema_are_written_at_once(name: str) -> None:
    """A run that a route maps needs no event. Kills: a mapping that is never taken."""
    assert assert_same(name, [record_of(number, plain_for(name)) for number in range(3)]) == 3


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ROUTES)), DATA, st.sets(st.sampled_from(sorted(PLAIN)), max_size=3))
def test_a_mapped_item_written_at_once_is_what_the_steps_make(name: str, drawn: dict[str, Any], odd: set[str]) -> None:
    """The same item, group and identity. Kills: a unit forgotten; a condition that is not asked; an id left out."""
    datum = plain_for(name) | {field: drawn[field] for field in odd}
    assert_same(name, [record_of(1, datum)])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(ROUTES)), st.data())
def test_a_spoiled_mapped_record_is_never_taken_for_another(name: str, data: st.DataObject) -> None:
    """A cut or changed value is left to the steps, or is the same item. Kills: a read past a nested record's end."""
    record = record_of(1, plain_for(name))
    value = record.value or b""
    place = data.draw(st.integers(10, len(value) - 1))
    spoiled = value[:place] + data.draw(st.binary(max_size=2)) + value[place + 1 :]
    changed = Record("topic", 3, 1, NOW, b"key", spoiled, ())
    try:
        decoder().event(changed)
    except Refusal:
        routes, vendor = table(name)
        straight = routes.straight("topic", NAME)
        assert straight is not None
        assert at_once(vendor, decoder(), [changed], straight.mapping) == []
    else:
        assert_same(name, [changed])


@pytest.mark.parametrize(
    "route",
    [
        {"fields": JIGUANG | {"randomId": "$key"}},
        {"fields": JIGUANG | {"randomId": {"path": "id", "hash": "sha256"}}},
        {"fields": JIGUANG | {"randomId": {"path": "id", "default": "x"}}},
        {"fields": JIGUANG | {"properties": {"map": {"a": "id"}}}},
        {"fields": JIGUANG, "where": {"kind": {"not": "login"}}},
        {"fields": JIGUANG, "where": {"id": None}},
        {"fields": JIGUANG, "sample": 0.5},
        {"fields": JIGUANG, "id": "$key"},
    ],
    ids=["key", "hash", "default", "map", "negation", "null", "sample", "id by key"],
)
def test_a_route_that_asks_for_more_goes_step_by_step(route: dict[str, Any]) -> None:
    """Only paths, constants and texts have a plain form. Kills: a default or a condition that is passed over."""
    routes, _ = compiled("jiguang", route)
    assert routes.straight("topic", NAME) is None


@pytest.mark.parametrize(
    "changed",
    [{"properties": "user"}, {"cuid": "values.cuid"}, {"cuid": "missing"}, {"randomId": "user.home.city"}],
    ids=["a record as a map", "inside a map", "not there", "two fields from one path"],
)
def test_a_source_that_is_never_plain_is_not_tried(changed: dict[str, str]) -> None:
    """A mapping that compiled code cannot do costs no try for each record. Kills: each record read twice."""
    routes, vendor = compiled("jiguang", {"fields": JIGUANG | changed})
    straight, found = routes.straight("topic", NAME), decoder().plain(record_of(1, PLAIN))
    assert straight is not None
    assert found is not None
    assert isinstance(vendor, Shaped)
    assert found[1].maker(vendor.shape, straight.mapping) is None
