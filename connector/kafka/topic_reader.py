"""Reads topics from outside any group: ranges of offsets, whole topics, single records, or a topic as it grows.

Nothing here joins a group or commits. Everything blocks, so use it in commands and threads, never in the event loop of
a running pipeline.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog
from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as PartitionOffset

from connector.config.loader import KafkaSettings
from connector.errors import StartupError, TopicRecreated
from connector.kafka.client import (
    PARTITION_EOF,
    LibrdkafkaLog,
    construct,
    error_text,
    reader_config,
    record_of,
    until_answered,
)
from connector.records import Position, Record, TopicPartition

_TIMEOUT: Final = 10.0
_WAIT: Final = 0.5
_SILENCE: Final = 20.0
_QUEUE_BYTES: Final = 4 << 20
_MOST_MESSAGES: Final = 500
_LOOK_SECONDS: Final = 60.0
"""How often a followed topic is checked for new partitions."""
_FAR: Final = 2_000
"""A gap between two wanted offsets over which seeking is quicker than reading."""
_log = structlog.get_logger()

Progress = Callable[[int, int], None]
"""Called now and then with how many offsets are read and how many there are."""


class OffsetSpan(NamedTuple):
    """Offsets of one partition, from `first` up to but excluding `end`; at most `most` records of them."""

    first: int
    end: int
    most: int | None = None


class TopicReader:
    """Reads records by their offsets; a context manager. Every method raises `StartupError` if Kafka does not answer.

    With `uncommitted` it also sees records of transactions that are open or were aborted.
    """

    def __init__(self, settings: KafkaSettings, *, uncommitted: bool = False) -> None:
        self._servers = settings.client.get("bootstrap.servers")
        self._consumer = _consumer(settings, "reader", uncommitted=uncommitted)
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the client, after a running `at` has ended."""
        with self._lock:
            self._closed = True
            self._consumer.close()

    def topics(self) -> tuple[str, dict[str, int]]:
        """Return the cluster's id, and the number of partitions of each topic."""
        try:
            found = until_answered(lambda: self._consumer.list_topics(timeout=_TIMEOUT))
        except KafkaException as error:
            raise StartupError(f"no Kafka broker at {self._servers} answers: {error_text(error)}") from None
        return str(found.cluster_id), {name: len(topic.partitions) for name, topic in found.topics.items()}

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the first offset and the end of a partition that exists."""
        try:
            where = PartitionOffset(*partition)
            first, end = until_answered(lambda: self._consumer.get_watermark_offsets(where, timeout=_TIMEOUT))
        except KafkaException as error:
            raise StartupError(f"cannot read the offsets of {_name(partition)}: {error_text(error)}") from None
        return first, end

    def since(self, partition: TopicPartition, millis: int) -> int | None:
        """Return the offset of the first record at or after `millis` (epoch milliseconds), None if there is none."""
        try:
            where = [PartitionOffset(*partition, millis)]
            (found,) = until_answered(lambda: self._consumer.offsets_for_times(where, timeout=_TIMEOUT))
        except KafkaException as error:
            raise StartupError(f"cannot read the offsets of {_name(partition)}: {error_text(error)}") from None
        return found.offset if found.offset >= 0 else None

    def whole(self, topic: str) -> WholeTopic:
        """Return the topic's current range, from first to last record. Raises `StartupError` if it does not exist."""
        try:
            found = until_answered(lambda: self._consumer.list_topics(topic, timeout=_TIMEOUT))
        except KafkaException as error:
            raise StartupError(f"topic {topic} cannot be read: {error_text(error)}") from None
        numbers = found.topics[topic].partitions
        if not numbers:
            raise StartupError(f"topic {topic} does not exist")
        spans = {(topic, number): OffsetSpan(*self.bounds((topic, number))) for number in numbers}
        return WholeTopic(self, str(found.cluster_id), spans)

    def records(
        self, spans: Mapping[TopicPartition, OffsetSpan], progress: Progress = lambda _done, _total: None
    ) -> Generator[Record, None, None]:
        """Yield the records of the spans, each partition's in offset order; offsets without a record are skipped."""
        left = {partition: span for partition, span in spans.items() if span.end > span.first and span.most != 0}
        taken = dict.fromkeys(left, 0)
        done, total = 0, sum(span.end - span.first for span in left.values())
        starts = [PartitionOffset(*partition, span.first) for partition, span in left.items()]
        # Assign instead of subscribe: a subscription would join a group and cause a rebalance.
        self._consumer.assign(starts)
        # In librdkafka a pause outlives a new assignment.
        self._consumer.resume(starts)
        until = time.monotonic() + _SILENCE
        try:
            while left:
                messages = _consume(self._consumer)
                if messages:
                    until = time.monotonic() + _SILENCE
                elif time.monotonic() > until:
                    raise StartupError(f"{_name(next(iter(left)))} cannot be read: no answer within {_SILENCE:g} s")
                for message in messages:
                    partition = (message.topic() or "", message.partition() or 0)
                    span, error = left.get(partition), message.error()
                    if error is not None and error.code() != PARTITION_EOF:
                        raise StartupError(f"{_name(partition)} cannot be read: {error_text(error)}")
                    if span is None:
                        continue
                    if error is None:
                        record = record_of(message)
                        if record.offset < span.end:
                            done += 1
                            taken[partition] += 1
                            yield record
                        # Otherwise this partition is done. Compaction may have removed the last
                        # offset of a span, so the end-of-partition event ends it as well.
                        if record.offset + 1 < span.end and taken[partition] != span.most:
                            continue
                    del left[partition]
                    self._consumer.pause([PartitionOffset(*partition)])
                progress(done, total)
        finally:
            # A reading that is broken off, for example by a full disk, may end only after the client was closed.
            if not self._closed:
                self._consumer.unassign()

    def at(self, topic: str, places: Sequence[tuple[int, int]]) -> Iterator[Record]:
        """Yield the records at these partitions and offsets of a topic, in that order; deleted ones are left out.

        Safe to call from several threads: they take turns.
        """
        wanted: dict[int, list[int]] = {}
        for number, offset in sorted(set(places)):
            wanted.setdefault(number, []).append(offset)
        with self._lock:
            for number, offsets in wanted.items():
                first, end = self.bounds((topic, number))
                # librdkafka would read an offset outside of the partition as the first one, again and again.
                there = [offset for offset in offsets if first <= offset < end]
                asked = frozenset(there)
                # Wanted offsets that are close together are read as one span, because each assignment costs a fetch.
                for span in _near(there):
                    for record in self.records({(topic, number): span}):
                        if record.offset in asked:
                            yield record


