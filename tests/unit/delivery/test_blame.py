"""The worker on virtual time: one record's failures harm no other record, and an outage drains nothing."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connector.delivery.states import Cause, DestinationState
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, failing, key_of, played

pytestmark = pytest.mark.slow

HELD = (DestinationState.HELD, DestinationState.PROBING)


@pytest.mark.promise("P6")
@pytest.mark.parametrize("flight", [1, 8])
def test_an_outage_is_held_before_unknown_outcomes_drain_a_topic(flight: int) -> None:
    """A gateway that answers 502 costs four batches with on_unknown_outcome: dead_letter; then it is an outage.

    Kills: asking for the setting before asking whether anything is accepted at all.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(502), on_unknown_outcome="dead_letter", max_in_flight=flight)
        async with rig.running():
            rig.offer(range(20_000))
            await rig.clock.sleep(3600)
            assert rig.worker.condition().cause is Cause.OUTAGE
            assert len(rig.dead_letters.dead_letters) == 400
            rig.transport.behave = lambda _call: OK
            await rig.done()
        assert len(rig.dead_letters.dead_letters) == 400
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P6")
def test_probes_of_a_hold_with_an_unknown_outcome_drain_nothing() -> None:
    """While a wrong credential holds the destination, a probe that a gateway answers with 504 is no dead letter.

    Kills: asking only whether an outage holds the destination before an unknown outcome becomes a dead letter.
    """

    async def play() -> None:
        answers = iter([401] * 5 + [504, 401] * 2000)
        rig = Rig(lambda _call: Reply(next(answers)), on_unknown_outcome="dead_letter", max_in_flight=1)
        async with rig.running():
            rig.offer(range(300))
            await rig.clock.sleep(3600)
            assert rig.worker.condition().cause is Cause.MISCONFIGURED
            assert rig.dead_letters.dead_letters == []
            rig.transport.behave = lambda _call: OK
            await rig.done(within=600)
        assert rig.dead_letters.dead_letters == []
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("order", ["none", "key"])
def test_a_denial_of_one_record_is_isolated_like_a_refusal(order: str, status: int) -> None:
    """A firewall that answers 403 for one payload never holds the destination; that record alone is set aside.

    Kills: a hold for a denial that comes again for one batch while others are accepted.
    """

    async def play() -> None:
        rig = Rig(failing(150, status=status), order=order, max_in_flight=4)
        seen = set()
        async with rig.running():
            for first in range(0, 3000, 100):
                rig.offer(range(first, first + 100), key=key_of)
                for _ in range(10):
                    seen.add(rig.worker.condition().state)
                    await rig.clock.sleep(0.05)
            await rig.done(within=60)
        assert not seen.intersection(HELD)
        assert rig.dead_letters.numbers == [150]
        dead_letter = rig.dead_letters.dead_letters[0]
        assert (dead_letter.cause, dead_letter.code, dead_letter.http_status) == ("refused", str(status), status)
        assert sum(150 in call.numbers for call in rig.transport.calls) <= 14
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("bad", [0, 50, 99])
@pytest.mark.parametrize(("order", "flight"), [("none", 8), ("none", 1), ("key", 8), ("key", 1)])
def test_a_denied_record_in_the_only_batch_keeps_nothing_else_back(order: str, flight: int, bad: int) -> None:
    """Where nothing else comes the batch is held and probed in ever smaller parts: the 99 others are accepted.

    Kills: a hold that probes with the same whole batch for ever.
    """

    async def play() -> None:
        rig = Rig(failing(bad, status=403), order=order, max_in_flight=flight)
        async with rig.running():
            rig.offer(range(100), key=lambda n: b"%d" % n)
            await rig.until(lambda: len(rig.transport.accepted) == 99, within=240)
            assert rig.dead_letters.numbers in ([], [bad])
            await rig.clock.sleep(3600)
            assert rig.dead_letters.numbers == [bad] or rig.worker.condition().state is DestinationState.RETRYING
            rig.offer(range(100, 102), key=lambda n: b"%d" % n)
            await rig.done(within=130)
        assert rig.dead_letters.numbers == [bad]
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P6")
@played
async def test_a_denied_endpoint_blames_no_record_though_others_are_accepted() -> None:
    """403 for one endpoint holds that one; what is accepted at another endpoint is no evidence against its records.

    Kills: taking any acceptance for evidence.
    """
    rig = Rig(lambda call: Reply(403) if call.group == "vip" else OK)
    async with rig.running():
        rig.offer(range(20), group="vip")
        for first in range(100, 1000, 10):
            rig.offer(range(first, first + 10), group="free")
            await rig.clock.sleep(0.3)
        assert rig.destination.holds.get(scope="vip") is not None
        assert len(rig.transport.accepted) == 900
        rig.transport.behave = lambda _call: OK
        await rig.done()
    assert rig.dead_letters.dead_letters == []


