"""One record skipped by hand: from wherever it waits it becomes a dead letter, and nothing else is lost or late."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from connector.delivery.states import DestinationState
from connector.delivery.worker import Worker
from connector.pipeline.skips import PATIENCE, Skipper, SkipResult
from connector.records import DeadLetter, Position, TopicPartition
from tests.unit.delivery.delivery_rig import OK, Behave, Call, Reply, Rig, played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig


def filled(*values: bytes | None) -> ModelSource:
    """Return a broker with these records in partition 0."""
    source = ModelSource()
    source.produce(*values)
    return source


def skipper(rig: PipelineRig) -> Skipper:
    """Return the hand tool of a pipeline whose destinations are models."""
    return Skipper(rig.runner, rig.intake, {}, rig.clock)


def at(offset: int, partition: int = 0) -> Position:
    """Return a place in the model's topic."""
    return Position("t", partition, offset)


class WorkerRig(Rig):
    """A destination with the hand tool: it stands for the runner that owns the partitions."""

    def tracker_of(self, partition: TopicPartition) -> object:
        """Return the tracker of a partition that the test has used."""
        return self.trackers.get(partition[1])

    def end_of(self, partition: TopicPartition) -> int | None:
        """Return no end: it is not known yet."""
        return None

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that are owned."""
        return frozenset(("t", number) for number in self.trackers)

    async def skip(self, offset: int, destination: str | None = None) -> SkipResult:
        """Skip a record."""
        workers: dict[str, Worker] = {"d": self.worker}
        hand = Skipper(cast("PipelineRig", self), cast("PipelineRig", None), workers, self.clock)  # type: ignore[arg-type]
        return await hand.skip(at(offset), destination)

    @property
    def causes(self) -> list[tuple[int, str]]:
        """Offset and cause of each dead letter, in the order in which they were written."""
        return [(dead_letter.record.offset, dead_letter.cause) for dead_letter in self.dead_letters.dead_letters]


def failing(*numbers: int) -> Behave:
    """Return a vendor that fails whenever one of these is in a request."""

    def behave(call: Call) -> Reply:
        return Reply(500) if set(numbers) & set(call.numbers) else OK

    return behave


@pytest.mark.promise("P1", "P10")
@played
async def test_a_record_that_waits_for_its_schema_is_skipped_and_the_rest_goes_on() -> None:
    """The parked head becomes a dead letter, acknowledged before its offset; its schema is not requested again.

    Kills: finishing the record before its dead letter; leaving what is behind it parked.
    """
    rig = PipelineRig(filled(b"d", b"schema:lost:d", b"d", b"schema:other:d", b"d"))
    async with rig.running():
        await rig.until(lambda: rig.decoder.asked == ["lost", "other"])
        rig.dead_letters.gate.clear()
        skipping = asyncio.create_task(skipper(rig).skip(at(1), None))
        await rig.until(lambda: rig.dead_letters.begun == 1)
        await rig.clock.sleep(2)
        assert rig.source.committed["t", 0][0] == 1
        rig.dead_letters.gate.set()
        assert await skipping == SkipResult("skipped", "t[0]@1 is skipped: a dead letter with cause operator")
        assert rig.decoder.abandoned == ["lost"]
        await rig.until(lambda: rig.to["d"].done == [(0, 0), (0, 2)])
        rig.decoder.answer("lost")
        rig.decoder.answer("other")
        await rig.until(lambda: len(rig.to["d"].done) == 4)
        assert (await skipper(rig).skip(at(1), None)).state == "refused"
    (dead_letter,) = rig.written
    assert (dead_letter.record.offset, dead_letter.cause, dead_letter.code, dead_letter.destination) == (
        1,
        "operator",
        "operator.skip",
        None,
    )
    assert rig.source.committed["t", 0][0] == 5


@played
async def test_a_schema_that_others_wait_for_is_still_asked_for() -> None:
    """Skipping one of two records with one unknown schema leaves the other waiting for it."""
    rig = PipelineRig(filled(b"schema:new:d", b"schema:new:d"))
    async with rig.running():
        await rig.until(lambda: rig.decoder.asked == ["new"])
        assert (await skipper(rig).skip(at(0), None)).state == "skipped"
        assert rig.decoder.abandoned == []
        rig.decoder.answer("new")
        await rig.until(lambda: rig.to["d"].done == [(0, 1)])
    assert rig.dead_letter_offsets == [0]


@played
async def test_a_record_of_a_storm_is_skipped_alone() -> None:
    """In a topic's storm one record can be set aside by hand; the others keep waiting."""
    rig = PipelineRig(filled(*[b"broken"] * 30), storm=20)
    async with rig.running():
        await rig.until(lambda: rig.storm_changes)
        before = len(rig.written)
        assert (await skipper(rig).skip(at(before), None)).state == "skipped"
        assert len(rig.written) == before + 1
        assert [dead_letter.cause for dead_letter in rig.written] == ["decode"] * before + ["operator"]
        assert rig.storms["t"].status()[0].set_aside == 30 - before - 1


