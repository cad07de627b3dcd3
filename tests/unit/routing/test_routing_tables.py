"""Routes: what they match, which faults are found at start, and which destinations they can reach."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.errors import ConfigurationError, Refusal
from connector.records import Event
from connector.routing.table import Routed, RouteTable, event_identity, position_identity
from connector.vendors.base import VendorEvent
from tests.unit.routing.routes import (
    ALPHA,
    ALPHA_MAP,
    BETA,
    BETA_MAP,
    CLUSTER,
    DATUM,
    ENVELOPE,
    EVENT,
    FOREIGN,
    KINDS,
    POSITION,
    RECORD,
    envelope,
    fields,
    refused,
    route,
    settings,
    table,
)


@pytest.mark.parametrize(
    ("where", "met"),
    [
        ({}, True),
        ({"platform": "ios"}, True),
        ({"platform": ["android", "ios"]}, True),
        ({"platform": "android"}, False),
        ({"platform": "ios", "count": 6}, False),
        ({"count": 5}, True),
        ({"count": 5.0}, True),
        ({"count": "5"}, False),
        ({"count": True}, False),
        ({"paid": True}, True),
        ({"paid": 1}, False),
        ({"paid": "true"}, False),
        ({"none": None}, True),
        ({"none": [None, "x"]}, True),
        ({"absent.deep": None}, True),
        ({"absent": "x"}, False),
        ({"platform": None}, False),
        ({"user": None}, False),
        ({"user.id": [1, 77]}, True),
        ({"$header.vip": True}, True),
        ({"$header.vip": "true"}, True),
        ({"$header.vip": False}, False),
        ({"$header.source": ["web", "app"]}, True),
        ({"$header.gone": None}, True),
        ({"$key": "k1"}, True),
        ({"$timestamp": 1_700_000_000_123}, True),
        ({"day": date(2026, 11, 21)}, True),
        ({"day": "2026-11-21"}, True),
        ({"id": "12345678-1234-5678-1234-567812345678"}, True),
        ({"raw": "x"}, False),
        ({"list": "x"}, False),
    ],
)
def test_where(where: dict[str, Any], met: bool) -> None:
    """A value is compared by its own kind; several entries must all be met; a header is compared as text."""
    datum = DATUM | {
        "day": date(2026, 11, 21),
        "id": UUID("12345678-1234-5678-1234-567812345678"),
        "raw": b"x",
        "list": ["x"],
    }
    routed = route(
        [{"schema": FOREIGN, "where": where, "to": ["a"], "fields": ALPHA_MAP}], Event(FOREIGN, datum), unrouted="skip"
    )
    assert bool(routed) is met


def test_a_header_that_is_no_text_meets_nothing() -> None:
    """Bytes that are not UTF-8 make a condition unmet, not the record refused."""
    record = replace(RECORD, headers=[("source", b"\xff")])
    where = {"$header.source": [None, "app"]}
    routes = [{"schema": FOREIGN, "where": where, "to": ["a"], "fields": ALPHA_MAP}]
    assert route(routes, record=record, unrouted="skip") == []


@pytest.mark.parametrize(
    ("topics", "topic", "met"),
    [
        (["app-events"], "app-events", True),
        (["app-events"], "app-events-2", False),
        (["^app"], "app-events", True),
        (["^app$"], "app-events", False),
        (["^vents"], "app-events", False),
        (["other", "^x", "^app-.*s$"], "app-events", True),
        (None, "anything", True),
    ],
)
def test_topics(topics: list[str] | None, topic: str, met: bool) -> None:
    """A name is exact; a pattern matches from the start of the name and is open at its end, as a subscription does."""
    routes = [{"topics": topics, "schema": FOREIGN, "to": ["a"], "fields": ALPHA_MAP}]
    assert bool(route(routes, record=replace(RECORD, topic=topic), unrouted="skip")) is met


def test_a_mapping_that_refuses_concerns_its_destination_only() -> None:
    """A fault of one destination makes one dead letter; the route's other destinations get the event."""
    first, second = route(
        [{"schema": FOREIGN, "to": ["a", "b"], "fields": {**ALPHA_MAP, **BETA_MAP}}],
        Event(FOREIGN, {"user": {"id": "not-a-number"}}),
    )
    assert (refused(first).cause, refused(first).code) == ("invalid", "mapping.cuid.type")
    assert fields(second) == {"user": "not-a-number"}


