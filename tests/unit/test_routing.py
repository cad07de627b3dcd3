"""Routing: every event goes where the documented rules say, once for each destination, with an identity for ever."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config import DestinationSettings, Settings
from connector.errors import ConfigurationError, FatalError, Refusal
from connector.pipeline.routing import Routed, RouteTable, event_identity, position_identity
from connector.records import Event, Record
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


def test_a_bare_contract_event_goes_to_its_vendors_only_destination() -> None:
    """Without a route, as it is, with the record's timestamp and the identity of its position."""
    datum = {"cuid": 1}
    [routed] = route([], Event(ALPHA, datum))
    assert routed == Routed("a", VendorEvent(datum, POSITION, RECORD.timestamp), POSITION, None)


def test_a_bare_contract_event_with_several_destinations_needs_a_route() -> None:
    """Two accounts at one vendor: nothing is guessed, the refusal names them; a route decides."""
    two = {"a": "alpha", "a2": "alpha"}
    with pytest.raises(Refusal, match="a, a2") as caught:
        route([], Event(ALPHA, {}), destinations=two)
    assert (caught.value.cause, caught.value.code) == ("route", "route.ambiguous")
    [routed] = route([{"schema": ALPHA, "to": ["a2"]}], Event(ALPHA, {}), destinations=two)
    assert (routed.destination, routed.route) == ("a2", 0)


@pytest.mark.parametrize("target", ["a", "alpha"])
def test_an_envelope_goes_to_its_target(target: str) -> None:
    """A target is a destination's name or a vendor's with one destination; the identity is the envelope's id."""
    [routed] = route([], envelope(target, (ALPHA, {"cuid": 1})))
    identity = event_identity("e-9")
    assert routed == Routed("a", VendorEvent({"cuid": 1}, identity, RECORD.timestamp), identity)


def test_a_destinations_name_wins_over_a_vendors() -> None:
    """A destination may be called as a vendor is; its own name is meant then."""
    [routed] = route([], envelope("alpha", (BETA, {"user": "u"})), destinations={"a": "alpha", "alpha": "beta"})
    assert routed.destination == "alpha"


@pytest.mark.parametrize(
    ("target", "code"), [("gamma", "route.unknown_target"), ("", "route.unknown_target"), ("alpha", "route.ambiguous")]
)
def test_an_envelope_without_one_target_is_refused(target: str, code: str) -> None:
    """An unknown target, or a vendor with two destinations, is the record's fault."""
    with pytest.raises(Refusal) as caught:
        route([], envelope(target, (ALPHA, {})), destinations={"a": "alpha", "a2": "alpha"})
    assert (caught.value.cause, caught.value.code, caught.value.field) == ("route", code, "target")


@pytest.mark.parametrize("body", [(BETA, {"user": "u"}), {"user": "u"}, None])
def test_an_envelope_with_another_vendors_body_is_refused(body: Any) -> None:
    """The refusal is the destination's, so its dead letter names the destination and keeps the envelope's identity."""
    [routed] = route([], envelope("a", body))
    assert (routed.destination, routed.identity) == ("a", event_identity("e-9"))
    assert (refused(routed).cause, refused(routed).code) == ("route", "route.body_mismatch")


def test_an_envelope_without_an_id_has_its_position() -> None:
    """An empty id would be one identity for all such events."""
    assert route([], envelope("a", (ALPHA, {}), ""))[0].identity == POSITION


def test_a_route_that_matches_an_envelope_wins_over_its_target() -> None:
    """An explicit `to` replaces the target; conditions and mappings see the envelope, without a step for the union."""
    routes = [{"schema": ENVELOPE, "where": {"body.kind": "x"}, "to": ["b"], "fields": {"beta": {"user": "body.cuid"}}}]
    [routed] = route(routes, envelope("a", (ALPHA, {"cuid": 5, "kind": "x"})))
    assert (routed.destination, fields(routed), routed.identity) == ("b", {"user": "5"}, event_identity("e-9"))
    [by_target] = route(routes, envelope("a", (ALPHA, {"cuid": 5, "kind": "y"})))
    assert (by_target.destination, by_target.route) == ("a", None)


