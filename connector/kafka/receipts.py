"""Writes a query vendor's answers to its results topic, and receipts for delivered batches.

An outcome waits until Kafka has its answers. It never waits for a receipt. A receipt that cannot be written is only
counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import structlog

from connector.clock import Clock
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.records import Answer, Receipt
from connector.telemetry.metrics import Metrics

SCHEMA: Final = "connector.events.Receipt"
HELD: Final = 20_000
"""How many ranges of offsets may wait to be written, a few megabytes; further receipts are lost, counted and logged."""

_QUIET: Final = 60.0
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0

_Result = tuple[bytes | None, bytes]
"""A key and an encoded answer."""
_log = structlog.get_logger()


class ValueEncoder(Protocol):
    """Encodes what is written to a topic as Avro."""

    async def writer(self, topic: str, schema: str) -> Callable[[dict[str, Any]], bytes]:
        """Return what encodes data of a schema in the form that readers of the topic expect. Raises `FatalError`."""
        ...


class ResultsWriter:
    """The results topic of one destination."""

    def __init__(self, encoder: ValueEncoder, producer: KafkaProducer, topic: str, clock: Clock) -> None:
        self._encoder = encoder
        self._producer = producer
        self._topic = topic
        self._clock = clock
        self.on_trouble: Callable[[str | None], None] = lambda _trouble: None
        """Called with the reason why answers wait, and with None once none waits any more."""
        self._troubles: dict[object, str] = {}
        """By write: why its answers wait."""

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> Collection[int]:
        """Return once Kafka has acknowledged the answers, with the indexes of those that are too large for the topic.

        Other failed ones are retried, and their questions wait. One that is too large is tried without its key, which
        may be as large as a whole record. Whatever it still is then, waiting does not help.
        """
        left = dict(enumerate(await self._encoded(answers)))
        wait = _FIRST_WAIT
        lost: list[int] = []
        this = object()
        try:
            while faults := await self._faults_of(left):
                again = {index: left[index] for index, fault in faults.items() if not fault.too_large}
                keyless = {i: (None, left[i][1]) for i in faults.keys() - again.keys() if left[i][0] is not None}
                lost += faults.keys() - again.keys() - keyless.keys()
                left = again | keyless
                if again:
                    self._note_trouble(this, str(faults[next(iter(again))]))
                    await self._clock.sleep(wait)
                    wait = min(wait * 2, _LONGEST_WAIT)
        finally:
            self._note_trouble(this, None)
        return lost

    def _note_trouble(self, write: object, trouble: str | None) -> None:
        """Note why the answers of one write wait, or that they no longer do. Another write may still wait."""
        if trouble is not None:
            self._troubles[write] = trouble
        elif self._troubles.pop(write, None) is None:
            return
        self.on_trouble(next(iter(self._troubles.values()), None))

    async def _encoded(self, answers: Iterable[tuple[bytes | None, Answer]]) -> list[_Result]:
        writes: dict[str, Callable[[dict[str, Any]], bytes]] = {}
        results: list[_Result] = []
        for key, answer in answers:
            if answer.schema not in writes:
                writes[answer.schema] = await self._encoder.writer(self._topic, answer.schema)
            results.append((key, writes[answer.schema](answer.datum)))
        return results

    async def _faults_of(self, results: Mapping[int, _Result]) -> dict[int, DeliveryFailed]:
        """Write results at once, and return the faults of those that Kafka did not accept."""
        failed = await self._producer.send_all(self._topic, list(results.values()))
        for fault in failed.values():
            if fault.fatal:
                raise fault
        if failed:
            message = f"{next(iter(failed.values()))}; answers that are not written: {len(failed)}"
            _log.error("results.failed", topic=self._topic, message=message)
        numbers = list(results)
        return {numbers[place]: fault for place, fault in failed.items()}


class ReceiptWriter:
    """The receipts topic of one group."""

    def __init__(
        self, encoder: ValueEncoder, producer: KafkaProducer, topic: str, group: str, *, metrics: Metrics, clock: Clock
    ) -> None:
        self._encoder = encoder
        self._producer = producer
        self._topic = topic
        self._group = group
        self._clock = clock
        self._written = metrics.receipts.labels("written")
        self._lost = metrics.receipts.labels("lost")
        self._queue: deque[Receipt] = deque()
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._logged = float("-inf")

    def note(self, receipt: Receipt) -> None:
        """Queue a receipt for writing. Neither blocks nor raises."""
        # The bound counts ranges, because a batch with records of many partitions has as many ranges.
        if self._held >= HELD:
            self._lose(f"{self._held} ranges are already waiting")
            return
        self._held += len(receipt.positions)
        self._queue.append(receipt)
        self._idle.clear()
        self._work.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="receipts")

    async def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for unwritten receipts, then drop them."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._held:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout)
        for _ in range(len(self._queue)):
            self._lose("the connector stopped before they were written")
        self._queue.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            while self._queue:
                # Removed only after the write, so that `close` counts it as lost if the write is cancelled.
                await self._write(self._queue[0])
                self._queue.popleft()
            self._work.clear()
            await self._work.wait()

    async def _write(self, receipt: Receipt) -> None:
        weight = len(receipt.positions)
        try:
            write = await self._encoder.writer(self._topic, SCHEMA)
            value = write(datum_of(receipt, self._group))
            future = await self._producer.enqueue(self._topic, key=None, value=value)
        except Exception as error:  # noqa: BLE001 - no error may affect a delivery, nor pass unseen
            self._release(weight)
            self._lose(str(error))
        else:
            # Not awaited, so that further receipts can be sent while Kafka is slow.
            future.add_done_callback(partial(self._acknowledged, weight))

    def _acknowledged(self, weight: int, future: asyncio.Future[tuple[int, int]]) -> None:
        self._release(weight)
        error = None if future.cancelled() else future.exception()
        if error is None:
            self._written.inc()
        else:
            self._lose(str(error))

    def _release(self, weight: int) -> None:
        self._held -= weight
        if not self._held:
            self._idle.set()

    def _lose(self, why: str) -> None:
        """Count a receipt that will not be written, and log it once a minute."""
        self._lost.inc()
        now = self._clock.now()
        if now - self._logged >= _QUIET:
            self._logged = now
            message = f"a receipt is lost: {why}; its records are delivered; logged at most once a minute"
            _log.error("receipt.lost", topic=self._topic, message=message)


def datum_of(receipt: Receipt, group: str) -> dict[str, Any]:
    """Return a receipt as the datum of its schema."""
    return {
        "id": receipt.id,
        "group": group,
        "destination": receipt.destination,
        "vendor": receipt.vendor,
        "positions": [span._asdict() for span in receipt.positions],
        "records": receipt.records,
        "delivered_at": int(receipt.delivered_at * 1000),
        "first_attempt": None if receipt.first_attempt is None else int(receipt.first_attempt * 1000),
        "attempts": receipt.attempts,
        "http_status": receipt.http_status,
        "request_id": receipt.request_id,
    }
