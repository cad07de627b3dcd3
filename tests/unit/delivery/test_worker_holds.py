"""The worker on virtual time: what holds a destination, how it is probed, and that it resumes by itself."""

from __future__ import annotations

from collections import Counter
from itertools import cycle
from zlib import crc32

import pytest

from connector.delivery.states import Cause, DestinationState
from connector.errors import ConfigFault, ConfigurationError
from connector.pipeline.offsets import destination_bit
from connector.pipeline.storms import Place
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, played, refusing

pytestmark = pytest.mark.slow

LANES = [[key for key in (b"%d" % n for n in range(100)) if crc32(key) % 2 == lane] for lane in (0, 1)]
"""Keys of each of two lanes."""


@pytest.mark.promise("P6")
@played
async def test_a_wrong_credential_holds_and_a_rotated_one_resumes() -> None:
    """401 holds with its cause and dead-letters nothing; the probe reads the secret again, and all is delivered.

    Kills: taking 401 for the record's fault; probing with the old secret.
    """
    rig = Rig(lambda call: OK if call.token == "rotated" else Reply(401))
    async with rig.running():
        rig.offer(range(500))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        assert rig.worker.condition().cause is Cause.MISCONFIGURED
        before = len(rig.transport.calls)
        await rig.clock.sleep(3600)
        # One probe at a time at growing intervals up to a minute: no more than that in an hour.
        assert len(rig.transport.calls) - before < 120
        assert rig.unfinished == 500
        rig.token = "rotated"
        recovered = rig.clock.now()
        await rig.done()
        assert rig.clock.now() - recovered <= 62
    assert rig.dead_letters.dead_letters == []
    assert rig.sent_once()
    assert rig.worker.condition().state is DestinationState.FLOWING


@played
async def test_a_secret_that_cannot_be_read_keeps_the_hold() -> None:
    """A reload that fails leaves the old vendor in place; the probe is made and the destination stays held.

    Kills: a vendor's module that ends the run with what it raises over a new secret.
    """
    rig = Rig(lambda call: OK if call.token == "rotated" else Reply(401))

    errors = cycle([ConfigurationError([ConfigFault("destinations.d.token", "file is missing")]), KeyError("token")])

    def unreadable() -> object:
        raise next(errors)

    async with rig.running():
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        reload, rig.destination._reload = rig.destination._reload, unreadable  # type: ignore[assignment]
        await rig.clock.sleep(120)
        assert rig.worker.condition().cause is Cause.MISCONFIGURED
        rig.destination._reload, rig.token = reload, "rotated"
        await rig.done(within=62)


@pytest.mark.promise("P6")
@pytest.mark.parametrize("status", [500, 503, 504, 0])
def test_an_outage_holds_and_resumes(status: int) -> None:
    """A vendor that is down, or cuts every connection, is held as an outage; the first answer sets it free.

    Kills: giving a record up for its vendor's outage; waiting for an operator.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(status, cut=status == 0))
        async with rig.running():
            rig.offer(range(2000))
            await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
            assert rig.worker.condition().cause is Cause.OUTAGE
            before = len(rig.transport.calls)
            await rig.clock.sleep(3600)
            assert len(rig.transport.calls) - before < 120
            rig.transport.behave = lambda _call: OK
            recovered = rig.clock.now()
            await rig.done()
            assert rig.clock.now() - recovered <= 63
        assert rig.dead_letters.dead_letters == []
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P6")
@played
async def test_an_outage_that_ends_in_a_wrong_credential_stays_held() -> None:
    """The cause is renewed by what the probe hears, and the hold ends only when that is fixed too.

    Kills: ending a hold by any answer to its probe.
    """
    rig = Rig(lambda _call: Reply(503))
    async with rig.running():
        rig.offer(range(300))
        await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
        rig.transport.behave = lambda call: OK if call.token == "rotated" else Reply(401)
        await rig.until(lambda: rig.worker.condition().cause is Cause.MISCONFIGURED)
        rig.token = "rotated"
        await rig.done()
    assert rig.dead_letters.dead_letters == []


@played
async def test_an_answer_about_one_group_holds_that_group_only() -> None:
    """403 for one endpoint leaves the others flowing; once fixed it resumes by itself."""
    rig = Rig(lambda call: Reply(403) if call.group == "vip" else OK)
    async with rig.running():
        rig.offer(range(50), group="vip")
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        rig.offer(range(50, 500), group="free")
        await rig.until(lambda: len(rig.transport.accepted) == 450, within=5)
        assert "only vip" in (rig.worker.condition().message or "")
        rig.transport.behave = lambda _call: OK
        await rig.done()
    assert rig.dead_letters.dead_letters == []


@pytest.mark.parametrize("order", ["none", "key"])
def test_an_outage_whose_probe_blames_one_group_goes_on_with_the_others(order: str) -> None:
    """The probe of an outage that hears 403 for its endpoint frees the destination and holds that endpoint.

    Kills: a hold that waits for ever for the answer of a probe which named another scope.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(503), order=order, max_in_flight=2)
        async with rig.running():
            rig.offer(range(10), group="vip", key=lambda n: LANES[0][n])
            rig.offer(range(10, 20), group="free", key=lambda n: LANES[1][n])
            await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
            rig.transport.behave = lambda call: Reply(403) if call.group == "vip" else OK
            await rig.until(lambda: rig.destination.holds.get(scope="vip"), within=100)
            assert rig.destination.holds.get() is None
            await rig.until(lambda: len(rig.transport.accepted) == 10, within=5)
            rig.transport.behave = lambda _call: OK
            await rig.done(within=200)
        assert rig.dead_letters.dead_letters == []

    run_virtual(play())


