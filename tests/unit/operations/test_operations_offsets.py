"""A reset moves what it should, keeps what is finished, and counts what it skips and repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.operations.offsets import Move, OffsetsRefused, PartitionState, plan, ranges
from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, Runs

NOTHING = Runs()


def state(committed: int | None, first: int = 0, end: int = 100, finished: Runs = NOTHING) -> PartitionState:
    """Return a partition of topic t."""
    return PartitionState("t", 0, committed, first, end, FinishedMap(finished, {"jg": Runs((90, 92))}))


def only(one: PartitionState, target: int) -> Move:
    """Return the one move of a plan."""
    (move,) = plan([one], {("t", 0): target})
    return move


def test_ranges_name_first_and_last() -> None:
    """Half-open bounds become pairs of first and last offset."""
    assert ranges((3, 4, 7, 10)) == [[3, 3], [7, 9]]


def test_a_partition_that_stands_there_already_is_not_moved() -> None:
    """A target equal to the committed offset gives no move; a partition without one is moved to the target."""
    assert list(plan([state(10)], {("t", 0): 10})) == []
    assert only(state(None), 0).offset == 0


@pytest.mark.parametrize("target", [9, 101])
def test_one_target_outside_refuses_all(target: int) -> None:
    """Below the first offset and above the end nothing is moved, in no partition."""
    good = PartitionState("t", 1, 20, 10, 100, FinishedMap())
    with pytest.raises(OffsetsRefused, match="has offsets 10 to its end 100"):
        next(plan([good, state(20, first=10)], {("t", 1): 30, ("t", 0): target}))


def test_a_partition_that_is_gone_is_left_alone() -> None:
    """What does not exist has no lag and is never moved."""
    gone = PartitionState("t", 0, 5, None, None, FinishedMap(), 0.0, "gone")
    assert (gone.lag, gone.backlog, gone.out_of_range) == (None, None, False)
    assert list(plan([gone], {("t", 0): 0})) == []


def test_deleted_records_count_as_no_backlog() -> None:
    """If retention has overtaken the group, lag counts from the first record there is, and it is out of range."""
    late = state(5, first=40, finished=Runs((30, 50)))
    assert (late.lag, late.backlog, late.out_of_range) == (60, 50, True)
    assert only(late, 60).passed_over == 10


@given(
    committed=st.integers(0, 60),
    target=st.integers(0, 100),
    offsets=st.sets(st.integers(0, 99), max_size=60),
)
def test_moves_count_by_the_record(committed: int, target: int, offsets: set[int]) -> None:
    """Against a plain count: read again, passed over, kept; and the map kept claims nothing else.

    Kills: keeping the map on the way back, a kept map that is relative to the old offset, finished records counted
    as passed over.
    """
    done = {offset for offset in offsets if offset > committed}
    before = state(committed, finished=Runs.of(sorted(done)))
    assert before.backlog == len(set(range(committed, 100)) - done)
    moves = list(plan([before], {("t", 0): target}))
    if target == committed:
        assert moves == []
        return
    (move,) = moves
    assert move.again == len(range(target, committed))
    assert move.passed_over == len(set(range(committed, target)) - done)
    kept = {offset for offset in done if offset >= target} if target > committed else set()
    assert move.kept == len(kept)
    read = metadata.decode(target, move.metadata)
    assert {offset for offset in range(101) if read.whole.contains(offset)} == kept
    assert ("jg" in read.parts) == (committed < target < 92)
