"""The ids of the topics that a member reads: whether one was recreated while it is read.

Kafka knows topics by ids, clients keep their positions by names. If a topic is deleted and recreated before a member
notices, librdkafka silently reads on in the new one from its position in the old one. A commit would then skip the
first records of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, KeysView, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from connector.config.loader import KafkaSettings
from connector.kafka.client import Admin, admin_config, kafka_error
from connector.records import TopicPartition

GONE: Final = "gone"
"""Stands for the id of a topic that does not exist."""
_UNKNOWN: Final = ""
"""Stands for the id of a topic that Kafka has not described since its partition was assigned."""
_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 60.0


class HeldIds:
    """The topic ids of the partitions that a member holds. Pure: `found` is what Kafka says now, by topic.

    The id belongs to an assignment of a partition, not to a topic: when further partitions of the topic are assigned,
    they may already be the new topic's, while those held since before are still the old one's. A topic that is not in
    `found`, because Kafka does not describe it now, is assumed to be the same; if that is so at the assignment, the
    first id that is found later counts. One that does not exist at the assignment is another one when it comes back,
    unless the partition begins at its first offset: any other offset is the old topic's.
    """

    def __init__(self) -> None:
        self._ids: dict[TopicPartition, str] = {}
        self._recreated: set[TopicPartition] = set()

    @property
    def partitions(self) -> KeysView[TopicPartition]:
        """The partitions that are held."""
        return self._ids.keys()

    def knows(self, partition: TopicPartition) -> bool:
        """Whether an id of a partition's topic was found since the partition was assigned."""
        return self._ids.get(partition, _UNKNOWN) != _UNKNOWN

    def note(self, partitions: Collection[TopicPartition], found: Mapping[str, str]) -> None:
        """Note the ids of newly assigned partitions' topics."""
        self.forget(partitions)
        self._ids |= {partition: found.get(partition[0], _UNKNOWN) for partition in partitions}
        self.others(self._ids, found)

    def at_first_offset(self, partitions: Iterable[TopicPartition]) -> None:
        """Note which of the assigned partitions begin at their first offset, so that no record can be passed over."""
        self._ids |= {partition: _UNKNOWN for partition in partitions if self._ids.get(partition) == GONE}

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that are revoked or assigned again."""
        for partition in partitions:
            self._ids.pop(partition, None)
            self._recreated.discard(partition)

    def others(self, partitions: Collection[TopicPartition], found: Mapping[str, str]) -> set[TopicPartition]:
        """Return those of the partitions whose topic no longer exists, or was recreated."""
        others = set()
        for partition in partitions:
            held, now = self._ids.get(partition), found.get(partition[0])
            if held is None or now is None:
                continue
            if held == _UNKNOWN:
                self._ids[partition] = _UNKNOWN if now == GONE else now
            elif now == GONE or now != held:
                others.add(partition)
        # A topic that is gone is waited for: its partitions are revoked before another one of its name is read.
        self._recreated |= {partition for partition in others if found[partition[0]] != GONE}
        return others

    def fault(self) -> str | None:
        """Return the message for topics that were recreated while their partitions are held, None if there are none."""
        recreated = sorted({topic for topic, _ in self._recreated})
        if not recreated:
            return None
        return (
            f"topic {', '.join(recreated)} was deleted and recreated while being consumed. Going on would skip the new "
            "topic's first records, so nothing was committed. The next run begins at kafka.start; to choose another "
            "place, run `connector offsets reset`"
        )


class TopicIds:
    """Asks Kafka for topic ids. The same answers tell how many partitions the topics have: they go into `counts`."""

    def __init__(self, settings: KafkaSettings, counts: dict[str, int]) -> None:
        self._config = admin_config(settings)
        self._counts = counts
        self._admin: Admin | None = None
        self._unanswered = False
        self._quiet_until = 0.0
        self.held = HeldIds()
        """What the answers say of the partitions that are held."""

    async def note(self, partitions: Collection[TopicPartition]) -> None:
        """Note the present ids of newly assigned partitions' topics.

        Call it before Kafka is asked for their offsets: if a topic changes in between, the next commit notices.
        """
        self.held.note(partitions, await self._ask({topic for topic, _ in partitions}))

    async def look(self) -> None:
        """Look whether a topic was recreated or has grown, though nothing is committed."""
        await self.others(self.held.partitions)

    async def others(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        """Return those of the partitions whose topic no longer exists, or was recreated."""
        asked = self.held.partitions & set(partitions)
        # Some brokers that speak Kafka's protocol never tell ids. Each question would hold a commit up for seconds.
        if asyncio.get_running_loop().time() < self._quiet_until:
            asked = {partition for partition in asked if self.held.knows(partition)}
        found = await self._ask({topic for topic, _ in asked})
        return self.held.others(partitions, found)

    async def close(self) -> None:
        """Close the client if there is one."""
        if self._admin is not None:
            await self._admin.close()

    async def _ask(self, topics: set[str]) -> dict[str, str]:
        """Return the id of each topic, `GONE` if it does not exist; without topics that Kafka does not describe."""
        ids: dict[str, str] = {}
        if not topics:
            return ids
        if self._admin is None:
            self._admin = Admin(self._config, "topics")
        try:
            # Metadata first where the last question had no answer: librdkafka's admin requests can end the process (an
            # assertion in rdkafka_queue.h) if they wait for a broker that is away.
            if self._unanswered:
                await self._admin.topics(_SECONDS)
            futures = self._admin.client.describe_topics(TopicCollection(sorted(topics)), request_timeout=_SECONDS)
        except KafkaException:
            return ids
        self._unanswered = False
        for topic, future in futures.items():
            try:
                described = await asyncio.wrap_future(future)
            except KafkaException as error:
                if kafka_error(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    ids[topic] = GONE
                else:
                    self._unanswered = True
                    self._quiet_until = asyncio.get_running_loop().time() + _QUIET_SECONDS
            else:
                ids[topic] = str(described.topic_id)
                self._counts[topic] = len(described.partitions)
        return ids
