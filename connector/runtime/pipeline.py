"""Wires one pipeline: intake, runner and a worker for each destination. Its edges may be real or models."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from connector.clock import Clock
from connector.config.loader import DestinationSettings, Settings, StormSettings
from connector.delivery.destination import AnswerSink, Destination, Ports, ReceiptSink
from connector.delivery.request import Tracer, Transport
from connector.delivery.states import Cause
from connector.delivery.worker import Worker
from connector.pipeline.flow import Budget
from connector.pipeline.intake import DeadLetterSink, EventDecoder, Intake, Services
from connector.pipeline.offset_map import MAX_TEXT
from connector.pipeline.rereading import Rereader
from connector.pipeline.runner import RecordSource, Runner, Timing
from connector.pipeline.storms import Storms, TopicStorms
from connector.records import TopicPartition
from connector.routing.table import RouteTable
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Vendor, VendorKind

T = TypeVar("T")

LETTING_GO: Final = 1.0
"""Seconds that a task has to end after it was cancelled, before it is cancelled again."""
QUEUE_SHARE: Final = 16
"""librdkafka's own queue gets `limits.buffer` divided by this."""
BUDGET_SHARE: Final = 0.75
"""The part of `limits.buffer` for deliveries without an outcome; what is left is for requests on their way."""
REPLAY_SHARE: Final = 0.02
"""The share of a destination's rate limit that goes with the partitions of the replay topic, if that is read."""
SEEN_BY_ALL: Final = 3.0
"""Seconds, beyond two commits, after which every member has seen added partitions: each looks every two seconds."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Everything that the pipeline uses outside of itself. The simulation passes models instead."""

    source: RecordSource
    decoder: EventDecoder
    dead_letters: DeadLetterSink
    answers: Mapping[str, AnswerSink]
    transport: Callable[[str, DestinationSettings], Transport]
    reload: Callable[[str], Vendor | None]
    clock: Clock
    random: Random
    cluster_id: str
    partitions: Mapping[str, int]
    receipts: ReceiptSink | None = None
    map_limit: int = MAX_TEXT
    """The longest commit metadata that the group's coordinator takes."""
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The built pipeline: one runner, and a worker for each destination."""

    runner: Runner
    workers: Mapping[str, Worker]
    intake: Intake
    holds: IntakeHolds
    budget: Budget
    routes: RouteTable
    shares: Shares

    def use(self, settings: Settings, routes: RouteTable | None) -> None:
        """Use other settings of the same destinations for rate shares and topics' storms. `routes` None: they stay."""
        if routes is not None:
            self.routes.become(routes)
            self.intake.rerouted()
        self.holds.use(settings)
        self.shares.settings = settings
        self.shares.apply(self.runner.assigned)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then drain and close. Raises what ended it early; its work stays uncommitted.

        Cancelling stops it too: it drains first. If cancelled again, it abandons the drain, but still leaves no task
        behind.
        """
        sending = [asyncio.create_task(worker.run(), name=name) for name, worker in self.workers.items()]
        running = asyncio.create_task(self.runner.run(stop), name="runner")
        try:
            await asyncio.wait([running, *sending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Either the runner ended, and has drained already, or a worker failed, and the runner drains now.
            stop.set()
            ended = await self._end(running, sending)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _end(
        self, running: asyncio.Task[None], sending: Sequence[asyncio.Task[None]]
    ) -> list[BaseException | None]:
        """Wait for the runner's drain, then end the workers; return how each task ended."""
        try:
            # The workers continue, because the drain waits for their requests.
            await asyncio.wait([running])
        finally:
            ended = await _whole(self._close([running, *sending]))
        return ended

    async def _close(self, tasks: Sequence[asyncio.Task[None]]) -> list[BaseException | None]:
        late = set(tasks)
        while late:  # a drain inside of a rebalance is followed by that of the stop: each has to be let go
            for task in late:
                task.cancel()
            _, late = await asyncio.wait(late, timeout=LETTING_GO)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        # A runner that was cancelled during its drain has not closed its intake.
        await self.intake.close()
        for worker in self.workers.values():
            await worker.close()
        return ended


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, which ends soon. If cancelled, wait for it first."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def build(
    settings: Settings,
    kinds: Mapping[str, VendorKind],
    metrics: Metrics,
    edges: Edges,
    *,
    only: str | None = None,
    schemas: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Wire a pipeline for every destination, or `only` one of them.

    `schemas` are the writers' schemas known at start, parsed JSON by full name: routes are checked against
    them. Raises `ConfigurationError` for routes that cannot be.
    """
    routes = RouteTable.compile(settings, kinds, schemas)
    # Created here, so that each series exists at 0 from the start.
    for reason in routes.drop_reasons:
        metrics.records_skipped.labels(reason)
    # One budget for all destinations. Separate budgets would not help: a held destination stops its partitions anyway,
    # once their offset maps are full.
    budget = Budget(int(settings.limits.buffer * BUDGET_SHARE))
    workers = {
        name: _worker(name, destination, kinds[destination.vendor], edges, metrics, budget)
        for name, destination in settings.destinations.items()
        if only is None or name == only
    }
    holds = IntakeHolds(settings, routes, workers, metrics, edges.clock)
    intake = Intake(
        Services(
            decoder=edges.decoder,
            routes=routes,
            deliverers=workers,
            dead_letters=edges.dead_letters,
            budget=budget,
            metrics=metrics,
            clock=edges.clock,
            storms=holds.topics,
            cluster_id=edges.cluster_id,
        ),
        list(workers),
        only=only,
        replay_topic=settings.replay_topic,
    )
    shares = Shares(settings, routes, workers, edges.partitions, edges.clock)
    shares.apply(frozenset())  # notes what is known from the start
    runner = Runner(
        edges.source,
        intake,
        list(workers.items()),
        metrics=metrics,
        clock=edges.clock,
        timing=Timing(settings.limits.commit_interval, settings.limits.drain_timeout, edges.map_limit),
        rereader=Rereader(edges.source, intake, holds.scopes, budget=budget, metrics=metrics, clock=edges.clock),
        on_assignment=shares.apply,
    )
    return Pipeline(runner, workers, intake, holds, budget, routes, shares)


def _worker(
    name: str, settings: DestinationSettings, kind: VendorKind, edges: Edges, metrics: Metrics, budget: Budget
) -> Worker:
    ports = Ports(
        clock=edges.clock,
        random=edges.random,
        dead_letters=edges.dead_letters,
        answers=edges.answers.get(name),
        metrics=metrics,
        budget=budget,
        receipts=edges.receipts,
    )
    destination = Destination(name, settings, kind.build(settings), ports, reload=partial(edges.reload, name))
    return Worker(destination, edges.transport(name, settings), timeout=settings.timeout, tracer=edges.tracer)


def _topic_storm(settings: Settings, reached: frozenset[str]) -> StormSettings | str:
    """Return the storm settings of a topic: those of its most patient destination; `off` if all of them are off."""
    storms = [destination.storm for name, destination in settings.destinations.items() if name in reached]
    on = [storm for storm in storms if isinstance(storm, StormSettings)]
    # Compared by the number of dead letters before it trips. A strict destination must not hold back a patient one's
    # records.
    return max(on, key=lambda storm: storm.share * storm.records) if on else "off"


class IntakeHolds:
    """Shows at the destinations why records do not reach them: trouble with the registry, or a topic in a storm."""

    def __init__(
        self, settings: Settings, routes: RouteTable, workers: Mapping[str, Worker], metrics: Metrics, clock: Clock
    ) -> None:
        self._workers = workers
        self._settings = settings
        self._routes = routes
        self._gauge = metrics.records_set_aside
        metrics.on_scrape(self._update_gauge)
        self.registry: str | None = None
        self.topics = TopicStorms(
            lambda topic: Storms(
                _topic_storm(self._settings, routes.reaches(topic)), clock, scope={"topic": topic}, on_change=self._note
            )
        )
        for name, worker in workers.items():
            worker.destination.topic_storms = lambda name=name: [  # type: ignore[misc]
                storm
                for topic, storms in self.topics.items()
                if name in routes.reaches(topic)
                for storm in storms.status()
            ]

    def use(self, settings: Settings) -> None:
        """Use another configuration for topics' storms; the routes may have changed too."""
        self._settings = settings
        for topic, storms in self.topics.items():
            storms.use(_topic_storm(settings, self._routes.reaches(topic)))

    def scopes(self) -> list[tuple[str | None, Storms]]:
        """Return the storms of every destination, and those of every topic under None."""
        destinations = [(name, worker.destination.storms) for name, worker in self._workers.items()]
        return [*destinations, *((None, storms) for storms in self.topics.values())]

    def registry_trouble(self, message: str | None) -> None:
        """Note that records wait for their schemas, or no longer do."""
        self.registry = message
        for worker in self._workers.values():
            worker.destination.hold_intake(None if message is None else Cause.REGISTRY, message or "")

    def _update_gauge(self) -> None:
        """Set how many records are set aside, by destination (none for topics) and cause."""
        # Start from 0 for every label: a storm that has ended must not keep its last value.
        counts = Counter({("", cause): 0 for cause in ("decode", "route", "internal")})
        counts.update({(name, cause): 0 for name in self._workers for cause in ("invalid", "refused", "too_large")})
        for name, storms in self.scopes():
            for storm in storms.status():
                counts[name or "", storm.cause] += storm.set_aside
        for labels, count in counts.items():
            self._gauge.labels(*labels).set(count)

    def _note(self) -> None:
        for worker in self._workers.values():
            worker.destination.note()


