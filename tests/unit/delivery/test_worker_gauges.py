"""The worker on virtual time: what its gauges say while requests are under way."""

from __future__ import annotations

from tests.unit.delivery.delivery_rig import Rig, played


@played
async def test_requests_under_way_are_shown() -> None:
    """`connector_destination_in_flight` is the number of requests under way, and 0 again after the last."""
    rig = Rig(latency=5.0, max_in_flight=3)
    async with rig.running():
        gauge = rig.metrics.destination_in_flight
        assert rig.metrics.total(gauge) == 0
        rig.offer(range(300))
        await rig.until(lambda: rig.transport.in_flight == 3)
        assert rig.metrics.total(gauge) == 3
        await rig.until(lambda: rig.unfinished == 0)
        assert rig.metrics.total(gauge) == 0
