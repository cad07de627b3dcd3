"""The embedded broker: what the demo and tests rely on."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from connector.testing import EmbeddedBroker
from connector.testing.broker import PARTITIONS


def test_records_commits_and_metadata_survive_their_client() -> None:
    """A topic appears on first use, and another client reads the records, the commit and its metadata back."""
    with EmbeddedBroker() as broker:
        assert broker.create("events") == PARTITIONS
        client = {"bootstrap.servers": broker.bootstrap, "group.id": "g", "enable.auto.commit": False}
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for number in range(3):
            producer.produce("events", str(number).encode(), partition=1, headers=[("h", b"v")])
        assert producer.flush(10) == 0
        consumer = Consumer(client)
        consumer.commit(offsets=[TopicPartition("events", 1, 2, "map")], asynchronous=False)
        consumer.close()
        again = Consumer({**client, "auto.offset.reset": "error"})
        (committed,) = again.committed([TopicPartition("events", 1)], timeout=10)
        assert (committed.offset, (committed.metadata or "").rstrip("\0")) == (2, "map")
        again.assign([committed])
        message = again.poll(10)
        assert message is not None
        assert (message.value(), message.headers()) == (b"2", [("h", b"v")])
        again.close()


def test_outside_of_its_time_it_says_so() -> None:
    """A broker that does not run has no address."""
    broker = EmbeddedBroker()
    with pytest.raises(RuntimeError, match="not running"):
        _ = broker.bootstrap
    with pytest.raises(RuntimeError, match="not running"):
        broker.create("events")
