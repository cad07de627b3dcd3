"""JPush reports: how questions share a request, and how each gets its answer."""

from __future__ import annotations

from base64 import b64encode
from datetime import date
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema
import orjson
import pytest

from connector.delivery.codes import apply_codes
from connector.errors import Refusal
from connector.records import Item
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    RateHint,
    Refused,
    Response,
    Retry,
    Throttled,
    VendorEvent,
    Verdict,
)
from connector.vendors.jpush_report import KIND, JPushReport, JPushReportSettings

NOW = 1_700_000_000_000
RESULT: Any = fastavro.schema.load_schema(str(Path(__file__).parents[3] / "avro" / "JPushReportResult.avsc"))
LATE = NOW  # 2023-11-14T22:13:20Z, which is the 15th in Shanghai


def vendor(**settings: Any) -> JPushReport:
    """Build a vendor with an application of its own."""
    account = {"vendor": "jpush_report", "app_key": "key", "master_secret": "s3cret", "results_topic": "results"}
    return JPushReport(JPushReportSettings.model_validate({**account, **settings}))


def ask(kind: str, name: str = "q", timestamp: int = LATE, **fields: Any) -> VendorEvent:
    """Return a question as the contract schema decodes."""
    query = (f"connector.events.{kind}", fields)
    return VendorEvent({"id": name, "query": query}, "identity", timestamp)


def status(*ids: str, msg_id: object = 7, day: str | None = None, name: str = "q") -> VendorEvent:
    """Return a status question."""
    return ask("MessageStatus", name, msg_id=msg_id, registration_ids=list(ids), date=day)


def prepared(*questions: VendorEvent, **settings: Any) -> tuple[JPushReport, Any, list[Item]]:
    """Return the vendor, the questions' one group and their items."""
    report = vendor(**settings)
    groups = {report.group(each) for each in questions}
    assert len(groups) == 1
    return report, groups.pop(), [report.encode(each, NOW) for each in questions]


def read(
    code: int,
    body: object,
    *questions: VendorEvent,
    asked: int = 0,
    headers: dict[str, str] | None = None,
    **settings: Any,
) -> Verdict:
    """Return the verdict of an answer to some questions."""
    report, group, items = prepared(*questions, **settings)
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    response = Response(code, headers or {}, raw)
    return apply_codes(settings.get("codes", {}), report.read(response, group, items, asked), response)


def data(verdict: Verdict) -> list[dict[str, Any]]:
    """Return the results that a verdict carries."""
    assert isinstance(verdict, Accepted | Refused)
    assert all(answer.schema == RESULT["name"] for answer in verdict.answers)
    assert all(fastavro.validate(answer.datum, RESULT) for answer in verdict.answers)
    return [answer.datum for answer in verdict.answers]


def test_each_push_is_asked_for_once_in_the_documents_form() -> None:
    """Equal msg_ids share a merge key and stand once in the query."""
    report, group, items = prepared(*(ask("Received", msg_id=n) for n in (1613113584, 1229760629, 1613113584)))
    request = report.request(group, items, NOW)
    assert (request.method, request.body) == ("GET", None)
    assert request.url == "https://report.jpush.cn/v3/received?msg_ids=1613113584,1229760629"
    assert request.headers["Authorization"] == "Basic " + b64encode(b"key:s3cret").decode()
    assert items[0].merge_key == items[2].merge_key != items[1].merge_key


def test_the_newer_endpoints_by_setting() -> None:
    """`detail` asks the newer forms of received and messages."""
    for kind, path in (("Received", "received"), ("Messages", "messages")):
        report, group, items = prepared(ask(kind, msg_id=1), detail=True, base_url="http://h/v3/report/")
        assert report.request(group, items, NOW).url == f"http://h/v3/report/{path}/detail?msg_ids=1"


def test_a_status_request_holds_the_devices_of_several_questions() -> None:
    """One push and day share a POST; each device weighs one of 1,000, and the body is as long as its limits say."""
    report, group, items = prepared(status("a", "b", "a"), status('字"', name="r"), status("a", "b"))
    request = report.request(group, items, NOW)
    body = {"msg_id": 7, "registration_ids": ["a", "b", '字"'], "date": "2023-11-15"}
    assert orjson.loads(request.body or b"") == body
    assert request.url == "https://report.jpush.cn/v3/status/message"
    assert [item.weight for item in items] == [2, 1, 2]
    limits = report.limits(group)
    sizes = {item.merge_key: len(item.body) for item in items}
    assert len(request.body or b"") == limits.overhead + sum(sizes.values()) + limits.separator
    assert limits.records == 1000


