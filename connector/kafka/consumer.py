"""The source of records: one Kafka consumer, owned by one task.

Theory of operation. The owner task alone calls `poll`, `commit`, `pause` and `resume`, one after the other: a call from
another task would wait out the running consume. The listener's callbacks run inside `poll` and `close`; what they call
of the source (above all `commit`) must be called by the callback's own task, or by tasks that it creates:
confluent-kafka lets those through while the consume is still open, by their context.

librdkafka never chooses an offset: it always gets `auto.offset.reset: error`, and each assignment is made with numeric
offsets, committed ones or the resolved `kafka.start`. Where `latest` or a time was resolved it is committed at once:
else records that come between two assignments without any progress would be passed over. A subscribed topic that does
not exist, or is deleted, is waited for; an offset out of range is fatal, and so is a topic made anew: each way out of
it loses or repeats records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.aio import AIOConsumer

from connector.clock import Clock
from connector.config.loader import KafkaSettings
from connector.errors import FatalError, StartupError
from connector.kafka.chunks import Chunk
from connector.kafka.client import (
    AUTO_OFFSET_RESET,
    FATAL,
    ErrorStates,
    LibrdkafkaLog,
    construct,
    consumer_config,
    error_text,
    is_incremental,
    kafka_error,
    start_of,
)
from connector.kafka.ends import PARTITION_EOF, Ends
from connector.kafka.messages import out_of_range, to_records
from connector.kafka.starts import Starts
from connector.kafka.subscription import TopicSelection
from connector.kafka.topic_ids import TopicIds
from connector.records import Assigned, Commit, Record

Partition = tuple[str, int]

_THREADS: Final = 4
_REQUEST_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0
_PATTERN_SECONDS: Final = 30.0
_PROBE_SECONDS: Final = 5.0
_PROBE_TIMEOUT: Final = 1.0

_log = structlog.get_logger()


class Listener(Protocol):
    """Who is told of partitions that come and go. The callbacks run inside `poll` or `close`."""

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Take these partitions; their records come after this returned."""
        ...

    async def on_revoke(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in flight and commit it, inside this call; the partitions are gone when it returns."""
        ...

    async def on_lost(self, partitions: Sequence[Partition]) -> None:
        """Forget these partitions: another member may have them already, so nothing is committed."""
        ...


class KafkaSource:
    """Reads the topics as a member of the group.

    `own_topics` never match a pattern; one that is named is read from its beginning where the group has no offset.
    `queue_bytes` bounds what librdkafka fetches ahead. Nothing connects before `start`. The constructor raises
    `StartupError` for properties that the connector owns and for a pattern that is no regular expression.
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
    ) -> None:
        self._config = consumer_config(settings, group_id, queue_bytes)
        self._chunk = Chunk(queue_bytes // 2)
        self._starts = Starts(start_of(settings), own_topics)
        self._ids = TopicIds(settings)
        self._incremental = is_incremental(self._config)
        self._clock = clock
        self._topics = TopicSelection(topics, own_topics)
        self._errors = ErrorStates("consumer")
        self._assigned: dict[Partition, int] = {}
        self._reseek: dict[Partition, int] = {}
        self._changed: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._ends = Ends()
        self.counts: dict[str, int] = {}
        """How many partitions the topics have that a pattern matched; brought up to date while it runs."""
        self._subscribed: frozenset[str] = frozenset()
        self._next_patterns = self._next_probe = 0.0
        self._polling: asyncio.Task[list[Record]] | None = None
        self._abandon = asyncio.Event()
        self._leaving = False
        self._fatal: str | None = None
        self._closed = True

    async def start(self, listener: Listener) -> None:
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
        """Return the next records, as many as a `Chunk` says and as soon, but for the listener's callbacks.

        A cancelled consume would lose its records: where the caller is cancelled the consume is awaited, and its
        records are the next poll's. Raises `FatalError` where a person has to act.
        """
        if self._polling is None:
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

    async def commit(self, commits: Sequence[Commit]) -> dict[Partition, str]:
        """Commit offsets with their metadata, and return what went wrong by partition: `{}` when all is stored.

        Returns when the coordinator has answered, or librdkafka gave up on it. Never raises for an error of Kafka.
        """
        if not commits:
            return {}
        # librdkafka would wait for the coordinator as long as a session lasts, and nothing be polled meanwhile.
        if self._errors.all_down and not await self._answers():
            return {(c.topic, c.partition): "no broker answers" for c in commits}
        others = await self._ids.others({c.topic for c in commits})
        faults = {(c.topic, c.partition): "the topic was deleted" for c in commits if c.topic in others}
        offsets = [TopicPartition(c.topic, c.partition, c.offset, c.metadata) for c in commits if c.topic not in others]
        if not offsets:
            return faults
        try:
            answers = await self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if kafka_error(error).code() == FATAL:
                self._fatal = error_text(error)
            return faults | {(o.topic, o.partition): error_text(error) for o in offsets}
        return faults | {(a.topic, a.partition): error_text(a.error) for a in answers if a.error is not None}

    async def pause(self, partitions: Iterable[Partition]) -> None:
        """Stop fetching these partitions; those not assigned are left out. What was fetched ahead is fetched again."""
        if theirs := self._known(partitions):
            self._paused.update((one.topic, one.partition) for one in theirs)
            await self._consumer.pause(theirs)

    async def resume(self, partitions: Iterable[Partition]) -> None:
        """Fetch these partitions again; those not assigned are left out."""
        if theirs := self._known(partitions):
            self._paused.difference_update((one.topic, one.partition) for one in theirs)
            await self._consumer.resume(theirs)

    def ends(self) -> dict[Partition, int]:
        """Return the end offset of each assigned partition as fetches told it; absent where none did yet."""
        return dict(self._ends.known)

    def reached(self) -> dict[Partition, int]:
        """Return the offsets that reading has come to at partitions' ends, each once: below them nothing is left out.

        What lies between the last record and such an offset is no record, such as a transaction's marker.
        """
        return self._ends.reached()

    @property
    def assignment(self) -> frozenset[Partition]:
        """The partitions that this member has."""
        return frozenset(self._assigned)

    @property
    def troubles(self) -> dict[str | None, str]:
        """What lasts: no broker's answer or a refusal (under None), or by topic; it was logged as `kafka.trouble`."""
        return self._errors.texts

    async def cluster_id(self) -> str:
        """Return the cluster's id. Raises `StartupError` where no broker answers within 5 s."""
        try:
            return str(await self._consumer.cluster_id(timeout=_REQUEST_SECONDS))
        except KafkaException as error:
            raise StartupError(f"the cluster's id could not be asked for: {error_text(error)}") from None

    def leave(self) -> None:
        """Say that `close` comes next: what an assignment still asks Kafka for is given up and a poll ends soon."""
        self._leaving = True
        self._abandon.set()

    async def close(self) -> None:
        """Leave the group; `on_revoke` runs inside. Records of a cancelled poll are dropped, uncommitted.

        Closing twice does nothing.
        """
        if self._closed:
            return
        self._closed = True
        # An assignment that comes while the consumer closes is not asked about: the answer would never come.
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
        self._changed.clear()
        try:
            # While something is paused, it may have to be resumed at any moment.
            messages = await self._consumer.consume(*self._chunk.next(patient=not self._paused))
        except KafkaException as error:
            raise FatalError(f"the Kafka consumer cannot go on: {error_text(error)}") from None
        if (fault := self._fatal or self._ids.fault(topic for topic, _ in self._assigned)) is not None:
            raise FatalError(f"the Kafka consumer cannot go on: {fault}")
        records = to_records(messages, self._judge)
        self._chunk.saw(records)
        if self._changed or self._reseek:
            records = await self._of_this_epoch(records)
        await self._ends.read(self._consumer, self._assigned, now)
        if self._errors.of_client:
            await self._probe(now, alive=bool(records))
        return records

    def _judge(self, error: KafkaError, message: Message) -> None:
        """Raise `FatalError` for an error of the consumer that waiting does not mend; log any other once."""
        if error.code() == PARTITION_EOF:
            self._ends.reach(message)
            return
        if error.code() == AUTO_OFFSET_RESET:
            # Not ours is what librdkafka took by itself where a stop left an assignment without an answer.
            if (message.topic(), message.partition()) in self._assigned:
                raise FatalError(out_of_range(error, message))
            return
        # Such a message has no topic, and its error's code alone says that it is fatal.
        if error.fatal() or error.code() == FATAL:
            raise FatalError(f"the Kafka consumer cannot go on: {error_text(error)}")
        self._errors.report(error, message.topic())

    async def _of_this_epoch(self, records: list[Record]) -> list[Record]:
        """Return the records without those of partitions that changed hands during the consume.

        Such a record may belong to the assignment before, whose work is committed or dropped already. A partition that
        came in the meantime is read again from its start; until the seek works all its records are dropped.
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
                await self._consumer.seek(TopicPartition(*partition, start))
            except KafkaException as error:
                _log.debug("kafka.seek_again", topic=partition[0], partition=partition[1], reason=error_text(error))
            else:
                del self._reseek[partition]
        return kept

    async def _on_assign(self, _consumer: AIOConsumer, partitions: list[TopicPartition]) -> None:
        assigned = await self._start_of(partitions)
        if assigned is None:
            return
        _log.info("kafka.assigned", partitions=[f"{a.topic}[{a.partition}]@{a.start}" for a in assigned])
        await self._listener.on_assign(assigned)
        starts = [TopicPartition(a.topic, a.partition, a.start) for a in assigned]
        if self._incremental:
            await self._consumer.incremental_assign(starts)
        else:
            await self._consumer.assign(starts)
        if starts:
            # A pause survives a revoke and a new assignment in librdkafka; the listener knows of none.
            await self._consumer.resume(starts)
        for a in assigned:
            self._assigned[a.topic, a.partition] = a.start
            self._changed.add((a.topic, a.partition))
            self._errors.over(a.topic)
        self._ends.hurry()
        self._errors.over()

    async def _on_revoke(self, _consumer: AIOConsumer, partitions: list[TopicPartition]) -> None:
        gone = self._gone(partitions)
        _log.info("kafka.revoked", partitions=[f"{topic}[{partition}]" for topic, partition in gone])
        try:
            await self._listener.on_revoke(gone)
        finally:
            self._forget(gone)

    async def _on_lost(self, _consumer: AIOConsumer, partitions: list[TopicPartition]) -> None:
        gone = self._gone(partitions)
        _log.warning("kafka.lost", partitions=[f"{topic}[{partition}]" for topic, partition in gone])
        self._forget(gone)
        await self._listener.on_lost(gone)

    def _gone(self, partitions: list[TopicPartition]) -> list[Partition]:
        return [(p.topic, p.partition) for p in partitions if (p.topic, p.partition) in self._assigned]

    def _forget(self, gone: list[Partition]) -> None:
        self._changed.update(gone)
        self._paused.difference_update(gone)
        for partition in gone:
            self._assigned.pop(partition, None)
            self._ends.forget(partition)
            self._reseek.pop(partition, None)

    def _known(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        return [TopicPartition(*partition) for partition in partitions if partition in self._assigned]

    async def _start_of(self, partitions: list[TopicPartition]) -> list[Assigned] | None:
        """Return where each partition starts, asked until Kafka answers; None where the source is left meanwhile."""
        while not self._abandon.is_set():
            try:
                await self._ids.note({partition.topic for partition in partitions})
                return await self._starts.find(self._consumer, partitions, self.commit)
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
        wanted = frozenset(matching.union(self._topics.names))
        self.counts.update({topic: len(known[topic].partitions) for topic in wanted if topic in known})
        if wanted and wanted != self._subscribed:
            await self._subscribe(wanted)

    async def _subscribe(self, topics: frozenset[str]) -> None:
        await self._consumer.subscribe(
            sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._subscribed = topics

    async def _probe(self, now: float, *, alive: bool) -> None:
        """Find out whether a trouble is over: records came, or a broker answers again."""
        if not alive:
            if now < self._next_probe:
                return
            self._next_probe = now + _PROBE_SECONDS
            if not await self._answers():
                return
        self._errors.over()

    async def _answers(self) -> bool:
        """Tell whether a broker answers within a second."""
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
