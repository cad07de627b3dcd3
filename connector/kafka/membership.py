"""Whether a group has a member, and whether this user may read the group: asked from outside of it.

An answered metadata request says nothing about either: it comes from any broker, and the group from one of them, under
an address and a permission of its own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # it re-exports it without saying so

from connector.errors import StartupError
from connector.kafka.client import error_text
from connector.kafka.groups import Groups

_SECONDS: Final = 5.0


class GroupMembership(Groups):
    """One cluster's groups as their coordinators describe them; use inside `async with`."""

    async def has_member(self, group: str, member: str | None) -> bool:
        """Whether the group has a member with this id. Raises `StartupError` with the reason if it cannot be read."""
        described = await self._describe(group, operations=False)
        return any(each.member_id == member for each in described.members)

    async def may_read(self, group: str) -> bool:
        """Whether this user may READ the group, as a member has to. Raises `StartupError` if it cannot be told."""
        operations = (await self._describe(group, operations=True)).authorized_operations
        # None: a broker that does not say.
        return operations is None or AclOperation.READ in operations or AclOperation.ALL in operations

    async def _describe(self, group: str, *, operations: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- confluent-kafka gives no types here
        try:
            futures = self.client.describe_consumer_groups(
                [group], include_authorized_operations=operations, request_timeout=_SECONDS
            )
            return await asyncio.wrap_future(futures[group])
        except KafkaException as error:
            raise StartupError(f"cannot read group {group}: {error_text(error)}") from None