def test_another_day_is_another_request() -> None:
    """A named day is kept, and a question without one is about its record's day in Shanghai."""
    report = vendor()
    assert report.group(status("a")) == ("status", 7, "2023-11-15")
    assert report.group(status("a", day="2023-11-14")) == ("status", 7, "2023-11-14")
    flat = VendorEvent({"kind": "status", "msg_id": 7, "date": date(2023, 11, 14)}, "x")
    assert report.group(flat) == ("status", 7, "2023-11-14")


def test_a_users_question_has_a_request_of_its_own() -> None:
    """Only one distinct question fits into a request, with the space of an hour encoded."""
    report, group, items = prepared(*[ask("Users", time_unit="HOUR", start="2023-11-11 09", duration=3)] * 2)
    request = report.request(group, items, NOW)
    assert request.url == "https://report.jpush.cn/v3/users?time_unit=HOUR&start=2023-11-11%2009&duration=3"
    assert report.limits(group).records == 1
    assert items[0].merge_key == items[1].merge_key


def test_a_mapping_asks_with_flat_fields() -> None:
    """A route's mapping needs no `query`; without an id the result carries the record's identity."""
    report = vendor()
    for kind in ("received", "Received"):
        event = VendorEvent({"kind": kind, "msg_id": 5}, "cluster/topic/0/1")
        item = report.encode(event, NOW)
        assert (report.group(event), item.body, item.context.query_id) == ("received", b"5", "cluster/topic/0/1")


_BROKEN: list[tuple[str, VendorEvent]] = [
    ("kind.vip", ask("Messages", msg_id=1)),
    ("msg_id.range", ask("Received", msg_id=-1)),
    ("registration_ids.required", status()),
    ("registration_ids.type", status("a", "")),
    ("registration_ids.count", status(*map(str, range(1001)))),
    ("date.format", status("a", day="2023-02-30")),
    ("date.format", status("a", day="20231114")),
    ("date.required", ask("MessageStatus", timestamp=-1, msg_id=1, registration_ids=["a"], date=None)),
    ("date.required", ask("MessageStatus", timestamp=10**17, msg_id=1, registration_ids=["a"], date=None)),
    ("time_unit.value", ask("Users", time_unit="WEEK", start="2023-11-11", duration=1)),
    ("start.format", ask("Users", time_unit="DAY", start="2023-11", duration=1)),
    ("start.format", ask("Users", time_unit="HOUR", start="2023-11-11 24", duration=1)),
    ("duration.type", ask("Users", time_unit="DAY", start="2023-11-11", duration=0)),
    ("duration.range", ask("Users", time_unit="DAY", start="2023-11-11", duration=61)),
    ("duration.range", ask("Users", time_unit="HOUR", start="2023-11-11 00", duration=25)),
    ("duration.range", ask("Users", time_unit="MONTH", start="2023-11", duration=3)),
    ("start.past", ask("Users", time_unit="DAY", start="2023-09-13", duration=1)),
    ("start.past", ask("Users", time_unit="HOUR", start="2023-09-13 00", duration=1)),
    ("start.past", ask("Users", time_unit="MONTH", start="2023-08", duration=1)),
    ("duration.day", ask("Users", time_unit="HOUR", start="2023-11-11 23", duration=2)),
]


@pytest.mark.parametrize(("rule", "given"), _BROKEN)
def test_each_rule_refuses_and_can_be_switched_off(rule: str, given: VendorEvent) -> None:
    """A broken rule is refused under its id, by grouping or encoding; switched off, the question is asked."""
    vip = rule != "kind.vip"
    strict, lenient = vendor(vip=vip), vendor(vip=vip, rules={f"jpush_report.{rule}": "off"})
    with pytest.raises(Refusal) as caught:
        (strict.group(given), strict.encode(given, NOW))
    assert caught.value.code == f"jpush_report.{rule}"
    item = lenient.encode(given, NOW)
    assert lenient.request(lenient.group(given), [item], NOW).url
    assert item.weight <= lenient.limits(lenient.group(given)).records


@pytest.mark.parametrize(
    ("unit", "start", "duration"),
    [("DAY", "2023-09-15", 60), ("HOUR", "2023-11-14 00", 24), ("HOUR", "2023-11-14 23", 1), ("MONTH", "2023-09", 2)],
)
def test_periods_at_the_limits_pass(unit: str, start: str, duration: int) -> None:
    """60 days back, a whole day of hours, and a month that ended within 60 days are asked."""
    assert vendor().encode(ask("Users", time_unit=unit, start=start, duration=duration), NOW).body


