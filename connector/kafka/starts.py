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


async def find_starts(
    consumer: AIOConsumer,
    partitions: list[TopicPartition],
    start: str | int,
    commit: Committer,
    whole: Collection[str] = (),
) -> list[Assigned]:
    """Return where each partition starts. Raises `KafkaException` where Kafka does not say.

    Topics of `whole` are read from their first record where the group has no offset, whatever `start` says: what is in
    the connector's own topics was written for this group.

    A start that time would move (`latest`, a timestamp) is committed at once: else the records that come between two
    assignments, without any progress in the first, would be passed over.
    """
    if not partitions:
        return []
    committed = await consumer.committed(partitions, timeout=_REQUEST_SECONDS)
    _raise_for(committed)
    missing = [(c.topic, c.partition) for c in committed if c.offset < 0 and c.topic not in whole]
    fresh = await _resolve(consumer, missing, start) if missing else {}
    first = [(c.topic, c.partition) for c in committed if c.offset < 0 and c.topic in whole]
    if fresh and start != "earliest":
        faults = await commit([Commit(*partition, offset, "") for partition, offset in fresh.items()])
        if faults:
            _log.warning("kafka.start_not_committed", faults={f"{t}[{p}]": text for (t, p), text in faults.items()})
    if first:
        fresh |= await _offsets_at(consumer, first, _EARLIEST)
    return [
        Assigned(c.topic, c.partition, c.offset, c.offset, (c.metadata or "").rstrip("\0"))
        if c.offset >= 0
        else Assigned(c.topic, c.partition, fresh[c.topic, c.partition], None, "")
        for c in committed
    ]


async def _resolve(consumer: AIOConsumer, partitions: list[Partition], start: str | int) -> dict[Partition, int]:
    time = start if isinstance(start, int) else {"earliest": _EARLIEST, "latest": _LATEST}[start]
    starts = await _offsets_at(consumer, partitions, time)
    # A time after the last record has no offset yet: the end it is.
    beyond = [partition for partition, offset in starts.items() if offset < 0]
    return starts | (await _offsets_at(consumer, beyond, _LATEST) if beyond else {})


async def _offsets_at(consumer: AIOConsumer, partitions: list[Partition], time: int) -> dict[Partition, int]:
    question = [TopicPartition(*partition, time) for partition in partitions]
    answers = await consumer.offsets_for_times(question, timeout=_REQUEST_SECONDS)
    _raise_for(answers)
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


def _raise_for(answers: list[TopicPartition]) -> None:
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