def read_positions(settings: KafkaSettings, positions: Sequence[Position], stop: threading.Event) -> list[Record]:
    """Return the records at these positions, each partition's in order; one that is deleted is left out.

    Raises `StartupError` where Kafka does not answer, or `stop` is set meanwhile.
    """
    wanted = frozenset(positions)
    offsets: defaultdict[TopicPartition, list[int]] = defaultdict(list)
    for topic, partition, offset in wanted:
        offsets[topic, partition].append(offset)
    spans = {partition: OffsetSpan(min(found), max(found) + 1) for partition, found in offsets.items()}

    def check(_done: int, _total: int) -> None:
        if stop.is_set():
            raise StartupError("the records are not read again, because the member stops")

    with TopicReader(settings) as reader:
        return [record for record in reader.records(spans, check) if record.position in wanted]


class WholeTopic(NamedTuple):
    """A topic from its first to its last record at one moment. It may be read any number of times."""

    reader: TopicReader
    cluster_id: str
    spans: Mapping[TopicPartition, OffsetSpan]

    @property
    def total(self) -> int:
        """How many offsets there are to read, including gaps of transactions and compaction."""
        return sum(span.end - span.first for span in self.spans.values())

    def records(self, progress: Progress = lambda _done, _total: None) -> Iterator[Record]:
        """Yield every record, each partition's in offset order."""
        return self.reader.records(self.spans, progress)


