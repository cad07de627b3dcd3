"""The source over a real Kafka keeps to the same contract as the model that the simulation runs on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.clock import SystemClock
from connector.config.loader import KafkaSettings
from connector.kafka.consumer import KafkaSource
from tests.simulation.source_contract import CHECKS, ContractMember, World
from tools.servers import Kafka

PROTOCOLS: dict[str, dict[str, Any]] = {
    "cooperative": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
    "kip-848": {"group.protocol": "consumer"},
}


class KafkaWorld:
    """A topic of two partitions and a group of the same name on the fixture's broker."""

    def __init__(self, kafka: Kafka, topic: str, client: dict[str, Any], stack: contextlib.AsyncExitStack) -> None:
        self.topic = topic
        self._client = {"bootstrap.servers": kafka.bootstrap, **client}
        self._bootstrap = kafka.bootstrap
        self._stack = stack
        kafka.create_topic(topic, 2)

    async def join(self) -> ContractMember:
        """Return a member of the group."""
        settings = KafkaSettings(topics=[self.topic], group_id=self.topic, client=self._client)
        source = KafkaSource(
            settings,
            topics=[self.topic],
            own_topics=frozenset(),
            group_id=self.topic,
            queue_bytes=1 << 20,
            clock=SystemClock(),
        )
        self._stack.push_async_callback(source.close)
        member = ContractMember(source)
        await source.start(member)
        return member

    def produce(self, count: int, partition: int) -> None:
        """Write records and wait until Kafka has them."""
        producer = Producer({"bootstrap.servers": self._bootstrap})
        for _ in range(count):
            producer.produce(self.topic, b"x", partition=partition)
        assert producer.flush(30) == 0

    def committed(self, partition: int) -> tuple[int, str] | None:
        """Return what another client sees."""
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": self.topic})
        try:
            answer = consumer.committed([TopicPartition(self.topic, partition)], timeout=10)[0]
            return None if answer.offset < 0 else (answer.offset, (answer.metadata or "").rstrip("\0"))
        finally:
            consumer.close()


@pytest.fixture(params=PROTOCOLS)
async def world(kafka: Kafka, topic_name: str, request: pytest.FixtureRequest) -> AsyncIterator[KafkaWorld]:
    """A topic and a group whose members are closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:
        yield KafkaWorld(kafka, topic_name, PROTOCOLS[request.param], stack)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_kafka_is_what_the_model_says(check: Callable[[World], Awaitable[None]], world: KafkaWorld) -> None:
    """Each check of the contract holds on a real Kafka: the model is not kinder than the truth."""
    await check(world)
