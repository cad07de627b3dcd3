"""Intake and runner on virtual time: between a model broker and model destinations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from connector.config.loader import StormSettings
from connector.errors import Refusal, SchemaUnavailable, StartupError
from connector.pipeline.batching import Delivery, Offer
from connector.pipeline.flow import Budget
from connector.pipeline.intake import Decoded, Intake, Services
from connector.pipeline.rereading import Rereader
from connector.pipeline.runner import Runner, Timing
from connector.pipeline.storms import Storms, TopicStorms
from connector.records import (
    Assigned,
    Commit,
    DeadLetter,
    Event,
    LongMetadata,
    Position,
    RebalanceListener,
    Record,
    TopicPartition,
)
from connector.routing.table import Plan, Routed, RouteTable, Skipped
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock
from connector.vendors.base import VendorEvent
from tests.unit.delivery.delivery_rig import ModelDeadLetters, ModelVendor


def record(offset: int, value: bytes | None = b"d", *, partition: int = 0, topic: str = "t") -> Record:
    """Return a record; its value says what becomes of it (see `ModelDecoder` and `ModelRoutes`)."""
    return Record(topic, partition, offset, -1, b"k", value, ())


class ModelDecoder:
    """Refuses `broken`, fails on `decoder`, knows the schema of `schema:NAME…` once it was resolved."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.knows_all = False
        """Whether even `broken` can be decoded now, and goes to `d`."""
        self.resolving: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.abandoned: list[str] = []

    def decode(self, records: list[Record]) -> list[Decoded]:
        """Decode each value."""
        return [self._decoded(record) for record in records]

    def _decoded(self, record: Record) -> Decoded:
        text = (record.value or b"").decode()
        if text == "decoder":
            raise KeyError(text)
        if text == "broken" and self.knows_all:
            text = "d"
        if text == "broken":
            return Refusal("decode", "decode.model", "not a model's value")
        if text.startswith("schema:"):
            name, _, text = text.removeprefix("schema:").partition(":")
            if name not in self.known:
                return SchemaUnavailable(name)
        return Event("model.Event", {"to": text, "n": record.offset})

    def plain(self, record: Record) -> None:
        """Leave every record to `decode`."""

    def peek(self, record: Record) -> str | None:
        """Tell nothing without decoding."""
        return None

    async def resolve(self, key: object) -> None:
        """Wait until the test answers for the schema."""
        name = str(key)
        self.asked.append(name)
        await self.resolving.setdefault(name, asyncio.Event()).wait()
        self.known.add(name)

    def abandon(self, key: object) -> None:
        """Take note that no one waits for a schema any more."""
        self.abandoned.append(str(key))

    def answer(self, name: str) -> None:
        """Let a schema be known."""
        self.resolving.setdefault(name, asyncio.Event()).set()


class ModelRoutes:
    """Sends an event to the destinations in its value, a letter each; `?` is refused, empty skipped, `route` fails."""

    def plan(self, _topic: str, _schema: str) -> Plan:
        """Route every event of any schema alike."""
        return self.route

    def only_destination(self, _topic: str, _schema: str) -> str | None:
        """Say that each has to be looked at."""
        return None

    def straight(self, _topic: str, _schema: str) -> None:
        """Say that compiled code can route nothing."""

    def route(self, event: Event, record: Record, cluster_id: str) -> list[Routed]:
        """Route the event."""
        to = event.datum["to"]
        if to == "route":
            raise TypeError(to)
        if to == "?":
            raise Refusal("route", "route.model", "nowhere")
        identity = f"{cluster_id}/{record.topic}/{record.partition}/{record.offset}"
        if not to:
            return Skipped("routes[0]")
        return [Routed(name, self._event(name, event, identity), identity) for name in to.lower()]

    def _event(self, name: str, event: Event, identity: str) -> VendorEvent | Refusal:
        if name.upper() in event.datum["to"]:
            return Refusal("invalid", "model.rule", "breaks a rule")
        return VendorEvent(event.datum, identity)