def test_a_route_for_a_whole_topic_takes_envelopes_by_their_bodies() -> None:
    """A body in the destination's own schema passes as it is; for another one the destination refuses."""
    mine, other = route([{"topics": ["app-events"], "to": ["a", "b"]}], envelope("x", (ALPHA, {"cuid": 1})))
    assert fields(mine) == {"cuid": 1}
    assert refused(other).code == "route.body_mismatch"


def test_all_matching_routes_apply_and_a_destination_gets_a_record_once() -> None:
    """Fan-out over routes; of two routes to one destination the first one in the file decides.

    Kills: stopping at the first match, and letting the last route win.
    """
    routes: list[dict[str, Any]] = [
        {"schema": FOREIGN, "to": ["a"], "fields": {"alpha": {"cuid": "count"}}},
        {"schema": FOREIGN, "to": ["a", "b"], "fields": {**ALPHA_MAP, **BETA_MAP}},
        {"schema": FOREIGN, "where": {"platform": "web"}, "to": ["b"], "fields": BETA_MAP},
    ]
    first, second = route(routes)
    assert (first.destination, first.route, fields(first)["cuid"]) == ("a", 0, 5)
    assert (second.destination, second.route, fields(second)) == ("b", 1, {"user": "77"})


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
    record = RECORD._replace(headers=[("source", b"\xff")])
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
    assert bool(route(routes, record=RECORD._replace(topic=topic), unrouted="skip")) is met


def test_unrouted() -> None:
    """What no route takes is a dead letter, a skip, or the end of the run with a message that names the way out."""
    with pytest.raises(Refusal, match=r"com\.acme\.UserEvent in topic app-events") as caught:
        route([])
    assert (caught.value.cause, caught.value.code) == ("route", "route.unrouted")
    assert route([], unrouted="skip") == []
    with pytest.raises(FatalError, match=r"partition 2, offset 7.*add a route"):
        route([], unrouted="stop")


def test_a_contract_event_of_a_vendor_without_destination_is_unrouted() -> None:
    """A contract schema alone is no destination."""
    assert route([], Event(BETA, {}), destinations={"a": "alpha"}, unrouted="skip") == []


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        ("e-1", event_identity("e-1")),
        (42, event_identity("42")),
        (UUID("12345678-1234-5678-1234-567812345678"), event_identity("12345678-1234-5678-1234-567812345678")),
        (None, POSITION),
        ("", POSITION),
    ],
)
def test_the_identity_of_a_mapped_event(value: Any, identity: str) -> None:
    """The event's own id where it has one, else its position, so that a missing id never makes two events one."""
    [routed] = route(
        [{"schema": FOREIGN, "to": ["a"], "id": "event_id", "fields": ALPHA_MAP}],
        Event(FOREIGN, DATUM | {"event_id": value}),
    )
    assert isinstance(routed.event, VendorEvent)
    assert (routed.identity, routed.event.identity) == (identity, identity)


@pytest.mark.parametrize("value", [1.5, True, b"x", {"a": 1}, ["x"], datetime.now(UTC)])
def test_an_id_of_another_kind_is_refused(value: Any) -> None:
    """An id that has no one text is the record's fault; its letter has the identity of the position."""
    [routed] = route(
        [{"schema": FOREIGN, "to": ["a"], "id": "event_id", "fields": ALPHA_MAP}],
        Event(FOREIGN, DATUM | {"event_id": value}),
    )
    assert (refused(routed).code, routed.identity) == ("route.id.type", POSITION)


def test_a_mapping_that_refuses_concerns_its_destination_only() -> None:
    """One destination's fault is its own letter; the others of the route get the event."""
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
    """Sources, conditions, missing mappings and misspelt schemas of all routes are told together."""
    routes: list[dict[str, Any]] = [
        {"topics": [], "schema": FOREIGN, "where": {"a..b": 1, "c": [], "d": {"x": 1}}, "id": "$id", "to": ["a", "b"]},
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
    record = RECORD._replace(topic=topic)
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
    record = RECORD._replace(topic=topic)
    position = position_identity(CLUSTER, record)
    assert position != event_identity(text)
    assert event_identity(position) != position


def test_the_decision_is_made_once_for_a_topic_and_schema() -> None:
    """However many records come, routes are matched with a topic and schema once.

    Kills: matching routes anew for every record.
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
