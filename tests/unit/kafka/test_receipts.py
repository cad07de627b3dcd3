"""Receipts tell exactly what was accepted, and nothing about them touches a delivery."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts
from connector.delivery.outcome import ranges_of
from connector.kafka import receipts as module
from connector.kafka.producer import KafkaProducer
from connector.kafka.receipts import ReceiptWriter, datum_of
from connector.records import OffsetRange, Receipt
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock
from tests.unit.delivery.delivery_rig import OK, Reply, Rig, played, refusing

RECEIPT = Receipt("r", "d", "model", (OffsetRange("t", 0, 3, 5),), 3, 1.5, 1.25, 2, 200, "trace-1")


@given(st.sets(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 12))))
def test_ranges_hold_what_was_accepted_and_nothing_else(positions: set[tuple[str, int, int]]) -> None:
    """Ranges unfold to the very same places, ascend, and no two of them could be one."""
    ranges = ranges_of(positions)
    unfolded = [(one.topic, one.partition, at) for one in ranges for at in range(one.first, one.last + 1)]
    assert unfolded == sorted(positions)
    assert not any(a[:2] == b[:2] and a.last + 1 >= b.first for a, b in pairwise(ranges))


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def note(self, receipt: Receipt) -> None:
        """Keep it."""
        self.receipts.append(receipt)


def kept(rig: Rig) -> list[Receipt]:
    """Have a destination write receipts, and return the list of them."""
    sink = Kept()
    rig.destination.ports = replace(rig.destination.ports, receipts=sink)
    rig.worker._outcomes._ports = rig.destination.ports
    return sink.receipts


@played
async def test_each_accepted_batch_has_one_receipt() -> None:
    """Accepted records stand in exactly one receipt, with attempts, status and time; refused ones in none."""
    rig = Rig(refusing([3]), batch={"records": 10})
    receipts = kept(rig)
    async with rig.running():
        rig.offer(range(20))
        await rig.done()
    places = [at for one in receipts for run in one.positions for at in range(run.first, run.last + 1)]
    assert sorted(places) == [n for n in range(20) if n != 3]
    assert sum(one.records for one in receipts) == 19
    assert {one.http_status for one in receipts} == {200}
    assert {one.vendor for one in receipts} == {"model"}
    assert min(one.attempts for one in receipts) == 1
    assert len({one.id for one in receipts}) == len(receipts)


@played
async def test_a_receipt_counts_the_attempts_and_leaves_out_what_is_asked_again() -> None:
    """A retried batch says how often it was sent; a record whose answer is not final waits for its own receipt."""
    answers = iter([Reply(500), Reply(200, {"again": [1]})])
    rig = Rig(lambda _call: next(answers, OK))
    receipts = kept(rig)
    async with rig.running():
        rig.offer(range(3))
        await rig.done()
    assert [(one.positions, one.attempts) for one in receipts] == [
        ((OffsetRange("t", 0, 0, 0), OffsetRange("t", 0, 2, 2)), 2),
        ((OffsetRange("t", 0, 1, 1),), 3),
    ]
    assert receipts[0].first_attempt is not None
    assert receipts[0].first_attempt < receipts[0].delivered_at


class ModelProducer:
    """A producer whose acknowledgements the test gives."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.futures: list[asyncio.Future[tuple[int, int]]] = []
        self.error: Exception | None = None

    async def enqueue(self, topic: str, *, key: bytes | None, value: bytes | None) -> asyncio.Future[tuple[int, int]]:
        """Take a record, or refuse it."""
        if self.error is not None:
            raise self.error
        self.values.append(value)
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


def writer(producer: ModelProducer, metrics: Metrics) -> ReceiptWriter:
    """Return a writer without a registry."""
    encoder = Encoder(load_contracts(), clock=LoopClock())
    return ReceiptWriter(encoder, cast("KafkaProducer", producer), "receipts", "g", metrics=metrics, clock=LoopClock())


def counts(metrics: Metrics) -> tuple[float, float]:
    """Return how many receipts were written and lost."""
    found: list[Any] = [metrics.receipts.labels(result)._value.get() for result in ("written", "lost")]
    return found[0], found[1]


@played
async def test_a_receipt_is_its_schema_in_single_object_encoding() -> None:
    """What is written without a registry is the schema's datum; times are milliseconds."""
    producer, metrics = ModelProducer(), Metrics()
    own = writer(producer, metrics)
    own.note(RECEIPT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    encoder = Encoder(load_contracts(), clock=LoopClock())
    assert producer.values == [encoder.single_object("connector.events.Receipt", datum_of(RECEIPT, "g"))]
    assert datum_of(RECEIPT, "g")["delivered_at"] == 1500
    producer.futures[0].set_result((0, 0))
    await own.close(1.0)
    assert counts(metrics) == (1, 0)


@played
async def test_a_lost_receipt_is_counted_and_nothing_is_raised() -> None:
    """A refused, an unacknowledged and a late receipt are lost, visibly; closing waits no longer than it is told."""
    producer, metrics = ModelProducer(), Metrics()
    own = writer(producer, metrics)
    producer.error = RuntimeError("broken")
    own.note(RECEIPT)
    await asyncio.sleep(0.01)
    assert counts(metrics) == (0, 1)
    producer.error = None
    own.note(RECEIPT)
    await asyncio.sleep(0.01)
    producer.futures[-1].set_exception(RuntimeError("not acknowledged"))
    await asyncio.sleep(0.01)
    assert counts(metrics) == (0, 2)
    own.note(RECEIPT)
    began = LoopClock().now()
    await own.close(1.0)
    assert LoopClock().now() - began <= 1.01
    await own.close(1.0)


@played
async def test_receipts_that_no_one_takes_do_not_fill_the_memory() -> None:
    """While Kafka is away a fixed number of ranges waits; more are lost and counted, the former all written."""
    producer, metrics = ModelProducer(), Metrics()
    own = writer(producer, metrics)
    wide = replace(RECEIPT, positions=tuple(OffsetRange("t", 0, 2 * n, 2 * n) for n in range(100)))
    fitting = module.HELD // 100
    for _ in range(fitting + 7):
        own.note(wide)
    await asyncio.sleep(0.01)
    assert counts(metrics) == (0, 7)
    for future in producer.futures:
        future.set_result((0, 0))
    await asyncio.sleep(0.01)
    own.note(RECEIPT)
    await asyncio.sleep(0.01)
    producer.futures[-1].set_result((0, 1))
    await own.close(1.0)
    assert counts(metrics) == (fitting + 1, 7)
