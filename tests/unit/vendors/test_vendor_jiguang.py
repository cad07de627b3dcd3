"""Jiguang: what is sent, what is refused before sending, and what each answer means."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from connector.delivery.codes import apply_codes
from connector.errors import Refusal
from connector.records import Item
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    VendorEvent,
    Verdict,
)
from connector.vendors.jiguang import KIND, Jiguang, JiguangSettings

NOW = 1_700_000_000_000
DAY = 24 * 3600 * 1000


def vendor(**settings: Any) -> Jiguang:
    """Build a vendor with an account of its own."""
    account = {"vendor": "jiguang", "project_id": "100102", "project_secret": "s3cret", "app_key": "ak"}
    return Jiguang(JiguangSettings.model_validate({**account, **settings}))


def event(**fields: Any) -> VendorEvent:
    """Return a good event with some fields changed."""
    good = {"cuid": 1, "eventName": "view", "itime": NOW, "randomId": "r", "properties": {}}
    return VendorEvent({**good, **fields}, "identity-1")


def sent(**fields: Any) -> dict[str, Any]:
    """Return what is sent for an event."""
    return dict(orjson.loads(vendor().encode(event(**fields), NOW).body))


def lenient_code(rule: str, given: VendorEvent) -> str | None:
    """Return as what an event is refused with a rule off, or None."""
    try:
        vendor(rules={f"jiguang.{rule}": "off"}).encode(given, NOW)
    except Refusal as refusal:
        return refusal.code
    return None


def read(
    status: int, body: object, *sent_events: VendorEvent, headers: dict[str, str] | None = None, **settings: Any
) -> Verdict:
    """Return the verdict of an answer to some events."""
    jiguang = vendor(**settings)
    items = [jiguang.encode(each, NOW) for each in sent_events or (event(),)]
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    response = Response(status, headers or {}, raw)
    return apply_codes(settings.get("codes", {}), jiguang.read(response, None, items, 0), response)


def test_the_documents_sample_is_sent_as_it_stands() -> None:
    """The document's own request comes out byte for byte as JSON, with the project as HTTP Basic."""
    fields = {
        "cuid": 10000091199,
        "eventName": "fllow_wechat",
        "itime": NOW - 235,
        "randomId": "5b102148-0d28-4a6a-8658-483f7d1c735e",
        "properties": {"propertyC": "a", "propertyD": 3, "propertyJ": "true", "propertyL": ["test1", "20231025"]},
    }
    jiguang = vendor()
    request = jiguang.request(None, [jiguang.encode(VendorEvent(fields, "x"), NOW)], NOW)
    assert (request.method, request.url) == ("POST", "https://growth.jiguang.cn/smartop/api/v1/events/report")
    assert request.headers["Authorization"] == "Basic " + b64encode(b"100102:s3cret").decode()
    assert orjson.loads(request.body or b"") == {"appKey": "ak", "data": [fields]}


def test_a_missing_random_id_is_the_same_for_every_attempt_and_differs_between_events() -> None:
    """An event without a randomId gets one of its identity, so that a repeat counts once at the vendor."""
    first, again = sent(randomId=None)["randomId"], sent(randomId="")["randomId"]
    other = VendorEvent({**event().fields, "randomId": None}, "identity-2")
    assert UUID(first).version == 5
    assert first == again
    assert orjson.loads(vendor().encode(other, NOW).body)["randomId"] != first


def test_properties_that_say_nothing_are_left_out() -> None:
    """A null property is left out, and so is an object without properties."""
    assert sent(properties={"a": None, "b": "x"})["properties"] == {"b": "x"}
    assert "properties" not in sent(properties={"a": None})
    assert "properties" not in sent(properties={})
    assert "properties" not in sent(properties=None)


