"""Quick Audience: the signed form, the local rules, and what each answer means."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from email.message import Message
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from connector.delivery.codes import apply_codes
from connector.errors import Refusal
from connector.records import Item
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    Refused,
    Request,
    Response,
    Retry,
    VendorEvent,
    Verdict,
)
from connector.vendors.quick_audience import KIND, QuickAudience, QuickAudienceSettings, signature

NOW = 1_708_235_644_862


def vendor(**settings: Any) -> QuickAudience:
    """Build a vendor with an app of its own."""
    account = {
        "vendor": "quick_audience",
        "base_url": "http://endpoint",
        "app_id": "tttt",
        "access_key": "xxxx",
        "access_secret": "yyyy",
        "access_id": "组织-1",
    }
    return QuickAudience(QuickAudienceSettings.model_validate({**account, **settings}))


def event(entity: bool = False, /, **fields: Any) -> VendorEvent:
    """Return a good event with some fields changed; `entity` is the route's word."""
    return VendorEvent({"customerId": "c", "eventCode": "e", "eventTime": NOW, **fields}, "identity", entity=entity)


def sent(given: VendorEvent, **settings: Any) -> Any:
    """Return what is sent for an event."""
    return orjson.loads(vendor(**settings).encode(given, NOW).body)


def lenient_code(rule: str, given: VendorEvent) -> str | None:
    """Return as what an event is refused with a rule off, or None."""
    try:
        vendor(rules={f"quick_audience.{rule}": "off"}).encode(given, NOW)
    except Refusal as refusal:
        return refusal.code
    return None


def form(request: Request) -> dict[str, str]:
    """Read a form by the standard library's own parser."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message: Message = BytesParser().parsebytes(head + (request.body or b""))
    parts = message.get_payload()
    assert isinstance(parts, list)
    found = {}
    for part in parts:
        assert isinstance(part, Message)
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = payload.decode()
    return found


def read(status: int, body: object, **settings: Any) -> Verdict:
    """Return the verdict of an answer to one event."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    response = Response(status, {}, raw)
    return apply_codes(settings.get("codes", {}), vendor(**settings).read(response, None, [Item(b"{}")], 0), response)


def test_the_signature_has_the_published_vector() -> None:
    """The rule of the Open Platform gives the known digest."""
    values = {"accessKey": "xxxx", "accessSecret": "yyyy", "appId": "tttt", "timestamp": str(NOW)}
    assert signature(values) == "482898c9c725580c190c4df6b806f59e"


def test_each_attempt_is_signed_with_its_own_time_and_raw_values() -> None:
    """The digest is of the values before they are percent-encoded, and the URL is encoded once."""
    quick = vendor(app_id="a b&c/é")
    request = quick.request(None, [Item(b"{}")], NOW)
    query = dict(parse_qsl(urlsplit(request.url).query))
    assert query == {"appId": "a b&c/é", "timestamp": str(NOW), "accessKey": "xxxx"}
    assert request.headers["Authorization"] == signature({**query, "accessSecret": "yyyy"})
    assert "yyyy" not in request.url
    later = quick.request(None, [Item(b"{}")], NOW + 1)
    assert later.headers["Authorization"] != request.headers["Authorization"]


def test_the_form_has_both_fields_whatever_the_events_say() -> None:
    """A form parser finds both fields, also where an event quotes the boundary and line breaks."""
    quick = vendor()
    hostile = "\r\n--connector-boundary-0000000000000--\r\n"
    items = [quick.encode(event(extendAttributes={"字": hostile}), NOW) for _ in range(3)]
    request = quick.request(None, items, NOW)
    fields = form(request)
    assert list(fields) == ["accessId", "eventMessageModelListJson"]
    assert fields["accessId"] == "组织-1"
    assert [each["extendAttributes"] for each in orjson.loads(fields["eventMessageModelListJson"])] == [
        {"字": hostile}
    ] * 3
    limits = quick.limits(None)
    assert len(request.body or b"") == limits.overhead + sum(len(item.body) for item in items) + 2 * limits.separator


