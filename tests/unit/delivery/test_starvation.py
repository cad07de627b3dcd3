"""The worker on virtual time: several kinds of bad records at once starve no good record."""

from __future__ import annotations

import pytest

from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, refusing

pytestmark = pytest.mark.slow

IN_DOUBT = Reply(400, {"code": "X", "documented": False})


def own_key(number: int) -> bytes:
    """Return a key that no other record has."""
    return b"%d" % number


@pytest.mark.promise("P5")
@pytest.mark.promise("P17")
@pytest.mark.parametrize(("order", "flight"), [("none", 1), ("none", 8), ("key", 1)])
def test_a_record_refused_again_and_again_does_not_hide_that_a_batch_is_stuck(order: str, flight: int) -> None:
    """A record in doubt is refused between the 429s of a batch: its good records are sent one by one nevertheless.

    Kills: beginning to count pauses again at each refusal, after which the batch is sent whole for ever.
    """

    async def play() -> None:
        def behave(call: Call) -> Reply:
            if 1 in call.numbers:
                return Reply(429, headers={"retry-after": "1"})
            return IN_DOUBT if 0 in call.numbers else OK

        # The record in doubt is sent at least every second time.
        rig = Rig(behave, order=order, max_in_flight=flight, retry={"max": "4s"})
        async with rig.running(all_done=False):
            rig.offer([0], key=own_key)
            await rig.clock.sleep(1)
            rig.offer(range(1, 11), key=own_key)
            await rig.until(lambda: sorted(rig.transport.accepted) == list(range(2, 11)), within=60)
            await rig.until(lambda: rig.dead_letters.numbers == [0], within=60)
            (record,) = rig.destination.waiting.records()
            assert record.position.offset == 1

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P17")
@pytest.mark.parametrize(("order", "flight"), [("none", 1), ("none", 8), ("key", 1)])
@pytest.mark.parametrize("storm", [True, False])
def test_documented_refusals_between_pauses_do_not_hide_that_a_batch_is_stuck(
    storm: bool, order: str, flight: int
) -> None:
    """A storm's probes, or bad records that keep coming, are refused between the 429s of a batch with good records.

    Kills: beginning to count pauses again at each documented refusal.
    """

    async def play() -> None:
        def behave(call: Call) -> Reply:
            if 0 in call.numbers:
                return Reply(429, headers={"retry-after": "1"})
            return Reply(400, {"code": "B1"}) if max(call.numbers) >= 100 else OK

        guard = {"records": 10, "share": 0.5} if storm else "off"
        rig = Rig(behave, order=order, max_in_flight=flight, storm=guard, retry={"max": "4s"})
        async with rig.running(all_done=False):
            if storm:
                rig.offer(range(100, 150), key=own_key)
                await rig.until(lambda: rig.set_aside == 45)
            rig.offer(range(10), key=own_key, partition=1)
            for number in range(200, 260):
                if not storm:
                    rig.offer([number], key=own_key)
                await rig.clock.sleep(1)
            assert sorted(rig.transport.accepted) == list(range(1, 10))

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.parametrize(("order", "flight"), [("none", 1), ("none", 8), ("key", 1), ("key", 8)])
def test_a_held_endpoint_is_probed_while_another_has_a_backlog(order: str, flight: int) -> None:
    """A backlog for one endpoint does not keep another one held after its permission was fixed.

    Kills: probing only when nothing else can be sent.
    """

    async def play() -> None:
        rig = Rig(
            lambda call: Reply(403) if call.group == "b" else OK,
            order=order,
            max_in_flight=flight,
            requests_per_second=2,
            batch={"records": 1},
        )
        async with rig.running(all_done=False):
            rig.offer(range(4), group="b", key=lambda n: b"b%d" % n)
            await rig.until(lambda: rig.destination.holds.get(scope="b"))
            rig.offer(range(100, 500), group="a", key=own_key)
            await rig.clock.sleep(60)
            rig.transport.behave = lambda _call: OK
            await rig.until(lambda: set(range(4)).issubset(rig.transport.accepted), within=90)
            assert rig.unfinished

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("flight", [1, 4])
def test_a_rare_group_is_sent_though_another_never_stops(flight: int, held: bool) -> None:
    """The half-full batch of a rare group goes out by its age while a busy group fills batch after batch.

    Kills: sending filling batches only once no full batch waits; comparing ages with a held group's batches.
    """

    async def play() -> None:
        rig = Rig(
            lambda call: Reply(403) if call.group == "held" else OK,
            max_in_flight=flight,
            batch={"records": 10},
            requests_per_second=2,
        )
        busy = iter(range(1000, 10_000))
        async with rig.running(all_done=False):
            if held:
                rig.offer(range(40), group="held", partition=1)
                await rig.until(lambda: rig.destination.holds.get(scope="held"))
            for second in range(60):
                while rig.unfinished < 200:
                    rig.offer([next(busy) for _ in range(10)], group="busy")
                if second == 10:
                    rig.offer(range(3), group="rare", partition=2)
                await rig.clock.sleep(1)
            (sent,) = [call for call in rig.transport.calls if call.group == "rare"]
            assert sent.numbers == (0, 1, 2)
            # What a busy group fills is not sent half-full for that.
            sizes = [len(call.numbers) for call in rig.transport.calls if call.group == "busy"]
            assert sizes.count(10) == len(sizes)

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("status", [429, 500, 502])
def test_a_storm_ends_though_its_probe_never_gets_a_result(status: int, order: str) -> None:
    """A storm's probe that fails for a reason of its own is set aside again, and a later probe ends the storm.

    Kills: waiting for the first probe for ever, while no other record can be the next one.
    """

    async def play() -> None:
        rig = Rig(refusing(range(50)), order=order, max_in_flight=2, storm={"records": 10})
        async with rig.running(all_done=False):
            rig.offer(range(50), key=own_key)
            await rig.until(lambda: rig.set_aside == 45)
            first = rig.destination.storms.kept()[0].offset
            rig.transport.behave = lambda call: Reply(status) if first in call.numbers else OK
            await rig.until(lambda: len(rig.transport.accepted) == 44, within=240)
            assert rig.set_aside == 0
            rig.transport.behave = lambda _call: OK
            await rig.done()
        assert rig.budget.used == 0

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.promise("P11")
def test_a_storm_ends_though_its_probe_waits_behind_a_later_record_of_its_key() -> None:
    """With order a probe may come behind a record of its key that always fails: another probe ends the storm.

    Kills: a probe that waits for ever in the lane of its key.
    """

    async def play() -> None:
        rig = Rig(refusing(range(50)), order="key", max_in_flight=2, storm={"records": 10})
        async with rig.running(all_done=False):
            rig.offer(range(50), key=own_key)
            await rig.until(lambda: rig.set_aside == 45)
            first = rig.destination.storms.kept()[0].offset
            rig.transport.behave = lambda call: Reply(500 if 50 in call.numbers else 400, {"code": "B1"})
            rig.offer([50], key=lambda _n: own_key(first))
            await rig.until(lambda: first not in {place.offset for place in rig.destination.storms.kept()})
            await rig.clock.sleep(5)
            assert rig.destination.lanes.apart
            rig.transport.behave = lambda call: Reply(500) if 50 in call.numbers else OK
            await rig.until(lambda: len(rig.transport.accepted) == 44, within=240)
            rig.transport.behave = lambda _call: OK
            await rig.done()
        assert rig.sent_once()
        assert rig.budget.used == 0

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize(("order", "flight"), [("none", 8), ("key", 8), ("none", 2)])
def test_records_that_get_no_answer_leave_half_of_the_slots_to_others(order: str, flight: int) -> None:
    """Thirty records that hang until the time-out do not take every slot.

    Kills: parked records that may use all requests in flight.
    """

    async def play() -> None:
        rig = Rig(
            lambda call: Reply(hangs=True) if min(call.numbers) < 30 else OK,
            order=order,
            max_in_flight=flight,
            batch={"records": 1},
        )
        good = iter(range(100, 10_000))
        async with rig.running(all_done=False):
            for bad in range(30):
                rig.offer([bad], key=own_key)
                for _ in range(60):
                    rig.offer([next(good)], key=own_key, partition=1)
                    await rig.clock.sleep(1)
            sent = {}
            for _ in range(300):
                sent[number := next(good)] = rig.clock.now()
                rig.offer([number], key=own_key, partition=1)
                await rig.clock.sleep(1)
            await rig.clock.sleep(1)
            late = [call.at - sent[n] for call in rig.transport.calls for n in call.numbers if n in sent]
            assert len(late) == 300
            assert max(late) < 1
            assert len(rig.destination.waiting.records()) == 30

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("size", [10, 100])
@pytest.mark.parametrize("reply", [Reply(500), Reply(401), IN_DOUBT], ids=["500", "401", "doubt"])
def test_a_probe_finds_the_good_records_behind_many_bad_ones(reply: Reply, size: int, order: str) -> None:
    """Many bad records in a row hold a destination; the probes also try the newest record, which is good.

    Kills: probing with one bad record after the other, a minute for each.
    """

    async def play() -> None:
        rig = Rig(
            lambda call: reply if min(call.numbers) < 200 else OK,
            order=order,
            max_in_flight=1,
            batch={"records": size},
        )
        async with rig.running(all_done=False):
            rig.offer(range(240), key=own_key)
            await rig.until(lambda: rig.transport.accepted, within=300)
            assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P7")
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize(("limit", "documented"), [("records", True), ("bytes", False)])
@pytest.mark.parametrize("most", [100, 20])
def test_a_record_that_is_too_large_alone_teaches_no_limit(most: int, documented: bool, limit: str, order: str) -> None:
    """Once the record alone is refused, batches are as large as before; a limit that the vendor does have is kept to.

    Kills: batches of one record for an hour, because batches with that record were too large.
    """

    async def play() -> None:
        too_large = Reply(413, {"limit": limit, "documented": documented})
        rig = Rig(
            lambda call: too_large if 500 in call.numbers or len(call.numbers) > most else OK,
            order=order,
            max_in_flight=2,
        )
        async with rig.running():
            for first in range(0, 10_000, 1000):
                rig.offer(range(first, first + 1000), key=own_key)
                await rig.clock.sleep(10)
            await rig.done()
            assert rig.dead_letters.numbers == [500]
            assert rig.sent_once()
            assert len(rig.transport.calls) < (250 if most == 100 else 1500)

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize(
    "reply", [Reply(hangs=True), Reply(429, headers={"retry-after": "20"})], ids=["time-out", "throttled"]
)
def test_the_records_beside_one_that_is_given_up_are_delivered(reply: Reply, order: str) -> None:
    """`give_up_after` ends the record that always fails, and not the good records that were first sent with it.

    Kills: giving up a whole batch whose time is over although others are accepted.
    """

    async def play() -> None:
        rig = Rig(
            lambda call: reply if 50 in call.numbers else OK,
            order=order,
            max_in_flight=4,
            retry={"give_up_after": "30s"},
        )
        async with rig.running():
            for first in range(0, 1000, 10):
                rig.offer(range(first, first + 10), key=own_key)
                await rig.clock.sleep(1)
            await rig.done()
        causes = [(dead_letter.record.offset, dead_letter.cause) for dead_letter in rig.dead_letters.dead_letters]
        assert causes == [(50, "gave_up")]
        assert rig.sent_once()

    run_virtual(play())
