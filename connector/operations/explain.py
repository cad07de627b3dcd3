"""Explains one record: everything that Kafka, the registry and today's rules say about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from connector.clock import SystemClock
from connector.config.loader import Loaded, Settings
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.origins import about, dead_letters_about
from connector.dead_letters.reader import DeadLetterEntry, Resolution
from connector.errors import ConnectorError
from connector.kafka.groups import Groups
from connector.kafka.receipts import SCHEMA
from connector.kafka.topic_reader import OffsetSpan, TopicReader
from connector.operations import offsets
from connector.operations.inspect import DeadLetterExaminer, without_hashed
from connector.operations.offsets import PartitionState
from connector.operations.prepare import plain
from connector.records import NO_TIMESTAMP, Position, Record

EARLIER: Final = 3600 * 1000
"""The connector's topics are searched from this many milliseconds before the record's own timestamp."""
_CHUNK: Final = 2000


class RecordNotFound(ConnectorError):
    """The topic, partition or offset does not exist; the message says which."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One group's progress with the record. `by` says why it is finished (`committed` or `map`); None if it is not.

    `destinations` are set if the offset map says that it is finished for these only.
    """

    state: PartitionState
    group: str
    by: str | None
    destinations: tuple[str, ...]
    members: int


@dataclass(frozen=True, slots=True)
class FoundReceipt:
    """A receipt for the record, in JSON's types, and the position it lists: the record's or a replay's."""

    datum: Mapping[str, Any]
    position: Position


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known about a record. `missing` says why Kafka no longer has it; then `record` is None.

    `receipts` is None if none are written. `notes` say what could not be searched.
    """

    position: Position
    record: Record | None
    missing: str | None
    inspection: Inspection | None
    finished: tuple[Finished, ...]
    dead_letters: tuple[DeadLetterEntry, ...]
    resolutions: tuple[Resolution, ...]
    replays: tuple[Position, ...]
    receipts: tuple[FoundReceipt, ...] | None
    origin: ParsedDeadLetter | None
    """For a record of the replay topic: what its headers say about its first origin."""
    notes: tuple[str, ...]


async def explain(loaded: Loaded, position: Position, *, everything: bool = False) -> Explanation:
    """Return all that is known about a record; `everything` searches the connector's topics from their beginning.

    Raises `RecordNotFound`, and `StartupError` if Kafka does not answer.
    """
    settings = loaded.settings
    with TopicReader(settings.kafka) as reader:
        cluster_id, topics = await asyncio.to_thread(reader.topics)
        record, missing = await asyncio.to_thread(_fetch, settings, reader, topics, position)
        facts = parse(record.headers) if record is not None and position.topic == settings.replay_topic else None
        search = _Search(reader, topics, None if everything else _earliest(record))
        origin = position if facts is None else facts.origin
        dead_letters, resolutions = await asyncio.to_thread(_dead_letters, search, settings.dead_letter_topic, origin)
        replays = await asyncio.to_thread(_replays, search, settings.replay_topic, origin)
        receipts = inspection = None
        async with DeadLetterExaminer(loaded, cluster_id) as examiner:
            if settings.receipts.topic is not None:
                records = (await asyncio.to_thread(search.records, settings.receipts.topic))()
                receipts = await _receipts(examiner, records, frozenset((position, *replays)))
            if record is not None:
                inspection = await (
                    examiner.inspect_record(record)
                    if facts is None
                    else examiner.inspect(DeadLetterEntry(record, facts, "open"))
                )
                inspection = without_hashed(inspection, settings, record)
    finished = await _finished(settings, position)
    notes = tuple(f"topic {name} does not exist, so it was not searched" for name in search.absent)
    return Explanation(
        *(position, record, missing, inspection, tuple(finished), tuple(dead_letters), tuple(resolutions)),
        *(tuple(replays), receipts, facts, notes),
    )


def _fetch(
    settings: Settings, reader: TopicReader, topics: Mapping[str, int], position: Position
) -> tuple[Record | None, str | None]:
    """Return the record, or why Kafka no longer has it. Raises `RecordNotFound` if there never was one."""
    topic, partition, offset = position
    if topic not in topics:
        raise RecordNotFound(f"topic {topic} does not exist")
    if partition >= topics[topic]:
        raise RecordNotFound(f"topic {topic} has no partition {partition}; it has partitions 0 to {topics[topic] - 1}")
    first, end = reader.bounds((topic, partition))
    if offset < first:
        return None, f"{topic}[{partition}] begins at offset {first} now; retention has deleted offset {offset}"
    # Only below the end: librdkafka would read an offset beyond it as the partition's first one.
    found = _record_at(reader, position) if offset < end else None
    if found is not None:
        return found, None
    # A reader of all records shows why this one sees no record: not written yet, open, aborted, or none at all.
    with TopicReader(settings.kafka, uncommitted=True) as every:
        _, last = every.bounds((topic, partition))
        if offset >= last:
            raise RecordNotFound(
                f"there is no record at offset {offset} yet: {topic}[{partition}] ends at offset {last}"
            )
        hidden = _record_at(every, position)
    if offset >= end:
        raise RecordNotFound(f"{position} is not visible yet: its transaction, or one before it, is still open")
    if hidden is not None:
        return None, f"the transaction of {position} was aborted, so no consumer ever reads it"
    return None, f"{position} was removed by compaction, or is the marker of a transaction"


def _record_at(reader: TopicReader, position: Position) -> Record | None:
    """Return the record at an offset; None if there is none. The offset must be inside the partition."""
    topic, partition, offset = position
    with closing(reader.records({(topic, partition): OffsetSpan(offset, offset + 1)})) as records:
        record = next(records, None)
    return record if record is not None and record.offset == offset else None


def _earliest(record: Record | None) -> int | None:
    """Return the earliest time at which anything about a record can have been written; None without a timestamp."""
    if record is None or record.timestamp == NO_TIMESTAMP:
        return None
    # The producer's clock may be ahead of ours, by which dead letters are dated.
    return max(0, min(record.timestamp, int(SystemClock().wall() * 1000)) - EARLIER)


class _Search:
    """Reads the connector's own topics from a time on; `absent` names those that do not exist."""

    def __init__(self, reader: TopicReader, topics: Mapping[str, int], time: int | None) -> None:
        self._reader = reader
        self._topics = topics
        self._time = time
        self.absent: list[str] = []

    def records(self, topic: str) -> Callable[[], Iterator[Record]]:
        """Return a function that reads the topic; each call reads the same records."""
        if topic not in self._topics:
            self.absent.append(topic)
        spans = {}
        for number in range(self._topics.get(topic, 0)):
            at = (topic, number)
            first, end = self._reader.bounds(at)
            found = first if self._time is None else self._reader.since(at, self._time)
            if found is not None:
                spans[at] = OffsetSpan(max(first, found), end)
        return lambda: self._reader.records(spans)


