"""The runner on virtual time: when it commits, what it commits, when it pauses, and how it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from connector.errors import FatalError
from connector.pipeline import offset_map as metadata
from connector.records import Commit, FinalFault, Record, TopicPartition
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig


@pytest.mark.promise("P2")
@played
async def test_a_partition_that_moved_nothing_is_never_committed() -> None:
    """Commits are made for what finished, once for each change, and never for an idle or a stuck partition.

    Kills: committing the start position of a partition; committing the same offset each interval.
    """
    source = ModelSource(3)
    source.produce(b"d", b"d", partition=0)
    source.produce(b"e", partition=1)
    rig = PipelineRig(source, names="de")
    rig.to["e"].latency = None
    async with rig.running(0, 1, 2):
        await rig.clock.sleep(30)
        assert [(one.partition, one.offset) for one in source.commits] == [(0, 2)]
    assert [(one.partition, one.offset) for one in source.commits] == [(0, 2)]


@pytest.mark.promise("P2")
@played
async def test_the_watermark_is_committed_and_what_is_done_above_it_as_a_map() -> None:
    """A stuck head keeps the offset; each commit's map says what is done behind it.

    Kills: committing the highest offset seen.
    """
    source = ModelSource()
    source.produce(*[b"d"] * 5)
    rig = PipelineRig(source, latency=None)
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].waiting) == 5)
        rig.to["d"].send(1, 3)
        await rig.until(lambda: source.commits)
        offset, text = source.committed["t", 0]
        assert offset == 0
        assert metadata.decode(0, text).whole.bounds == (1, 2, 3, 4)
        rig.to["d"].send(0)
        await rig.until(lambda: source.committed["t", 0][0] == 2)


@pytest.mark.promise("P3")
@played
async def test_a_restart_delivers_exactly_what_was_unfinished() -> None:
    """A clean stop and a new run on what was committed: nothing again, nothing left out, for each destination.

    Kills: a map that is not read back, or is read for another offset.
    """
    source = ModelSource()
    source.produce(*[b"de"] * 1000)
    first = PipelineRig(source, names="de")
    first.to["e"].latency = None
    async with first.running():
        await first.until(lambda: len(first.to["e"].waiting) == 1000)
        first.to["e"].send(*range(0, 1000, 3))
        await first.until(lambda: len(first.to["d"].done) == 1000)
    second = PipelineRig(source, names="de")
    async with second.running():
        await second.until(lambda: source.committed["t", 0] == (1000, ""))
    assert second.to["d"].done == []
    done = [offset for _, offset in first.to["e"].done + second.to["e"].done]
    assert sorted(done) == list(range(1000))


def _ended(source: ModelSource, end: int) -> Callable[[], bool]:
    """Return whether the first partition is committed up to its end, without a map."""
    return lambda: source.committed["t", 0] == (end, "")


@played
async def test_foreign_metadata_is_ignored() -> None:
    """Text that another program committed costs a warning: records above the offset are sent again, none is lost."""
    for text in ("hello", "x" * 4000, metadata.encode(7, metadata.FinishedMap(metadata.Runs((8, 9)))).text + "A"):
        source = ModelSource()
        source.produce(*[b"d"] * 10)
        source.committed["t", 0] = (4, text)
        rig = PipelineRig(source)
        async with rig.running():
            await rig.until(_ended(source, 10))
        assert [offset for _, offset in rig.to["d"].taken] == list(range(4, 10))


@pytest.mark.promise("P2")
@played
async def test_a_commit_that_fails_is_made_again() -> None:
    """What a failed commit said is in the next one, though nothing else finished meanwhile.

    Kills: taking a failed commit for done.
    """
    source = ModelSource(2)
    source.produce(*[b"d"] * 10, partition=0)
    source.produce(*[b"d"] * 10, partition=1)
    rig = PipelineRig(source)
    source.failing.add(("t", 0))
    async with rig.running(0, 1):
        await rig.until(lambda: ("t", 1) in source.committed)
        await rig.clock.sleep(10)
        assert ("t", 0) not in source.committed
        source.failing.clear()
        await rig.until(lambda: source.committed.get(("t", 0)) == (10, ""), within=2)
    assert len([one for one in source.commits if one.partition == 1]) == 1
    assert rig.metrics.total(rig.metrics.commits) > 10


@pytest.mark.promise("P12")
@played
async def test_intake_waits_at_the_budget_and_goes_on_at_half() -> None:
    """With a vendor that hangs, what is held stays near the budget; pauses and resumes are few.

    Kills: reading on while nothing leaves; resuming with each record that ends.
    """
    source = ModelSource()
    source.chunk = 10
    source.produce(*[b"d"] * 2000)
    rig = PipelineRig(source, latency=None, budget=100_000)
    async with rig.running():
        await rig.until(lambda: source.paused)
        await rig.clock.sleep(60)
        held = len(rig.to["d"].waiting)
        assert 100_000 <= rig.budget.used < 100_000 + 10 * 1000
        while len(rig.to["d"].done) < 2000:
            rig.to["d"].send(*[one.record.offset for one in rig.to["d"].waiting[:5]])
            await rig.clock.sleep(0.02)
            assert rig.budget.used < 110_000
        await rig.until(lambda: source.committed["t", 0] == (2000, ""))
    assert source.events.count("pause") <= 2 * 2000 / held + 2


@pytest.mark.slow
@pytest.mark.promise("P12")
@played
async def test_a_partition_whose_map_fills_up_pauses_alone() -> None:
    """Scattered unfinished records pause their own partition before the map must be cut; the others go on.

    Kills: reading on until the map has to be cut.
    """
    source = ModelSource(2)
    source.chunk = 50
    random = Random(5)
    scattered = [b"e" if random.random() < 0.4 else b"d" for _ in range(30_000)]
    source.produce(*scattered, partition=0)
    rig = PipelineRig(source, names="de", latency=0.0)
    rig.to["e"].latency = None
    poll = source.poll

    async def slower() -> list[Record]:
        await rig.clock.sleep(0.02)
        return await poll()

    source.poll = slower  # type: ignore[method-assign]
    async with rig.running(0, 1):
        await rig.until(lambda: source.paused)
        assert source.paused == {("t", 0)}
        assert rig.runner.status()[0].map_used == 1.0
        source.produce(*[b"d"] * 10, partition=1)
        await rig.until(lambda: source.committed.get(("t", 1)) == (10, ""))
        rig.to["e"].send()
        await rig.until(lambda: not source.paused)
        rig.to["e"].latency = 0.0
        await rig.until(lambda: source.committed["t", 0] == (30_000, ""))
    assert rig.source.closed


@pytest.mark.promise("P3")
@played
async def test_a_stop_drains_commits_and_leaves() -> None:
    """Requests under way are awaited and committed; what was not sent stays uncommitted; the group is left last.

    Kills: leaving the group before the commit.
    """
    source = ModelSource()
    source.produce(*[b"d"] * 100)
    rig = PipelineRig(source, latency=None)
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].waiting) == 100)
        rig.to["d"].send(*range(10), latency=15.0)
    assert rig.to["d"].stopped
    assert source.committed["t", 0] == (10, "")
    assert len(rig.to["d"].done) == 10


@played
async def test_a_fatal_error_drains_too() -> None:
    """A run that cannot go on raises why, after what was under way has ended and is committed."""
    source = ModelSource()
    source.produce(*[b"d"] * 10)
    rig = PipelineRig(source, latency=5.0)

    async def fail() -> None:
        async with rig.running():
            await rig.until(lambda: rig.to["d"].flying)
            source.errors.append(FatalError("the offset is out of range"))
            await rig.clock.sleep(10)

    with pytest.raises(FatalError, match="out of range"):
        await fail()
    assert source.committed["t", 0] == (10, "")
    assert source.closed


@played
async def test_backlog_counts_what_is_not_done() -> None:
    """Lag is what was not read and what is unfinished; finished records above the watermark are left out."""
    source = ModelSource()
    source.produce(*[b"d"] * 100)
    rig = PipelineRig(source, latency=None)
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].waiting) == 100)
        rig.to["d"].send(*range(1, 61))
        await rig.until(lambda: len(rig.to["d"].done) == 60)
        assert rig.runner.backlog() == {("t", 0): 40}
        status = rig.runner.status()[0]
        assert (status.watermark, status.position) == (0, 100)
        rig.runner.update_gauges()
        assert b'connector_partition_lag{partition="0",topic="t"} 40.0' in rig.metrics.render()


@pytest.mark.promise("P3")
@pytest.mark.parametrize(("blocked", "failures"), [(2.8, 1), (0.1, 8), (30.0, 1)])
def test_the_last_commit_is_repeated_after_a_rebalance(blocked: float, failures: int) -> None:
    """A commit that a rebalance blocks and then refuses is made again, within the drain's time and once after it.

    Kills: a time for repeating that counts from before the first attempt, and is over when that one ends.
    """

    async def play() -> None:
        source = ModelSource()
        source.produce(*[b"d"] * 10)
        rig = PipelineRig(source, latency=None)
        store, attempts = source.commit, 0

        async def commit(commits: Sequence[Commit]) -> dict[TopicPartition, str]:
            nonlocal attempts
            attempts += 1
            if attempts <= failures:
                await rig.clock.sleep(blocked)
                return {("t", 0): "ILLEGAL_GENERATION: specified group generation id is not valid"}
            return await store(commits)

        async with rig.running():
            await rig.until(lambda: len(rig.to["d"].waiting) == 10)
            source.commit = commit  # type: ignore[method-assign]
            rig.to["d"].send(*range(10), latency=0.1)
        assert source.committed["t", 0] == (10, "")
        assert attempts == failures + 1

    run_virtual(play())


@played
async def test_a_last_commit_that_cannot_succeed_is_not_repeated() -> None:
    """A member that the group has expelled leaves at once. Kills: waiting out the drain's time for nothing."""
    source = ModelSource()
    source.produce(*[b"d"] * 10)
    rig = PipelineRig(source, latency=None)
    attempts = []

    async def commit(commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        attempts.append(rig.clock.now())
        return {("t", 0): FinalFault("UNKNOWN_MEMBER_ID: unknown member")}

    source.commit = commit  # type: ignore[method-assign]
    async with rig.running():
        await rig.until(lambda: len(rig.to["d"].waiting) == 10)
        rig.to["d"].send(*range(10), latency=0.1)
    assert len(attempts) == 1
