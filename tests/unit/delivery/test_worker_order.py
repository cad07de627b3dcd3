"""The worker with `order: key` on virtual time: every key's records are accepted in the order of their offsets."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig

COUNT = 400


def in_order(accepted: list[int], key_of: list[bytes | None]) -> bool:
    """Whether the accepted numbers ascend for each key."""
    last: dict[bytes | None, int] = {}
    for number in accepted:
        if number < last.get(key_of[number], -1):
            return False
        last[key_of[number]] = number
    return True


@pytest.mark.slow
@pytest.mark.promise("P11")
@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32),
    keys=st.sampled_from([1, 2, 7, 50]),
    failing=st.sampled_from([0.0, 0.05, 0.3]),
    refused=st.sampled_from([0.0, 0.01, 0.2]),
    hinted=st.booleans(),
    groups=st.sampled_from([1, 2]),
    lanes=st.sampled_from([1, 3, 8]),
)
def test_each_key_is_accepted_in_order(
    seed: int, keys: int, failing: float, refused: float, hinted: bool, groups: int, lanes: int
) -> None:
    """Through 5xx, cuts, refusals with and without hints, and changes of endpoint, no key's record overtakes another.

    Kills: sending the next batch of a lane while the one before waits; setting a suspect apart without its followers.
    """
    random = Random(seed)
    key_of: list[bytes | None] = [b"%d" % random.randrange(keys) for _ in range(COUNT)]
    bad = {n for n in range(COUNT) if random.random() < refused}

    def behave(call: Call) -> Reply:
        chance = random.random()
        if chance < failing:
            return Reply(500 if chance < failing / 2 else 200, cut=chance >= failing / 2)
        named = [n for n in call.numbers if n in bad]
        if named:
            return Reply(400, {"code": "B", "named": named[:1] if hinted else []})
        return OK

    async def play() -> None:
        rig = Rig(behave, order="key", max_in_flight=lanes, storm="off", batch={"records": 20}, latency=0.02)
        async with rig.running():
            for first in range(0, COUNT, 50):
                numbers = range(first, first + 50)
                for n in numbers:
                    rig.offer([n], group=f"g{random.randrange(groups)}", key=lambda n: key_of[n])
                await rig.clock.sleep(0.05)
            await rig.done()
        assert rig.dead_letters.numbers == sorted(bad)
        assert rig.sent_once()
        assert in_order(rig.transport.accepted, key_of)

    run_virtual(play())


@pytest.mark.promise("P11")
def test_records_without_a_key_keep_their_partitions_order() -> None:
    """A null key's order is that of its partition.

    Kills: one lane for all records without a key, or any lane.
    """

    async def play() -> None:
        random = Random(3)
        rig = Rig(
            lambda call: Reply(500) if random.random() < 0.3 else OK,
            order="key",
            batch={"records": 5},
        )
        async with rig.running():
            rig.offer(range(100), partition=3)
            await rig.done()
        assert rig.transport.accepted == list(range(100))

    run_virtual(play())


@pytest.mark.promise("P11")
def test_an_expired_record_lets_nothing_overtake_its_batch() -> None:
    """While the dead letter of an expired record is written, the rest of its batch stays in front of what came later.

    Kills: freeing the lane before the failed batch is back in it.
    """

    async def play() -> None:
        answers = iter([Reply(503, headers={"retry-after": "10"}), Reply(503)])
        rig = Rig(lambda _call: next(answers, OK), order="key", max_in_flight=1)
        async with rig.running():
            rig.dead_letters.latency = 5.0
            soon = int((rig.clock.wall() + 5) * 1000)
            rig.take([rig.delivery(0, key=b"k", expires_at=soon), rig.delivery(1, key=b"k")])
            await rig.until(lambda: rig.transport.calls)
            rig.offer(range(2, 10), key=lambda _n: b"k")
            await rig.done()
        assert rig.transport.accepted == list(range(1, 10))
        assert rig.dead_letters.numbers == [0]

    run_virtual(play())
