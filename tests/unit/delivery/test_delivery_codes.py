"""The user's `codes:` over a vendor that does not heed them: what each verdict becomes, and that the worker asks."""

from __future__ import annotations

import pytest

from connector.delivery.codes import by_codes
from connector.delivery.destination import Destination
from connector.delivery.states import Cause
from connector.delivery.worker import Worker
from connector.testing.loop import run_virtual
from connector.vendors import kinds
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    Verdict,
)
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig

ANSWER = Response(418, {}, b"")
VERDICTS: list[Verdict] = [
    Refused("7", "why", frozenset({1}), documented=False),
    TooLarge("7", "why"),
    Throttled("why", 3.0, "7"),
    Retry("why", code="7", unknown_outcome=True),
    Misconfigured("7", "why"),
]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_becomes_what_the_user_says(verdict: Verdict) -> None:
    """A code's verdict is the user's, its words and suspects stay; another code's and an acceptance are untouched."""
    refused = by_codes(verdict, ANSWER, {"7": "refuse"})
    assert isinstance(refused, Refused)
    assert refused.documented
    assert refused.suspects == (verdict.suspects if isinstance(verdict, Refused) else frozenset())
    retry = by_codes(verdict, ANSWER, {"7": "retry"})
    assert isinstance(retry, Retry)
    assert (retry.code, retry.reason) == ("7", "why")
    held = by_codes(verdict, ANSWER, {"7": "hold"})
    assert isinstance(held, Misconfigured)
    assert (held.code, held.reason) == ("7", "why")
    assert by_codes(verdict, ANSWER, {"8": "refuse"}) is verdict
    assert by_codes(Accepted(), ANSWER, {"http_418": "refuse"}) == Accepted()


def test_an_answer_without_a_code_goes_by_its_status() -> None:
    """`http_<status>` is the key where the vendor's answer has no code of its own."""
    assert isinstance(by_codes(Retry("why"), ANSWER, {"http_418": "hold"}), Misconfigured)
    assert by_codes(Retry("why", code="7"), ANSWER, {"http_418": "hold"}) == Retry("why", code="7")


def test_the_built_in_vendors_heed_codes_by_themselves() -> None:
    """Delivery does not do it a second time for them, because they may be finer about it."""
    assert all(kind.reads_codes for kind in kinds().values())


@pytest.mark.parametrize(("action", "cause"), [("retry", None), ("hold", Cause.MISCONFIGURED)])
def test_the_worker_heeds_them(action: str, cause: Cause | None) -> None:
    """A refusal that the user calls a retry or a hold blames no record.

    Kills: a worker that does not look at `codes:`.
    """

    async def play() -> None:
        well = False

        def behave(call: Call) -> Reply:
            return OK if well else Reply(400, {"code": "B1"})

        rig = Rig(behave)
        rig.worker = worker(rig.destination, rig, action)
        async with rig.running():
            rig.offer(range(100))
            await rig.until(lambda: len(rig.transport.calls) >= 2)
            if cause is not None:
                await rig.until(lambda: rig.worker.condition().cause is cause)
            well = True
            await rig.done()
        assert rig.dead_letters.dead_letters == []
        assert all(len(call.numbers) == 100 for call in rig.transport.calls)

    run_virtual(play())


def worker(at: Destination, rig: Rig, action: str) -> Worker:
    """Return a worker whose vendor leaves `codes:` to delivery."""
    codes = {"retry": {"B1": "retry"}, "hold": {"B1": "hold"}}
    return Worker(at, rig.transport, timeout=20.0, codes=codes[action])  # type: ignore[arg-type]


def test_a_batch_counts_once_however_often_it_is_tried() -> None:
    """`batch_closed` counts a batch when it is sent first: neither its retries nor its parts are further batches.

    Kills: counting each request.
    """

    async def play() -> None:
        rig = Rig(lambda call: Reply(500) if call.nth < 3 else Reply(400) if 5 in call.numbers else OK, storm="off")
        async with rig.running():
            rig.offer(range(100))
            rig.offer(range(100, 110))
            await rig.done()
        closed = {
            by: rig.metrics.batch_closed.labels("d", by)._value.get() for by in ("records", "bytes", "linger", "group")
        }
        assert closed == {"records": 1, "bytes": 0, "linger": 1, "group": 0}

    run_virtual(play())
