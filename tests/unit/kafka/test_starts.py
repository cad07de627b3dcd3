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
EARLY: Final = 4
"""A time: that of the record at this offset."""


class ModelKafka:
    """One topic whose partitions grow with each request, answered after a drawn delay; and a group's offsets.

    `slow` is the largest part of a delay, of which there are up to three.
    """

    def __init__(self, partitions: int, seed: int = 0, slow: float = 1.0) -> None:
        self._slow = slow
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
        """Return first offsets (-2) or ends (-1), else the offset that is the time, -1 behind the end.

        Fails, as librdkafka does, if any of the partitions does not exist.
        """
        await self._take_time()
        if any(each.partition not in self.ends for each in partitions):
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return [PartitionOffset("t", each.partition, self._at(each.partition, each.offset)) for each in partitions]

    def _at(self, partition: int, time: int) -> int:
        end = self.ends[partition]
        return {-2: 0, -1: end}.get(time, time if time < end else -1)

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Note the group's offsets, those of partitions that exist."""
        await self._take_time()
        self.offsets |= {commit.partition: commit.offset for commit in commits if commit.partition in self.ends}
        return {}

    async def _take_time(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(self._slow * self._random.random())
            for partition in self.ends:
                self.ends[partition] += self._random.randrange(3)

    @property
    def consumer(self) -> AIOConsumer:
        """This, as a member's consumer."""
        return cast("AIOConsumer", self)


class Member:
    """What one process knows of where to start."""

    def __init__(self, kafka: ModelKafka, start: str | int = "latest") -> None:
        self._kafka = kafka
        self._starts = Starts(start)

    async def begin(self, partitions: Sequence[int]) -> list[Assigned]:
        """Return where assigned partitions start."""
        assigned = [PartitionOffset("t", partition) for partition in partitions]
        found = await self._starts.find(self._kafka.consumer, assigned, self._kafka.commit)
        assert found is not None
        return found

    async def look(self) -> None:
        """Begin the topic, if it was recreated, while none of its partitions is here."""
        await self._starts.begin_recreated(self._kafka.consumer, {"t"}, self._kafka.commit)


@pytest.mark.promise("P1")
@given(st.integers(2, 4), st.integers(2, 6), st.integers(), st.integers(0, 1), st.sampled_from(["latest", EARLY]))
def test_no_member_of_a_new_group_commits_above_the_start_of_another(
    members: int, partitions: int, seed: int, dead: int, start: str | int
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
        group = [Member(kafka, start) for _ in range(dead, members)]
        shares = [range(number, partitions, members) for number in range(dead, members)]
        began = await asyncio.gather(*(member.begin(share) for member, share in zip(group, shares, strict=True)))
        starts = {assigned.partition: assigned.start for share in began for assigned in share}
        first = OLD if start == "latest" else EARLY
        assert kafka.offsets.keys() == kafka.ends.keys()
        assert all(first <= kafka.offsets[partition] <= at for partition, at in starts.items())
        assert start == "latest" or set(starts.values()) == {EARLY}
        later = Member(kafka, start)
        assert {each.partition: each.start for each in await later.begin(range(partitions))} == kafka.offsets

    run_virtual(story())


@pytest.mark.promise("P1")
@pytest.mark.parametrize("start", ["earliest", "latest", OLD, 10**6])
@pytest.mark.parametrize("restarted", [True, False])
def test_an_added_partition_is_read_from_its_first_record(start: str | int, *, restarted: bool) -> None:
    """Its records came while the group was at work, whatever their timestamps are; also where nothing came since.

    Kills: `latest` or a time for each partition in which the group has no offset.
    """

    async def story() -> None:
        kafka = ModelKafka(2)
        member = Member(kafka, start)
        old = {each.partition: each.start for each in await member.begin([0, 1])}
        if start == "earliest":
            await kafka.commit([Commit("t", partition, 0, "") for partition in old])
        kafka.ends[2] = 5
        (added,) = await (Member(kafka, start) if restarted else member).begin([2])
        assert added.start == 0
        assert all((at >= OLD) == (start != "earliest") for at in old.values())

    run_virtual(story())


@pytest.mark.promise("P1")
@pytest.mark.parametrize("start", ["latest", OLD])
@pytest.mark.parametrize("notices", ["assigned", "looks"])
def test_a_recreated_topic_is_read_from_its_first_record(start: str | int, notices: str) -> None:
    """Kafka deletes the offsets with a topic. A member that has had partitions of it knows that the group was at work.

    It reads the new topic from its beginning. If it has no partition of it now, it says so to members that come later,
    by the group's offsets; not as long as there is no topic, and never over an offset of the group.
    Kills: the start of a new group, for records that came between the creation and the assignment.
    """

    async def story() -> None:
        kafka = ModelKafka(2)
        member, other = Member(kafka, start), Member(kafka, start)
        began = await member.begin([0, 1])
        await member.look()
        assert kafka.offsets == {each.partition: each.start for each in began}
        kafka.ends, kafka.offsets = {}, {}
        await member.look()
        assert kafka.offsets == {}
        kafka.ends = dict.fromkeys(range(3), 7)
        if notices == "looks":
            await member.look()
            assert kafka.offsets == {0: 0, 1: 0, 2: 0}
            kafka.offsets = {1: 4}
            await member.look()
            assert kafka.offsets == {1: 4}
        began = await (member if notices == "assigned" else other).begin([0, 2])
        assert [each.start for each in began] == [0, 0]
        assert kafka.offsets | {0: 0, 2: 0} == kafka.offsets

    run_virtual(story())


@pytest.mark.promise("P1")
@given(st.integers(), st.floats(0, 2), st.sampled_from(["latest", EARLY]))
def test_a_member_that_joins_while_a_topic_is_recreated_reads_it_from_its_first_record(
    seed: int, notices: float, start: str | int
) -> None:
    """It does not know that the topic is newer than the group, but another member does, at its next look.

    Kills: a topic that is begun at its end as soon as a member finds no offset in it.
    """

    async def story() -> None:
        kafka = ModelKafka(2, seed, slow=0.1)
        knows, joins = Member(kafka, start), Member(kafka, start)
        await knows.begin([0, 1])
        kafka.ends, kafka.offsets = dict.fromkeys(range(2), 7), {}
        joining = asyncio.create_task(joins.begin([0, 1]))
        await asyncio.sleep(notices)
        await knows.look()
        assert [each.start for each in await joining] == [0, 0]

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
