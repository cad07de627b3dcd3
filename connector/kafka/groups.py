"""What a consumer group has committed, read and written from outside the group (Kafka's admin interface)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # it re-exports it without saying so

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.admin import Admin
from connector.kafka.client import admin_config, error_text
from connector.kafka.committed import CommittedOffsets
from connector.records import Commit

_log = structlog.get_logger()
_TIMEOUT: Final = 20.0
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent-kafka gives no types here
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above

Partition = tuple[str, int]


class Groups(Admin):
    """The committed offsets of consumer groups, asked for inside of `async with`.

    Every method may take as long as Kafka does; none blocks the loop.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        super().__init__(admin_config(settings), "groups")

    async def committed(self, group: str) -> list[Commit]:
        """Return what a group has committed, empty for one that Kafka does not know. Raises `StartupError`.

        Asked by a consumer that never joins: the admin client's own call can end the process (see `committed`).
        """
        partitions = await self.partitions()
        found = await asyncio.to_thread(_committed, self._settings, group, partitions)
        return [found[one] for one in sorted(found)]

    async def commit(self, group: str, commits: Sequence[Commit]) -> None:
        """Set a group's offsets. Raises `StartupError`, also where the group has members."""
        partitions = [TopicPartition(one.topic, one.partition, one.offset, one.metadata) for one in commits]
        try:
            futures = self.client.alter_consumer_group_offsets(
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

    async def members(self, group: str) -> int:
        """Return how many members a group has now, 0 for one that Kafka does not know. Raises `StartupError`."""
        try:
            futures = self.client.describe_consumer_groups([group], request_timeout=_TIMEOUT)
            return len((await asyncio.wrap_future(futures[group])).members)
        except KafkaException as error:
            raise StartupError(f"the members of group {group} cannot be read: {error_text(error)}") from None

    async def partitions(self) -> set[Partition]:
        """Return every partition of the cluster that has a leader to ask. Raises `StartupError`."""
        try:
            found = await self.topics(_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"Kafka does not tell its topics: {error_text(error)}") from None
        return {
            (name, number)
            for name, topic in found.topics.items()
            for number, partition in topic.partitions.items()
            if partition.leader >= 0
        }

    async def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """Return the first offset and the end of each partition, as a reader of committed records sees them.

        The partitions have to exist. Raises `StartupError`.
        """
        wanted = list(partitions)
        first, end = await asyncio.gather(self._offsets(wanted, _EARLIEST), self._offsets(wanted, _LATEST))
        return {one: (first[one], end[one]) for one in wanted}

    async def offsets_at(self, partitions: Iterable[Partition], time: int) -> dict[Partition, int]:
        """Return the offset of the first record at or after `time` (epoch milliseconds); -1 where there is none yet.

        The partitions have to exist. Raises `StartupError`.
        """
        return await self._offsets(list(partitions), OffsetSpec.for_timestamp(time))

    async def _offsets(self, partitions: list[Partition], spec: Any) -> dict[Partition, int]:
        if not partitions:
            return {}
        question = {TopicPartition(*one): spec for one in partitions}
        try:
            futures = self.client.list_offsets(
                question, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT
            )
            return {
                (one.topic, one.partition): int((await asyncio.wrap_future(future)).offset)
                for one, future in futures.items()
            }
        except KafkaException as error:
            raise StartupError(f"Kafka does not tell the offsets of its topics: {error_text(error)}") from None


def _committed(settings: KafkaSettings, group: str, partitions: Iterable[Partition]) -> dict[Partition, Commit]:
    offsets = CommittedOffsets(settings, group)
    try:
        return offsets.committed(partitions)
    finally:
        offsets.close()
