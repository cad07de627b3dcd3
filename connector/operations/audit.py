"""The topic of audit records, on Kafka."""

from __future__ import annotations

from connector.clock import SystemClock
from connector.config.loader import KafkaSettings
from connector.kafka.producer import KafkaProducer
from connector.kafka.topics import OwnTopic, TopicCheck


class KafkaAuditTopic:
    """Writes audit records; see `AuditTopic` in `console.audit`."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._producer = KafkaProducer(settings)

    async def open(self) -> None:
        """Connect. Raises `StartupError` if the topic does not exist and may not be created."""
        async with TopicCheck(self._settings, clock=SystemClock()) as check:
            await check.wait(lambda _reason: None)
            await check.check([], [OwnTopic(self._topic, "audit")])
        await self._producer.start()

    async def write(self, record: bytes) -> None:
        """Return once Kafka has acknowledged the record."""
        await self._producer.send(self._topic, key=None, value=record)

    async def close(self) -> None:
        """Close the Kafka client."""
        await self._producer.close(2.0)