def test_every_rule_has_a_case() -> None:
    """No rule is listed that no question can break."""
    assert {f"jpush_report.{rule}" for rule, _ in _BROKEN} == KIND.rules


def test_a_question_of_another_kind_is_refused() -> None:
    """What is not one of the four has no endpoint."""
    with pytest.raises(Refusal, match="Received, MessageStatus, Messages, Users"):
        vendor().group(VendorEvent({"kind": "devices"}, "x"))


@pytest.mark.parametrize("msg_id", [None, "1", True, 1.0, 2**63])
def test_a_question_without_a_push_asks_nothing(msg_id: object) -> None:
    """What is no msg_id is refused by grouping and encoding alike."""
    for step in (vendor().group, lambda event: vendor().encode(event, NOW)):
        with pytest.raises(Refusal) as caught:
            step(status("a", msg_id=msg_id))
        assert caught.value.code == "jpush_report.msg_id.type"


def test_every_question_gets_its_figures() -> None:
    """The document's sample answers each question, equal ones too, by number though the answer quotes text."""
    body = [
        {"msg_id": "1613113584", "android_received": 62, "ios_apns_sent": 11, "wp_mpns_sent": None},
        {"msg_id": "1229760629", "android_received": 56, "quota": 2**63, "new": {"x": [1]}},
    ]
    questions = [
        ask("Received", name, msg_id=n) for name, n in (("a", 1613113584), ("b", 1229760629), ("c", 1613113584))
    ]
    headers = {"date": "Tue, 14 Nov 2023 22:13:21 GMT", "x-rate-limit-remaining": "9", "x-rate-limit-reset": "31"}
    verdict = read(200, body, *questions, headers=headers)
    assert isinstance(verdict, Accepted)
    assert verdict.rate == RateHint(9, 31.0)
    found = data(verdict)
    assert [(each["query_id"], each["msg_id"], each["status"]) for each in found] == [
        ("a", 1613113584, "found"),
        ("b", 1229760629, "found"),
        ("c", 1613113584, "found"),
    ]
    assert found[0] == {
        "query_id": "a",
        "endpoint": "received",
        "msg_id": 1613113584,
        "status": "found",
        "asked_at": NOW + 1000,
        "answer": {"msg_id": "1613113584", "android_received": 62, "ios_apns_sent": 11, "wp_mpns_sent": None},
        "raw": orjson.dumps(body[0]).decode(),
    }
    assert found[1]["answer"]["quota"] == str(2**63)
    assert found[1]["answer"]["new.x.0"] == 1


def test_a_push_that_the_answer_leaves_out_is_missing() -> None:
    """A missing msg_id gets a result, not silence."""
    found = data(read(200, [{"msg_id": "1"}], ask("Received", msg_id=1), ask("Received", msg_id=2)))
    assert [(each["status"], each["raw"] != "") for each in found] == [("found", True), ("missing", False)]
    assert found[1]["asked_at"] == NOW


def test_nested_figures_have_dotted_names() -> None:
    """Figures of messages are named by platform, those of users by time."""
    told = data(read(200, [{"msg_id": "9", "ios": {"click": None, "target": 10}}], ask("Messages", msg_id=9)))
    assert told[0]["answer"] == {"msg_id": "9", "ios.click": None, "ios.target": 10}
    body = {
        "time_unit": "DAY",
        "start": "2023-11-10",
        "duration": 3,
        "items": [{"time": "2023-11-11", "android": {"active": 1}}],
    }
    told = data(read(200, body, ask("Users", time_unit="DAY", start="2023-11-10", duration=3)))
    assert told[0]["answer"]["items.2023-11-11.android.active"] == 1
    assert (told[0]["msg_id"], orjson.loads(told[0]["raw"])) == (None, body)


def test_devices_are_answered_to_the_question_that_named_them() -> None:
    """Each question gets its own devices; an absent one is `missing`, and so is the result if all are absent."""
    body = {"a": {"status": 2}, "b": {"status": 0}}
    found = data(read(200, body, status("a", "x", name="1"), status("b", "a", name="2"), status("y", name="3")))
    assert [(each["query_id"], each["status"], each["answer"]) for each in found] == [
        ("1", "found", {"a": 2, "x": "missing"}),
        ("2", "found", {"b": 0, "a": 2}),
        ("3", "missing", {"y": "missing"}),
    ]
    assert [each["raw"] for each in found] == ['{"a":{"status":2}}', '{"b":{"status":0},"a":{"status":2}}', ""]


