"""Reads chosen offsets of any topics, once, and commits nothing: single records, and samples of a live topic."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, construct, consumer_config, error_text
from connector.kafka.topic_reader import record_of
from connector.records import Record

_TIMEOUT: Final = 10.0
_QUEUE_BYTES: Final = 4 << 20
_CHUNK: Final = 500
_PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - public by librdkafka's convention

Partition = tuple[str, int]


class Span(NamedTuple):
    """Offsets of one partition, from `first` up to `end`, which is not one of them; at most `most` records."""

    first: int
    end: int
    most: int | None = None


class OffsetReader:
    """Reads records by their offsets; a context manager. It blocks: for commands, never for a running pipeline.

    With `uncommitted` it sees records of transactions that are open or were aborted too. Every method raises
    `StartupError` where Kafka does not answer.
    """

    def __init__(self, settings: KafkaSettings, *, uncommitted: bool = False) -> None:
        self._servers = settings.client.get("bootstrap.servers")
        config = consumer_config(settings, f"{settings.group_id}.reader", _QUEUE_BYTES) | {
            "enable.partition.eof": True,
            # What retention deletes while it is read is passed over; this reader has nothing to lose.
            "auto.offset.reset": "earliest",
        }
        if uncommitted:
            config["isolation.level"] = "read_uncommitted"
        # It never joins its group, so a member's identity would do nothing but be taken from a running one.
        config.pop("group.instance.id", None)
        self._consumer = construct(Consumer, config, logger=LibrdkafkaLog("reader"))

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self._consumer.close()

    def topics(self) -> tuple[str, dict[str, int]]:
        """Return the cluster's id, and how many partitions each topic has."""
        try:
            found = self._consumer.list_topics(timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"no Kafka broker at {self._servers} answers: {error_text(error)}") from None
        return str(found.cluster_id), {name: len(topic.partitions) for name, topic in found.topics.items()}

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of a partition that exists, and its end."""
        try:
            first, end = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"{_name(partition)} does not tell its offsets: {error_text(error)}") from None
        return first, end

    def since(self, partition: Partition, time: int) -> int | None:
        """Return the offset of a partition's first record at or after `time` (epoch milliseconds), None without one."""
        try:
            (found,) = self._consumer.offsets_for_times([TopicPartition(*partition, time)], timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"{_name(partition)} does not tell its offsets: {error_text(error)}") from None
        return found.offset if found.offset >= 0 else None

    def records(self, spans: Mapping[Partition, Span]) -> Generator[Record, None, None]:
        """Yield the records of the spans, each partition's in its order; offsets that hold none are passed over."""
        left = {at: span for at, span in spans.items() if span.end > span.first and span.most != 0}
        taken = dict.fromkeys(left, 0)
        places = [TopicPartition(*at, span.first) for at, span in left.items()]
        self._consumer.assign(places)
        # A pause survives a new assignment in librdkafka.
        self._consumer.resume(places)
        try:
            while left:
                for message in self._consume():
                    at = (message.topic() or "", message.partition() or 0)
                    span, error = left.get(at), message.error()
                    if error is not None and error.code() != _PARTITION_EOF:
                        raise StartupError(f"{_name(at)} cannot be read: {error_text(error)}")
                    if span is None:
                        continue
                    if error is None:
                        record = record_of(message)
                        if record.offset < span.end:
                            taken[at] += 1
                            yield record
                        if record.offset + 1 < span.end and taken[at] != span.most:
                            continue
                    del left[at]
                    self._consumer.pause([TopicPartition(*at)])
        finally:
            self._consumer.unassign()

    def _consume(self) -> list[Message]:
        try:
            return self._consumer.consume(_CHUNK, 0.5)
        except KafkaException as error:
            raise StartupError(f"the records cannot be read: {error_text(error)}") from None


def _name(partition: Partition) -> str:
    return f"{partition[0]}[{partition[1]}]"
