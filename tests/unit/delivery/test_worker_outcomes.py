"""The worker on virtual time: acceptance, refusals found alone, and what finding them costs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.delivery.states import Cause, DestinationState
from connector.errors import Refusal
from connector.pipeline.offsets import Phase
from connector.records import Answer
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, played, refusing


@pytest.mark.promise("P1")
@played
async def test_every_record_is_accepted_once_in_full_batches() -> None:
    """A thousand records and a vendor that takes all: ten full requests, each record once, nothing left over.

    Kills: closing a batch one record early, or forgetting the record that did not fit.
    """
    rig = Rig()
    async with rig.running():
        rig.offer(range(1000))
        await rig.done()
    assert sorted(rig.transport.accepted) == list(range(1000))
    assert [len(call.numbers) for call in rig.transport.calls] == [100] * 10
    assert rig.tracker().watermark == 1000


@played
async def test_a_lone_record_waits_for_the_linger_and_no_longer() -> None:
    """An idle destination sends a single record when its linger is over."""
    rig = Rig(batch={"linger": "300ms"})
    async with rig.running():
        offered = rig.clock.now()
        rig.offer([0])
        await rig.done()
    assert 0.3 <= rig.transport.calls[0].at - offered < 0.302


@played
async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    """With many full batches waiting exactly max_in_flight requests are under way."""
    rig = Rig(max_in_flight=3)
    async with rig.running():
        rig.offer(range(2000))
        await rig.done()
    assert rig.transport.most_in_flight == 3


@pytest.mark.promise("P5")
@pytest.mark.parametrize(("hinted", "most"), [(False, 14), (True, 3)])
@pytest.mark.parametrize("bad", [0, 37, 99])
def test_one_bad_record_of_a_hundred_is_found_cheaply(bad: int, hinted: bool, most: int) -> None:
    """The one bad record is the only dead letter, after at most 14 extra requests blind and 3 with a hint.

    Kills: re-sending record by record, and dead-lettering a suspect that was not refused alone.
    """

    async def play() -> None:
        rig = Rig(refusing([bad], hinted=hinted))
        async with rig.running():
            rig.offer(range(100))
            await rig.done()
        assert rig.dead_letters.numbers == [bad]
        assert sorted(rig.transport.accepted) == [n for n in range(100) if n != bad]
        assert len(rig.transport.calls) - 1 <= most
        dead_letter = rig.dead_letters.dead_letters[0]
        assert (dead_letter.cause, dead_letter.code, dead_letter.http_status) == ("refused", "B1", 400)

    run_virtual(play())


@pytest.mark.promise("P5")
@settings(max_examples=60)
@given(
    count=st.sampled_from([1, 2, 3, 99, 100, 101, 250]),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    seed=st.randoms(use_true_random=False),
    hinted=st.booleans(),
    order=st.sampled_from(["none", "key"]),
)
def test_exactly_the_bad_records_become_dead_letters(
    count: int, share: float, seed: st.DataObject, hinted: bool, order: str
) -> None:
    """Whatever is bad, hinted or not, ordered or not: the bad are dead letters, the good are accepted once.

    Kills: a suspect taken for guilty, a part of a batch lost or sent twice while it is taken apart.
    """
    bad = {n for n in range(count) if seed.random() < share}  # type: ignore[attr-defined]

    async def play() -> None:
        rig = Rig(refusing(bad, hinted=hinted), storm="off", order=order)
        async with rig.running():
            rig.offer(range(count), key=lambda n: b"%d" % (n % 7))
            await rig.done()
        assert rig.dead_letters.numbers == sorted(bad)
        assert sorted(rig.transport.accepted) == sorted(set(range(count)) - bad)

    run_virtual(play())


@pytest.mark.promise("P5")
@played
async def test_hints_that_name_the_innocent_blame_no_one() -> None:
    """A vendor that names the wrong records costs requests, but only the record refused alone is a dead letter.

    Kills: believing the vendor's words.
    """

    def behave(call: Call) -> Reply:
        return Reply(400, {"code": "B1", "named": [3, 4, 5]}) if 50 in call.numbers else OK

    rig = Rig(behave)
    async with rig.running():
        rig.offer(range(100))
        await rig.done()
    assert rig.dead_letters.numbers == [50]
    assert sorted(rig.transport.accepted) == [n for n in range(100) if n != 50]


@played
async def test_batches_not_involved_go_on_while_one_is_taken_apart() -> None:
    """The other batches are accepted before the bad record is found."""
    rig = Rig(refusing([0]), max_in_flight=4)
    async with rig.running():
        rig.offer(range(300))
        await rig.until(lambda: sum(n >= 100 for n in rig.transport.accepted) == 200)
        assert rig.dead_letters.numbers == []
        await rig.done()
    assert rig.dead_letters.numbers == [0]


@pytest.mark.promise("P5")
@played
async def test_an_undocumented_refusal_of_one_record_is_found() -> None:
    """One bad record among good ones is refused alone twice, with an acceptance between, and then believed.

    Kills: believing an undocumented code the first time.
    """
    rig = Rig(refusing([42], documented=False))
    async with rig.running():
        rig.offer(range(100))
        await rig.done()
    assert rig.dead_letters.numbers == [42]
    assert [call.numbers for call in rig.transport.calls].count((42,)) == 2
    assert rig.worker.condition().state is DestinationState.FLOWING


@played
async def test_a_code_that_is_understood_ends_the_doubt() -> None:
    """A documented refusal of a probe ends a hold by an undocumented code: the vendor judges records again.

    In one ordered lane the head is what is probed, so without this the lane would wait for ever.
    """
    understood: set[str] = set()
    wrong = refusing(range(6), documented=False)
    known = refusing(range(3))
    rig = Rig(lambda call: known(call) if understood else wrong(call), order="key", max_in_flight=1)
    async with rig.running():
        rig.offer(range(6), key=lambda n: b"%d" % n)
        await rig.until(lambda: rig.worker.condition().cause is Cause.MISCONFIGURED)
        understood.add("B1")
        await rig.done()
    assert rig.dead_letters.numbers == [0, 1, 2]
    assert sorted(rig.transport.accepted) == [3, 4, 5]


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@played
async def test_an_undocumented_refusal_of_every_record_holds() -> None:
    """A hundred of a hundred refused with an unknown code is a hold that says so, and no dead letter.

    Kills: counting a misunderstood answer against the records.
    """
    rig = Rig(refusing(range(100), documented=False))
    async with rig.running(all_done=False):
        rig.offer(range(100))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        held = rig.worker.condition()
        assert held.cause is Cause.MISCONFIGURED
        assert held.code == "B1"
        assert "codes:" in (held.message or "")
        await rig.clock.sleep(3600)
        assert rig.dead_letters.numbers == []
        rig.transport.behave = lambda _call: OK
        await rig.done(within=61)
    assert rig.dead_letters.numbers == []
    assert rig.budget.used == 0


@pytest.mark.promise("P5")
@played
async def test_a_probe_of_a_doubted_destination_takes_another_record_each_time() -> None:
    """A held destination whose first records stay refused is set free by a good one further back.

    Kills: probing with the same record for ever.
    """
    rig = Rig(refusing(range(20), documented=False))
    async with rig.running(all_done=False):
        rig.offer(range(20))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        rig.offer(range(20, 40))
        await rig.done()
    assert rig.dead_letters.numbers == list(range(20))
    assert sorted(rig.transport.accepted) == list(range(20, 40))


@pytest.mark.promise("P5")
@pytest.mark.promise("P11")
@played
async def test_a_doubt_at_the_head_of_the_only_lane_is_ended_by_another_key() -> None:
    """With order and one lane, a record in doubt waits for the acceptance of another key's record, not for ever.

    Kills: probing an ordered lane with nothing but its head, or with a later record of the head's key.
    """
    rig = Rig(refusing([0, 1], documented=False), order="key", max_in_flight=1)
    async with rig.running():
        keys = [b"a", b"b", b"a", b"b", b"a", b"c", b"a", b"b", b"c", b"c"]
        rig.offer(range(10), key=lambda n: keys[n])
        await rig.done()
    assert rig.dead_letters.numbers == [0, 1]
    assert rig.transport.accepted.index(2) < rig.transport.accepted.index(4) < rig.transport.accepted.index(6)
    assert [n for n in rig.transport.accepted if n in (5, 8, 9)] == [5, 8, 9]


@pytest.mark.parametrize("limit", ["records", "bytes"])
@pytest.mark.parametrize("most", [1, 2, 7, 30, 50])
def test_a_batch_too_large_is_cut_and_the_smaller_limit_remembered(most: int, limit: str) -> None:
    """What the vendor calls too large is cut until it fits; later batches are never larger than what it took."""

    def behave(call: Call) -> Reply:
        return Reply(413, {"limit": limit}) if len(call.numbers) > most else OK

    async def play() -> None:
        rig = Rig(behave, max_in_flight=1)
        async with rig.running():
            rig.offer(range(1000, 1100))
            await rig.done()
            before = len(rig.transport.calls)
            rig.offer(range(1100, 1300))
            await rig.done()
        later = rig.transport.calls[before:]
        assert max(len(call.numbers) for call in later) <= max(most, 1)
        assert 413 not in [reply.status for reply in rig.transport.replies[before:]]
        assert rig.sent_once()
        assert rig.dead_letters.dead_letters == []

    run_virtual(play())


@played
async def test_a_record_too_large_alone_is_a_dead_letter() -> None:
    """A lone record that the vendor calls too large ends as `too_large`; the others are accepted."""
    rig = Rig(lambda call: Reply(413, {"limit": "bytes"}) if 7 in call.numbers else OK)
    async with rig.running():
        rig.offer(range(100))
        await rig.done()
    assert rig.dead_letters.numbers == [7]
    assert rig.dead_letters.dead_letters[0].cause == "too_large"


@pytest.mark.promise("P10")
@played
async def test_a_dead_letter_is_acknowledged_before_its_record_is_done() -> None:
    """While Kafka keeps a dead letter's acknowledgement back the watermark stays below it; the other records go on.

    Kills: finishing the record before the dead letter is written, and stopping the destination meanwhile.
    """
    rig = Rig(refusing([3], hinted=True), max_in_flight=1)
    async with rig.running():
        rig.dead_letters.gate.clear()
        rig.offer(range(200))
        await rig.until(lambda: rig.dead_letters.begun)
        await rig.until(lambda: len(rig.transport.accepted) == 199)
        assert rig.tracker().watermark == 3
        rig.dead_letters.gate.set()
        await rig.done()
    assert rig.tracker().watermark == 200


@played
async def test_answers_are_acknowledged_before_their_records_are_done() -> None:
    """A query's record has no outcome while its answer is being written; one asked again is answered once."""

    def behave(call: Call) -> Reply:
        again = [1] if call.nth == 0 else []
        return Reply(200, {"answers": True, "again": again})

    rig = Rig(behave)
    pending: list[int] = []
    rig.answers.on_write = lambda: pending.append(rig.tracker().unfinished)
    async with rig.running():
        rig.offer(range(3))
        await rig.done()
    assert pending == [3, 1]
    assert sorted(answer.datum["n"] for answer in rig.answers.written) == [0, 1, 2]


