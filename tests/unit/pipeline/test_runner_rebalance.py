"""The runner on virtual time: partitions that come, leave and are lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig


def two_partitions() -> ModelSource:
    """Return a broker with a hundred records in each of two partitions."""
    source = ModelSource(2)
    for number in range(2):
        source.produce(*[b"d"] * 100, partition=number)
    return source


@pytest.mark.promise("P3")
@played
async def test_a_last_commit_that_is_refused_is_made_again() -> None:
    """A coordinator that refuses the last commit for a moment is asked again before the partition is given up.

    Kills: one attempt only, after which a clean hand-over delivers again.
    """
    source = two_partitions()
    rig = PipelineRig(source)
    source.failing.add(("t", 0))
    async with rig.running(0, 1):
        await rig.until(lambda: source.committed.get(("t", 1)) == (100, ""))
        asyncio.get_running_loop().call_later(0.5, source.failing.clear)
        source.revoke(0)
        await rig.until(lambda: ("t", 0) not in source.position)
        assert source.committed["t", 0] == (100, "")


@pytest.mark.promise("P3")
@played
async def test_a_revoke_drains_what_is_under_way_and_then_commits() -> None:
    """The revoked partition's requests are awaited, committed, and it is given up first; the other one goes on.

    Kills: committing before the drain; dropping the other partition's records.
    """
    source = two_partitions()
    rig = PipelineRig(source, latency=None)
    async with rig.running(0, 1):
        await rig.until(lambda: len(rig.to["d"].waiting) == 200)
        for one in [one for one in rig.to["d"].waiting if one.record.partition == 0 and one.record.offset < 20]:
            rig.to["d"].waiting.remove(one)
            rig.to["d"].fly(one, 3.0)
        source.revoke(0)
        await rig.until(lambda: ("t", 0) not in source.position)
        assert source.committed["t", 0] == (20, "")
        assert rig.assignments[-1] == {("t", 1)}
        assert {one.record.partition for one in rig.to["d"].waiting} == {1}
        rig.to["d"].send()
        await rig.until(lambda: source.committed.get(("t", 1)) == (100, ""))


@pytest.mark.promise("P3")
@played
async def test_a_stop_within_a_rebalance_takes_one_drain_time_and_loses_nothing() -> None:
    """A stop that comes while a partition drains lets the others finish meanwhile, and ends in one `drain_timeout`.

    Kills: a drain of the stop that only begins after that of the rebalance, so that it takes twice as long; a stop
    whose second drain has no time left for what was in flight.
    """
    source = two_partitions()
    rig = PipelineRig(source, latency=None, drain_timeout=10.0)
    source.failing.add(("t", 0))
    async with rig.running(0, 1):
        await rig.until(lambda: len(rig.to["d"].waiting) == 200)
        for one in list(rig.to["d"].waiting):
            rig.to["d"].waiting.remove(one)
            hangs = one.record.partition == 1 and one.record.offset >= 50
            rig.to["d"].fly(one, 40.0 if hangs else 9.0)
        source.revoke(0)
        await rig.clock.sleep(1.0)
        rig.stop.set()
        stopped = rig.clock.now()
        await rig.clock.sleep(0.1)
        assert rig.to["d"].stopped
        await rig.until(lambda: source.closed)
        assert rig.clock.now() - stopped < 12.5
        assert source.committed == {("t", 1): (50, "")}
        await rig.clock.sleep(40.0)  # so that what hangs gives its bytes back


@pytest.mark.promise("P2")
@played
async def test_what_misses_the_drain_never_commits() -> None:
    """A request that outlasts the drain is never committed, neither here nor in the partition's next epoch.

    Kills: an epoch that reaches into the next; a wait without end.
    """
    source = two_partitions()
    rig = PipelineRig(source, latency=30.0, drain_timeout=5.0)
    async with rig.running(0):
        await rig.until(lambda: rig.to["d"].flying)
        source.revoke(0)
        await rig.until(lambda: ("t", 0) not in source.position, within=6)
        assert source.commits == []
        source.assign(0)
        await rig.clock.sleep(28)
        assert len(rig.to["d"].done) == 100
        assert source.commits == []
        await rig.until(lambda: source.committed.get(("t", 0)) == (100, ""))
    assert len(rig.to["d"].done) == 200


@pytest.mark.promise("P2")
@played
async def test_a_lost_partition_commits_nothing() -> None:
    """Partitions that another member already has are forgotten: no commit, no waiting, and their memory is freed.

    Kills: a commit for a lost partition.
    """
    source = two_partitions()
    rig = PipelineRig(source, latency=None)
    async with rig.running(0):
        await rig.until(lambda: len(rig.to["d"].waiting) == 100)
        rig.to["d"].send(*range(50), latency=0.3)
        source.revoke(0, lost=True)
        await rig.clock.sleep(5)
        assert source.commits == []
        assert rig.to["d"].waiting == []
        assert rig.budget.used == 0
        assert rig.runner.assigned == frozenset()


@pytest.mark.promise("P10")
@played
async def test_a_revoke_waits_for_dead_letters_being_written() -> None:
    """Letters of the leaving partition are awaited, so that they are committed with it.

    Kills: draining requests only.
    """
    source = ModelSource()
    source.produce(b"broken", b"broken")
    rig = PipelineRig(source)
    rig.dead_letters.latency = 4.0
    async with rig.running(0):
        await rig.until(lambda: rig.dead_letters.begun == 2)
        source.revoke(0)
        await rig.until(lambda: ("t", 0) not in source.position)
        assert source.committed["t", 0] == (2, "")


@played
async def test_a_partition_that_comes_back_is_not_taken_for_paused() -> None:
    """A partition that left while paused is read again when it returns."""
    source = two_partitions()
    rig = PipelineRig(source, latency=None, budget=20_000)
    async with rig.running(0):
        await rig.until(lambda: source.paused)
        source.revoke(0)
        await rig.until(lambda: ("t", 0) not in source.position)
        rig.to["d"].latency = 0.01
        source.assign(0)
        await rig.until(lambda: source.committed.get(("t", 0)) == (100, ""))


@played
async def test_a_partition_that_comes_while_the_buffer_is_full_is_paused() -> None:
    """A new assignment does not break the budget."""
    source = two_partitions()
    rig = PipelineRig(source, latency=None, budget=20_000)
    async with rig.running(0):
        await rig.until(lambda: source.paused == {("t", 0)})
        source.chunk = 5
        source.assign(1)
        await rig.until(lambda: source.paused == {("t", 0), ("t", 1)})
        rig.to["d"].send()
        rig.to["d"].latency = 0.01
        await rig.until(lambda: len(source.committed) == 2 and not source.paused)


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
@settings(max_examples=40)
@given(
    changes=st.lists(st.tuples(st.sampled_from([0.02, 0.4, 1.5]), st.integers(0, 2)), max_size=12),
    latencies=st.tuples(st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.0, 0.3, 2.0])),
)
def test_partitions_that_come_and_go_lose_and_repeat_nothing(
    changes: list[tuple[float, int]], latencies: tuple[float, float]
) -> None:
    """Whenever partitions are taken and given back within the drain time, each delivery is made exactly once.

    Kills: a commit before the drain, a record read twice in one epoch, a map read for the wrong destination.
    """

    async def play() -> None:
        source = ModelSource(3)
        source.chunk = 7
        for number in range(3):
            source.produce(*[b"de", b"d", b"e", None, b"broken"] * 12, partition=number)
        rig = PipelineRig(source, names="de")
        rig.to["d"].latency, rig.to["e"].latency = latencies
        async with rig.running(0, 1, 2):
            owned = {0, 1, 2}
            for seconds, partition in changes:
                await rig.clock.sleep(seconds)
                if partition in owned:
                    source.revoke(partition)
                else:
                    source.assign(partition)
                owned ^= {partition}
            source.assign(*({0, 1, 2} - owned))
            await rig.until(lambda: [source.committed.get(("t", n)) for n in range(3)] == [(60, "")] * 3)
        for name in "de":
            wanted = [(p, n) for p in range(3) for n in range(60) if n % 5 in ((0, 1) if name == "d" else (0, 2))]
            assert sorted(rig.to[name].done) == wanted
        assert len(rig.written) == 36

    run_virtual(play())
