"""The producer on a real Kafka: acknowledged records are there, all others are reported as failed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from os import urandom

import pytest
from confluent_kafka import Consumer, TopicPartition

from connector.config.loader import KafkaSettings
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from tools.servers import Kafka


def _settings(bootstrap: str, **client: str | int) -> KafkaSettings:
    return KafkaSettings(topics=["unused"], group_id="unused", client={"bootstrap.servers": bootstrap, **client})


@contextlib.asynccontextmanager
async def _producer(
    bootstrap: str, *, max_in_flight: int = 10_000, **client: str | int
) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(_settings(bootstrap, **client), max_in_flight=max_in_flight)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.close(10)


async def test_a_record_is_where_its_acknowledgement_says(kafka: Kafka, topic_name: str) -> None:
    """`send` returns partition and offset, and the record there has key, value and headers byte for byte."""
    kafka.create_topic(topic_name, 2)
    headers = [("a", b"\xff\0"), ("a", None), ("b", b"")]
    async with _producer(kafka.bootstrap) as producer:
        assert await producer.send(topic_name, key=b"k", value=b"", headers=headers, partition=1) == (1, 0)
        assert await producer.send(topic_name, key=None, value=None, partition=1) == (1, 1)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic_name})
    try:
        consumer.assign([TopicPartition(topic_name, 1, 0)])
        first, second = consumer.consume(2, 20)
    finally:
        consumer.close()
    assert (first.key(), first.value(), first.headers()) == (b"k", b"", headers)
    assert (second.key(), second.value(), second.headers()) == (None, None, None)


async def test_many_records_share_their_room(kafka: Kafka, topic_name: str) -> None:
    """With little room in flight, and less in librdkafka's queue, all records arrive once, in order."""
    kafka.create_topic(topic_name)
    most = 0
    async with _producer(kafka.bootstrap, max_in_flight=100, **{"queue.buffering.max.messages": 50}) as producer:
        futures = []
        for number in range(2_000):
            futures.append(await producer.enqueue(topic_name, key=None, value=str(number).encode()))
            most = max(most, producer.in_flight)
        offsets = [offset for _, offset in await asyncio.gather(*futures)]
        assert producer.in_flight == 0
    assert offsets == list(range(2_000))
    assert 2 <= most <= 100


async def test_a_record_that_is_too_large_says_so(kafka: Kafka, topic_name: str) -> None:
    """A record over the topic's limit fails alone, also in a batch with small records; the producer continues."""
    kafka.create_topic(topic_name, 1, {"max.message.bytes": "20000"})
    async with _producer(kafka.bootstrap) as producer:
        answers = await asyncio.gather(
            *(producer.send(topic_name, key=None, value=urandom(size)) for size in (9_000, 30_000, 9_000, 9_000)),
            return_exceptions=True,
        )
        failed = answers.pop(1)
        assert isinstance(failed, DeliveryFailed)
        assert (failed.code, failed.topic, failed.fatal) == ("MSG_SIZE_TOO_LARGE", topic_name, False)
        assert failed.too_large
        assert answers == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.promise("P1")
async def test_a_record_that_fits_only_compressed_is_written(kafka: Kafka, topic_name: str) -> None:
    """A source record of 3 MB in a compressed topic fits into a dead-letter topic with the usual limit of 1 MiB.

    Kills: a producer without compression, whose dead letter is refused for ever.
    """
    kafka.create_topic(topic_name)
    async with _producer(kafka.bootstrap) as producer:
        assert await producer.send(topic_name, key=None, value=b'{"a":"b"}' * 350_000) == (0, 0)


async def test_a_record_over_the_clients_own_limit_says_so_at_once(kafka: Kafka, topic_name: str) -> None:
    """What librdkafka refuses to take fails as what the broker refuses."""
    async with _producer(kafka.bootstrap, **{"message.max.bytes": 1_000}) as producer:
        with pytest.raises(DeliveryFailed, match="MSG_SIZE_TOO_LARGE"):
            await producer.send(topic_name, key=None, value=b"x" * 2_000)


async def test_a_broker_that_is_gone_fails_what_is_sent(topic_name: str) -> None:
    """Within `message.timeout.ms` the record fails; closing leaves nothing behind."""
    async with _producer("127.0.0.1:1", **{"message.timeout.ms": 300}) as producer:
        with pytest.raises(DeliveryFailed, match="MSG_TIMED_OUT"):
            await producer.send(topic_name, key=None, value=b"x")


async def test_closing_says_what_it_leaves_behind(topic_name: str) -> None:
    """Records that no broker took in time are counted, and every waiting caller gets an error."""
    producer = KafkaProducer(_settings("127.0.0.1:1"))
    await producer.start()
    futures = [await producer.enqueue(topic_name, key=None, value=b"x") for _ in range(3)]
    assert await producer.close(0.1) == 3
    for answer in await asyncio.gather(*futures, return_exceptions=True):
        assert isinstance(answer, DeliveryFailed)
    assert await producer.close(0.1) == 0
