"""What a topic keeps: checks for compaction, and deletes the beginning of a partition."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]  # the stub forgets to export it

from connector.config.loader import KafkaSettings
from connector.errors import ConnectorError
from connector.kafka.client import Admin, admin_config, error_text, until_resolved

_SECONDS: Final = 15.0
_CONFIG_SECONDS: Final = 5.0


class Retention(Admin):
    """Asks about topics and deletes records, inside `async with`."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(admin_config(settings), "retention")

    async def compacted(self, topic: str) -> str | None:
        """Return why a dead-letter topic must not be written to, because it is compacted; None if it is not.

        Also None if this client may not describe the topic's configuration.
        """
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)

        async def ask() -> Mapping[str, Any]:
            (future,) = self.client.describe_configs([resource], request_timeout=_CONFIG_SECONDS).values()
            found: Mapping[str, Any] = await asyncio.wrap_future(future)
            return found

        try:
            policy = (await until_resolved(ask))["cleanup.policy"].value or ""
        except (KafkaException, KeyError):
            return None
        # Also "compact,delete": both policies apply then.
        if "compact" not in policy:
            return None
        return (
            f"topic {topic} is compacted, so of several dead letters with one key only the last stays, and the record "
            "that resolves it deletes the others; run kafka-configs --alter --entity-type topics --entity-name "
            f"{topic} --add-config cleanup.policy=delete"
        )

    async def delete_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Permanently delete the records before an offset of each partition. Raises `ConnectorError`."""
        places = [PartitionOffset(topic, partition, offset) for partition, offset in offsets.items()]

        async def delete() -> None:
            futures = self.client.delete_records(places, request_timeout=_SECONDS)
            await asyncio.gather(*map(asyncio.wrap_future, futures.values()))

        try:
            await until_resolved(delete)
        except KafkaException as error:
            raise ConnectorError(f"Kafka refuses to delete records of {topic}: {error_text(error)}") from None