@played
async def test_a_group_whose_probe_is_refused_for_the_whole_destination_is_probed_again() -> None:
    """403 for a group, then 401 for all: when the credential is fixed, the group is asked again too.

    Kills: a group's hold that stays `probing` after its probe held something larger.
    """
    rig = Rig(lambda _call: Reply(403))
    async with rig.running():
        rig.offer(range(10), group="vip")
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        rig.transport.behave = lambda call: OK if call.token == "rotated" else Reply(401)
        await rig.until(lambda: rig.destination.holds.get() is not None)
        rig.token = "rotated"
        await rig.done(within=200)


@pytest.mark.parametrize("order", ["none", "key"])
def test_a_due_probe_without_a_batch_does_not_spin(order: str) -> None:
    """A held group whose probe is due while nothing of it can be sent costs no turns of the loop.

    Kills: sleeping a millisecond again and again until something comes.
    """

    async def play() -> None:
        rig = Rig(lambda call: Reply(403) if call.group == "vip" else OK, order=order, max_in_flight=1)
        async with rig.running(all_done=False):
            rig.offer([0], group="vip")
            await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
            rig.worker.hold("maintenance")
            rig.offer([1], group="free")
            turns = 0
            dispatch = rig.worker._dispatch

            def counted() -> float | None:
                nonlocal turns
                turns += 1
                return dispatch()

            rig.worker._dispatch = counted  # type: ignore[method-assign]
            await rig.clock.sleep(600)
            assert turns < 10
            rig.worker.release()
            rig.transport.behave = lambda _call: OK
            await rig.done()

    run_virtual(play())


@played
async def test_an_ordered_lane_behind_a_held_group_does_not_spin() -> None:
    """In a lane whose head is held, a later batch of another group waits without turning the loop."""
    rig = Rig(lambda call: Reply(403) if call.group == "vip" else OK, order="key", max_in_flight=1)
    async with rig.running(all_done=False):
        rig.offer(range(100), group="vip", key=lambda _n: b"k")
        rig.offer(range(100, 300), group="free", key=lambda _n: b"k")
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        turns = 0
        dispatch = rig.worker._dispatch

        def counted() -> float | None:
            nonlocal turns
            turns += 1
            return dispatch()

        rig.worker._dispatch = counted  # type: ignore[method-assign]
        await rig.clock.sleep(600)
        assert turns < 100
        assert rig.transport.accepted == []
        rig.transport.behave = lambda _call: OK
        await rig.done(within=100)
    assert rig.transport.accepted == list(range(300))


@pytest.mark.promise("P6")
@played
async def test_five_thousand_bad_records_are_a_storm_and_not_a_drain() -> None:
    """Events that the vendor does not know are set aside once half of the last 500 were refused, and hold no memory.

    Probes carry one record, back off, and dead-letter nothing; the first that passes lets all go. Kills: draining the
    topic into the dead-letter topic; keeping the records in the buffer; dead-lettering a probe.
    """
    rig = Rig(refusing(range(5000), hinted=True))
    async with rig.running():
        rig.offer(range(5000))
        await rig.until(lambda: rig.set_aside == 4750)
        assert rig.worker.condition().cause is Cause.STORM
        (hold,) = rig.destination.shown_holds()
        assert (hold.cause, hold.code, hold.set_aside) == (Cause.STORM, "B1", 4750)
        await rig.until(lambda: rig.budget.used == 0)
        asked = len(rig.transport.calls)
        await rig.clock.sleep(3600)
        assert len(rig.dead_letters.dead_letters) == 250
        probes = rig.transport.calls[asked:]
        assert 50 < len(probes) < 120
        assert {len(call.numbers) for call in probes} == {1}
        assert len({call.numbers for call in probes}) == len(probes)
        rig.transport.behave = lambda _call: OK
        await rig.done()
    assert len(rig.transport.accepted) == 4750


