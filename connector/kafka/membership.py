"""A group as its coordinator reports it: whether this user may read it, and whether partitions are left over.

An answered metadata request says nothing about either: it comes from any broker, and the group from one of them, under
an address and a permission of its own. The consumer's own id is not asked for: librdkafka's call holds Python's lock
while it waits for a thread that may wait for that lock to log a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # it re-exports it without saying so

from connector.errors import StartupError
from connector.kafka.client import error_text, kafka_error
from connector.kafka.groups import Groups

_SECONDS: Final = 2.0
"""A question that is under way delays the end of a stop by so much."""


class GroupMembership(Groups):
    """One cluster's groups as their coordinators describe them; use inside `async with`, or `close` it."""

    async def may_read(self, group: str) -> bool:
        """Whether this user may READ the group, as a member has to. Raises `StartupError` if that is unknown."""
        return _may_read(await self._describe(group))

    async def why_unassigned(self, group: str, partitions: Mapping[str, int]) -> str | None:
        """Return why a member may have no partitions; None if other members have all of them.

        `partitions` are the numbers of partitions of the topics that the group consumes. Raises `StartupError`.
        """
        described = await self._describe(group)
        if not _may_read(described):
            return may_not_read(group)
        assigned = {
            (partition.topic, partition.partition)
            for member in described.members
            for partition in member.assignment.topic_partitions
        }
        # A partition that no member has is one that this member may still get, so it has not joined yet.
        left = sum(partitions.values()) - sum(topic in partitions for topic, _ in assigned)
        return f"joining the group: {left} of its partitions have no member" if left > 0 else None

    async def _describe(self, group: str) -> Any:
        try:
            # Metadata first: see `TopicIds`. A member without partitions often has none because no broker answers.
            await self.topics(_SECONDS)
            futures = self.client.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=_SECONDS
            )
            return await asyncio.wrap_future(futures[group])
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                # READ includes DESCRIBE: without either, READ is what is missing.
                raise StartupError(may_not_read(group)) from None
            raise StartupError(f"cannot read group {group}: {error_text(error)}") from None


def may_not_read(group: str) -> str:
    """Return the fault of a user without READ on the group, with what grants it."""
    command = f"kafka-acls --add --allow-principal User:… --operation Read --group {group}"
    return f"this user may not READ group {group}; grant it: {command}"


def _may_read(described: Any) -> bool:
    # None: a broker that does not say.
    operations = described.authorized_operations
    return operations is None or AclOperation.READ in operations or AclOperation.ALL in operations
