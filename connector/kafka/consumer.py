"""The source of records: one Kafka consumer, owned by one task.

Theory of operation. Only the owner task calls `poll`, `commit`, `pause` and `resume`, one at a time: a call from
another task would wait until the running consume ends. The listener's callbacks run inside `poll` and `close`. They may
call the source (above all `commit`), also from tasks that they create: confluent-kafka recognises such tasks by their
context and lets their calls through while the consume is still running.

librdkafka never chooses an offset: it always gets `auto.offset.reset: error`, and each assignment has numeric offsets,
either committed ones or the resolved `kafka.start`. A resolved `latest` or time is committed at once. Otherwise, if an
assignment made no progress, the next one would resolve again and skip the records in between. The source waits for a
subscribed topic that does not exist or was deleted. An offset out of range is fatal, and so is a recreated topic: every
automatic recovery would lose or repeat records.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.aio import AIOConsumer

from connector.clock import Clock
from connector.config.loader import KafkaSettings
from connector.errors import FatalError, StartupError
from connector.kafka.client import (
    AUTO_OFFSET_RESET,
    FATAL,
    PARTITION_EOF,
    ErrorStates,
    LibrdkafkaLog,
    construct,
    consumer_config,
    error_text,
    is_incremental,
    kafka_error,
    records_of,
    start_of,
)
from connector.kafka.starts import Ends, Starts
from connector.kafka.topic_ids import TopicIds
from connector.kafka.topic_reader import read_positions
from connector.kafka.topics import TopicSelection
from connector.records import (
    HEADER_CHARGE,
    Assigned,
    Commit,
    FinalFault,
    LongMetadata,
    Position,
    RebalanceListener,
    Record,
    TopicPartition,
)

MAX_RECORDS: Final = 1000
"""Maximum records of one poll."""
WAIT_SECONDS: Final = 0.01
"""How long a poll collects records; librdkafka keeps a lone record back for all of it."""
IDLE_SECONDS: Final = 0.2
"""How long a poll waits if the last one returned nothing. It ends with the first record, so no record is kept back."""
_FIRST: Final = 32

_EXPELLED: Final = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID, FATAL})
_THREADS: Final = 4
_REQUEST_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0
_PATTERN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 2.0
"""How often, at least, to check whether held topics were recreated or have grown."""
_PROBE_SECONDS: Final = 5.0
_PROBE_TIMEOUT: Final = 1.0
_WAKE_SECONDS: Final = 0.5
_WAKE_AGAIN_SECONDS: Final = 60.0

_log = structlog.get_logger()


class PollSize:
    """How many records the next poll requests: about `limit` bytes by the last poll's mean size, at most `MAX_RECORDS`.

    It starts small, because the size of the records is not known yet, and at most doubles with each poll.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle = False
        self.records = _FIRST

    def next(self, *, patient: bool) -> tuple[int, float]:
        """Return how many records to ask for, and how many seconds to wait for them.

        `patient`: the caller has nothing else to do until a record or a rebalance arrives.
        """
        return (1, IDLE_SECONDS) if patient and self._idle else (self.records, WAIT_SECONDS)

    def saw(self, records: Sequence[Record]) -> None:
        """Note the result of a poll."""
        self._idle = not records
        if not records:
            return
        total = sum([len(record.key or b"") + len(record.value or b"") for record in records])
        headers = [header for record in records if record.headers for header in record.headers]
        total += sum([HEADER_CHARGE + len(name) + len(content or b"") for name, content in headers])
        affordable = self._limit * len(records) // max(1, total)
        self.records = max(1, min(MAX_RECORDS, 2 * self.records, affordable))


