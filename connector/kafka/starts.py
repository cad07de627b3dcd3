"""Where reading starts in a newly assigned partition (the group's offset, else `kafka.start`), and where its end is.

The last offset of a partition is not always a record: a transaction ends with a marker that no consumer returns. Only
librdkafka's end-of-partition event shows that reading has passed the marker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.aio import AIOConsumer

from connector.kafka.client import kafka_error
from connector.records import Assigned, Commit, TopicPartition

Kin = Callable[[str, Iterable[str]], set[str]]
Committer = Callable[[Sequence[Commit]], Awaitable[Mapping[TopicPartition, str]]]

_LOOK_SECONDS: Final = 2.0
_FIRST_LOOK_SECONDS: Final = 0.2
_REQUEST_SECONDS: Final = 5.0
# ListOffsets' own numbers in place of a timestamp (KIP-79): the first offset, and the end.
_EARLIEST: Final = -2
_LATEST: Final = -1
_KNOWN_SECONDS: Final = 4.0
"""How long the member that begins a topic waits for one that knows that the topic was recreated: a running member looks
for that every two seconds."""
_BEGIN_SECONDS: Final = 20.0
_NEXT_SECONDS: Final = 10.0
"""How long members wait for the one that begins a topic, and how much longer each of them for the next: longer than
one takes from its question to its commit, because each request ends after `_REQUEST_SECONDS`."""
_BEGIN_PAUSE: Final = 0.2
_NO_PARTITION: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - public by librdkafka's convention
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - as above
    }
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Group:
    """What a group has committed in some topics, by partition, with a negative offset where nothing is.

    `begun` are those of the topics whose partitions without an offset are newer than the group.
    """

    committed: Mapping[TopicPartition, PartitionOffset] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()
    kin: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By topic, those that are begun together with it; it is one of them."""

    def without_start(self, mine: Collection[TopicPartition]) -> list[TopicPartition]:
        """Return those of a member's partitions for which some member has to commit a start."""
        return [each for each in mine if each[0] not in self.begun and self._is_missing(each)]

    def to_begin(self, mine: Collection[TopicPartition], waited: float) -> list[TopicPartition]:
        """Return the partitions without an offset in the topics that a member begins, after so many seconds."""
        together: set[str] = set()
        for topic in {topic for topic, _ in self.without_start(mine)}:
            kin = self.kin[topic]
            # Usually the owner of the first; after a while, in case it died, that of the next: one after the other.
            place = [each in mine for each in sorted(self.committed) if each[0] in kin].index(True)
            if not place or waited >= _BEGIN_SECONDS + _NEXT_SECONDS * place.bit_length():
                together |= kin
        return [each for each in self.committed if each[0] in together and self._is_missing(each)]

    def _is_missing(self, partition: TopicPartition) -> bool:
        return partition in self.committed and self.committed[partition].offset < 0