class ModelDestination:
    """Takes deliveries and ends each after `latency` seconds, or when the test says so (`latency` None)."""

    def __init__(self, name: str, budget: Budget, latency: float | None) -> None:
        self.name = name
        self.vendor = ModelVendor()
        self.budget = budget
        self.latency = latency
        self.waiting: list[Delivery] = []
        self.flying: list[Delivery] = []
        self.taken: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []
        self.refused: list[tuple[int, str]] = []
        self.stopped = False
        self.landed = asyncio.Event()

    def offer(self, offer: Offer) -> None:
        """Take deliveries; with a latency they are under way at once."""
        for delivery in offer.deliveries:
            self.taken.append((delivery.record.partition, delivery.record.offset))
            if self.latency is None:
                self.waiting.append(delivery)
            else:
                self.fly(delivery, self.latency)

    def fly(self, delivery: Delivery, latency: float) -> None:
        """Send one: it ends after `latency`."""
        self.flying.append(delivery)
        asyncio.get_running_loop().call_later(latency, self._land, delivery)

    def send(self, *offsets: int, latency: float = 0.0) -> None:
        """Send those of the waiting whose offsets are given, all where none is."""
        chosen = [one for one in self.waiting if not offsets or one.record.offset in offsets]
        self.waiting = [one for one in self.waiting if one not in chosen]
        for one in chosen:
            self.fly(one, latency)

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Take note of a broken rule, and end the delivery."""
        assert refusal.__traceback__ is None, "its frames keep every record of the run"
        self.refused.append((delivery.record.offset, refusal.code))
        self.fly(delivery, 0.0)

    def stop(self) -> None:
        """Take note."""
        self.stopped = True

    def drop(self) -> None:
        """Let go of what is not under way."""
        gone = [one for one in self.waiting if not one.tracker.open]
        self.waiting = [one for one in self.waiting if one.tracker.open]
        self.budget.release(sum(one.charge for one in gone))

    async def drain(self, timeout: float) -> bool:
        """Wait for what is under way."""
        self.drop()
        try:
            async with asyncio.timeout(timeout):
                while any(not one.tracker.open for one in self.flying):
                    self.landed.clear()
                    await self.landed.wait()
        except TimeoutError:
            return False
        return True

    def _land(self, delivery: Delivery) -> None:
        self.flying.remove(delivery)
        delivery.tracker.finish((delivery.record.offset,), delivery.bit)
        self.done.append((delivery.record.partition, delivery.record.offset))
        self.budget.release(delivery.charge)
        self.landed.set()


class ModelSource:
    """A broker with one topic: keeps what is committed, gives records in order, and rebalances inside `poll`."""

    def __init__(self, partitions: int = 1) -> None:
        self.log: dict[TopicPartition, list[Record]] = {("t", n): [] for n in range(partitions)}
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.commits: list[Commit] = []
        self.failing: set[TopicPartition] = set()
        self.longest = 4096
        """The longest metadata that the coordinator takes."""
        self.position: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.events: list[str] = []
        self.errors: list[BaseException] = []
        self.chunk = 500
        self.read_positions: list[int] = []
        self.unreadable = False
        self.closed = False
        self._rebalances: list[Callable[[], Awaitable[None]]] = []
        self._listener: RebalanceListener | None = None

    def produce(self, *values: bytes | None, partition: int = 0) -> None:
        """Append records."""
        log = self.log["t", partition]
        for value in values:
            log.append(record(log[-1].offset + 1 if log else 0, value, partition=partition))

    @property
    def listener(self) -> RebalanceListener:
        """Who is told of rebalances."""
        assert self._listener is not None
        return self._listener

    def assign(self, *partitions: int) -> None:
        """Have the next poll assign partitions."""

        async def assign() -> None:
            given = []
            for number in partitions:
                offset, text = self.committed.get(("t", number), (None, ""))
                start = offset or 0
                self.position["t", number] = start
                given.append(Assigned("t", number, start, offset, text))
            await self.listener.on_assign(given)

        self._rebalances.append(assign)

    def revoke(self, *partitions: int, lost: bool = False) -> None:
        """Have the next poll take partitions away."""

        async def revoke() -> None:
            gone = [("t", number) for number in partitions]
            await (self.listener.on_lost(gone) if lost else self.listener.on_revoke(gone))
            for partition in gone:
                del self.position[partition]
                self.paused.discard(partition)

        self._rebalances.append(revoke)

    async def start(self, listener: RebalanceListener) -> None:
        """Join."""
        self._listener = listener

    async def poll(self) -> list[Record]:
        """Rebalance where that is due, and return the next records."""
        if self._rebalances:
            await self._rebalances.pop(0)()
        if self.errors:
            raise self.errors.pop()
        records: list[Record] = []
        for partition, position in self.position.items():
            if partition not in self.paused:
                new = [one for one in self.log[partition] if one.offset >= position][: self.chunk]
                if new:
                    self.position[partition] = new[-1].offset + 1
                    records += new
        await asyncio.sleep(0 if records else 0.01)
        return records

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Commit, but for partitions that fail. As the real client, report metadata that is too long for all."""
        await asyncio.sleep(0.001)
        faults: dict[TopicPartition, str] = {}
        for one in commits:
            partition = (one.topic, one.partition)
            if partition in self.failing:
                faults[partition] = "not now"
                continue
            if len(one.metadata) > self.longest:
                faults[partition] = LongMetadata("OFFSET_METADATA_TOO_LARGE")
                continue
            assert partition in self.position, "a commit for a partition that is somebody else's"
            assert one.offset >= self.committed.get(partition, (0, ""))[0], "a commit went backwards"
            self.commits.append(one)
            self.committed[partition] = (one.offset, one.metadata)
        if long := next((fault for fault in faults.values() if isinstance(fault, LongMetadata)), None):
            return {(one.topic, one.partition): long for one in commits}
        return faults

    async def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Pause partitions, each once."""
        assert self.paused.isdisjoint(partitions)
        self.paused.update(partitions)
        self.events.append("pause")

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return these records, after a while."""
        self.read_positions.append(len(positions))
        await asyncio.sleep(0.05)
        if self.unreadable:
            raise StartupError("Kafka did not answer")
        wanted = {position[1:] for position in positions}
        return [one for log in self.log.values() for one in log if (one.partition, one.offset) in wanted]

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Resume partitions that are paused."""
        assert self.paused.issuperset(partitions)
        self.paused.difference_update(partitions)
        self.events.append("resume")

    def ends(self) -> dict[TopicPartition, int]:
        """Return the ends of the assigned partitions."""
        return {partition: len(self.log[partition]) for partition in self.position}

    def reached(self) -> dict[TopicPartition, int]:
        """Return the ends that were come to."""
        return {partition: end for partition, end in self.ends().items() if self.position[partition] == end}

    async def close(self) -> None:
        """Leave: what is still assigned is revoked."""
        if self.position:
            await self.listener.on_revoke(list(self.position))
        self.paused.clear()
        self.closed = True


class PipelineRig:
    """A runner over a model broker (`source`), with destinations called by one letter each."""

    def __init__(
        self,
        source: ModelSource | None = None,
        *,
        names: str = "d",
        latency: float | None = 0.05,
        budget: int = 10**9,
        drain_timeout: float = 22.0,
        storm: int = 10**6,
    ) -> None:
        self.clock = LoopClock()
        self.source = ModelSource() if source is None else source
        self.decoder = ModelDecoder()
        self.dead_letters = ModelDeadLetters()
        self.budget = Budget(budget)
        self.metrics = Metrics()
        self.to = {name: ModelDestination(name, self.budget, latency) for name in names}
        self.assignments: list[frozenset[TopicPartition]] = []
        self.storm_changes: list[str] = []
        self.storms = TopicStorms(
            lambda topic: Storms(
                StormSettings(records=storm),
                self.clock,
                scope={"topic": topic},
                on_change=lambda: self.storm_changes.append(topic),
            )
        )
        services = Services(
            decoder=self.decoder,
            routes=cast("RouteTable", ModelRoutes()),
            deliverers=self.to,
            dead_letters=self.dead_letters,
            budget=self.budget,
            metrics=self.metrics,
            clock=self.clock,
            storms=self.storms,
            cluster_id="c",
        )
        self.intake = Intake(services, list(names))
        self.runner = Runner(
            self.source,
            self.intake,
            list(self.to.items()),
            metrics=self.metrics,
            clock=self.clock,
            timing=Timing(commit_interval=1.0, drain_timeout=drain_timeout),
            rereader=Rereader(
                self.source,
                self.intake,
                lambda: [(None, storms) for storms in self.storms.values()],
                budget=self.budget,
                metrics=self.metrics,
                clock=self.clock,
            ),
            on_assignment=self.assignments.append,
        )
        self.stop = asyncio.Event()

    @property
    def dead_letter_offsets(self) -> list[int]:
        """The offsets of the dead letters."""
        return self.dead_letters.numbers

    @property
    def written(self) -> list[DeadLetter]:
        """The dead letters."""
        return self.dead_letters.dead_letters

    async def until(self, condition: Callable[[], object], within: float = 600.0) -> None:
        """Wait until something holds, `within` virtual seconds at most."""
        end = self.clock.now() + within
        while not condition():
            assert self.clock.now() < end, f"not within {within} s"
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self, *partitions: int) -> AsyncIterator[PipelineRig]:
        """Run with partitions assigned (0 unless given); at the end it is stopped, and nothing may be left over."""
        self.source.assign(*(partitions or (0,)))
        task = asyncio.create_task(self.runner.run(self.stop))
        try:
            yield self
        finally:
            self.stop.set()
            failed: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        if failed is not None:
            raise failed
        assert self.source.closed
        assert self.budget.used == 0
