"""The runner on virtual time: what a full offset map does to a partition's intake."""

from __future__ import annotations

from random import Random

import pytest

from connector.pipeline.offset_map import FinishedMap, Runs, encode
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import ModelSource, PipelineRig, record


@pytest.mark.promise("P2")
@played
async def test_a_full_map_that_was_taken_over_is_read_out() -> None:
    """A partition whose committed map is nearly full, and whose read records are all done, goes on being read.

    Kills: a pause that nothing ends, because only records to come can shrink the map.
    """
    rig = PipelineRig()
    source = rig.source
    finished = FinishedMap(Runs.of(sorted(Random(1).sample(range(1, 40_000), 2_500))))
    text = encode(0, finished).text
    assert 3_100 < len(text) < 4_000, len(text)
    source.committed["t", 0] = (0, text)
    source.produce(b"d")
    async with rig.running():
        await rig.until(lambda: source.committed["t", 0][0] == 1)
        assert rig.runner.status()[0].map_used >= 0.75
        await rig.clock.sleep(5)
        source.log["t", 0].append(record(40_000))
        await rig.until(lambda: source.committed["t", 0] == (40_001, ""))


@pytest.mark.promise("P3")
@played
async def test_a_coordinator_that_takes_less_metadata_gets_shorter_maps() -> None:
    """With `offset.metadata.max.bytes` below Kafka's default a map is cut until it passes, and less is read ahead.

    So what is finished is committed, and a stop is no longer than usual. Kills: a commit that is refused for its length
    and tried again as it is: a clean stop uses up its time for it, and everything finished is sent again.
    """
    rig, random = PipelineRig(names="de", latency=0.0), Random(5)
    source, slow = rig.source, rig.to["e"]
    slow.latency = None
    source.longest = 1000

    def scattered() -> list[bytes]:
        return [b"e" if random.random() < 0.3 else b"d" for _ in range(9_000)]

    source.produce(*scattered())
    async with rig.running():
        await rig.until(lambda: source.committed.get(("t", 0), (0, ""))[1])
        assert 100 < len(source.committed["t", 0][1]) <= source.longest
        assert rig.metrics.total(rig.metrics.commits) - len(source.commits) <= 3
        slow.send()
        await rig.until(lambda: source.committed["t", 0] == (9_000, ""))
        source.produce(*scattered())
        await rig.until(lambda: source.paused)
        stopped = rig.clock.now()
    assert rig.clock.now() - stopped < 5
    again = PipelineRig(source, names="de", latency=0.0)
    async with again.running():
        await again.until(lambda: source.committed["t", 0] == (18_000, ""))
    assert not {*rig.to["d"].done, *slow.done} & {*again.to["d"].done, *again.to["e"].done}


@pytest.mark.promise("P3")
@played
async def test_a_map_that_is_too_long_shortens_no_map_that_would_fit() -> None:
    """It is refused together with the commits of other partitions, which have no map: half of its length is tried.

    So a clean stop repeats nothing. Kills: a limit from the shortest metadata of a refused commit, which leaves no map.
    """
    source = ModelSource(2)
    rig, random = PipelineRig(source, names="de", latency=0.0), Random(5)
    rig.to["e"].latency = None
    source.longest = 600
    source.produce(*[b"e" if random.random() < 0.3 else b"d" for _ in range(4_500)])
    source.produce(*[b"d"] * 10, partition=1)
    async with rig.running(0, 1):
        await rig.until(lambda: len(source.committed.get(("t", 0), (0, ""))[1]) > source.longest // 4)
        assert source.committed["t", 1] == (10, "")