@pytest.mark.promise("P10")
@played
async def test_a_record_that_is_not_read_yet_is_skipped_when_it_is_read() -> None:
    """Behind a full buffer it waits for its turn, and is then neither decoded nor delivered.

    Kills: decoding a record that was to be skipped; finishing it before its dead letter.
    """
    rig = PipelineRig(filled(*[b"d"] * 4, b"broken", b"d"), latency=None, budget=1500)
    rig.source.chunk = 2
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].taken) == 2)
        hand = skipper(rig)
        began = rig.clock.now()
        told = await hand.skip(at(4), None)
        assert rig.clock.now() - began < PATIENCE + 1
        assert (told.state, "not read yet" in told.message) == ("pending", True)
        assert "without --destination" in (await hand.skip(at(5), "d")).message
        assert "ends at 6" in (await hand.skip(at(6), None)).message
        again = asyncio.create_task(hand.skip(at(4), None))
        for _ in range(3):
            await rig.clock.sleep(0.5)
            rig.to["d"].send()
        assert (await again).state == "skipped"
        await rig.until(lambda: rig.dead_letter_offsets == [4])
        rig.to["d"].send()
        await rig.until(lambda: rig.source.committed["t", 0][0] == 6)
    assert [(dead_letter.record.offset, dead_letter.cause) for dead_letter in rig.written] == [(4, "operator")]
    assert [offset for _, offset in rig.to["d"].taken] == [0, 1, 2, 3, 5]


@played
async def test_a_partition_that_leaves_forgets_what_was_to_be_skipped() -> None:
    """A skip does not outlive a revoke; its caller is told to ask the next owner."""
    rig = PipelineRig(filled(*[b"d"] * 4), latency=None, budget=1500)
    rig.source.chunk = 2
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].taken) == 2)
        waiting = asyncio.create_task(skipper(rig).skip(at(3), None))
        await rig.clock.sleep(0.2)
        rig.source.revoke(0)
        told = await waiting
        assert (told.state, "left this member" in told.message) == ("refused", True)
        assert "it owns: none" in (await skipper(rig).skip(at(3), None)).message
        rig.source.assign(0)
        for _ in range(4):
            await rig.clock.sleep(0.5)
            rig.to["d"].send()
        await rig.until(lambda: rig.source.committed["t", 0][0] == 4)
    assert rig.written == []


