"""A Kafka broker inside this process, for tests and the demo. Needs no installation.

It is librdkafka's mock broker. Topics appear on first use with four partitions; consumer groups, commit metadata,
transactions and clients of other processes work. It differs from a real broker: it keeps about 5 MB a partition and
then drops the oldest records, it cannot create or describe topics, and it accepts larger commit metadata.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from confluent_kafka import Producer

PARTITIONS = 4
"""Partitions of a topic on first use; the mock broker's default."""

_START_SECONDS = 10.0


class EmbeddedBroker:
    """A mock cluster of one broker, running while its context is open."""

    def __init__(self) -> None:
        self._cluster: Producer | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """The broker's address for `bootstrap.servers`. Raises `RuntimeError` if it is not running."""
        if self._cluster is None:
            raise RuntimeError("the embedded broker is not running: use it in a with statement, or call start()")
        return self._bootstrap

    def start(self) -> None:
        """Start the broker; blocks for some milliseconds until it answers. Idempotent."""
        if self._cluster is not None:
            return
        cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": "1", "log_level": 3})
        brokers = cluster.list_topics(timeout=_START_SECONDS).brokers.values()
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._cluster = cluster

    def stop(self) -> None:
        """Stop the broker and drop its records; connected clients are disconnected."""
        self._cluster = None

    def create(self, topic: str) -> int:
        """Create the topic, as its first use would; return its number of partitions."""
        if self._cluster is None:
            raise RuntimeError("the embedded broker is not running")
        return len(self._cluster.list_topics(topic, timeout=_START_SECONDS).topics[topic].partitions)

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop the broker."""
        self.stop()
