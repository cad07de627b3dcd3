"""The committed offsets and members of consumer groups, read and written without joining them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # it re-exports it without saying so

from connector.config.loader import KafkaSettings
from connector.errors import LongMetadataRefused, StartupError
from connector.kafka.client import (
    Admin,
    LibrdkafkaLog,
    admin_config,
    construct,
    error_text,
    reader_config,
    until_answered,
    until_resolved,
)
from connector.kafka.topics import TopicSelection
from connector.records import Commit, TopicPartition

_log = structlog.get_logger()
_TIMEOUT: Final = 20.0
_ANSWER_SECONDS: Final = 10.0
_QUEUE_BYTES: Final = 1 << 20
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent-kafka gives no types here
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above


class Groups(Admin):
    """The committed offsets of consumer groups, inside `async with`. No method blocks the loop."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        super().__init__(admin_config(settings), "groups")

    async def committed(self, group: str) -> list[Commit]:
        """Return what a group has committed, nothing for a group that Kafka does not know. Raises `StartupError`.

        Read with a consumer that never joins, because the admin client's own call can crash the process (see
        `CommittedOffsets`).
        """
        partitions = await self.partitions()
        found = await asyncio.to_thread(_read_committed, self._settings, group, partitions)
        return [found[partition] for partition in sorted(found)]

    async def commit(self, group: str, commits: Sequence[Commit]) -> None:
        """Set a group's offsets. Raises `StartupError`, for example if the group has members.

        `LongMetadataRefused` if shorter metadata would help; some offsets may be set then.
        """
        partitions = [PartitionOffset(*commit) for commit in commits]
        try:
            result = await until_resolved(
                lambda: asyncio.wrap_future(
                    self.client.alter_consumer_group_offsets(
                        [ConsumerGroupTopicPartitions(group, partitions)], request_timeout=_TIMEOUT
                    )[group]
                )
            )
        except KafkaException as error:
            raise StartupError(f"cannot set the offsets of group {group}: {error_text(error)}") from None
        faults = [
            f"{failed.topic}[{failed.partition}]: {error_text(failed.error)}"
            for failed in result.topic_partitions
            if failed.error
        ]
        if faults:
            codes = {failed.error.code() for failed in result.topic_partitions if failed.error}
            kind = LongMetadataRefused if codes == {KafkaError.OFFSET_METADATA_TOO_LARGE} else StartupError
            raise kind(f"cannot set the offsets of group {group}: {'; '.join(faults)}")

    async def members(self, group: str) -> int:
        """Return how many members a group has now, 0 for a group that Kafka does not know. Raises `StartupError`."""
        try:
            found = await until_resolved(
                lambda: asyncio.wrap_future(
                    self.client.describe_consumer_groups([group], request_timeout=_TIMEOUT)[group]
                )
            )
            return len(found.members)
        except KafkaException as error:
            # librdkafka's in-process broker, which the demo uses, cannot describe a group. Every Kafka broker can.
            if error.args[0].code() == KafkaError._UNSUPPORTED_FEATURE:  # noqa: SLF001 -- it has no other name
                return 0
            raise StartupError(f"cannot read the members of group {group}: {error_text(error)}") from None

    async def partitions(self) -> set[TopicPartition]:
        """Return every partition of the cluster that has a leader. Raises `StartupError`."""
        try:
            found = await self.topics(_TIMEOUT)
        except KafkaException as error:
            raise StartupError(f"cannot list the topics: {error_text(error)}") from None
        return {
            (name, number)
            for name, topic in found.topics.items()
            for number, partition in topic.partitions.items()
            # Without a leader a partition's beginning and end are unknown.
            if partition.leader >= 0
        }

    async def bounds(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first offset and the end of each partition, as seen by a reader of committed records.

        The partitions must exist. Raises `StartupError`.
        """
        wanted = list(partitions)
        first, end = await asyncio.gather(self._offsets(wanted, _EARLIEST), self._offsets(wanted, _LATEST))
        return {partition: (first[partition], end[partition]) for partition in wanted}

    async def offsets_at(self, partitions: Iterable[TopicPartition], time: int) -> dict[TopicPartition, int]:
        """Return the offset of the first record at or after `time` (epoch milliseconds); -1 if there is none yet.

        The partitions must exist. Raises `StartupError`.
        """
        return await self._offsets(list(partitions), OffsetSpec.for_timestamp(time))

    async def _offsets(self, partitions: list[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        question = {PartitionOffset(*partition): spec for partition in partitions}

        async def ask() -> dict[TopicPartition, int]:
            # The same view as the consumer's: records of an open transaction are not backlog yet.
            futures = self.client.list_offsets(
                question, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT
            )
            return {
                (asked.topic, asked.partition): int((await asyncio.wrap_future(future)).offset)
                for asked, future in futures.items()
            }

        try:
            return await until_resolved(ask)
        except KafkaException as error:
            raise StartupError(f"cannot read the offsets of the topics: {error_text(error)}") from None


def _read_committed(
    settings: KafkaSettings, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Commit]:
    offsets = CommittedOffsets(settings, group)
    try:
        return offsets.committed(partitions)
    finally:
        offsets.close()


class CommittedOffsets:
    """One group's committed offsets and its topics' bounds, read by a client that never joins the group. Blocks.

    librdkafka's admin client has a call for this, but it crashes the process with SIGSEGV if the group's coordinator is
    not ready or has moved (measured on 2.16: `rd_kafka_cgrp_op` of a client without a group). Every method raises
    `StartupError`.
    """

    def __init__(self, settings: KafkaSettings, group: str) -> None:
        config = reader_config(settings, group, _QUEUE_BYTES)
        self._consumer = construct(Consumer, config, logger=LibrdkafkaLog("offsets"))

    def partitions(self, selection: TopicSelection, more: Iterable[str] = ()) -> list[TopicPartition]:
        """Return every partition of the selected topics, and of `more`, that exists."""
        try:
            topics = until_answered(lambda: self._consumer.list_topics(timeout=_ANSWER_SECONDS)).topics
        except KafkaException as error:
            raise StartupError(f"cannot list the topics: {error_text(error)}") from None
        names = {*selection.names, *selection.matching(topics), *more}
        return sorted((name, number) for name in names if name in topics for number in topics[name].partitions)

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Commit]:
        """Return what is committed of these partitions; those without an offset are left out."""
        asked = [PartitionOffset(*partition) for partition in partitions]
        if not asked:
            return {}
        try:
            found = until_answered(lambda: self._consumer.committed(asked, timeout=_ANSWER_SECONDS))
        except KafkaException as error:
            raise StartupError(f"cannot read the group's offsets: {error_text(error)}") from None
        return {
            (each.topic, each.partition): Commit(
                each.topic, each.partition, each.offset, (each.metadata or "").rstrip("\x00")
            )
            for each in found
            # Kafka answers -1001 for a partition in which the group has committed nothing.
            if each.offset >= 0 and each.error is None
        }

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the first offset of a partition that exists, and its end."""
        try:
            where = PartitionOffset(*partition)
            first, end = until_answered(lambda: self._consumer.get_watermark_offsets(where, timeout=_ANSWER_SECONDS))
        except KafkaException as error:
            raise StartupError(f"cannot read the offsets of the topics: {error_text(error)}") from None
        return first, end

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()
