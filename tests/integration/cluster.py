"""Members of a group on a real Kafka, without the rest of a run: a source each, and what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from connector.clock import SystemClock
from connector.config.loader import KafkaSettings
from connector.kafka.consumer import KafkaSource
from connector.records import Assigned, Commit, Record, TopicPartition
from tools.servers import Kafka

PROTOCOLS: dict[str, dict[str, Any]] = {
    "cooperative": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
    "eager": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "partition.assignment.strategy": "range"},
    "kip-848": {"group.protocol": "consumer"},
}


class Member:
    """A source, what its listener was told, and what it read; `done` by partition is committed in `on_revoke`."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.records: list[Record] = []
        self.assigned: list[Assigned] = []
        self.revoked: list[TopicPartition] = []
        self.lost: list[TopicPartition] = []
        self.done: dict[TopicPartition, Commit] = {}
        self.drain = 0.0
        self.faults: dict[TopicPartition, str] = {}

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Note what was assigned."""
        self.assigned.extend(partitions)

    async def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish what is in flight, as long as `drain` says, then commit inside the callback."""
        await asyncio.sleep(self.drain)
        commits = [self.done[p] for p in partitions if p in self.done]
        self.faults |= await self.source.commit(commits)
        self.revoked.extend(partitions)

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Note what was lost."""
        self.lost.extend(partitions)

    async def until(self, condition: Callable[[], bool], others: Sequence[Member] = (), seconds: float = 30) -> None:
        """Poll, with the other members in turn, until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; assigned: {self.assigned}"
            await asyncio.gather(*(member.once() for member in (self, *others)))

    async def once(self) -> None:
        """Poll once; what was read counts as done."""
        for record in await self.source.poll():
            self.records.append(record)
            self.done[record.topic, record.partition] = Commit(record.topic, record.partition, record.offset + 1, "")


class Cluster:
    """Members of groups on one broker, all closed at the end."""

    def __init__(self, kafka: Kafka, stack: contextlib.AsyncExitStack) -> None:
        self.bootstrap = kafka.bootstrap
        self._stack = stack

    def source(self, topics: list[str], group: str, *, own: frozenset[str] = frozenset(), **more: Any) -> KafkaSource:
        """Return a source that is not started."""
        start, client = more.pop("start", None), more.pop("client", PROTOCOLS["cooperative"])
        settings = KafkaSettings(
            topics=topics, group_id=group, start=start, client={"bootstrap.servers": self.bootstrap, **client}
        )
        return KafkaSource(
            settings, topics=topics, own_topics=own, group_id=group, queue_bytes=1 << 20, clock=SystemClock()
        )

    async def join(self, topics: list[str], group: str, **more: Any) -> Member:
        """Return a started member."""
        member = Member(self.source(topics, group, **more))
        self._stack.push_async_callback(member.source.close)
        await member.source.start(member)
        return member

    def produce(self, topic: str, count: int, partition: int = 0) -> None:
        """Write records 0, 1, … to one partition."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number in range(count):
            producer.produce(topic, str(number).encode(), partition=partition)
        assert producer.flush(30) == 0

    def add_partitions(self, topic: str, count: int) -> None:
        """Let a topic have `count` partitions."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for future in admin.create_partitions([NewPartitions(topic, count)]).values():
            future.result(30)

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str]:
        """Return the group's offset and metadata, as another client sees them."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            answer = consumer.committed([PartitionOffset(topic, partition)], timeout=10)[0]
            return answer.offset, (answer.metadata or "").rstrip("\0")
        finally:
            consumer.close()
