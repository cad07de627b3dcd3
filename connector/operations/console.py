"""Connects the console to Kafka: the dead-letter topic, the group's offsets, replays, and today's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog

from connector.clock import Clock, SystemClock
from connector.config.loader import KafkaSettings, Loaded, Settings
from connector.console.advice import NO_OPTIONS, CommandOptions
from connector.console.application import Console, ConsolePorts
from connector.console.feed import Tail
from connector.console.sampling import PartitionBacklog
from connector.console.search import SearchPorts
from connector.console.state import Progress
from connector.dead_letters.archive import Archive
from connector.dead_letters.filters import Filter
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.kafka.groups import CommittedOffsets
from connector.kafka.producer import KafkaProducer
from connector.kafka.topic_reader import TopicReader, TopicTail
from connector.kafka.topics import TopicSelection
from connector.operations import offsets
from connector.operations.audit import KafkaAuditTopic
from connector.operations.events import matching_events
from connector.operations.inspect import DeadLetterExaminer
from connector.operations.replay import KafkaReplayService
from connector.operations.timeline import PastEvents
from connector.records import Record
from connector.runtime.events import write_events
from connector.tasks import restarted
from connector.telemetry import logs
from connector.telemetry.timeline import Timeline

BACKLOG_SECONDS: Final = 5.0
"""Kafka is asked for the backlog at most this often, however often members are asked."""

_log = structlog.get_logger()


@asynccontextmanager
async def serving(
    loaded: Loaded, members: Sequence[str], *, sparse: bool = False, options: CommandOptions = NO_OPTIONS
) -> AsyncIterator[Console]:
    """Serve a configuration's console; see `Console` for `sparse` and `options`. Raises `StartupError`."""
    settings = loaded.settings
    rules, reader = _Rules(loaded), TopicReader(settings.kafka)
    backlog = _Backlog(settings)
    audit = (
        None if settings.console.audit_topic is None else KafkaAuditTopic(settings.kafka, settings.console.audit_topic)
    )
    topic, clock = settings.console.events_topic, SystemClock()
    timeline = Timeline("console", written=topic is not None)
    # The console's own events, such as actions, belong in the same timeline as those of members.
    logs.listen(timeline.note)
    past = None if topic is None else PastEvents(settings.kafka, topic)
    ports = ConsolePorts(
        tail=lambda: rules.note_cluster(TopicTail(settings.kafka, settings.dead_letter_topic)),
        fetch=lambda places: list(reader.at(settings.dead_letter_topic, places)),
        dead_letters=lambda wanted, resolved, progress: _dead_letters(loaded, wanted, progress, resolved=resolved),
        inspect=rules.inspect,
        decode=rules.decode,
        search=SearchPorts(
            records=lambda progress: _records(settings, progress),
            fetch=lambda places: list(reader.at(settings.dead_letter_topic, places)),
            matching=lambda wanted: matching_events(loaded, wanted),
        ),
        replays=KafkaReplayService(loaded),
        backlog=backlog.read,
        audit=audit,
        clock=clock,
        own_events=timeline.events,
        past_events=None if past is None else past.since,
        options=options,
    )
    console = Console(settings, members, ports, sparse=sparse)
    write = None if topic is None else partial(_write_events, settings.kafka, topic, timeline, clock)
    writing = None if write is None else asyncio.create_task(restarted(write, "events", clock))
    try:
        if audit is not None:
            await audit.open()
        await console.start()
        _log.info("console.started", host=settings.console.host, port=console.port, members=list(members))
        yield console
    finally:
        logs.listen(None)
        await console.stop()
        if writing is not None:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if past is not None:
            await asyncio.to_thread(past.close)
        await rules.close()
        await backlog.close()
        await asyncio.to_thread(reader.close)
        if audit is not None:
            await audit.close()


