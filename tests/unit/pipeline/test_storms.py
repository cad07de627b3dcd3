"""Storms: they trip on a share of the window, for one cause and code, and end only by what they set aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import StormSettings
from connector.pipeline.offsets import WHOLE, PartitionTracker, Phase
from connector.pipeline.storms import Place, StormGuard, Storms
from connector.testing.clock import ManualClock


def guard(share: float = 0.5, records: int = 100) -> StormGuard:
    """Return a guard with a window of its own."""
    return StormGuard(StormSettings(share=share, records=records))


@given(st.lists(st.sampled_from(["ok", "ok", "a", "b"]), max_size=400), st.sampled_from([0.1, 0.5, 1.0]))
def test_it_trips_exactly_above_its_share_of_the_window(outcomes: list[str], share: float) -> None:
    """A refusal trips where one cause and code would hold more than its share of the last records.

    Kills: adding up different causes; a window that never forgets.
    """
    storm, window = guard(share, 20), list[str]()
    for outcome in outcomes:
        if outcome == "ok":
            storm.accepted(1)
            window.append("ok")
        elif window[-20:].count(outcome) + 1 > share * 20:
            assert storm.refused("refused", outcome)
        else:
            assert not storm.refused("refused", outcome)
            window.append(outcome)


def test_one_cause_with_many_codes_is_no_storm() -> None:
    """Refusals for different reasons are different faults of records."""
    storm = guard()
    assert not any(storm.refused("refused", str(n)) for n in range(1000))


def test_a_large_acceptance_empties_the_window() -> None:
    """A thousand accepted records push every refusal out, at the cost of one window."""
    storm = guard()
    for _ in range(50):
        assert not storm.refused("refused", "x")
    assert storm.refused("refused", "x")
    storm.accepted(10**9)
    assert not any(storm.refused("refused", "x") for _ in range(50))


def test_a_storm_that_is_over_counts_again_from_nothing_and_leaves_the_others() -> None:
    """Its reason gets a new window; the counts of other reasons stay.

    Kills: a reason whose storms come and go, and so keeps emptying the window of another one.
    """
    storm = guard()
    assert [storm.refused("refused", "y") for _ in range(40)] == [False] * 40
    while not storm.refused("refused", "x"):
        pass
    storm.clear(("refused", "x"))
    assert [storm.refused("refused", "y") for _ in range(11)] == [False] * 10 + [True]
    assert [storm.refused("refused", "x") for _ in range(51)] == [False] * 50 + [True]


def test_a_released_reason_passes_until_its_share_is_below_the_limit() -> None:
    """A window later its share counts again, and only once it is not above the limit."""
    storm = guard()
    while not storm.refused("refused", "x"):
        pass
    storm.open(("refused", "x"))
    assert not any(storm.refused("refused", "x") for _ in range(1000))
    storm.accepted(49)
    assert not any(storm.refused("refused", "x") for _ in range(10))
    storm.accepted(100)
    assert [storm.refused("refused", "x") for _ in range(51)] == [False] * 50 + [True]


@dataclass
class Scope:
    """A topic's storms and its one partition, and what became of each record."""

    clock: ManualClock = field(default_factory=ManualClock)
    tracker: PartitionTracker = field(default_factory=lambda: PartitionTracker("t", 0, 0, ["d"]))
    refused: list[int] = field(default_factory=list)

    @cached_property
    def storms(self) -> Storms:
        """The storms of the topic: five of ten records are too many."""
        return Storms(StormSettings(share=0.5, records=10), self.clock, scope={"topic": "t"})

    def place(self, offset: int) -> Place:
        """Return a record's place."""
        return Place(self.tracker, offset, WHOLE)

    def read(self, offset: int, code: str = "c") -> None:
        """Read a record that is refused."""
        self.tracker.begin((offset,))
        self.judge(self.place(offset), code)

    def judge(self, place: Place, code: str = "c") -> None:
        """Refuse a record, which becomes a dead letter or is set aside."""
        if not self.storms.refused("decode", code, "why", place):
            self.refused.append(place.offset)
            self.tracker.finish((place.offset,), WHOLE)

    @property
    def aside(self) -> dict[str, int]:
        """How many records each code has set aside."""
        return {storm.code: storm.set_aside for storm in self.storms.status()}


def test_only_a_record_that_was_set_aside_ends_a_storm() -> None:
    """Good records leave it as it is; a probe that is refused is set aside again; one that passes lets all go.

    Kills: a storm that ends at any acceptance (95 % bad: one window of dead letters after each good record).
    """
    at = Scope()
    for offset in range(20):
        at.read(offset)
    assert (at.refused, at.aside) == ([0, 1, 2, 3, 4], {"c": 15})
    at.storms.accepted(1000)
    at.storms.passed([at.place(100)])
    assert at.storms.probes(at.clock.now()) == []
    at.clock.advance(60)
    (probe,) = at.storms.probes(at.clock.now())
    assert at.storms.probes(at.clock.now() + 1000) == []
    at.judge(probe)
    assert at.aside == {"c": 15}
    at.clock.advance(60)
    (other,) = at.storms.probes(at.clock.now())
    assert other != probe
    at.storms.passed([other])
    assert (at.aside, len(at.storms.let_go(100)), at.tracker.set_aside) == ({}, 14, 0)