def test_a_route_without_a_schema_may_meet_events_it_cannot_map() -> None:
    """A contract event passes as it is; a foreign one without a mapping is refused for that destination."""
    routes: list[dict[str, Any]] = [{"to": ["a", "b"], "fields": ALPHA_MAP}]
    mine, other = route(routes, Event(ALPHA, {"cuid": 3}))
    assert fields(mine) == {"cuid": 3}
    assert refused(other).code == "route.unmapped"
    mapped, unmapped = route(routes)
    assert fields(mapped) == {"cuid": 77, "at": None}
    assert refused(unmapped).code == "route.unmapped"


def test_a_route_that_names_the_contract_schema_may_map_it() -> None:
    """Where route and mapping both name it, the mapping is meant, also between a vendor's own fields."""
    [routed] = route(
        [{"schema": ALPHA, "to": ["a"], "fields": {"alpha": {"cuid": "other"}}}], Event(ALPHA, {"other": 4})
    )
    assert fields(routed) == {"cuid": 4, "at": None}


def test_entity_is_the_routes_word() -> None:
    """`entity: true` travels with the event to the vendor."""
    [routed] = route([{"schema": ALPHA, "to": ["a"], "entity": True}], Event(ALPHA, {}))
    assert isinstance(routed.event, VendorEvent)
    assert routed.event.entity


def test_faults_come_at_once_with_their_paths() -> None:
    """Faults of sources, conditions, mappings and schema names of all routes are reported together."""
    routes: list[dict[str, Any]] = [
        {
            "topics": [],
            "schema": FOREIGN,
            "where": {"a..b": 1, "c": [], "d": [{"x": 1}]},
            "id": "$id",
            "to": ["a", "b"],
        },
        {"schema": "connector.events.AlfaEvent", "to": ["a"], "fields": {"alpha": {"cuidd": "x"}}},
    ]
    with pytest.raises(ConfigurationError) as caught:
        table(routes)
    assert sorted(fault.path for fault in caught.value.faults) == [
        "routes[0].fields.alpha",
        "routes[0].fields.beta",
        "routes[0].id",
        "routes[0].topics",
        "routes[0].where.a..b",
        "routes[0].where.c",
        "routes[0].where.d",
        "routes[1].fields.alpha.cuid",
        "routes[1].fields.alpha.cuidd",
        "routes[1].schema",
    ]
    assert "did you mean connector.events.AlphaEvent?" in str(caught.value)


def test_paths_are_checked_against_a_known_schema() -> None:
    """Where the writer's schema is known at start, a path that it cannot have is a fault in every place."""
    schema = {"type": "record", "name": FOREIGN, "fields": [{"name": "platform", "type": "string"}]}
    made = settings([{"schema": FOREIGN, "where": {"plattform": 1}, "id": "eid", "to": ["a"], "fields": ALPHA_MAP}])
    with pytest.raises(ConfigurationError) as caught:
        RouteTable.compile(made, KINDS, {FOREIGN: schema})
    paths = [fault.path for fault in caught.value.faults]
    assert paths == ["routes[0].where.plattform", "routes[0].fields.alpha.cuid", "routes[0].id"]


def test_reach() -> None:
    """A topic reaches all destinations, for envelopes, unless a route without conditions takes it whole."""
    routes: list[dict[str, Any]] = [
        {"topics": ["app-events"], "to": ["a"]},
        {"topics": ["^other-"], "schema": FOREIGN, "to": ["b"], "fields": BETA_MAP},
    ]
    made = table(routes)
    assert made.reaches("app-events") == {"a"}
    assert made.reaches("other-1") == {"a", "b"}
    assert made.may_reach("b", "other-1", FOREIGN)
    assert not made.may_reach("a", "other-1", FOREIGN)
    assert not made.may_reach("b", "app-events", ENVELOPE)
    assert made.may_reach("b", "other-1", ENVELOPE)
    assert made.may_reach("a", "other-1", ALPHA)
    assert not made.may_reach("b", "other-1", ALPHA)
    sometimes = table([{"schema": BETA, "where": {"platform": "ios"}, "to": ["a"], "fields": {"alpha": {"cuid": "x"}}}])
    assert sometimes.may_reach("b", "app-events", BETA)
    always = table([{"schema": BETA, "to": ["a"], "fields": {"alpha": {"cuid": "x"}}}])
    assert not always.may_reach("b", "app-events", BETA)


