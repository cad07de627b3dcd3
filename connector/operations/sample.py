"""Reads a sample of the live topics: records, the schemas they need, and when they arrive. Commits nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import known_schemas, load_contracts, own_schemas
from connector.config.loader import Loaded, Settings
from connector.errors import ConnectorError, Refusal, SchemaUnavailable, StartupError
from connector.kafka.client import start_of
from connector.kafka.groups import Groups
from connector.kafka.topic_reader import OffsetSpan, TopicReader
from connector.kafka.topics import TopicSelection
from connector.operations.offline import CLUSTER, Offline, WrittenEvent
from connector.records import NO_TIMESTAMP, Assigned, Event, Record, TopicPartition
from connector.routing.compiler import reads_keys
from connector.runtime.checks import open_registry

SCHEMA_SECONDS: Final = 15.0
"""How long the registry is asked for a schema; it is asked again for an unknown id in the first ten of them."""
_LONGEST_GAP: Final = 86_400_000
"""Milliseconds from one record to the next."""

Start = Literal["group", "earliest", "newest"] | int
Speed = Literal["topic", "backlog"] | float


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What to read: at most `records` records from `start` (an int: epoch milliseconds) of `topics` (empty: all)."""

    records: int
    start: Start
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RecordSample:
    """The records read. `partitions` is their number by topic; `left` is how many later offsets were not read.

    `unreadable` says, by schema key, why there is no schema.
    """

    cluster_id: str
    partitions: Mapping[str, int]
    assigned: tuple[Assigned, ...]
    records: tuple[Record, ...]
    left: int
    decoder: Decoder
    unreadable: Mapping[object, str]
    schemas: Mapping[str, Any]

    def decode(self, record: Record) -> Event:
        """Return a record's event. Raises `Refusal`, also if a run would wait for the record's schema."""
        try:
            return self.decoder.event(record)
        except SchemaUnavailable as error:
            why = self.unreadable.get(error.key, "the registry was not asked for it")
            raise Refusal("decode", "decode.schema_unavailable", f"a run would wait for its schema: {why}") from None


async def read(loaded: Loaded, request: SampleRequest) -> RecordSample:
    """Read a sample of the configured topics. Raises `StartupError` if Kafka does not answer or has none of them."""
    settings = loaded.settings
    own = own_schemas(loaded)
    committed = {}
    if request.start == "group":
        async with Groups(settings.kafka) as groups:
            commits = await groups.committed(settings.kafka.group_id)
        committed = {(commit.topic, commit.partition): (commit.offset, commit.metadata) for commit in commits}
    with TopicReader(settings.kafka) as reader:
        cluster_id, known = await asyncio.to_thread(reader.topics)
        topics = {name: known[name] for name in wanted_topics(settings, request.topics, known)}
        spans = await asyncio.to_thread(_spans, settings, reader, topics, request, committed)
        records = await asyncio.to_thread(lambda: tuple(reader.records(spans)))
    registry = None if settings.schema_registry is None else open_registry(settings.schema_registry)
    decoder = Decoder(
        load_contracts(),
        clock=SystemClock(),
        registry=registry,
        schemas=own,
        plain=settings.schemas.plain,
        keys=reads_keys(settings),
    )
    try:
        unreadable = await _resolve(decoder, records)
    finally:
        await decoder.close()
        if registry is not None:
            await registry.close()
    assigned = tuple(_assigned(at, span, committed.get(at)) for at, span in spans.items())
    left = sum(span.end - span.first for span in spans.values()) - len(records)
    return RecordSample(cluster_id, topics, assigned, records, max(0, left), decoder, unreadable, known_schemas(own))


def of_events(loaded: Loaded, offline: Offline, events: Sequence[WrittenEvent]) -> RecordSample:
    """Return events from a file as a sample. Raises `EventFault`."""
    records = tuple(offline.records(events))
    topics = dict.fromkeys((record.topic for record in records), 1)
    decoder = Decoder(
        load_contracts(), clock=SystemClock(), schemas=own_schemas(loaded), keys=reads_keys(loaded.settings)
    )
    assigned = tuple(Assigned(topic, 0, 0, None, "") for topic in topics)
    known = {name: schema.tree for name, schema in offline.schemas.items()}
    return RecordSample(CLUSTER, topics, assigned, records, 0, decoder, {}, known)


def wanted_topics(settings: Settings, only: Collection[str], known: Collection[str]) -> list[str]:
    """Return the topics to read. Raises `StartupError` for a named topic that does not exist."""
    selection = TopicSelection(settings.kafka.topics, settings.own_topics)
    names = {*selection.names, *selection.matching(known)}
    if foreign := sorted(set(only) - names):
        raise StartupError(
            f"--topic: {', '.join(foreign)} is not in kafka.topics, which are {', '.join(sorted(names))}"
        )
    wanted = sorted(names & set(only) if only else names)
    if missing := [name for name in wanted if name not in known]:
        raise StartupError(f"topic {', '.join(missing)} does not exist: create it, or correct kafka.topics")
    if not wanted:
        raise StartupError(f"no topic matches kafka.topics: {', '.join(settings.kafka.topics)}")
    return wanted


