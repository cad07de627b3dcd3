"""What a route takes and drops: conditions, `to: []`, samples, and the message if only a condition failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest
from msgspec.structs import replace

from connector.errors import ConfigurationError, FatalError, Refusal
from connector.records import Event, LogicalType, LogicalValue
from connector.routing.table import RouteTable, Skipped
from tests.unit.routing.routes import ALPHA, ALPHA_MAP, CLUSTER, DATUM, FOREIGN, KINDS, RECORD, route, settings, table

MILLIS = LogicalType("timestamp-millis")
SHOP = DATUM | {
    "channel": "WEB",
    "total": LogicalValue(LogicalType("decimal", 2), (1999).to_bytes(2, "big")),
    "price": 19.99,
    "at": LogicalValue(MILLIS, int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)),
    "day": LogicalValue(LogicalType("date"), 20_777),
    "name": "login-page",
    "tags": ["a"],
    "raw": b"x",
}
DROP: dict[str, Any] = {"schema": FOREIGN, "where": {"consent": {"not": True}}, "to": []}
TAKE: dict[str, Any] = {"schema": FOREIGN, "to": ["a"], "fields": ALPHA_MAP}


@pytest.mark.parametrize(
    ("where", "met"),
    [
        ({"name": {"exists": True}}, True),
        ({"absent": {"exists": True}}, False),
        ({"none": {"exists": True}}, False),
        ({"none": {"exists": False}}, True),
        ({"tags": {"exists": True}}, True),
        ({"channel": {"not": "WEB"}}, False),
        ({"channel": {"not": ["APP", "STORE"]}}, True),
        ({"channel": {"not": {"in": ["WEB"]}}}, False),
        ({"absent": {"not": "x"}}, True),
        ({"none": {"not": None}}, False),
        ({"tags": {"not": "a"}}, True),
        ({"channel": {"in": ["WEB", "APP"]}}, True),
        ({"count": {"gt": 4}}, True),
        ({"count": {"gt": 5}}, False),
        ({"count": {"ge": 5, "le": 5}}, True),
        ({"count": {"gt": 4, "lt": 5}}, False),
        ({"price": {"ge": 19.99}}, True),
        ({"total": {"ge": 19.99, "le": 19.99}}, True),
        ({"total": 19.99}, True),
        ({"total": {"gt": 20}}, False),
        ({"absent": {"gt": 0}}, False),
        ({"none": {"lt": 0}}, False),
        ({"paid": {"gt": 0}}, False),
        ({"name": {"gt": 0}}, False),
        ({"at": {"gt": "2026-11-20T11:59:59Z"}}, True),
        ({"at": {"lt": "2026-11-20T12:00:00+00:00"}}, False),
        ({"at": {"ge": "2026-11-20"}}, True),
        ({"day": {"lt": "2026-11-21"}}, True),
        ({"name": {"ge": "login"}}, True),
        ({"$timestamp": {"gt": "2023-11-14T22:13:20Z"}}, True),
        ({"$timestamp": {"gt": 1_700_000_000_123}}, False),
        ({"$header.count": {"gt": 9}}, True),
        ({"$header.source": {"gt": 9}}, False),
        ({"$header.source": {"in": ["app"]}}, True),
        ({"$header.gone": {"exists": False}}, True),
        ({"name": {"matches": "^login"}}, True),
        ({"name": {"matches": "page$"}}, True),
        ({"name": {"matches": "^page"}}, False),
        ({"name": {"not": {"matches": "^login"}}}, False),
        ({"count": {"matches": "5"}}, False),
        ({"absent": {"matches": ".*"}}, False),
        ({"raw": {"matches": "x"}}, False),
        ({"name": "^login"}, False),
        ({"cel": "event.channel == 'WEB' && headers.source == 'app' && key == 'k1'"}, True),
        ({"cel": "topic == 'app-events' && timestamp > 1"}, True),
        ({"cel": "event.count > 5", "channel": "WEB"}, False),
    ],
)
def test_conditions(where: dict[str, Any], met: bool) -> None:
    """Presence, negation, order, sets and patterns; what has another kind matches nothing, and so its negation."""
    record = replace(RECORD, headers=[*RECORD.headers, ("count", b"10")])
    routed = route([{**TAKE, "where": where}], Event(FOREIGN, SHOP), record, unrouted="skip")
    assert bool(routed) is met


def test_a_dropping_route_wins_wherever_it_is() -> None:
    """`to: []` drops a matching record, also where routes before it match; the reason names the route."""
    refused = Event(FOREIGN, DATUM | {"consent": False})
    agreed = Event(FOREIGN, DATUM | {"consent": True})
    for routes, index in (([TAKE, DROP], 1), ([DROP, TAKE], 0)):
        found = route(routes, refused)
        assert isinstance(found, Skipped)
        assert (found, found.reason) == ([], f"routes[{index}]")
        assert [each.destination for each in route(routes, agreed)] == ["a"]


def test_contract_events_can_be_dropped() -> None:
    """A dropping route applies to events that need no route, too."""
    routes = [{"where": {"cuid": 5}, "to": []}]
    assert route(routes, Event(ALPHA, {"cuid": 5})) == []
    assert [each.destination for each in route(routes, Event(ALPHA, {"cuid": 6}))] == ["a"]


def test_a_dropping_route_hides_no_destination() -> None:
    """What may reach a destination is known without decoding, also where some of it is dropped."""
    dropping = table([DROP, TAKE])
    assert dropping.may_reach("a", "app-events", FOREIGN)
    assert dropping.reaches("app-events") == {"a", "b"}
    assert table([{"to": []}]).reaches("app-events") == frozenset()


def test_a_sample_is_a_share_by_the_dedup_id() -> None:
    """A route with `sample` takes its share, the same records each time; the others are skipped and no dead letters."""
    compiled = table([{**TAKE, "sample": 0.1}])
    records = [replace(RECORD, offset=offset) for offset in range(2000)]

    def taken(tables: RouteTable) -> list[int]:
        found = [(record.offset, tables.route(Event(FOREIGN, DATUM), record, CLUSTER)) for record in records]
        assert all(isinstance(each, Skipped) and each.reason == "sample" for _, each in found if not each)
        return [offset for offset, each in found if each]

    first = taken(compiled)
    assert 140 < len(first) < 260
    assert taken(table([{**TAKE, "sample": 0.1}])) == first
    assert set(first) < set(taken(table([{**TAKE, "sample": 0.5}])))


def test_a_sample_follows_the_events_own_id() -> None:
    """With `id`, an event that comes twice is taken both times or neither time."""
    routes = [{**TAKE, "sample": 0.5, "id": "event_id"}]
    for number in range(50):
        event = Event(FOREIGN, DATUM | {"event_id": f"e-{number}"})
        once, again = (route(routes, event, replace(RECORD, offset=offset)) for offset in (1, 99))
        assert bool(once) is bool(again)


def test_a_sample_is_the_same_in_every_process() -> None:
    """The sample is chosen by the dedup id's first 32 bits, so all members and restarts choose the same events."""
    namespace = UUID("6f1e3b52-c0a6-524f-9a4b-1d5a7c2f9e10")
    for number in range(40):
        event = Event(FOREIGN, DATUM | {"event_id": f"e-{number}"})
        taken = uuid5(namespace, f"id:e-{number}").int >> 96 < 0.3 * 2**32
        assert bool(route([{**TAKE, "sample": 0.3, "id": "event_id"}], event)) is taken


