"""What happened to one record: everything that Kafka, the registry and today's rules say about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from connector.clock import SystemClock
from connector.codec.codec import Decoder
from connector.codec.contracts import load_contracts
from connector.config.loader import Loaded, Settings
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.origins import about, dead_letters_about
from connector.dead_letters.reader import DeadLetterEntry, Resolution
from connector.errors import ConnectorError, Refusal, SchemaUnavailable
from connector.kafka.groups import Groups
from connector.kafka.offset_reader import OffsetReader, Span
from connector.kafka.receipts import SCHEMA
from connector.operations import offsets as app_offsets
from connector.operations.inspect import DeadLetterExaminer, Inspection, plain
from connector.operations.offsets import PartitionState
from connector.records import NO_TIMESTAMP, Position, Record
from connector.runtime.checks import open_registry

EARLIER: Final = 3600 * 1000
"""Milliseconds before a record's own timestamp from which on the connector's topics are searched."""
_SCHEMA_SECONDS: Final = 15.0
_CHUNK: Final = 2000


class NotThere(ConnectorError):
    """The record's topic or partition does not exist, or its offset is still to come; the message says which."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How far one group is with the record. `by` says how: `committed`, `map`, or None where it is not finished.

    `destinations` are those for which alone the offset map says that it is finished.
    """

    state: PartitionState
    group: str
    by: str | None
    destinations: tuple[str, ...]
    members: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that names the record, in JSON's types, and the place by which it does: perhaps a replay's."""

    datum: Mapping[str, Any]
    position: Position


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a record. `missing` says why there is none any more; then `record` is None.

    `receipts` is None where none are written. `notes` say what could not be searched.
    """

    position: Position
    record: Record | None
    missing: str | None
    inspection: Inspection | None
    finished: tuple[Finished, ...]
    dead_letters: tuple[DeadLetterEntry, ...]
    resolutions: tuple[Resolution, ...]
    replays: tuple[Position, ...]
    receipts: tuple[Receipt, ...] | None
    origin: ParsedDeadLetter | None
    """For a record of the replay topic: what it says of its first origin."""
    notes: tuple[str, ...]


async def explain(loaded: Loaded, position: Position, *, everything: bool = False) -> Explanation:
    """Return all that is known of a record; `everything` searches the connector's topics from their beginning.

    Raises `NotThere`, and `StartupError` where Kafka does not answer.
    """
    settings = loaded.settings
    with OffsetReader(settings.kafka) as reader:
        cluster_id, topics = await asyncio.to_thread(reader.topics)
        record, missing = await asyncio.to_thread(_fetch, settings, reader, topics, position)
        facts = parse(record.headers) if record is not None and position.topic == settings.replay_topic else None
        search = _Search(reader, topics, None if everything else _earliest(record))
        origin = position if facts is None else facts.origin
        dead_letters, resolutions = await asyncio.to_thread(_dead_letters, search, settings.dead_letter_topic, origin)
        replays = await asyncio.to_thread(_replays, search, settings.replay_topic, origin)
        receipts = None
        if settings.receipts.topic is not None:
            places = frozenset((position, *replays))
            receipts = tuple(await _receipts(settings, search, settings.receipts.topic, places))
    inspection = None
    if record is not None:
        async with DeadLetterExaminer(loaded, cluster_id) as examiner:
            inspection = await (
                examiner.inspect_record(record)
                if facts is None
                else examiner.inspect(DeadLetterEntry(record, facts, "open"))
            )
    finished = await _finished(settings, position)
    notes = tuple(f"topic {name} does not exist, so nothing was searched in it" for name in search.absent)
    return Explanation(
        *(position, record, missing, inspection, tuple(finished), tuple(dead_letters), tuple(resolutions)),
        *(tuple(replays), receipts, facts, notes),
    )


def _fetch(
    settings: Settings, reader: OffsetReader, topics: Mapping[str, int], position: Position
) -> tuple[Record | None, str | None]:
    """Return the record, or why there is none any more. Raises `NotThere` where there never was one."""
    topic, partition, offset = position
    if topic not in topics:
        raise NotThere(f"topic {topic} does not exist")
    if partition >= topics[topic]:
        raise NotThere(f"topic {topic} has {topics[topic]} partitions, from 0 on; there is no partition {partition}")
    first, end = reader.bounds((topic, partition))
    if offset < first:
        return None, f"{topic}[{partition}] begins at offset {first} by now: its retention has deleted {offset}"
    found = _one(reader, position)
    if found is not None:
        return found, None
    with OffsetReader(settings.kafka, uncommitted=True) as every:
        _, last = every.bounds((topic, partition))
        if offset >= last:
            raise NotThere(f"{topic}[{partition}] ends at offset {last}: there is no record at {offset} yet")
        hidden = _one(every, position)
    if offset >= end:
        raise NotThere(
            f"{topic}[{partition}]@{offset} is not visible yet: a transaction before it, or its own, is open"
        )
    if hidden is not None:
        return None, f"the transaction of {topic}[{partition}]@{offset} was aborted: no consumer ever gets this record"
    return (
        None,
        f"there is no record at {topic}[{partition}]@{offset}: compaction removed it, or it ended a transaction",
    )


def _one(reader: OffsetReader, position: Position) -> Record | None:
    """Return the record at an offset, None where none is there."""
    topic, partition, offset = position
    with closing(reader.records({(topic, partition): Span(offset, offset + 1)})) as records:
        return next(records, None)


def _earliest(record: Record | None) -> int | None:
    """Return from when on something may have been written about a record; None where its timestamp does not tell."""
    if record is None or record.timestamp == NO_TIMESTAMP:
        return None
    return max(0, min(record.timestamp, int(SystemClock().wall() * 1000)) - EARLIER)


class _Search:
    """Reads a topic of the connector's own, from a time on; `absent` are those that do not exist."""

    def __init__(self, reader: OffsetReader, topics: Mapping[str, int], time: int | None) -> None:
        self._reader = reader
        self._topics = topics
        self._time = time
        self.absent: list[str] = []

    def records(self, topic: str) -> Callable[[], Iterator[Record]]:
        """Return what reads the topic, each time the same records."""
        if topic not in self._topics:
            self.absent.append(topic)
        spans = {}
        for number in range(self._topics.get(topic, 0)):
            at = (topic, number)
            first, end = self._reader.bounds(at)
            found = first if self._time is None else self._reader.since(at, self._time)
            if found is not None:
                spans[at] = Span(max(first, found), end)
        return lambda: self._reader.records(spans)


