"""The holds of a destination: what begins, renews and ends them, and when a probe is due."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import RetrySettings
from connector.delivery.pacing import Backoff
from connector.delivery.states import Cause, DestinationState, HoldEvent, Holds, Kind
from connector.vendors.base import DESTINATION

PROBED = (Kind.DENIED, Kind.DOUBT, Kind.OUTAGE)


def free() -> Holds:
    """Return the holds of a destination that flows."""
    return Holds(Backoff(RetrySettings(initial=1.0, max=60.0), Random(1)))


def held(*kinds: Kind, scope: object = DESTINATION) -> Holds:
    """Return the holds of a destination held since 100."""
    holds = free()
    for kind in kinds:
        holds.begin(kind, "c", "why", now=100.0, wall=1000.0, scope=scope)
    return holds


def state(holds: Holds, now: float = 100.0) -> DestinationState:
    """Return the state that a person sees."""
    return holds.shown(now=now, wall=1000.0)[0].state


@pytest.mark.parametrize("kind", PROBED)
def test_a_hold_is_probed_by_one_at_a_time_at_growing_intervals(kind: Kind) -> None:
    """No probe before its time, no second one at once; each failed one puts the next further off, up to the cap."""
    holds, now, waits = held(kind), 100.0, []
    for _ in range(12):
        due = holds.next_probe(now)
        assert due is not None
        assert not holds.probe_is_due("g", due - 0.001)
        waits.append(due - now)
        now = due
        assert holds.probe_is_due("g", now)
        probe = holds.start_probe("g")
        assert state(holds, now) is DestinationState.PROBING
        assert not holds.probe_is_due("g", now + 1e6)
        holds.apply(HoldEvent.FAILED, "g", probe, now=now)
        assert state(holds, now) is DestinationState.HELD
    assert waits[0] <= 1.0
    assert 45.0 <= waits[-1] <= 60.0
    assert all(later >= earlier * 0.75 for earlier, later in pairwise(waits))


def test_a_due_probe_gives_no_time_to_wake_at() -> None:
    """A probe that is due already waits for something to send: time alone no longer changes anything."""
    holds = held(Kind.OUTAGE)
    due = holds.next_probe(100.0)
    assert due is not None
    assert holds.next_probe(due) is None


def test_a_groups_probe_waits_for_the_whole_destination() -> None:
    """While a person holds the destination nothing of a held group is due, whatever its own time says."""
    holds = held(Kind.DENIED, scope="vip")
    holds.begin(Kind.OPERATOR, None, "maintenance", now=100.0, wall=1000.0)
    assert holds.next_probe(100.0) is None
    assert not holds.probe_is_due("vip", 1e9)
    holds.release()
    assert not holds.active


def test_several_holds_keep_what_is_their_own() -> None:
    """Each has its own cause, beginning and probe; the worst gives the state, and a batch waits for all of them.

    Kills: one hold that overwrites another, and one answer that ends both.
    """
    holds = held(Kind.OUTAGE)
    holds.begin(Kind.DENIED, "401", "no access", now=110.0, wall=1010.0)
    holds.set_intake(Cause.REGISTRY, "no schema", 1020.0)
    shown = holds.shown(now=110.0, wall=1010.0)
    assert [(hold.cause, hold.since) for hold in shown] == [
        (Cause.MISCONFIGURED, 1010.0),
        (Cause.OUTAGE, 1000.0),
        (Cause.REGISTRY, 1020.0),
    ]
    probe = holds.start_probe("g")
    assert {hold.kind for hold in probe} == {Kind.DENIED, Kind.OUTAGE}
    ended = holds.apply(HoldEvent.DENIED, "g", probe, now=120.0)
    assert [hold.kind for hold in ended] == [Kind.OUTAGE]
    assert holds.lasts(probe)
    assert [hold.cause for hold in holds.shown(now=120.0, wall=1020.0)] == [Cause.MISCONFIGURED, Cause.REGISTRY]


def test_a_held_intake_keeps_no_batch_back() -> None:
    """What waits before it reaches the destination is shown, and what has reached it is sent."""
    holds = free()
    holds.set_intake(Cause.REGISTRY, "no schema", 1000.0)
    assert not holds.active
    assert holds.blocking("g") == ()
    assert state(holds) is DestinationState.HELD
    holds.set_intake(None, "", 1001.0)
    assert holds.shown(now=0.0, wall=0.0) == []


def test_the_hold_of_a_person_ends_by_a_release_only() -> None:
    """Neither an answer nor another cause ends it, and it is never probed."""
    holds = held(Kind.OPERATOR)
    holds.begin(Kind.OUTAGE, "x", "down", now=200.0, wall=1100.0)
    holds.apply(HoldEvent.ACCEPTED, "g", (), now=210.0)
    assert [hold.cause for hold in holds.shown(now=210.0, wall=1110.0)] == [Cause.OPERATOR]
    assert not holds.probe_is_due("g", 1e9)


def test_a_renewed_hold_counts_from_its_newest_code() -> None:
    """The same code keeps the beginning; another code of the same kind counts from now."""
    holds = held(Kind.DENIED)
    holds.begin(Kind.DENIED, "c", "again", now=150.0, wall=1050.0)
    assert [(hold.message, hold.since) for hold in holds.shown(now=150.0, wall=1050.0)] == [("again", 1000.0)]
    holds.begin(Kind.DENIED, "403", "no", now=160.0, wall=1060.0)
    assert [(hold.message, hold.since) for hold in holds.shown(now=160.0, wall=1060.0)] == [("no", 1060.0)]


def test_a_probe_that_ends_without_an_answer_is_over() -> None:
    """A hold whose probe ended without an event of its own is probed again, later."""
    holds = held(Kind.DOUBT)
    probe = holds.start_probe("g")
    holds.end_probe(probe, 200.0)
    assert state(holds, 200.0) is DestinationState.HELD
    assert holds.next_probe(200.0) is not None


def test_a_probe_that_was_answered_long_ago_does_not_end_the_next_one() -> None:
    """Its answer is applied at once; its end may come later, when a dead letter is written.

    Kills: a refusal of the next probe that is taken for a late one, so that its record is asked about again.
    """
    holds = held(Kind.DENIED)
    first = holds.start_probe("g")
    holds.apply(HoldEvent.FAILED, "g", first, now=110.0)
    second = holds.start_probe("g")
    holds.end_probe(first, 120.0)
    assert state(holds, 120.0) is DestinationState.PROBING
    holds.apply(HoldEvent.JUDGED, "g", second, now=130.0)
    assert not holds.active


def test_a_late_answer_leaves_the_probe_under_way() -> None:
    """An answer to a request from before the probe says nothing about the probe.

    Kills: two probes in flight, because a late failure was taken for the probe's own.
    """
    holds = held(Kind.DENIED)
    holds.start_probe("g")
    holds.apply(HoldEvent.FAILED, "g", (), now=200.0)
    assert state(holds, 200.0) is DestinationState.PROBING


@given(st.lists(st.sampled_from(["vip", "free", DESTINATION]), max_size=6))
def test_a_group_is_blocked_by_its_own_hold_and_the_destinations(scopes: list[str]) -> None:
    """A hold keeps back exactly the groups it is about."""
    holds = free()
    for scope in scopes:
        holds.begin(Kind.DENIED, "c", "why", now=0.0, wall=0.0, scope=scope)
    for group in ("vip", "free", "other"):
        assert bool(holds.blocking(group)) == (group in scopes or DESTINATION in scopes)
    assert bool(holds.active) == bool(scopes)
