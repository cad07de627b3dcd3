"""Reads the records that storms have set aside again from Kafka: one at a time as a probe, all when a storm is over.

The consumer's own position does not move: the source reads these positions separately. So neither a paused intake nor a
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
"""Records that are read again at once, at most."""
_FIRST: Final = 8
"""So many come first, because their size is not known yet."""
_BYTES_SHARE: Final = 0.125
"""The part of the buffer's size that one read may take, by the mean size of the read before."""
RETRY_SECONDS: Final = 2.0

log = structlog.get_logger()


class PositionReader(Protocol):
    """What reads chosen records."""

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return the records at these positions, in the order of each partition; one that is deleted is left out.

        May be called while `poll` goes on. Raises `ConnectorError` if Kafka does not answer.
        """
        ...


class Rereader:
    """Takes in again what storms have set aside. `scopes` gives each destination's storms, with None the topics'."""

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
        """Begin to read what is due. Non-blocking; one read at a time. Raises what the last one raised unexpectedly."""
        self._tasks.check()
        now = self._clock.now()
        if self._tasks.running or now < self._not_before:
            return
        for destination, storms in self._scopes():
            if places := storms.probes(now):
                self._start(destination, storms, places)
                return
        # A probe goes all the same: one record more is no burden, and only it can end the storm.
        if self._budget.full:
            return
        for destination, storms in self._scopes():
            if places := storms.let_go(self._most):
                self._start(destination, storms, places)
                return

    async def close(self) -> None:
        """Cancel a read that is under way."""
        await self._tasks.close()

    def _start(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        self._tasks.start(self._read(destination, storms, places), "read again", None)

    async def _read(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        try:
            await self._take_again(destination, storms, places)
        finally:
            storms.was_read()

    async def _take_again(self, destination: str | None, storms: Storms, places: list[Place]) -> None:
        # In the order of the offsets, because a reader goes on from where it is.
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
                # Kafka has deleted it: after a restart it would not come again either.
                place.tracker.finish((place.offset,), place.bit)
                self._metrics.records_skipped.labels("deleted").inc()
                log.warning(
                    "storm.record_deleted", topic=position.topic, partition=position.partition, offset=place.offset
                )
        again = [(place.tracker, found[position]) for position, place in wanted if position in found and place.pending]
        # Their schema is asked for now. Parking them would hold up the live partition behind them.
        unknown = {record.position for _, record in self._intake.take_again(destination, again)}
        self._put_back(storms, [place for position, place in wanted if position in unknown])

    def _fit(self, records: Sequence[Record]) -> None:
        """Choose how many records the next read takes, so that their bytes are bounded; at most twice as many."""
        total = sum(map(charge_of, records))
        if total:
            # By what the last ones weighed: positions do not say how large their records are.
            affordable = int(self._budget.limit * _BYTES_SHARE * len(records) / total)
            self._most = max(1, min(CHUNK, 2 * self._most, affordable))

    def _put_back(self, storms: Storms, places: list[Place]) -> None:
        if places:
            # Back where they were, and not at once again: Kafka or the registry did not answer.
            storms.put_back(places)
            self._not_before = self._clock.now() + RETRY_SECONDS