@pytest.mark.promise("P5")
@pytest.mark.promise("P11")
@pytest.mark.parametrize("after", [None, "0", "1"])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("order", "flight"), [("none", 8), ("none", 1), ("key", 8), ("key", 1)])
def test_a_record_that_always_fails_keeps_no_other_key_back(
    order: str, flight: int, status: int, after: str | None
) -> None:
    """A poison record waits alone and visibly, ever less often tried; other keys of its lane pass, its own key waits.

    Kills: a lane that waits behind it; `Retry-After: 1` that has it sent every second; counting it as an outage; a
    throttled batch that is always sent first.
    """

    async def play() -> None:
        headers = {} if after is None else {"retry_after": after}
        rig = Rig(failing(7, status=status, **headers), order=order, max_in_flight=flight)
        seen = set()
        async with rig.running():
            rig.offer(range(100), key=key_of)
            for first in range(100, 3600, 10):
                rig.offer(range(first, first + 10), key=key_of)
                await rig.clock.sleep(10)
                seen.add(rig.worker.condition().state)
            await rig.clock.sleep(10)
            behind = [n for n in range(8, 3600) if n % 20 == 7] if order == "key" else []
            assert sorted(rig.transport.accepted) == sorted(set(range(3600)) - {7, *behind})
            (record,) = rig.destination.waiting.records()
            assert record.position == ("t", 0, 7)
            assert rig.metrics.total(rig.metrics.record_waiting) > 3000
            assert not seen.intersection(HELD)
            assert sum(7 in call.numbers for call in rig.transport.calls) < 160
            rig.transport.behave = lambda _call: OK
            await rig.done(within=100)
        same = [n for n in rig.transport.accepted if n % 20 == 7]
        assert order != "key" or same == sorted(same)
        assert rig.sent_once()
        assert rig.metrics.total(rig.metrics.record_waiting) == 0

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("order", ["none", "key"])
def test_one_record_that_fails_is_no_outage_however_often(order: str) -> None:
    """Where nothing else comes a failing record only waits alone, so that the first good one is sent at once.

    Kills: counting the failures of one record as those of the destination.
    """

    async def play() -> None:
        rig = Rig(failing(0), order=order, max_in_flight=1)
        seen = set()
        async with rig.running(all_done=False):
            rig.offer([0], key=key_of)
            for _ in range(600):
                await rig.clock.sleep(1)
                seen.add(rig.worker.condition().state)
            assert len(rig.transport.calls) > 10
            assert not seen.intersection(HELD)
            rig.offer([1], key=key_of)
            await rig.until(lambda: rig.transport.accepted == [1], within=1)

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P11")
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    status=st.sampled_from([403, 429, 500, 504, 400]),
    order=st.sampled_from(["none", "key"]),
    flight=st.sampled_from([1, 3, 8]),
    size=st.sampled_from([1, 7, 100]),
    share=st.sampled_from([0.002, 0.02]),
)
def test_no_good_record_waits_for_a_bad_one(
    seed: int, status: int, order: str, flight: int, size: int, share: float
) -> None:
    """With steady traffic a good record is accepted within a minute, ten for 429, whatever the bad ones are answered.

    A good record of a bad one's key waits for that where there is order. Kills: each way in which one record's failures
    hold a destination, a lane or a batch.
    """
    # One request at a time, paused for each of forty throttled records, cannot keep pace with the traffic.
    assume(status != 429 or flight > 1 or share < 0.01)
    random = Random(seed)
    bad = {n for n in range(2000) if random.random() < share}

    async def play() -> None:
        behave = failing(*bad, status=status)
        rig = Rig(
            lambda call: (
                Reply(400, {"documented": False}) if status == 400 and bad.intersection(call.numbers) else behave(call)
            ),
            order=order,
            max_in_flight=flight,
            batch={"records": size},
        )
        async with rig.running(all_done=False):
            offered = {}
            for first in range(0, 2000, 10):
                for n in range(first, first + 10):
                    offered[n] = rig.clock.now()
                rig.offer(range(first, first + 10), key=lambda n: b"%d" % n)
                # One request at a time must be able to keep pace with the isolation of every bad record.
                await rig.clock.sleep(0.5 if flight > 1 else 2.0)
            # Each 429 pauses all requests, so there the search takes longer.
            most = 600 if status == 429 else 60
            await rig.clock.sleep(most)
            missing = set(range(2000)) - bad - set(rig.transport.accepted)
            assert not missing
            late = {n: at for call in rig.transport.calls for n in call.numbers for at in [call.at - offered[n]]}
            assert max((late[n] for n in range(2000) if n not in bad), default=0.0) < most
            assert set(rig.dead_letters.numbers) <= bad
            requests = sum(bool(bad.intersection(call.numbers)) for call in rig.transport.calls)
            assert requests <= len(bad) * most

    run_virtual(play())


