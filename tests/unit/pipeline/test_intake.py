"""Intake on virtual time: what each record becomes, and that waiting records keep their order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from connector.errors import ConnectorError
from connector.records import DeadLetter, Item
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
    assert rig.metrics.total(skipped) == 2
    assert rig.metrics.total(rig.metrics.records_consumed) == 9


@played
async def test_a_dead_letter_of_intake_has_the_record_as_it_came() -> None:
    """Key, value and the dedup id by position stand in the letter of a record that could not be decoded."""
    rig = PipelineRig(filled(b"broken"))
    async with rig.running():
        await rig.until(lambda: rig.written)
    dead_letter = rig.written[0]
    assert (dead_letter.record.key, dead_letter.record.value) == (b"k", b"broken")
    assert (dead_letter.cause, dead_letter.code, dead_letter.destination) == ("decode", "decode.model", None)
    assert dead_letter.dedup_id


@pytest.mark.promise("P10")
@played
async def test_a_dead_letter_is_acknowledged_before_its_offset_is_committed() -> None:
    """While the dead-letter topic does not answer, commits stay below the refused record.

    Kills: finishing a refused record when its letter is sent instead of acknowledged.
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


@pytest.mark.promise("P5")
@played
async def test_a_topic_that_cannot_be_decoded_is_held_instead_of_drained() -> None:
    """After the storm limit refused records wait; the first good one ends the storm and looks at them again.

    Kills: dead-lettering through a storm.
    """
    rig = PipelineRig(filled(*[b"broken"] * 200), storm=20)
    async with rig.running():
        await rig.until(lambda: rig.storm_changes)
        await rig.clock.sleep(60)
        assert len(rig.written) == 10
        assert rig.source.committed["t", 0][0] == 10
        rig.source.produce(b"d")
        await rig.until(lambda: rig.to["d"].done, within=200)
    assert rig.storm_changes[0][0] == "t"
    assert ("t", None) in rig.storm_changes


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