def test_an_abnormal_status_is_asked_again_three_times() -> None:
    """Questions with a status 4 are asked again, then answered unchanged; the others are answered at once."""
    body = {"a": {"status": 4}, "b": {"status": 1}}
    for asked in range(3):
        verdict = read(200, body, status("a", "b"), status("b", name="r"), asked=asked)
        assert isinstance(verdict, Accepted)
        assert (set(verdict.again), [each["query_id"] for each in data(verdict)]) == ({0}, ["r"])
    verdict = read(200, body, status("a", "b"), status("b", name="r"), asked=3)
    assert isinstance(verdict, Accepted)
    assert (verdict.again, data(verdict)[0]["answer"]) == (frozenset(), {"a": 4, "b": 1})


@pytest.mark.parametrize(
    "odd",
    [{"msg_id": None, "android_received": 9}, {"msg_id": "x"}, 7, None, {}, {"msg_id": "1", "new": {"deep": [1]}}],
)
def test_one_odd_entry_spoils_only_itself(odd: object) -> None:
    """The other pushes are found; the push of the malformed entry is missing unless it can be read.

    Kills: refusing a whole list for one entry.
    """
    body = [odd, {"msg_id": "2", "android_received": 5}]
    found = data(read(200, body, ask("Received", msg_id=1), ask("Received", msg_id=2)))
    assert found[1]["status"] == "found"
    assert found[0]["status"] == ("found" if isinstance(odd, dict) and odd.get("msg_id") == "1" else "missing")


@pytest.mark.parametrize("odd", [{"status": "0"}, {"status": None}, "delivered", {}, {"status": 2**63}])
def test_one_odd_device_spoils_only_itself(odd: object) -> None:
    """The other devices are answered; the odd one is missing, as is a key that no question asked about."""
    found = data(read(200, {"a": odd, "b": {"status": 1}, "message": "ok"}, status("a", "b")))
    assert found[0]["answer"] == {"a": "missing", "b": 1}


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error], lambda error: {"error": [error]}])
def test_errors_are_read_wherever_they_are(wrap: Any) -> None:
    """At top level and in an array as under `error`, with the code as text too."""
    for code in (3001, "3001"):
        verdict = read(401, wrap({"code": code, "message": "m"}), ask("Received", msg_id=1))
        assert isinstance(verdict, Misconfigured)
        assert verdict.code == "3001"


@pytest.mark.parametrize("body", [{"error": None, "code": 2003, "message": "m"}, {"code": 2003}])
def test_half_an_error_at_top_level_is_an_error(body: Any) -> None:
    """Kills: a whole destination held as if the credential were wrong, for an interface that is not enabled."""
    verdict = read(403, body, status("a"))
    assert isinstance(verdict, Misconfigured)
    assert (verdict.code, verdict.scope) == ("2003", "status")


def test_a_code_of_zero_is_no_error() -> None:
    """A gateway adds its own `code` and `message`. Kills: an answered question that is refused with code 0."""
    found = data(read(200, {"code": 0, "message": "success", "a": {"status": 1}}, status("a")))
    assert found[0]["answer"] == {"a": 1}


def test_a_refused_status_interface_holds_the_endpoint() -> None:
    """2003 is about the interface and not about one push and day.

    Kills: a hold for each push, 3,000 for 3,000 pushes.
    """
    verdict = read(403, {"error": {"code": 2003, "message": "m"}}, status("a"))
    assert isinstance(verdict, Misconfigured)
    assert verdict.scope == "status"


def test_a_question_that_ends_without_an_answer_has_a_result() -> None:
    """A question that is too large or given up gets a `refused` result."""
    report, _, items = prepared(ask("Received", "q", msg_id=1))
    answer = report.ended(items[0], "http_413", "too large")
    assert answer is not None
    assert (answer.datum["query_id"], answer.datum["status"]) == ("q", "refused")
    assert answer.datum["answer"] == {"code": "http_413", "message": "too large"}
    assert fastavro.validate(answer.datum, RESULT)
    assert report.ended(Item(b""), None, "skipped") is None


@pytest.mark.parametrize("body", [b"<html>", {}, {"msg_id": "1"}, [1], [{"msg_id": "x"}], [{}], b"null"])
def test_a_200_of_another_form_is_no_answer(body: object) -> None:
    """What is not the documented list is asked again."""
    assert isinstance(read(200, body, ask("Received", msg_id=1)), Retry)


