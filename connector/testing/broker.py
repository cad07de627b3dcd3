"""A Kafka broker inside this process, for tests and for the demo: nothing to install, ready at once.

It is librdkafka's own mock broker. Topics appear on first use with four partitions; consumer groups, commit
metadata, transactions and clients of other processes work. It is not a real broker: it keeps about 5 MB a
partition and then drops the oldest records, it cannot create or describe topics, and it takes larger commit metadata
than a real one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from confluent_kafka import Producer

PARTITIONS = 4
"""How many partitions a topic gets on its first use; the mock broker's own default."""

_START_SECONDS = 10.0


class EmbeddedBroker:
    """A mock cluster of one broker that lives as long as the context it is used in."""

    def __init__(self) -> None:
        self._cluster: Producer | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """Where it listens, as `bootstrap.servers` wants it. Raises `RuntimeError` when it does not run."""
        if self._cluster is None:
            raise RuntimeError("the embedded broker is not running: use it in a with statement, or call start()")
        return self._bootstrap

    def start(self) -> None:
        """Start the broker; blocks for some milliseconds until it answers. Starting it twice does nothing."""
        if self._cluster is not None:
            return
        cluster = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": "1", "log_level": 3})
        brokers = cluster.list_topics(timeout=_START_SECONDS).brokers.values()
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._cluster = cluster

    def stop(self) -> None:
        """Stop the broker and forget its records; clients that are still connected see it go."""
        self._cluster = None

    def create(self, topic: str) -> int:
        """Make the topic appear, as its first use would, and return how many partitions it has."""
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
