"""Reads a topic from its beginning to the end it has now, as often as one likes, and commits nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, construct, consumer_config, error_text
from connector.records import NO_TIMESTAMP, Record

_TIMEOUT: Final = 20.0
_QUEUE_BYTES: Final = 4 << 20
_CHUNK: Final = 500
_WAIT: Final = 0.1
_PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - public by librdkafka's convention

Progress = Callable[[int, int], None]


class TopicReader:
    """The records of one topic; a context manager. It blocks: for commands, never for a running pipeline.

    Opening it notes where each partition begins and ends, and every reading stops there. Raises `StartupError` where
    Kafka does not answer or the topic does not exist.
    """

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._topic = topic
        config = consumer_config(settings, f"{settings.group_id}.reader", _QUEUE_BYTES) | {
            # What retention deletes while it is read is passed over; this reader has nothing to lose.
            "auto.offset.reset": "earliest",
        }
        # It never joins its group, so a member's identity would do nothing but be taken from a running one.
        config.pop("group.instance.id", None)
        self._consumer = construct(Consumer, config, logger=LibrdkafkaLog("reader"))
        try:
            found = self._consumer.list_topics(topic, timeout=_TIMEOUT)
            self.cluster_id = str(found.cluster_id)
            self._ranges = {number: self._bounds(number) for number in found.topics[topic].partitions}
        except KafkaException as error:
            self._consumer.close()
            raise StartupError(f"topic {topic} cannot be read: {error_text(error)}") from None
        if not self._ranges:
            self._consumer.close()
            raise StartupError(f"topic {topic} does not exist")

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    @property
    def total(self) -> int:
        """How many offsets there are to read; gaps of transactions and compaction count."""
        return sum(end - first for first, end in self._ranges.values())

    def records(self, progress: Progress = lambda _done, _total: None) -> Iterator[Record]:
        """Yield every record, each partition in its order; `progress` is told offsets done and all, now and then."""
        left = {number: end for number, (first, end) in self._ranges.items() if end > first}
        done, total = 0, self.total
        self._consumer.assign([TopicPartition(self._topic, number, self._ranges[number][0]) for number in left])
        try:
            while left:
                for message in self._consume():
                    error, number = message.error(), message.partition() or 0
                    if error is not None:
                        if error.code() != _PARTITION_EOF:
                            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}")
                        left.pop(number, None)
                        continue
                    record = record_of(message)
                    if record.offset < left.get(number, 0):
                        done += 1
                        yield record
                    if record.offset + 1 >= left.get(number, 0):
                        left.pop(number, None)
                progress(done, total)
        finally:
            self._consumer.unassign()

    def _consume(self) -> list[Message]:
        try:
            return self._consumer.consume(_CHUNK, _WAIT)
        except KafkaException as error:
            raise StartupError(f"topic {self._topic} cannot be read: {error_text(error)}") from None

    def _bounds(self, number: int) -> tuple[int, int]:
        first, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_TIMEOUT)
        return first, end


def record_of(message: Message) -> Record:
    """Return a message of a consumer as a record."""
    kind, timestamp = message.timestamp()
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        timestamp if kind != TIMESTAMP_NOT_AVAILABLE else NO_TIMESTAMP,
        message.key(),
        message.value(),
        message.headers() or (),  # type: ignore[arg-type]  # a list of pairs when it is read
    )
