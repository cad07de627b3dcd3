"""The replay service on Kafka: the configured topics, today's rules, and transactions of the group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Self

from connector.clock import SystemClock
from connector.config.loader import KafkaSettings, Loaded
from connector.dead_letters.replay import Kind, Order, RecordRefused, Replayer, Step, TakenOver
from connector.dead_letters.stream import DeadLetterStream
from connector.errors import StartupError
from connector.kafka.retention import Retention
from connector.kafka.topic_reader import TopicReader
from connector.kafka.transactions import Fenced, Outgoing, RecordTooLarge, TransactionalProducer
from connector.operations.events import matching_events
from connector.operations.inspect import DeadLetterExaminer
from connector.records import Position, Record


def transactional_id(group: str) -> str:
    """Return the transactional id of a group's replays and discards."""
    return f"{group}.dlq"


@dataclass(frozen=True, slots=True)
class KafkaReplayService:
    """Replays and discards the dead letters of one configuration; see `dead_letters.replay.ReplayService`."""

    loaded: Loaded

    async def plan(self, order: Order) -> AsyncGenerator[Step, None]:
        """Yield what `replay` would do."""
        async with self._planning("replayed", order) as steps:
            async for step in steps:
                yield step

    async def plan_discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Yield what `discard` would do."""
        async with self._planning("discarded", order) as steps:
            async for step in steps:
                yield step

    async def replay(self, order: Order) -> AsyncGenerator[Step, None]:
        """Replay unresolved dead letters."""
        async with self._carrying_out("replayed", order) as steps:
            async for step in steps:
                yield step

    async def discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Mark unresolved dead letters as discarded."""
        async with self._carrying_out("discarded", order) as steps:
            async for step in steps:
                yield step

    @asynccontextmanager
    async def _planning(self, kind: Kind, order: Order) -> AsyncIterator[AsyncGenerator[Step, None]]:
        async with AsyncExitStack() as stack:
            order = await stack.enter_async_context(_applied(self.loaded, order))
            replayer = await stack.enter_async_context(self._replayer())
            yield await stack.enter_async_context(aclosing(replayer.plan(order, kind)))

    @asynccontextmanager
    async def _carrying_out(self, kind: Kind, order: Order) -> AsyncIterator[AsyncGenerator[Step, None]]:
        """Take over the transactional id, then start to read.

        The order matters: the former owner of the id is fenced first, so that everything it committed is read.
        """
        kafka = self.loaded.settings.kafka
        async with AsyncExitStack() as stack:
            order = await stack.enter_async_context(_applied(self.loaded, order))
            # Before the takeover: a refused order must not stop a running one.
            await self._refuse_compacted()
            producer = await stack.enter_async_context(TransactionalProducer(kafka, transactional_id(kafka.group_id)))
            replayer = await stack.enter_async_context(self._replayer(sending=kind == "replayed"))
            yield await stack.enter_async_context(aclosing(replayer.carry_out(kind, order, _Transactions(producer))))

    async def _refuse_compacted(self) -> None:
        """Raise `StartupError` for a compacted topic: resolving one dead letter would delete all with its key."""
        settings = self.loaded.settings
        async with Retention(settings.kafka) as retention:
            why = await retention.compacted(settings.dead_letter_topic)
        if why is not None:
            raise StartupError(why)

    @asynccontextmanager
    async def _replayer(self, *, sending: bool = False) -> AsyncIterator[Replayer]:
        """Open the dead-letter topic and today's rules. With `sending` the replay topic must exist."""
        settings = self.loaded.settings
        async with AsyncExitStack() as stack:
            reader = stack.enter_context(TopicReader(settings.kafka))
            # A broker may create a missing topic automatically, with its own defaults.
            if sending:
                await asyncio.to_thread(reader.whole, settings.replay_topic)
            topic = await asyncio.to_thread(reader.whole, settings.dead_letter_topic)
            examiner = await stack.enter_async_context(DeadLetterExaminer(self.loaded, topic.cluster_id))
            yield Replayer(
                DeadLetterStream(topic.records),
                examiner,
                stack.enter_context(_Originals(settings.kafka)),
                SystemClock(),
                settings.kafka.group_id,
                settings.replay_topic,
            )


class _Originals:
    """Reads source records; a context manager. Few dead letters need it, so it connects on first use."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._reader: TopicReader | None = None
        self._topics: Mapping[str, int] = {}

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        if self._reader is not None:
            self._reader.close()

    async def fetch(self, origin: Position) -> Record | str:
        """Return the record at an origin, or why there is none."""
        return await asyncio.to_thread(self._fetch, origin)

    def _fetch(self, origin: Position) -> Record | str:
        if self._reader is None:
            self._reader = TopicReader(self._settings)
            _, self._topics = self._reader.topics()
        if origin.partition >= self._topics.get(origin.topic, 0):
            return "there is no such topic or partition"
        found = next(self._reader.at(origin.topic, [origin[1:]]), None)
        return found or "Kafka has deleted it"


@asynccontextmanager
async def _applied(loaded: Loaded, order: Order) -> AsyncIterator[Order]:
    """Return the order with its conditions on events applied."""
    matching = matching_events(loaded, order.wanted)
    wanted = await asyncio.to_thread(matching.__enter__)
    try:
        yield replace(order, wanted=wanted)
    finally:
        # In a thread, because it runs an event loop of its own, and this thread's loop is running.
        await asyncio.to_thread(matching.__exit__, None, None, None)


@dataclass(frozen=True, slots=True)
class _Transactions:
    """Kafka transactions, with the errors of `dead_letters.replay`."""

    producer: TransactionalProducer

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Write records in one transaction."""
        try:
            await self.producer.commit(records)
        except Fenced:
            raise TakenOver(
                "another replay or discard of this group has started and took over; what this one had not committed is "
                "unchanged"
            ) from None
        except RecordTooLarge as error:
            raise RecordRefused(f"Kafka rejects the record: {error}; see max.message.bytes of the topic") from None
