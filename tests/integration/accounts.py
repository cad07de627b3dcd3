"""The four vendors' simulators side by side, good events for each, and the results topic as others read it."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

from connector.testing.jiguang import JiguangApi
from connector.testing.jpush_report import JPushReportApi
from connector.testing.mytracker import MyTrackerApi
from connector.testing.quick_audience import QuickAudienceApi
from connector.testing.simulator import Api
from tests.integration.events import KNOWN_EVENT, datum_bytes, event
from tests.integration.job import ATTRIBUTES, WAIT_SECONDS, Vendor
from tools.servers import ROOT, Kafka, Registry

SPACE: Final = "connector.events"
DAY_MS: Final = 24 * 3600 * 1000
RECORDS: Final[Mapping[str, int]] = {"jiguang": 100, "quick_audience": 100, "mytracker": 20, "jpush_report": 1000}
"""Records of one request as the documents have them; of JPush, where they are counted by device too, the larger."""
BYTES: Final[Mapping[str, int]] = {
    "jiguang": 2**20,
    "quick_audience": 2**20,
    "mytracker": 10_000,
    "jpush_report": 2**20,
}

_MYTRACKER_NULLS: Final = dict.fromkeys(
    field["name"]
    for field in json.loads((ROOT / "avro" / "MyTrackerEvent.avsc").read_text(encoding="utf-8"))["fields"]
    if "default" in field
)


def contract(name: str) -> Any:
    """Return a contract schema by its file."""
    return json.loads((ROOT / "avro" / f"{name}.avsc").read_text(encoding="utf-8"))


def avro_fingerprint(schema: Any) -> bytes:
    """Return what stands for a schema in single-object encoding."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class Writer:
    """Writes data of one schema: in wire format with a registry's id, else in single-object encoding."""

    def __init__(self, schema: Any, schema_id: int | None = None) -> None:
        self._parsed = parse_schema(schema)
        mark = b"\xc3\x01" + avro_fingerprint(schema)
        self._prefix = mark if schema_id is None else b"\x00" + schema_id.to_bytes(4, "big")

    def __call__(self, datum: Mapping[str, Any]) -> bytes:
        """Return one value."""
        return self._prefix + datum_bytes(datum, self._parsed)


class Accounts:
    """One account at each vendor. Nothing is refused by them that their documents allow."""

    def __init__(self, stack: ExitStack, apis: Mapping[str, Api]) -> None:
        self.vendors = {name: stack.enter_context(Vendor(api)) for name, api in apis.items()}

    def __getitem__(self, name: str) -> Vendor:
        """Return one vendor."""
        return self.vendors[name]

    def destinations(self, results_topic: str = "none") -> dict[str, dict[str, Any]]:
        """Return a destination for each, named as its vendor, within its documented limits."""
        found = {name: vendor.account for name, vendor in self.vendors.items()}
        if "jpush_report" in found:
            found["jpush_report"]["results_topic"] = results_topic
        return found

    def check_limits(self) -> None:
        """Fail where a vendor saw more than its document allows, or had to refuse or throttle anything."""
        for name, vendor in self.vendors.items():
            stats = vendor.stats
            assert set(stats["verdicts"]) <= {"accepted"}, (name, stats)
            assert stats["largest_batch"] <= RECORDS[name], (name, stats)
            assert stats["largest_body"] <= BYTES[name], (name, stats)


@contextmanager
def accounts(*names: str, **options: Mapping[str, Any]) -> Iterator[Accounts]:
    """Give accounts at these vendors (default: all four), `options` by vendor given to their simulators."""
    made: dict[str, Any] = {
        "jiguang": lambda **more: JiguangApi(**{"events": {KNOWN_EVENT: ATTRIBUTES}, **more}),
        "quick_audience": QuickAudienceApi,
        "mytracker": MyTrackerApi,
        "jpush_report": JPushReportApi,
    }
    with ExitStack() as stack:
        yield Accounts(stack, {name: made[name](**options.get(name, {})) for name in names or made})


def quick_audience(number: int) -> dict[str, Any]:
    """Return an event of a customer of its own; every third one has every field."""
    datum: dict[str, Any] = dict.fromkeys(
        ("organizationId", "workspaceId", "entityId", "isOrder", "comeFrom", "eventChannel")
    )
    datum |= {"customerId": f"c{number}", "eventCode": "buy", "eventTime": int(time.time() * 1000)}
    datum |= {"extendAttributes": {}, "customerIdList": []}
    if number % 3 == 0:
        datum |= {"organizationId": "other-org", "workspaceId": "w", "entityId": "car-7", "isOrder": "1"}
        datum |= {"comeFrom": "app", "eventChannel": "push"}
        datum["extendAttributes"] = {"цвет": '"красный"\r\n--x', "名": "值", "n": str(number)}
        datum["customerIdList"] = [{"customerId": "139****0000", "idMapping": "MOBILE"}]
    return datum


