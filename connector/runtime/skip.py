"""One record skipped by hand in a running member: from wherever it is to the dead-letter topic, and nowhere else.

the record                                 what becomes of it
-----------------------------------------  --------------------------------------------------------------
waits for its schema, or in a storm        a letter without destination; what waited behind it goes on
waits to be sent (retried, doubted, held)  a letter for each destination that it waits for
is in a request                            delivered if the answer says so, else a letter
was not read yet                           a letter without destination when it is read, and not decoded
has its outcome, or is another member's    refused, and nothing happens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from connector.clock import Clock
from connector.delivery.worker import Worker
from connector.pipeline.intake import Intake
from connector.pipeline.offsets import WHOLE, PartitionTracker, destination_bit
from connector.pipeline.runner import Runner
from connector.pipeline.skipping import Skip
from connector.records import Position
from connector.runtime.http import Skipped

log = structlog.get_logger()

PATIENCE: Final = 6.0
"""Seconds in which a caller is told the end; what takes longer goes on without him."""
_LOOK: Final = 0.05


class Skipper:
    """Skips records of one running member."""

    def __init__(self, runner: Runner, intake: Intake, workers: Mapping[str, Worker], clock: Clock) -> None:
        self._runner = runner
        self._intake = intake
        self._workers = workers
        self._clock = clock

    async def skip(self, position: Position, destination: str | None) -> Skipped:
        """Skip a record, for one destination or for all that it still waits for; wait `PATIENCE` for its letters."""
        answer = await self._answer(position, destination)
        log.warning(
            "record.skip_by_operator",
            topic=position.topic,
            partition=position.partition,
            offset=position.offset,
            destination=destination,
            state=answer.state,
            message=answer.message,
        )
        return answer

    async def _answer(self, position: Position, destination: str | None) -> Skipped:
        tracker = self._runner.tracker_of(position[:2])
        if tracker is None or not tracker.open:
            return self._not_owned(position)
        left = tracker.left(position.offset)
        name = _name(position)
        if left is None and (end := self._runner.end_of(position[:2])) is not None and position.offset >= end:
            return Skipped("refused", f"{name} does not exist yet: the partition ends at {end}")
        if left == 0:
            return Skipped(
                "refused", f"{name} is finished already, or no record; `connector explain` tells its outcome"
            )
        if left is None or left & WHOLE:
            if destination is not None:
                return Skipped("refused", f"{name} is not routed yet; skip it without --destination")
            skips: dict[str, Skip | None] = {"": self._intake.skip(tracker, position.offset)}
            bits = WHOLE
        else:
            waiting = [n for n in self._waiting_for(tracker, left) if destination in (None, n)]
            if not waiting:
                return Skipped("refused", f"{name} is finished already for {destination}, or does not go there")
            skips = {n: self._workers[n].skip(tracker, position.offset) for n in waiting}
            bits = sum(destination_bit(tracker.destinations.index(n)) for n in waiting)
        await self._wait(tracker, position.offset, bits)
        return _told(tracker, position, bits, skips, was_read=left is not None)

    def _waiting_for(self, tracker: PartitionTracker, left: int) -> list[str]:
        return [name for index, name in enumerate(tracker.destinations) if left & destination_bit(index)]

    async def _wait(self, tracker: PartitionTracker, offset: int, bits: int) -> None:
        end = self._clock.now() + PATIENCE
        while tracker.open and _is_left(tracker, offset, bits) and self._clock.now() < end:
            await self._clock.sleep(_LOOK)

    def _not_owned(self, position: Position) -> Skipped:
        owned = ", ".join(f"{one.topic}[{one.partition}]" for one in self._runner.status()) or "none"
        where = f"{position.topic}[{position.partition}]"
        if position[:2] in self._runner.assigned:
            return Skipped("refused", f"{where} is leaving this member; ask its next owner in a moment")
        return Skipped(
            "refused",
            f"this member does not own {where}; it owns: {owned}. Ask the member that does (--url), or start one",
        )


def _told(
    tracker: PartitionTracker, position: Position, bits: int, skips: Mapping[str, Skip | None], *, was_read: bool
) -> Skipped:
    """Say what came of it."""
    name = _name(position)
    taken = [destination for destination, skip in skips.items() if skip is not None and skip.taken]
    of = "" if taken in ([], [""]) else f" for {', '.join(taken)}"
    if not tracker.open:
        message = f"{name}: its partition left this member meanwhile. Nothing is lost; ask its new owner"
        return Skipped("refused", message)
    if not _is_left(tracker, position.offset, bits):
        if not taken:
            return Skipped("refused", f"{name} had its outcome before it could be skipped: see `connector explain`")
        others = [destination for destination in skips if destination not in taken]
        rest = f"; {', '.join(others)} had it before" if others else ""
        return Skipped("skipped", f"{name} is skipped: a dead letter with cause operator{of}{rest}")
    if not was_read:
        message = f"{name} is not read yet; it becomes a dead letter when this member reads it"
    elif len(taken) < len(skips):
        message = f"{name} is in a request; it becomes a dead letter if the answer says that it was not accepted"
    else:
        message = f"{name} is set aside{of}; its dead letter waits for Kafka"
    return Skipped("pending", f"{message}. A restart or a rebalance before that forgets this: then say it again")


def _is_left(tracker: PartitionTracker, offset: int, bits: int) -> bool:
    left = tracker.left(offset)
    return left is None or bool(left & bits)


def _name(position: Position) -> str:
    return f"{position.topic}[{position.partition}]@{position.offset}"