@pytest.mark.promise("P14")
@played
async def test_an_answer_that_the_topic_can_never_take_ends_in_a_dead_letter() -> None:
    """Its question is dead-lettered, and those around it are answered; one asked again is another index.

    Kills: one long id or key that blocks its partition for ever.
    """
    rig = Rig(lambda call: Reply(200, {"answers": True, "again": [0] if call.nth == 0 else []}))
    rig.answers.too_large = {1}
    async with rig.running():
        rig.offer(range(4))
        await rig.done()
    assert sorted(answer.datum["n"] for answer in rig.answers.written) == [0, 2, 3]
    (letter,) = rig.dead_letters.dead_letters
    assert (letter.record.offset, letter.cause, letter.code) == (1, "too_large", "results.too_large")


@played
async def test_a_question_that_breaks_a_rule_is_answered_before_its_dead_letter_is_done() -> None:
    """A local refusal of a question goes to the results topic too, and its record waits for that."""
    rig = Rig()
    pending: list[int] = []
    rig.answers.on_write = lambda: pending.append(rig.tracker().unfinished)
    refusal = Refusal("invalid", "model.n.range", "too small")
    refusal.answers = (Answer("model.Answer", {"n": 0}),)
    async with rig.running():
        rig.worker.refuse(rig.delivery(0), refusal)
        await rig.done()
    assert pending == [1]
    assert [answer.datum for answer in rig.answers.written] == [{"n": 0}]
    assert len(rig.dead_letters.dead_letters) == 1