def test_logical_types_have_a_stated_form() -> None:
    """Times become epoch milliseconds, dates and UUIDs text, exact decimals numbers."""
    at = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    number = UUID(int=7)
    values = {"at": at, "day": date(2023, 11, 14), "id": number, "price": Decimal("12.34"), "count": Decimal(3)}
    told = sent(itime=at, properties=values)
    assert told["itime"] == NOW
    assert told["properties"] == {
        "at": NOW,
        "day": "2023-11-14",
        "id": str(number),
        "price": 12.34,
        "count": 3,
    }


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("cuid.required", {"cuid": None}),
        ("cuid.type", {"cuid": True}),
        ("cuid.type", {"cuid": "12"}),
        ("cuid.type", {"cuid": 2**63}),
        ("eventName.required", {"eventName": ""}),
        ("eventName.required", {"eventName": None}),
        ("eventName.type", {"eventName": 5}),
        ("itime.required", {"itime": None}),
        ("itime.type", {"itime": "now"}),
        ("itime.type", {"itime": 2**63}),
        ("itime.future", {"itime": NOW + 5 * 60 * 1000 + 1}),
        ("itime.past", {"itime": NOW - 366 * DAY - 1}),
        ("randomId.type", {"randomId": 5}),
        ("properties.type", {"properties": ["a"]}),
        ("properties.name", {"properties": {"": 1}}),
        ("properties.number", {"properties": {"a": float("nan")}}),
        ("properties.number", {"properties": {"a": float("inf")}}),
        ("properties.range", {"properties": {"a": 2**63}}),
        ("properties.range", {"properties": {"a": -(2**63) - 1}}),
        ("properties.list", {"properties": {"a": ["b", 1]}}),
        ("properties.nested", {"properties": {"a": {"b": 1}}}),
        ("properties.value", {"properties": {"a": b"bytes"}}),
        ("properties.value", {"properties": {"a": datetime(2023, 1, 1)}}),  # noqa: DTZ001 -- the zone is what is missing
        ("properties.value", {"properties": {"a": Decimal("0.12345678901234567890")}}),
    ],
)
def test_each_rule_refuses_and_can_be_switched_off(rule: str, fields: dict[str, Any]) -> None:
    """A broken rule is refused under its id and field; switched off, it refuses nothing any more."""
    with pytest.raises(Refusal) as caught:
        vendor().encode(event(**fields), NOW)
    assert (caught.value.cause, caught.value.code) == ("invalid", f"jiguang.{rule}")
    assert caught.value.field == rule.partition(".")[0]
    assert lenient_code(rule, event(**fields)) in (None, "jiguang.event.json")


def test_every_rule_has_a_case_above() -> None:
    """No rule is listed that no event can break."""
    mark = next(m for m in test_each_rule_refuses_and_can_be_switched_off.pytestmark if m.name == "parametrize")
    assert {f"jiguang.{case[0]}" for case in mark.args[1]} == KIND.rules


@pytest.mark.parametrize("itime", [NOW + 5 * 60 * 1000, NOW - 366 * DAY])
def test_times_at_the_limits_pass_and_expire(itime: int) -> None:
    """Both edges of itime pass, and the item says until when."""
    assert vendor().encode(event(itime=itime), NOW).expires_at == itime + 366 * DAY
    assert vendor(rules={"jiguang.itime.past": "off"}).encode(event(itime=itime), NOW).expires_at is None


def test_a_wrong_clock_condemns_no_fresh_event() -> None:
    """An event that is fresh by the vendor's clock, or by its record's own timestamp, is sent.

    Kills: checking `itime` by our clock alone.
    """
    ahead = NOW + 10 * 60 * 1000
    fields = event(itime=ahead).fields
    with pytest.raises(Refusal):
        vendor().encode(VendorEvent(fields, "x"), NOW)
    assert vendor().encode(VendorEvent(fields, "x", ahead), NOW).body
    jiguang = vendor()
    jiguang.set_clock(10 * 60 * 1000)
    assert jiguang.encode(VendorEvent(fields, "x"), NOW).expires_at == ahead + 366 * DAY
    jiguang.set_clock(0)
    with pytest.raises(Refusal):
        jiguang.encode(VendorEvent(fields, "x"), NOW)


@pytest.mark.parametrize("year", [1970, 2000, 2099, 9999])
@pytest.mark.parametrize("timestamp", [NOW, -1])
def test_a_wrong_date_of_the_vendor_condemns_no_event(year: int, timestamp: int) -> None:
    """What our own clock takes is sent, whatever a proxy writes into `Date`; it expires no sooner for that.

    Kills: checking `itime` by the vendor's clock alone. Then all events are refused here, so none is sent, and no
    further answer would ever put the clock right.
    """
    jiguang = vendor()
    jiguang.set_clock(int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) - NOW)
    for itime in (NOW - 365 * DAY, NOW, NOW + 60_000):
        item = jiguang.encode(VendorEvent(event(itime=itime).fields, "x", timestamp), NOW)
        assert item.expires_at is not None
        assert item.expires_at >= itime + 366 * DAY