def mytracker(number: int) -> dict[str, Any]:
    """Return an event of a user of its own, by turns of each method; every fifth one has every parameter."""
    method = ("customEvent", "login", "registration")[number % 3]
    datum = {**_MYTRACKER_NULLS, "method": method, "customUserId": f"u{number}"}
    if number % 5 == 0:
        uuid = "00000000-0000-0000-0000-000000000000"
        datum |= dict.fromkeys(("instanceId", "idfa", "iosVendorId", "gaid", "appSetId"), uuid)
        datum |= {"eventTimestamp": int(time.time()), "ipv4": "125.125.125.125", "ipv6": "2001:db8::7334"}
        datum |= {"idGender": 1, "age": 38, "connectionType": 2, "bluetoothEnabled": 2, "adTrackingEnabled": 0}
        datum |= {"androidId": "0" * 16, "lvid": "0" * 32, "adBlocker": 1, "userAgent": 'Mozilla/5.0 "я" 字\\'}
        datum |= {"customPlatformUserId": "12345", "vkPlatform": "desktop_web"}
    if method == "customEvent":
        datum |= {"customEventName": "levelUp", "customEventParams": {"уровень": '"2"', "名": "二"}}
    return datum


def jpush(number: int) -> dict[str, Any]:
    """Return a question, by turns of each kind, about fifty pushes; so many are asked more than once."""
    push = 1_000_000 + number % 50
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 5 * 86400))
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("Received", {"msg_id": push}),
        ("MessageStatus", {"msg_id": push, "registration_ids": [f"r{number}", "r-shared"], "date": None}),
        ("Messages", {"msg_id": push}),
        ("Users", {"time_unit": "HOUR", "start": f"{day} 09", "duration": 1 + number % 5}),
    ]
    name, query = kinds[number % 4]
    return {"id": f"q{number}", "query": (f"{SPACE}.{name}", query)}


BODIES: Final = {
    "jiguang": ("JiguangUserEvent", event),
    "quick_audience": ("QuickAudienceEvent", quick_audience),
    "mytracker": ("MyTrackerEvent", mytracker),
    "jpush_report": ("JPushReportQuery", jpush),
}


def envelope(vendor: str, number: int, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a vendor's event in the envelope; without `body` a good one."""
    name, make = BODIES[vendor]
    return {"id": f"{vendor}-{number}", "target": vendor, "body": (f"{SPACE}.{name}", body or make(number))}


class Result(NamedTuple):
    """A record of the results topic, decoded."""

    key: bytes | None
    datum: dict[str, Any]


def results(kafka: Kafka, topic: str, registry: Registry | None) -> list[Result]:
    """Return all results that there are now, in the order of their offsets.

    With a registry a value has to be in wire format, its schema the subject's `<topic>-value`; else single-object.
    """
    reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{topic}-reader", "log_level": 0})
    place = TopicPartition(topic, 0, 0)
    try:
        left = reader.get_watermark_offsets(place, timeout=10)[1]
        reader.assign([place])
        found: list[Result] = []
        deadline = time.monotonic() + WAIT_SECONDS
        while len(found) < left:
            assert time.monotonic() < deadline, f"{left - len(found)} results cannot be read"
            found.extend(
                Result(message.key(), _decoded(message.value() or b"", topic, registry))
                for message in reader.consume(500, 0.1)
            )
        return found
    finally:
        reader.close()


def _decoded(value: bytes, topic: str, registry: Registry | None) -> dict[str, Any]:
    schema = contract("JPushReportResult")
    start = 10
    if registry is None:
        assert value[:start] == b"\xc3\x01" + avro_fingerprint(schema)
    else:
        start = 5
        with urllib.request.urlopen(f"{registry.url}/subjects/{topic}-value/versions/latest", timeout=10) as answer:
            latest = json.load(answer)
        assert value[:start] == b"\x00" + int(latest["id"]).to_bytes(4, "big")
        schema = json.loads(latest["schema"])
    stream = io.BytesIO(value[start:])
    datum = schemaless_reader(stream, parse_schema(schema), None)
    assert stream.read() == b""
    assert isinstance(datum, dict)
    return datum