@pytest.mark.promise("P1")
@played
async def test_a_record_that_makes_the_vendor_fail_is_skipped_with_its_history() -> None:
    """A poison record that waits alone becomes a dead letter with attempts and last answer; it is not sent again.

    Kills: finishing it without a dead letter; sending it after it was taken out.
    """
    rig = WorkerRig(failing(7), batch={"records": 1})
    async with rig.running():
        rig.offer(range(20))
        await rig.until(lambda: rig.tracker().unfinished == 1)
        assert "waits alone" in str(rig.worker.condition().message)
        sent = len(rig.transport.calls)
        assert await rig.skip(7) == SkipResult("skipped", "t[0]@7 is skipped: a dead letter with cause operator for d")
        assert rig.worker.condition().state is DestinationState.FLOWING
        assert (await rig.skip(7)).state == "refused"
        assert "already done" in (await rig.skip(3)).message
    (dead_letter,) = rig.dead_letters.dead_letters
    assert isinstance(dead_letter, DeadLetter)
    assert (dead_letter.cause, dead_letter.code, dead_letter.destination) == ("operator", "operator.skip", "d")
    assert dead_letter.attempts == sum(7 in call.numbers for call in rig.transport.calls)
    assert dead_letter.first_attempt is not None
    assert dead_letter.message == "an operator skipped the record; before that: HTTP 500"
    assert len(rig.transport.calls) == sent


@played
async def test_one_of_a_held_destination_is_skipped_and_the_others_stay() -> None:
    """Of a batch that waits for its operator one record is set aside; the rest is delivered after the release."""
    rig = WorkerRig(hold=True)
    async with rig.running():
        rig.offer(range(10))
        assert (await rig.skip(4, "d")).state == "skipped"
        assert rig.causes == [(4, "operator")]
        assert rig.unfinished == 9
        rig.worker.release()
        await rig.done()
    assert sorted(rig.transport.accepted) == [n for n in range(10) if n != 4]


@pytest.mark.promise("P1")
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("accepts", [True, False])
def test_a_record_in_a_request_is_skipped_only_if_it_was_not_accepted(order: str, accepts: bool) -> None:
    """An accepted record gets no dead letter; one whose request fails becomes a dead letter and is not sent again.

    Kills: a dead letter of a record that the vendor has accepted; sending it once more before the dead letter.
    """

    async def play() -> None:
        behave = (lambda _call: OK) if accepts else failing(2)
        rig = WorkerRig(behave, latency=3.0, order=order, retry={"initial": 60.0, "max": 60.0})
        async with rig.running():
            rig.offer(range(5))
            await rig.until(lambda: rig.worker.in_flight)
            told = await rig.skip(2)
            assert told.state == ("refused" if accepts else "skipped")
            await rig.done()
        assert rig.causes == ([] if accepts else [(2, "operator")])
        assert sorted(rig.transport.accepted) == ([0, 1, 2, 3, 4] if accepts else [0, 1, 3, 4])
        assert sum(2 in call.numbers for call in rig.transport.calls) == 1

    played(play)()


@pytest.mark.parametrize("order", ["none", "key"])
def test_a_record_of_a_batch_that_is_cut_is_not_sent_again(order: str) -> None:
    """If the answer is that the batch was too large, its parts are sent at once, without the skipped record."""

    async def play() -> None:
        rig = WorkerRig(lambda call: OK if call.nth else Reply(413), latency=1.0, order=order)
        async with rig.running():
            rig.offer(range(8), key=lambda _n: b"k")
            await rig.until(lambda: rig.worker.in_flight)
            assert (await rig.skip(2)).state == "skipped"
            await rig.done()
        assert rig.causes == [(2, "operator")]
        assert sum(2 in call.numbers for call in rig.transport.calls) == 1
        assert sorted(rig.transport.accepted) == [n for n in range(8) if n != 2]

    played(play)()


@played
async def test_a_slow_answer_is_not_waited_for_and_the_skip_still_comes() -> None:
    """After a few seconds the caller learns that the answer decides; the skip stays pending."""
    rig = WorkerRig(failing(2), latency=15.0)
    async with rig.running():
        rig.offer([2])
        await rig.until(lambda: rig.worker.in_flight)
        told = await rig.skip(2)
        assert (told.state, "in a request" in told.message) == ("pending", True)
        await rig.done()
    assert rig.causes == [(2, "operator")]
    assert len(rig.transport.calls) == 1


