"""Where reading starts in a newly assigned partition (the group's offset, else `kafka.start`), and where its end is.

The last offset of a partition is not always a record: a transaction ends with a marker that no consumer returns. Only
librdkafka's end-of-partition event shows that reading has passed the marker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog
from confluent_kafka import KafkaException, Message
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.aio import AIOConsumer

from connector.records import Assigned, Commit, TopicPartition

Kin = Callable[[str, Iterable[str]], set[str]]
Committer = Callable[[Sequence[Commit]], Awaitable[Mapping[TopicPartition, str]]]

_LOOK_SECONDS: Final = 2.0
_FIRST_LOOK_SECONDS: Final = 0.2
_REQUEST_SECONDS: Final = 5.0
# ListOffsets' own numbers in place of a timestamp (KIP-79): the first offset, and the end.
_EARLIEST: Final = -2
_LATEST: Final = -1

_log = structlog.get_logger()


class Starts:
    """Where a member's partitions start; `start` is `kafka.start`, for partitions in which the group has no offset.

    Two kinds are always read from their first record. First, topics in `whole`: the connector's own topics are written
    for this group. Second, with `latest`, partitions that are newer than the group. Their records came while the group
    was at work, and Kafka may take minutes to announce a partition, so starting at its end would lose them. A partition
    without an offset counts as newer if the group has committed any offset in its topic, or in a topic that the same
    pattern matches (`kin` returns those), or if its topic appeared after the member's first assignment.

    In a new group, `latest` must not make members mistake each other's partitions for added ones and read those from
    their beginning. So the first member that resolves `latest` in a topic commits the ends of all partitions of the
    topic and its kin, including those of other members.
    """

    def __init__(self, start: str | int, whole: Collection[str] = (), kin: Kin = lambda _topic, _topics: set()) -> None:
        self._start = start
        self._whole = whole
        self._kin = kin
        self._first_topics: frozenset[str] | None = None

    async def find(self, consumer: AIOConsumer, partitions: list[PartitionOffset], commit: Committer) -> list[Assigned]:
        """Return where each partition starts. Raises `KafkaException` if Kafka does not answer.

        A start that moves with time (`latest`, a timestamp) is committed at once. Otherwise, if an assignment made no
        progress, the next one would resolve it again and skip the records in between.
        """
        if self._start == "latest" and self._first_topics is None:
            self._first_topics = frozenset((await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics)
        if not partitions:
            return []
        committed = await consumer.committed(partitions, timeout=_REQUEST_SECONDS)
        _raise_for(committed)
        missing = [(c.topic, c.partition) for c in committed if c.offset < 0]
        added, others = await self._added(consumer, missing)
        fresh = await self._resolve(consumer, missing, added)
        # The beginning does not move with time, so it need not be committed.
        moves = self._start != "earliest"
        moving = {partition: at for partition, at in fresh.items() if moves and partition[0] not in self._whole}
        moving |= await _offsets_at(consumer, others, _LATEST)
        if moving:
            faults = await commit([Commit(*partition, offset, "") for partition, offset in moving.items()])
            # Not fatal: the member reads from the resolved start. Only another assignment before the first commit would
            # differ.
            if faults:
                texts = {f"{topic}[{number}]": text for (topic, number), text in faults.items()}
                _log.warning("kafka.start_not_committed", faults=texts)
        return [
            Assigned(c.topic, c.partition, c.offset, c.offset, (c.metadata or "").rstrip("\0"))
            if c.offset >= 0
            else Assigned(c.topic, c.partition, fresh[c.topic, c.partition], None, "")
            for c in committed
        ]

    async def _added(
        self, consumer: AIOConsumer, missing: list[TopicPartition]
    ) -> tuple[set[TopicPartition], list[TopicPartition]]:
        """Return the partitions that are newer than the group, and those of other members that need a start as well."""
        topics = {topic for topic, _ in missing} - set(self._whole)
        if self._start != "latest" or not topics:
            return set(), []
        known = (await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
        kin = {topic: self._kin(topic, known) for topic in topics}
        wanted = sorted(topics.union(*kin.values()))
        all_of_them = [PartitionOffset(topic, number) for topic in wanted for number in known[topic].partitions]
        committed = await consumer.committed(all_of_them, timeout=_REQUEST_SECONDS)
        _raise_for(committed)
        begun = {c.topic for c in committed if c.offset >= 0} | (topics - (self._first_topics or topics))
        begun |= {relative for topic in topics if kin[topic] & begun for relative in (topic, *kin[topic])}
        added = {partition for partition in missing if partition[0] in begun}
        # Also the ends of other members' partitions, which they must not mistake for added ones (see the class).
        mine = set(missing)
        others = [(c.topic, c.partition) for c in committed if c.topic not in begun]
        return added, [partition for partition in others if partition not in mine]

    async def _resolve(
        self, consumer: AIOConsumer, partitions: list[TopicPartition], added: set[TopicPartition]
    ) -> dict[TopicPartition, int]:
        whole = [partition for partition in partitions if partition[0] in self._whole or partition in added]
        there = [partition for partition in partitions if partition not in whole]
        time = self._start if isinstance(self._start, int) else {"earliest": _EARLIEST, "latest": _LATEST}[self._start]
        starts = await _offsets_at(consumer, there, time) | await _offsets_at(consumer, whole, _EARLIEST)
        # There is no record at or after the time yet, so reading starts at the end.
        beyond = [partition for partition, offset in starts.items() if offset < 0]
        return starts | await _offsets_at(consumer, beyond, _LATEST)


async def _offsets_at(consumer: AIOConsumer, partitions: list[TopicPartition], time: int) -> dict[TopicPartition, int]:
    if not partitions:
        return {}
    question = [PartitionOffset(*partition, time) for partition in partitions]
    answers = await consumer.offsets_for_times(question, timeout=_REQUEST_SECONDS)
    _raise_for(answers)
    return {(answer.topic, answer.partition): answer.offset for answer in answers}


def _raise_for(answers: list[PartitionOffset]) -> None:
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)


class Ends:
    """The ends of one consumer's assigned partitions."""

    def __init__(self) -> None:
        self.known: dict[TopicPartition, int] = {}
        """The end offsets that fetches have reported so far."""
        self._reached: dict[TopicPartition, int] = {}
        self._next = 0.0

    def hurry(self) -> None:
        """Read the ends again soon, because partitions were assigned."""
        self._next = 0.0

    def reach(self, message: Message) -> None:
        """Note an end-of-partition event: every record below its offset was consumed before it."""
        self._reached[message.topic() or "", message.partition() or 0] = message.offset() or 0

    def unread(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Forget the reached ends of these partitions; return the partitions that had one."""
        return {partition for partition in partitions if self._reached.pop(partition, None) is not None}

    def reached(self) -> dict[TopicPartition, int]:
        """Return the partitions' ends that reading has reached, each once."""
        reached, self._reached = self._reached, {}
        return reached

    def forget(self, partition: TopicPartition) -> None:
        """Forget a revoked partition."""
        self.known.pop(partition, None)
        self._reached.pop(partition, None)

    def clear(self) -> None:
        """Forget all."""
        self.known.clear()
        self._reached.clear()

    async def read(self, consumer: AIOConsumer, assigned: Collection[TopicPartition], now: float) -> None:
        """Update the known ends from the last fetches, if it is time (`now`: monotonic seconds). Fetches nothing."""
        if now < self._next:
            return
        for topic, partition in list(assigned):
            try:
                answer = await consumer.get_watermark_offsets(PartitionOffset(topic, partition), cached=True)
            except KafkaException:
                continue
            if answer is not None and answer[1] >= 0:
                self.known[topic, partition] = answer[1]
        # Try again soon while an end is unknown: no fetch of that partition has returned yet.
        self._next = now + (_LOOK_SECONDS if self.known.keys() == set(assigned) else _FIRST_LOOK_SECONDS)
