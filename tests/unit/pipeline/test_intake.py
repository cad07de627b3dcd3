"""Intake on virtual time: what each record becomes, and that waiting records keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from connector.errors import ConnectorError
from connector.pipeline.offsets import PartitionTracker, Phase
from connector.records import DeadLetter, Event, Item, Record
from connector.routing.table import Routed
from connector.testing.loop import run_virtual
from connector.vendors.base import VendorEvent
from tests.unit.delivery.delivery_rig import ModelVendor, played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig


def filled(*values: bytes | None) -> ModelSource:
    """Return a broker with these records in one partition."""
    source = ModelSource()
    source.produce(*values)
    return source


class Faulty(ModelVendor):
    """Fails on the record at offset 3."""

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Encode all others."""
        if event.fields["n"] == 3:
            raise ZeroDivisionError
        return super().encode(event, now)


class Large(ModelVendor):
    """Encodes the record at offset 0 as large as a body takes it, and the others one byte larger."""

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Return an item at the limit, or one past it."""
        return Item(b"x" * (99_998 + (event.fields["n"] > 0)))


@pytest.mark.promise("P1")
@played
async def test_every_kind_of_record_gets_its_outcome() -> None:
    """Delivered, null, unrouted, refused by decoder, route or rule, for one or several destinations: all end.

    Kills: a refused record that is forgotten; a null value that blocks its partition.
    """
    rig = PipelineRig(filled(b"d", None, b"", b"broken", b"?", b"D", b"de", b"dE", b"d"), names="de")
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (9, ""))
    assert sorted(offset for _, offset in rig.to["d"].done) == [0, 5, 6, 7, 8]
    assert sorted(offset for _, offset in rig.to["e"].done) == [6, 7]
    assert rig.to["d"].refused == [(5, "model.rule")]
    assert rig.to["e"].refused == [(7, "model.rule")]
    assert [(dead_letter.record.offset, dead_letter.cause) for dead_letter in rig.written] == [
        (3, "decode"),
        (4, "route"),
    ]
    skipped = rig.metrics.records_skipped
    reasons = {sample.labels["reason"]: sample.value for family in skipped.collect() for sample in family.samples}
    assert {reason: count for reason, count in reasons.items() if count} == {"null_value": 1, "routes[0]": 1}
    assert rig.metrics.total(rig.metrics.records_consumed) == 9


@played
async def test_a_dead_letter_of_intake_has_the_record_as_it_came() -> None:
    """Key, value and the dedup id by position stand in the dead letter of a record that could not be decoded."""
    rig = PipelineRig(filled(b"broken"))
    async with rig.running():
        await rig.until(lambda: rig.written)
    dead_letter = rig.written[0]
    assert (dead_letter.record.key, dead_letter.record.value) == (b"k", b"broken")
    assert (dead_letter.cause, dead_letter.code, dead_letter.destination) == ("decode", "decode.model", None)
    assert dead_letter.dedup_id


@pytest.mark.promise("P12")
@played
async def test_a_dead_letter_that_waits_for_kafka_keeps_no_other_record() -> None:
    """What waits knows the refusal and not where it was raised: those frames hold all records that were read with it.

    Kills: a refusal that is kept with its traceback.
    """
    rig = PipelineRig(filled(b"?", b"d"))
    rig.dead_letters.gate.clear()
    async with rig.running():
        await rig.until(lambda: rig.to["d"].done)
        (waiting,) = [task for task in asyncio.all_tasks() if task.get_name() == "dead letter"]
        refusal = waiting.get_coro().cr_frame.f_locals["refusal"]  # type: ignore[union-attr]
        assert refusal.code == "route.model"
        assert refusal.__traceback__ is None
        rig.dead_letters.gate.set()


@pytest.mark.promise("P10")
@played
async def test_a_dead_letter_is_acknowledged_before_its_offset_is_committed() -> None:
    """While the dead-letter topic does not answer, commits stay below the refused record.

    Kills: finishing a refused record when its dead letter is sent instead of acknowledged.
    """
    rig = PipelineRig(filled(b"d", b"broken", b"d"))
    rig.dead_letters.gate.clear()
    async with rig.running():
        await rig.until(lambda: rig.source.committed)
        await rig.clock.sleep(30)
        assert rig.source.committed["t", 0][0] == 1
        rig.dead_letters.gate.set()
        await rig.until(lambda: rig.source.committed["t", 0][0] == 3)


@played
async def test_records_wait_for_their_schema_in_order_and_are_paused() -> None:
    """An unknown schema parks its record and all behind it; when it is known they are delivered in their order.

    Those behind are asked for at once: that one of them is known may prove to the decoder that the registry is right.
    Kills: leaving a partition for ever behind an unknown id, where each known one stands behind it.
    """
    rig = PipelineRig(filled(b"d", b"schema:x:d", b"d", b"schema:y:d", b"d"))
    async with rig.running():
        await rig.until(lambda: rig.decoder.asked == ["x", "y"])
        rig.source.produce(b"d")
        await rig.clock.sleep(5)
        assert rig.to["d"].done == [(0, 0)]
        assert rig.source.paused == {("t", 0)}
        assert rig.source.committed["t", 0][0] == 1
        rig.decoder.answer("x")
        await rig.clock.sleep(1)
        assert [offset for _, offset in rig.to["d"].taken] == [0, 1, 2]
        rig.decoder.answer("y")
        await rig.until(lambda: rig.source.committed["t", 0][0] == 6)
    assert [offset for _, offset in rig.to["d"].taken] == [0, 1, 2, 3, 4, 5]


@played
async def test_one_schema_is_asked_for_once() -> None:
    """Many records of an unknown schema, in several partitions, cost one question; other partitions go on."""
    source = ModelSource(3)
    source.produce(b"schema:x:d", b"schema:x:d", partition=0)
    source.produce(b"schema:x:d", partition=1)
    source.produce(b"d", b"d", partition=2)
    rig = PipelineRig(source)
    async with rig.running(0, 1, 2):
        await rig.until(lambda: len(rig.to["d"].done) == 2)
        assert rig.decoder.asked == ["x"]
        rig.decoder.answer("x")
        await rig.until(lambda: len(rig.to["d"].done) == 5)


@pytest.mark.promise("P12")
@played
async def test_parked_records_are_charged_and_let_go_with_their_partition() -> None:
    """Records that wait for a schema count against the budget; a partition that leaves takes its own along.

    Kills: parking without a charge, or a leak of it at a revoke.
    """
    source = ModelSource(2)
    source.produce(*[b"schema:x:d"] * 50, partition=0)
    rig = PipelineRig(source)
    async with rig.running(0, 1):
        await rig.until(lambda: rig.budget.used > 50 * 700)
        source.revoke(0)
        await rig.until(lambda: rig.budget.used == 0)
        rig.decoder.answer("x")
        await rig.clock.sleep(1)
    assert rig.to["d"].done == []
    assert source.commits == []


@played
async def test_an_unexpected_error_of_the_registry_ends_the_run() -> None:
    """What resolving raised is not swallowed: the run ends with it, and the records stay uncommitted."""
    rig = PipelineRig(filled(b"schema:x:d"))

    async def broken(key: object) -> None:
        raise RuntimeError(f"no answer for {key}")

    rig.decoder.resolve = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no answer for x"):
        async with rig.running():
            await rig.clock.sleep(5)
    assert rig.source.commits == []


@pytest.mark.promise("P1", "P14")
@played
async def test_an_unexpected_exception_over_one_record_makes_it_a_dead_letter() -> None:
    """A fault of ours in decoder, route or vendor ends one record with cause `internal`; all others are delivered.

    Kills: a record that ends the run, and so every run after it.
    """
    rig = PipelineRig(filled(b"d", b"decoder", b"route", b"d", b"d"))
    rig.to["d"].vendor = Faulty()
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (5, ""))
    assert sorted(rig.to["d"].taken) == [(0, 0), (0, 4)]
    assert rig.to["d"].refused == [(3, "internal.ZeroDivisionError")]
    found = [(one.record.offset, one.cause, one.code) for one in rig.written]
    assert found == [(1, "internal", "internal.KeyError"), (2, "internal", "internal.TypeError")]
    assert "TypeError at line" in rig.written[1].message
    assert "routed" in rig.written[1].message


@pytest.mark.promise("P1")
@played
async def test_a_dead_letter_that_can_never_be_written_ends_the_run() -> None:
    """Where the producer is useless for good the run ends with its error, and the record stays uncommitted.

    Kills: dropping the exception of the task that writes it, so that the partition stands for ever.
    """
    rig = PipelineRig(filled(b"broken", b"d"))

    async def useless(dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        raise ConnectorError("the producer can send nothing any more")

    rig.dead_letters.write = useless  # type: ignore[method-assign]
    with pytest.raises(ConnectorError, match="nothing any more"):
        async with rig.running():
            await rig.clock.sleep(5)
    assert rig.source.committed.get(("t", 0), (0,))[0] == 0


@pytest.mark.slow
@pytest.mark.promise("P5")
@played
async def test_what_cannot_be_decoded_is_set_aside_while_good_records_flow() -> None:
    """Past the limit refused records are set aside and hold no memory; all good ones of the topic are delivered.

    Kills: dead-lettering through a storm; a storm that a good record ends; records that stay in the buffer.
    """
    rig = PipelineRig(filled(*[b"broken", b"broken", b"broken", b"d"] * 100), storm=20)
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].done) == 100)
        await rig.clock.sleep(600)
        assert 10 <= len(rig.written) <= 20
        assert rig.storms["t"].status()[0].set_aside == 300 - len(rig.written)
        assert rig.budget.used == 0
        assert max(rig.source.read_positions) == 1
        assert 10 < len(rig.source.read_positions) < 25
        rig.source.produce(b"d")
        await rig.until(lambda: len(rig.to["d"].done) == 101)
        assert rig.storms["t"].release() == 300 - len(rig.written)
        await rig.until(lambda: len(rig.written) == 300)
        await rig.until(lambda: rig.source.committed["t", 0][0] == 401)


@pytest.mark.promise("P5")
@played
async def test_a_probe_that_passes_ends_the_storm_of_a_topic() -> None:
    """Once the decoder knows the format, one record that was set aside shows it, and all are delivered.

    Kills: records that stay aside for ever; a record taken in again that the tracker takes for read before.
    """
    rig = PipelineRig(filled(*[b"broken"] * 200), storm=20)
    async with rig.running():
        await rig.until(rig.storms["t"].status)
        rig.source.unreadable = True
        await rig.clock.sleep(100)
        rig.decoder.knows_all = True
        await rig.clock.sleep(100)
        assert rig.to["d"].done == []
        rig.source.unreadable = False
        await rig.until(lambda: len(rig.to["d"].done) == 190)
        assert rig.storms["t"].status() == []
        await rig.until(lambda: rig.source.committed["t", 0][0] == 200)
    assert len(rig.written) == 10


@pytest.mark.promise("P12")
@played
async def test_what_is_read_again_at_once_is_bounded_by_its_bytes() -> None:
    """After a release large records are read again a few at a time, small ones many, whatever came before.

    Kills: a fixed number of records (500 of 700 kB are 14 times the default buffer).
    """
    rig = PipelineRig(filled(*[b"broken"] * 2000), storm=20, budget=8_000_000)
    log = rig.source.log["t", 0]
    log[:1000] = [replace(large, key=b"k" * 100_000) for large in log[:1000]]
    async with rig.running():
        await rig.until(lambda: rig.source.position.get(("t", 0)) == 2000)
        rig.storms["t"].release()
        await rig.until(lambda: len(rig.written) == 2000)
    (large, small) = rig.source.read_positions[:-8], rig.source.read_positions[-8:]
    assert max(large) <= 10
    assert max(small) > 100


@played
async def test_a_record_that_kafka_deleted_while_it_was_set_aside_is_done() -> None:
    """It can come no more, so it does not block its partition; it is counted as skipped."""
    rig = PipelineRig(filled(*[b"broken"] * 15, b"d"), storm=20)
    async with rig.running():
        await rig.until(lambda: rig.storms["t"].status()[0].set_aside == 5 if rig.storms["t"] else 0)
        del rig.source.log["t", 0][10:12]
        rig.storms["t"].release()
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (16, ""))
        assert len(rig.written) == 13
        assert rig.metrics.records_skipped.labels("deleted")._value.get() == 2


@played
async def test_intake_pauses_where_no_more_can_be_set_aside() -> None:
    """Positions take a bounded part of the memory; at that limit reading rests, and goes on after a release.

    Kills: positions without end.
    """
    rig = PipelineRig(filled(*[b"broken"] * 3000), storm=20, budget=200 * 1000)
    rig.source.chunk = 100
    async with rig.running():
        await rig.until(lambda: rig.source.paused)
        await rig.clock.sleep(60)
        aside = rig.storms["t"].status()[0].set_aside
        assert 500 <= aside <= 700
        rig.storms["t"].release()
        await rig.until(lambda: len(rig.written) == 3000)


@played
async def test_a_partition_that_leaves_takes_what_was_set_aside_along() -> None:
    """Its offset stays where the first of them is, so that the next owner reads them again."""
    source = ModelSource(2)
    source.produce(*[b"broken"] * 50, b"d", partition=0)
    rig = PipelineRig(source, storm=20)
    async with rig.running(0, 1):
        await rig.until(lambda: rig.to["d"].done)
        source.revoke(0)
        await rig.until(lambda: not rig.storms["t"].status())
        await rig.until(lambda: ("t", 0) not in source.position)
        assert source.committed["t", 0][0] == 10
        await rig.clock.sleep(100)
        assert len(rig.written) == 10


@pytest.mark.promise("P7")
@played
async def test_an_event_too_large_alone_is_refused_before_it_is_sent() -> None:
    """An event that would make a body over the limit on its own is refused with the rule's id.

    Kills: offering an item without looking at its size.
    """
    rig = PipelineRig(filled(b"d", b"d"))
    rig.to["d"].vendor = Large()
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].done) == 2)
    assert rig.to["d"].refused == [(1, "batch.bytes")]


@pytest.mark.promise("P12")
@pytest.mark.parametrize("partitions", [1, 30])
def test_parked_records_go_on_only_as_far_as_there_is_room(partitions: int) -> None:
    """Records that fan out cost more once they are routed: they go on by portions, in order, and none stays behind.

    Kills: letting all go at once when their schema is known, so that three destinations take three times the buffer;
    one more record of each partition although the buffer is full.
    """

    async def play() -> None:
        source = ModelSource(partitions)
        for partition in range(partitions):
            source.produce(*[b"schema:x:def"] * (300 // partitions), partition=partition)
        rig = PipelineRig(source, names="def", budget=400_000, latency=None)
        async with rig.running(*range(partitions)):
            await rig.until(lambda: rig.budget.used > 200_000)
            rig.decoder.answer("x")
            while sum(offset for offset, _ in source.committed.values()) < 300:
                await rig.clock.sleep(0.1)
                assert rig.budget.used < 405_000
                for name in "def":
                    for one in rig.to[name].waiting[:5]:
                        rig.to[name].waiting.remove(one)
                        rig.to[name].fly(one, 0.01)
        for name in "def":
            taken = rig.to[name].taken
            for partition in range(partitions):
                assert [offset for at, offset in taken if at == partition] == list(range(300 // partitions))

    run_virtual(play())


@pytest.mark.promise("P1")
@pytest.mark.parametrize("to", ["d", "e", ""])
def test_a_record_read_again_goes_where_new_routes_send_it(to: str) -> None:
    """What a storm had set aside for `d` is read again after a reload: it goes there, to `e` instead, or is skipped.

    Kills: a record that waits for ever for a destination to which it no longer goes, and blocks its partition.
    """

    async def play() -> None:
        rig = PipelineRig(filled(b"d", b"e"), names="de", latency=None)
        async with rig.running():
            await rig.until(lambda: rig.to["d"].waiting and rig.to["e"].waiting)
            rig.to["e"].send()
            (aside,) = rig.to["d"].waiting
            rig.to["d"].waiting.clear()
            rig.budget.release(aside.charge)
            new = Event("model.Event", {"to": to, "n": 0})
            route = rig.intake._services.routes.route
            rig.intake._services.routes.route = lambda _event, *more: route(new, *more)  # type: ignore[method-assign]
            assert rig.intake.take_again("d", [(aside.tracker, aside.record)]) == []
            for destination in rig.to.values():
                destination.send()
            await rig.until(lambda: rig.source.committed.get(("t", 0)) == (2, ""))
        assert [(0, 0) in rig.to[name].done for name in "de"] == [to == "d", to == "e"]

    run_virtual(play())


@pytest.mark.promise("P14")
@played
async def test_an_unexpected_exception_over_a_record_read_again_ends_that_record_only() -> None:
    """What a storm had set aside and cannot be routed any more, for a fault of ours, is refused with `internal`.

    Kills: one of ten thousand records let go that ends the run.
    """
    rig = PipelineRig(filled(b"d", b"d"), latency=None)
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].waiting) == 2)
        aside = list(rig.to["d"].waiting)
        rig.to["d"].waiting.clear()
        for delivery in aside:
            rig.budget.release(delivery.charge)
        route = rig.intake._services.routes.route

        def routed(event: Event, record: Record, cluster_id: str) -> list[Routed]:
            return [][record.offset + 1] if record.offset == 0 else route(event, record, cluster_id)

        rig.intake._services.routes.route = routed  # type: ignore[method-assign]
        assert rig.intake.take_again("d", [(each.tracker, each.record) for each in aside]) == []
        rig.to["d"].send()
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (2, ""))
    assert rig.to["d"].refused == [(0, "internal.IndexError")]
    assert (0, 1) in rig.to["d"].done


@pytest.mark.promise("P12")
@pytest.mark.parametrize("ends_by", ["release", "probe"])
def test_a_storm_that_fills_a_partition_pauses_it_alone_and_says_so(ends_by: str) -> None:
    """Positions set aside take at most half of the buffer's size; status and log say so; its end resumes it.

    Kills: positions without a bound; a partition that stands still, and nothing shows why; one that stays paused.
    """

    async def play() -> None:
        source = ModelSource(2)
        source.chunk = 50
        source.produce(*[b"broken"] * 2000, partition=0)
        rig = PipelineRig(source, budget=100_000, storm=10)
        with capture_logs() as logged:
            async with rig.running(0, 1):
                await rig.until(lambda: source.paused == {("t", 0)})
                aside = rig.storms["t"].status()[0].set_aside
                assert 250 <= aside <= 320
                assert [one.map_used for one in rig.runner.status()] == [1.0, 0.0]
                source.produce(b"d", partition=1)
                await rig.until(lambda: source.committed.get(("t", 1)) == (1, ""))
                full = [line for line in logged if line["event"] == "storm.partition_full"]
                assert [(line["topic"], line["partition"]) for line in full] == [("t", 0)]
                rig.decoder.knows_all = True
                if ends_by == "release":
                    rig.storms["t"].release()
                await rig.until(lambda: source.committed.get(("t", 0)) == (2000, ""))
                assert source.paused == set()
                assert [one.map_used for one in rig.runner.status()] == [0.0, 0.0]

    played(play)()


@played
async def test_records_of_a_partition_that_has_left_are_not_taken() -> None:
    """What a poll brings of a partition that is another member's by now is neither counted nor held.

    Kills: a record delivered by two members, the second time uncommitted.
    """
    rig = PipelineRig()
    leaving = PartitionTracker("t", 1, 0, ["d"])
    leaving.phase = Phase.DRAINING
    records = [Record("t", partition, 0, -1, None, b"d", ()) for partition in (0, 1)]
    rig.intake.take(records, {("t", 1): leaving}.get)
    assert leaving.position == 0
    assert rig.budget.used == 0
    assert rig.metrics.records_consumed.labels("t")._value.get() == 0
    assert rig.intake.take_again(None, [(leaving, records[1])]) == []
    assert rig.written == []


@played
async def test_what_a_storm_let_go_waits_while_the_buffer_is_full() -> None:
    """After a release nothing is read again until there is room: the buffer's limit holds for it too."""
    rig = PipelineRig(filled(*[b"broken"] * 100), storm=20)
    async with rig.running():
        await rig.until(lambda: rig.source.position.get(("t", 0)) == 100)
        held = rig.budget.limit + 1
        rig.budget.add(held)
        rig.storms["t"].release()
        before = len(rig.source.read_positions)
        await rig.clock.sleep(60)
        assert len(rig.source.read_positions) == before
        rig.budget.release(held)
        await rig.until(lambda: len(rig.written) == 100)
