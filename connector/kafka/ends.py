"""Where the assigned partitions end, as fetches tell, and where reading has come to an end.

The last offset of a partition need not be a record: a transaction ends with a marker that no consumer returns. Only
librdkafka's end-of-partition event tells that reading has passed it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.aio import AIOConsumer

Partition = tuple[str, int]

PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - public by librdkafka's convention
_SECONDS: Final = 2.0
_FIRST_SECONDS: Final = 0.2


class Ends:
    """The ends of what one consumer is assigned."""

    def __init__(self) -> None:
        self.known: dict[Partition, int] = {}
        """End offsets; absent where no fetch told one yet."""
        self._reached: dict[Partition, int] = {}
        self._next = 0.0

    def hurry(self) -> None:
        """Look again soon: partitions came."""
        self._next = 0.0

    def reach(self, message: Message) -> None:
        """Take note of an end-of-partition event: every record below its offset was consumed before it."""
        self._reached[message.topic() or "", message.partition() or 0] = message.offset() or 0

    def unread(self, partitions: Iterable[Partition]) -> set[Partition]:
        """Forget what was reached in partitions that changed hands; return those where anything was."""
        return {partition for partition in partitions if self._reached.pop(partition, None) is not None}

    def reached(self) -> dict[Partition, int]:
        """Return the offsets that reading has come to at partitions' ends, each once."""
        reached, self._reached = self._reached, {}
        return reached

    def forget(self, partition: Partition) -> None:
        """Forget a partition that has left."""
        self.known.pop(partition, None)
        self._reached.pop(partition, None)

    def clear(self) -> None:
        """Forget all."""
        self.known.clear()
        self._reached.clear()

    async def read(self, consumer: AIOConsumer, assigned: Collection[Partition], now: float) -> None:
        """Ask the client now and then (`now`: monotonic seconds) what the last fetches told; nothing is fetched."""
        if now < self._next:
            return
        for topic, partition in list(assigned):
            try:
                answer = await consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            except KafkaException:
                continue
            if answer is not None and answer[1] >= 0:
                self.known[topic, partition] = answer[1]
        self._next = now + (_SECONDS if self.known.keys() == set(assigned) else _FIRST_SECONDS)