def _dead_letters(search: _Search, topic: str, origin: Position) -> tuple[list[DeadLetterEntry], list[Resolution]]:
    return dead_letters_about(search.records(topic), origin)


def _replays(search: _Search, topic: str, origin: Position) -> list[Position]:
    return [record.position for record, _ in about(search.records(topic)(), origin)]


async def _receipts(settings: Settings, search: _Search, topic: str, places: frozenset[Position]) -> list[Receipt]:
    """Return the receipts that name one of the places; each batch once for each time that it was accepted."""
    records = (await asyncio.to_thread(search.records, topic))()
    registry = None if settings.schema_registry is None else open_registry(settings.schema_registry)
    decoder = Decoder(load_contracts(), clock=SystemClock(), registry=registry)
    found: list[Receipt] = []
    try:
        async for record in _in_chunks(records):
            datum = await _receipt(decoder, record)
            if datum is not None:
                found.extend(Receipt(plain(datum), place) for place in sorted(places) if _names(datum, place))
    finally:
        await decoder.close()
        if registry is not None:
            await registry.close()
    return found


async def _in_chunks(records: Iterator[Record]) -> AsyncIterator[Record]:
    """Yield records that are read by a thread."""
    while chunk := await asyncio.to_thread(lambda: list(islice(records, _CHUNK))):
        for record in chunk:
            yield record


async def _receipt(decoder: Decoder, record: Record) -> Mapping[str, Any] | None:
    """Return a receipt's datum; None for any other record."""
    if record.value is None:
        return None
    for _ in range(2):
        try:
            event = decoder.decode(record)
        except Refusal:
            return None
        except SchemaUnavailable as error:
            try:
                await asyncio.wait_for(decoder.resolve(error.key), _SCHEMA_SECONDS)
            except (ConnectorError, TimeoutError):
                return None
        else:
            return event.datum if event.schema == SCHEMA else None
    return None


def _names(datum: Mapping[str, Any], place: Position) -> bool:
    return any(
        (one["topic"], one["partition"]) == place[:2] and one["first"] <= place.offset <= one["last"]
        for one in datum["positions"]
    )


async def _finished(settings: Settings, position: Position) -> list[Finished]:
    """Return how far the configured group is, and the destinations' own groups that have been there."""
    base, found = settings.kafka.group_id, []
    async with Groups(settings.kafka) as groups:
        for group in (base, *(f"{base}.{name}" for name in settings.destinations)):
            if group != base and not await groups.committed(group):
                continue
            (state,) = await app_offsets.read(settings, group, [position.topic], [position.partition])
            found.append(how_far(group, state, position.offset, await groups.members(group)))
    return found


def how_far(group: str, state: PartitionState, offset: int, members: int) -> Finished:
    """Return what a group's committed offset and its map say of an offset."""
    by = None
    if state.committed is not None:
        by = "committed" if offset < state.committed else "map" if state.finished.whole.contains(offset) else None
    parts: Sequence[str] = () if by else [n for n, runs in state.finished.parts.items() if runs.contains(offset)]
    return Finished(state, group, by, tuple(parts), members)
