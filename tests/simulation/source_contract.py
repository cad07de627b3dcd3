"""What any source of records keeps to, checked on the model broker and on a real Kafka, so that the model is no kinder.

A `World` is one topic of two partitions and one group. Each check is a coroutine over a world; `CHECKS` lists them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from connector.pipeline.runner import RecordSource
from connector.records import Assigned, Commit, Position, Record, TopicPartition


class ContractMember:
    """A source, and what its listener was told; `done` by partition is committed inside `on_revoke`."""

    def __init__(self, source: RecordSource) -> None:
        self.source = source
        self.records: list[Record] = []
        self.assigned: list[Assigned] = []
        self.owned: set[TopicPartition] = set()
        self.revoked: list[TopicPartition] = []
        self.done: dict[TopicPartition, Commit] = {}
        self.faults: dict[TopicPartition, str] = {}

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Note what was assigned; no record of it came before."""
        known = {(record.topic, record.partition) for record in self.records} - set(self.revoked)
        assert known.isdisjoint((one.topic, one.partition) for one in partitions)
        self.assigned += partitions
        self.owned.update((one.topic, one.partition) for one in partitions)

    async def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit inside the callback."""
        await asyncio.sleep(0.1)
        self.faults |= await self.source.commit([self.done[one] for one in partitions if one in self.done])
        self.revoked += partitions
        self.owned.difference_update(partitions)

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Note what was lost."""
        self.owned.difference_update(partitions)

    async def once(self) -> None:
        """Poll once; what was read counts as done."""
        for record in await self.source.poll():
            self.records.append(record)
            self.done[record.topic, record.partition] = Commit(record.topic, record.partition, record.offset + 1, "")

    async def until(self, condition: Callable[[], bool], *others: ContractMember) -> None:
        """Poll, the other members too, until the condition holds; 30 seconds at most."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 30
        while not condition():
            assert loop.time() < end, f"not within 30 s: {self.assigned} {len(self.records)} records"
            await asyncio.gather(*(member.once() for member in (self, *others)))


class World(Protocol):
    """One topic of two partitions and one group."""

    topic: str

    async def join(self) -> ContractMember:
        """Return a member that was started."""
        ...

    def produce(self, count: int, partition: int) -> None:
        """Write so many records."""
        ...

    def committed(self, partition: int) -> tuple[int, str] | None:
        """Return what another client sees committed; None where nothing is."""
        ...


async def a_restart_goes_on_where_the_commit_was(world: World) -> None:
    """A commit keeps offset and metadata, also where only the metadata changes; the next member is told both."""
    world.produce(10, 0)
    first = await world.join()
    await first.until(lambda: len(first.records) == 10)
    assert Assigned(world.topic, 0, 0, None, "") in first.assigned
    assert await first.source.commit([Commit(world.topic, 0, 4, "map")]) == {}
    assert await first.source.commit([Commit(world.topic, 0, 4, "other map")]) == {}
    first.done.clear()
    await first.source.close()
    assert world.committed(0) == (4, "other map")
    second = await world.join()
    await second.until(lambda: len(second.records) == 6)
    assert Assigned(world.topic, 0, 4, 4, "other map") in second.assigned
    assert [record.offset for record in second.records] == list(range(4, 10))
    await second.source.close()


async def nothing_is_committed_by_itself(world: World) -> None:
    """Who only reads and leaves commits nothing."""
    world.produce(3, 0)
    member = await world.join()
    await member.until(lambda: len(member.records) == 3)
    member.done.clear()
    await member.source.close()
    assert world.committed(0) is None


async def a_commit_in_on_revoke_is_where_the_next_one_begins(world: World) -> None:
    """A second member takes a partition over from inside the first one's poll; no record comes twice or never."""
    for partition in (0, 1):
        world.produce(20, partition)
    first = await world.join()
    await first.until(lambda: len(first.records) == 40)
    second = await world.join()
    await first.until(lambda: len(first.owned) == 1 and len(second.owned) == 1, second)
    assert first.faults == {}
    assert first.revoked
    for partition in (0, 1):
        world.produce(5, partition)
    await first.until(lambda: len(first.records) + len(second.records) >= 50, second)
    read = sorted((record.partition, record.offset) for record in first.records + second.records)
    assert read == [(partition, offset) for partition in (0, 1) for offset in range(25)]
    await second.source.close()
    await first.source.close()


async def close_revokes_and_commits_inside(world: World) -> None:
    """Leaving tells the listener, whose commit is stored; closing twice does nothing."""
    world.produce(3, 0)
    member = await world.join()
    await member.until(lambda: len(member.records) == 3)
    await member.source.close()
    await member.source.close()
    assert sorted(member.revoked) == [(world.topic, 0), (world.topic, 1)]
    assert world.committed(0) == (3, "")


