"""Writes receipts beside the deliveries, never in their way: no outcome waits for one, and a lost one is counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from typing import Any, Final

import structlog

from connector.clock import Clock
from connector.kafka.producer import KafkaProducer
from connector.kafka.results import AnswerEncoder
from connector.records import Receipt
from connector.telemetry.metrics import Metrics

SCHEMA: Final = "connector.events.Receipt"
HELD: Final = 20_000
"""Ranges of offsets that may wait to be written, a few megabytes; receipts beyond that are lost, and said to be."""

_QUIET: Final = 60.0
_log = structlog.get_logger()


class ReceiptWriter:
    """The receipts topic of one group."""

    def __init__(
        self, encoder: AnswerEncoder, producer: KafkaProducer, topic: str, group: str, *, metrics: Metrics, clock: Clock
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
        """Have a receipt written some time later. Neither blocks nor raises."""
        if self._held >= HELD:
            self._lose(f"{self._held} ranges wait to be written already")
            return
        self._held += len(receipt.positions)
        self._queue.append(receipt)
        self._idle.clear()
        self._work.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="receipts")

    async def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for what is not written yet, then let it go."""
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
                await self._write(self._queue[0])
                self._queue.popleft()
            self._work.clear()
            await self._work.wait()

    async def _write(self, receipt: Receipt) -> None:
        weight = len(receipt.positions)
        try:
            value = await self._encoder.encode(self._topic, SCHEMA, datum_of(receipt, self._group))
            future = await self._producer.enqueue(self._topic, key=None, value=value)
        except Exception as error:  # noqa: BLE001 - whatever it is, no delivery may end for it, nor may it go unseen
            self._release(weight)
            self._lose(str(error))
        else:
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
        """Count a receipt that will not be written, and say so once a minute."""
        self._lost.inc()
        now = self._clock.now()
        if now - self._logged >= _QUIET:
            self._logged = now
            message = f"a receipt is lost, its records are delivered all the same: {why}; logged once a minute"
            _log.error("receipt.lost", topic=self._topic, message=message)


def datum_of(receipt: Receipt, group: str) -> dict[str, Any]:
    """Return a receipt as the datum of its schema."""
    return {
        "id": receipt.id,
        "group": group,
        "destination": receipt.destination,
        "vendor": receipt.vendor,
        "positions": [one._asdict() for one in receipt.positions],
        "records": receipt.records,
        "delivered_at": int(receipt.delivered_at * 1000),
        "first_attempt": None if receipt.first_attempt is None else int(receipt.first_attempt * 1000),
        "attempts": receipt.attempts,
        "http_status": receipt.http_status,
        "request_id": receipt.request_id,
    }
