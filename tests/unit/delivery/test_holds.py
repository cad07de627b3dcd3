"""The holds of a destination: what begins, renews and ends them, and when a probe is due."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import RetrySettings
from connector.delivery.holds import Cause, Holds, State
from connector.delivery.retry import Backoff
from connector.vendors.base import DESTINATION


def holds() -> Holds:
    """Return the holds of a destination that flows."""
    return Holds(Backoff(RetrySettings(initial=1.0, max=60.0), Random(1)))


def held(cause: Cause, scope: object = DESTINATION) -> Holds:
    """Return the holds of a destination held since 100."""
    at = holds()
    at.hold(cause, "c", "why", now=100.0, wall=1000.0, scope=scope)
    return at


def shown(at: Holds, now: float = 100.0, throttled_until: float = 0.0, retrying: str | None = None) -> State:
    """Return the state that a person sees."""
    return at.condition(now=now, wall=1000.0, throttled_until=throttled_until, retrying=retrying).state


def test_a_destination_without_a_hold_flows_is_throttled_or_retries() -> None:
    """The table's first column: throttled goes before retrying, and both before flowing."""
    at = holds()
    assert shown(at) is State.FLOWING
    assert shown(at, retrying="1 record") is State.RETRYING
    assert shown(at, throttled_until=101.0, retrying="1 record") is State.THROTTLED


@pytest.mark.parametrize("cause", [Cause.MISCONFIGURED, Cause.OUTAGE, Cause.STORM])
def test_a_hold_is_probed_by_one_at_a_time_at_growing_intervals(cause: Cause) -> None:
    """No probe before its time, none beside another, and each failed one puts the next further off, up to the cap."""
    at, now, waits = held(cause), 100.0, []
    for _ in range(12):
        due = at.next_probe(now)
        assert due is not None
        assert at.probe_due("g", due - 0.001) is None
        waits.append(due - now)
        now = due
        assert at.probe_due("g", now) is not None
        at.probe_started("g")
        assert shown(at, now) is State.PROBING
        assert at.probe_due("g", now + 1e6) is None
        at.probe_failed(DESTINATION, now)
        assert shown(at, now) is State.HELD
    assert waits[0] <= 1.0
    assert 45.0 <= waits[-1] <= 60.0
    assert all(later >= earlier * 0.75 for earlier, later in pairwise(waits))


def test_a_due_probe_gives_no_time_to_wake_at() -> None:
    """A probe that is due already waits for something to send: time alone changes nothing any more."""
    at = held(Cause.OUTAGE)
    due = at.next_probe(100.0)
    assert due is not None
    assert at.next_probe(due) is None


def test_a_groups_probe_waits_for_the_whole_destination() -> None:
    """While the destination is held nothing of a held group is due, whatever its own time says."""
    at = held(Cause.MISCONFIGURED, "vip")
    at.hold(Cause.OPERATOR, None, "maintenance", now=100.0, wall=1000.0)
    assert at.next_probe(100.0) is None
    assert at.probe_due("vip", 1e9) is None
    at.release(DESTINATION)
    assert at.probe_due("vip", 1e9) is not None


def test_the_operators_hold_is_the_operators() -> None:
    """Neither a probe nor another cause touches it; it is probed never."""
    at = held(Cause.OPERATOR)
    assert not at.hold(Cause.OUTAGE, "x", "down", now=200.0, wall=1100.0)
    hold = at.get()
    assert hold is not None
    assert (hold.cause, hold.since) == (Cause.OPERATOR, 1000.0)
    assert at.probe_due("g", 1e9) is None


def test_a_renewed_cause_counts_its_own_time() -> None:
    """A hold whose cause changes is held for that cause since now; the same cause keeps its beginning."""
    at = held(Cause.OUTAGE)
    assert not at.hold(Cause.OUTAGE, "c", "again", now=150.0, wall=1050.0)
    assert at.hold(Cause.MISCONFIGURED, "401", "no", now=160.0, wall=1060.0)
    hold = at.get()
    assert hold is not None
    assert (hold.cause, hold.message, hold.since) == (Cause.MISCONFIGURED, "no", 1060.0)


def test_a_probe_that_ends_without_a_word_is_over() -> None:
    """Whatever its answer was: a hold whose probe ended is probed again, later."""
    at = held(Cause.STORM)
    probed = at.probe_started("g")
    assert probed is not None
    at.probe_ended(probed, 200.0)
    assert shown(at, 200.0) is State.HELD
    assert at.next_probe(200.0) is not None


@given(st.lists(st.sampled_from(["vip", "free", DESTINATION]), max_size=6))
def test_a_group_is_blocked_by_its_own_hold_and_the_destinations(scopes: list[str]) -> None:
    """A hold keeps back exactly the groups it is about."""
    at = holds()
    for scope in scopes:
        at.hold(Cause.MISCONFIGURED, "c", "why", now=0.0, wall=0.0, scope=scope)
    for group in ("vip", "free", "other"):
        assert (at.blocking(group) is not None) == (group in scopes or DESTINATION in scopes)
    assert bool(at) == bool(scopes)
