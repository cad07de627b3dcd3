"""Reading answers: waiting times in odd forms, bodies in other encodings, excerpts, the work of reading hints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.records import Item
from connector.vendors import code_meaning, explained, kinds
from connector.vendors.answers import (
    LogText,
    Words,
    by_status,
    json_value,
    parsed,
    rate_hint,
    retry_after,
    throttle_wait,
    unread,
    verdict_of_status,
    verdict_of_unknown_body,
)
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry
from connector.vendors.jiguang import Jiguang, JiguangSettings
from connector.vendors.mytracker import MyTracker, MyTrackerSettings

SENT = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("text", "date", "expected"),
    [
        ("0", SENT, 0.0),
        ("7", None, 7.0),
        (" 7\t", None, 7.0),
        ("9" * 5000, SENT, 1e9),
        ("-5", SENT, None),
        ("-0000", SENT, None),
        ("1.5", SENT, None),
        ("soon", SENT, None),
        ("", SENT, None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", SENT, 10.0),
        ("Tue, 14 Nov 2023 22:13:30 -0000", SENT, 10.0),
        ("Tue, 14 Nov 2023 22:13:30", SENT, 10.0),
        ("Wed, 15 Nov 2023 06:13:30 +0800", SENT, 10.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", "Tue, 14 Nov 2023 22:13:20", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", SENT, 0.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", None, None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", "yesterday", None),
        ("Mon, 99 Foo 0000 00:00:00 GMT", SENT, None),
    ],
)
def test_retry_after_has_one_reading_in_any_form(
    text: str, date: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds, or a date in GMT that counts from the answer's own `Date`; anything else is no wait.

    Kills: reading a date without a zone in local time.
    """
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    headers = {"retry-after": text, **({} if date is None else {"date": date})}
    assert retry_after(headers) == expected


def test_a_429_waits_by_retry_after_and_else_by_the_rate_limits_reset() -> None:
    """A missing or unreadable `Retry-After` leaves the wait to `X-Rate-Limit-Reset`."""
    assert throttle_wait({"retry-after": "3", "x-rate-limit-reset": "9"}) == 3.0
    assert throttle_wait({"retry-after": "x", "x-rate-limit-reset": "9"}) == 9.0
    assert throttle_wait({"x-rate-limit-reset": "-9"}) is None
    assert rate_hint({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "-1"}) is None


ANSWER: dict[str, Any] = {"code": 4101, "msg": "事件 page 不存在", "data": None}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (orjson.dumps(ANSWER), {}),
        (b"\xef\xbb\xbf" + orjson.dumps(ANSWER), {}),
        (orjson.dumps(ANSWER).decode().encode("gb18030"), {}),
        (orjson.dumps(ANSWER).decode().encode("gbk"), {"content-type": "application/json; charset=GBK"}),
        (orjson.dumps(ANSWER).decode().encode("utf-16"), {}),
        (orjson.dumps(ANSWER).decode().encode("gb18030"), {"content-type": "text/html; charset=no-such"}),
        (orjson.dumps(ANSWER).decode().encode("gb18030"), {"content-type": "text/html; charset=hex"}),
    ],
)
def test_json_is_read_in_the_encoding_that_came(body: bytes, headers: dict[str, str]) -> None:
    """A byte order mark, GBK, UTF-16, or a charset in Content-Type: the value is the same."""
    assert json_value(Response(200, headers, body), "gb18030") == ANSWER


def test_what_is_no_json_in_any_encoding_is_none() -> None:
    """A proxy's page, random bytes and an empty body have no value."""
    for body in (b"<html>", bytes(range(256)), b"", b"\xef\xbb\xbf"):
        assert json_value(Response(200, {}, body), "gb18030", "cp1251") is None


