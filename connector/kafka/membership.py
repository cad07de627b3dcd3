"""A group as its coordinator reports it: whether this user may read it, and whether partitions are unassigned.

A metadata request shows neither: any broker answers it, but one particular broker leads the group, with its own address
and permission. The check does not use the consumer's member id: librdkafka's call for it holds the GIL while it waits
for a thread that may itself wait for the GIL to log a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # it re-exports it without saying so

from connector.errors import StartupError
from connector.kafka.client import error_text, kafka_error, until_resolved
from connector.kafka.groups import Groups

_SECONDS: Final = 2.0
"""A request in flight may delay a stop by this time."""


class GroupMembership(Groups):
    """One cluster's groups as their coordinators describe them; use inside `async with`, or `close` it."""

    async def may_read(self, group: str) -> bool:
        """Whether this user may READ the group, which members need. Raises `StartupError` if that is unknown.

        Repeats what is transient, for a command: a member asks again anyway.
        """
        return _may_read(await self._describe(group, repeat=True))

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
        # An unassigned partition could still go to this member, so it has not joined yet.
        left = sum(partitions.values()) - sum(topic in partitions for topic, _ in assigned)
        return f"joining the group: {left} of its partitions have no member" if left > 0 else None

    async def _describe(self, group: str, *, repeat: bool = False) -> Any:
        async def ask() -> Any:
            # Metadata first: see `TopicIds`. Often a member has no partitions because no broker answers.
            await self.topics(_SECONDS)
            futures = self.client.describe_consumer_groups(
                [group], include_authorized_operations=True, request_timeout=_SECONDS
            )
            return await asyncio.wrap_future(futures[group])

        try:
            return await (until_resolved(ask) if repeat else ask())
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                # READ includes DESCRIBE, so whichever is missing, READ is what to grant.
                raise StartupError(may_not_read(group)) from None
            raise StartupError(f"cannot read group {group}: {error_text(error)}") from None


def may_not_read(group: str) -> str:
    """Return the message for a user without READ on the group, with the command that grants it."""
    command = f"kafka-acls --add --allow-principal User:… --operation Read --group {group}"
    return f"this user may not READ group {group}; grant it: {command}"


def _may_read(described: Any) -> bool:
    # None means that the broker does not tell.
    operations = described.authorized_operations
    return operations is None or AclOperation.READ in operations or AclOperation.ALL in operations