@played
async def test_the_place_of_a_record_that_waits_is_logged_ever_less_often() -> None:
    """Each line names the record, and the command that skips it; an hour of waiting is a handful of lines.

    Kills: a line for each attempt, and a record that waits without a word.
    """
    rig = Rig(failing(3), batch={"records": 1})
    with capture_logs() as lines:
        async with rig.running(all_done=False):
            rig.offer(range(20))
            await rig.clock.sleep(3600)
    waiting = [line for line in lines if line["event"] == "record.waiting"]
    assert 3 <= len(waiting) <= 8
    assert {line["command"] for line in waiting} == {"connector skip t 0 3 --destination d"}
    assert {(line["topic"], line["partition"], line["offset"]) for line in waiting} == {("t", 0, 3)}


@pytest.mark.parametrize("after", ["0", "-5", "0.001"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_wish_of_no_wait_does_not_end_the_backoff(status: int, after: str) -> None:
    """`Retry-After: 0` for everything is backed off from like an answer without it.

    Kills: believing the wish; 4,000 requests in 10 s were made so.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(status, headers={"retry-after": after}))
        async with rig.running(all_done=False):
            rig.offer(range(5000))
            await rig.clock.sleep(600)
            # At most eight requests are in flight when a throttle begins.
            assert len(rig.transport.calls) < 250

    run_virtual(play())


@played
async def test_what_is_throttled_for_long_enough_is_given_up_where_the_user_asked() -> None:
    """`give_up_after` counts under 429 too. Kills: records that wait for ever for a vendor that only throttles."""
    rig = Rig(lambda _call: Reply(429), retry={"give_up_after": "100s"})
    async with rig.running():
        rig.offer([0])
        began = rig.clock.now()
        await rig.done()
        assert 100 <= rig.clock.now() - began <= 240
    assert [dead_letter.cause for dead_letter in rig.dead_letters.dead_letters] == ["gave_up"]


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_step_of_the_wall_clock_gives_nothing_up(jump: float) -> None:
    """`give_up_after` is a duration: setting the clock neither ends nor lengthens it. Kills: measuring by the wall."""

    async def play() -> None:
        rig = Rig(lambda _call: Reply(500), retry={"give_up_after": "100s"})
        async with rig.running():
            rig.offer([0])
            began = rig.clock.now()
            await rig.clock.sleep(10)
            rig.clock.jump(jump)
            await rig.clock.sleep(80)
            assert rig.dead_letters.dead_letters == []
            await rig.done()
            assert rig.clock.now() - began <= 240

    run_virtual(play())


@pytest.mark.parametrize("limit", ["records", "bytes"])
@pytest.mark.parametrize("flight", [1, 8])
def test_batches_closed_before_a_limit_was_learned_are_cut_again(flight: int, limit: str) -> None:
    """After the first 413 nothing larger is sent, though full batches wait; later the limit grows slowly.

    Kills: sending what was closed as it is; a limit that stays small for ever, and one that is raised at once.
    """

    async def play() -> None:
        most = 10
        refused: list[float] = []

        def behave(call: Call) -> Reply:
            if len(call.numbers) <= most:
                return OK
            refused.append(call.at)
            return Reply(413, {"limit": limit})

        rig = Rig(behave, max_in_flight=flight, batch={"records": 100})
        async with rig.running():
            rig.offer(range(1000, 9000))
            await rig.done()
            assert len(refused) <= 4 * flight + 8
            most = 100
            sizes = []
            for first in range(10_000, 10_000 + 60 * 100, 100):
                rig.offer(range(first, first + 100))
                await rig.done()
                sizes.append(max(len(call.numbers) for call in rig.transport.calls[-30:]))
                await rig.clock.sleep(60)
            assert sizes[0] < 20
            assert sizes[-1] == 100
        assert rig.sent_once()
        assert rig.dead_letters.dead_letters == []

    run_virtual(play())


@played
async def test_a_state_that_does_not_last_is_counted_and_not_logged() -> None:
    """A destination that is throttled ten times a second logs nothing of it, or what it was when it came to rest.

    Kills: a line for each change.
    """
    rig = Rig(
        lambda call: Reply(429, headers={"retry-after": "0.05"}) if call.nth % 2 else OK,
        batch={"records": 1},
        max_in_flight=1,
        retry={"initial": "10ms", "max": "20s"},
    )
    with capture_logs() as lines:
        async with rig.running(all_done=False):
            rig.offer(range(600))
            await rig.until(lambda: len(rig.transport.accepted) == 600)
            rig.transport.behave = lambda _call: Reply(429, headers={"retry-after": "9"})
            rig.offer([600])
            await rig.clock.sleep(8)
            assert rig.worker.condition().state is DestinationState.THROTTLED
    (line,) = [line for line in lines if line["event"] == "destination.state"]
    assert (line["state"], line["was"]) == ("throttled", "flowing")
    assert line["changes_left_out"] > 500


@played
async def test_a_hold_and_its_end_are_logged_at_once_unless_they_go_to_and_fro() -> None:
    """An operator sees what was done in the log; a destination held ten times a minute logs no more than six of them.

    Kills: a hold that is logged late, and a line for each of many.
    """
    rig = Rig()
    with capture_logs() as lines:
        async with rig.running():
            for _ in range(50):
                rig.worker.hold("maintenance")
                await rig.clock.sleep(0.1)
                rig.worker.release()
                await rig.clock.sleep(0.1)
    states = [line["state"] for line in lines if line["event"] == "destination.state"]
    assert states == ["held", "flowing"] * 3


@pytest.mark.promise("P5")
def test_records_that_always_fail_leave_half_of_a_low_rate_limit_to_others() -> None:
    """Twenty records that always get 500 do not use up two requests a second: every other record is delivered.

    Kills: sending whatever is due again before anything new.
    """

    async def play() -> None:
        retry = {"initial": 0.05, "max": 0.5}
        rig = Rig(failing(*range(20)), requests_per_second=2, batch={"records": 1}, max_in_flight=1, retry=retry)
        async with rig.running():
            rig.offer(range(60))
            await rig.clock.sleep(120)
            accepted = {number for call in rig.transport.calls for number in call.numbers}
            assert set(range(20, 60)) <= accepted
            rig.transport.behave = lambda _call: OK
            await rig.done(within=600)

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("order", ["none", "key"])
def test_records_that_are_throttled_in_every_batch_are_found(order: str) -> None:
    """Where each batch holds a record that is always throttled, single records are tried until one is accepted.

    Kills: waiting for an acceptance before any batch is taken apart, where no whole batch can be accepted.
    """

    async def play() -> None:
        bad = range(0, 1000, 100)
        rig = Rig(failing(*bad, status=429, retry_after="1"), order=order, max_in_flight=8)
        async with rig.running(all_done=False):
            rig.offer(range(1000), key=lambda n: b"%d" % n)
            await rig.until(lambda: len(rig.transport.accepted) == 990, within=600)
            assert rig.sent_once()
            assert {each.position.offset for each in rig.destination.waiting.records()} == set(bad)

    run_virtual(play())


@pytest.mark.promise("P6")
def test_a_quota_that_is_used_up_costs_one_small_request_a_pause() -> None:
    """While every request is throttled for hours, each pause ends with one record alone; then full batches go again.

    Kills: a full batch, or all that may be in flight, at the end of each pause; taking batches apart meanwhile.
    """

    async def play() -> None:
        rig = Rig(lambda _call: Reply(429, headers={"retry-after": "60"}), max_in_flight=8)
        async with rig.running():
            rig.offer(range(5000))
            await rig.clock.sleep(7200)
            assert rig.worker.condition().state is DestinationState.THROTTLED
            assert len(rig.transport.calls) <= 5 * 8 + 120
            assert {len(call.numbers) for call in rig.transport.calls[40:]} == {1}
            asked = len(rig.transport.calls)
            rig.transport.behave = lambda _call: OK
            await rig.done(within=120)
        assert len(rig.transport.calls) - asked <= 50 + 2 * 120
        assert rig.dead_letters.dead_letters == []
        assert rig.sent_once()

    run_virtual(play())