def test_what_a_dropping_sample_leaves_goes_on() -> None:
    """`to: []` with `sample` drops its share; the rest takes the other routes."""
    compiled = table([{"to": [], "sample": 0.5}, TAKE])
    found = [compiled.route(Event(FOREIGN, DATUM), replace(RECORD, offset=each), CLUSTER) for each in range(200)]
    dropped = [each.reason for each in found if isinstance(each, Skipped)]
    assert set(dropped) == {"routes[0]"}
    assert 60 < len(dropped) < 140
    assert all(each[0].destination == "a" for each in found if each)


def test_a_route_that_fails_by_its_condition_says_which() -> None:
    """`route.unmet` names the routes and their conditions, never that no route matches the schema."""
    routes = [{**TAKE, "where": {"platform": "ios", "paid": False}}, {**TAKE, "where": {"count": {"gt": 9}}}, DROP]
    agreed = Event(FOREIGN, DATUM | {"consent": True})
    with pytest.raises(Refusal) as caught:
        route(routes, agreed)
    refusal = caught.value
    assert (refusal.code, refusal.field) == ("route.unmet", "where.paid")
    assert "routes[0].where.paid, routes[1].where.count" in refusal.message
    assert "no route matches" not in refusal.message
    assert route(routes, agreed, unrouted="skip") == []
    with pytest.raises(FatalError, match="do not match"):
        route(routes, agreed, unrouted="stop")


