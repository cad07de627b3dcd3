"""What waits to be sent again, and the records that wait alone, so that a person can look at them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from connector.delivery.lanes import Lanes
from connector.pipeline.batching import Batch
from connector.records import Position


@dataclass(frozen=True, slots=True)
class WaitingRecord:
    """One record that waits alone. `since` is its first attempt (epoch seconds)."""

    position: Position
    since: float | None
    attempts: int
    reason: str

    @property
    def command(self) -> str:
        """The command that makes a dead letter of it."""
        return skip_command(self.position)


class Waiting:
    """What of one destination failed before and has no outcome yet: in its lanes, or in flight again."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._in_flight: list[Batch] = []

    def sent_again(self, batch: Batch) -> None:
        """Note that a batch that failed before is in flight: it waits still, because nothing has changed yet."""
        self._in_flight.append(batch)

    def answered(self, batch: Batch) -> None:
        """Note that such a batch is no longer in flight."""
        self._in_flight.remove(batch)

    def message(self) -> str | None:
        """Describe one batch that waits; None where none does."""
        for batch in (*self._in_flight, *[lane.retrying for lane in self._lanes if lane.tried]):
            if batch is not None and batch.deliveries:
                return _describe(batch)
        return None

    def records(self) -> list[WaitingRecord]:
        """Return every record that waits alone."""
        return [
            WaitingRecord(batch.deliveries[0].record.position, batch.first_attempt, batch.attempts, batch.reason)
            for batch in self._lone()
        ]

    def longest(self, now: float) -> float:
        """Return for how many seconds the record that has waited longest alone has waited; 0 without one."""
        return max(
            (now - batch.first_sent_at for batch in self._lone() if batch.first_sent_at is not None), default=0.0
        )

    def _lone(self) -> list[Batch]:
        return [batch for batch in self._batches() if len(batch.deliveries) == 1 and batch.troubled]

    def _batches(self) -> Iterable[Batch]:
        yield from self._in_flight
        for lane in self._lanes:
            if lane.tried:
                yield from lane.batches()


def skip_command(position: Position) -> str:
    """Return the command that makes a dead letter of a record that waits."""
    return shlex.join(["connector", "skip", position.topic, str(position.partition), str(position.offset)])


def _describe(batch: Batch) -> str:
    """Describe a batch that waits; a lone record by its place."""
    count = len(batch.deliveries)
    times = "" if not batch.failures else "failed once: " if batch.failures == 1 else f"failed {batch.failures} times: "
    if count != 1:
        return f"{count} records wait to be sent again, {times}{batch.reason}"
    topic, partition, offset = batch.deliveries[0].record.position
    return f"the record {topic}[{partition}]@{offset} waits alone, {times}{batch.reason}"
