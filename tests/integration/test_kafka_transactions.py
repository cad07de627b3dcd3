"""Transactions on real Kafka: all records or none, one writer at a time, and a refused record harms no other."""

from __future__ import annotations

from collections.abc import Callable
from os import urandom

import pytest

from connector.config.loader import KafkaSettings
from connector.kafka.topic_reader import TopicReader
from connector.kafka.transactions import Fenced, Outgoing, RecordTooLarge, TransactionalProducer
from tools.servers import Kafka

Names = Callable[[str], str]


def _settings(kafka: Kafka, group: str, **client: str | int) -> KafkaSettings:
    return KafkaSettings(topics=["unused"], group_id=group, client={"bootstrap.servers": kafka.bootstrap, **client})


def _values(settings: KafkaSettings, topic: str) -> list[bytes | None]:
    with TopicReader(settings) as reader:
        return sorted((record.value for record in reader.whole(topic).records()), key=lambda value: value or b"")


@pytest.mark.promise("P13")
async def test_a_writer_that_is_fenced_writes_nothing_any_more(kafka: Kafka, fresh_name: Names) -> None:
    """The new owner of the transactional id continues; the previous owner gets an error, and its records are not read.

    Kills: an id of its own for each replay, under which two of them send the same dead letters.
    """
    topic, name = fresh_name("topic"), fresh_name("id")
    kafka.create_topic(topic, 2)
    # A time-out for records that is longer than a transaction may last would otherwise refuse the client.
    settings = _settings(kafka, name, **{"message.timeout.ms": 300_000})
    async with TransactionalProducer(settings, name) as first:
        await first.commit([Outgoing(topic, None, b"k", b"1", [("h", b"\xff")]), Outgoing(topic, 1, None, None, ())])
        async with TransactionalProducer(settings, name) as second:
            with pytest.raises(Fenced):
                await first.commit([Outgoing(topic, 0, b"k", b"lost", ())])
            await second.commit([Outgoing(topic, 0, b"k", b"2", ())])
    assert _values(settings, topic) == [None, b"1", b"2"]


async def test_a_record_that_is_too_large_leaves_the_writer_whole(kafka: Kafka, fresh_name: Names) -> None:
    """Nothing of its transaction is read, the error says which kind it is, and the next transaction works."""
    topic, name = fresh_name("topic"), fresh_name("id")
    kafka.create_topic(topic, 1, {"max.message.bytes": "2000"})
    settings = _settings(kafka, name)
    async with TransactionalProducer(settings, name) as writer:
        with pytest.raises(RecordTooLarge, match="MSG_SIZE_TOO_LARGE"):
            await writer.commit([Outgoing(topic, 0, None, b"small", ()), Outgoing(topic, 0, None, urandom(5000), ())])
        await writer.commit([Outgoing(topic, 0, None, b"after", ())])
    assert _values(settings, topic) == [b"after"]
