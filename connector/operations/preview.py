"""Previews a run over a sample of records: the real pipeline on virtual time, with vendors that accept everything.

Intake, batching, pacing and local rules are those of a run. Not simulated: the vendors' own judgement (each request is
accepted after `latency`), holds, and storms, which are only reported.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from connector import vendors
from connector.clock import Clock, SystemClock
from connector.config.loader import Settings, StormSettings
from connector.errors import FatalError, Refusal, SchemaUnavailable
from connector.operations.sample import RecordSample, Speed, arrivals
from connector.pipeline.runner import Runner
from connector.pipeline.storms import StormGuard
from connector.records import (
    Answer,
    Assigned,
    Commit,
    DeadLetter,
    Event,
    Item,
    Position,
    RebalanceListener,
    Record,
    TopicPartition,
)
from connector.runtime.pipeline import Edges, build
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock, run_virtual
from connector.vendors.base import Accepted, Limits, Request, Response, Vendor, VendorEvent, VendorKind, Verdict

_CHUNK: Final = 500
_LOOK: Final = 0.05


@dataclass(slots=True)
class RefusedSummary:
    """The records of one destination (None: not routed yet) that would become dead letters for one reason."""

    destination: str | None
    cause: str
    code: str | None
    records: int
    example: Position
    message: str
    field: str | None


@dataclass(slots=True)
class Sent:
    """What one destination would be sent; `requests` are (seconds after the first record, records, bytes)."""

    destination: str
    vendor: str
    limit: float | None
    requests: list[tuple[float, int, int]] = field(default_factory=list)
    closed_by: Mapping[str, int] = field(default_factory=dict)
    storm: str | None = None
    held: bool = False
    examples: list[str] = field(default_factory=list)
    """The first events as they would be in a request's body."""

    @property
    def records(self) -> int:
        """How many records would be sent."""
        return sum(records for _, records, _ in self.requests)

    @property
    def seconds(self) -> float:
        """Seconds from the first request to the last."""
        return self.requests[-1][0] - self.requests[0][0] if self.requests else 0.0

    @property
    def peak(self) -> int:
        """The most requests in any second."""
        window: deque[float] = deque()
        most = 0
        for at, _, _ in self.requests:
            window.append(at)
            while window[0] <= at - 1.0:
                window.popleft()
            most = max(most, len(window))
        return most


@dataclass(frozen=True, slots=True)
class Preview:
    """The result for a sample. Its records arrive over `seconds`, and all have their outcome after `took` seconds."""

    read: Mapping[str, int]
    left: int
    skipped: Mapping[str, int]
    sent: tuple[Sent, ...]
    refused: tuple[RefusedSummary, ...]
    seconds: float
    took: float
    would_stop: bool
    storms: tuple[str, ...]


def preview(settings: Settings, sample: RecordSample, speed: Speed, latency: float, shown: int = 1) -> Preview:
    """Return what a run would do; `latency` (seconds) is how long a vendor takes to answer.

    `shown` is how many examples each destination has.

    Raises `ConfigurationError` for routes that are not valid.
    """
    return run_virtual(_play(settings, sample, speed, latency, shown))


async def _play(settings: Settings, sample: RecordSample, speed: Speed, latency: float, shown: int) -> Preview:
    # Metrics of its own: the preview reads its counts from them.
    clock, metrics = _Clock(), Metrics()
    began = clock.now()
    tally = _Tally(settings, began, shown)
    coming = arrivals(sample.records, speed)
    source = _Source(sample.assigned, coming)
    edges = Edges(
        source=source,
        decoder=_Decoder(sample),
        dead_letters=tally,
        answers={name: _Answers() for name in settings.destinations},
        transport=lambda _name, _settings: _Transport(latency),
        reload=_no_reload,
        clock=clock,
        # Two previews of the same records show the same.
        random=Random(0),
        cluster_id=sample.cluster_id,
        partitions=sample.partitions,
    )
    kinds = {name: _accepting(kind, tally) for name, kind in vendors.kinds().items()}
    pipeline = build(_without_holds(settings), kinds, metrics, edges, schemas=sample.schemas)
    for name, worker in pipeline.workers.items():
        vendor = worker.vendor
        if isinstance(vendor, _AcceptingVendor):
            vendor.sent = tally.sent[name]
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    ended = asyncio.create_task(_until_done(source, pipeline.runner, sample.assigned, clock))
    await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
    took = clock.now() - began
    stop.set()
    ended.cancel()
    await asyncio.gather(ended, return_exceptions=True)
    await running
    return tally.result(sample, metrics, coming[-1][0] if coming else 0.0, took)


