"""What a group has committed, asked by a client that never joins it.

librdkafka's admin client asks for the same with one call, but ends the process with SIGSEGV where the group's
coordinator is not ready or has moved (measured on 2.16; `rd_kafka_cgrp_op` of a client without a group).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, construct, consumer_config, error_text
from connector.kafka.subscription import TopicSelection
from connector.records import Commit

_TIMEOUT: Final = 10.0
_QUEUE_BYTES: Final = 1 << 20

Partition = tuple[str, int]


class CommittedOffsets:
    """One group's offsets beside what its topics hold. It blocks; every method raises `StartupError`."""

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        config = consumer_config(settings, group, _QUEUE_BYTES)
        # It never joins its group, so a member's identity would do nothing but be taken from a running one.
        config.pop("group.instance.id", None)
        self._consumer = construct(Consumer, config, logger=LibrdkafkaLog("offsets"))

    def partitions(self, selection: TopicSelection, more: Iterable[str] = ()) -> list[Partition]:
        """Return every partition of the selected topics, and of `more`, that exists."""
        try:
            topics = self._consumer.list_topics(timeout=_TIMEOUT).topics
        except KafkaException as error:
            raise StartupError(f"Kafka does not tell its topics: {error_text(error)}") from None
        names = {*selection.names, *selection.matching(topics), *more}
        return sorted((name, number) for name in names if name in topics for number in topics[name].partitions)

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Commit]:
        """Return what is committed of these partitions; those without an offset are left out."""
        asked = [TopicPartition(*one) for one in partitions]
        if not asked:
            return {}
        try:
            found = self._consumer.committed(asked, timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"the group's offsets cannot be read: {error_text(error)}") from None
        return {
            (one.topic, one.partition): Commit(
                one.topic, one.partition, one.offset, (one.metadata or "").rstrip("\x00")
            )
            for one in found
            if one.offset >= 0 and one.error is None
        }

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of a partition that exists, and its end."""
        try:
            first, end = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"Kafka does not tell the offsets of its topics: {error_text(error)}") from None
        return first, end

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()