@played
async def test_a_record_that_breaks_a_rule_never_reaches_the_vendor() -> None:
    """A local refusal is a dead letter with its cause, rule and field; nothing of it is sent."""
    rig = Rig()
    async with rig.running():
        rig.worker.refuse(rig.delivery(0), Refusal("invalid", "model.n.range", "too small", field="n"))
        await rig.done()
    dead_letter = rig.dead_letters.dead_letters[0]
    assert (dead_letter.cause, dead_letter.code, dead_letter.field, dead_letter.attempts) == (
        "invalid",
        "model.n.range",
        "n",
        0,
    )
    assert rig.transport.calls == []


@played
async def test_what_expires_while_it_waits_is_a_dead_letter_and_the_rest_is_sent() -> None:
    """A rule on time is checked again at each attempt: the record too old by then ends as `expired`."""
    rig = Rig(lambda call: Reply(503, headers={"retry-after": "10"}) if call.nth == 0 else OK)
    async with rig.running():
        soon = int((rig.clock.wall() + 5) * 1000)
        rig.take([rig.delivery(0, expires_at=soon), rig.delivery(1)])
        await rig.done()
    assert rig.dead_letters.numbers == [0]
    assert rig.dead_letters.dead_letters[0].cause == "expired"
    assert rig.dead_letters.dead_letters[0].code == "model.expired"
    assert rig.transport.accepted == [1]


