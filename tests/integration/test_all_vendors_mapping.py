"""One topic with a user's own schema in a real registry: nested, logical, null; mapped and sent to three vendors."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any, Final

import pytest

from tests.integration.accounts import Accounts, Writer, accounts
from tests.integration.events import Message, register
from tests.integration.job import Job
from tools.servers import Registry

COUNT: Final = 300
NAMESPACE: Final = "com.acme"
START: Final = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=1)


def _logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "UserEvent",
    "namespace": NAMESPACE,
    "fields": [
        {"name": "event_id", "type": _logical("string", "uuid")},
        {"name": "name", "type": "string"},
        {
            "name": "platform",
            "type": {"type": "enum", "name": "Platform", "symbols": ["ios", "android", "web", "mini"]},
        },
        {"name": "at", "type": _logical("long", "timestamp-micros")},
        {"name": "plain_ms", "type": "long"},
        {
            "name": "user",
            "type": {
                "type": "record",
                "name": "User",
                "fields": [
                    {"name": "cuid", "type": ["null", "long"]},
                    {"name": "id", "type": "string"},
                    {"name": "born", "type": ["null", _logical("int", "date")]},
                    {"name": "gender", "type": "int"},
                ],
            },
        },
        {"name": "amount", "type": _logical("bytes", "decimal", precision=12, scale=2)},
        {"name": "payload", "type": "bytes"},
        {"name": "note", "type": ["null", "string"]},
        {
            "name": "attributes",
            "type": {
                "type": "map",
                "values": ["null", "boolean", "long", "double", "string", {"type": "array", "items": "string"}],
            },
        },
        {"name": "details", "type": {"type": "map", "values": ["null", "string", "com.acme.User"]}},
    ],
}
ROUTES: Final[list[dict[str, Any]]] = [
    {
        "schema": "com.acme.UserEvent",
        "where": {"platform": ["ios", "android"]},
        "to": ["jiguang", "mytracker"],
        "id": "event_id",
        "fields": {
            "jiguang": {"cuid": "user.cuid", "eventName": {"const": "app"}, "itime": "at", "properties": "attributes"},
            "mytracker": {
                "method": {"const": "customEvent"},
                "customEventName": "name",
                "customUserId": "user.id",
                "eventTimestamp": "at",
                "idGender": "user.gender",
                "userAgent": "$header.agent",
                "customEventParams": "details",
            },
        },
    },
    {
        "topics": ["^"],
        "schema": "com.acme.UserEvent",
        "where": {"$header.tier": "gold"},
        "to": ["quick_audience"],
        "id": "event_id",
        "fields": {
            "quick_audience": {
                "customerId": "$key",
                "eventCode": "name",
                "eventTime": {"path": "plain_ms", "unit": "ms"},
                "workspaceId": "amount",
                "entityId": "user.born",
                "comeFrom": "note",
                "extendAttributes": "details",
            },
        },
    },
]


def _event(number: int) -> dict[str, Any]:
    user = {"cuid": 1000 + number, "id": f"u{number}", "born": dt.date(1990, 1, 31), "gender": number % 3}
    return {
        "event_id": uuid.UUID(int=number + 1),
        "name": f"levelUp{number % 5}",
        "platform": ("ios", "android", "web", "mini")[number % 4],
        "at": START + dt.timedelta(seconds=number, microseconds=999_999),
        "plain_ms": int(START.timestamp() * 1000) + number,
        "user": user,
        "amount": Decimal("1234.50"),
        "payload": b"\xff\x00",
        "note": None if number % 2 else "да\n",
        "attributes": {"s": '"名"', "n": number, "d": 0.5, "b": True, "none": None, "l": ["x", "名"]},
        "details": {"名": "值", "none": None, "user": (f"{NAMESPACE}.User", user)},
    }


def _tier(number: int) -> bytes:
    return b"gold" if number % 3 == 0 else b"none"


def _in_app(number: int) -> bool:
    return number % 4 < 2


def _message(number: int, write: Writer) -> Message:
    headers = (("tier", b"gold"), ("tier", _tier(number)), ("agent", "Мобила/1".encode()))
    return Message(write(_event(number)), f"k{number}".encode(), headers)


ATTRIBUTES: Final = {"s": "string", "n": "number", "d": "number", "b": "bool", "l": "list"}


@pytest.mark.parametrize("unrouted", ["skip", "dead_letter"])
def test_a_schema_of_ones_own_is_mapped_and_fans_out(unrouted: str, job: Job, registry: Registry) -> None:
    """Each vendor gets what its route maps, as docs/routing.md states it; the rest is skipped or dead-lettered."""
    write = Writer(SCHEMA, register(registry, f"{job.topic}-value", SCHEMA))
    with accounts("jiguang", "mytracker", "quick_audience", jiguang={"events": {"app": ATTRIBUTES}}) as vendors:
        job.produce(_message(number, write) for number in range(COUNT))
        settings = job.settings(
            {},
            destinations=vendors.destinations(),
            routes=ROUTES,
            unrouted=unrouted,
            schema_registry={"url": registry.url},
        )
        member = job.start(settings)
        job.until_done(member)
        lost = [number for number in range(COUNT) if not _in_app(number) and _tier(number) != b"gold"]
        skipped = member.metric('connector_records_skipped_total{reason="unrouted"}')
        assert skipped == (len(lost) if unrouted == "skip" else 0)
        assert member.stop() == 0
        vendors.check_limits()
        _check(vendors)
        dead_letters = job.dead_letters()
        assert {dead_letter.key for dead_letter in dead_letters} == (
            set() if unrouted == "skip" else {f"k{number}".encode() for number in lost}
        )
        assert {dead_letter.own["dlq-code"] for dead_letter in dead_letters} <= {"route.unmet"}


def _check(vendors: Accounts) -> None:
    app = [number for number in range(COUNT) if _in_app(number)]
    second = int(START.timestamp())
    jiguang = {each["cuid"]: each for each in vendors["jiguang"].accepted}
    assert len(vendors["jiguang"].accepted) == len(app)
    assert jiguang.keys() == {1000 + number for number in app}
    assert len({each["randomId"] for each in jiguang.values()}) == len(app)
    first = jiguang[1000]
    assert (first["itime"], first["eventName"]) == (second * 1000 + 999, "app")
    assert first["properties"] == {"s": '"名"', "n": 0, "d": 0.5, "b": True, "l": ["x", "名"]}
    tracker = {each["customUserId"]: each for each in vendors["mytracker"].accepted}
    assert len(vendors["mytracker"].accepted) == len(app)
    assert tracker.keys() == {f"u{number}" for number in app}
    assert tracker["u1"] == {
        "method": "customEvent",
        "customEventName": "levelUp1",
        "customUserId": "u1",
        "eventTimestamp": second + 1,
        "idGender": 1,
        "userAgent": "Мобила/1",
        "customEventParams": {"名": "值", "user": '{"cuid":1001,"id":"u1","born":"1990-01-31","gender":1}'},
    }
    gold = [number for number in range(COUNT) if _tier(number) == b"gold"]
    audience = {each["customerId"]: each for each in vendors["quick_audience"].accepted}
    assert len(vendors["quick_audience"].accepted) == len(gold)
    assert audience.keys() == {f"k{number}" for number in gold}
    assert audience["k3"] == {
        "organizationId": vendors["quick_audience"].account["access_id"],
        "customerId": "k3",
        "eventCode": "levelUp3",
        "eventTime": second * 1000 + 3,
        "workspaceId": "1234.50",
        "entityId": "1990-01-31",
        "extendAttributes": {"名": "值", "user": '{"cuid":1003,"id":"u3","born":"1990-01-31","gender":0}'},
    }
    assert audience["k0"]["comeFrom"] == "да\n"


def test_a_value_without_a_stated_form_is_refused_for_its_vendor_only(job: Job, registry: Registry) -> None:
    """Bytes and records where text is wanted are dead letters of that destination; the other ones get the event."""
    write = Writer(SCHEMA, register(registry, f"{job.topic}-value", SCHEMA))
    fields = {"customerId": "user", "eventCode": "name", "eventTime": "at"}
    wanted = ROUTES[0]["fields"]
    route = {
        **ROUTES[0],
        "to": ["jiguang", "mytracker", "quick_audience"],
        "fields": {**wanted, "jiguang": {**wanted["jiguang"], "randomId": "payload"}, "quick_audience": fields},
    }
    with accounts("jiguang", "mytracker", "quick_audience") as vendors:
        job.produce([_message(0, write), _message(1, write)])
        settings = job.settings(
            {}, destinations=vendors.destinations(), routes=[route], schema_registry={"url": registry.url}
        )
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
        told = sorted(
            (dead_letter.own["dlq-destination"], dead_letter.own["dlq-code"]) for dead_letter in job.dead_letters()
        )
        assert told == [("jiguang", "mapping.randomId.bytes")] * 2 + [("quick_audience", "mapping.customerId.type")] * 2
        assert vendors["jiguang"].served == vendors["quick_audience"].served == []
        assert len(vendors["mytracker"].accepted) == 2
        vendors.check_limits()