def test_vendors_read_their_own_encodings_and_codes_as_text() -> None:
    """Jiguang's GBK and code as text, MyTracker's cp1251: an acceptance is one, and a refusal keeps its words."""
    jiguang = Jiguang(
        JiguangSettings.model_validate({"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "a"})
    )
    accepted = '{"code": "0", "msg": "成功", "extra": 1}'.encode("gbk")
    assert isinstance(jiguang.read(Response(200, {}, accepted), None, [Item(b"{}")], 0), Accepted)
    refused = jiguang.read(Response(200, {}, orjson.dumps({**ANSWER, "code": "4101"})), None, [Item(b"{}")], 0)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.documented) == ("4101", True)
    tracker = MyTracker(MyTrackerSettings.model_validate({"vendor": "mytracker", "id_app": 1, "token": "t"}))
    body = '{"message": "Принято"}'.encode("cp1251")
    assert isinstance(tracker.read(Response(200, {}, body), "login", [], 0), Accepted)


def test_an_answer_that_cannot_be_read_is_shown() -> None:
    """The first 200 printable characters, on one line, with secrets masked, whatever the status."""
    body = "<html>\r\n\x00 s3cret ошибка \u202e".encode() + b"\xff" + b"y" * 900
    for status in (200, 422):
        verdict = verdict_of_unknown_body(Response(status, {}, body), LogText("s3cret"))
        assert isinstance(verdict, Retry | Refused)
        assert "<html> *** ошибка yyy" in verdict.reason
        assert "y" * 201 not in verdict.reason
        assert verdict.reason.isprintable()
    empty = verdict_of_unknown_body(Response(200, {}, b""), LogText())
    assert isinstance(empty, Retry)
    assert empty.reason.endswith("(empty)")


def test_a_vendor_that_uses_the_first_names_reads_its_answers() -> None:
    """The names of the interface's first version work with the arguments that they had, `codes` among them."""
    words, codes = Words("secret"), {"http_401": "retry"}
    assert parsed(b'{"a": 1}') == {"a": 1}
    assert parsed(b"<html>") is None
    denied = by_status(Response(401, {}, b""), words, codes, code="77", said="the secret is wrong")
    assert isinstance(denied, Misconfigured)
    assert (denied.code, denied.reason) == ("77", "HTTP 401, the credential was refused: the *** is wrong")
    assert by_status(Response(200, {}, b""), words, codes) is None
    assert isinstance(unread(Response(200, {}, b"secret"), words, codes), Retry)


def test_a_secret_is_not_shown_in_half() -> None:
    """A secret at the end of the excerpt is masked before the text is cut."""
    text = "x" * 195 + "very-secret-value"
    verdict = verdict_of_unknown_body(Response(200, {}, text.encode()), LogText("very-secret-value"))
    assert isinstance(verdict, Retry)
    assert "very" not in verdict.reason


def test_statuses_without_a_verdict_of_their_own_are_left_to_the_body() -> None:
    """2xx and most 4xx need the body."""
    assert [verdict_of_status(Response(status, {}, b""), LogText()) for status in (200, 204, 400, 404, 422)] == [
        None
    ] * 5


def read_errors(errors: int, events: int, attributes: int, make: Callable[[int, int], str]) -> tuple[Refused, int]:
    """Return Jiguang's verdict on an answer with so many errors over so many events, and the calls it took."""
    jiguang = Jiguang(
        JiguangSettings.model_validate({"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "a"})
    )
    items = [
        Item(
            orjson.dumps(
                {
                    "cuid": 10_000 + number,
                    "eventName": f"view_{number}",
                    "itime": 1_700_000_000_000 + number,
                    "randomId": f"random-{number}",
                    "properties": {make(number, index): "x" for index in range(attributes)},
                }
            )
        )
        for number in range(events)
    ]
    listed = [{"code": 4105, "msg": f"{make(number, 0)} 属性值类型应为 number"} for number in range(errors)]
    body = orjson.dumps({"code": 4000, "msg": "several", "data": listed})
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        verdict = jiguang.read(Response(200, {}, body), None, items, 0)
    finally:
        sys.setprofile(None)
    assert isinstance(verdict, Refused)
    return verdict, calls


@settings(max_examples=25, deadline=None)
@given(
    errors=st.integers(1, 120),
    events=st.integers(1, 100),
    attributes=st.integers(1, 25),
    odd=st.booleans(),
)
def test_reading_hints_is_linear(errors: int, events: int, attributes: int, odd: bool) -> None:
    """Calls grow with the length of the answer and of the batch, not with their product.

    Kills: a search for every attribute name in every error's message.
    """

    def name(number: int, index: int) -> str:
        return f"属性 {number}-{index}" if odd else f"attribute_{number}_{index}"

    verdict, calls = read_errors(errors, events, attributes, name)
    assert verdict.suspects == frozenset(range(min(errors, events)))
    assert calls <= 2_000 + 700 * errors + 60 * events + 12 * events * attributes


def test_searching_for_odd_names_ends_with_its_budget() -> None:
    """Names that are no words and share one have to be searched for. After 50,000 searches the rest is no hint.

    Kills: 300,000 searches for one answer, which block the loop.
    """
    verdict, _ = read_errors(100, 100, 25, lambda number, index: f"shared_word-{number}-{index}")
    assert 0 < len(verdict.suspects) <= 50_000 // 2_500 + 1


def test_every_documented_code_has_its_meaning_and_solution() -> None:
    """Each is a sentence; an unknown vendor or code has none."""
    for name, kind in kinds(()).items():
        assert kind.codes, name
        for key, (meaning, solution) in kind.codes.items():
            assert meaning.endswith("."), key
            assert solution.endswith("."), key
            assert code_meaning(name, key.partition(" ")[0], key) == (meaning, solution)
    assert code_meaning("jiguang", "4101") == (
        "The event does not exist at Jiguang.",
        "Create it there or correct eventName.",
    )
    assert code_meaning("jiguang", "9999") is None
    assert code_meaning("nobody", "4101") is None
    assert code_meaning(None, None) is None


def test_one_code_with_several_meanings_is_told_apart_by_its_message() -> None:
    """MyTracker's 400 is about parameters, or about the request itself."""
    parameters = code_meaning("mytracker", "http_400", "HTTP 400: Bad Request")
    request = code_meaning("mytracker", "http_400", "HTTP 400: Bad json")
    assert parameters is not None
    assert request is not None
    assert "parameter" in parameters.meaning
    assert "JSON" in request.meaning


def test_words_stand_before_the_vendors_text_once() -> None:
    """Meaning and solution come first, the vendor's text stays, and a second time changes nothing.

    Kills: words that push out the vendor's own text; words for a code that no document has.
    """
    words = explained("jiguang", "4101", "code 4101: 事件不存在")
    assert words == (
        "4101: The event does not exist at Jiguang. Create it there or correct eventName. The vendor's text: 事件不存在"
    )
    assert explained("jiguang", "4101", words) == words
    assert explained("jpush_report", "3001", "").endswith("Check app_key and master_secret.")
    for vendor, code in (("jiguang", "9999"), ("nobody", "4101"), (None, None), ("jiguang", None)):
        assert explained(vendor, code, "code 9999: 不") == "code 9999: 不"


DOCUMENTED = {
    "jiguang": ["4000", "4001", "4002", "4003", "4004", "4100", "4101", "4102", "4103", "4104", "4105"],
    "mytracker": ["http_400", "http_403", "http_404", "http_500"],
    "jpush_report": ["10", "2003", "3001", "3004", "3005"],
}


def test_no_code_of_the_documents_is_missing() -> None:
    """The documents' own tables of codes, compared with the product's."""
    for name, codes in DOCUMENTED.items():
        assert set(codes) <= kinds(())[name].codes.keys()
