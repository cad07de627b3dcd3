"""The table of a destination's holds, row by row."""

from __future__ import annotations

import pytest

from connector.delivery.states import TABLE, Action, HoldEvent, HoldPhase, Kind

PROBED = (Kind.DENIED, Kind.DOUBT, Kind.OUTAGE)
IMPOSSIBLE = {
    *((kind, phase, HoldEvent.PROBED) for kind in Kind for phase in (HoldPhase.FREE, HoldPhase.PROBING)),
    *((kind, phase, HoldEvent.ENDED) for kind in Kind for phase in (HoldPhase.FREE, HoldPhase.HELD)),
    *((Kind.OPERATOR, HoldPhase.PROBING, event) for event in HoldEvent),
    (Kind.OPERATOR, HoldPhase.HELD, HoldEvent.PROBED),
}
"""What cannot happen: a probe that ends before it began, two probes at once, a probe of what a person holds."""

ENDS_A_PROBE = {
    HoldEvent.ACCEPTED: {Kind.DENIED, Kind.DOUBT, Kind.OUTAGE},
    HoldEvent.JUDGED: {Kind.DENIED, Kind.DOUBT, Kind.OUTAGE},
    HoldEvent.BAFFLING: {Kind.DENIED, Kind.OUTAGE},
    HoldEvent.TOO_LARGE: {Kind.DENIED, Kind.OUTAGE},
    HoldEvent.THROTTLED: set(),
    HoldEvent.FAILED: set(),
    HoldEvent.DENIED: {Kind.OUTAGE},
    HoldEvent.NARROWER: {Kind.DENIED, Kind.OUTAGE},
    HoldEvent.WIDER: {Kind.OUTAGE},
}
"""Which holds the answer to their own probe ends; every other answer puts the next probe off."""
ENDS_LATE = set(ENDS_A_PROBE) - {HoldEvent.THROTTLED, HoldEvent.FAILED}
"""The answers that end an outage, to whichever request they are."""


def test_every_pair_is_in_the_table_or_impossible() -> None:
    """No event meets a hold without a decision on what happens."""
    pairs = {(kind, phase, event) for kind in Kind for phase in HoldPhase for event in HoldEvent}
    assert set(TABLE) == pairs - IMPOSSIBLE


@pytest.mark.parametrize("kind", Kind)
def test_a_hold_begins_once_and_is_renewed_after_that(kind: Kind) -> None:
    """What a hold is about, seen again, renews its message; a probe under way goes on."""
    assert TABLE[kind, HoldPhase.FREE, HoldEvent.BEGUN] == (Action.BEGIN, HoldPhase.HELD)
    assert TABLE[kind, HoldPhase.HELD, HoldEvent.BEGUN] == (Action.RENEW, HoldPhase.HELD)
    if kind is not Kind.OPERATOR:
        assert TABLE[kind, HoldPhase.PROBING, HoldEvent.BEGUN] == (Action.RENEW, HoldPhase.PROBING)


@pytest.mark.parametrize("kind", Kind)
def test_a_release_ends_every_hold(kind: Kind) -> None:
    """A person's release ends what holds, whether it is being probed or not, and nothing else."""
    assert TABLE[kind, HoldPhase.FREE, HoldEvent.RELEASED] == (Action.KEEP, HoldPhase.FREE)
    for phase in (HoldPhase.HELD, HoldPhase.PROBING) if kind in PROBED else (HoldPhase.HELD,):
        assert TABLE[kind, phase, HoldEvent.RELEASED] == (Action.END, HoldPhase.FREE)


@pytest.mark.parametrize("kind", PROBED)
def test_a_probe_is_under_way_until_it_ends(kind: Kind) -> None:
    """A probe that no answer ended is followed by a later one."""
    assert TABLE[kind, HoldPhase.HELD, HoldEvent.PROBED] == (Action.PROBE, HoldPhase.PROBING)
    assert TABLE[kind, HoldPhase.PROBING, HoldEvent.ENDED] == (Action.LATER, HoldPhase.HELD)


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", PROBED)
def test_the_answer_to_a_probe_ends_its_hold_or_puts_the_next_probe_off(kind: Kind, event: HoldEvent) -> None:
    """Kills: a wrong answer that frees a destination, and a right one that does not."""
    ends = kind in ENDS_A_PROBE[event]
    expected = (Action.END, HoldPhase.FREE) if ends else (Action.LATER, HoldPhase.HELD)
    assert TABLE[kind, HoldPhase.PROBING, event] == expected


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", Kind)
def test_a_late_answer_ends_an_outage_only(kind: Kind, event: HoldEvent) -> None:
    """A request from before the hold shows that the vendor is up; it shows nothing about a credential or a storm."""
    ends = kind is Kind.OUTAGE and event in ENDS_LATE
    assert TABLE[kind, HoldPhase.HELD, event] == (
        (Action.END, HoldPhase.FREE) if ends else (Action.KEEP, HoldPhase.HELD)
    )


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", Kind)
def test_an_answer_begins_no_hold_by_itself(kind: Kind, event: HoldEvent) -> None:
    """What an answer means for a free destination is decided by `outcome`, which then begins the hold."""
    assert TABLE[kind, HoldPhase.FREE, event] == (Action.KEEP, HoldPhase.FREE)
