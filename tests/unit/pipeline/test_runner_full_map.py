"""The runner on virtual time: what a full offset map does to a partition's intake."""

from __future__ import annotations

from random import Random

import pytest

from connector.pipeline.offset_map import FinishedMap, Runs, encode
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import PipelineRig, record


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
