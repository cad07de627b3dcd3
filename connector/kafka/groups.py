"""What a consumer group has committed, read and written from outside the group (Kafka's admin interface)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.config import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LibrdkafkaLog, admin_config, construct, error_text
from connector.records import Commit

_log = structlog.get_logger()
_TIMEOUT: Final = 20.0


class Groups:
    """The committed offsets of consumer groups. Every method may take as long as Kafka does; none blocks the loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._admin = construct(AdminClient, admin_config(settings), logger=LibrdkafkaLog("groups"))

    async def committed(self, group: str) -> list[Commit]:
        """Return what a group has committed, empty for one that Kafka does not know. Raises `StartupError`."""
        wanted = [ConsumerGroupTopicPartitions(group)]
        try:
            futures = self._admin.list_consumer_group_offsets(wanted, request_timeout=_TIMEOUT)
            result = await asyncio.wrap_future(futures[group])
        except KafkaException as error:
            raise StartupError(f"the offsets of group {group} cannot be read: {error_text(error)}") from None
        return [
            Commit(one.topic, one.partition, one.offset, (one.metadata or "").rstrip("\x00"))
            for one in result.topic_partitions
            if one.offset >= 0 and one.error is None
        ]

    async def commit(self, group: str, commits: Sequence[Commit]) -> None:
        """Set a group's offsets. Raises `StartupError`, also where the group has members."""
        partitions = [TopicPartition(one.topic, one.partition, one.offset, one.metadata) for one in commits]
        try:
            futures = self._admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, partitions)], request_timeout=_TIMEOUT
            )
            result = await asyncio.wrap_future(futures[group])
        except KafkaException as error:
            raise StartupError(f"the offsets of group {group} cannot be set: {error_text(error)}") from None
        faults = [
            f"{one.topic}[{one.partition}]: {error_text(one.error)}" for one in result.topic_partitions if one.error
        ]
        if faults:
            raise StartupError(f"the offsets of group {group} cannot be set: {'; '.join(faults)}")
