"""`order: key` over restarts: the real worker, begun again from what was committed, with its map."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.pipeline import offset_map as metadata
from connector.pipeline.batching import Delivery, charge_of
from connector.pipeline.offsets import PartitionTracker, Phase, destination_bit
from connector.records import Item, Record
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Behave, Call, Reply, Rig

COUNT: Final = 300
BIT: Final = destination_bit(0)


class Committed(NamedTuple):
    """What Kafka holds of the partition."""

    offset: int = 0
    text: str = ""


def begin(rig: Rig, committed: Committed) -> PartitionTracker:
    """Begin an assignment from what was committed."""
    restored = metadata.decode(committed.offset, committed.text)
    rig.trackers[0] = tracker = PartitionTracker("t", 0, committed.offset, ["d"], restored)
    return tracker


def commit(tracker: PartitionTracker, before: Committed) -> Committed:
    """Commit what is finished now."""
    snapshot = tracker.snapshot()
    if snapshot is None:
        return before
    return Committed(snapshot.watermark, metadata.encode(snapshot.watermark, snapshot.finished).text)


def offer(rig: Rig, tracker: PartitionTracker, number: int, key: bytes) -> None:
    """Let the record at this offset be read: offered, unless the map says that it is done."""
    if not tracker.begin((number,)) or tracker.route((number,), BIT) == [0]:
        return
    record = Record("t", 0, number, -1, key, b"v", ())
    item = Item(b"%d" % number)
    delivery = Delivery(record, tracker, BIT, item, f"id-{number}", charge_of(record, item.body))
    rig.budget.add(delivery.charge)
    rig.take([delivery])


async def life(
    behave: Behave, keys: list[bytes], committed: Committed, random: Random
) -> tuple[Committed, list[int], set[int]]:
    """Live until all is done or something ends it, and return what is committed, accepted and dead-lettered."""
    rig = Rig(behave, order="key", max_in_flight=4, storm="off", batch={"records": 20}, latency=0.05)
    tracker = begin(rig, committed)
    task = asyncio.create_task(rig.worker.run())
    ends = rig.clock.now() + random.uniform(0.1, 3.0)
    clean, number = random.random() < 0.5, committed.offset
    while rig.clock.now() < ends and (number < COUNT or tracker.unfinished):
        for _ in range(random.randrange(60)):
            if number < COUNT:
                offer(rig, tracker, number, keys[number])
                number += 1
        await rig.clock.sleep(random.uniform(0.0, 0.1))
        if random.random() < 0.3:
            committed = commit(tracker, committed)
    if clean:
        tracker.phase = Phase.DRAINING
        assert await rig.worker.drain(60.0)
        committed = commit(tracker, committed)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await rig.worker.close()
    return committed, rig.transport.accepted, set(rig.dead_letters.numbers)


@pytest.mark.promise("P11")
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), keys=st.sampled_from([1, 5, 40]), hinted=st.booleans())
def test_each_key_is_accepted_in_order_over_restarts(seed: int, keys: int, hinted: bool) -> None:
    """With 5 % of 500s, 1 % refused, stops and crashes: what a key had accepted for the first time ascends.

    A record is sent again only after a crash. Kills: a map that claims an unfinished record, parts of a refused batch
    that survive their assignment in another order.
    """
    random = Random(seed)
    key_of = [b"%d" % random.randrange(keys) for _ in range(COUNT)]
    bad = {number for number in range(COUNT) if random.random() < 0.01}

    def behave(call: Call) -> Reply:
        if random.random() < 0.05:
            return Reply(500)
        named = [number for number in call.numbers if number in bad]
        return Reply(400, {"code": "B", "named": named[:1] if hinted else []}) if named else OK

    async def play() -> None:
        committed, accepted, dead = Committed(), list[int](), set[int]()
        for _ in range(200):
            committed, more, dead_letters = await life(behave, key_of, committed, random)
            accepted += more
            dead |= dead_letters
            if committed.offset == COUNT:
                break
        assert committed.offset == COUNT
        assert dead == bad
        first = list(dict.fromkeys(accepted))
        assert set(first) == set(range(COUNT)) - bad
        last: dict[bytes, int] = {}
        for number in first:
            assert last.get(key_of[number], -1) < number
            last[key_of[number]] = number

    run_virtual(play())
