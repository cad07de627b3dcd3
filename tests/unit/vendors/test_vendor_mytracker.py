"""MyTracker: every rule of the parameter table, the frame, and what each answer means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from connector.errors import Refusal
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    VendorEvent,
)
from connector.vendors.mytracker import KIND, MyTracker, MyTrackerSettings

NOW = 1_700_000_000_000


def vendor(**settings: Any) -> MyTracker:
    """Build a vendor with an app of its own."""
    return MyTracker(
        MyTrackerSettings.model_validate({"vendor": "mytracker", "id_app": 666, "token": "t0ken", **settings})
    )


def event(method: str = "customEvent", /, **fields: Any) -> VendorEvent:
    """Return a good event with some fields changed."""
    good: dict[str, Any] = {"method": method, "customUserId": "1"}
    if method == "customEvent":
        good["customEventName"] = "levelUp"
    return VendorEvent({**good, **fields}, "identity")


def sent(given: VendorEvent) -> Any:
    """Return what is sent for an event."""
    return orjson.loads(vendor().encode(given, NOW).body)


def test_the_documents_sample_is_sent_as_numbers_and_text() -> None:
    """The document's sample event comes out with every parameter, its numbers as numbers."""
    fields = {
        "customUserId": "1",
        "customEventName": "levelUp",
        "customEventParams": {"level": "2"},
        "idGender": 1,
        "age": 25,
        "eventTimestamp": 1580213208,
        "instanceId": "00000000-0000-0000-0000-000000000000",
    }
    tracker = vendor()
    given = event(**fields)
    request = tracker.request(tracker.group(given), [tracker.encode(given, NOW)], NOW)
    assert request.url == "https://tracker-s2s.my.com/v1/customEventBatch/?idApp=666"
    assert request.headers["Authorization"] == "t0ken"
    assert orjson.loads(request.body or b"") == [fields]


def test_nulls_and_empty_maps_are_left_out() -> None:
    """A parameter that is null, and a map without a value, are not sent."""
    given = event("login", ipv4=None, age=None, customEventParams={})
    assert sent(given) == {"customUserId": "1"}
    assert sent(event(customEventParams={"a": None, "b": "x"}))["customEventParams"] == {"b": "x"}
    assert "customEventParams" not in sent(event(customEventParams={}))


def test_a_point_in_time_becomes_whole_seconds() -> None:
    """A time with a zone is rounded down to seconds."""
    at = datetime(2023, 11, 14, 22, 13, 20, 999_999, tzinfo=UTC)
    assert sent(event(eventTimestamp=at))["eventTimestamp"] == NOW // 1000


def test_a_missing_time_is_the_records() -> None:
    """The vendor would take the time of receipt, which misdates a retry, a backlog and a replay.

    Kills: leaving `eventTimestamp` out.
    """
    fields = {"method": "login", "customUserId": "1"}
    dated = VendorEvent(fields, "identity", 1_580_213_208_999)
    assert sent(dated)["eventTimestamp"] == 1_580_213_208
    assert "eventTimestamp" not in orjson.loads(vendor(event_time="receipt").encode(dated, NOW).body)
    assert (
        sent(VendorEvent({**fields, "eventTimestamp": 1_500_000_000}, "identity", NOW))["eventTimestamp"]
        == 1_500_000_000
    )
    large = VendorEvent({**fields, "customUserId": "1", "userAgent": "x" * 1024}, "identity", NOW)
    small = vendor(batch={"bytes": 1070})
    assert "eventTimestamp" not in orjson.loads(small.encode(large, NOW).body)
    assert len(small.encode(large, NOW).body) + 2 <= 1070 < len(vendor().encode(large, NOW).body) + 2
    for unusable in (-1, 0, 946_673_999_999, 4_294_967_296_000):
        assert "eventTimestamp" not in sent(VendorEvent(fields, "identity", unusable))


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        (event("login", customEventName="x", customEventParams={"a": "b"}), ["customEventName", "customEventParams"]),
        (event("registration", customEventName=""), ["customEventName"]),
        (event(customUserId="", lvid="0" * 32), ["customUserId"]),
        (event(customUserId="1", lvid="0" * 32), []),
    ],
)
def test_superfluous_parameters_are_dropped_and_counted(given: VendorEvent, dropped: list[str]) -> None:
    """The event is good without them; the vendor would refuse its whole batch for them."""
    tracker = vendor()
    body = orjson.loads(tracker.encode(given, NOW).body)
    assert body.keys().isdisjoint(dropped)
    assert tracker.take_dropped() == dict.fromkeys(dropped, 1)
    assert tracker.take_dropped() == {}


