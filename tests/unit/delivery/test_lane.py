"""A lane: what goes next, what waits, and that it says truly when time alone will change that."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.delivery.lane import Lane, lane_of
from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.offsets import PartitionTracker
from connector.records import Item, Record
from connector.vendors.base import Limits

TRACKER = PartitionTracker("t", 0, 0, ["d"])
LINGER = 0.2


def lane(concurrency: int = 1, *, ordered: bool = False, records: int = 3) -> Lane:
    """Return a lane of small batches."""
    return Lane(lambda _group: Limits(records, 1000, 2, 1), LINGER, concurrency=concurrency, ordered=ordered)


def delivery(offset: int, key: bytes | None = b"k") -> Delivery:
    """Return a delivery."""
    return Delivery(Record("t", 0, offset, -1, key, b"v", ()), TRACKER, 2, Item(b"x"), f"id-{offset}", 1)


def anything(_group: Hashable) -> bool:
    """Allow every group."""
    return True


def _ending_in(digit: int) -> Callable[[Delivery], bool]:
    """Return what tells the deliveries whose offset ends in a digit."""
    return lambda one: one.record.offset % 10 == digit


def offsets(batch: Batch | None) -> list[int]:
    """Return the offsets of a batch, none of none."""
    return [] if batch is None else [one.record.offset for one in batch.deliveries]


def test_a_full_batch_goes_at_once_and_a_filling_one_after_its_linger() -> None:
    """Three of a kind are full; the fourth waits for its linger, not a moment longer."""
    at = lane()
    for n in range(4):
        at.offer([delivery(n)], "g", 10.0)
    assert offsets(at.take(10.0, anything)) == [0, 1, 2]
    assert at.take(10.1, anything) is None
    due = at.wake_at(anything)
    assert due == 10.0 + LINGER
    assert offsets(at.take(due, anything)) == [3]
    assert not at


def test_retries_take_turns_with_parts_and_both_go_before_full_batches() -> None:
    """What is due again and what is being isolated take turns, so neither waits for all of the other."""
    at = lane(8)
    for n in range(3):
        at.offer([delivery(n)], "g", 0.0)
    for n in (10, 11):
        at.put_waiting(Batch("g", [delivery(n)]), 5.0)
    at.put_parts([Batch("g", [delivery(n)]) for n in (20, 21, 22)])
    taken = [offsets(at.take(6.0, anything)) for _ in range(7)]
    assert taken == [[10], [20], [11], [21], [22], [0, 1, 2], []]


def test_order_keeps_everything_behind_what_failed() -> None:
    """With order a batch that waits to be sent again keeps all later ones back until it is due."""
    at = lane(ordered=True)
    for n in range(6):
        at.offer([delivery(n)], "g", 0.0)
    first = at.take(1.0, anything)
    assert first is not None
    at.put_waiting(first, 9.0)
    assert at.take(8.9, anything) is None
    assert at.wake_at(anything) == 9.0
    assert offsets(at.take(9.0, anything)) == [0, 1, 2]
    assert offsets(at.take(9.0, anything)) == [3, 4, 5]


def test_order_closes_a_batch_where_the_group_changes() -> None:
    """Records of another endpoint close the batch before them, so that they cannot overtake it."""
    at = lane(ordered=True)
    for n, group in enumerate("aab"):
        at.offer([delivery(n)], group, 0.0)
    first = at.take(0.0, anything)
    assert (offsets(first), None if first is None else first.closed_by) == ([0, 1], "group")
    assert at.take(0.0, anything) is None
    assert offsets(at.take(LINGER, anything)) == [2]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_held_group_waits_and_others_pass_where_there_is_no_order(ordered: bool) -> None:
    """Without order another group's batch passes a held one; with order the lane waits, and no time ends that."""
    at = lane(ordered=ordered)
    for n in range(6):
        at.offer([delivery(n)], "vip" if n < 3 else "free", 0.0)

    def allowed(group: Hashable) -> bool:
        return group == "free"

    assert offsets(at.take(1.0, allowed)) == ([] if ordered else [3, 4, 5])
    assert at.wake_at(allowed) is None


def test_probes_take_another_batch_each_time() -> None:
    """Batches that a probe put back are tried again only after all others."""
    at = lane(8)
    for n in range(7):
        at.offer([delivery(n)], "g", 0.0)
    seen = []
    for now in range(10, 14):
        batch = at.take_probe(anything, newest=False)
        assert batch is not None
        seen.append(offsets(batch))
        at.put_back(batch, float(now))
    assert seen == [[0, 1, 2], [3, 4, 5], [6], [0, 1, 2]]