def _dead_letters(search: _Search, topic: str, origin: Position) -> tuple[list[DeadLetterEntry], list[Resolution]]:
    return dead_letters_about(search.records(topic)(), origin)


def _replays(search: _Search, topic: str, origin: Position) -> list[Position]:
    return [record.position for record, _ in about(search.records(topic)(), origin)]


async def _receipts(
    examiner: DeadLetterExaminer, records: Iterator[Record], places: frozenset[Position]
) -> tuple[FoundReceipt, ...]:
    """Return the receipts that name one of the positions; a batch that was accepted twice has two."""
    found: list[FoundReceipt] = []
    async for record in _in_chunks(records):
        datum = await _receipt(examiner, record)
        if datum is not None:
            found.extend(FoundReceipt(plain(datum), place) for place in sorted(places) if _names(datum, place))
    return tuple(found)


async def _in_chunks(records: Iterator[Record]) -> AsyncIterator[Record]:
    """Yield records that a thread reads."""
    while chunk := await asyncio.to_thread(lambda: list(islice(records, _CHUNK))):
        for record in chunk:
            yield record


async def _receipt(examiner: DeadLetterExaminer, record: Record) -> Mapping[str, Any] | None:
    """Return a receipt's datum; None if the record is not a receipt."""
    if record.value is None:
        return None
    try:
        event = await examiner.event(record)
    except ConnectorError:
        return None
    return event.datum if event.schema == SCHEMA else None


def _names(datum: Mapping[str, Any], place: Position) -> bool:
    return any(
        (span["topic"], span["partition"]) == place[:2] and span["first"] <= place.offset <= span["last"]
        for span in datum["positions"]
    )


async def _finished(settings: Settings, position: Position) -> list[Finished]:
    """Return the progress of the configured group, and of the destinations' own groups that have committed."""
    base, found = settings.kafka.group_id, []
    async with Groups(settings.kafka) as groups:
        for group in (base, *(f"{base}.{name}" for name in settings.destinations)):
            # A destination that has never run alone has no group of its own.
            if group != base and not await groups.committed(group):
                continue
            (state,) = await offsets.read(settings, group, [position.topic], [position.partition])
            found.append(group_progress(group, state, position.offset, await groups.members(group)))
    return found


def group_progress(group: str, state: PartitionState, offset: int, members: int) -> Finished:
    """Return a group's progress at an offset, by its committed offset and map."""
    by = None
    if state.committed is not None:
        by = "committed" if offset < state.committed else "map" if state.finished.whole.contains(offset) else None
    parts: Sequence[str] = () if by else [n for n, runs in state.finished.parts.items() if runs.contains(offset)]
    return Finished(state, group, by, tuple(parts), members)
