"""A group is asked about only while a broker answers."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.membership import GroupMembership


class Away(GroupMembership):
    """A cluster of which no broker answers."""

    async def topics(self, timeout: float) -> Any:
        """Fail as librdkafka does."""
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))


async def test_no_group_request_waits_for_a_broker_that_is_away() -> None:
    """A member that lost its partitions with its broker asks for metadata only, which says why it has none.

    librdkafka can end the process by an assertion where an admin request waits for a broker. Kills: a question to the
    group's coordinator at each look, whatever answers.
    """
    settings = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"})
    async with Away(settings) as groups:
        with pytest.raises(StartupError, match="cannot read group g: _TRANSPORT"):
            await groups.why_unassigned("g", {"t": 1})