class KafkaSource:
    """Reads the topics as a member of the group.

    `own_topics` never match a pattern. An own topic that is named is read from its beginning if the group has no
    offset. `queue_bytes` limits what librdkafka fetches ahead. Once the group counts this member, and before it reads
    anything, `why_not_begin` may return an error that ends it; it is asked again after the member may have been away
    from the group. Nothing connects before `start`. The constructor raises `StartupError` for properties that the
    connector owns and for a pattern that is not a regular expression.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topics: Iterable[str],
        own_topics: frozenset[str],
        group_id: str,
        queue_bytes: int,
        clock: Clock,
        why_not_begin: Callable[[], Awaitable[FatalError | None]] | None = None,
    ) -> None:
        self._settings = settings
        self._stop_reading = threading.Event()
        self._config = consumer_config(settings, group_id, queue_bytes)
        self._poll_size = PollSize(queue_bytes // 2)
        self.counts: dict[str, int] = {}
        """How many partitions each subscribed topic has; refreshed before the listener learns of an assignment, and
        every few seconds for topics of held partitions."""
        # A client's position belongs to a topic's name. In a recreated topic it would read on from the old offset.
        self._ids = TopicIds(settings, self.counts)
        self._incremental = is_incremental(self._config)
        self._clock = clock
        self._topics = TopicSelection(topics, own_topics)
        self._abandon = asyncio.Event()
        self._starts = Starts(start_of(settings), own_topics, self._topics.kin, self._abandon.is_set)
        self._errors = ErrorStates("consumer")
        self._assigned: dict[TopicPartition, int] = {}
        self._reseek: dict[TopicPartition, int] = {}
        self._changed: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._ends = Ends()
        self._subscribed: frozenset[str] = frozenset()
        self._next_patterns = self._next_probe = self._next_look = self._next_wake = 0.0
        # A cancelled consume loses the records it took, so the task outlives a cancelled `poll`.
        self._polling: asyncio.Task[list[Record]] | None = None
        self._leaving = False
        self._fatal: str | None = None
        self._after_fatal: str | None = None
        self._why_not_begin = why_not_begin
        self._may_begin = why_not_begin is None
        self._refusal: FatalError | None = None
        self._closed = True

    async def start(self, listener: RebalanceListener) -> None:
        """Subscribe; partitions come in a later `poll`. Raises `StartupError` for properties unknown to librdkafka."""
        self._listener = listener
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="kafka")
        self._config |= {"error_cb": self._on_error, "logger": LibrdkafkaLog("consumer")}
        self._consumer = construct(AIOConsumer, self._config, executor=self._executor)
        self._closed = False
        if self._topics.patterns:
            await self._resolve_patterns()
        else:
            await self._subscribe(frozenset(self._topics.names))

    async def poll(self) -> list[Record]:
        """Return the next records; the listener's callbacks run first.

        A cancelled consume would lose its records. So if the caller is cancelled, the consume continues, and the next
        poll returns its records. Raises `FatalError` if a person has to act.
        """
        if self._polling is None:
            # `leave` may have been called already: a stop must not be forgotten by the poll that follows it.
            if not self._leaving:
                self._abandon.clear()
            self._polling = asyncio.create_task(self._poll())
        try:
            await asyncio.wait({self._polling})
        except asyncio.CancelledError:
            self._abandon.set()
            await asyncio.wait({self._polling})
            raise
        task, self._polling = self._polling, None
        return task.result()

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return the records at these positions. Uses a separate client, so that `poll` is not disturbed.

        Deleted records are left out. Raises `StartupError` if Kafka does not answer.
        """
        return await asyncio.to_thread(read_positions, self._settings, positions, self._stop_reading)

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Commit offsets with their metadata, and return the errors by partition: `{}` if all are stored.

        An error that a retry cannot fix is a `FinalFault`; one that shorter metadata fixes is `LongMetadata`.

        Returns once the coordinator has answered or librdkafka has given up on it. Never raises for an error of Kafka.
        """
        if not commits:
            return {}
        # librdkafka would wait for the coordinator for a whole session time-out, without polling.
        if self._errors.all_down and not await self._answers():
            return {(c.topic, c.partition): "no broker answers" for c in commits}
        # Asked before each commit: in a recreated topic the same offset is another record.
        others = await self._ids.others({(c.topic, c.partition) for c in commits})
        faults: dict[TopicPartition, str] = dict.fromkeys(others, FinalFault("the topic was deleted"))
        offsets = [PartitionOffset(*c) for c in commits if (c.topic, c.partition) not in others]
        return faults | await self._store(offsets)

    async def _store(self, offsets: list[PartitionOffset]) -> dict[TopicPartition, str]:
        if not offsets:
            return {}
        try:
            # Not `store_offsets` or a bare `commit()`: both drop a commit that changes only the metadata.
            answers = await self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if kafka_error(error).code() == FATAL:
                # A commit only says that there was a fatal error before. Its cause comes with the next polls.
                self._fatal, self._after_fatal = self._fatal or self._after_fatal, error_text(error)
            return {(o.topic, o.partition): _commit_fault(error) for o in offsets}
        return {(a.topic, a.partition): _commit_fault(a.error) for a in answers if a.error is not None}

    async def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop fetching these partitions, if assigned. Records fetched ahead are dropped and fetched again."""
        if known := self._known(partitions):
            self._paused.update((each.topic, each.partition) for each in known)
            await self._consumer.pause(known)

    async def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Fetch these partitions again, if assigned."""
        if known := self._known(partitions):
            fetches_nothing = self._paused.issuperset(self._assigned)
            self._paused.difference_update((each.topic, each.partition) for each in known)
            await self._consumer.resume(known)
            if fetches_nothing and self._clock.now() >= self._next_wake:
                await self._wake_fetchers(known)

    async def _wake_fetchers(self, partitions: Sequence[PartitionOffset]) -> None:
        """Make librdkafka fetch resumed partitions now.

        Its thread for a broker sleeps for up to a second once all partitions there are paused, and a resume does not
        wake it. Any request to the broker does. Measured from a resume to the first record: 0.3 to 0.6 s without this,
        4 to 17 ms with it.

        Only for a consumer that fetches nothing: the broker reads the request after the fetches that it has, and an
        empty one waits there (`fetch.wait.max.ms`), and so would the records of all other brokers.
        """
        ends = [PartitionOffset(each.topic, each.partition, OFFSET_END) for each in partitions]
        try:
            await self._consumer.offsets_for_times(ends, timeout=_WAKE_SECONDS)
        except KafkaException:
            # Only the sleep is longer. Not tried again soon: a slow broker would hold up each resume, and librdkafka
            # closes the connection on which a request has timed out.
            self._next_wake = self._clock.now() + _WAKE_AGAIN_SECONDS

    def ends(self) -> dict[TopicPartition, int]:
        """Return the end offset of each assigned partition for which a fetch has reported one."""
        return dict(self._ends.known)

    def reached(self) -> dict[TopicPartition, int]:
        """Return the partitions' ends that reading has reached, each once: every record below was returned.

        Offsets between the last record and such an end hold no record, for example a transaction's marker.
        """
        return self._ends.reached()

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member has."""
        return frozenset(self._assigned)

    @property
    def troubles(self) -> dict[str | None, str]:
        """The lasting errors by topic, None for the client as a whole; each was logged as `kafka.trouble`."""
        return self._errors.texts

    @property
    def is_refused(self) -> bool:
        """Whether one of the lasting errors is a refusal: waiting does not end it."""
        return self._errors.is_refused

    async def cluster_id(self) -> str:
        """Return the cluster's id. Raises `StartupError` if no broker answers within 5 s."""
        try:
            return str(await self._consumer.cluster_id(timeout=_REQUEST_SECONDS))
        except KafkaException as error:
            raise StartupError(f"cannot read the cluster's id: {error_text(error)}") from None

    def leave(self) -> None:
        """Announce `close`: a running assignment gives up its requests, so that the poll ends soon."""
        self._leaving = True
        self._abandon.set()

    async def close(self) -> None:
        """Leave the group; `on_revoke` runs inside. Drops records of a cancelled poll, uncommitted. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop_reading.set()
        # While the consumer closes, a request for a new assignment would never be answered.
        self.leave()
        if self._polling is not None:
            await asyncio.wait({self._polling})
        try:
            await self._consumer.close()
        finally:
            self._assigned.clear()
            self._ends.clear()
            self._executor.shutdown(wait=False)
            await self._ids.close()

    async def _poll(self) -> list[Record]:
        now = self._clock.now()
        if self._topics.patterns and now >= self._next_patterns:
            await self._resolve_patterns()
        if now >= self._next_look and not self._errors.all_down:
            self._next_look = now + _LOOK_SECONDS
            await self._ids.look()
            # Held partitions begin at their assignment.
            await self._begin_recreated(self._subscribed - {topic for topic, _ in self._assigned})
        self._changed.clear()
        try:
            # Poll only briefly, because a paused partition may have to be resumed at any moment.
            messages = await self._consumer.consume(*self._poll_size.next(patient=not self._paused))
        except KafkaException as error:
            raise FatalError(f"the Kafka consumer stopped: {error_text(error)}") from None
        if self._refusal is not None:
            raise self._refusal
        # Checked before the records are used: they may be those of a recreated topic.
        await self._raise_fault()
        try:
            records = to_records(messages, self._judge)
        except FatalError:
            # An offset may be out of range because its topic was recreated. Then the group's offsets are gone as well.
            await self._ids.look()
            await self._raise_fault()
            raise
        self._poll_size.saw(records)
        if self._changed or self._reseek:
            records = await self._of_this_epoch(records)
        await self._ends.read(self._consumer, self._assigned, now)
        if self._errors:
            self._errors.settle()
        if self._errors.of_client:
            await self._probe(now, alive=bool(records))
        return records

    async def _raise_fault(self) -> None:
        """Raise `FatalError` if this consumer must not go on."""
        if (fault := self._fatal or self._ids.held.fault()) is not None:
            await self._begin_recreated(self._ids.held.recreated)
            raise FatalError(f"the Kafka consumer stopped: {fault}")

    def _judge(self, error: KafkaError, message: Message) -> None:
        """Raise `FatalError` for a permanent error of the consumer; log any other once."""
        # During a stop librdkafka may still assign partitions by itself. They are not ours.
        is_ours = (message.topic(), message.partition()) in self._assigned
        if error.code() == PARTITION_EOF:
            if is_ours:
                self._ends.reach(message)
            return
        if error.code() == AUTO_OFFSET_RESET:
            if is_ours:
                raise FatalError(out_of_range(error, message))
            return
        # Such a message has no topic, and only its code shows that it is fatal.
        if error.fatal() or error.code() == FATAL:
            raise FatalError(f"the Kafka consumer stopped: {error_text(error)}")
        self._errors.report(error, message.topic())

    async def _of_this_epoch(self, records: list[Record]) -> list[Record]:
        """Return the records except those of partitions that were assigned or revoked during the consume.

        Such a record may belong to the previous assignment, whose work is already committed or dropped. A partition
        that was assigned during the consume is read again from its start. Until the seek succeeds, all its records are
        dropped.
        """
        ended = self._ends.unread(self._reseek.keys() | self._changed)
        for partition in self._changed:
            start = self._assigned.get(partition)
            if start is not None and (partition in ended or any((r.topic, r.partition) == partition for r in records)):
                self._reseek[partition] = start
        dropped = self._reseek.keys() | self._changed
        kept = [record for record in records if (record.topic, record.partition) not in dropped]
        for partition, start in list(self._reseek.items()):
            try:
                await self._consumer.seek(PartitionOffset(*partition, start))
            except KafkaException as error:
                _log.debug("kafka.seek_again", topic=partition[0], partition=partition[1], reason=error_text(error))
            else:
                del self._reseek[partition]
        return kept

    async def _on_assign(self, _consumer: AIOConsumer, partitions: list[PartitionOffset]) -> None:
        if partitions and self._why_not_begin is not None and not self._may_begin:
            self._refusal = await self._why_not_begin()
            if self._refusal is not None:
                return
            self._may_begin = True
        assigned = await self._start_of(partitions)
        if assigned is None:
            return
        # Before the listener, because it shares rate limits by the partitions that each topic has now.
        await self._count_partitions()
        _log.info("kafka.assigned", partitions=[f"{a.topic}[{a.partition}]@{a.start}" for a in assigned])
        await self._listener.on_assign(assigned)
        starts = [PartitionOffset(a.topic, a.partition, a.start) for a in assigned]
        if self._incremental:
            await self._consumer.incremental_assign(starts)
        else:
            await self._consumer.assign(starts)
        if starts:
            # In librdkafka a pause outlives a revoke and a new assignment, which the listener does not expect.
            await self._consumer.resume(starts)
        for a in assigned:
            self._assigned[a.topic, a.partition] = a.start
            self._changed.add((a.topic, a.partition))
            self._errors.over(a.topic)
        self._ends.hurry()
        self._errors.over()

    async def _on_revoke(self, _consumer: AIOConsumer, partitions: list[PartitionOffset]) -> None:
        gone = self._gone(partitions)
        _log.info("kafka.revoked", partitions=[f"{topic}[{partition}]" for topic, partition in gone])
        try:
            await self._listener.on_revoke(gone)
        finally:
            self._forget(gone)
            # A member without partitions does not learn of it if the group drops it. Without increments every rebalance
            # takes all partitions for a moment.
            self._may_begin = self._may_begin and not (self._incremental and not self._assigned)

    async def _on_lost(self, _consumer: AIOConsumer, partitions: list[PartitionOffset]) -> None:
        # Forgotten before the listener runs: unlike in `_on_revoke` it commits nothing, so it needs no assignment.
        gone = self._gone(partitions)
        self._may_begin = False
        _log.warning("kafka.lost", partitions=[f"{topic}[{partition}]" for topic, partition in gone])
        self._forget(gone)
        await self._listener.on_lost(gone)

    def _gone(self, partitions: list[PartitionOffset]) -> list[TopicPartition]:
        return [(p.topic, p.partition) for p in partitions if (p.topic, p.partition) in self._assigned]

    def _forget(self, gone: list[TopicPartition]) -> None:
        self._changed.update(gone)
        self._ids.held.forget(gone)
        self._paused.difference_update(gone)
        for partition in gone:
            self._assigned.pop(partition, None)
            self._ends.forget(partition)
            self._reseek.pop(partition, None)

    def _known(self, partitions: Iterable[TopicPartition]) -> list[PartitionOffset]:
        return [PartitionOffset(*partition) for partition in partitions if partition in self._assigned]

    async def _start_of(self, partitions: list[PartitionOffset]) -> list[Assigned] | None:
        """Return where each partition starts, retrying until Kafka answers; None if the source is closed first."""
        while not self._abandon.is_set():
            try:
                await self._ids.note({(partition.topic, partition.partition) for partition in partitions})
                assigned = await self._starts.find(self._consumer, partitions, self.commit)
                first = [(each.topic, each.partition) for each in assigned or () if each.start == 0]
                self._ids.held.at_first_offset(first)
                return assigned
            except KafkaException as error:
                self._errors.report(kafka_error(error))
            if not self._abandon.is_set():
                await self._clock.sleep(_RETRY_SECONDS)
        return None

    async def _resolve_patterns(self) -> None:
        self._next_patterns = self._clock.now() + _PATTERN_SECONDS
        try:
            known = (await self._consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
        except KafkaException as error:
            self._errors.report(kafka_error(error))
            return
        matching = self._topics.matching(known)
        if not matching:
            _log.warning("kafka.no_topic_matches", patterns=[pattern.pattern for pattern in self._topics.patterns])
        # librdkafka is never given the pattern: under KIP-848 the broker would match the connector's own topics, too.
        wanted = frozenset(matching.union(self._topics.names))
        if wanted and wanted != self._subscribed:
            await self._subscribe(wanted)

    async def _begin_recreated(self, topics: Collection[str]) -> None:
        """Let the group read those of these topics that were recreated from their first record."""

        async def store(commits: Sequence[Commit]) -> dict[TopicPartition, str]:
            # Not `commit`, which refuses partitions that are held since the old topic.
            return await self._store([PartitionOffset(*commit) for commit in commits])

        try:
            await self._starts.begin_recreated(self._consumer, topics, store)
        except KafkaException as error:
            self._errors.report(kafka_error(error))

    async def _count_partitions(self) -> None:
        """Refresh the partition counts, by which rate limits are shared: this rebalance may have added partitions."""
        try:
            known = (await self._consumer.list_topics(timeout=_REQUEST_SECONDS)).topics
        except KafkaException as error:
            self._errors.report(kafka_error(error))
            return
        self.counts.update({topic: len(known[topic].partitions) for topic in self._subscribed if topic in known})

    async def _subscribe(self, topics: frozenset[str]) -> None:
        await self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._subscribed = topics

    async def _probe(self, now: float, *, alive: bool) -> None:
        """Check whether an error is over: records arrived, or a broker answers again."""
        if not alive:
            if now < self._next_probe:
                return
            self._next_probe = now + _PROBE_SECONDS
            if not await self._answers():
                return
        self._errors.over()

    async def _answers(self) -> bool:
        """Whether a broker answers within a second."""
        try:
            await self._consumer.list_topics(timeout=_PROBE_TIMEOUT)
        except KafkaException:
            return False
        return True

    async def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == FATAL:
            self._fatal = error_text(error)
        else:
            self._errors.report(error)


def to_records(messages: Sequence[Message], on_error: Callable[[KafkaError, Message], None]) -> list[Record]:
    """Return the messages as records. `on_error` is called for those that are errors, and may raise."""
    errors = [(error, message) for message in messages if (error := message.error()) is not None]
    for error, message in errors:
        on_error(error, message)
    return records_of([message for message in messages if message.error() is None] if errors else messages)


def _commit_fault(error: KafkaException | KafkaError) -> str:
    code = (kafka_error(error) if isinstance(error, KafkaException) else error).code()
    if code == KafkaError.OFFSET_METADATA_TOO_LARGE:
        return LongMetadata(error_text(error))
    return FinalFault(error_text(error)) if code in _EXPELLED else error_text(error)


def out_of_range(error: KafkaError, message: Message) -> str:
    """Return the message for a partition whose next offset Kafka does not have."""
    return (
        f"the offset to read next is no longer in {message.topic()} [{message.partition()}] ({error.str()}): its "
        "records were deleted, or the topic was recreated. To choose where to go on, stop the group and run "
        "`connector offsets reset`"
    )