async def _write_events(settings: KafkaSettings, topic: str, timeline: Timeline, clock: Clock) -> None:
    """Write the console's own events to the topic of events, until cancelled."""
    producer = KafkaProducer(settings)
    await producer.start()
    try:
        await write_events(timeline, lambda record: producer.send(topic, key=None, value=record), clock)
    finally:
        await producer.close(1.0)


def _records(settings: Settings, progress: Progress) -> Iterator[Record]:
    """Read the topic once."""
    with TopicReader(settings.kafka) as reader:
        yield from reader.whole(settings.dead_letter_topic).records(progress)


def _dead_letters(loaded: Loaded, wanted: Filter, progress: Progress, *, resolved: bool) -> Iterator[DeadLetterEntry]:
    """Read the topic twice: first for the resolutions, then for the dead letters."""
    settings = loaded.settings
    with TopicReader(settings.kafka) as reader, matching_events(loaded, wanted) as applied:
        topic, passes = reader.whole(settings.dead_letter_topic), 0

        def records(_what: str) -> Iterator[Record]:
            nonlocal passes
            before, passes = passes * topic.total, passes + 1
            return topic.records(lambda done, total: progress(before + done, 2 * total))

        archive = Archive(records, lambda places: reader.at(settings.dead_letter_topic, places), topic.cluster_id)
        yield from archive.dead_letters(applied, resolved=resolved)


class _Rules:
    """Today's rules, opened on first use: only then is the cluster's id known, which is part of dedup ids."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._cluster_id = ""
        self._examiner: DeadLetterExaminer | None = None

    def note_cluster(self, tail: TopicTail) -> Tail:
        """Note the cluster of an opened topic, and return the topic."""
        self._cluster_id = tail.cluster_id
        return tail

    async def inspect(self, dead_letter: DeadLetterEntry) -> Inspection:
        """Return a dead letter's event, and what would be sent."""
        return await self._opened().inspect(dead_letter)

    async def decode(self, dead_letter: DeadLetterEntry) -> Inspection:
        """Return a dead letter's event."""
        return await self._opened().decode(dead_letter)

    def _opened(self) -> DeadLetterExaminer:
        if self._examiner is None:
            self._examiner = DeadLetterExaminer(self._loaded, self._cluster_id)
        return self._examiner

    async def close(self) -> None:
        """Close the registry client."""
        if self._examiner is not None:
            await self._examiner.close()


class _Backlog:
    """A group's unfinished records by partition, computed from its committed offsets."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._selection = TopicSelection(settings.kafka.topics, settings.own_topics)
        self._offsets: CommittedOffsets | None = None
        self._clock = SystemClock()
        self._read_at: float | None = None
        self._last: Mapping[tuple[str, int], PartitionBacklog] = {}

    async def read(self) -> Mapping[tuple[str, int], PartitionBacklog]:
        """Return the unfinished records by partition."""
        now = self._clock.now()
        # Many people may look at the page, and each question costs the group's coordinator a request.
        if self._read_at is None or now - self._read_at >= BACKLOG_SECONDS:
            self._last = await asyncio.to_thread(self._backlog_by_partition)
            self._read_at = now
        return self._last

    async def close(self) -> None:
        """Close the Kafka client."""
        if self._offsets is not None:
            await asyncio.to_thread(self._offsets.close)

    def _backlog_by_partition(self) -> Mapping[tuple[str, int], PartitionBacklog]:
        if self._offsets is None:
            self._offsets = CommittedOffsets(self._settings.kafka, self._settings.kafka.group_id)
        partitions = self._offsets.partitions(self._selection, [self._settings.replay_topic])
        committed = self._offsets.committed(partitions)
        found: dict[tuple[str, int], PartitionBacklog] = {}
        for partition in partitions:
            state = offsets.state_of(partition, committed.get(partition), self._offsets.bounds(partition))
            found[partition] = PartitionBacklog(state.committed, state.end, float(state.backlog or 0))
        return found