def test_probes_back_off_across_storms_that_come_back() -> None:
    """The second storm begins where the first one's probes were; long after it begins again."""
    at = Scope()
    waits = []
    for offset in range(8):
        at.read(offset)
    for start in range(100, 500, 100):
        (storm,) = at.storms.status()
        assert storm.next_probe is not None
        waits.append(storm.next_probe - at.clock.wall())
        at.clock.advance(waits[-1])
        (probe,) = at.storms.probes(at.clock.now())
        at.storms.passed([probe])
        for place in at.storms.let_go(100):
            at.judge(place)
        for offset in range(start, start + 10):
            at.read(offset)
    assert waits == [1, 2, 4, 8]


def test_reasons_are_apart_and_bounded_each() -> None:
    """One reason in a storm lets another be dead-lettered up to its own limit."""
    at = Scope()
    for offset in range(40):
        at.read(offset, "ab"[offset % 2])
    assert len(at.refused) == 10
    assert at.aside == {"a": 15, "b": 15}
    assert at.storms.release() == 30
    assert sorted(place.offset for place in at.storms.let_go(100)) == list(range(10, 40))


def test_what_leaves_is_forgotten() -> None:
    """A partition that leaves takes its records along; the next such refusal elsewhere is set aside at once."""
    at = Scope()
    for offset in range(10):
        at.read(offset)
    at.clock.advance(60)
    at.storms.probes(at.clock.now())
    at.tracker.phase = Phase.DRAINING
    at.storms.forget()
    assert (at.aside, at.storms.let_go(9), at.storms.probes(at.clock.now() + 999)) == ({}, [], [])
    at.tracker = PartitionTracker("t", 1, 0, ["d"])
    at.read(0)
    assert (len(at.refused), at.aside) == (5, {"c": 1})


def test_what_could_not_be_read_again_is_set_aside_again() -> None:
    """A probe that Kafka did not answer is made later, and what was let go waits on."""
    at = Scope()
    for offset in range(10):
        at.read(offset)
    at.clock.advance(60)
    (probe,) = at.storms.probes(at.clock.now())
    at.storms.put_back([probe])
    assert at.aside == {"c": 5}
    assert at.storms.probes(at.clock.now()) == []
    at.storms.release()
    places = at.storms.let_go(2)
    at.storms.put_back(places)
    assert len(at.storms.let_go(100)) == 5


@given(
    st.lists(st.tuples(st.sampled_from(["read", "probe", "pass", "release", "again", "unread", "skip"]), st.booleans()))
)
def test_every_position_that_is_kept_counts_as_set_aside(steps: list[tuple[str, bool]]) -> None:
    """Intake pauses by this count. What a storm has let go is kept until it is read again, so it counts until then.

    Otherwise storms that come and go keep more positions each time, and nothing pauses intake.
    Kills: a count that ends with the storm, or changes with a read that failed.
    """
    at, offset, probes = Scope(), 0, list[Place]()
    for step, refused in steps:
        match step:
            case "read":
                for number in range(offset, offset + 7):
                    at.read(number, "ab"[refused])
                offset += 7
            case "probe":
                at.clock.advance(100)
                probes += at.storms.probes(at.clock.now())
            case "pass" if probes:
                probe = probes.pop()
                at.judge(probe) if refused else at.storms.passed([probe])
            case "release":
                at.storms.release()
            case "again":
                for place in at.storms.let_go(5):
                    at.judge(place)
            case "unread":
                at.storms.put_back([*at.storms.let_go(3), *probes])
                probes.clear()
            case "skip" if kept := at.storms.kept():
                assert at.storms.take_out(kept[0])
        assert at.tracker.set_aside == len(at.storms.kept())


def test_a_release_counts_the_record_that_is_a_probe_and_waits_for_it() -> None:
    """The record under way as a probe is released with the others: it is counted, and the reason is open until it came.

    Kills: a release that lets go only what is set aside at that moment.
    """
    at = Scope()
    for offset in range(8):
        at.read(offset)
    at.clock.advance(60)
    (probe,) = at.storms.probes(at.clock.now())
    assert at.storms.release() == 3
    for place in at.storms.let_go(100):
        at.judge(place)
    assert at.refused == [0, 1, 2, 3, 4, 6, 7]
    # Windows pass, but a person has decided about the probe too.
    at.storms.accepted(1000)
    for offset in range(100, 120):
        at.read(offset)
    assert at.aside == {}
    at.judge(probe)
    at.storms.accepted(1000)
    for offset in range(200, 220):
        at.read(offset)
    assert at.aside == {"c": 15}


def test_off_never_trips() -> None:
    """Those who want the drain get it."""
    storm = StormGuard("off")
    storm.accepted(5)
    assert not any(storm.refused("refused", "x") for _ in range(10_000))