async def a_paused_partition_rests(world: World) -> None:
    """Nothing comes of a paused partition; resumed it leaves nothing out. A partition that is not ours is no fault."""
    member = await world.join()
    await member.until(lambda: len(member.owned) == 2)
    await member.source.pause([(world.topic, 0), ("not ours", 3)])
    for partition in (0, 1):
        world.produce(5, partition)
    await member.until(lambda: len(member.records) == 5)
    for _ in range(10):
        await member.once()
    assert {record.partition for record in member.records} == {1}
    await member.source.resume([(world.topic, 0), ("not ours", 3)])
    await member.until(lambda: len(member.records) == 10)
    assert [record.offset for record in member.records if record.partition == 0] == list(range(5))
    await member.source.close()


async def a_commit_with_too_much_metadata_is_told(world: World) -> None:
    """One partition's fault is told of both, because the client tells no more; the other one is stored all the same."""
    for partition in (0, 1):
        world.produce(2, partition)
    member = await world.join()
    await member.until(lambda: len(member.records) == 4)
    topic = world.topic
    faults = await member.source.commit([Commit(topic, 0, 2, "x" * 5000), Commit(topic, 1, 2, "x" * 4095)])
    assert set(faults) == {(topic, 0), (topic, 1)}
    member.done.clear()
    await member.source.close()
    assert world.committed(0) is None
    assert world.committed(1) == (2, "x" * 4095)


async def the_broker_takes_a_commit_that_goes_back(world: World) -> None:
    """No one but the connector itself keeps an offset from going backwards."""
    world.produce(10, 0)
    member = await world.join()
    await member.until(lambda: len(member.records) == 10)
    assert await member.source.commit([Commit(world.topic, 0, 10, "")]) == {}
    assert await member.source.commit([Commit(world.topic, 0, 1, "")]) == {}
    member.done.clear()
    await member.source.close()
    assert world.committed(0) == (1, "")


async def the_broker_takes_a_commit_for_what_is_another_members(world: World) -> None:
    """No one but the connector itself keeps a member from committing for a partition that it gave away."""
    for partition in (0, 1):
        world.produce(5, partition)
    first = await world.join()
    await first.until(lambda: len(first.records) == 10)
    second = await world.join()
    await first.until(lambda: len(first.owned) == 1 and len(second.owned) == 1, second)
    given = next(iter(second.owned))
    assert await first.source.commit([Commit(*given, 2, "")]) == {}
    assert world.committed(given[1]) == (2, "")
    for member in (second, first):
        member.done.clear()
        await member.source.close()


async def the_ends_become_known(world: World) -> None:
    """The end offsets of what is assigned are told after a while."""
    world.produce(7, 1)
    member = await world.join()
    await member.until(lambda: member.source.ends() == {(world.topic, 0): 0, (world.topic, 1): 7})
    await member.source.close()


async def records_are_read_again_by_position(world: World) -> None:
    """Chosen records come while polling goes on, and nothing moves: neither what is read next nor what is committed.

    A position that holds no record is left out.
    """
    for partition in (0, 1):
        world.produce(20, partition)
    member = await world.join()
    await member.until(lambda: len(member.records) == 40)
    await member.source.pause([(world.topic, 0)])
    wanted = [
        Position(world.topic, partition, offset) for partition, offset in ((1, 3), (0, 7), (0, 8), (1, 19), (0, 99))
    ]
    reading = asyncio.create_task(member.source.read_again(wanted))
    await member.until(reading.done)
    found = reading.result()
    assert sorted(record.position for record in found) == sorted(wanted[:-1])
    assert {record.position: record.value for record in found}.items() <= {
        record.position: record.value for record in member.records
    }.items()
    await member.source.resume([(world.topic, 0)])
    for partition in (0, 1):
        world.produce(1, partition)
    await member.until(lambda: len(member.records) == 42)
    assert [record.offset for record in member.records[40:]] == [20, 20]
    member.done.clear()
    await member.source.close()
    assert world.committed(0) is None


CHECKS: Final[tuple[Callable[[World], Awaitable[None]], ...]] = (
    a_restart_goes_on_where_the_commit_was,
    nothing_is_committed_by_itself,
    a_commit_in_on_revoke_is_where_the_next_one_begins,
    close_revokes_and_commits_inside,
    a_paused_partition_rests,
    a_commit_with_too_much_metadata_is_told,
    the_broker_takes_a_commit_that_goes_back,
    the_broker_takes_a_commit_for_what_is_another_members,
    the_ends_become_known,
    records_are_read_again_by_position,
)
