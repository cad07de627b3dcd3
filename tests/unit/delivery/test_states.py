"""The table of a destination's holds, row by row."""

from __future__ import annotations

import pytest

from connector.delivery.states import TABLE, Action, Event, Kind, Phase

PROBED = (Kind.DENIED, Kind.DOUBT, Kind.OUTAGE)
IMPOSSIBLE = {
    *((kind, phase, Event.PROBED) for kind in Kind for phase in (Phase.FREE, Phase.PROBING)),
    *((kind, phase, Event.ENDED) for kind in Kind for phase in (Phase.FREE, Phase.HELD)),
    *((Kind.OPERATOR, Phase.PROBING, event) for event in Event),
    (Kind.OPERATOR, Phase.HELD, Event.PROBED),
}
"""What cannot happen: a probe that ends before it began, two probes at once, a probe of what a person holds."""

ENDS_A_PROBE = {
    Event.ACCEPTED: {Kind.DENIED, Kind.DOUBT, Kind.OUTAGE},
    Event.JUDGED: {Kind.DENIED, Kind.DOUBT, Kind.OUTAGE},
    Event.BAFFLING: {Kind.DENIED, Kind.OUTAGE},
    Event.TOO_LARGE: {Kind.DENIED, Kind.OUTAGE},
    Event.THROTTLED: set(),
    Event.FAILED: set(),
    Event.DENIED: {Kind.OUTAGE},
    Event.NARROWER: {Kind.DENIED, Kind.OUTAGE},
    Event.WIDER: {Kind.OUTAGE},
}
"""Which holds the answer to their own probe ends; every other answer puts the next probe off."""
ENDS_LATE = set(ENDS_A_PROBE) - {Event.THROTTLED, Event.FAILED}
"""The answers that end an outage, to whichever request they are."""


def test_every_pair_is_in_the_table_or_impossible() -> None:
    """No event meets a hold for which nobody has decided what happens."""
    pairs = {(kind, phase, event) for kind in Kind for phase in Phase for event in Event}
    assert set(TABLE) == pairs - IMPOSSIBLE


@pytest.mark.parametrize("kind", Kind)
def test_a_hold_begins_once_and_is_renewed_after_that(kind: Kind) -> None:
    """What a hold is about, seen again, renews its message; a probe under way goes on."""
    assert TABLE[kind, Phase.FREE, Event.BEGUN] == (Action.BEGIN, Phase.HELD)
    assert TABLE[kind, Phase.HELD, Event.BEGUN] == (Action.RENEW, Phase.HELD)
    if kind is not Kind.OPERATOR:
        assert TABLE[kind, Phase.PROBING, Event.BEGUN] == (Action.RENEW, Phase.PROBING)


@pytest.mark.parametrize("kind", Kind)
def test_a_release_ends_every_hold(kind: Kind) -> None:
    """A person's release ends what holds, whether it is being probed or not, and nothing else."""
    assert TABLE[kind, Phase.FREE, Event.RELEASED] == (Action.KEEP, Phase.FREE)
    for phase in (Phase.HELD, Phase.PROBING) if kind in PROBED else (Phase.HELD,):
        assert TABLE[kind, phase, Event.RELEASED] == (Action.END, Phase.FREE)


@pytest.mark.parametrize("kind", PROBED)
def test_a_probe_is_under_way_until_it_ends(kind: Kind) -> None:
    """A probe that no answer ended is followed by a later one."""
    assert TABLE[kind, Phase.HELD, Event.PROBED] == (Action.PROBE, Phase.PROBING)
    assert TABLE[kind, Phase.PROBING, Event.ENDED] == (Action.LATER, Phase.HELD)


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", PROBED)
def test_the_answer_to_a_probe_ends_its_hold_or_puts_the_next_probe_off(kind: Kind, event: Event) -> None:
    """Kills: a wrong answer that frees a destination, and a right one that does not."""
    ends = kind in ENDS_A_PROBE[event]
    expected = (Action.END, Phase.FREE) if ends else (Action.LATER, Phase.HELD)
    assert TABLE[kind, Phase.PROBING, event] == expected


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", Kind)
def test_a_late_answer_ends_an_outage_only(kind: Kind, event: Event) -> None:
    """A request from before the hold shows that the vendor is up; it shows nothing about a credential or a storm."""
    ends = kind is Kind.OUTAGE and event in ENDS_LATE
    assert TABLE[kind, Phase.HELD, event] == ((Action.END, Phase.FREE) if ends else (Action.KEEP, Phase.HELD))


@pytest.mark.parametrize("event", ENDS_A_PROBE)
@pytest.mark.parametrize("kind", Kind)
def test_an_answer_begins_no_hold_by_itself(kind: Kind, event: Event) -> None:
    """What an answer means for a free destination is decided by `outcome`, which then begins the hold."""
    assert TABLE[kind, Phase.FREE, event] == (Action.KEEP, Phase.FREE)