@pytest.mark.promise("P6")
@pytest.mark.parametrize("good", [0.01, 0.05, 0.4])
def test_good_records_flow_through_a_storm_and_do_not_end_it(good: float) -> None:
    """Whatever share is good, every good record is accepted, and no more dead letters are written than the limit.

    Kills: a storm that ends at any acceptance; one that holds the destination.
    """

    async def play() -> None:
        step = round(1 / good)
        bad = [n for n in range(3000) if n % step]
        rig = Rig(refusing(bad))
        async with rig.running(all_done=False):
            for first in range(0, 3000, 100):
                rig.offer(range(first, first + 100))
                await rig.clock.sleep(1)
            await rig.until(lambda: rig.unfinished == rig.set_aside)
            assert sorted(rig.transport.accepted) == [n for n in range(3000) if not n % step]
            # The window slides, so what tripped it at its start may be out of it at its end.
            assert len(rig.dead_letters.dead_letters) <= 250 + (3000 if good > 0.5 else 0)
            assert rig.budget.used == 0

    played(play)()


@pytest.mark.promise("P6")
@played
async def test_records_that_break_a_rule_in_a_storm_are_set_aside_until_a_release() -> None:
    """Past the limit they wait, whatever else is accepted; a release lets all go at once, and says how many.

    Kills: dead-lettering local refusals without counting them; a release that lets one window go and holds again.
    """
    rig = Rig(storm={"records": 10})
    async with rig.running():
        rig.refuse(range(50))
        await rig.clock.sleep(1)
        assert rig.worker.condition().cause is Cause.STORM
        assert rig.dead_letters.numbers == [0, 1, 2, 3, 4]
        assert rig.budget.used == 0
        rig.offer([50])
        await rig.until(lambda: rig.transport.accepted == [50])
        await rig.clock.sleep(60)
        assert len(rig.dead_letters.dead_letters) == 5
        assert rig.worker.release() == 45
        await rig.done(within=5)
        assert rig.worker.condition().state is DestinationState.FLOWING
    assert rig.dead_letters.numbers == list(range(50))


@played
async def test_a_record_that_is_skipped_while_it_is_a_storms_probe_becomes_a_dead_letter() -> None:
    """Refused again, it is set aside again, and skipped as soon as it was read once more.

    Kills: a skip that is forgotten because the record that it names is set aside.
    """
    rig = Rig(refusing(range(50)), storm={"records": 10}, batch={"records": 1})
    rig.transport.latency = 0.2
    storms = rig.destination.storms
    async with rig.running(all_done=False):
        rig.offer(range(50))
        await rig.until(lambda: rig.set_aside == 45 and rig.budget.used == 0)
        await rig.until(lambda: storms.status()[0].next_probe is None and rig.worker.in_flight)
        (probed,) = (n for n in range(50) if storms.is_read_again(Place(rig.trackers[0], n, destination_bit(0))))
        assert rig.worker.skip(rig.trackers[0], probed) is not None
        await rig.clock.sleep(5)
        skipped = [one.record.offset for one in rig.dead_letters.dead_letters if one.cause == "operator"]
        assert skipped == [probed]
        # A record whose probe is not sent yet is skipped when it comes.
        await rig.until(lambda: storms.status()[0].next_probe is not None)
        rig.rereads = False
        await rig.clock.sleep(60)
        (place,) = storms.probes(rig.clock.now())
        assert rig.worker.skip(place.tracker, place.offset) is not None
        rig.give_again(place)
        await rig.clock.sleep(1)
        assert rig.dead_letters.dead_letters[-1].record.offset == place.offset
        assert rig.dead_letters.dead_letters[-1].cause == "operator"


@played
async def test_after_a_release_refusals_pass_until_their_share_is_below_the_limit() -> None:
    """The drain that a person asked for goes on; once a window later few are bad, the next storm is one again."""
    rig = Rig(storm={"records": 10})
    async with rig.running(all_done=False):
        rig.refuse(range(10))
        await rig.clock.sleep(1)
        rig.worker.release()
        rig.refuse(range(10, 100))
        await rig.until(lambda: len(rig.dead_letters.dead_letters) == 100)
        rig.offer(range(100, 200))
        await rig.until(lambda: len(rig.transport.accepted) == 100)
        rig.refuse(range(200, 300))
        await rig.clock.sleep(1)
        assert len(rig.dead_letters.dead_letters) == 105
        assert rig.set_aside == 95