route_strategy = st.fixed_dictionaries(
    {"to": st.lists(st.sampled_from(["a", "b", "a2"]), min_size=1, max_size=3, unique=True)},
    optional={
        "topics": st.lists(st.sampled_from(["app-events", "other-1", "^other"]), min_size=1, max_size=2),
        "schema": st.sampled_from([ALPHA, BETA, ENVELOPE, FOREIGN]),
        "where": st.dictionaries(
            st.sampled_from(["platform", "$header.vip", "cuid"]), st.sampled_from(["ios", True, 1])
        ),
        "id": st.sampled_from(["event_id", "$key"]),
    },
)
events = st.one_of(
    st.builds(
        Event,
        st.sampled_from([ALPHA, BETA, FOREIGN]),
        st.fixed_dictionaries({"platform": st.sampled_from(["ios", "web"]), "cuid": st.integers(0, 2)}),
    ),
    st.builds(
        envelope,
        st.sampled_from(["a", "b", "alpha", "beta", "x"]),
        st.tuples(st.sampled_from([ALPHA, BETA]), st.just({"cuid": 1})),
    ),
)


@given(st.lists(route_strategy, max_size=4), events, st.sampled_from(["app-events", "other-1"]))
def test_routing_stays_inside_its_reach(routes: list[dict[str, Any]], event: Event, topic: str) -> None:
    """Each destination at most once, none that `reaches` or `may_reach` excludes, the first route first.

    Kills: leaving the default out of the reach where a route has conditions.
    """
    mappings = {"alpha": {"cuid": "cuid"}, "beta": {"user": "platform"}}
    vendors = {"a": "alpha", "a2": "alpha", "b": "beta"}
    for one in routes:
        one["fields"] = {vendors[name]: mappings[vendors[name]] for name in one["to"]}
    made = table(routes, vendors, unrouted="skip")
    record = replace(RECORD, topic=topic)
    routed: list[Routed] = []
    with suppress(Refusal):
        routed = made.route(event, record, CLUSTER)
    names = [one.destination for one in routed]
    assert len(names) == len(set(names))
    for name in names:
        assert name in made.reaches(topic)
        assert made.may_reach(name, topic, event.schema)
    indexes = [one.route for one in routed if one.route is not None]
    assert indexes == sorted(indexes)


@given(st.text(max_size=30), st.sampled_from(["a/b/0/1", f"id:{CLUSTER}", POSITION]) | st.text(max_size=30))
def test_an_id_never_equals_a_position(text: str, topic: str) -> None:
    """No text that a producer writes as an id makes its event look like another record.

    Kills: using the id as the identity without a mark.
    """
    record = replace(RECORD, topic=topic)
    position = position_identity(CLUSTER, record)
    assert position != event_identity(text)
    assert event_identity(position) != position


def test_the_decision_is_made_once_for_a_topic_and_schema() -> None:
    """However many records come, routes are matched with a topic and schema once.

    Kills: matching routes again for every record.
    """
    calls: Counter[str] = Counter()
    made = table([{"topics": ["app-events"], "schema": FOREIGN, "to": ["a"], "fields": ALPHA_MAP}])
    original = type(made.routes[0]).is_for

    def counting(self: Any, topic: str, schema: str) -> bool:
        calls[schema] += 1
        return original(self, topic, schema)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made.routes[0]), "is_for", counting)
        for _ in range(100):
            made.route(Event(ALPHA, {}), RECORD, CLUSTER)
            made.route(EVENT, RECORD, CLUSTER)
    assert calls == {ALPHA: 1, FOREIGN: 1}