@played
async def test_a_batch_of_expired_records_sends_nothing() -> None:
    """Where every record of a due batch has expired no request is made, and all become dead letters."""
    rig = Rig(lambda _call: Reply(503, headers={"retry-after": "10"}))
    async with rig.running():
        soon = int((rig.clock.wall() + 5) * 1000)
        rig.take([rig.delivery(n, expires_at=soon) for n in range(3)])
        await rig.done()
    assert rig.dead_letters.numbers == [0, 1, 2]
    assert len(rig.transport.calls) == 1


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@played
async def test_an_outage_that_ends_in_a_refusal_no_one_understands_finds_the_record() -> None:
    """Back from an outage the vendor refuses the only batch by an unknown code: its records are asked one by one.

    Kills: probing with the same whole batch for ever, because its refusal neither ends nor doubts anything.
    """
    away = True
    bad = refusing([3], documented=False)
    rig = Rig(lambda call: Reply(503) if away else bad(call), batch={"records": 10}, max_in_flight=1)
    async with rig.running():
        rig.offer(range(10))
        await rig.until(lambda: rig.worker.condition().cause is Cause.OUTAGE)
        away = False
        await rig.until(lambda: len(rig.transport.accepted) == 9, within=200)
        # The last record that waits has to be refused again after another one was accepted.
        rig.offer(range(10, 12))
        await rig.done()
    assert rig.dead_letters.numbers == [3]
    assert sorted(rig.transport.accepted) == [n for n in range(12) if n != 3]


@played
async def test_a_vendor_that_says_it_is_used_up_is_left_alone_until_its_reset() -> None:
    """An acceptance with no request left is the last one until the reset; nothing is refused for it.

    Kills: running into a 429 that the vendor had announced.
    """
    rig = Rig(lambda call: Reply(200, {"reset": 30}) if call.nth == 0 else OK, batch={"records": 1}, max_in_flight=1)
    async with rig.running():
        rig.offer(range(3))
        await rig.done()
    first, second, third = (call.at for call in rig.transport.calls)
    assert second - first >= 30
    assert third - second < 1


@played
async def test_a_probe_in_doubt_that_is_too_large_shows_nothing() -> None:
    """While a vendor is in doubt, a lone probe that it calls too large goes back, and the destination stays held.

    Kills: a dead letter by the word of a vendor that refuses everything; a limit learned from it.
    """
    answer = [Reply(400, {"documented": False})]
    rig = Rig(lambda _call: answer[0])
    async with rig.running():
        rig.offer(range(20))
        await rig.until(lambda: rig.worker.condition().state is DestinationState.HELD)
        answer[0] = Reply(413)
        before = len(rig.transport.calls)
        await rig.clock.sleep(600)
        assert len(rig.transport.calls) > before
        assert rig.worker.condition().cause is Cause.MISCONFIGURED
        answer[0] = OK
        await rig.done()
    assert rig.dead_letters.dead_letters == []
    assert not rig.destination.limits.taught
    assert rig.sent_once()


@played
async def test_a_refused_question_has_its_result_and_its_dead_letter() -> None:
    """The answer that comes with a refusal is written before the dead letter, once the question was refused alone."""
    bad = refusing([3])
    rig = Rig(lambda call: bad(call) if bad(call) is OK else Reply(400, {"code": "B1", "answers": True}))
    before: list[int] = []
    rig.answers.on_write = lambda: before.append(len(rig.dead_letters.dead_letters))
    async with rig.running():
        rig.offer(range(8))
        await rig.done()
    assert [answer.datum for answer in rig.answers.written] == [{"n": 3}]
    assert before == [0]
    assert rig.dead_letters.numbers == [3]


@pytest.mark.parametrize("reply", [Reply(400, {"documented": False}), Reply(200, {"again": [0]})])
def test_an_answer_for_a_partition_that_has_left_changes_nothing(reply: Reply) -> None:
    """A lone record whose partition left while it was sent is neither doubted nor asked again: it is the next owner's.

    Kills: a record of another member's partition that is sent once more.
    """

    async def play() -> None:
        rig = Rig(lambda _call: reply, latency=5.0)
        async with rig.running(all_done=False):
            rig.offer([0])
            await rig.until(lambda: rig.transport.in_flight)
            rig.tracker().phase = Phase.DRAINING
            await rig.clock.sleep(60)
            assert len(rig.transport.calls) == 1
            assert rig.budget.used == 0
            assert rig.dead_letters.dead_letters == []
            assert rig.worker.condition().state is DestinationState.FLOWING

    run_virtual(play())
