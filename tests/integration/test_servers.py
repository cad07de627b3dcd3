"""The servers that integration tests stand on are real, and survive what tests do to them."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tools.servers import Kafka, Registry


def _produce(kafka: Kafka, topic: str) -> int | None:
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic, b"value", on_delivery=lambda _, message: offsets.append(message.offset()))
    producer.flush(30)
    return offsets[0]


def test_a_topic_has_the_partitions_it_was_created_with(kafka: Kafka, topic_name: str) -> None:
    """`create_topic` returns when the topic is there, with its partitions."""
    kafka.create_topic(topic_name, 3, {"cleanup.policy": "delete"})
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    assert len(topics[topic_name].partitions) == 3


def test_records_outlive_a_kill_of_the_broker(kafka: Kafka, topic_name: str) -> None:
    """An acknowledged record is still there after SIGKILL and a start, at the same address."""
    kafka.create_topic(topic_name)
    address = kafka.bootstrap
    assert _produce(kafka, topic_name) == 0
    kafka.kill()
    assert kafka.pid is None
    kafka.start()
    assert kafka.bootstrap == address
    assert _produce(kafka, topic_name) == 1


def test_a_stopped_broker_is_up_for_the_next_test(kafka: Kafka, fresh_name: Callable[[str], str]) -> None:
    """This test stops the broker and starts it again for the next test."""
    kafka.stop()
    assert kafka.pid is None


def test_the_registry_answers_as_confluents_does(registry: Registry) -> None:
    """For an unknown schema id the registry answers with Confluent's own code."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{registry.url}/schemas/ids/987654321", timeout=10)
    with caught.value as answer:
        assert (answer.code, json.load(answer)["error_code"]) == (404, 40403)
