"""What the benchmarks send: for each vendor its contract schema, events, and account.

The reference is Jiguang's event: about 250 bytes, 8 properties of five types. The other vendors get the same order as
far as their schemas can represent it. JPush's record is a query of about 40 bytes, whose answer the connector writes to
a results topic.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fastavro import parse_schema, schemaless_writer

ROOT: Final = Path(__file__).resolve().parent.parent
DISTINCT: Final = 1_000_000
"""The number of distinct values; a longer run repeats the first ones."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One vendor's part in the benchmarks.

    `schema` is the contract's file, or the text of a schema that `route` maps; `schema_id` is its id in the registry.
    `event` makes a value from a number and epoch milliseconds. `account` has the destination's settings except its
    address.
    """

    vendor: str
    schema_id: int
    schema: str
    event: Callable[[int, int], dict[str, Any]]
    account: Mapping[str, Any]
    route: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The schema as the registry returns it."""
        return self.schema if self.route else (ROOT / "avro" / f"{self.schema}.avsc").read_text(encoding="utf-8")

    def routes(self, destination: str) -> list[dict[str, Any]]:
        """Return the configuration's routes, none for the contract's schema."""
        name = json.loads(self.text)["name"]
        return [{**self.route, "schema": name, "to": [destination]}] if self.route else []

    def values(self, records: int, now: int) -> Iterator[bytes]:
        """Yield the records' values in Confluent's wire format."""
        schema = parse_schema(json.loads(self.text))
        head = b"\0" + self.schema_id.to_bytes(4, "big")
        again: list[bytes] = []
        for number in range(records):
            if records > DISTINCT and number >= DISTINCT // 10:
                yield again[number % len(again)]
                continue
            out = io.BytesIO()
            out.write(head)
            schemaless_writer(out, schema, self.event(number, now))
            value = out.getvalue()
            if records > DISTINCT:
                again.append(value)
            yield value


def event(number: int, now: int) -> dict[str, Any]:
    """Return one Jiguang event with 8 properties of five types."""
    return {
        "cuid": 10_000_000 + number % 100_003,
        "eventName": "order_submitted",
        "itime": now - number % 60_000,
        "randomId": None,
        "properties": {
            "order_id": f"20260000{number:012d}",
            "product": "wireless headphones, over-ear",
            "category": "electronics/audio",
            "amount": 129.9 + number % 7,
            "quantity": 1 + number % 5,
            "first_order": number % 3 == 0,
            "coupons": ["welcome", "spring-sale"],
            "channel": "app-store-organic",
        },
    }


def _texts(number: int) -> dict[str, str]:
    properties = event(number, 0)["properties"]
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()}


def _quick_audience(number: int, now: int) -> dict[str, Any]:
    return {
        "customerId": str(10_000_000 + number % 100_003),
        "eventCode": "order_submitted",
        "eventTime": now - number % 60_000,
        "isOrder": "1",
        "extendAttributes": _texts(number),
    }


def _mytracker(number: int, now: int) -> dict[str, Any]:
    return {
        "method": "customEvent",
        "eventTimestamp": (now - number % 60_000) // 1000,
        "customUserId": str(10_000_000 + number % 100_003),
        "customEventName": "order_submitted",
        "customEventParams": _texts(number),
    }


def _jpush_report(number: int, _now: int) -> dict[str, Any]:
    # Every query is about another push, because equal queries in a batch share one request.
    return {"id": f"question-{number:020d}", "query": ("connector.events.Received", {"msg_id": 1_000_000_000 + number})}


WORKLOADS: Final[Mapping[str, Workload]] = {
    one.vendor: one
    for one in (
        Workload(
            "jiguang",
            1,
            "JiguangUserEvent",
            event,
            {"project_id": "1", "project_secret": "secret", "app_key": "key"},
        ),
        Workload(
            "quick_audience",
            2,
            "QuickAudienceEvent",
            _quick_audience,
            {"app_id": "app", "access_key": "key", "access_secret": "secret", "access_id": "organization"},
        ),
        Workload("mytracker", 3, "MyTrackerEvent", _mytracker, {"id_app": 1, "token": "secret"}),
        Workload(
            "jpush_report",
            4,
            "JPushReportQuery",
            _jpush_report,
            {"app_key": "key", "master_secret": "secret", "results_topic": "results"},
        ),
    )
}
MAPPED: Final = "mapped"


def _foreign() -> str:
    """Return a schema with the content of Jiguang's events in a form of its own."""
    contract = json.loads((ROOT / "avro" / "JiguangUserEvent.avsc").read_text(encoding="utf-8"))
    types = {each["name"]: each["type"] for each in contract["fields"]}
    user = {"type": "record", "name": "User", "fields": [{"name": "id", "type": "long"}]}
    fields = {
        "event_id": "string",
        "user": ["null", user],
        "name": "string",
        "at": types["itime"],
        "request": types["randomId"],
        "attributes": types["properties"],
    }
    named = [{"name": name, "type": kind} for name, kind in fields.items()]
    return json.dumps({"type": "record", "name": "com.example.AppEvent", "fields": named})


def _foreign_event(number: int, now: int) -> dict[str, Any]:
    contract = event(number, now)
    return {
        "event_id": f"{number:012d}",
        "user": {"id": contract["cuid"]},
        "name": contract["eventName"],
        "at": contract["itime"],
        "request": None,
        "attributes": contract["properties"],
    }


_PATHS: Final = {
    "cuid": "user.id",
    "eventName": "name",
    "itime": "at",
    "randomId": "request",
    "properties": "attributes",
}
EVERY: Final[Mapping[str, Workload]] = {
    **WORKLOADS,
    MAPPED: Workload(
        "jiguang",
        6,
        _foreign(),
        _foreign_event,
        WORKLOADS["jiguang"].account,
        {"id": "event_id", "fields": {"jiguang": _PATHS}},
    ),
}
"""The workloads of the contract's schemas, and one of another schema that a route maps by six plain paths."""

RESULT_ID: Final = 5
"""The registry's id of the schema of JPush's results."""
