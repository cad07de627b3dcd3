"""Whether a topic is still the one that was assigned: Kafka knows topics by ids, clients keep their places by names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from connector.config.loader import KafkaSettings
from connector.kafka.admin import Admin
from connector.kafka.client import admin_config, kafka_error

_REQUEST_SECONDS: Final = 2.0
_GONE: Final = "gone"


class TopicIds:
    """The ids of the topics that a member reads.

    Where a topic is deleted and made again before a member notices, librdkafka reads on in the new one from where it
    was in the old one, and says nothing. A commit would then put the first records of the new one behind the group.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._config = admin_config(settings)
        self._admin: Admin | None = None
        self._ids: dict[str, str] = {}
        self._anew: set[str] = set()

    async def note(self, topics: Iterable[str]) -> None:
        """Take the ids that these topics have now for theirs.

        To be called before Kafka tells their offsets: where a topic changes between both, the next commit finds out.
        """
        for topic, found in (await self._ask(set(topics))).items():
            self._anew.discard(topic)
            if found != _GONE:
                self._ids[topic] = found

    async def others(self, topics: Iterable[str]) -> set[str]:
        """Return those of the topics that are not there any more, or are others now by the same name.

        One that Kafka does not tell about is believed to be the same.
        """
        found = await self._ask({topic for topic in topics if topic in self._ids})
        others = {topic for topic, one in found.items() if one != self._ids[topic]}
        # One that is gone is waited for: its partitions are taken away before another one of its name is read.
        self._anew |= {topic for topic in others if found[topic] != _GONE}
        return others

    def fault(self, topics: Iterable[str]) -> str | None:
        """Return what to say where one of these topics was found to be another; None otherwise."""
        anew = sorted(self._anew.intersection(topics))
        if not anew:
            return None
        return (
            f"topic {', '.join(anew)} was deleted and made anew while it was read. Going on would pass over the new "
            "one's first records, so nothing was committed: the next run begins at kafka.start, or where "
            "`connector offsets reset` says"
        )

    async def close(self) -> None:
        """Close the client, where there was anything to ask."""
        if self._admin is not None:
            await self._admin.close()

    async def _ask(self, topics: set[str]) -> dict[str, str]:
        """Return the id of each topic, `gone` for one that is not there; left out is what Kafka does not tell."""
        ids: dict[str, str] = {}
        if not topics:
            return ids
        if self._admin is None:
            self._admin = Admin(self._config, "topics")
        try:
            futures = self._admin.client.describe_topics(
                TopicCollection(sorted(topics)), request_timeout=_REQUEST_SECONDS
            )
        except KafkaException:
            return ids
        for topic, future in futures.items():
            try:
                ids[topic] = str((await asyncio.wrap_future(future)).topic_id)
            except KafkaException as error:
                if kafka_error(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    ids[topic] = _GONE
        return ids