@dataclass(slots=True)
class _Known:
    """A topic's number of partitions: the one that all members know, and the current one with its time (monotonic)."""

    agreed: int
    count: int
    since: float


@dataclass(slots=True)
class Shares:
    """Gives each destination this member's share of the group's rate limit: its share of the partitions that reach it.

    Replayed records get little: all partitions of the replay topic together count as `REPLAY_SHARE` of a limit.
    `partitions` may grow during the run; of a topic that is not in it, only the assigned partitions are known. Added
    partitions count at once in the total, but for their owner only once every member has seen them. Otherwise some
    members would divide by the old number and some by the new one, and their shares could add up to more than the
    limit.
    """

    settings: Settings
    routes: RouteTable
    workers: Mapping[str, Worker]
    partitions: Mapping[str, int]
    clock: Clock
    known: dict[str, _Known] = field(default_factory=dict)

    def apply(self, assigned: frozenset[TopicPartition]) -> None:
        """Set every share for an assignment. Called at every commit too: partitions may have been added."""
        counts = dict(self.partitions)
        for topic, partition in assigned:
            # A topic that a pattern matches may first be known only by its assigned partitions.
            counts[topic] = max(counts.get(topic, 0), partition + 1)
        agreed = {topic: self._agreed(topic, count) for topic, count in counts.items()}
        owned = Counter(topic for topic, partition in assigned if partition < agreed[topic])
        replay = self.settings.replay_topic
        replays = owned[replay] / counts[replay] * REPLAY_SHARE if replay in counts else 0.0
        for name, worker in self.workers.items():
            if self.settings.destinations[name].rate_limit_share == "fixed":
                worker.set_share(1.0)
                continue
            topics = [topic for topic in counts if topic != replay and name in self.routes.reaches(topic)]
            total = sum(counts[topic] for topic in topics)
            share = sum(owned[topic] for topic in topics) / total if total else 0.0
            if replay in counts:
                # Subtracted from the live topics' share, not added, so that all members together stay within the limit.
                share *= 1.0 - REPLAY_SHARE
            worker.set_share(share + replays)

    def _agreed(self, topic: str, count: int) -> int:
        """Return how many partitions of a topic every member knows of."""
        now = self.clock.now()
        known = self.known.setdefault(topic, _Known(count, count, now))
        if count != known.count:
            known.count, known.since = count, now
        # Example: 4 partitions, 2 for each of two members; then 4 are added, all for the second one. Until the first
        # one has seen them it takes 2/4 of the limit, and the second one would take 6/8: together more than there is.
        if now - known.since >= 2 * self.settings.limits.commit_interval + SEEN_BY_ALL:
            known.agreed = known.count
        return known.agreed