class TopicTail:
    """Follows a topic: every existing record, and then every new one. For a thread of its own.

    `latest`: only new records. Raises `StartupError` if Kafka does not answer or has no such topic.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, latest: bool = False) -> None:
        self._topic = topic
        self._latest = latest
        self._consumer = _consumer(settings, "tail")
        self._behind: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self.beginnings: dict[int, int] = {}
        """The first offset of each partition at the last check. Kafka has deleted everything before it."""
        self._looked = time.monotonic()
        try:
            self.cluster_id = self._look()
        except StartupError:
            self._consumer.close()
            raise

    @property
    def left(self) -> int:
        """How many of the offsets that existed when it was opened are still to be read; 0: caught up."""
        return sum(max(0, end - self._next[number]) for number, end in self._behind.items())

    def read(self, timeout: float = 0.5) -> list[Record]:
        """Return the records that arrive within `timeout` seconds. Transient errors are logged, and reading continues.

        Raises `TopicRecreated` if records that were read before are no longer in the topic.
        """
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._look()
            except TopicRecreated:
                raise
            except StartupError as error:
                _log.warning("console.kafka", message=str(error))
        records = []
        try:
            messages = self._consumer.consume(_MOST_MESSAGES, timeout)
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
        for message in messages:
            fault, number = message.error(), message.partition() or 0
            if fault is not None and fault.code() == PARTITION_EOF:
                self._behind.pop(number, None)
            elif fault is not None:
                _log.warning("console.kafka", message=error_text(fault))
                # The partition may be gone. The next check tells.
                self._looked = min(self._looked, time.monotonic() - _LOOK_SECONDS + 1)
            else:
                record = record_of(message)
                # Offsets of a partition never go back, so this is a different topic with the same name.
                if record.offset < self._next[number]:
                    raise self._recreated()
                self._next[number] = record.offset + 1
                records.append(record)
        return records

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def _recreated(self) -> TopicRecreated:
        return TopicRecreated(f"topic {self._topic} was recreated: records that were read are no longer in it")

    def _look(self) -> str:
        """Add new partitions, note where each partition begins now, and return the cluster's id."""
        try:
            found = until_answered(lambda: self._consumer.list_topics(self._topic, timeout=_TIMEOUT))
            numbers = sorted(found.topics[self._topic].partitions)
            new = [number for number in numbers if number not in self._next]
            # A partition that was added later has only new records.
            skip = self._latest and not self._next
            if not new and not self._next:
                raise StartupError(f"topic {self._topic} does not exist yet")
            if not self._next.keys() <= set(numbers):
                raise self._recreated()
            for number in numbers:
                partition = PartitionOffset(self._topic, number)
                ask = partial(self._consumer.get_watermark_offsets, partition, timeout=_TIMEOUT)
                first, end = until_answered(ask)
                self.beginnings[number] = first
                if end < self._next.get(number, 0):
                    raise self._recreated()
                if number in new:
                    self._next[number], self._behind[number] = end if skip else first, end
            if new:
                starts = [PartitionOffset(self._topic, number, self._next[number]) for number in new]
                self._consumer.incremental_assign(starts)
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
        return str(found.cluster_id)


def _near(offsets: Sequence[int]) -> Iterator[OffsetSpan]:
    """Yield spans that cover ascending offsets, split at gaps that are quicker to seek over than to read."""
    first = last = None
    for offset in offsets:
        if first is None or last is None or offset - last > _FAR:
            if first is not None and last is not None:
                yield OffsetSpan(first, last + 1)
            first = offset
        last = offset
    if first is not None and last is not None:
        yield OffsetSpan(first, last + 1)


def _consume(consumer: Consumer) -> list[Message]:
    """Wait for the first message only, then return what has arrived: waiting for more would keep a lone record back."""
    try:
        messages = consumer.consume(1, _WAIT)
        return messages + consumer.consume(_MOST_MESSAGES, 0) if messages else messages
    except KafkaException as error:
        raise StartupError(f"the records cannot be read: {error_text(error)}") from None


def _name(partition: TopicPartition) -> str:
    return f"{partition[0]}[{partition[1]}]"


def _consumer(settings: KafkaSettings, name: str, *, uncommitted: bool = False) -> Consumer:
    config: dict[str, Any] = reader_config(settings, f"{settings.group_id}.reader", _QUEUE_BYTES) | {
        # Records that retention deletes meanwhile are passed over; this reader has nothing to lose.
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
    }
    if uncommitted:
        config["isolation.level"] = "read_uncommitted"
    consumer: Consumer = construct(Consumer, config, logger=LibrdkafkaLog(name))
    return consumer
