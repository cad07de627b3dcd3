"""Every error that a vendor documents, produced by its simulator and read by its module.

Where a local rule would catch the record first, its bytes are put into the request past the rule.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from connector.testing import Fault
from connector.vendors.base import DESTINATION, Accepted, Misconfigured, Refused, Retry, Throttled, TooLarge, Verdict

Connect = Callable[..., Awaitable[Any]]

NOW = 1_700_000_000_000


def event(cuid: object, **fields: Any) -> dict[str, Any]:
    """Return a Jiguang event that the account of the tests below accepts."""
    return {"cuid": cuid, "eventName": "known", "itime": NOW, **fields}


JIGUANG_ACCOUNT: Mapping[str, Any] = {
    "events": {"known": {"count": "number", "old": "string", "tags": "list"}},
    "disabled": [("known", "old")],
    "knows_cuid": lambda cuid: cuid < 1000,
    "lengths": {"eventName": 8, "tags": 2},
}
JIGUANG_ERRORS: list[tuple[dict[str, Any], str]] = [
    (event("5"), "4001"),
    (event(5, properties={"tags": ["a", "b", "c"]}), "4002"),
    (event(5, eventName="known_but_long"), "4003"),
    (event(5, eventName=""), "4004"),
    (event(5, eventName="unknown"), "4101"),
    (event(5, properties={"old": "x"}), "4102"),
    (event(1005), "4103"),
    (event(5, itime=1676875), "4104"),
    (event(5, properties={"count": "five"}), "4105"),
]


async def jiguang_batch(connect: Connect, *bad: dict[str, Any]) -> tuple[Any, Any, list[Any]]:
    """Return a connected Jiguang, its group, and a batch of good events with the bad ones at the places 3, 6, ..."""
    wire = await connect("jiguang", account=JIGUANG_ACCOUNT)
    group, items = wire.items([event(n) for n in range(1, 11)])
    for place, wrong in enumerate(bad, 1):
        items[place * 3] = replace(items[0], body=json.dumps(wrong).encode())
    return wire, group, items


@pytest.mark.parametrize(("wrong", "code"), JIGUANG_ERRORS, ids=[code for _, code in JIGUANG_ERRORS])
async def test_each_jiguang_record_error_is_documented_and_refuses_the_batch(
    wrong: dict[str, Any], code: str, connect: Connect
) -> None:
    """Each code of a record is a documented refusal, and any suspects hold the guilty one."""
    wire, group, items = await jiguang_batch(connect, wrong)
    verdict = await wire.send(group, items)
    assert isinstance(verdict, Refused)
    if code in {"4101", "4102", "4103", "4104", "4105", "4001", "4003", "4004"}:
        assert (verdict.code, verdict.documented) == (code, True)
    assert not verdict.suspects or 3 in verdict.suspects
    assert wire.simulator.accepted == []


@pytest.mark.parametrize("code", ["4101", "4103", "4104"])
async def test_values_that_jiguang_quotes_find_exactly_the_guilty(code: str, connect: Connect) -> None:
    """Of two wrong events among ten, whose values the list of errors quotes, both are suspected and no other."""
    wrong = next(each for each, its_code in JIGUANG_ERRORS if its_code == code)
    wire, group, items = await jiguang_batch(connect, wrong, wrong)
    verdict = await wire.send(group, items)
    assert isinstance(verdict, Refused)
    assert verdict.suspects == {3, 6}


@pytest.mark.parametrize("status", [200, 400])
async def test_jiguangs_code_decides_whatever_the_status(status: int, connect: Connect) -> None:
    """An error counts as the same error under 200 and 400."""
    wire = await connect("jiguang", account={"events": {}, "error_status": status})
    verdict = await wire.deliver(event(1))
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.documented) == ("4101", True)


async def test_a_jiguang_code_that_no_document_has_is_no_evidence(connect: Connect) -> None:
    """An unknown code refuses without being documented, and the user may say what it means."""
    unknown = Fault("status", status=200, body='{"code": 4999, "msg": "?"}')
    for codes, kind in (({}, Refused), ({"4999": "retry"}, Retry), ({"4999": "hold"}, Misconfigured)):
        wire = await connect("jiguang", codes=codes)
        wire.simulator.plan.arm(unknown)
        verdict = await wire.deliver(event(1))
        assert isinstance(verdict, kind)
        assert not (isinstance(verdict, Refused) and verdict.documented)


async def test_too_many_jiguang_records_are_the_batchs_fault(connect: Connect) -> None:
    """4002 on data itself cuts the batch and blames no record."""
    wire = await connect("jiguang")
    verdict = await wire.deliver(*(event(n) for n in range(101)))
    assert isinstance(verdict, TooLarge)
    assert (verdict.code, verdict.limit) == ("4002", "records")


MYTRACKER: list[tuple[Fault, type[Verdict], bool | None]] = [
    (Fault("status", status=400, body='{"error": "Bad Request"}'), Refused, True),
    (Fault("status", status=400, body='{"error": "Empty post data"}'), Misconfigured, None),
    (Fault("status", status=400, body='{"error": "Bad json"}'), Misconfigured, None),
    (Fault("status", status=400, body='{"error": "Bad api version"}'), Misconfigured, None),
    (Fault("status", status=403, body='{"error": "Forbidden"}'), Misconfigured, None),
    (Fault("status", status=404, body='{"error": "Method not found"}'), Misconfigured, None),
    (Fault("status", status=500, body='{"error": "Internal Server Error"}'), Retry, None),
    (Fault("status", status=400, body='{"error": "Bad weather"}'), Refused, False),
    (Fault("status", status=200, body='{"error": "Bad Request", "message": "OK"}'), Retry, None),
]


@pytest.mark.parametrize(("fault", "kind", "documented"), MYTRACKER, ids=[fault.body for fault, _, _ in MYTRACKER])
async def test_each_mytracker_error(fault: Fault, kind: type[Any], documented: bool | None, connect: Connect) -> None:
    """Only Bad Request is a record's fault; what is ours or the account's holds, and an internal error is retried."""
    wire = await connect("mytracker")
    wire.simulator.plan.arm(fault)
    verdict = await wire.deliver({"method": "login", "customUserId": "1"})
    assert isinstance(verdict, kind)
    assert getattr(verdict, "documented", None) is documented


async def test_a_wrong_mytracker_set_refuses_the_batch_without_a_detail(connect: Connect) -> None:
    """A rule that the module does not know refuses the whole batch and names no suspect."""
    wire = await connect("mytracker", rules={"mytracker.lvid.length": "off"})
    sets = [{"method": "login", "customUserId": str(n), "lvid": "0" * (31 + (n != 5))} for n in range(20)]
    verdict = await wire.deliver(*sets)
    assert isinstance(verdict, Refused)
    assert (verdict.documented, verdict.suspects) == (True, frozenset())
    assert wire.simulator.accepted == []


@pytest.mark.parametrize(
    ("codes", "kind", "documented"),
    [
        ({}, Refused, False),
        ({"E-77": "refuse"}, Refused, True),
        ({"E-77": "retry"}, Retry, None),
        ({"E-77": "hold"}, Misconfigured, None),
    ],
)
async def test_a_quick_audience_error_code_means_what_the_user_says(
    codes: dict[str, str], kind: type[Any], documented: bool | None, connect: Connect
) -> None:
    """No errorCode is published: unknown ones are no evidence, known ones are read as configured."""
    wire = await connect("quick_audience", account={"refusals": {"bad": "E-77"}}, codes=codes)
    verdict = await wire.deliver({"customerId": "c", "eventCode": "bad", "eventTime": NOW})
    assert isinstance(verdict, kind)
    assert verdict.code == "E-77"
    assert getattr(verdict, "documented", None) is documented


@pytest.mark.parametrize(
    ("data", "accepted"), [(True, True), ("true", True), (None, True), (False, False), ("false", False)]
)
async def test_quick_audiences_data_must_not_say_false(data: object, accepted: bool, connect: Connect) -> None:
    """Success with data false is no acceptance, whether it is a boolean or the document's string."""
    wire = await connect("quick_audience", account={"accepted_data": data})
    verdict = await wire.deliver({"customerId": "c", "eventCode": "e", "eventTime": NOW})
    assert isinstance(verdict, Accepted) is accepted


