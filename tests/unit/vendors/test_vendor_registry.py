"""What holds for every vendor that is registered, and how vendors are registered."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.errors import ConfigurationError
from connector.vendors import kinds
from connector.vendors.base import (
    Accepted,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    Vendor,
    VendorEvent,
)

NOW: Final = 1_700_000_000_000
ROOT: Final = Path(__file__).parents[3]
SECRET: Final = "very-secret-value"

_ACCOUNTS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "jiguang": {"project_id": "1", "project_secret": SECRET, "app_key": 'quo"ted 字'},
        "mytracker": {"id_app": 1, "token": SECRET},
        "quick_audience": {
            "base_url": "http://q",
            "app_id": "a",
            "access_key": "k",
            "access_secret": SECRET,
            "access_id": "组织",
        },
        "jpush_report": {"app_key": "a", "master_secret": SECRET, "results_topic": "r"},
    }
)


def build(name: str) -> Vendor:
    """Build a registered vendor with a made-up account."""
    kind = kinds(())[name]
    return kind.build(kind.settings.model_validate({"vendor": name, **_ACCOUNTS[name]}))


def events(name: str, texts: list[str]) -> list[VendorEvent]:
    """Return good events of one group that carry the texts."""
    if name == "jiguang":
        fields = [{"cuid": 1, "eventName": "e", "itime": NOW, "properties": {text: text}} for text in texts]
    elif name == "mytracker":
        fields = [{"method": "login", "customUserId": text} for text in texts]
    elif name == "quick_audience":
        fields = [{"customerId": text, "eventCode": "e", "eventTime": NOW} for text in texts]
    else:
        fields = [
            {"kind": "status", "msg_id": 1, "date": "2023-11-14", "registration_ids": [text, text + "x"]}
            for text in texts
        ]
    return [VendorEvent(each, "identity") for each in fields]


NAMES: Final = sorted(_ACCOUNTS)
TEXTS: Final = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), min_size=1, max_size=20, unique=True
)


@pytest.mark.parametrize("name", NAMES)
@given(texts=TEXTS)
@example(texts=['"', "\\", "\r\n--connector-boundary-0000000000000", "字", "\U0001f600", "\x00"])
def test_a_body_is_as_long_as_its_limits_say(name: str, texts: list[str]) -> None:
    """Overhead, items and separators add up to the real body, whatever the texts; an overhead off by one fails here."""
    vendor = build(name)
    given_events = events(name, texts)
    group = vendor.group(given_events[0])
    items = [vendor.encode(event, NOW) for event in given_events]
    limits = vendor.limits(group)
    for some in (items, items[:1]):
        body = vendor.request(group, some, NOW).body
        assert body is not None
        total = sum(len(item.body) for item in some)
        assert len(body) == limits.overhead + total + limits.separator * (len(some) - 1)


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "code",
                    "msg",
                    "data",
                    "error",
                    "message",
                    "success",
                    "errorCode",
                    "traceId",
                    "msg_id",
                    "status",
                    "items",
                    "a",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_BODIES: Final = st.binary(max_size=50) | _JSON.map(orjson.dumps)
_HEADERS: Final = st.dictionaries(
    st.sampled_from(
        ["retry-after", "date", "x-rate-limit-remaining", "x-rate-limit-reset", "location", "x-request-id"]
    ),
    st.text(max_size=20) | st.sampled_from(["9" * 5000, "²", "Tue, 14 Nov 2023 22:13:21 GMT", "Mon, 99 Foo 0000"]),
)
_STATUSES: Final = st.sampled_from([100, 200, 201, 204, 302, 304, 400, 401, 404, 413, 418, 422, 429, 500, 502, 599])


@pytest.mark.parametrize("name", NAMES)
@given(status=_STATUSES, body=_BODIES, headers=_HEADERS, asked=st.integers(0, 4))
@example(status=200, body=b"[" * 900 + b"]" * 900, headers={}, asked=0)
@example(status=200, body=b'{"items":' * 300 + b"[]" + b"}" * 300, headers={}, asked=0)
@example(status=400, body=b'{"error":{"code":3002,"message":"' + b"9" * 6000 + b'"}}', headers={}, asked=0)
@example(status=200, body=b'{"code":4104,"msg":"itime ' + b"9" * 6000 + b'"}', headers={}, asked=0)
def test_reading_never_raises(name: str, status: int, body: bytes, headers: dict[str, str], asked: int) -> None:
    """Any answer has a verdict: its indexes are of the batch, and its words are short."""
    vendor = build(name)
    given_events = events(name, ["a", "b"])
    group = vendor.group(given_events[0])
    items = [vendor.encode(event, NOW) for event in given_events]
    verdict = vendor.read(Response(status, headers, body), group, items, asked)
    assert isinstance(verdict, Accepted | Refused | TooLarge | Throttled | Retry | Misconfigured)
    if isinstance(verdict, Refused):
        assert verdict.suspects <= {0, 1}
    if isinstance(verdict, Accepted):
        assert status == 200 or (name == "jiguang" and status < 300) or (name == "mytracker" and status < 300)
        assert verdict.again <= {0, 1}
    else:
        assert len(verdict.reason) < 700


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 500])
def test_no_verdict_tells_a_secret(name: str, status: int) -> None:
    """A vendor that echoes the account's secret does not get it into a reason."""
    vendor = build(name)
    items = [vendor.encode(event, NOW) for event in events(name, ["a"])]
    group = vendor.group(events(name, ["a"])[0])
    for body in (
        SECRET,
        f'{{"code":4100,"msg":"{SECRET}","error":"{SECRET}","success":false,"errorCode":"{SECRET}","errorDesc":"{SECRET}"}}',
        f'{{"error":{{"code":3002,"message":"{SECRET}"}}}}',
    ):
        response = Response(status, {"location": f"http://x/{SECRET}"}, body.encode())
        assert SECRET not in repr(vendor.read(response, group, items, 0))