@played
async def test_what_a_release_let_go_is_not_set_aside_again() -> None:
    """However many good records come meanwhile: all that a release let go is tried again, and a dead letter if refused.

    Refused for another reason it is not what the person decided about. Kills: a release that ends with the storm's
    window, when the share of the records that come meanwhile is below the limit.
    """
    rig = Rig(storm={"records": 10})
    async with rig.running(all_done=False):
        rig.refuse(range(1000))
        await rig.until(lambda: rig.set_aside == 995)
        rig.rereads = False
        assert rig.worker.release() == 995
        rig.offer(range(1000, 1100))
        await rig.until(lambda: len(rig.transport.accepted) == 100)
        rig.rereads = True
        await rig.until(lambda: len(rig.dead_letters.dead_letters) == 1000)
        assert rig.set_aside == 0

        rig.transport.behave = refusing(range(2000, 3000), hinted=True)
        rig.offer(range(2000, 3000))
        await rig.until(lambda: rig.set_aside == 995)
        rig.worker.release()
        rig.transport.behave = lambda call: Reply(413) if min(call.numbers) >= 2000 else OK
        await rig.until(lambda: rig.set_aside == 990)
        assert len(rig.dead_letters.dead_letters) == 1010


@played
async def test_a_probe_refused_for_another_reason_counts_under_that_one() -> None:
    """A probe that the vendor calls too large is no passed probe; too many of these are a storm of their own.

    Kills: a storm that waits for ever for a probe's answer.
    """
    rig = Rig(refusing(range(500), hinted=True), storm={"records": 10})
    async with rig.running():
        rig.offer(range(500))
        await rig.until(lambda: rig.set_aside == 495)
        rig.transport.behave = lambda _call: Reply(413)
        await rig.clock.sleep(3600)
        assert Counter(one.cause for one in rig.dead_letters.dead_letters) == {"refused": 5, "too_large": 5}
        assert {hold.code for hold in rig.destination.shown_holds()} == {"B1", "413"}
        rig.transport.behave = lambda _call: OK
        await rig.done()


@played
async def test_probes_of_a_storm_that_comes_back_begin_where_they_were() -> None:
    """Where every probe passes and all others are refused again, dead letters stay few: the probes back off.

    Kills: a storm that begins again with its first pause after each probe that passes.
    """
    passes: set[int] = set()

    def behave(call: Call) -> Reply:
        if len(call.numbers) == 1 and call.numbers[0] >= 5 and call.numbers[0] not in passes and rig.set_aside:
            passes.add(call.numbers[0])
            return OK
        return Reply(400, {"code": "B1", "named": list(call.numbers)})

    rig = Rig(behave, storm={"records": 10}, batch={"records": 1})
    async with rig.running(all_done=False):
        rig.offer(range(2000))
        await rig.clock.sleep(600)
        assert len(rig.dead_letters.dead_letters) < 200


@played
async def test_an_operators_hold_during_a_storm_does_not_stop_the_loop() -> None:
    """Holding a destination by hand while records are set aside leaves the loop running, and no probe is sent."""
    rig = Rig(refusing(range(20)), storm={"records": 10})
    async with rig.running(all_done=False):
        rig.offer(range(20))
        await rig.until(lambda: rig.set_aside == 15)
        rig.worker.hold("maintenance")
        asked = len(rig.transport.calls)
        await rig.clock.sleep(100)
        assert rig.worker.condition().cause is Cause.OPERATOR
        assert len(rig.dead_letters.dead_letters) == 5
        assert len(rig.transport.calls) == asked


@played
async def test_a_storm_may_be_switched_off() -> None:
    """With `storm: off` every record refused alone becomes a dead letter."""
    rig = Rig(refusing(range(1000), hinted=True), storm="off")
    async with rig.running():
        rig.offer(range(1000))
        await rig.done()
    assert rig.dead_letters.numbers == list(range(1000))


@played
async def test_an_operator_holds_and_releases() -> None:
    """Nothing is sent while an operator holds, not even a probe; released, everything goes."""
    rig = Rig()
    async with rig.running():
        rig.worker.hold("maintenance")
        rig.offer(range(200))
        await rig.clock.sleep(7200)
        assert rig.transport.calls == []
        assert rig.worker.condition().cause is Cause.OPERATOR
        rig.worker.release()
        await rig.done(within=2)


