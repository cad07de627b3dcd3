"""Follows a topic from its beginning, for as long as one likes, and fetches single records of it by their position."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, construct, consumer_config, error_text
from connector.kafka.topic_reader import record_of
from connector.records import Record

_TIMEOUT: Final = 10.0
_QUEUE_BYTES: Final = 4 << 20
_CHUNK: Final = 500
_LOOK_SECONDS: Final = 60.0
"""How often the topic is asked for partitions that were added."""
_FAR: Final = 2_000
"""A gap between two wanted offsets over which seeking is quicker than reading."""
_PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - public by librdkafka's convention
_log = structlog.get_logger()


class TopicTail:
    """Every record of a topic from its first to its last, and then those that come. It blocks: for a thread of its own.

    Commits nothing and joins no group. Raises `StartupError` where Kafka does not answer or has no such topic.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._consumer = _consumer(settings, "tail")
        self._behind: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._looked = time.monotonic()
        try:
            self.cluster_id = self._look()
        except StartupError:
            self._consumer.close()
            raise

    @property
    def left(self) -> int:
        """How many offsets are still to be read of those that the topic had when it was opened; 0: caught up."""
        return sum(max(0, end - self._next[number]) for number, end in self._behind.items())

    def read(self, timeout: float = 0.5) -> list[Record]:
        """Return what came within `timeout` seconds, perhaps nothing. Trouble that passes is logged and waited for."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                self._look()
            except StartupError as error:
                _log.warning("console.kafka", message=str(error))
        records = []
        try:
            messages = self._consumer.consume(_CHUNK, timeout)
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
        for message in messages:
            fault, number = message.error(), message.partition() or 0
            if fault is not None and fault.code() == _PARTITION_EOF:
                self._behind.pop(number, None)
            elif fault is not None:
                _log.warning("console.kafka", message=error_text(fault))
            else:
                record = record_of(message)
                self._next[number] = record.offset + 1
                records.append(record)
        return records

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def _look(self) -> str:
        """Take partitions that are new, each from its beginning, and return the cluster's id."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=_TIMEOUT)
            new = sorted(found.topics[self._topic].partitions.keys() - self._next.keys())
            if not new and not self._next:
                raise StartupError(f"topic {self._topic} does not exist yet")
            for number in new:
                where = TopicPartition(self._topic, number)
                first, end = self._consumer.get_watermark_offsets(where, timeout=_TIMEOUT)
                self._next[number], self._behind[number] = first, end
            if new:
                self._consumer.incremental_assign([TopicPartition(self._topic, one, self._next[one]) for one in new])
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
        return str(found.cluster_id)


class RecordFetcher:
    """Single records of one topic, by partition and offset. It blocks; calls from several threads take turns."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._lock = Lock()
        self._client: Consumer | None = None

    def fetch(self, places: Sequence[tuple[int, int]]) -> Iterator[Record]:
        """Yield the records at these partitions and offsets, by partition and offset; what Kafka deleted is left out.

        Raises `StartupError` where Kafka does not answer.
        """
        wanted: dict[int, list[int]] = {}
        for number, offset in sorted(set(places)):
            wanted.setdefault(number, []).append(offset)
        with self._lock:
            if self._client is None:
                self._client = _consumer(self._settings, "fetch")
            for number, offsets in wanted.items():
                yield from self._partition(self._client, number, offsets)

    def close(self) -> None:
        """Close the client."""
        with self._lock:
            client, self._client = self._client, None
            if client is not None:
                client.close()

    def _partition(self, client: Consumer, number: int, offsets: list[int]) -> Iterator[Record]:
        """Yield the records at sorted offsets of one partition."""
        first, end = self._bounds(client, number)
        # An offset that the partition has not would be read as its first one, again and again.
        offsets = [offset for offset in offsets if first <= offset < end]
        at = 0
        try:
            while at < len(offsets):
                client.assign([TopicPartition(self._topic, number, offsets[at])])
                here = offsets[at]
                for record in self._from(client, offsets[-1]):
                    here = record.offset
                    while at < len(offsets) and offsets[at] < here:
                        at += 1
                    if at < len(offsets) and offsets[at] == here:
                        at += 1
                        yield record
                    if at == len(offsets) or offsets[at] - here > _FAR:
                        break
                else:
                    return
        finally:
            client.unassign()

    def _bounds(self, client: Consumer, number: int) -> tuple[int, int]:
        """Return the first offset of a partition and its end."""
        try:
            first, end = client.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
        return first, end

    def _from(self, client: Consumer, last: int) -> Iterator[Record]:
        """Yield what stands in the assigned partition, up to an offset or to the end."""
        until = time.monotonic() + _TIMEOUT
        chunk = 1  # a lone record must not wait for others to come with it
        while True:
            try:
                messages, chunk = client.consume(chunk, 0.2), _CHUNK
            except KafkaException as error:
                raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None
            for message in messages:
                fault = message.error()
                if fault is not None and fault.code() == _PARTITION_EOF:
                    return
                if fault is None:
                    until = time.monotonic() + _TIMEOUT
                    record = record_of(message)
                    yield record
                    if record.offset >= last:
                        return
            if time.monotonic() > until:
                raise StartupError(f"topic {self._topic} cannot be read: no answer within {_TIMEOUT:g} s")


def _consumer(settings: KafkaSettings, name: str) -> Consumer:
    config: dict[str, Any] = consumer_config(settings, f"{settings.group_id}.reader", _QUEUE_BYTES) | {
        "enable.partition.eof": True,
        # What retention deletes while it is read is passed over; this reader has nothing to lose.
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
    }
    # It never joins its group, so a member's identity would do nothing but be taken from a running one.
    config.pop("group.instance.id", None)
    consumer: Consumer = construct(Consumer, config, logger=LibrdkafkaLog(name))
    return consumer