def question(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a JPush question of the contract schema."""
    return {"id": f"q-{kind}", "query": (f"connector.events.{kind}", fields)}


@pytest.mark.parametrize(
    "vip_question", [question("Messages", msg_id=1), question("Users", time_unit="DAY", start="2023-11-10", duration=1)]
)
async def test_a_missing_jpush_permission_concerns_its_endpoint_only(
    vip_question: dict[str, Any], connect: Connect
) -> None:
    """2003 holds the endpoint that was refused, and the others go on."""
    wire = await connect("jpush_report", account={"vip": False})
    group, items = wire.items([vip_question])
    verdict = await wire.send(group, items)
    assert isinstance(verdict, Misconfigured)
    assert (verdict.code, verdict.scope) == ("2003", group)
    assert verdict.scope != DESTINATION
    assert isinstance(await wire.deliver(question("Received", msg_id=1)), Accepted)


@pytest.mark.parametrize(("duration", "start", "code"), [(1, "2023-08-01", "3005"), (60, "2023-09-16", None)])
async def test_jpush_questions_beyond_sixty_days(duration: int, start: str, code: str | None, connect: Connect) -> None:
    """With the local rule off the vendor answers 3005: the question's own fault, with a result."""
    wire = await connect("jpush_report", rules={"jpush_report.start.past": "off"})
    verdict = await wire.deliver(question("Users", time_unit="DAY", start=start, duration=duration))
    if code is None:
        assert isinstance(verdict, Accepted)
        return
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.documented) == (code, True)
    assert [answer.datum["status"] for answer in verdict.answers] == ["refused"]