@played
async def test_a_dead_letter_that_kafka_does_not_take_keeps_the_record_unfinished() -> None:
    """While the dead-letter topic is down, the record is set aside and uncommitted, and the caller is told."""
    rig = WorkerRig(hold=True)
    async with rig.running():
        rig.offer([0])
        rig.dead_letters.gate.clear()
        told = await rig.skip(0)
        assert (told.state, "waits for Kafka" in told.message) == ("pending", True)
        assert rig.unfinished == 1
        rig.dead_letters.gate.set()
        await rig.done()
    assert rig.causes == [(0, "operator")]


@played
async def test_a_record_that_a_destinations_storm_set_aside_is_skipped() -> None:
    """It is read again and becomes a dead letter of the operator; the others wait on."""
    rig = WorkerRig(storm={"share": 0.5, "records": 10})
    async with rig.running(all_done=False):
        rig.refuse(range(8))
        await rig.until(lambda: rig.unfinished == 3)
        assert (await rig.skip(6)).state == "skipped"
        assert rig.causes[-1] == (6, "operator")
        assert rig.unfinished == 2
        assert rig.destination.buffer.bytes == rig.budget.used == 0


@pytest.mark.promise("P1", "P5")
@pytest.mark.parametrize("released", [False, True])
def test_a_record_of_a_storm_that_is_being_read_again_is_skipped(*, released: bool) -> None:
    """As a probe, or after the release, a record is away for its read: a skip at that moment holds too, and alone.

    Kills: a skip that is promised and forgotten; a record that is dead-lettered for its storm's cause as well.
    """

    async def play() -> None:
        rig = PipelineRig(filled(*[b"broken"] * 30, b"d"), storm=20)
        async with rig.running():
            await rig.until(lambda: rig.to["d"].done)
            if released:
                rig.source.read_positions.clear()
                rig.storms["t"].release()
            await rig.until(lambda: rig.source.read_positions)
            assert (await skipper(rig).skip(at(10), None)).state == "skipped"
            assert [each.record.offset for each in rig.written if each.cause == "operator"] == [10]
            if not released:
                assert rig.storms["t"].status()[0].set_aside == 19
                rig.storms["t"].release()
            await rig.until(lambda: rig.source.committed.get(("t", 0)) == (31, ""))
        assert sorted(rig.dead_letter_offsets) == list(range(30))
        assert rig.intake._skips == {}

    played(play)()


@pytest.mark.promise("P1", "P5")
@pytest.mark.parametrize("recovered", [False, True])
def test_a_skip_inside_a_destinations_storm_holds_after_its_release(*, recovered: bool) -> None:
    """Skipped while set aside or while read again: one dead letter of the operator; the others have their own outcome.

    Kills: a skip that the release forgets; a skipped record that is sent, or refused once more.
    """

    async def play() -> None:
        rig = WorkerRig(storm={"share": 0.5, "records": 10})
        async with rig.running():
            rig.rereads = False
            rig.refuse(range(12))
            await rig.until(lambda: rig.unfinished == 7)
            aside = asyncio.create_task(rig.skip(6))
            await rig.clock.sleep(0.2)
            if recovered:
                rig.invalid.clear()
            assert rig.worker.release() == 6
            places = rig.destination.storms.let_go(500)
            away = asyncio.create_task(rig.skip(9))
            await rig.clock.sleep(0.2)
            for place in places:
                rig.give_again(place)
            assert [(await each).state for each in (aside, away)] == ["skipped", "skipped"]
            await rig.done()
        assert [offset for offset, cause in rig.causes if cause == "operator"] == [6, 9]
        assert sorted(rig.transport.accepted) == ([5, 7, 8, 10, 11] if recovered else [])
        assert sorted(offset for offset, _ in rig.causes) == ([*range(5), 6, 9] if recovered else list(range(12)))
        assert rig.destination.buffer.bytes == rig.budget.used == 0

    played(play)()