async def _until_done(source: _Source, runner: Runner, assigned: Sequence[Assigned], clock: Clock) -> None:
    """Return when every record has arrived and has its outcome."""
    await source.exhausted.wait()
    trackers = [runner.tracker_of((each.topic, each.partition)) for each in assigned]
    while any(tracker is not None and tracker.unfinished for tracker in trackers):
        await clock.sleep(_LOOK)


def _without_holds(settings: Settings) -> Settings:
    """Return settings that never stop a run: no storm guard, no hold, no `unrouted: stop`."""
    free = {
        name: each.model_copy(update={"storm": "off", "hold": False, "rate_limit_share": "group"})
        for name, each in settings.destinations.items()
    }
    unrouted = "dead_letter" if settings.unrouted == "stop" else settings.unrouted
    return settings.model_copy(update={"destinations": free, "unrouted": unrouted})


def _no_reload(name: str) -> Vendor:
    raise FatalError(f"destination {name} is not held in a preview, so no secret is read again")


class _Clock(LoopClock):
    """A clock with virtual time. Its wall clock stands still, so that rules about age apply as of now."""

    def __init__(self) -> None:
        super().__init__()
        self._now = SystemClock().wall()

    def wall(self) -> float:
        """Return the time at which the preview started."""
        return self._now


class _Decoder:
    """The sample's decoder, which already has every schema."""

    def __init__(self, sample: RecordSample) -> None:
        self._sample = sample

    def decode(self, records: list[Record]) -> list[Event | Refusal | SchemaUnavailable]:
        """Decode records."""
        return [self._decoded(record) for record in records]

    def _decoded(self, record: Record) -> Event | Refusal:
        try:
            return self._sample.decode(record)
        except Refusal as refusal:
            return refusal

    def plain(self, record: Record) -> None:
        """Return nothing, so that every record goes through the single steps, which the preview shows."""

    def peek(self, record: Record) -> str | None:
        """Return the schema's name if it is known."""
        return self._sample.decoder.peek(record)

    async def resolve(self, key: object) -> None:
        """Return at once: a schema that was not fetched before is a refusal."""

    def abandon(self, key: object) -> None:
        """Do nothing: nothing is being fetched."""


class _Source:
    """Plays the consumer: returns each record of the sample when it arrives, unless its partition is paused."""

    def __init__(self, assigned: Sequence[Assigned], coming: Sequence[tuple[float, Record]]) -> None:
        self._assigned = assigned
        self._coming: dict[TopicPartition, deque[tuple[float, Record]]] = {}
        for at, record in coming:
            self._coming.setdefault((record.topic, record.partition), deque()).append((at, record))
        self._paused: set[TopicPartition] = set()
        self._listener: RebalanceListener | None = None
        self._began: float | None = None
        self.exhausted = asyncio.Event()

    async def start(self, listener: RebalanceListener) -> None:
        """Keep the listener; there is no group to join."""
        self._listener = listener

    async def poll(self) -> list[Record]:
        """Return what has arrived; if nothing has, let time pass until something does."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
            if self._listener is not None:
                await self._listener.on_assign(self._assigned)
        if not any(self._coming.values()):
            # Set now, because only the next poll shows that the records of the last one were processed.
            self.exhausted.set()
        passed = now - self._began
        records: list[Record] = []
        for at, waiting in self._coming.items():
            while at not in self._paused and waiting and waiting[0][0] <= passed and len(records) < _CHUNK:
                records.append(waiting.popleft()[1])
        if records:
            await asyncio.sleep(0)
        else:
            free = [waiting[0][0] for at, waiting in self._coming.items() if waiting and at not in self._paused]
            await asyncio.sleep(_LOOK if self._paused or not free else max(0.001, min(free) - passed))
        return records

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Report success, and commit nothing."""
        return {}

    async def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Keep back these partitions' records."""
        self._paused.update(partitions)

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Fail: a preview has no storms, so nothing is set aside."""
        raise AssertionError(positions)

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Return their records again."""
        self._paused.difference_update(partitions)

    def ends(self) -> dict[TopicPartition, int]:
        """Return no end: the preview does not need it."""
        return {}

    def reached(self) -> dict[TopicPartition, int]:
        """Return nothing: a sample has no gaps."""
        return {}

    async def close(self) -> None:
        """Do nothing."""


class _Transport:
    """Sends nothing, and takes as long as a vendor would take to answer."""

    def __init__(self, latency: float) -> None:
        self._latency = latency

    async def send(self, request: Request, timeout: float) -> Response:
        """Return an empty answer, which `_AcceptingVendor` reads as an acceptance."""
        await asyncio.sleep(min(self._latency, timeout))
        return Response(200, {}, b"")

    async def close(self) -> None:
        """Do nothing."""