@pytest.mark.parametrize("code", [3002, 3004])
async def test_jpush_codes_of_a_wrong_question(code: int, connect: Connect) -> None:
    """3002 and 3004 are the question's fault."""
    wire = await connect("jpush_report")
    wire.simulator.plan.arm(Fault("status", status=400, body=json.dumps({"error": {"code": code, "message": "m"}})))
    verdict = await wire.deliver(question("Received", msg_id=1))
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.documented) == (str(code), True)


async def test_jpushs_internal_error_and_its_limit(connect: Connect) -> None:
    """10 is retried; beyond the limit 2002 says when the minute ends, and the headers say how many are left."""
    wire = await connect("jpush_report", account={"minute_limit": 2})
    internal = '{"error": {"code": 10, "message": "Internal System Error"}}'
    for fault in (Fault("status", status=500, times=1), Fault("status", status=400, body=internal, times=1)):
        wire.simulator.plan.arm(fault)
        assert isinstance(await wire.deliver(question("Received", msg_id=1)), Retry)
    second, _, fourth = [await wire.deliver(question("Received", msg_id=1)) for _ in range(3)]
    assert isinstance(second, Accepted)
    assert second.rate is not None
    assert (second.rate.remaining, second.rate.reset) == (1, 60)
    assert isinstance(fourth, Throttled)
    assert (fourth.code, fourth.after) == ("2002", 60)


async def test_each_jpush_question_gets_its_answer(connect: Connect) -> None:
    """Equal ids are asked once and answered to each; an id that the vendor leaves out is `missing`."""
    wire = await connect("jpush_report", account={"missing": {2}})
    verdict = await wire.deliver(*(question("Received", msg_id=n) for n in (1, 2, 1, 3)))
    assert isinstance(verdict, Accepted)
    assert [answer.datum["status"] for answer in verdict.answers] == ["found", "missing", "found", "found"]
    assert [event["msg_id"] for event in wire.simulator.accepted] == [1, 2, 3]


async def test_jpushs_abnormal_status_is_asked_again_three_times(connect: Connect) -> None:
    """Status 4 is not taken for an answer until it was asked again three times."""
    wire = await connect("jpush_report", account={"abnormal": {"b": 4}, "absent": {"c"}})
    asked = question("MessageStatus", msg_id=1, registration_ids=["a", "b", "c"], date="2023-11-14")
    group, items = wire.items([asked])
    for again in range(3):
        verdict = await wire.send(group, items, asked=again)
        assert isinstance(verdict, Accepted)
        assert (verdict.again, verdict.answers) == (frozenset({0}), [])
    last = await wire.send(group, items, asked=3)
    assert isinstance(last, Accepted)
    assert last.again == frozenset()
    assert last.answers[0].datum["answer"] == {"a": 0, "b": 4, "c": "missing"}