@pytest.mark.parametrize("name", NAMES)
def test_items_are_copied(name: str) -> None:
    """An item keeps no more memory than its bytes: its body is a plain bytes object of its own."""
    item = build(name).encode(events(name, ["a"])[0], NOW)
    assert type(item.body) is bytes
    assert item.body.__sizeof__() == len(item.body) + 33


def test_every_kind_describes_itself() -> None:
    """Settings have a description for every field, rules bear the vendor's name, fields are those of its schema."""
    for name, kind in kinds(()).items():
        assert kind.name == name
        assert kind.settings.model_fields["vendor"].annotation is not None
        undescribed = [field for field, info in kind.settings.model_fields.items() if not info.description]
        assert undescribed == []
        assert all(rule.startswith(f"{name}.") and rule.count(".") >= 2 for rule in kind.rules)
        contract = orjson.loads((ROOT / "avro" / f"{kind.schema.rpartition('.')[2]}.avsc").read_bytes())
        if name != "jpush_report":
            assert set(kind.fields) == {field["name"] for field in contract["fields"]}


def point(value: str, name: str = "other") -> EntryPoint:
    """Return an entry point as an installed distribution has it."""
    return EntryPoint(name, value, "connector.vendors")


def test_the_four_are_built_in() -> None:
    """Without any other distribution there are the four vendors, by name."""
    found = list(kinds(()))
    assert {"jiguang", "jpush_report", "mytracker", "quick_audience"} <= set(found)
    assert found == sorted(found)


def test_a_clash_of_names_is_a_clear_error() -> None:
    """A vendor that takes a name that is taken is refused, with every other faulty entry point."""
    points = [
        point("connector.vendors.jiguang:KIND", "mine"),
        point("no.such.module:KIND", "gone"),
        point("connector.vendors.jiguang:RULES", "odd"),
    ]
    with pytest.raises(ConfigurationError) as caught:
        kinds(points)
    told = [str(fault) for fault in caught.value.faults]
    assert len(told) == 3
    assert "mine" in told[0]
    assert "there are two vendors named jiguang" in told[0]
    assert "ModuleNotFoundError" in told[1]
    assert "must be a VendorKind" in told[2]


def test_an_account_never_prints_its_secret() -> None:
    """Settings show no secret when they are printed."""
    for name in NAMES:
        kind = kinds(())[name]
        settings: Any = kind.settings.model_validate({"vendor": name, **_ACCOUNTS[name]})
        assert SECRET not in repr(settings)
