"""Where reading starts in a partition that was just assigned: the group's offset, else `kafka.start` as a number."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.aio import AIOConsumer

from connector.records import Assigned, Commit

Partition = tuple[str, int]
Committer = Callable[[Sequence[Commit]], Awaitable[Mapping[Partition, str]]]

_REQUEST_SECONDS: Final = 5.0
# ListOffsets' own numbers in place of a timestamp (KIP-79): the first offset, and the end.
_EARLIEST: Final = -2
_LATEST: Final = -1

_log = structlog.get_logger()


class Starts:
    """Where a member's partitions start; `start` is `kafka.start`, for partitions of which the group has no offset.

    Two are read from their first record whatever it says: those of the topics in `whole`, because what is in the
    connector's own topics was written for this group; and where it says `latest`, those that were made after the
    member's first assignment, because their records came after it, and Kafka may take minutes to tell of them.
    """

    def __init__(self, start: str | int, whole: Collection[str] = ()) -> None:
        self._start = start
        self._whole = whole
        self._there: dict[str, int] | None = None

    async def find(self, consumer: AIOConsumer, partitions: list[TopicPartition], commit: Committer) -> list[Assigned]:
        """Return where each partition starts. Raises `KafkaException` where Kafka does not say.

        A start that time would move (`latest`, a timestamp) is committed at once: else the records that come between
        two assignments, without any progress in the first, would be passed over.
        """
        if self._start == "latest" and self._there is None:
            topics = (await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
            self._there = {name: len(topic.partitions) for name, topic in topics.items()}
        if not partitions:
            return []
        committed = await consumer.committed(partitions, timeout=_REQUEST_SECONDS)
        _raise_for(committed)
        missing = [(c.topic, c.partition) for c in committed if c.offset < 0]
        fresh = await self._resolve(consumer, missing)
        moving = (
            {} if self._start == "earliest" else {one: at for one, at in fresh.items() if one[0] not in self._whole}
        )
        if moving:
            faults = await commit([Commit(*partition, offset, "") for partition, offset in moving.items()])
            if faults:
                said = {f"{topic}[{number}]": text for (topic, number), text in faults.items()}
                _log.warning("kafka.start_not_committed", faults=said)
        return [
            Assigned(c.topic, c.partition, c.offset, c.offset, (c.metadata or "").rstrip("\0"))
            if c.offset >= 0
            else Assigned(c.topic, c.partition, fresh[c.topic, c.partition], None, "")
            for c in committed
        ]

    async def _resolve(self, consumer: AIOConsumer, partitions: list[Partition]) -> dict[Partition, int]:
        whole = [partition for partition in partitions if partition[0] in self._whole or self._is_added(partition)]
        there = [partition for partition in partitions if partition not in whole]
        time = self._start if isinstance(self._start, int) else {"earliest": _EARLIEST, "latest": _LATEST}[self._start]
        starts = await _offsets_at(consumer, there, time) | await _offsets_at(consumer, whole, _EARLIEST)
        # A time after the last record has no offset yet: the end it is.
        beyond = [partition for partition, offset in starts.items() if offset < 0]
        return starts | await _offsets_at(consumer, beyond, _LATEST)

    def _is_added(self, partition: Partition) -> bool:
        topic, number = partition
        return self._there is not None and number >= self._there.get(topic, 0)


async def _offsets_at(consumer: AIOConsumer, partitions: list[Partition], time: int) -> dict[Partition, int]:
    if not partitions:
        return {}
    question = [TopicPartition(*partition, time) for partition in partitions]
    answers = await consumer.offsets_for_times(question, timeout=_REQUEST_SECONDS)
    _raise_for(answers)
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


def _raise_for(answers: list[TopicPartition]) -> None:
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