def test_an_empty_200_is_a_setting() -> None:
    """The document allows it as success; it is retried, shown after three in a row, and accepted where configured."""
    jiguang = vendor()
    empty, success = Response(200, {}, b""), Response(200, {}, b'{"code": 0}')
    verdicts = [jiguang.read(response, None, [], 0) for response in (empty, empty, success, empty, empty, empty)]
    assert [type(each) for each in verdicts] == [Retry, Retry, Accepted, Retry, Retry, Misconfigured]
    assert isinstance(verdicts[-1], Misconfigured)
    assert "empty_200: accept" in verdicts[-1].reason
    assert isinstance(vendor(empty_200="accept").read(empty, None, [], 0), Accepted)
    for other in (Response(201, {}, b""), Response(200, {}, b" " * 2**20), Response(200, {}, b"\0")):
        assert not isinstance(vendor(empty_200="accept").read(other, None, [], 0), Accepted)


@pytest.mark.parametrize("code", [4001, 4004])
@pytest.mark.parametrize("what", ["data", "body"])
def test_an_error_about_the_request_blames_no_record(code: int, what: str) -> None:
    """4001 and 4004 about `data` or the body: the request is wrong, whatever `codes:` says.

    Kills: dead-lettering records for a body that a proxy broke.
    """
    body = {"code": code, "msg": f"{what} 字段类型错误"}
    assert isinstance(read(200, body, codes={str(code): "refuse"}), Misconfigured)
    own = read(200, body, event(properties={what: "x"}))
    assert isinstance(own, Refused)


def test_text_that_is_no_unicode_is_refused_and_does_not_crash() -> None:
    """A lone surrogate has no UTF-8, so the record is refused."""
    with pytest.raises(Refusal, match="cannot be written as JSON"):
        vendor().encode(event(properties={"a": "\ud800"}), NOW)


def test_a_refusal_never_tells_the_value() -> None:
    """The message names the field and the kind of the value, not the value."""
    with pytest.raises(Refusal) as caught:
        vendor().encode(event(cuid="13900001111"), NOW)
    assert "13900001111" not in str(caught.value)
    assert "cuid must be a whole number of 64 bits; it is a string" in str(caught.value)


def test_only_code_zero_with_a_2xx_is_success() -> None:
    """A 200 of another form is asked again, and so is a code 0 with an error status."""
    assert isinstance(read(200, {"code": 0, "msg": "ok"}), Accepted)
    for body in (
        b"<html>ok</html>",
        b"",
        b"null",
        {"code": "zero"},
        {"code": False},
        {"code": 0.0},
        {"msg": "ok"},
        [0],
    ):
        assert isinstance(read(200, body), Retry), body
    assert isinstance(read(400, {"code": 0, "msg": "ok"}), Retry)


@pytest.mark.parametrize(
    ("status", "expected", "unknown"),
    [(500, Retry, False), (502, Retry, True), (503, Retry, False), (504, Retry, True), (408, Retry, False)],
)
def test_a_server_error_says_nothing_about_the_records(status: int, expected: type, unknown: bool) -> None:
    """A 5xx is retried whatever its body, and only a gateway's leaves the outcome unknown."""
    verdict = read(status, {"code": 4104, "msg": "itime 1"})
    assert isinstance(verdict, Retry)
    assert verdict.unknown_outcome is unknown


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 4100, "msg": "appKey"}),
        (401, b""),
        (403, b"<html>"),
        (404, b"<html>"),
        (405, b""),
        (302, b""),
        (200, {"code": 4004, "msg": "appKey 字段不能为空"}),
        (200, {"code": 4000, "data": [{"code": 4104, "msg": "itime 1"}, {"code": 4100, "msg": ""}]}),
    ],
)
def test_what_is_the_configurations_fault_blames_no_record(status: int, body: object) -> None:
    """A wrong credential, appKey or address holds the destination."""
    assert isinstance(read(status, body), Misconfigured)


def test_throttling_carries_the_vendors_wish() -> None:
    """A 429 says how long to wait where the vendor says it."""
    assert read(429, b"", headers={"retry-after": "7"}) == Throttled("HTTP 429, too many requests", 7.0, "http_429")