def test_a_boundary_is_random_and_quoting_one_costs_nothing() -> None:
    """Each request has its own boundary, so an event that quotes another one 30,000 times is sent at once.

    Kills: searching the events for a boundary that is free.
    """
    quick = vendor()
    quoted = "".join(f"--connector-boundary-{number:013d}" for number in range(30_000))
    item = quick.encode(event(extendAttributes={"a": quoted}), NOW)
    started = time.perf_counter()
    first, second = (quick.request(None, [item], NOW) for _ in range(2))
    assert time.perf_counter() - started < 1.0
    assert first.headers["Content-Type"] != second.headers["Content-Type"]
    assert orjson.loads(form(first)["eventMessageModelListJson"])[0]["extendAttributes"] == {"a": quoted}


def test_an_empty_organization_is_the_accounts() -> None:
    """`organizationId: ""` gets the default like a missing one, and `success` with `data: null` is accepted."""
    assert sent(event(organizationId=""))["organizationId"] == "组织-1"
    assert sent(event(organizationId=""), organization_id="other")["organizationId"] == "other"
    assert isinstance(read(200, {**_OK, "data": None}), Accepted)


def test_all_optional_fields_are_sent_and_nulls_left_out() -> None:
    """Every documented field reaches the vendor under its name."""
    full = {
        "organizationId": "o",
        "workspaceId": "w",
        "customerId": "c",
        "entityId": "n",
        "eventCode": "e",
        "eventTime": NOW,
        "extendAttributes": {"a": "b"},
        "customerIdList": [{"customerId": "139", "idMapping": "MOBILE"}, {"customerId": "x", "idMapping": "oaid"}],
        "isOrder": "1",
        "comeFrom": "f",
        "eventChannel": "ch",
    }
    assert sent(event(**full)) == full
    bare = sent(event(workspaceId=None, extendAttributes={}, customerIdList=[], isOrder=None))
    assert bare == {"organizationId": "组织-1", "customerId": "c", "eventCode": "e", "eventTime": NOW}
    assert sent(event(), organization_id="other")["organizationId"] == "other"


def test_attributes_that_are_not_text_are_sent_as_json_text() -> None:
    """Numbers, booleans, lists and objects become their JSON; a null is left out."""
    at = datetime(2024, 2, 18, 5, 54, 4, 862_000, tzinfo=UTC)
    values = {"n": 1, "f": 1.5, "t": True, "l": ["a", 1], "o": {"x": None}, "s": "text", "z": None, "at": at}
    told = sent(event(extendAttributes={**values, "day": date(2024, 2, 18)}))["extendAttributes"]
    assert told == {
        "n": "1",
        "f": "1.5",
        "t": "true",
        "l": '["a",1]',
        "o": '{"x":null}',
        "s": "text",
        "at": str(NOW),
        "day": "2024-02-18",
    }


@pytest.mark.parametrize(("given", "expected"), [("1", "1"), (0, "0"), (True, "1"), (False, "0")])
def test_is_order_is_text(given: object, expected: str) -> None:
    """Numbers and booleans become the document's "0" and "1"."""
    assert sent(event(isOrder=given))["isOrder"] == expected


_TEXTS = ("customerId", "eventCode", "organizationId", "workspaceId", "entityId", "comeFrom", "eventChannel")
_BROKEN: list[tuple[str, VendorEvent]] = [
    *((f"{name}.type", event(**{name: 5})) for name in _TEXTS),
    *((f"{name}.required", event(**{name: value})) for name in ("customerId", "eventCode") for value in (None, "")),
    ("entityId.required", event(True)),
    ("entityId.required", event(True, entityId="")),
    ("eventTime.required", event(eventTime=None)),
    ("eventTime.type", event(eventTime="now")),
    ("eventTime.type", event(eventTime=True)),
    ("eventTime.type", event(eventTime=2**63)),
    ("isOrder.value", event(isOrder="yes")),
    ("isOrder.value", event(isOrder=2)),
    ("extendAttributes.type", event(extendAttributes=["a"])),
    ("extendAttributes.value", event(extendAttributes={"a": float("nan")})),
    ("extendAttributes.value", event(extendAttributes={"a": {"b": [1.5, float("inf")]}})),
    ("extendAttributes.value", event(extendAttributes={"a": b"x"})),
    ("customerIdList.type", event(customerIdList={"a": 1})),
    ("customerIdList.type", event(customerIdList=["a"])),
    ("customerIdList.customerId.required", event(customerIdList=[{"idMapping": "MOBILE"}])),
    ("customerIdList.idMapping.required", event(customerIdList=[{"customerId": "1", "idMapping": ""}])),
    ("customerIdList.customerId.type", event(customerIdList=[{"customerId": 1, "idMapping": "MOBILE"}])),
    ("customerIdList.idMapping.type", event(customerIdList=[{"customerId": "1", "idMapping": 1}])),
]