class Starts:
    """Where a member's partitions start; `start` is `kafka.start`, for partitions in which the group has no offset.

    Two kinds are always read from their first record. First, topics in `whole`: the connector's own topics are written
    for this group. Second, with `latest` or a time, partitions that are newer than the group. Their records came while
    the group was at work, and Kafka may take minutes to announce a partition, so starting at its end would lose them.
    Their timestamps may be of any time. A partition without an offset counts as newer if the group has committed any
    offset in its topic, or if this member has seen offsets in a topic of that name: that topic was recreated, because
    Kafka deletes the offsets with the topic. With `latest` it is also newer if the group has committed an offset in a
    topic that the same pattern matches (`kin` returns those), or if its topic appeared after the member's first
    assignment.

    Otherwise one member begins a topic and its kin: the owner of their first partition commits a start for all of their
    partitions, and the other members wait until they see it. All members of a new group come at the same moment. If
    each committed only its own partitions, the others' would look added and be read from their beginning. If each
    committed all of them, a commit could be above the offset at which a partition's owner has begun, and records that
    the owner has not delivered would count as done. If the owner dies, another member takes its place. The owner also
    waits a moment, because another member may know that the topic was recreated, and let it begin at its first record.

    A partition that does not exist, because its topic was deleted or recreated with fewer partitions since Kafka
    assigned it, starts at 0, where it starts if it is created again. Kafka never answers a question for its end.
    """

    def __init__(
        self,
        start: str | int,
        whole: Collection[str] = (),
        kin: Kin = lambda _topic, _topics: set(),
        is_closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._start = start
        self._is_closing = is_closing
        self._whole = whole
        self._kin = kin
        self._moves = start != "earliest"
        """Whether the start depends on when it is asked for, or on timestamps: the beginning stays the beginning."""
        self._first_topics: frozenset[str] | None = None
        self._begun: set[str] = set()
        """The topics in which this member has seen an offset of the group."""

    async def find(
        self, consumer: AIOConsumer, partitions: list[PartitionOffset], commit: Committer
    ) -> list[Assigned] | None:
        """Return where each partition starts, None if the source is closed meanwhile. Raises `KafkaException`.

        A start that moves (`latest`, a timestamp) is committed at once. Otherwise, if an assignment made no progress,
        the next one would resolve it again and skip the records in between.
        """
        if self._start == "latest" and self._first_topics is None:
            self._first_topics = frozenset((await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics)
        if not partitions:
            return []
        committed = await _committed(consumer, partitions)
        missing = {each for each, at in committed.items() if at.offset < 0}
        if (begun := await self._until_begun(consumer, missing, commit)) is None:
            return None
        group, chosen = begun
        # Newer than the first answer.
        committed |= {each: group.committed[each] for each in missing & group.committed.keys()}
        missing = {each for each, at in committed.items() if at.offset < 0}.difference(chosen)
        self._begun |= {topic for (topic, _), at in committed.items() if at.offset >= 0}
        fresh, gone = await self._resolve(consumer, sorted(missing), group.begun)
        if self._moves:
            _log_faults(await _commit(commit, {each: at for each, at in fresh.items() if each[0] not in self._whole}))
        starts = fresh | dict.fromkeys(gone, 0) | chosen
        return [
            Assigned(*each, starts[each], None, "")
            if each in starts
            else Assigned(*each, at.offset, at.offset, (at.metadata or "").rstrip("\0"))
            for each, at in committed.items()
        ]

    async def begin_recreated(self, consumer: AIOConsumer, topics: Collection[str], commit: Committer) -> None:
        """Commit the first offsets of those of the topics that were recreated. Raises `KafkaException`.

        A member that starts later does not know that such a topic is newer than the group: it would begin at the end.
        """
        if not self._moves or not (begun := self._begun.intersection(topics).difference(self._whole)):
            return
        known = (await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
        for topic in sorted(begun & known.keys()):
            partitions = [(topic, number) for number in known[topic].partitions]
            committed = await _committed(consumer, [PartitionOffset(*partition) for partition in partitions])
            if all(at.offset < 0 for at in committed.values()):
                _log_faults(await _commit(commit, await _offsets_at(consumer, partitions, _EARLIEST)))

    async def _until_begun(
        self, consumer: AIOConsumer, missing: set[TopicPartition], commit: Committer
    ) -> tuple[_Group, dict[TopicPartition, int]] | None:
        """Begin the topics that are this member's to begin, and wait for the others; return the starts chosen here."""
        now = asyncio.get_running_loop().time
        since, chosen, noted = now(), dict[TopicPartition, int](), dict[TopicPartition, int]()
        while not self._is_closing():
            group = await self._look_at_group(consumer, missing)
            if not group.without_start(missing - chosen.keys()):
                return group, {each: at for each, at in chosen.items() if each in missing}
            begins = group.to_begin(missing, now() - since)
            if left := [each for each in begins if each not in chosen]:
                # Noted before the wait, so that what comes meanwhile is read.
                noted |= await self._offsets_at_start(consumer, [each for each in left if each not in noted])
                if now() - since < _KNOWN_SECONDS:
                    await asyncio.sleep(_BEGIN_PAUSE)
                    continue
                starts = {each: noted[each] for each in left}
                # Tried again: as long as it is not committed, the next member would begin the topic, elsewhere.
                if not (faults := await _commit(commit, starts)) or now() - since >= _BEGIN_SECONDS:
                    _log_faults(faults)
                    self._begun |= {topic for topic, _ in starts.keys() - faults.keys()}
                    chosen |= starts
                    continue
            await asyncio.sleep(_BEGIN_PAUSE)
        return None

    async def _look_at_group(self, consumer: AIOConsumer, missing: Collection[TopicPartition]) -> _Group:
        """Return what the group has committed in the topics, and their kin, of partitions without an offset."""
        topics = {topic for topic, _ in missing} - set(self._whole)
        if not self._moves or not topics:
            return _Group()
        known = (await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
        # A topic that is new to the group may be older than the group, and a time says how much of it is wanted.
        kin = {topic: self._kin(topic, known) if self._start == "latest" else set() for topic in topics}
        wanted = sorted(known.keys() & topics.union(*kin.values()))
        # In one question: a member of a new group may commit the starts of all between two.
        committed = await _committed(
            consumer, [PartitionOffset(topic, number) for topic in wanted for number in known[topic].partitions]
        )
        begun = {topic for (topic, _), at in committed.items() if at.offset >= 0}
        begun |= (topics - (self._first_topics or topics)) | (topics & self._begun)
        begun |= {relative for topic in topics if kin[topic] & begun for relative in (topic, *kin[topic])}
        return _Group(committed, frozenset(begun), {topic: frozenset((topic, *kin[topic])) for topic in topics})

    async def _resolve(
        self, consumer: AIOConsumer, partitions: list[TopicPartition], begun: frozenset[str]
    ) -> tuple[dict[TopicPartition, int], list[TopicPartition]]:
        """Return where these partitions start, and those that do not exist."""
        try:
            return await self._resolve_existing(consumer, partitions, begun), []
        except KafkaException as error:
            if kafka_error(error).code() not in _NO_PARTITION:
                raise
            known = (await consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
            gone = [(topic, n) for topic, n in partitions if topic not in known or n not in known[topic].partitions]
            if not gone:
                raise
            there = [partition for partition in partitions if partition not in gone]
            return await self._resolve_existing(consumer, there, begun), gone

    async def _resolve_existing(
        self, consumer: AIOConsumer, partitions: list[TopicPartition], begun: frozenset[str]
    ) -> dict[TopicPartition, int]:
        whole = [partition for partition in partitions if partition[0] in begun.union(self._whole)]
        there = [partition for partition in partitions if partition not in whole]
        return await self._offsets_at_start(consumer, there) | await _offsets_at(consumer, whole, _EARLIEST)

    async def _offsets_at_start(
        self, consumer: AIOConsumer, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Return where these partitions start by `kafka.start`."""
        time = self._start if isinstance(self._start, int) else {"earliest": _EARLIEST, "latest": _LATEST}[self._start]
        starts = await _offsets_at(consumer, partitions, time)
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


async def _commit(commit: Committer, starts: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, str]:
    """Commit where partitions start; return the faults."""
    return await commit([Commit(*partition, offset, "") for partition, offset in starts.items()]) if starts else {}


def _log_faults(faults: Mapping[TopicPartition, str]) -> None:
    # Not fatal: the member reads from there all the same; only another assignment before the first commit would differ.
    if faults:
        texts = {f"{topic}[{number}]": text for (topic, number), text in faults.items()}
        _log.warning("kafka.start_not_committed", faults=texts)


async def _committed(consumer: AIOConsumer, partitions: list[PartitionOffset]) -> dict[TopicPartition, PartitionOffset]:
    """Return what is committed now, with a negative offset where nothing is."""
    if not partitions:
        return {}
    answers = await consumer.committed(partitions, timeout=_REQUEST_SECONDS)
    _raise_for(answers)
    return {(answer.topic, answer.partition): answer for answer in answers}


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