def test_too_much_is_not_a_records_fault() -> None:
    """A 413 is about bytes, a 4002 on `data` about records, unless an event has a list of that name."""
    verdicts = read(413, b""), read(200, {"code": 4002, "msg": "data 字段数组大小超出范围"}, event(), event(cuid=2))
    assert [each.limit for each in verdicts if isinstance(each, TooLarge)] == ["bytes", "records"]
    own = event(properties={"data": ["x"]})
    verdict = read(200, {"code": 4002, "msg": "data 字段数组大小超出范围"}, event(), own)
    assert isinstance(verdict, Refused)
    assert verdict.suspects == {1}


@pytest.mark.parametrize(
    ("code", "msg", "suspects"),
    [
        (4104, f"itime {NOW - 1} 时间戳超出合理范围", {1}),
        (4104, "itime 17 时间戳超出合理范围", set()),
        (4103, "cuid 22 对应的用户不存在", {2}),
        (4101, "Event view_page does not exist", {1}),
        (4101, "事件view不存在", {0, 2}),
        (4101, "the viewer of view does not exist", {0, 2}),
        (4102, "Attribute colour of event view does not exist or is disabled", {2}),
        (4105, "colour 属性值类型应为 number", {1, 2}),
        (4001, "something else", set()),
    ],
)
def test_the_vendors_words_find_the_suspects(code: int, msg: str, suspects: set[int]) -> None:
    """Quoted values and names point at exactly the events that have them."""
    events = (
        event(cuid=20),
        event(cuid=21, eventName="view_page", itime=NOW - 1, properties={"colour": "red"}),
        event(cuid=22, properties={"colour": "blue", "size": 2}),
    )
    for body in (
        {"code": code, "msg": msg},
        {"code": 4000, "msg": "several", "data": [{"code": code, "msg": msg}] * 2},
    ):
        verdict = read(200, body, *events)
        assert isinstance(verdict, Refused)
        assert (verdict.code, set(verdict.suspects), verdict.documented) == (str(code), suspects, True)


@pytest.mark.parametrize(
    "body", [{"code": 4999, "msg": "?"}, {"code": 4000, "msg": "several"}, {"code": -1, "msg": ""}]
)
def test_an_unknown_code_is_not_believed_at_once(body: object) -> None:
    """A code that the document does not give to a record is marked so."""
    verdict = read(200, body)
    assert isinstance(verdict, Refused)
    assert not verdict.documented


def test_the_user_reads_a_code_in_another_way() -> None:
    """`codes:` turns a refusal into a wait or a hold, and an unknown code into a believed refusal."""
    body = {"code": 4101, "msg": "Event view does not exist"}
    assert isinstance(read(200, body, codes={"4101": "retry"}), Retry)
    assert isinstance(read(200, body, codes={"4101": "hold"}), Misconfigured)
    believed = read(200, {"code": 77, "msg": ""}, codes={"77": "refuse"})
    assert isinstance(believed, Refused)
    assert believed.documented
    assert isinstance(read(400, b"no", codes={"http_400": "hold"}), Misconfigured)


def test_secrets_and_length_of_a_reason() -> None:
    """The vendor's words lose the account's secrets and all beyond 500 characters."""
    verdict = read(200, {"code": 4100, "msg": "s3cret ak\n" + "x" * 900})
    assert isinstance(verdict, Misconfigured)
    assert "s3cret" not in verdict.reason
    assert len(verdict.reason) <= 500
    assert "\n" not in verdict.reason


def test_error_items_of_another_form_are_tolerated() -> None:
    """An item that is not a JSON object does not break the reading of the answer."""
    odd = Item(b'{"cuid":[1],"itime":{},"eventName":[2],"randomId":5,"properties":[{}]}')
    for code in (4001, 4101, 4102, 4103, 4104):
        answer = orjson.dumps({"code": code, "msg": "x 1 5"})
        verdict = vendor().read(Response(200, {}, answer), None, [Item(b"]"), odd], 0)
        assert isinstance(verdict, Refused)
        assert verdict.suspects == frozenset()


def test_only_so_many_errors_of_an_answer_are_read() -> None:
    """An answer with thousands of different errors costs no more than two hundred; those without a code are none.

    Kills: a vendor's huge answer that keeps the loop busy.
    """
    errors = [{"code": 0, "msg": "fine"}, {"msg": "x"}, *({"code": 4101, "msg": f"e{one}"} for one in range(3000))]
    verdict = read(200, {"code": 4000, "msg": "several", "data": errors})
    assert isinstance(verdict, Refused)
    assert [error.reason.rpartition("e")[2] for error in verdict.errors] == [str(one) for one in range(200)]
