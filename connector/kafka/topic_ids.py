"""Detects by topic ids whether a topic was recreated while a member reads it.

Kafka identifies topics by id, but clients keep their positions by name. If a topic is deleted and recreated before a
member notices, librdkafka silently continues in the new topic at its position in the old one. A commit would then skip
the first records of the new topic.
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
"""The id of a topic that does not exist."""
_UNKNOWN: Final = ""
"""The id of a topic that Kafka has not described since its partition was assigned."""
_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 60.0


class HeldIds:
    """The topic ids of the partitions that a member holds. Pure: `found` has the ids that Kafka reports now, by topic.

    An id is kept for each assigned partition, not for each topic: partitions that are assigned later may already belong
    to the new topic, while those held before are still the old one's. A topic that is not in `found`, because Kafka
    does not describe it now, is assumed to be unchanged. If that happens at the assignment, the first id found later
    counts. A topic that does not exist at the assignment is another topic when it comes back, unless the partition
    starts at its first offset, because any other offset is the old topic's.
    """

    def __init__(self) -> None:
        self._ids: dict[TopicPartition, str] = {}
        self._recreated: set[TopicPartition] = set()

    @property
    def partitions(self) -> KeysView[TopicPartition]:
        """The partitions that are held."""
        return self._ids.keys()

    def knows(self, partition: TopicPartition) -> bool:
        """Whether the topic's id is known since the partition was assigned."""
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
        # A deleted topic is no fault: its partitions are revoked before another topic of its name is read.
        self._recreated |= {partition for partition in others if found[partition[0]] != GONE}
        return others

    @property
    def recreated(self) -> set[str]:
        """The recreated topics whose partitions are held."""
        return {topic for topic, _ in self._recreated}

    def fault(self) -> str | None:
        """Return the message about recreated topics whose partitions are held; None if there are none."""
        if not self._recreated:
            return None
        return (
            f"topic {', '.join(sorted(self.recreated))} was deleted and recreated while being consumed. Going on would "
            "skip the new topic's first records, so nothing was committed. The next run reads it from its first "
            "record; to choose another place, run `connector offsets reset`"
        )


class TopicIds:
    """Asks Kafka for topic ids. The same answers contain the topics' partition counts, which go into `counts`."""

    def __init__(self, settings: KafkaSettings, counts: dict[str, int]) -> None:
        self._config = admin_config(settings)
        self._counts = counts
        self._admin: Admin | None = None
        self._unanswered = False
        self._quiet_until = 0.0
        self.held = HeldIds()
        """The topic ids of the held partitions, from the answers."""

    async def note(self, partitions: Collection[TopicPartition]) -> None:
        """Note the current topic ids of newly assigned partitions.

        Call it before asking Kafka for their offsets: if a topic is recreated in between, the next commit notices.
        """
        self.held.note(partitions, await self._ask({topic for topic, _ in partitions}))

    async def look(self) -> None:
        """Check whether a topic was recreated or has grown, while there is nothing to commit."""
        await self.others(self.held.partitions)

    async def others(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        """Return those of the partitions whose topic no longer exists, or was recreated."""
        asked = self.held.partitions & set(partitions)
        # Some brokers that speak Kafka's protocol never report ids. Each request would delay a commit by seconds.
        if asyncio.get_running_loop().time() < self._quiet_until:
            asked = {partition for partition in asked if self.held.knows(partition)}
        found = await self._ask({topic for topic, _ in asked})
        return self.held.others(partitions, found)

    async def close(self) -> None:
        """Close the client if there is one."""
        if self._admin is not None:
            await self._admin.close()

    async def _ask(self, topics: set[str]) -> dict[str, str]:
        """Return the id of each topic that Kafka describes; `GONE` for a topic that does not exist."""
        ids: dict[str, str] = {}
        if not topics:
            return ids
        if self._admin is None:
            self._admin = Admin(self._config, "topics")
        try:
            # If the last request had no answer, ask for metadata first: librdkafka's admin requests can crash the
            # process (an assertion in rdkafka_queue.h) if they wait for a broker that is away.
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