def test_an_empty_user_alone_is_refused() -> None:
    """Without a device id the event identifies no one."""
    with pytest.raises(Refusal, match="customUserId"):
        sent(event(customUserId=""))


_NUMBERS = {
    "eventTimestamp": (946_674_000, 4_294_967_295),
    "idGender": (0, 2),
    "age": (0, 128),
    "connectionType": (0, 2),
    "bluetoothEnabled": (0, 2),
    "adTrackingEnabled": (0, 1),
    "adBlocker": (0, 1),
}
_LENGTHS = {
    "customUserId": (1, 1024),
    "ipv4": (0, 15),
    "ipv6": (0, 45),
    "instanceId": (36, 36),
    "idfa": (36, 36),
    "iosVendorId": (36, 36),
    "gaid": (36, 36),
    "appSetId": (36, 36),
    "androidId": (16, 16),
    "lvid": (32, 32),
    "userAgent": (0, 2048),
    "customEventName": (1, 255),
}

_BROKEN: list[tuple[str, VendorEvent]] = [
    *((f"{name}.range", event(**{name: most + 1})) for name, (_, most) in _NUMBERS.items()),
    *((f"{name}.range", event(**{name: least - 1})) for name, (least, _) in _NUMBERS.items() if name != "age"),
    *((f"{name}.type", event(**{name: "1"})) for name in _NUMBERS),
    *((f"{name}.type", event(**{name: True})) for name in _NUMBERS),
    *((f"{name}.length", event(**{name: "字" * (most + 1)})) for name, (_, most) in _LENGTHS.items()),
    *((f"{name}.length", event(**{name: "x" * (least - 1)})) for name, (least, _) in _LENGTHS.items() if least),
    *((f"{name}.type", event(**{name: 1})) for name in (*_LENGTHS, "customPlatformUserId", "vkPlatform")),
    ("vkPlatform.value", event(vkPlatform="mobile_windows")),
    ("vkPlatform.together", event("login", vkPlatform="mobile_web")),
    ("vkPlatform.together", event("registration", customPlatformUserId="1")),
    ("customUserId.required", event("login", customUserId=None)),
    ("customUserId.identifier", event(customUserId=None)),
    ("customEventName.required", event(customEventName=None)),
    ("customEventParams.type", event(customEventParams={"a": 1})),
    ("customEventParams.type", event(customEventParams="a")),
    ("customEventParams.name", event(customEventParams={"": "b"})),
    ("customEventParams.name", event(customEventParams={"字" * 256: "b"})),
    ("customEventParams.value", event(customEventParams={"a": ""})),
    ("customEventParams.value", event(customEventParams={"a": '"' * 256})),
]


@pytest.mark.parametrize(("rule", "given"), _BROKEN)
def test_each_rule_refuses_one_past_its_limit_and_can_be_switched_off(rule: str, given: VendorEvent) -> None:
    """A broken rule is refused under its id; switched off, the event is sent."""
    with pytest.raises(Refusal) as caught:
        vendor().encode(given, NOW)
    assert (caught.value.cause, caught.value.code) == ("invalid", f"mytracker.{rule}")
    assert vendor(rules={f"mytracker.{rule}": "off"}).encode(given, NOW).body