def test_without_a_route_for_the_schema_the_refusal_says_so() -> None:
    """A route that drops is no route to somewhere; `route.unrouted` stays for what no route is for."""
    with pytest.raises(Refusal, match="no route matches schema") as caught:
        route([DROP, {**TAKE, "schema": "com.acme.Other"}], Event(FOREIGN, DATUM | {"consent": True}))
    assert caught.value.code == "route.unrouted"


@pytest.mark.parametrize(
    ("where", "code", "field"),
    [
        ({"cel": "event.nowhere == 1"}, "route.where.cel", "where.cel"),
        ({"cel": "event.count"}, "route.where.type", "where.cel"),
        ({"name": {"matches": "a.*b.*c"}}, "route.where.size", "where.name"),
    ],
)
def test_a_condition_that_cannot_be_told_refuses_the_record(where: dict[str, Any], code: str, field: str) -> None:
    """An expression that fails, or a text that is too long for its pattern, refuses that record with its place."""
    with pytest.raises(Refusal) as caught:
        route([{**TAKE, "where": where}], Event(FOREIGN, SHOP | {"name": "a" * 5000}))
    assert (caught.value.cause, caught.value.code, caught.value.field) == ("route", code, field)
    assert "aaaa" not in caught.value.message


ITEM = {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]}
SCHEMA = {
    "type": "record",
    "name": FOREIGN,
    "fields": [
        {"name": "channel", "type": ["null", {"type": "enum", "name": "Channel", "symbols": ["WEB", "APP"]}]},
        {"name": "paid", "type": "boolean"},
        {"name": "count", "type": "int"},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "name", "type": "string"},
        {"name": "items", "type": {"type": "array", "items": ITEM}},
        {"name": "raw", "type": "bytes"},
    ],
}


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ({"channel": ["WEB", "APPP"]}, "the enum has no symbol 'APPP'; did you mean APP?"),
        ({"channel": {"not": "WEBB"}}, "the enum has no symbol 'WEBB'; did you mean WEB?"),
        ({"channel": {"in": ["WEBB"]}}, "the enum has no symbol 'WEBB'; did you mean WEB?"),
        ({"paid": "true"}, "the value is a boolean, and never equals a string"),
        ({"paid": 1}, "the value is a boolean, and never equals a whole number"),
        ({"count": "5"}, "the value is a whole number, and never equals a string"),
        ({"count": {"gt": "5"}}, "the value is a whole number, and never equals a string"),
        ({"name": {"gt": 5}}, "the value is a string, and never equals a whole number"),
        ({"count": True}, "the value is a whole number, and never equals a boolean"),
        ({"total": "19.99"}, "the value is a decimal, and never equals a string"),
        ({"tags": "a"}, "the value is an array, and never equals a string"),
        ({"count": {"matches": "5"}}, "the value is a whole number, and never equals a string"),
        ({"at": {"gt": "soon"}}, "gt of a time must be a time such as"),
        ({"$timestamp": {"gt": "soon"}}, "gt of a time must be milliseconds"),
        ({"chanel": "WEB"}, "the record has no field 'chanel'; did you mean channel?"),
        ({"name": {"matches": "("}}, "'(' is not a regular expression"),
        ({"name": {"matches": "(a+)+"}}, "a repetition or a choice inside a repetition"),
        ({"cel": "event.nam == 'x'"}, "the record has no field 'nam'; did you mean name?"),
        ({"cel": "event.name =="}, "not a valid expression"),
        ({"cel": "event.count"}, "the expression must give true or false; it gives a whole number"),
        ({"cel": "size(event.tags) + 1"}, "the expression must give true or false; it gives a whole number or"),
        ({"cel": "(event.paid ? event.name : 'x')"}, "must give true or false; it gives a string"),
        ({"cel": "[event.paid]"}, "must give true or false; it gives an array"),
        ({"cel": "event.tags.map(t, t == 'a')"}, "must give true or false; it gives an array"),
        ({"cel": "null"}, "must give true or false; it gives null"),
        ({"cel": "event.paid && event.channel == 'APPP'"}, "the enum has no symbol 'APPP'; did you mean APP?"),
        ({"cel": "'APPP' != event.channel"}, "the enum has no symbol 'APPP'; did you mean APP?"),
        ({"cel": "event.channel in ['WEB', 'APPP']"}, "the enum has no symbol 'APPP'; did you mean APP?"),
        ({"cel": "event.paid == 'true'"}, "the value is a boolean, and never equals a string"),
        ({"cel": "event.count > '5'"}, "the value is a whole number, and never equals a string"),
        ({"cel": "event.at > '2026-11-20'"}, "the value is a timestamp, and never equals a string; write timestamp"),
        ({"cel": "event.total + event.name == 'x'"}, "a double and text cannot be combined; convert with"),
        ({"cel": "event.total * 2 > 1.0"}, "a double and an int cannot be combined"),
        ({"cel": "1 + event.name == 'x'"}, "an int and text cannot be combined"),
        (
            {"cel": "event.items.exists(i, i.skuu == 'a')"},
            "the record at items[] has no field 'skuu'; did you mean sku?",
        ),
        ({"channel": {"matches": "^WEBB$"}}, "no symbol of the enum matches '^WEBB$'; its symbols: APP, WEB"),
        ({"channel": {"matches": "^W"}}, None),
        ({"cel": "event.items.all(i, i.sku + 'x' != event.name) && event.count + 1 > 2 && -event.count < 1"}, None),
        ({"cel": "event.total * 2.0 + 1.0 > 1.0 && string(event.total) + event.name != 'x'"}, None),
        ({"cel": "event.name.size() + 1 > 2 && event.at - event.at == event.at - event.at"}, None),
        ({"cel": "event.paid"}, None),
        ({"cel": "!(event.count > 5) || event.tags.exists(t, t == 'a')"}, None),
        ({"cel": "event.paid ? event.count + 1 > 2 : 'a' in event.tags"}, None),
        ({"cel": "'x' + event.name == 'xa' && event.name + 'x' != 'y' && event.channel != null"}, None),
        ({"cel": "event.total >= 5 && event.count == 5.0 && event.channel in ['WEB'] && topic == 't'"}, None),
        ({"cel": "event.at > timestamp('2026-11-20T00:00:00Z') && key.matches('a') && headers.a == 'x'"}, None),
        ({"cel": "dyn(event.count) == 'x' || first(event.tags)"}, None),
        ({"channel": "WEB"}, None),
        ({"channel": None}, None),
        ({"total": {"gt": 5}, "at": {"gt": "2026-11-20"}, "count": {"in": [1, 2.0]}, "raw": {"exists": True}}, None),
    ],
)
def test_conditions_are_checked_against_the_schema(where: dict[str, Any], fault: str | None) -> None:
    """What can never match by the schema's types is a fault at start, with the nearest symbol or field."""
    made = settings([{"schema": FOREIGN, "where": where, "to": []}])
    if fault is None:
        RouteTable.compile(made, KINDS, {FOREIGN: SCHEMA})
        return
    with pytest.raises(ConfigurationError) as caught:
        RouteTable.compile(made, KINDS, {FOREIGN: SCHEMA})
    assert [each.path for each in caught.value.faults] == [f"routes[0].where.{next(iter(where))}"]
    assert fault in caught.value.faults[0].message
