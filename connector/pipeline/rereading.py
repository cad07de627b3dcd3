"""Reads the records that storms have set aside again from Kafka: one at a time as a probe, all when a storm is over.

The consumer's own position does not move: the source reads these records separately. So neither a paused intake nor a
full buffer or offset map keeps a probe back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.errors import ConnectorError
from connector.pipeline.batching import charge_of
from connector.pipeline.flow import Budget
from connector.pipeline.intake import Intake
from connector.pipeline.storms import Place, Storms
from connector.records import Position, Record
from connector.tasks import Supervisor
from connector.telemetry.metrics import Metrics

CHUNK: Final = 500
"""Maximum records of one read."""
_FIRST: Final = 8
"""The size of the first read: the records' size is not known yet."""
_BYTES_SHARE: Final = 0.125
"""The share of the buffer that one read may take, estimated from the mean record size of the previous read."""
RETRY_SECONDS: Final = 2.0

log = structlog.get_logger()


class PositionReader(Protocol):
    """Reads chosen records."""

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return the records at these positions, in order within each partition; deleted ones are left out.

        May be called while `poll` is running. Raises `ConnectorError` if Kafka does not answer.
        """
        ...


class Rereader:
    """Reads records again that storms have set aside. `scopes` has each destination's storms, None the topics'."""

    def __init__(
        self,
        reader: PositionReader,
        intake: Intake,
        scopes: Callable[[], Iterable[tuple[str | None, Storms]]],
        *,
        budget: Budget,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._intake = intake
        self._scopes = scopes
        self._budget = budget
        self._metrics = metrics
        self._clock = clock
        self._tasks: Supervisor[None] = Supervisor()
        self._not_before = float("-inf")
        self._most = _FIRST

    def turn(self) -> None:
        """Start to read the records that are due. Non-blocking; one read at a time. Raises the last one's failure."""
        self._tasks.check()
        now = self._clock.now()
        if self._tasks.running or now < self._not_before:
            return
        for destination, storms in self._scopes():
            if places := storms.probes(now):
                self._start(destination, storms, places)
                return
        # A probe is read anyway: one more record costs little, and only a probe can end the storm.
        if self._budget.full:
            return
        for destination, storms in self._scopes():
            if places := storms.let_go(self._most):
                self._start(destination, storms, places)
                return

    async def close(self) -> None:
        """Cancel a running read."""
        await self._tasks.close()

    def _start(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        self._tasks.start(self._read(destination, storms, places), "read again", None)

    async def _read(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        try:
            await self._take_again(destination, storms, places)
        finally:
            storms.was_read()

    async def _take_again(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        # Ordered by offset, because a reader continues from where it is.
        wanted = sorted({place.position: place for place in places if place.pending}.items())
        try:
            records = await self._reader.read_again([position for position, _ in wanted])
        except ConnectorError as error:
            log.warning("storm.unread", destination=destination, message=str(error))
            self._put_back(storms, [place for _, place in wanted])
            return
        self._fit(records)
        found = {record.position: record for record in records}
        for position, place in wanted:
            if position not in found and place.pending:
                # Kafka has deleted the record, so it could not be read after a restart either.
                place.tracker.finish((place.offset,), place.bit)
                self._metrics.records_skipped.labels("deleted").inc()
                log.warning(
                    "storm.record_deleted", topic=position.topic, partition=position.partition, offset=place.offset
                )
        again = [(place.tracker, found[position]) for position, place in wanted if position in found and place.pending]
        # Only ask for their schemas now. Parking them would hold up the live partition behind them.
        unknown = {record.position for _, record in self._intake.take_again(destination, again)}
        self._put_back(storms, [place for position, place in wanted if position in unknown])

    def _fit(self, records: Sequence[Record]) -> None:
        """Choose how many records the next read takes, so that their bytes are bounded; at most twice as many."""
        total = sum(map(charge_of, records))
        if total:
            # Estimated from the last read, because positions do not tell how large their records are.
            affordable = int(self._budget.limit * _BYTES_SHARE * len(records) / total)
            self._most = max(1, min(CHUNK, 2 * self._most, affordable))

    def _put_back(self, storms: Storms, places: list[Place]) -> None:
        if places:
            # Put them back, and wait before the next attempt: Kafka or the registry did not answer.
            storms.put_back(places)
            self._not_before = self._clock.now() + RETRY_SECONDS
