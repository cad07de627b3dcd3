"""The user's `codes:`: what each verdict becomes, in one place for every vendor."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from connector.delivery.codes import apply_codes, explain_code
from connector.delivery.states import Cause
from connector.records import Item
from connector.testing.loop import run_virtual
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
from connector.vendors.jiguang import Jiguang, JiguangSettings
from connector.vendors.mytracker import MyTracker, MyTrackerSettings
from tests.unit.delivery.delivery_rig import OK, WORDS, Call, Reply, Rig

ANSWER = Response(418, {}, b"")
VERDICTS: list[Verdict] = [
    Refused("7", "why", frozenset({1}), documented=False),
    TooLarge("7", "why"),
    Throttled("why", 3.0, "7"),
    Retry("why", code="7", unknown_outcome=True),
    Misconfigured("7", "why"),
]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_becomes_what_the_user_configures(verdict: Verdict) -> None:
    """A code's verdict is the user's; its reason and suspects stay. The verdict of another code does not change.

    What is throttled is retried already. Kills: a retry that forgets how long the vendor wants to be left alone.
    """
    refused = apply_codes({"7": "refuse"}, verdict, ANSWER)
    assert isinstance(refused, Refused)
    assert refused.documented
    assert refused.suspects == (verdict.suspects if isinstance(verdict, Refused) else frozenset())
    retry = apply_codes({"7": "retry"}, verdict, ANSWER)
    assert isinstance(retry, Throttled if isinstance(verdict, Throttled) else Retry)
    assert (retry.code, retry.reason) == ("7", "why")
    assert retry.after == (3.0 if isinstance(verdict, Throttled) else None)
    held = apply_codes({"7": "hold"}, verdict, ANSWER)
    assert isinstance(held, Misconfigured)
    assert (held.code, held.reason) == ("7", "why")
    assert apply_codes({"8": "refuse"}, verdict, ANSWER) is verdict


@pytest.mark.parametrize("action", ["refuse", "retry", "hold"])
def test_accepted_stays_accepted(action: Any) -> None:
    """`http_200` never turns a success into anything else.

    Kills: applying `codes:` by status before the body is read.
    """
    accepted = Accepted(request_id="r")
    assert apply_codes({"http_200": action}, accepted, Response(200, {}, b"")) is accepted


def test_an_answer_without_a_code_goes_by_its_status() -> None:
    """`http_<status>` is the key where the vendor's answer has no code of its own."""
    assert isinstance(apply_codes({"http_418": "hold"}, Retry("why"), ANSWER), Misconfigured)
    assert apply_codes({"http_418": "hold"}, Retry("why", code="7"), ANSWER) == Retry("why", code="7")


def test_a_verdict_says_what_its_code_means() -> None:
    """Every verdict but an acceptance carries the document's words, so each log, hold and dead letter has them."""
    for verdict in (
        Refused("4101", "code 4101: 不存在"),
        Misconfigured("4100", "code 4100: 不存在"),
        Retry("x", code="4001"),
    ):
        said = explain_code("jiguang", verdict)
        assert not isinstance(said, Accepted)
        assert said.reason.startswith(f"{verdict.code}: ")
        assert said.reason.endswith(f"The vendor's text: {verdict.reason.rpartition(' ')[2]}")
    for other in (Accepted(), Retry("why"), Refused("9", "why")):
        assert explain_code("jiguang", other) == other


@pytest.mark.parametrize("error", ["Bad json", "Empty post data", "Bad api version"])
def test_no_code_blames_a_record_for_the_request(error: str) -> None:
    """`http_400: refuse` applies to a record's parameters and not to a request that the vendor cannot read.

    Kills: ignoring `Misconfigured.of_request`.
    """
    tracker = MyTracker(MyTrackerSettings.model_validate({"vendor": "mytracker", "id_app": 1, "token": "t"}))
    response = Response(400, {}, b'{"error": "%b"}' % error.encode())
    verdict = apply_codes({"http_400": "refuse"}, tracker.read(response, "login", [], 0), response)
    assert isinstance(verdict, Misconfigured)
    assert isinstance(apply_codes({"http_400": "retry"}, verdict, response), Retry)