def test_a_parked_record_keeps_its_key_back_and_lets_others_pass() -> None:
    """With order, what is of a parked key, here or coming, waits; afterwards it goes first, in its order.

    Kills: a record that overtakes a parked one of its key, and a follower that is lost.
    """
    at = lane(ordered=True)
    head = delivery(0, b"a")
    at.put_parts([Batch("g", [delivery(1, b"a"), delivery(2, b"b"), delivery(3, b"b")])])
    at.offer([delivery(4, b"a"), delivery(5, b"c")], "g", 0.0)
    at.park(head)
    for offset, key in ((6, b"b"), (7, b"a"), (8, b"a"), (9, b"a")):
        at.offer([delivery(offset, key)], "g", 0.0)
    taken = []
    while batch := at.take(1.0, anything):
        taken += offsets(batch)
    assert taken == [2, 3, 5, 6]
    assert not at
    assert sorted(one.record.offset for batch in at.batches() for one in batch.deliveries) == [1, 4, 7, 8, 9]
    assert [one.record.offset for one in at.drop(_ending_in(8))] == [8]
    at.offer([delivery(10, b"c")], "g", 1.0)
    at.unpark(head)
    assert [offsets(at.take(2.0, anything)) for _ in range(4)] == [[1], [4, 7, 9], [10], []]


def test_hurry_makes_everything_due() -> None:
    """When a hold ends nothing waits for its old time."""
    for ordered in (False, True):
        at = lane(8, ordered=ordered)
        at.put_waiting(Batch("g", [delivery(1)]), 1e9)
        at.hurry(5.0)
        assert offsets(at.take(5.0, anything)) == [1]


@settings(max_examples=200)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["offer", "take", "probe", "fail", "split", "back", "drop"]), st.integers(0, 9)),
        max_size=80,
    ),
    ordered=st.booleans(),
)
@example(steps=[("offer", 4), ("take", 0), ("fail", 1), ("take", 0), ("probe", 0)], ordered=True)
def test_nothing_is_lost_doubled_or_woken_for_nothing(steps: list[tuple[str, int]], ordered: bool) -> None:
    """Through any sequence every delivery is in the lane once, in flight, or dropped; with order they leave in order.

    Where nothing may be taken now, the time the lane gives lies ahead. Kills: a batch forgotten on its way back; a
    time that lies in the past and turns the loop for nothing.
    """
    at = lane(3, ordered=ordered)
    flying: list[Batch] = []
    inside: set[int] = set()
    now, count, number = 100.0, 0, 0
    for step, number in steps:
        now += number / 20
        if step == "offer":
            for _ in range(number):
                at.offer([delivery(count)], "ab"[number % 2], now)
                inside.add(count)
                count += 1
        elif step == "take" or (step == "probe" and not (ordered and flying)):
            batch = None
            if not (ordered and flying):
                batch = at.take(now, anything) if step == "take" else at.take_probe(anything, newest=number % 2 == 1)
            if batch is not None:
                if ordered:
                    assert min(offsets(batch)) == min(inside)
                flying.append(batch)
                inside.difference_update(offsets(batch))
        elif step == "drop":
            gone = {one.record.offset for one in at.drop(_ending_in(number))}
            assert gone == {offset for offset in inside if offset % 10 == number}
            inside -= gone
        elif flying:
            batch = flying.pop()
            inside.update(offsets(batch))
            if step == "fail":
                at.put_waiting(batch, now + number)
            elif step == "split":
                at.put_parts([batch.part([one]) for one in batch.deliveries])
            else:
                at.put_back(batch, now)
        assert sorted(offset for batch in at.batches() for offset in offsets(batch)) == sorted(inside)
        assert bool(at) == bool(inside)
    taken = at.take(now, anything)
    if taken is None:
        due = at.wake_at(anything)
        assert (due is None) == (not inside)
        assert due is None or (due > now and at.take(due, anything) is not None)


@given(st.binary(max_size=20) | st.none(), st.integers(0, 50), st.sampled_from([1, 2, 8, 64]))
def test_a_key_has_one_lane(key: bytes | None, partition: int, lanes: int) -> None:
    """A lane follows from the key alone, or from the partition where there is no key."""
    chosen = lane_of(Record("t", partition, 1, -1, key, b"v", ()), lanes)
    assert 0 <= chosen < lanes
    assert chosen == lane_of(Record("t", partition if key is None else 99, 2, -1, key, b"w", ()), lanes)
