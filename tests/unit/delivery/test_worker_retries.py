"""The worker on virtual time: what is tried again and when, what is given up, and how fast requests go."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.delivery.states import DestinationState
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, played


@played
async def test_a_failed_batch_is_sent_again_whole() -> None:
    """A 500 says nothing about the records: the same batch goes again, and each record is accepted once."""
    rig = Rig(lambda call: Reply(500) if call.nth < 3 else OK)
    async with rig.running():
        rig.offer(range(100))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.RETRYING)
        await rig.done()
    assert [call.numbers for call in rig.transport.calls] == [tuple(range(100))] * 4
    assert rig.dead_letters.dead_letters == []


@pytest.mark.parametrize(("wish", "least"), [("7", 7.0), ("0.5", 0.5), ("100000", 60.0)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_vendors_wish_is_honoured_up_to_the_cap(status: int, wish: str, least: float) -> None:
    """Retry-After is waited for, but never longer than retry.max."""

    async def play() -> None:
        rig = Rig(lambda call: Reply(status, headers={"retry-after": wish}) if call.nth == 0 else OK)
        async with rig.running():
            rig.offer(range(100))
            await rig.done()
        answered = rig.transport.calls[0].at + rig.transport.latency
        assert least <= rig.transport.calls[1].at - answered < least + 0.01

    run_virtual(play())


@pytest.mark.promise("P6")
@played
async def test_throttling_stops_every_request_and_blames_no_record() -> None:
    """After 429 nothing goes out until the vendor's time is over; the state says throttled meanwhile.

    Kills: pausing only the batch that was throttled.
    """
    rig = Rig(lambda call: Reply(429, headers={"retry-after": "5"}) if call.nth < 8 else OK)
    async with rig.running():
        rig.offer(range(5000))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.THROTTLED)
        asked = len(rig.transport.calls)
        await rig.clock.sleep(4.9)
        assert len(rig.transport.calls) == asked == 8
        await rig.done()
    assert rig.sent_once()
    assert rig.dead_letters.dead_letters == []


@played
async def test_requests_under_way_when_throttled_do_not_lengthen_the_wait() -> None:
    """Eight requests answered 429 at once count as one: the next try comes within the first backoff.

    Kills: raising the backoff with each late answer.
    """
    rig = Rig(lambda call: Reply(429) if call.nth < 8 else OK, retry={"initial": "1s", "max": "60s"})
    async with rig.running():
        rig.offer(range(800))
        await rig.done()
    assert rig.transport.calls[8].at - rig.transport.calls[7].at <= rig.transport.latency + 8.0


@played
async def test_an_unknown_outcome_is_counted_and_tried_again() -> None:
    """A cut after the body was sent is retried by default, and counted apart."""
    rig = Rig(lambda call: Reply(cut=True) if call.nth < 2 else OK)
    async with rig.running():
        rig.offer(range(10))
        await rig.done()
    assert rig.transport.accepted == list(range(10))
    assert rig.metrics.total(rig.metrics.unknown_outcomes) == 2


@played
async def test_an_unknown_outcome_may_end_as_a_dead_letter() -> None:
    """With on_unknown_outcome: dead_letter a repeat is never made; a plain 500 still is."""
    rig = Rig(lambda call: [Reply(500), Reply(cut=True), OK][min(call.nth, 2)], on_unknown_outcome="dead_letter")
    async with rig.running():
        rig.offer(range(10))
        await rig.done()
        rig.offer(range(10, 20))
        await rig.done()
    assert rig.dead_letters.numbers == list(range(10))
    assert {dead_letter.cause for dead_letter in rig.dead_letters.dead_letters} == {"unknown_outcome"}
    assert rig.transport.accepted == list(range(10, 20))


@played
async def test_a_request_without_an_answer_is_an_unknown_outcome() -> None:
    """A vendor that never answers is given up at the time-out, and asked again."""
    rig = Rig(latency=1e6)
    async with rig.running():
        rig.offer([0])
        await rig.until(lambda: len(rig.transport.calls) == 2)
        rig.transport.latency = 0.01
        await rig.done()
    assert rig.transport.calls[1].at - rig.transport.calls[0].at >= 20.0
    assert rig.metrics.total(rig.metrics.unknown_outcomes) >= 1


@played
async def test_what_was_tried_for_long_enough_is_given_up_where_the_user_asked() -> None:
    """With give_up_after a batch becomes dead letters after that time, with its attempts; without, never."""
    rig = Rig(lambda _call: Reply(500), retry={"give_up_after": "100s"})
    async with rig.running():
        rig.offer([0])
        began = rig.clock.now()
        await rig.done()
        took = rig.clock.now() - began
    assert 100 <= took <= 240
    dead_letter = rig.dead_letters.dead_letters[0]
    assert (dead_letter.cause, dead_letter.attempts) == ("gave_up", len(rig.transport.calls))
    assert dead_letter.first_attempt is not None


@pytest.mark.promise("P5", "P17")
@played
async def test_a_record_that_makes_the_vendor_fail_waits_alone() -> None:
    """A batch that failed five times while others passed is halved until its one record waits alone, not dead-lettered.

    Kills: failing ninety-nine innocent records for ever with it.
    """
    rig = Rig(lambda call: Reply(500) if 13 in call.numbers else OK)
    async with rig.running(all_done=False):
        for chunk in range(100):
            rig.offer(range(chunk * 100, chunk * 100 + 100))
            await rig.clock.sleep(3)
        await rig.until(lambda: rig.unfinished == 1)
        assert rig.dead_letters.dead_letters == []
        assert rig.worker.condition().state is DestinationState.RETRYING
        assert "t[0]@13 waits alone" in (rig.worker.condition().message or "")
        assert rig.tracker().watermark == 13
        rig.transport.behave = lambda _call: OK
        await rig.done()
    assert rig.sent_once()


@pytest.mark.promise("P5")
@played
async def test_a_lone_batch_with_a_record_that_fails_is_taken_apart_by_probes() -> None:
    """Where nothing else comes the failing batch looks like an outage: probes halve it, and the innocent are accepted.

    Kills: ninety-nine records that wait behind one until other events come.
    """
    rig = Rig(lambda call: Reply(500) if 13 in call.numbers else OK)
    async with rig.running(all_done=False):
        rig.offer(range(100))
        await rig.until(lambda: rig.unfinished == 1)
        assert rig.dead_letters.dead_letters == []
        assert rig.tracker().watermark == 13
        rig.transport.behave = lambda _call: OK
        await rig.done()
    assert rig.sent_once()


@pytest.mark.promise("P8")
@pytest.mark.parametrize("rate", [1, 7, 25, 100])
def test_no_second_is_over_the_rate(rate: int) -> None:
    """With work waiting, no second holds more requests than the limit, and 98 % of it is used.

    Kills: pacing by whole seconds; forgetting that a retry is a request too.
    """

    async def play() -> None:
        rig = Rig(lambda call: Reply(500) if call.nth % 10 == 9 else OK, requests_per_second=rate, batch={"records": 1})
        async with rig.running(all_done=False):
            rig.offer(range(rate * 30))
            await rig.clock.sleep(22)
            starts = [call.at for call in rig.transport.calls]
        most = max(sum(1 for other in starts if at <= other < at + 1) for at in starts)
        assert most <= rate
        assert sum(1 for at in starts if at < starts[0] + 20) >= 20 * rate * 0.98

    run_virtual(play())


@pytest.mark.promise("P8")
@played
async def test_the_documented_rate_holds_where_the_file_says_nothing() -> None:
    """A vendor that documents 100 requests a second is never asked more often. Kills: pacing set rates only."""
    rig = Rig(rated=True, batch={"records": 1}, max_in_flight=100)
    async with rig.running():
        rig.offer(range(500))
        await rig.done()
    starts = [call.at for call in rig.transport.calls]
    assert starts[-1] - starts[0] >= 499 / 100


@pytest.mark.promise("P8")
@played
async def test_finding_a_bad_record_pays_the_rate() -> None:
    """Every probe of a refused batch counts against the limit.

    Kills: parts of a refused batch that go past the bucket.
    """
    rig = Rig(lambda call: Reply(400, {"code": "B"}) if 5 in call.numbers else OK, requests_per_second=2)
    async with rig.running():
        rig.offer(range(100))
        await rig.done()
    starts = [call.at for call in rig.transport.calls]
    assert len(starts) > 8
    assert min(third - first for first, third in zip(starts, starts[2:], strict=False)) >= 1.0


@played
async def test_without_a_share_nothing_is_sent_until_there_is_one() -> None:
    """A member that owns no partition of the destination's topics sends nothing, and begins once it does."""
    rig = Rig(requests_per_second=10)
    async with rig.running():
        rig.worker.set_share(0.0)
        rig.offer(range(10))
        await rig.clock.sleep(600)
        assert rig.transport.calls == []
        rig.worker.set_share(0.5)
        await rig.done(within=2)


@pytest.mark.promise("P1")
@settings(max_examples=40)
@given(
    answers=st.lists(st.sampled_from([200, 200, 200, 400, 413, 429, 500, 502, 503, 0]), min_size=1, max_size=30),
    count=st.sampled_from([1, 2, 99, 100, 101, 350]),
    order=st.sampled_from(["none", "key"]),
    flight=st.sampled_from([1, 2, 8]),
)
def test_any_sequence_of_answers_ends_every_record_once(
    answers: list[int], count: int, order: str, flight: int
) -> None:
    """Whatever a vendor answers before it recovers, every record ends exactly once: accepted, or refused alone.

    Kills: a batch dropped or doubled in any of the ways back into its lane.
    """

    def behave(call: Call) -> Reply:
        status = answers[call.nth] if call.nth < len(answers) else 200
        return Reply(status or 200, {"code": "X"}, cut=status == 0)

    async def play() -> None:
        rig = Rig(behave, order=order, max_in_flight=flight)
        async with rig.running():
            rig.offer(range(count), key=lambda n: b"%d" % (n % 5))
            await rig.done()
        assert rig.sent_once()
        assert sorted(rig.transport.accepted + rig.dead_letters.numbers) == list(range(count))

    run_virtual(play())