SEVERAL = Refused(
    "1",
    "one",
    frozenset({0, 1}),
    errors=(Refused("1", "one", frozenset({0})), Refused("2", "two", frozenset({1}), documented=False)),
)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"1": "hold"}, Misconfigured("1", "one")),
        ({"2": "hold"}, Misconfigured("2", "two")),
        ({"1": "retry", "2": "retry"}, Retry("one", code="1")),
    ],
)
def test_an_answer_with_several_errors_is_held_or_retried(codes: Any, expected: Verdict) -> None:
    """A hold of one error goes before the others; a retry needs all of them."""
    assert apply_codes(codes, SEVERAL, ANSWER) == expected


def test_an_answer_with_several_errors_blames_only_those_that_are_left() -> None:
    """An error that is retried names no suspect; one that the user knows is believed."""
    verdict = apply_codes({"1": "retry"}, SEVERAL, ANSWER)
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.suspects, verdict.documented) == ("2", frozenset({1}), False)
    believed = apply_codes({"1": "retry", "2": "refuse"}, SEVERAL, ANSWER)
    assert isinstance(believed, Refused)
    assert believed.documented


@pytest.mark.parametrize("listed", [[4105], [4999], [4101, 4105], [4999, 4104]])
@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({"4000": "hold"}, Misconfigured),
        ({"4000": "retry"}, Retry),
        ({"4000": "refuse"}, Refused),
        ({"4000": "hold", "4105": "refuse", "4999": "refuse", "4101": "refuse", "4104": "refuse"}, Refused),
    ],
)
def test_a_code_that_only_lists_others_speaks_for_those_that_are_not_named(
    codes: Any, expected: type[Verdict], listed: list[int]
) -> None:
    """Jiguang's 4000 means what the user says, however many errors it lists; a listed code of its own goes first.

    Kills: looking for the listed codes alone.
    """
    settings = {"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "k"}
    jiguang = Jiguang(JiguangSettings.model_validate(settings))
    errors = [{"code": code, "msg": f"error {code}"} for code in listed]
    response = Response(200, {}, orjson.dumps({"code": 4000, "msg": "several", "data": errors}))
    verdict = apply_codes(codes, jiguang.read(response, None, [Item(b"{}")] * 2, 0), response)
    assert isinstance(verdict, expected)
    assert not isinstance(verdict, Refused) or verdict.documented
    # The worker looks the code of a hold up again: what the user holds is never isolated.
    assert not isinstance(verdict, Misconfigured) or codes[verdict.code] == "hold"


@pytest.mark.parametrize(("action", "cause"), [("retry", None), ("hold", Cause.MISCONFIGURED)])
def test_the_worker_applies_codes(action: str, cause: Cause | None) -> None:
    """A refusal that the user calls a retry or a hold blames no record.

    Kills: a worker that does not look at `codes:`.
    """

    async def play() -> None:
        well = False

        def behave(call: Call) -> Reply:
            return OK if well else Reply(400, {"code": "B1"})

        rig = Rig(behave, codes={"B1": action})
        async with rig.running():
            rig.offer(range(300))
            await rig.until(lambda: len(rig.transport.calls) >= 2)
            if cause is not None:
                await rig.until(lambda: rig.worker.condition().cause is cause)
            well = True
            await rig.done()
        assert rig.dead_letters.dead_letters == []
        assert {len(call.numbers) for call in rig.transport.calls} <= ({100} if cause is None else {100, 99, 1})

    run_virtual(play())


def test_a_dead_letter_has_the_words_of_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What delivery writes and logs is the explained text. Kills: an explanation that no verdict passes through."""
    monkeypatch.setattr("connector.delivery.codes.explained", lambda _vendor, code, text: f"{code} means; {text}")

    async def play() -> None:
        rig = Rig(lambda call: Reply(400, {"code": "B1"}) if 5 in call.numbers else OK, storm="off")
        async with rig.running():
            rig.offer(range(10))
            await rig.done()
        assert [dead_letter.message for dead_letter in rig.dead_letters.dead_letters] == [f"B1 means; {WORDS}"]

    run_virtual(play())


def test_a_batch_counts_once_however_often_it_is_sent() -> None:
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
