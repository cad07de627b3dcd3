"""Routing: every event goes where the documented rules say, with an identity for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from connector.errors import FatalError, Refusal
from connector.records import Event
from connector.routing.table import Routed, event_identity
from connector.vendors.base import VendorEvent
from tests.unit.routing.routes import (
    ALPHA,
    ALPHA_MAP,
    BETA,
    BETA_MAP,
    DATUM,
    ENVELOPE,
    FOREIGN,
    POSITION,
    RECORD,
    envelope,
    fields,
    refused,
    route,
)


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
    """An id that has no one text is the record's fault; its dead letter has the identity of the position."""
    [routed] = route(
        [{"schema": FOREIGN, "to": ["a"], "id": "event_id", "fields": ALPHA_MAP}],
        Event(FOREIGN, DATUM | {"event_id": value}),
    )
    assert (refused(routed).code, routed.identity) == ("route.id.type", POSITION)
