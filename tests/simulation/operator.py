"""The operator of a world: asks members to skip records, as the port's handler does, and looks at what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol

from connector.records import Position
from connector.skips import Skipper
from connector.testing.loop import LoopClock
from connector.wiring import Pipeline
from tests.simulation.broker import ModelSource
from tests.simulation.facts import Partition
from tests.simulation.oracle import Oracle
from tests.simulation.scenario import Planned

WHOLE = 1
"""The bit of a tracker that says that a record is not routed."""


class Process(Protocol):
    """One member, as far as an operator sees it."""

    source: ModelSource
    pipeline: Pipeline
    dead: bool


class Operator:
    """One person with the commands `skip` and, at last, `gather`, after which nothing of it is under way."""

    def __init__(self, oracle: Oracle, clock: LoopClock, random: Random) -> None:
        self._oracle = oracle
        self._clock = clock
        self._random = random
        self._asking: set[asyncio.Task[None]] = set()

    def skip(self, members: Sequence[Process], records: Sequence[Planned]) -> None:
        """Ask the owner of a record that has no outcome yet to skip it; now and then of any record."""
        owners = {partition: member for member in members for partition in member.source.assignment}
        mine = [planned for planned in records if (planned.topic, planned.partition) in owners]
        waiting = [planned for planned in mine if self._oracle.unfinished(planned)]
        unread = [planned for planned in waiting if planned.offset >= self._position(owners, planned)]
        for choice, likely in ((unread, 0.2), (waiting, 0.9), (mine, 1.0)):
            if choice and self._random.random() < likely:
                planned = self._random.choice(choice)
                task = asyncio.create_task(self._skip(owners[planned.topic, planned.partition], planned))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                return

    async def gather(self) -> None:
        """Wait for no further answer."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _position(self, owners: Mapping[Partition, Process], planned: Planned) -> int:
        partition = (planned.topic, planned.partition)
        tracker = owners[partition].pipeline.runner.tracker_of(partition)
        return 0 if tracker is None else tracker.position

    async def _skip(self, member: Process, planned: Planned) -> None:
        oracle, runner, partition = self._oracle, member.pipeline.runner, (planned.topic, planned.partition)
        tracker = runner.tracker_of(partition)
        left = None if tracker is None else tracker.left(planned.offset)
        unrouted = left is None or bool(left & WHOLE)
        names: list[str | None] = [None, None, *planned.fates]
        destination = None if unrouted and self._random.random() < 0.9 else self._random.choice(names)
        wish = None
        if tracker is not None and tracker.open and not member.dead:
            epoch = member.source.epoch_of(partition)
            wish = oracle.wishes.ask(planned, destination, epoch, self._clock.now())
        pipeline = member.pipeline
        skipper = Skipper(pipeline.runner, pipeline.intake, pipeline.workers, self._clock)
        answer = await skipper.skip(Position(*partition, planned.offset), destination)
        if member.dead:
            return
        what = "not read" if left is None else "not routed" if unrouted else "routed" if left else "done"
        oracle.saw(f"skip of what is {what}: {answer.state}")
        if wish is None:
            if answer.state != "refused":
                oracle.fail(f"{planned.where} is to be skipped by who does not own it: {answer}")
        elif answer.state == "refused" and tracker is not None and tracker.open:
            if oracle.wishes.letters(wish, alone=True):
                oracle.fail(f"{planned.where} was skipped, and that was refused: {answer}")
            wish.refused = True
        elif answer.state == "skipped" and not oracle.wishes.letters(wish):
            oracle.fail(f"{planned.where} is said to be skipped, without a letter: {answer}")