class _Answers:
    """A results topic that drops everything."""

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> tuple[int, ...]:
        """Drop the answers."""
        return ()


def _accepting(kind: VendorKind, tally: _Tally) -> VendorKind:
    """Return a vendor kind whose vendors accept whatever they are sent."""
    make: Callable[[Any], Vendor] = kind.build
    return replace(kind, build=lambda settings: _AcceptingVendor(make(settings), tally))


class _AcceptingVendor:
    """A vendor that accepts every request and notes it. Everything else is done by the real vendor."""

    def __init__(self, vendor: Vendor, tally: _Tally) -> None:
        self._vendor = vendor
        self._tally = tally
        self.sent: Sent | None = None

    def group(self, event: VendorEvent) -> Hashable:
        """Return the event's group."""
        return self._vendor.group(event)

    def limits(self, group: Hashable) -> Limits:
        """Return the group's limits."""
        return self._vendor.limits(group)

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check and encode the event."""
        item = self._vendor.encode(event, now)
        if self.sent is not None and len(self.sent.examples) < self._tally.shown:
            self.sent.examples.append(item.body.decode(errors="replace"))
        return item

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Build the request, and note it."""
        request = self._vendor.request(group, items, now)
        if self.sent is not None:
            self._tally.requested(self.sent, len(items), len(request.body or b""))
        return request

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Accept."""
        return Accepted()


class _Tally:
    """Counts what would be sent and refused; it is also the preview's dead-letter topic."""

    def __init__(self, settings: Settings, began: float, shown: int) -> None:
        self._settings = settings
        self.shown = shown
        self._began = began
        self.sent = {
            name: Sent(name, each.vendor, each.rate, held=each.hold) for name, each in settings.destinations.items()
        }
        self._guards = {name: StormGuard(each.storm) for name, each in settings.destinations.items()}
        self._refused: dict[tuple[str | None, str, str | None], RefusedSummary] = {}
        self._early: Counter[tuple[str, str]] = Counter()

    def requested(self, sent: Sent, records: int, size: int) -> None:
        """Note a request, which is accepted."""
        sent.requests.append((asyncio.get_running_loop().time() - self._began, records, size))
        self._guards[sent.destination].accepted(records)

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Note a record that would become a dead letter."""
        key = (dead_letter.destination, dead_letter.cause, dead_letter.code)
        summary = self._refused.get(key)
        if summary is None:
            summary = self._refused[key] = RefusedSummary(
                *key, 0, dead_letter.record.position, dead_letter.message, dead_letter.field
            )
        summary.records += 1
        if dead_letter.destination is None:
            self._early[dead_letter.record.topic, f"{dead_letter.cause} {dead_letter.code}"] += 1
        # The guards only count. With storms on, a virtual run would set records aside and never end.
        elif self._guards[dead_letter.destination].refused(dead_letter.cause, dead_letter.code or ""):
            self.sent[dead_letter.destination].storm = dead_letter.code or dead_letter.cause

    def result(self, sample: RecordSample, metrics: Metrics, seconds: float, took: float) -> Preview:
        """Return what was counted."""
        for name, sent in self.sent.items():
            sent.closed_by = _by_label(metrics.batch_closed, "by", destination=name)
        read = Counter(record.topic for record in sample.records)
        guards = [each.storm for each in self._settings.destinations.values() if isinstance(each.storm, StormSettings)]
        # A topic's storm limit is that of its most patient destination.
        patient = max(guards, key=lambda guard: guard.share * guard.records) if guards else None
        storms = [
            f"topic {topic}: {count} of {read[topic]} records are refused ({why})"
            for (topic, why), count in self._early.items()
            if patient is not None and count > patient.share * patient.records and count > patient.share * read[topic]
        ]
        would_stop = self._settings.unrouted == "stop" and any(
            summary.code in ("route.unrouted", "route.unmet") for summary in self._refused.values()
        )
        refused = sorted(
            self._refused.values(), key=lambda found: (-found.records, found.destination or "", found.code or "")
        )
        return Preview(
            read={topic: read[topic] for topic in sample.partitions},
            left=sample.left,
            skipped=_by_label(metrics.records_skipped, "reason"),
            sent=tuple(self.sent.values()),
            refused=tuple(refused),
            seconds=seconds,
            took=took,
            would_stop=would_stop,
            storms=tuple(storms),
        )


def _by_label(counter: Any, label: str, **wanted: str) -> dict[str, int]:
    """Return a counter's values by one label, of the samples that have all `wanted` labels."""
    samples = [sample for family in counter.collect() for sample in family.samples if sample.name.endswith("_total")]
    found = [sample for sample in samples if wanted.items() <= sample.labels.items()]
    return {sample.labels[label]: int(sample.value) for sample in found if sample.value}
