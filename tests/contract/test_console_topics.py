"""How the console reads Kafka: a topic followed, single records fetched, offsets asked without joining a group."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.config.loader import KafkaSettings
from connector.kafka.groups import CommittedOffsets
from connector.kafka.topic_reader import TopicReader, TopicTail
from connector.kafka.topics import TopicSelection
from connector.records import Record
from connector.testing import EmbeddedBroker


@pytest.fixture(scope="module")
def settings() -> Iterator[KafkaSettings]:
    """A broker with a topic of 4 partitions: 900 records in the second, one in the third."""
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for topic in ("letters", "events"):
            broker.create(topic)
            for number in range(900):
                producer.produce(topic, b"%d" % number, b"key", partition=1, headers=[("n", b"%d" % number)])
            producer.produce(topic, b"alone", partition=2)
        assert producer.flush(20) == 0
        yield KafkaSettings(topics=["events"], group_id="g", client={"bootstrap.servers": broker.bootstrap})


def read(tail: TopicTail, enough: int) -> list[Record]:
    """Read until so many records came."""
    records: list[Record] = []
    for _ in range(100):
        records += tail.read()
        if len(records) >= enough:
            return records
    raise AssertionError(f"only {len(records)} of {enough} came")


def test_a_topic_is_followed_from_its_beginning(settings: KafkaSettings) -> None:
    """Everything that is there comes once, `left` goes down to nothing, and then what is new comes too."""
    tail = TopicTail(settings, "letters")
    try:
        assert tail.left == 901
        records = read(tail, 901)
        assert sorted({record.partition for record in records}) == [1, 2]
        assert [record.offset for record in records if record.partition == 1] == list(range(900))
        assert tail.left == 0
        producer = Producer({"bootstrap.servers": str(settings.client["bootstrap.servers"])})
        producer.produce("letters", b"news", partition=3)
        assert producer.flush(20) == 0
        assert [record.value for record in read(tail, 1)] == [b"news"]
    finally:
        tail.close()


def test_records_are_fetched_by_their_places(settings: KafkaSettings) -> None:
    """Near and far ones of several partitions, in order; what is not there is left out, and the next call works too."""
    reader = TopicReader(settings)
    try:
        found = list(reader.at("letters", [(1, 3), (1, 899), (2, 0), (1, 4), (2, 7), (1, 5000)]))
        assert [(record.partition, record.offset) for record in found] == [(1, 3), (1, 4), (1, 899), (2, 0)]
        assert [record.value for record in reader.at("letters", [(1, 450)])] == [b"450"]
        assert list(reader.at("letters", [])) == []
        assert list(reader.at("letters", [(1, 5000)])) == []
    finally:
        reader.close()


def test_offsets_are_asked_without_joining_the_group(settings: KafkaSettings) -> None:
    """Committed offsets and metadata come back, a partition without one is left out, and members are not disturbed."""
    client = {"bootstrap.servers": str(settings.client["bootstrap.servers"]), "group.id": "g"}
    consumer = Consumer({**client, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("events", 1, 40, "map")], asynchronous=False)
    consumer.close()
    offsets = CommittedOffsets(settings, "g")
    try:
        partitions = offsets.partitions(TopicSelection(["events", "^let", "missing"], frozenset({"letters"})), ["gone"])
        assert partitions == [("events", number) for number in range(4)]
        committed = offsets.committed(partitions)
        assert {place: (one.offset, one.metadata) for place, one in committed.items()} == {("events", 1): (40, "map")}
        assert offsets.bounds(("events", 1)) == (0, 900)
        assert offsets.committed([]) == {}
    finally:
        offsets.close()


async def test_fetching_leaves_the_loop_alone_in_a_thread(settings: KafkaSettings) -> None:
    """Several threads may fetch at once and each gets its own record."""
    reader = TopicReader(settings)
    try:
        found = await asyncio.gather(
            *(asyncio.to_thread(lambda at=at: list(reader.at("letters", [(1, at)]))) for at in (7, 8, 9))  # type: ignore[misc]
        )
        assert [[record.offset for record in each] for each in found] == [[7], [8], [9]]
    finally:
        await asyncio.to_thread(reader.close)
