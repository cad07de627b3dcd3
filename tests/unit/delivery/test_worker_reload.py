"""A destination goes on with other settings while it delivers: what a reload changes, and what it probes at once."""

from __future__ import annotations

from typing import Any

import pytest

from connector.delivery.destination import HELD_BY_CONFIGURATION
from connector.delivery.states import Cause, DestinationState
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, ModelSettings, ModelVendor, Reply, Rig, played, refusing


def use(rig: Rig, token: str = "good", **settings: Any) -> None:
    """Reload a destination with these settings."""
    vendor = ModelVendor(settings.get("batch", {}).get("records", 100), token)
    rig.worker.use(ModelSettings.model_validate(settings), vendor)


@played
async def test_a_corrected_account_is_tried_at_once() -> None:
    """After a reload a held destination is probed with the new vendor, not at the end of its back-off.

    Kills: a hold that outlives its cause by a minute; a request that is signed with the old secret.
    """
    rig = Rig(lambda call: OK if call.token == "new" else Reply(401))
    async with rig.running():
        rig.offer(range(50))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        await rig.clock.sleep(600)
        reloaded = rig.clock.now()
        use(rig, "new")
        await rig.done()
        assert rig.clock.now() - reloaded < 2
    assert rig.sent_once()
    assert rig.dead_letters.dead_letters == []


@played
async def test_a_configured_hold_comes_and_goes_with_the_file() -> None:
    """`hold: true` holds the destination as it is read, and only its removal, or a person, ends it.

    Kills: a hold of the file that a second reload ends; one that stays when it is taken out.
    """
    rig = Rig()
    async with rig.running():
        use(rig, hold=True)
        for _ in range(2):
            rig.offer(range(len(rig.tracker()._pending), len(rig.tracker()._pending) + 5))
            await rig.clock.sleep(60)
            assert (rig.worker.condition().cause, rig.worker.condition().message) == (
                Cause.OPERATOR,
                HELD_BY_CONFIGURATION,
            )
            use(rig, hold=True)
        assert rig.transport.calls == []
        use(rig)
        await rig.done()


@played
async def test_a_storm_that_is_switched_off_is_drained() -> None:
    """With `storm: off` what was set aside becomes dead letters; the same settings again change nothing."""
    storm = {"share": 0.5, "records": 20}
    rig = Rig(refusing(range(100)), storm=storm)
    async with rig.running():
        rig.offer(range(100))
        await rig.until(lambda: rig.set_aside)
        await rig.clock.sleep(10)
        use(rig, storm=storm)
        await rig.clock.sleep(10)
        assert rig.set_aside
        use(rig, storm="off")
        await rig.done()
    assert rig.dead_letters.numbers == list(range(100))


@pytest.mark.parametrize("limit", [2.0, None])
def test_another_rate_limit_applies_from_the_next_request(limit: float | None) -> None:
    """A limit that is lowered or lifted by a reload is the limit of all requests after it.

    Kills: a bucket that keeps the old limit; one that lets the tokens of the old limit through first.
    """

    async def play() -> None:
        rig = Rig(batch={"records": 1}, requests_per_second=10, max_in_flight=8)
        async with rig.running():
            rig.worker.set_share(1.0)
            rig.offer(range(200))
            await rig.until(lambda: len(rig.transport.calls) == 20)
            use(rig, batch={"records": 1}, requests_per_second=10, max_in_flight=8)
            await rig.until(lambda: len(rig.transport.calls) == 40)
            changed = rig.clock.now()
            use(rig, batch={"records": 1}, requests_per_second=limit, max_in_flight=8)
            await rig.done()
        after = [call.at for call in rig.transport.calls if call.at > changed]
        if limit is None:
            assert after[-1] - changed < 2
        else:
            assert all(sum(at <= other < at + 1 for other in after) <= limit + 1 for at in after)

    run_virtual(play())


@played
async def test_a_shorter_linger_sends_what_is_filling() -> None:
    """A record that waits for more of its batch waits by the new settings."""
    rig = Rig(batch={"linger": "60s"})
    async with rig.running():
        rig.offer([0])
        await rig.clock.sleep(1)
        use(rig, batch={"linger": "100ms"})
        reloaded = rig.clock.now()
        await rig.done()
        assert rig.clock.now() - reloaded < 1


@played
async def test_trouble_with_the_registry_is_shown_while_it_lasts() -> None:
    """A destination whose records wait for their schemas is held for that cause, and flows again when it is over."""
    rig = Rig()
    async with rig.running():
        rig.destination.hold_intake(Cause.REGISTRY, "the registry answers HTTP 503")
        first = rig.worker.condition()
        await rig.clock.sleep(60)
        rig.destination.hold_intake(Cause.REGISTRY, "the registry answers HTTP 503")
        assert (first.state, first.cause) == (DestinationState.HELD, Cause.REGISTRY)
        assert rig.worker.condition().since == first.since
        # What is here already is delivered: only intake waits.
        rig.offer(range(5))
        await rig.done()
        rig.destination.hold_intake(None)
        assert rig.worker.condition().state is DestinationState.FLOWING
        assert not rig.worker.probe_now()
