"""The real desk for dead letters: a configuration's topics in Kafka, today's rules, and transactions of its group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from connector.clock import SystemClock
from connector.config.loader import Loaded
from connector.dead_letters.replay import Kind, Order, Outgoing, RecordRefused, Replayer, Step, TakenOver
from connector.dead_letters.stream import DeadLetterStream
from connector.kafka.topic_reader import TopicReader
from connector.kafka.transactions import Fenced, RecordTooLarge, TransactionalProducer
from connector.operations.inspect import DeadLetterExaminer


def transactional_id(group: str) -> str:
    """Return the transactional id of a group's replays and discards."""
    return f"{group}.dlq"


@dataclass(frozen=True, slots=True)
class ReplayDesk:
    """Replays and discards the dead letters of one configuration; see `dead_letters.replay.Desk`."""

    loaded: Loaded

    async def plan(self, order: Order) -> AsyncGenerator[Step, None]:
        """Tell what `replay` would do, and do nothing."""
        async with self._replayer() as replayer, aclosing(replayer.plan(order)) as steps:
            async for step in steps:
                yield step

    async def plan_discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Tell what `discard` would do, and do nothing."""
        async with self._replayer() as replayer, aclosing(replayer.plan(order, kind="discarded")) as steps:
            async for step in steps:
                yield step

    async def replay(self, order: Order) -> AsyncGenerator[Step, None]:
        """Replay open letters."""
        async with self._carrying_out("replayed", order) as steps:
            async for step in steps:
                yield step

    async def discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Mark open letters as discarded."""
        async with self._carrying_out("discarded", order) as steps:
            async for step in steps:
                yield step

    @asynccontextmanager
    async def _carrying_out(self, kind: Kind, order: Order) -> AsyncIterator[AsyncGenerator[Step, None]]:
        """Begin; the transactional id is taken over before anything is read, so that what others committed is seen."""
        kafka = self.loaded.settings.kafka
        async with AsyncExitStack() as stack:
            producer = await stack.enter_async_context(TransactionalProducer(kafka, transactional_id(kafka.group_id)))
            replayer = await stack.enter_async_context(self._replayer(sending=kind == "replayed"))
            yield await stack.enter_async_context(aclosing(replayer.carry_out(kind, order, _Transactions(producer))))

    @asynccontextmanager
    async def _replayer(self, *, sending: bool = False) -> AsyncIterator[Replayer]:
        """Open the dead-letter topic and today's rules; where letters will be sent the replay topic has to be there."""
        settings = self.loaded.settings
        async with AsyncExitStack() as stack:
            if sending:
                (await asyncio.to_thread(TopicReader, settings.kafka, settings.replay_topic)).close()
            reader = await asyncio.to_thread(TopicReader, settings.kafka, settings.dead_letter_topic)
            stack.callback(reader.close)
            examiner = await stack.enter_async_context(DeadLetterExaminer(self.loaded, reader.cluster_id))
            yield Replayer(
                DeadLetterStream(reader.records),
                examiner,
                SystemClock(),
                settings.kafka.group_id,
                settings.replay_topic,
            )


@dataclass(frozen=True, slots=True)
class _Transactions:
    """Transactions in Kafka, with the errors that a replay speaks of."""

    producer: TransactionalProducer

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Write records in one transaction."""
        try:
            await self.producer.commit(records)
        except Fenced:
            raise TakenOver(
                "another replay or discard of this group was begun and took over; this one has ended, and what it had "
                "not committed is as it was"
            ) from None
        except RecordTooLarge as error:
            raise RecordRefused(
                f"Kafka does not take the record: {error}; see max.message.bytes of the topic"
            ) from None
