"""Resuming partitions: when a request wakes librdkafka's threads, and what a broker that is slow then costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.aio import AIOConsumer

from connector.config.loader import KafkaSettings
from connector.kafka.consumer import KafkaSource
from connector.testing.clock import ManualClock

PARTITIONS = [("t", 0), ("t", 1)]


class Slow:
    """A consumer whose broker answers no request in time."""

    def __init__(self) -> None:
        self.asked = 0

    async def pause(self, partitions: Sequence[Any]) -> None:
        """Take a pause."""

    async def resume(self, partitions: Sequence[Any]) -> None:
        """Take a resume."""

    async def offsets_for_times(self, partitions: Sequence[Any], *, timeout: float) -> None:
        """Raise what librdkafka raises after `timeout`."""
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


async def test_a_slow_broker_holds_up_one_resume_a_minute() -> None:
    """A wake-up that was not answered is not tried again for a minute, and none is tried while a partition is fetched.

    Kills: half a second and a closed connection for each full buffer while one of several brokers is slow.
    """
    clock, slow = ManualClock(), Slow()
    settings = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "localhost:9092"})
    source = KafkaSource(settings, topics=["t"], own_topics=frozenset(), group_id="g", queue_bytes=1 << 20, clock=clock)
    source._consumer, source._assigned = cast("AIOConsumer", slow), dict.fromkeys(PARTITIONS, 0)
    asked = []
    for paused, seconds in ((PARTITIONS[:1], 0.0), (PARTITIONS, 1.0), (PARTITIONS, 57.0), (PARTITIONS, 3.0)):
        clock.advance(seconds)
        await source.pause(paused)
        await source.resume(paused)
        asked.append(slow.asked)
    assert asked == [0, 1, 1, 2]
