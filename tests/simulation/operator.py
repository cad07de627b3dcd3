"""The operator of a world: has records skipped, by what the port's handler calls, and replays dead letters.

A replay is made by what `connector dlq replay --force` is made of, between models of its reader and its transactions.
A dead letter is replayed once its record is committed: until then it may be read again, and no check could tell both
apart at a vendor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from random import Random
from typing import Protocol

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import RESOLVES
from connector.dead_letters.reader import DeadLetterEntry
from connector.dead_letters.replay import MAX_REPLAYS, Edit, Kept, Order, Read, Replayer
from connector.kafka.transactions import Outgoing
from connector.pipeline.offset_map import FinishedMap, ForeignMetadata, decode
from connector.pipeline.offsets import WHOLE
from connector.pipeline.skips import Skipper
from connector.records import Position, TopicPartition
from connector.runtime.pipeline import Pipeline
from connector.testing.loop import LoopClock
from tests.simulation.broker import ModelBroker, ModelSource
from tests.simulation.oracle import Oracle, claims
from tests.simulation.scenario import REPLAYS, Planned
from tests.simulation.workload import Workload


class Process(Protocol):
    """One member, as far as an operator sees it."""

    source: ModelSource
    pipeline: Pipeline
    dead: bool


class Operator:
    """One person with the commands `skip` and `replay`; after `gather` nothing of them is under way."""

    def __init__(
        self, oracle: Oracle, broker: ModelBroker, workload: Workload, clock: LoopClock, random: Random
    ) -> None:
        self._oracle = oracle
        self._scenario = oracle.scenario
        self._broker = broker
        self._workload = workload
        self._clock = clock
        self._random = random
        self._asking: set[asyncio.Task[None]] = set()

    def skip(self, members: Sequence[Process]) -> None:
        """Ask the owner of a record that has no outcome yet to skip it; now and then of any record."""
        owners = {partition: member for member in members for partition in member.source.assignment}
        mine = [planned for planned in self._workload.records if (planned.topic, planned.partition) in owners]
        waiting = [planned for planned in mine if self._oracle.unfinished(planned)]
        unread = [planned for planned in waiting if planned.offset >= self._position(owners, planned)]
        for choice, likely in ((unread, 0.2), (waiting, 0.9), (mine, 1.0)):
            if choice and self._random.random() < likely:
                planned = self._random.choice(choice)
                self._begin(self._skip(owners[planned.topic, planned.partition], planned))
                return

    def replay(self) -> None:
        """Replay some of the unresolved dead letters whose records are committed."""
        self._begin(self._replay())

    async def gather(self) -> None:
        """Wait for no further answer."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def dead_letters(self, _wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the dead letters that are chosen from the dead-letter topic."""
        stored, replays = self._oracle.replays.stored, self._oracle.replays
        open_ = [id_ for id_, (planned, dead_letter) in stored.items() if dead_letter.state == "open"]
        self._random.shuffle(open_)
        chosen: dict[tuple[int, int], bool] = {}
        for id_ in open_[: self._random.choice((1, 3, 20))]:
            planned, dead_letter = stored[id_]
            if planned.kind in ("odd", "walled") and not self._scenario.alone:
                # A member that has nothing but replays may never see the acceptance that is the evidence.
                continue
            destination = dead_letter.facts.destination
            unrouted = destination is None
            alike = chosen.setdefault((planned.root.serial, planned.replays), unrouted) is unrouted
            if alike and self._is_committed(planned, destination) and replays.told_apart(planned, destination):
                yield Read((dead_letter,), dead_letter.record.offset, len(stored))

    async def judge(self, _dead_letter: DeadLetterEntry) -> Kept | None:
        """Know no rule: every order is by force."""
        return None

    async def edit(self, dead_letter: DeadLetterEntry, _edits: Sequence[Edit]) -> DeadLetterEntry:
        """Change nothing."""
        return dead_letter

    async def fetch(self, origin: Position) -> str:
        """Return nothing: every dead letter of the model fits into its topic."""
        return f"{origin} is not read"

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Write replays, and resolve the dead letters that they are of."""
        stored = self._oracle.replays.stored
        for sent, resolves in zip(records[::2], records[1::2], strict=True):
            resolved = (dict(resolves.headers)[RESOLVES] or b"").decode()
            planned, dead_letter = stored[resolved]
            stored[resolved] = planned, dead_letter._replace(state="replayed")
            again = planned.again(len(self._workload.records), dead_letter.facts.destination)
            if (sent.key, sent.value) != (again.key, again.value):
                self._oracle.fail(f"the replay of {planned.where} differs from its record in key or value")
            again.partition = self._random.randrange(sum(topic == sent.topic for topic, _ in self._broker.logs))
            self._oracle.replays.wrote(again)
            self._oracle.saw(f"replay: {dead_letter.facts.cause}")
            self._workload.append(again, sent.headers, marker=True)

    async def _replay(self) -> None:
        replayer = Replayer(self, self, self, self._clock, "g", REPLAYS)
        async with aclosing(replayer.carry_out("replayed", Order(force=True), self)) as steps:
            async for step in steps:
                for outcome in step.outcomes:
                    if outcome.kept is not None and outcome.dead_letter.facts.replays < MAX_REPLAYS:
                        self._oracle.fail(f"a dead letter is kept back: {outcome.kept}")

    def _is_committed(self, planned: Planned, destination: str | None) -> bool:
        """Whether the group's commit says for good that a delivery is done; a short map forgets what it says."""
        offset, text = self._broker.committed.get((planned.topic, planned.partition), (0, ""))
        if planned.offset < offset:
            return True
        try:
            finished = decode(offset, text) if self._broker.crowded_from > 1000 else FinishedMap()
        except ForeignMetadata:
            return False
        return claims(finished, planned.offset, destination)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._oracle.broken is None:
            self._oracle.broken = f"an operator's command ended with {error!r}"

    def _position(self, owners: Mapping[TopicPartition, Process], planned: Planned) -> int:
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
            if oracle.wishes.dead_letters(wish, alone=True):
                oracle.fail(f"{planned.where} was skipped, and that was refused: {answer}")
            wish.refused = True
        elif answer.state == "skipped" and not oracle.wishes.dead_letters(wish):
            oracle.fail(f"{planned.where} is said to be skipped, without a dead letter: {answer}")
