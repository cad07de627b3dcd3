"""Where members begin with `kafka.start: latest`, and partitions that do not exist, on a model of Kafka's answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.aio import AIOConsumer
from hypothesis import given
from hypothesis import strategies as st

from connector.kafka.starts import Starts
from connector.records import Assigned, Commit, TopicPartition
from connector.testing.loop import run_virtual

OLD: Final = 10
"""Records of each partition before any member began."""


class ModelKafka:
    """One topic whose partitions grow with each request, answered after a drawn delay; and a group's offsets."""

    def __init__(self, partitions: int, seed: int = 0) -> None:
        self.ends = dict.fromkeys(range(partitions), OLD)
        self.offsets: dict[int, int] = {}
        self._random = Random(seed)

    async def list_topics(self, timeout: float) -> Any:
        """Return the topic and its partitions."""
        await self._take_time()
        return SimpleNamespace(topics={"t": SimpleNamespace(partitions=dict.fromkeys(self.ends))} if self.ends else {})

    async def committed(self, partitions: Sequence[PartitionOffset], timeout: float) -> list[PartitionOffset]:
        """Return the group's offsets."""
        await self._take_time()
        return [PartitionOffset("t", each.partition, self.offsets.get(each.partition, -1001)) for each in partitions]

    async def offsets_for_times(self, partitions: Sequence[PartitionOffset], timeout: float) -> list[PartitionOffset]:
        """Return first offsets (-2) or ends (-1); fail, as librdkafka does, if any of the partitions does not exist."""
        await self._take_time()
        if any(each.partition not in self.ends for each in partitions):
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return [
            PartitionOffset("t", each.partition, 0 if each.offset == -2 else self.ends[each.partition])
            for each in partitions
        ]

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Note the group's offsets, those of partitions that exist."""
        await self._take_time()
        self.offsets |= {commit.partition: commit.offset for commit in commits if commit.partition in self.ends}
        return {}

    async def _take_time(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(self._random.random())
            for partition in self.ends:
                self.ends[partition] += self._random.randrange(3)

    @property
    def consumer(self) -> AIOConsumer:
        """This, as a member's consumer."""
        return cast("AIOConsumer", self)


class Member:
    """What one process knows of where to start."""

    def __init__(self, kafka: ModelKafka, start: str = "latest") -> None:
        self._kafka = kafka
        self._starts = Starts(start)

    async def begin(self, partitions: Sequence[int]) -> list[Assigned]:
        """Return where assigned partitions start."""
        assigned = [PartitionOffset("t", partition) for partition in partitions]
        found = await self._starts.find(self._kafka.consumer, assigned, self._kafka.commit)
        assert found is not None
        return found


@pytest.mark.promise("P1")
@given(st.integers(2, 4), st.integers(2, 6), st.integers(), st.integers(0, 1))
def test_no_member_of_a_new_group_commits_above_the_start_of_another(
    members: int, partitions: int, seed: int, dead: int
) -> None:
    """Members begin in one moment, and each commits a start for the partitions of all: none is above the owner's own.

    Records come meanwhile. What lies between the owner's start and the commit would count as delivered, and be lost
    with the owner. A member that comes later begins at that commit, never in front of the old records. So it is too if
    the member that has to begin the topic died before it did.
    Kills: committing the ends of other members' partitions as they are when each member begins, taking a partition for
    an added one because another member has just begun the topic.
    """

    async def story() -> None:
        kafka = ModelKafka(partitions, seed)
        group = [Member(kafka) for _ in range(dead, members)]
        shares = [range(number, partitions, members) for number in range(dead, members)]
        began = await asyncio.gather(*(member.begin(share) for member, share in zip(group, shares, strict=True)))
        starts = {assigned.partition: assigned.start for share in began for assigned in share}
        assert kafka.offsets.keys() == kafka.ends.keys()
        assert all(OLD <= kafka.offsets[partition] <= start for partition, start in starts.items())
        later = Member(kafka)
        assert {each.partition: each.start for each in await later.begin(range(partitions))} == kafka.offsets

    run_virtual(story())


@pytest.mark.promise("P1")
@pytest.mark.parametrize("start", ["earliest", "latest"])
@pytest.mark.parametrize("left", [0, 1, 2])
def test_partitions_that_are_gone_do_not_keep_the_others_from_beginning(start: str, left: int) -> None:
    """A topic is deleted, or recreated with fewer partitions, after Kafka assigned four: all four begin at once.

    Those that are gone begin at 0, where they begin if they are created again, and nothing is committed for them.
    Kills: asking for the end of such a partition again and again, for minutes, while nothing else is polled.
    """

    async def story() -> None:
        kafka = ModelKafka(4)
        member = Member(kafka, start)
        for partition in range(left, 4):
            del kafka.ends[partition]
        began = await member.begin(range(4))
        assert [each.start for each in began][left:] == [0] * (4 - left)
        assert all((each.start >= OLD) == (start == "latest") for each in began[:left])
        assert set(kafka.offsets) == (set(range(left)) if start == "latest" else set())

    run_virtual(story())


def test_a_member_that_waits_for_another_to_begin_a_topic_can_be_stopped() -> None:
    """The member that has to begin the topic is dead: one that waits for it leaves without a start when it is told to.

    Kills: a stop that waits out the other member, past its own deadline.
    """

    async def story() -> None:
        kafka = ModelKafka(2)
        closing = asyncio.Event()
        starts = Starts("latest", is_closing=closing.is_set)
        waiting = asyncio.create_task(starts.find(kafka.consumer, [PartitionOffset("t", 1)], kafka.commit))
        await asyncio.sleep(10)
        closing.set()
        async with asyncio.timeout(5):
            assert await waiting is None
        assert kafka.offsets == {}

    run_virtual(story())
