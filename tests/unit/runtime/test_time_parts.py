"""Where a member's time goes: every second belongs to one part, and the part shows what a slow pipeline waits for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from connector.pipeline.batching import charge_of
from connector.telemetry.metrics import PARTS, Metrics
from tests.unit.delivery.delivery_rig import played
from tests.unit.pipeline.pipeline_rig import PipelineRig, record


def parts(metrics: Metrics) -> dict[str, float]:
    """Return the seconds counted so far, by part."""
    name = "connector_time_seconds_total"
    found = {part: metrics.registry.get_sample_value(name, {"part": part}) for part in PARTS}
    return {part: seconds for part, seconds in found.items() if seconds is not None}


async def seen(rig: PipelineRig, seconds: float) -> dict[str, float]:
    """Let virtual seconds pass and return what each part took of them, to the end of a turn."""
    begin, before, end = rig.clock.now(), parts(rig.metrics), rig.clock.now() + seconds
    await rig.until(lambda: rig.clock.now() >= end and rig.runner.polled_at == rig.clock.now())
    found = {part: value - before[part] for part, value in parts(rig.metrics).items()}
    assert math.isclose(sum(found.values()), rig.clock.now() - begin, abs_tol=0.02)
    return found


@played
async def test_a_member_with_nothing_to_read_is_idle() -> None:
    """Without records all time is `idle`, and the parts add up to it. Kills: counting a wait for records as `poll`."""
    async with PipelineRig().running() as rig:
        await rig.until(lambda: rig.source.position)
        found = await seen(rig, 50.0)
        assert found["idle"] > 49.0


@played
async def test_a_slow_vendor_is_seen_as_deliver() -> None:
    """While the buffer is full of what a vendor does not take, time is `deliver` and not `idle`.

    Kills: calling every poll without records idle.
    """
    rig = PipelineRig(latency=None, budget=charge_of(record(0)) * 10)
    rig.source.produce(*[b"d"] * 100)
    async with rig.running():
        await rig.until(lambda: rig.budget.full)
        found = await seen(rig, 50.0)
        assert found["deliver"] > 49.0
        assert found["idle"] == 0
        rig.to["d"].latency = 0.0
        rig.to["d"].send()
        await rig.until(lambda: len(rig.to["d"].done) == 100)


@played
async def test_a_schema_that_no_one_tells_is_seen_as_decode() -> None:
    """While records wait for their schema, time is `decode`."""
    rig = PipelineRig()
    rig.source.produce(b"schema:one:d")
    async with rig.running():
        await rig.until(lambda: rig.source.paused)
        found = await seen(rig, 20.0)
        assert found["decode"] > 19.0
        rig.decoder.answer("one")
        await rig.until(lambda: rig.to["d"].done)


@given(st.lists(st.tuples(st.sampled_from(["add", "rest"]), st.sampled_from(PARTS), st.floats(0.0, 5.0)), max_size=30))
def test_parts_add_up_to_the_time_that_went_by(steps: list[tuple[str, str, float]]) -> None:
    """Whatever is counted by whom, once all is at rest the parts are the time. Kills: counting a moment twice."""
    metrics = Metrics()
    time = metrics.time_seconds
    now = begun = 100.0
    time.begin(now)
    for kind, part, seconds in steps:
        now += seconds
        if kind == "add":
            time.add(part, seconds)
        else:
            time.rest(part, now)
    time.rest("idle", now)
    assert math.isclose(sum(parts(metrics).values()), now - begun, abs_tol=1e-6)


def test_work_that_a_rest_cuts_through_is_counted_once() -> None:
    """Work begun before a rest and counted after it is taken from the next one."""
    metrics = Metrics()
    time = metrics.time_seconds
    time.begin(0.0)
    time.rest("idle", 4.0)
    time.add("deliver", 3.0)
    time.rest("idle", 5.0)
    time.rest("idle", 10.0)
    found = parts(metrics)
    assert found["deliver"] == 3.0
    assert sum(found.values()) == 10.0
