"""The worker on virtual time: what a leaving partition waits for, and what is dropped."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import Refusal
from connector.pipeline.offsets import Phase
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Reply, Rig, played, refusing


@pytest.mark.promise("P3")
@played
async def test_requests_in_flight_are_awaited_and_the_unsent_dropped() -> None:
    """A drain ends when the requests of the leaving partition did; what was not sent stays uncommitted, and is free.

    Kills: sending what should be dropped; leaving before an answer is read.
    """
    rig = Rig(latency=5.0, max_in_flight=2)
    async with rig.running(all_done=False):
        rig.offer(range(1000))
        await rig.until(lambda: rig.transport.in_flight == 2)
        rig.tracker().phase = Phase.DRAINING
        began = rig.clock.now()
        assert await rig.worker.drain(22.0)
        assert rig.clock.now() - began <= 5.0
        assert rig.tracker().unfinished == 800
        assert rig.tracker().watermark == 200
        rig.tracker().phase = Phase.CLOSED
        await rig.clock.sleep(60)
    assert len(rig.transport.calls) == 2
    assert rig.budget.used == 0


@pytest.mark.promise("P3")
@pytest.mark.parametrize(
    "reply",
    [Reply(500), Reply(400, {"code": "B"}), Reply(413), Reply(429), Reply(401), Reply(cut=True)],
    ids=lambda reply: f"{reply.status}{'-cut' * reply.cut}",
)
def test_nothing_is_retried_or_halved_during_a_drain(reply: Reply) -> None:
    """A batch that fails or is refused while its partition leaves is let go: its records stay uncommitted.

    Kills: a retry, a half or a dead letter that begins after the partition's last commit.
    """

    async def play() -> None:
        rig = Rig(lambda _call: reply)
        async with rig.running(all_done=False):
            rig.offer(range(100))
            await rig.until(lambda: rig.transport.in_flight)
            rig.tracker().phase = Phase.DRAINING
            assert await rig.worker.drain(22.0)
            rig.tracker().phase = Phase.CLOSED
            await rig.clock.sleep(300)
        assert len(rig.transport.calls) == 1
        assert rig.dead_letters.dead_letters == []
        assert rig.tracker().watermark == 0
        assert rig.budget.used == 0
        assert rig.destination.buffer.bytes == 0

    run_virtual(play())


@played
async def test_a_refused_batch_that_lost_a_partition_is_taken_apart_without_its_hints() -> None:
    """Hints are places in the batch as it was sent: where records left meanwhile no one else is blamed for them.

    Kills: reading a suspect's place in what is left of the batch, which is another record or none.
    """
    rig = Rig(refusing([90], hinted=True), latency=1.0)
    async with rig.running(all_done=False):
        rig.offer(range(50), partition=0)
        rig.offer(range(50, 100), partition=1)
        await rig.until(lambda: rig.transport.in_flight)
        rig.tracker(0).phase = Phase.DRAINING
        assert await rig.worker.drain(22.0)
        rig.tracker(0).phase = Phase.CLOSED
        await rig.until(lambda: not rig.tracker(1).unfinished)
    assert rig.dead_letters.numbers == [90]
    assert sorted(rig.transport.accepted) == [n for n in range(50, 100) if n != 90]
    assert rig.budget.used == 0


@played
async def test_other_partitions_go_on_while_one_leaves() -> None:
    """A drain of one partition neither stops nor drops the others' records."""
    rig = Rig(latency=2.0, max_in_flight=2)
    async with rig.running(all_done=False):
        rig.offer(range(1000), partition=0)
        rig.offer(range(300), partition=1)
        await rig.until(lambda: rig.transport.in_flight == 2)
        rig.tracker(0).phase = Phase.DRAINING
        assert await rig.worker.drain(22.0)
        rig.tracker(0).phase = Phase.CLOSED
        await rig.until(lambda: not rig.tracker(1).unfinished)
    assert rig.budget.used == 0


@pytest.mark.promise("P10")
@played
async def test_dead_letters_being_written_are_awaited() -> None:
    """A drain waits for the dead letters of the leaving partition, be they expired, refused or broken.

    Kills: a dead letter written after its partition's last commit.
    """
    rig = Rig(refusing([1], hinted=True), latency=0.1)
    async with rig.running(all_done=False):
        rig.dead_letters.latency = 3.0
        rig.offer([0, 1])
        rig.worker.refuse(rig.delivery(2), Refusal("invalid", "model.n", "bad"))
        rig.take([rig.delivery(3, expires_at=1)])
        await rig.until(lambda: rig.dead_letters.begun == 3)
        rig.tracker().phase = Phase.DRAINING
        assert await rig.worker.drain(22.0)
        assert rig.dead_letters.numbers == [1, 2, 3]
        assert rig.tracker().watermark == 4
    assert rig.budget.used == 0


@played
async def test_a_drain_that_is_missed_says_so() -> None:
    """A request that outlasts the drain is not waited for; what it brings later changes no watermark."""
    rig = Rig(latency=10.0)
    async with rig.running(all_done=False):
        rig.offer(range(10))
        await rig.until(lambda: rig.transport.in_flight)
        rig.tracker().phase = Phase.DRAINING
        assert not await rig.worker.drain(3.0)
        rig.tracker().phase = Phase.CLOSED
        await rig.clock.sleep(20)
        assert rig.tracker().watermark == 0
    assert rig.budget.used == 0


@played
async def test_a_stopped_worker_starts_nothing() -> None:
    """After stop no request begins, not even of what is offered then."""
    rig = Rig(latency=1.0, max_in_flight=1)
    async with rig.running(all_done=False):
        rig.offer(range(300))
        await rig.until(lambda: rig.transport.in_flight)
        rig.worker.stop()
        await rig.clock.sleep(60)
        assert len(rig.transport.calls) == 1
        assert rig.tracker().watermark == 100


@played
async def test_records_set_aside_are_forgotten_with_their_partition() -> None:
    """Records that a storm has set aside leave with their partition: their next owner reads them again."""
    rig = Rig(storm={"records": 10})
    async with rig.running(all_done=False):
        rig.refuse(range(50))
        await rig.clock.sleep(0.5)
        assert rig.set_aside == 45
        rig.tracker().phase = Phase.DRAINING
        assert await rig.worker.drain(5.0)
        assert rig.set_aside == 0
        assert rig.destination.shown_holds() == []
        rig.tracker().phase = Phase.CLOSED
    assert rig.budget.used == 0
    assert len(rig.dead_letters.dead_letters) == 5


def test_closing_cancels_what_is_in_flight_and_the_connections() -> None:
    """A close leaves no task and no connection behind, whatever was under way."""

    async def play() -> None:
        rig = Rig(lambda _call: OK, latency=1e9)
        async with rig.running(all_done=False):
            rig.worker._requests.timeout = 1e9
            rig.offer(range(300))
            await rig.until(lambda: rig.transport.in_flight)
        assert rig.transport.closed
        assert rig.transport.in_flight == 0
        await asyncio.sleep(0)

    run_virtual(play())
