"""The worker on virtual time: codes that no document has, answers by chance, and a quota blame no innocent record."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random

import pytest
from structlog.testing import capture_logs

from connector.delivery.states import Cause
from connector.delivery.worker import Worker
from connector.records import Item
from connector.testing.loop import run_virtual
from connector.vendors.base import Request, Response, Verdict
from tests.unit.delivery.delivery_rig import (
    OK,
    Behave,
    ModelTransport,
    ModelVendor,
    Reply,
    Rig,
    failing,
    key_of,
    played,
    undocumented,
)

pytestmark = pytest.mark.slow


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@pytest.mark.parametrize(("keys", "share", "seed"), [(2, 0.25, 3), (4, 0.5, 1), (20, 0.9, 3), (100, 0.25, 1)])
def test_an_undocumented_code_does_not_keep_ordered_lanes_back(keys: int, share: float, seed: int) -> None:
    """With few keys each soon waits for a bad record of its own; what was accepted between is evidence also in a hold.

    Kills: putting a probe back whose refusal can be believed; holding before what has evidence was sent again.
    """
    random = Random(seed)
    bad = {n for n in range(1000) if random.random() < share}

    async def play() -> None:
        rig = Rig(undocumented(bad), order="key", max_in_flight=8)
        async with rig.running(all_done=False):
            rig.offer(range(1000), key=lambda n: b"%d" % (n % keys))
            good = set(range(1000)) - bad
            await rig.until(lambda: good.issubset(rig.transport.accepted), within=600)
            assert rig.sent_once()
            assert set(rig.dead_letters.numbers) <= bad
            assert len(rig.transport.calls) < 8 * len(bad)

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.parametrize(("status", "share"), [(400, 0.8), (403, 0.3)])
def test_a_storm_of_refusals_that_only_evidence_proves_lets_good_records_pass(status: int, share: float) -> None:
    """Once a storm holds an undocumented code, or a denial, its records are set aside; no hold begins for their sake.

    Kills: waiting for evidence for each record of a storm; a storm's probe that counts as denied access.
    """

    async def play() -> None:
        random = Random(1)
        bad = {n for n in range(3000) if random.random() < share}
        behave = undocumented(bad) if status == 400 else failing(*bad, status=status)
        rig = Rig(behave, max_in_flight=8, storm={"records": 500, "share": share / 2})
        most = int(250 * share)
        async with rig.running(all_done=False):
            rig.offer(range(3000))
            await rig.until(lambda: len(rig.transport.accepted) == 3000 - len(bad), within=60)
            await rig.until(lambda: rig.set_aside == len(bad) - most, within=60)
            await rig.clock.sleep(600)
            assert len(rig.dead_letters.numbers) == most
            assert [hold.cause for hold in rig.destination.shown_holds()] == [Cause.STORM]
            assert len(rig.transport.calls) < 3000 + 2 * len(bad)
            rig.transport.behave = lambda _call: OK
            await rig.done(within=120)
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.parametrize(("status", "order"), [(502, "none"), (500, "none"), (502, "key")])
def test_an_endpoint_that_is_out_is_held_though_others_accept(status: int, order: str) -> None:
    """A gateway that fails for one endpoint only: that endpoint is held, its records not drained or taken apart.

    With order other endpoints pass where their lanes have nothing of that one in front. Kills: acceptances of another
    endpoint that count against an outage, or as evidence against the records of this one.
    """

    async def play() -> None:
        behave: Behave = lambda call: Reply(status) if call.group == "a" else OK  # noqa: E731
        rig = Rig(behave, order=order, max_in_flight=4, on_unknown_outcome="dead_letter", latency=0.1)
        keys = {"a": b"1", "b": b"2"}
        async with rig.running():
            for first in range(0, 10_000, 100):
                for group, numbers in (("a", range(first, first + 50)), ("b", range(first + 50, first + 100))):
                    rig.offer(numbers, group=group, key=lambda _n, group=group: keys[group])  # type: ignore[misc]
                await rig.clock.sleep(2)
                if first == 5000:
                    shown = [(hold.cause, hold.message) for hold in rig.destination.shown_holds()]
            assert shown == [(Cause.OUTAGE, f"HTTP {status} (only a)")]
            assert len(rig.transport.accepted) == 5000
            assert len(rig.dead_letters.dead_letters) <= (400 if status == 502 else 0)
            assert sum(call.group == "a" for call in rig.transport.calls) < 100
            rig.transport.behave = lambda _call: OK
            await rig.done()
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P5")
@played
async def test_what_was_accepted_before_a_refusal_is_no_evidence() -> None:
    """A record refused by an undocumented code waits until another one is accepted after that, not before.

    Kills: taking any acceptance that the destination ever had for evidence.
    """
    rig = Rig(undocumented({100}))
    async with rig.running():
        rig.offer(range(10))
        await rig.until(lambda: len(rig.transport.accepted) == 10)
        rig.offer([100])
        await rig.clock.sleep(3600)
        assert rig.dead_letters.numbers == []
        rig.offer([101])
        await rig.done()
    assert rig.dead_letters.numbers == [100]


@pytest.mark.promise("P5")
@pytest.mark.promise("P14")
@pytest.mark.parametrize("step", ["request", "send", "read"])
@pytest.mark.parametrize("order", ["none", "key"])
def test_an_exception_over_one_record_is_a_failure_of_that_record_alone(order: str, step: str) -> None:
    """What a vendor or the transport raises over one record or its answer is retried; all others are accepted.

    Kills: an unexpected exception that ends the run, and with it the deliveries to every other destination.
    """

    async def play() -> None:
        rig = Rig(failing(7, status=599), order=order, max_in_flight=4, batch={"records": 20})
        vendor, transport = rig.destination.vendor, rig.transport

        class Broken(ModelVendor):
            def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
                if step == "request" and b"7" in [item.body for item in items]:
                    raise ZeroDivisionError("secret")
                return vendor.request(group, items, now)

            def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
                if step == "read" and response.status == 599:
                    raise IndexError("secret")
                return vendor.read(response, group, items, asked)

        class BrokenTransport(ModelTransport):
            async def send(self, request: Request, timeout: float) -> Response:
                response = await transport.send(request, timeout)
                if step == "send" and response.status == 599:
                    raise IndexError("secret")
                return response

        rig.destination.vendor = Broken()
        rig.worker = Worker(rig.destination, BrokenTransport(transport.behave, 0.02), timeout=20.0)
        with capture_logs() as logs:
            async with rig.running(all_done=False):
                rig.offer(range(200), key=lambda n: b"%d" % n)
                await rig.until(lambda: len(transport.accepted) == 199, within=60)
                (record,) = rig.destination.waiting.records()
                assert record.position == ("t", 0, 7)
                assert "Error at line" in record.reason
        assert "secret" not in repr(logs)
        assert {line["event"] for line in logs if line["log_level"] == "error"} == {"request.failed"}
        assert rig.dead_letters.dead_letters == []

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "reply",
    [Reply(400, {"documented": False}), Reply(413, {"documented": False}), Reply(403), Reply(401)],
    ids=["undocumented", "too large", "403", "401"],
)
@pytest.mark.parametrize("share", [0.33, 0.5])
def test_answers_that_come_by_chance_blame_next_to_no_record(share: float, reply: Reply) -> None:
    """One of several servers behind an address denies, or refuses, whatever it is asked: the records are innocent.

    Only before one of them is accepted again the code may be believed. Kills: believing a code that one of the records
    it refused has contradicted; a lone 413 that is believed at once.
    """

    async def play() -> None:
        random = Random(5)
        rig = Rig(lambda _call: reply if random.random() < share else OK, batch={"records": 1})
        async with rig.running():
            for number in range(1000):
                rig.offer([number])
                await rig.clock.sleep(0.05)
            await rig.done(within=1200)
        assert len(rig.dead_letters.dead_letters) <= 4
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@pytest.mark.parametrize(("order", "flight"), [("none", 8), ("key", 4)])
def test_a_gateway_that_calls_everything_too_large_drains_nothing(order: str, flight: int) -> None:
    """413 for every record, however small, holds the destination; one record that is too large is found as any other.

    Kills: believing a lone record's 413 while nothing is accepted.
    """

    async def play() -> None:
        too_large = Reply(413, {"documented": False, "limit": "bytes"})
        rig = Rig(lambda _call: too_large, order=order, max_in_flight=flight)
        async with rig.running():
            rig.offer(range(300), key=key_of)
            await rig.clock.sleep(3600)
            assert rig.worker.condition().cause is Cause.MISCONFIGURED
            assert rig.dead_letters.dead_letters == []
            rig.transport.behave = lambda call: too_large if 7 in call.numbers else OK
            await rig.until(lambda: len(rig.transport.accepted) >= 280, within=300)
            rig.offer(range(300, 310), key=lambda n: b"%d" % n)
            await rig.done()
        assert [(one.record.offset, one.cause) for one in rig.dead_letters.dead_letters] == [(7, "too_large")]
        assert rig.sent_once()

    run_virtual(play())


@pytest.mark.promise("P17")
@played
async def test_a_contradicted_code_still_ends_a_bad_record() -> None:
    """A record that is refused again and again by a code that says the same of innocent ones by chance is not kept.

    Kills: waiting for ever where a code was contradicted.
    """
    random, reply = Random(5), Reply(400, {"documented": False})
    rig = Rig(lambda call: reply if 500 in call.numbers or random.random() < 0.3 else OK, batch={"records": 10})
    async with rig.running(all_done=False):
        for first in range(0, 10_000, 10):
            rig.offer(range(first, first + 10))
            await rig.clock.sleep(1)
        assert 500 in rig.dead_letters.numbers
        assert len(rig.dead_letters.dead_letters) <= 2


@pytest.mark.promise("P17")
@pytest.mark.parametrize("order", ["none", "key"])
def test_records_with_a_quota_of_their_own_do_not_pause_the_others(order: str) -> None:
    """Ten records that are always throttled for a minute are found once; from then on good ones arrive as they come.

    Kills: a pause of all requests for each 429 that one such record gets.
    """

    async def play() -> None:
        bad = range(50, 1050, 100)
        rig = Rig(failing(*bad, status=429, retry_after="60"), order=order, max_in_flight=8)
        async with rig.running(all_done=False):
            rig.offer(range(2000), key=lambda n: b"%d" % n)
            await rig.until(lambda: len(rig.transport.accepted) == 1990, within=4 * 3600)
            await rig.clock.sleep(600)
            for number in range(2000, 2600):
                rig.offer([number], key=lambda n: b"%d" % n)
                await rig.until(lambda n=number: n in rig.transport.accepted, within=1)  # type: ignore[misc]
                await rig.clock.sleep(1)
            assert sum(not set(bad).isdisjoint(call.numbers) for call in rig.transport.calls) < 1000
        assert rig.dead_letters.dead_letters == []

    run_virtual(play())


@pytest.mark.promise("P6")
@pytest.mark.parametrize("records", [1, 3])
@pytest.mark.parametrize("order", ["none", "key"])
def test_a_record_that_waits_for_evidence_alone_is_given_up_as_asked(order: str, records: int) -> None:
    """`give_up_after` ends a lone record whose refusal no acceptance proves; where several are refused, none is.

    Kills: a record that waits alone for ever although the user set a limit; giving up while a setting may be wrong.
    """

    async def play() -> None:
        refused = Reply(400, {"code": "B1", "documented": False})
        rig = Rig(lambda _call: refused, order=order, retry={"give_up_after": "1m"}, batch={"records": 1})
        async with rig.running(all_done=False):
            rig.offer(range(records), key=key_of)
            await rig.clock.sleep(3600)
        causes = [(one.record.offset, one.cause, one.code) for one in rig.dead_letters.dead_letters]
        assert causes == ([(0, "gave_up", "B1")] if records == 1 else [])

    run_virtual(play())


@pytest.mark.promise("P5")
@pytest.mark.parametrize("order", ["none", "key"])
def test_a_record_that_is_too_large_ends_in_a_quiet_topic(order: str) -> None:
    """It is larger than all that a gateway with a limit of bytes has accepted, and nothing comes after it.

    Kills: a record that waits for the acceptance of another one for ever, although its size explains the 413.
    """

    async def play() -> None:
        too_large = Reply(413, {"documented": False, "limit": "bytes"})
        rig = Rig(
            lambda call: too_large if sum(len(str(number)) for number in call.numbers) > 3 else OK,
            order=order,
            max_in_flight=4,
        )
        async with rig.running():
            rig.offer([*range(50), 1000], key=key_of)
            await rig.done()
        assert [(one.record.offset, one.cause) for one in rig.dead_letters.dead_letters] == [(1000, "too_large")]
        assert sorted(rig.transport.accepted) == list(range(50))

    run_virtual(play())