def arrivals(records: Sequence[Record], speed: Speed) -> list[tuple[float, Record]]:
    """Return when each record arrives, in seconds after the first, in the order of arrival.

    `topic`: at their own timestamps, with gaps of at most a day, because a producer's clock may be anywhere. A number:
    so many per second, in the order of their timestamps. `backlog`: all at once. Records of a partition keep their
    order, whatever their timestamps are.
    """
    latest: dict[TopicPartition, int] = {}
    timed = []
    for record in records:
        at = (record.topic, record.partition)
        time = record.timestamp if record.timestamp != NO_TIMESTAMP else latest.get(at, NO_TIMESTAMP)
        # Never earlier than the previous record of its partition, because a consumer gets them in order.
        latest[at] = max(time, latest.get(at, time))
        timed.append((latest[at], record))
    timed.sort(key=lambda pair: pair[0])
    if speed == "backlog" or not timed:
        return [(0.0, record) for _, record in timed]
    if speed == "topic":
        previous, passed, coming = timed[0][0], 0, []
        for time, record in timed:
            # From no timestamp to the first one nothing passes.
            passed += 0 if previous == NO_TIMESTAMP else min(time - previous, _LONGEST_GAP)
            previous = time
            coming.append((passed / 1000, record))
        return coming
    return [(number / speed, record) for number, (_, record) in enumerate(timed)]


def shares(available: Mapping[TopicPartition, int], wanted: int) -> dict[TopicPartition, int]:
    """Return how many records to take from each partition, `wanted` in all, as evenly as possible."""
    taken: dict[TopicPartition, int] = {}
    left = wanted
    for number, (at, count) in enumerate(sorted(available.items(), key=lambda item: (item[1], item[0]))):
        # Smallest partitions first: what they lack is shared among the others.
        taken[at] = min(count, math.ceil(left / (len(available) - number)))
        left -= taken[at]
    return taken


def _spans(
    settings: Settings,
    reader: TopicReader,
    topics: Mapping[str, int],
    request: SampleRequest,
    committed: Mapping[TopicPartition, tuple[int, str]],
) -> dict[TopicPartition, OffsetSpan]:
    """Return which offsets to read of each partition."""
    bounds = {
        (name, number): reader.bounds((name, number)) for name, count in topics.items() for number in range(count)
    }
    start = start_of(settings.kafka) if request.start == "group" else request.start
    firsts = {}
    for at, (first, end) in bounds.items():
        if at in committed:
            firsts[at] = min(max(first, committed[at][0]), end)
        elif isinstance(start, int):
            found = reader.since(at, start)
            firsts[at] = end if found is None else max(first, found)
        else:
            firsts[at] = end if start == "latest" else first
    taken = shares({at: bounds[at][1] - firsts[at] for at in bounds}, request.records)
    if request.start == "newest":
        return {at: OffsetSpan(end - taken[at], end) for at, (_, end) in bounds.items()}
    return {at: OffsetSpan(firsts[at], end, taken[at]) for at, (_, end) in bounds.items()}


def _assigned(at: TopicPartition, span: OffsetSpan, committed: tuple[int, str] | None) -> Assigned:
    """Return the partition as it would be assigned, with its committed offset and map if there is one."""
    offset, metadata = committed if committed is not None else (None, "")
    return Assigned(*at, span.first, offset, metadata)


async def _resolve(decoder: Decoder, records: Sequence[Record]) -> dict[object, str]:
    """Fetch every schema that the records need; return the reasons of those that could not be fetched, by key."""
    keys = set(_unresolved(decoder, records))

    async def ask(key: object) -> str | None:
        try:
            await asyncio.wait_for(decoder.resolve(key), SCHEMA_SECONDS)
        except TimeoutError:
            return f"the registry did not answer for schema {key} within {SCHEMA_SECONDS:g} s"
        except ConnectorError as error:
            return str(error)
        return None

    ordered = list(keys)
    answers = await asyncio.gather(*(ask(key) for key in ordered))
    return {key: answer for key, answer in zip(ordered, answers, strict=True) if answer is not None}


def _unresolved(decoder: Decoder, records: Sequence[Record]) -> Iterator[object]:
    for record in records:
        if record.value is None:
            continue
        try:
            decoder.event(record)
        except SchemaUnavailable as error:
            yield error.key
        except Refusal:
            continue