def test_every_rule_has_a_case() -> None:
    """No rule is listed that no event can break."""
    assert {f"mytracker.{rule}" for rule, _ in _BROKEN} == KIND.rules


def test_values_at_the_limits_pass() -> None:
    """The least and the greatest value and length pass, counted in characters and not in bytes."""
    for name, bounds in _NUMBERS.items():
        for number in bounds:
            assert sent(event(**{name: number}))[name] == number
    for name, lengths in _LENGTHS.items():
        for length in lengths:
            assert sent(event(**{name: "字" * length}))[name] == "字" * length
    quoted = {"字" * 255: '"' * 255}
    assert sent(event(customEventParams=quoted))["customEventParams"] == quoted


def test_the_documents_own_android_id_passes_only_with_its_rule_off() -> None:
    """The sample's androidId has 15 characters, one less than the table says."""
    given = event(androidId="0" * 15)
    with pytest.raises(Refusal):
        vendor().encode(given, NOW)
    assert vendor(rules={"mytracker.androidId.length": False}).encode(given, NOW).body


@pytest.mark.parametrize("device", ["instanceId", "lvid", "gaid", "androidId", "appSetId", "idfa", "iosVendorId"])
def test_one_device_is_enough_for_a_custom_event(device: str) -> None:
    """Any of the seven device identifiers stands for the user."""
    given = event(customUserId=None, **{device: "0" * _LENGTHS[device][1]})
    assert sent(given)[device]


@pytest.mark.parametrize("method", [None, "", "logout", 5])
def test_an_unknown_method_has_no_address(method: object) -> None:
    """An event of another method is refused, whatever `rules:` says."""
    with pytest.raises(Refusal, match="registration, login, customEvent"):
        vendor().group(VendorEvent({"method": method}, "x"))


def test_methods_are_groups() -> None:
    """Each method has batches and an address of its own."""
    tracker = vendor()
    urls = [tracker.request(tracker.group(event(m)), [], NOW).url for m in ("registration", "login", "customEvent")]
    assert [url.partition("/v1/")[2] for url in urls] == [
        "registrationBatch/?idApp=666",
        "loginBatch/?idApp=666",
        "customEventBatch/?idApp=666",
    ]
    assert (tracker.limits("login").records, tracker.limits("login").bytes) == (20, 10_000)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, '{"message": "ОK"}', Accepted),
        (200, '{"message": "OK"}', Accepted),
        (200, '{"message": "OK", "error": "x"}', Retry),
        (200, '{"error": "Bad Request"}', Retry),
        (200, "<html>", Retry),
        (200, "[]", Retry),
        (400, '{"error": "Bad Request"}', Refused),
        (400, '{"error": "Empty post data"}', Misconfigured),
        (400, '{"error": "Bad json"}', Misconfigured),
        (400, '{"error": "Bad api version"}', Misconfigured),
        (403, '{"error": "Forbidden"}', Misconfigured),
        (404, '{"error": "Method not found"}', Misconfigured),
        (413, "", TooLarge),
        (429, "", Throttled),
        (500, '{"error": "Internal Server Error"}', Retry),
    ],
)
def test_each_answer_of_the_status_table(status: int, body: str, expected: type) -> None:
    """Each documented answer has its verdict, and what is not documented is no success."""
    assert isinstance(vendor().read(Response(status, {}, body.encode()), "login", [], 0), expected)


def test_only_the_documented_refusal_is_believed_at_once() -> None:
    """Bad Request is the record's fault by the document; another 400 needs evidence."""
    verdicts = [
        vendor().read(Response(400, {}, body), "login", [], 0)
        for body in (b'{"error":"Bad Request"}', b"{}", b'{"error":"?"}')
    ]
    assert [each.documented for each in verdicts if isinstance(each, Refused)] == [True, False, False]