@played
async def test_a_configured_hold_waits_for_a_release() -> None:
    """With `hold: true` a destination starts held; a release ends the hold."""
    rig = Rig(hold=True)
    async with rig.running():
        rig.offer(range(10))
        await rig.clock.sleep(600)
        assert rig.transport.calls == []
        rig.worker.release()
        await rig.done(within=2)


@played
async def test_a_release_by_hand_ends_a_hold_at_once() -> None:
    """An operator need not wait for the next probe of a destination that is fixed."""
    rig = Rig(lambda _call: Reply(503))
    async with rig.running():
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
        await rig.clock.sleep(3600)
        rig.transport.behave = lambda _call: OK
        rig.worker.release()
        await rig.done(within=2)


@played
async def test_states_are_shown_with_cause_and_times() -> None:
    """A condition names its cause, since when, and the next probe; the metric shows exactly one state."""
    rig = Rig(lambda _call: Reply(401))
    async with rig.running(all_done=False):
        started = rig.clock.wall()
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        held = rig.worker.condition()
        assert held.since is not None
        assert held.next_probe is not None
        assert started <= held.since <= rig.clock.wall() < held.next_probe <= rig.clock.wall() + 60
        rig.destination.note()
        shown = rig.metrics.render().decode()
        assert 'connector_destination_state{destination="d",state="held"} 1.0' in shown
        assert 'connector_destination_state{destination="d",state="flowing"} 0.0' in shown


def test_a_call_knows_what_was_asked() -> None:
    """The model keeps the token with each request, so that a rotated secret can be seen."""
    call = Call(0.0, "g", (1,), "good", 0)
    assert refusing([1])(call).status == 400
    assert refusing([2])(call) is OK


@played
async def test_a_destination_without_a_hold_flows_is_throttled_or_retries() -> None:
    """Throttled goes before retrying, and both before flowing."""
    rig = Rig(lambda call: [Reply(500), Reply(429, headers={"retry-after": "1"}), OK][min(call.nth, 2)])
    async with rig.running():
        assert rig.worker.condition().state is DestinationState.FLOWING
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.RETRYING)
        await rig.until(lambda: rig.worker.condition().state is DestinationState.THROTTLED)
        await rig.done()
        assert rig.worker.condition().state is DestinationState.FLOWING


@played
async def test_every_hold_is_shown_with_its_own_cause() -> None:
    """A destination held by a person and by a wrong credential shows both; a release ends both."""
    rig = Rig(lambda _call: Reply(401))
    async with rig.running():
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().cause is Cause.MISCONFIGURED)
        rig.worker.hold("maintenance")
        shown = rig.destination.shown_holds()
        assert [(hold.cause, hold.message) for hold in shown] == [
            (Cause.OPERATOR, "maintenance"),
            (Cause.MISCONFIGURED, "no access"),
        ]
        assert shown[0].next_probe is None
        assert shown[1].next_probe is not None
        rig.transport.behave = lambda _call: OK
        rig.worker.release()
        await rig.done(within=2)
        assert rig.destination.shown_holds() == []


@played
async def test_records_that_wait_alone_are_listed() -> None:
    """Each record that is tried again alone is shown with its place, attempts and reason, until it has its outcome.

    Kills: a list that forgets a record while it is in a request.
    """
    rig = Rig(lambda call: Reply(500) if 3 in call.numbers else OK, batch={"records": 1}, latency=1.0)
    async with rig.running():
        rig.offer(range(5))
        await rig.until(lambda: rig.transport.in_flight == 0 and rig.unfinished == 1)
        for _ in range(200):
            (record,) = rig.destination.waiting.records()
            assert record.position == ("t", 0, 3)
            assert record.reason == "HTTP 500"
            await rig.clock.sleep(0.1)
        assert record.attempts > 2
        assert record.since is not None
        rig.transport.behave = lambda _call: OK
        await rig.done()
        assert rig.destination.waiting.records() == []


@pytest.mark.parametrize("order", ["none", "key"])
def test_after_a_release_an_outage_is_counted_again(order: str) -> None:
    """What failed before a hold ended shows nothing any more: five different batches have to fail again.

    Kills: failures that outlast their hold, so that a release ends at the first failed request.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(500), max_in_flight=1, batch={"records": 10}, order=order)
        async with rig.running():
            rig.offer(range(100), key=lambda n: b"%d" % n)
            await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
            rig.worker.release()
            before = len(rig.transport.calls)
            await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
            assert len(rig.transport.calls) - before >= 5
            rig.transport.behave = lambda _call: OK
            await rig.done()

    run_virtual(play())
