"""Room in the offset map: whatever finishes, and in whatever order, the map of what was read fits into a commit."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.pipeline.flow import POLL_RECORDS, MapRoom
from connector.pipeline.offset_map import MAX_TEXT, FinishedMap, Runs, decode, encode
from connector.pipeline.offsets import PartitionTracker, destination_bit
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig

NAMES = ("fast", "slow")
FAST, SLOW = destination_bit(0), destination_bit(1)


class Partition:
    """A partition that is read while there is room, with a fast destination and a slow one."""

    def __init__(self, random: Random, limit: int, *, share: float, both: float, gaps: float, absent: int = 0) -> None:
        self.random, self.limit = random, limit
        self.share, self.both, self.gaps = share, both, gaps
        claims = {"absent": Runs((0, absent))} if absent else {}
        self.tracker = PartitionTracker("t", 0, 0, NAMES, FinishedMap(parts=claims))
        self.room = MapRoom(self.tracker, limit)
        self.open: dict[int, set[int]] = {FAST: set(), SLOW: set()}
        self.next = 0

    def poll(self) -> bool:
        """Read as many records as a poll returns, at most, if there is room."""
        if self.room.full:
            return False
        offsets = []
        for _ in range(self.random.choice((1, 30, POLL_RECORDS, POLL_RECORDS, POLL_RECORDS))):
            self.next += 1 if self.random.random() >= self.gaps else self.random.choice((2, 3, 50, 4000))
            offsets.append(self.next - 1)
        assert self.tracker.begin(offsets) == offsets
        for offset in offsets:
            roll = self.random.random()
            mask = FAST | SLOW if roll < self.both else SLOW if roll < self.both + self.share else FAST
            self.tracker.route((offset,), mask)
            for bit, there in self.open.items():
                if mask & bit:
                    there.add(offset)
        return True

    def finish(self, bit: int, offsets: set[int]) -> None:
        """Give deliveries their outcome."""
        if offsets:
            self.tracker.finish(sorted(offsets), bit)
        self.open[bit] -= offsets

    def some(self, bit: int, pattern: str) -> set[int]:
        """Return open deliveries by a pattern that a map may find hard."""
        there = sorted(self.open[bit])
        if pattern == "every second":
            return set(there[::2])
        if pattern == "head":
            return set(there[: len(there) // 2])
        share = {"few": 0.05, "half": 0.5, "most": 0.95}[pattern]
        return {offset for offset in there if self.random.random() < share}

    def commit(self) -> None:
        """Encode the map as a commit does; it must hold every claim."""
        taken = self.tracker.peek()
        encoded = encode(taken.watermark, taken.finished, self.limit)
        assert len(encoded.text) <= self.limit
        assert self.room.used <= 1
        read = decode(taken.watermark, encoded.text)
        for name in (*NAMES, "absent"):
            assert read.done(name) == taken.finished.done(name), "the map was cut"
        self.room.measured(len(encoded.text))


@pytest.mark.promise("P3")
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    limit=st.sampled_from([2000, MAX_TEXT]),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    both=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    gaps=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
    absent=st.sampled_from([0, 0, 5_000, 50_000]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["few", "half", "most", "every second", "head"]), st.booleans(), st.sampled_from([1, 5, 30])
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_the_map_of_what_was_read_always_fits(
    seed: int, limit: int, share: float, both: float, gaps: float, absent: int, steps: list[tuple[str, bool, int]]
) -> None:
    """Reading stops early enough that no order of outcomes makes a map that has to be cut.

    Kills: a limit on the present map only, which says nothing about what was read ahead.
    """
    at = Partition(Random(seed), limit, share=share, both=both, gaps=gaps, absent=absent)
    for pattern, slow, polls in steps:
        for _ in range(polls):
            if not at.poll():
                break
        at.finish(FAST, at.some(FAST, pattern))
        if slow:
            at.finish(SLOW, at.some(SLOW, pattern))
        at.commit()
    for pattern in ("half", "every second", "half"):
        at.finish(FAST, at.some(FAST, pattern))
        at.finish(SLOW, at.some(SLOW, pattern))
        at.commit()
    at.finish(FAST, at.some(FAST, "most"))
    at.finish(FAST, set(at.open[FAST]))
    at.finish(SLOW, set(at.open[SLOW]))
    assert not at.room.full
    assert at.poll()


def test_an_idle_vendor_leaves_room_for_thousands_of_records() -> None:
    """With nothing finished at all, at least 12,000 records of one partition may be under way."""
    at = Partition(Random(1), MAX_TEXT, share=0.0, both=0.0, gaps=0.0)
    while at.poll():
        pass
    assert 12_000 < at.tracker.unfinished < 25_000
    assert at.room.used == 1.0
    at.finish(FAST, at.some(FAST, "head"))
    at.commit()
    assert not at.room.full


@pytest.mark.promise("P3")
def test_claims_of_an_absent_destination_never_need_more_room() -> None:
    """A destination that is absent for one run keeps its claims, also where much is read before half of it finishes.

    Kills: claims cut down to what is pending, which have a gap for each record that finished.
    """
    at = Partition(Random(1), MAX_TEXT, share=0.5, both=0.0, gaps=0.0, absent=50_000)
    while at.poll():
        pass
    at.finish(FAST, set(at.open[FAST]))
    at.commit()


def test_a_restored_map_counts_from_the_start() -> None:
    """After a restart the map that was taken over counts, and reading goes on as long as nothing is unfinished."""
    finished = FinishedMap(Runs.of(sorted(Random(1).sample(range(1, 40_000), 2_700))))
    text = encode(0, finished).text
    tracker = PartitionTracker("t", 0, 0, NAMES, finished)
    limit = len(text) + 100
    room = MapRoom(tracker, limit, len(text))
    assert room.used == len(text) / limit
    seen = [room.full]
    tracker.begin((0,))
    seen.append(room.full)
    tracker.finish((0,), 1)
    seen.append(room.full)
    assert seen == [False, True, False]


@pytest.mark.slow
@pytest.mark.promise("P3")
@played
async def test_a_clean_stop_repeats_nothing_although_one_destination_is_held() -> None:
    """60,000 records, a tenth for a destination that answers nothing: intake stops, and the next run repeats none.

    Kills: reading on until the map has to be cut; what is cut is delivered again.
    """
    source = ModelSource(1)
    source.chunk = 500
    random = Random(7)
    source.produce(*[b"e" if random.random() < 0.1 else b"d" for _ in range(60_000)], partition=0)
    first = PipelineRig(source, names="de", latency=0.0)
    first.to["e"].latency = None
    async with first.running(0):
        await first.until(lambda: source.paused)
        await first.clock.sleep(5)
        assert len(first.to["d"].done) > 20_000
    source.paused.clear()
    again = PipelineRig(source, names="de", latency=0.0)
    async with again.running(0):
        await again.until(lambda: source.committed["t", 0] == (60_000, ""))
    assert len(first.to["d"].done) + len(again.to["d"].done) + len(again.to["e"].done) == 60_000
