"""The partition tracker against a model that remembers everything."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.pipeline.offsets import WHOLE, PartitionTracker, Phase, Snapshot, destination_bit

NAMES = ("a", "b", "c")
BITS = [destination_bit(index) for index in range(len(NAMES))]


def tracker(start: int = 0, restored: FinishedMap | None = None) -> PartitionTracker:
    """Return the tracker of an assignment that begins at `start`."""
    return PartitionTracker("t", 0, start, NAMES, restored)


@dataclass
class Model:
    """A partition whose every record and delivery is remembered: offsets with gaps, and where each record goes.

    `finished` are the deliveries (offset, name) with an outcome, over all restarts.
    """

    targets: dict[int, tuple[int, ...]]
    finished: set[tuple[int, int]] = field(default_factory=set)
    delivered: list[tuple[int, int]] = field(default_factory=list)

    def is_done(self, offset: int) -> bool:
        """Whether every delivery of a record is finished."""
        return all((offset, index) in self.finished for index in self.targets[offset])


class Epoch:
    """One assignment: reads in order, routes later, finishes in any order."""

    def __init__(self, model: Model, committed: Snapshot) -> None:
        self.model = model
        restored = metadata.decode(committed.watermark, metadata.encode(committed.watermark, committed.finished).text)
        self.at = tracker(committed.watermark, restored)
        self.unread = [offset for offset in sorted(model.targets) if offset >= committed.watermark]
        self.unrouted: list[int] = []
        self.sent: list[tuple[int, int]] = []
        self.taken = committed

    def read(self, count: int) -> None:
        """Begin the next records, and route none of them yet."""
        for offset in self.unread[:count]:
            before = self.model.is_done(offset)
            begun = self.at.begin((offset,))
            assert bool(begun) is not before
            if begun:
                self.unrouted.append(offset)
        del self.unread[:count]

    def route(self, count: int) -> None:
        """Route the next records; exactly the unfinished deliveries are to be made."""
        for offset in self.unrouted[:count]:
            targets = self.model.targets[offset]
            (left,) = self.at.route((offset,), sum(BITS[index] for index in targets))
            wanted = [index for index in targets if (offset, index) not in self.model.finished]
            assert [index for index in range(len(NAMES)) if left & BITS[index]] == sorted(wanted)
            self.sent += [(offset, index) for index in wanted]
        del self.unrouted[:count]

    def finish(self, place: int) -> None:
        """Give one delivery its outcome."""
        if self.sent:
            offset, index = self.sent.pop(place % len(self.sent))
            self.at.finish((offset,), BITS[index])
            self.model.finished.add((offset, index))
            self.model.delivered.append((offset, index))

    def snapshot(self) -> None:
        """Take what a commit would say, and check every claim of it against the model."""
        taken = self.at.snapshot()
        if taken is None:
            return
        assert taken.watermark >= self.taken.watermark
        self.check(taken)
        self.taken = taken

    def check(self, taken: Snapshot) -> None:
        """Compare a commit with the model: it claims exactly what is finished."""
        for offset, targets in self.model.targets.items():
            for index in targets:
                claimed = offset < taken.watermark or taken.finished.done(NAMES[index]).contains(offset)
                assert claimed == ((offset, index) in self.model.finished), (offset, NAMES[index])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "route", "finish", "finish", "finish", "snapshot", "crash"]), st.integers(0, 40)
    ),
    min_size=1,
    max_size=150,
)


@st.composite
def partitions(draw: st.DrawFn) -> dict[int, tuple[int, ...]]:
    """Records with gaps, small and huge, each for one to three destinations."""
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 7, 64, 10_000, 2**33]), min_size=1, max_size=60))
    offsets, at = [], draw(st.sampled_from([0, 5, 2**31 - 3, 2**45]))
    for step in steps:
        offsets.append(at)
        at += step
    masks = st.sampled_from([(0,), (1,), (0, 1), (0, 1, 2), (1, 2)])
    return {offset: draw(masks) for offset in offsets}


@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
@settings(max_examples=300)
@given(targets=partitions(), steps=STEPS)
def test_commits_claim_exactly_what_is_finished(
    targets: dict[int, tuple[int, ...]], steps: list[tuple[str, int]]
) -> None:
    """Over restarts, gaps and several destinations a commit claims what is finished and nothing else.

    A restored tracker asks for exactly the unfinished deliveries. Kills: a watermark past an unfinished record; a
    partial claim that is forgotten before its record is routed, or while it waits to be.
    """
    model = Model(targets)
    epoch = Epoch(model, Snapshot(min(targets), FinishedMap()))
    for step, number in steps:
        if step == "read":
            epoch.read(number)
        elif step == "route":
            epoch.route(number)
        elif step == "finish":
            epoch.finish(number)
        else:
            epoch.snapshot()
            if step == "crash":
                epoch = Epoch(model, epoch.taken)
    epoch.check(epoch.at.peek())
    epoch.read(len(targets))
    epoch.route(len(targets))
    while epoch.sent:
        epoch.finish(0)
    assert len(model.delivered) == len(set(model.delivered))
    assert model.finished == {(offset, index) for offset, names in targets.items() for index in names}
    assert epoch.at.unfinished == 0
    assert epoch.at.watermark == epoch.at.position


@pytest.mark.promise("P3")
def test_a_partial_claim_outlives_the_reading_of_later_records() -> None:
    """A record finished for one destination keeps that claim while it waits to be routed, however far reading went.

    Kills: forgetting the restored map once reading has passed its end.
    """
    at = tracker(0, FinishedMap(parts={"a": Runs((0, 1))}))
    at.begin((0,))
    at.begin((100,))
    assert at.peek().finished.parts["a"].contains(0)
    assert at.route((0,), BITS[0] | BITS[1]) == [BITS[1]]


@pytest.mark.promise("P2")
def test_an_epoch_that_finished_nothing_commits_nothing() -> None:
    """Reading alone gives no commit: an assignment that moved nothing may not touch the committed offset.

    Kills: a snapshot whenever the position moved.
    """
    at = tracker(10)
    assert at.snapshot() is None
    at.begin((10,))
    assert at.snapshot() is None
    at.finish((10,), WHOLE)
    taken = at.snapshot()
    assert taken is not None
    assert taken.watermark == 11
    assert at.snapshot() is None


def test_a_snapshot_taken_back_is_given_again() -> None:
    """After a commit that failed the next one says the same, and what was finished since."""
    at = tracker()
    for offset in (0, 1):
        at.begin((offset,))
    at.finish((0,), WHOLE)
    assert at.snapshot() is not None
    at.retake()
    at.finish((1,), WHOLE)
    assert at.snapshot() == Snapshot(2, FinishedMap(parts={}))


@pytest.mark.promise("P2")
def test_work_that_ends_after_its_epoch_changes_nothing() -> None:
    """A closed tracker gives no commit for what finishes late; a draining one still does.

    Kills: forgetting the epoch.
    """
    at = tracker()
    at.begin((0,))
    at.begin((1,))
    at.phase = Phase.DRAINING
    assert not at.open
    at.finish((0,), WHOLE)
    assert at.watermark == 1
    at.phase = Phase.CLOSED
    at.finish((1,), WHOLE)
    assert at.watermark == 1
    assert at.unfinished == 1


def test_an_offset_read_before_is_not_begun_again() -> None:
    """A fetcher that goes back by itself makes no second delivery."""
    at = tracker(5)
    assert not at.begin((4,))
    assert at.begin((5,))
    assert not at.begin((5,))
    assert at.unfinished == 1


CHUNKS = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8) | st.just(list(range(10, 18))), max_size=6)


@given(CHUNKS, st.integers(0, 12), st.sets(st.integers(0, 30), max_size=6), st.booleans())
def test_a_run_is_begun_as_each_of_its_records_would_be(
    chunks: list[list[int]], start: int, whole: set[int], sort: bool
) -> None:
    """The same records are new, and the same is left, in whatever order they come. Kills: a repeat in a run."""
    restored = FinishedMap(Runs.of(sorted(offset for offset in whole if offset > start)))
    at, one_by_one = tracker(start, restored), tracker(start, restored)
    for drawn in chunks:
        offsets = sorted(set(drawn)) if sort else drawn
        expected = [offset for offset in offsets if one_by_one.begin((offset,))]
        assert list(at.begin(offsets)) == expected
        assert (at.position, at.unfinished, at.peek()) == (
            one_by_one.position,
            one_by_one.unfinished,
            one_by_one.peek(),
        )
        at.finish(expected[1:], WHOLE)
        for offset in expected[1:]:
            one_by_one.finish((offset,), WHOLE)
    assert at.peek() == one_by_one.peek()


@given(st.integers(0, 2**62), st.integers(1, 2**40))
def test_a_gap_never_blocks(start: int, gap: int) -> None:
    """Offsets that are no records lie below the watermark as soon as what stands before them is done."""
    at = tracker(start)
    at.begin((start,))
    at.begin((start + gap,))
    at.finish((start,), WHOLE)
    assert at.watermark == start + gap


def test_a_destination_that_is_gone_neither_helps_nor_hurts() -> None:
    """A claim for a destination which the configuration lost says nothing about the others."""
    at = tracker(0, FinishedMap(parts={"gone": Runs((0, 5))}))
    at.begin((0,))
    assert at.route((0,), BITS[0]) == [BITS[0]]


@pytest.mark.promise("P3")
@given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(0, 30)), st.integers(0, 31))
def test_claims_of_an_absent_destination_are_kept(claimed: set[int], done: set[int], read: int) -> None:
    """A run without a destination commits its finished deliveries again, for records that are not done otherwise.

    Kills: a snapshot of the configured destinations only, after which the absent one gets everything again.
    """
    at = tracker(0, FinishedMap(parts={"gone": Runs.of(sorted(claimed))}))
    for offset in range(read):
        at.begin((offset,))
        at.route((offset,), BITS[0])
    for offset in done:
        if offset < read:
            at.finish((offset,), BITS[0])
    taken = at.peek()
    kept = taken.finished.done("gone")
    for offset in range(taken.watermark, 31):
        assert kept.contains(offset) == (offset in claimed or (offset in done and offset < read))
    again = metadata.decode(taken.watermark, metadata.encode(taken.watermark, taken.finished).text)
    assert again.done("gone") == kept


def test_is_pending_follows_each_delivery() -> None:
    """A delivery is pending from its routing to its outcome, each destination for itself."""
    at = tracker()
    at.begin((0,))
    at.route((0,), BITS[0] | BITS[1])
    at.finish((0,), BITS[0])
    assert not at.is_pending(0, BITS[0])
    assert at.is_pending(0, BITS[1])
    at.finish((0,), BITS[1])
    assert not at.is_pending(0, BITS[1])


@given(st.sets(st.integers(0, 12), min_size=1), st.sets(st.integers(0, 12)), st.sampled_from(BITS[:2]))
def test_a_run_is_routed_as_each_of_its_records_would_be(offsets: set[int], done: set[int], bit: int) -> None:
    """What was finished for the destination before is not asked for again, and the same is left.

    Kills: a run of records that forgets what the committed map says of one of them.
    """
    restored = FinishedMap(parts={"a": Runs.of(sorted(done))}) if done else None
    at, one_by_one = tracker(0, restored), tracker(0, restored)
    for offset in sorted(offsets):
        at.begin((offset,))
        one_by_one.begin((offset,))
    left = [mask for offset in sorted(offsets) for mask in one_by_one.route((offset,), bit)]
    assert at.route(sorted(offsets), bit) == left
    assert (at.unfinished, at.peek()) == (one_by_one.unfinished, one_by_one.peek())