@pytest.mark.parametrize("body", [b"<html>", [], {"a": 1}, {"a": {"status": "0"}}, {"message": "ok"}])
def test_a_status_answer_of_another_form_is_no_answer(body: object) -> None:
    """What is not a status for each device is asked again."""
    assert isinstance(read(200, body, status("a")), Retry)


@pytest.mark.parametrize(
    ("http", "code", "expected"),
    [
        (401, 3001, Misconfigured),
        (403, 2003, Misconfigured),
        (400, 3002, Refused),
        (400, 3004, Refused),
        (400, 3005, Refused),
        (200, 3005, Refused),
        (429, 2002, Throttled),
        (400, 2002, Throttled),
        (400, 10, Retry),
        (500, 10, Retry),
        (503, 3005, Retry),
        (401, 9999, Misconfigured),
        (404, 9999, Misconfigured),
        (404, 3005, Refused),
    ],
)
def test_each_error_code_has_its_verdict(http: int, code: int, expected: type) -> None:
    """The documented codes decide before the status, except for a server error."""
    assert isinstance(read(http, {"error": {"code": code, "message": "m"}}, ask("Received", msg_id=1)), expected)


def test_an_internal_error_keeps_its_code_so_that_the_user_may_read_it_in_another_way() -> None:
    """Code 10 under HTTP 500 is the verdict's code, and `codes` decides over the status."""
    body = {"error": {"code": 10, "message": "m"}}
    verdict = read(500, body, ask("Received", msg_id=1))
    assert isinstance(verdict, Retry)
    assert verdict.code == "10"
    held = read(500, body, ask("Received", msg_id=1), codes={"10": "hold"})
    assert isinstance(held, Misconfigured)


def test_a_refused_vip_endpoint_leaves_the_others_alone() -> None:
    """Code 2003 concerns the endpoint that was asked only."""
    verdict = read(403, {"error": {"code": 2003, "message": "m"}}, ask("Messages", msg_id=1))
    assert isinstance(verdict, Misconfigured)
    assert verdict.scope == "messages"


def test_a_refused_question_has_a_refused_result() -> None:
    """The refusal carries a result for each question, and names those whose id the words quote."""
    questions = [ask("Received", str(n), msg_id=n) for n in (11, 12)]
    verdict = read(400, {"error": {"code": 3002, "message": "msg_id 12 is invalid"}}, *questions)
    assert isinstance(verdict, Refused)
    assert (set(verdict.suspects), verdict.documented) == ({1}, True)
    assert [(each["query_id"], each["status"], each["answer"]["code"]) for each in data(verdict)] == [
        ("11", "refused", "3002"),
        ("12", "refused", "3002"),
    ]
    unknown = read(400, b"no json", *questions)
    assert isinstance(unknown, Refused)
    assert (unknown.documented, len(unknown.answers)) == (False, 2)


def test_a_wrong_address_and_a_wait() -> None:
    """404 is likelier a base_url without its path; a 429 waits until the minute's reset where nothing else is said."""
    assert isinstance(read(404, b"<html>", ask("Received", msg_id=1)), Misconfigured)
    throttled = read(429, b"", ask("Received", msg_id=1), headers={"x-rate-limit-reset": "12"})
    assert isinstance(throttled, Throttled)
    assert throttled.after == 12.0


@pytest.mark.parametrize(
    ("question", "endpoint", "msg_id", "code"),
    [
        (status(*(str(n) for n in range(1001))), "status", 7, "jpush_report.registration_ids.count"),
        (ask("Users", time_unit="DAY", start="2014-06", duration=1), "users", None, "jpush_report.start.format"),
        (ask("Received", msg_id=None), "received", None, "jpush_report.msg_id.type"),
    ],
    ids=["too many devices", "a month for a day", "no push"],
)
def test_a_question_that_breaks_a_rule_has_its_refused_result(
    question: VendorEvent, endpoint: str, msg_id: int | None, code: str
) -> None:
    """A local refusal is written to the results topic, and not only to the dead letters."""
    report = vendor()
    with pytest.raises(Refusal) as caught:
        report.encode(question, NOW)
    assert caught.value.code == code
    (answer,) = caught.value.answers
    told = answer.datum
    assert (told["query_id"], told["endpoint"], told["msg_id"], told["status"]) == ("q", endpoint, msg_id, "refused")
    assert told["answer"]["code"] == code
    assert fastavro.validate(told, RESULT)