@pytest.mark.parametrize(("rule", "given"), _BROKEN)
def test_each_rule_refuses_and_can_be_switched_off(rule: str, given: VendorEvent) -> None:
    """A broken rule is refused under its id; switched off, it refuses nothing any more."""
    with pytest.raises(Refusal) as caught:
        vendor().encode(given, NOW)
    assert caught.value.code == f"quick_audience.{rule}"
    assert lenient_code(rule, given) in (None, "quick_audience.event.json")


def test_every_rule_has_a_case() -> None:
    """No rule is listed that no event can break."""
    assert {f"quick_audience.{rule}" for rule, _ in _BROKEN} == KIND.rules


def test_a_destination_of_entities_wants_their_id() -> None:
    """The setting demands entityId of every event, as the route's word does of one."""
    with pytest.raises(Refusal):
        sent(event(), entity=True)
    assert sent(event(entityId="car-1"), entity=True)["entityId"] == "car-1"


_OK = {"data": True, "errorCode": None, "errorDesc": None, "success": True, "traceId": "ff0f996e"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, _OK, Accepted),
        (200, {**_OK, "data": "true"}, Accepted),
        (200, {**_OK, "data": False}, Retry),
        (200, {**_OK, "data": "false"}, Retry),
        (201, _OK, Retry),
        (200, {**_OK, "success": "true"}, Retry),
        (200, {**_OK, "success": 1}, Retry),
        (200, b"<html>", Retry),
        (200, [], Retry),
        (200, {"success": False, "errorCode": "EVENT_NOT_EXIST", "errorDesc": "?"}, Refused),
        (200, {"success": False, "errorCode": None}, Refused),
        (400, {"success": False, "errorCode": "P"}, Refused),
        (400, b"bad", Refused),
        (200, {"success": False, "errorCode": "SIGNATURE_ERROR"}, Misconfigured),
        (401, {"success": False, "errorCode": "X"}, Misconfigured),
        (403, b"", Misconfigured),
        (500, _OK, Retry),
    ],
)
def test_only_success_true_with_200_is_success(status: int, body: object, expected: type) -> None:
    """Everything but the documented success waits, blames the account, or needs evidence."""
    verdict = read(status, body)
    assert isinstance(verdict, expected)
    if isinstance(verdict, Refused):
        assert not verdict.documented


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, Misconfigured) for code in ("SIGN_ERROR", "InvalidSignature", "AccessKeyNotFound", "APP_ID_INVALID")),
        *((code, Misconfigured) for code in ("NoPermission", "Unauthorized", "TIMESTAMP_EXPIRED")),
        *((code, Refused) for code in ("EVENT_TIMESTAMP_INVALID", "DESIGN_MISSING", "EVENT_NOT_ASSIGNED", "10001", "")),
    ],
)
def test_only_a_code_about_the_account_holds(code: str, expected: type) -> None:
    """The code's words decide; one about an event, or about nothing known, is left to evidence."""
    assert isinstance(read(200, {"success": False, "errorCode": code, "errorDesc": "signature"}), expected)


def test_the_answers_ids_are_kept() -> None:
    """The traceId goes with the verdict, and errorCode and errorDesc into the reason."""
    assert read(200, _OK) == Accepted(request_id="ff0f996e")
    verdict = read(401, {"success": False, "errorCode": "X9", "errorDesc": "no yyyy", "traceId": "t"})
    assert isinstance(verdict, Misconfigured)
    assert (verdict.code, verdict.request_id) == ("X9", "t")
    assert "no ***" in verdict.reason


def test_the_user_says_what_an_error_code_means() -> None:
    """`codes:` is the map that the vendor does not publish."""
    body = {"success": False, "errorCode": "E1"}
    codes = {"E1": "retry"}
    assert isinstance(read(200, body, codes=codes), Retry)
    assert isinstance(read(200, body, codes={"E1": "hold"}), Misconfigured)
    verdict = read(200, body, codes={"E1": "refuse"})
    assert isinstance(verdict, Refused)
    assert verdict.documented
    assert isinstance(read(200, {**_OK, "errorCode": "E1"}, codes=codes), Accepted)
