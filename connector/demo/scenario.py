"""The demo's records and the expected outcome of each. Pure: encoder, time and seed are arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from connector.testing.faults import Fault

Encode = Callable[[str, dict[str, Any]], bytes]

EVENT: Final = "connector.events.Event"
TOPIC: Final = "demo-events"
GROUP: Final = "demo"
RESULTS: Final = "demo-results"

GOOD: Final[Mapping[str, int]] = {"jiguang": 3000, "quick_audience": 1500, "mytracker": 1200, "jpush_report": 600}
"""Good events of each vendor. All records together are far below the embedded broker's size."""

BAD_UNTIL: Final = 0.8
"""Bad records are in this first part, so that good ones always follow: evidence needs an accepted record."""

QUICK_AUDIENCE_REFUSAL: Final = "E-1042"
RULES: Final[Mapping[str, Mapping[str, str]]] = {
    "mytracker": {"mytracker.lvid.length": "off"},
    "jpush_report": {"jpush_report.start.past": "off"},
}
"""Local rules that are switched off, so that the vendors themselves refuse some records."""

FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "jiguang": (
        Fault("status", status=503, every=7, times=2),
        Fault("status", status=429, retry_after="1", every=11, times=1),
        Fault("cut", after=True, every=5, times=1),
    ),
    "quick_audience": (Fault("garbage", every=4, times=2), Fault("latency", seconds=0.3, every=3)),
    "mytracker": (Fault("status", status=500, every=9, times=3), Fault("truncate", every=20, times=1)),
    "jpush_report": (Fault("status", status=502, after=True, every=3, times=2),),
}
"""The faults of each vendor; none of them may lose a record."""

_MYTRACKER_NULLABLE: Final = (
    *("eventTimestamp", "customUserId", "ipv4", "ipv6", "idGender", "age", "connectionType", "bluetoothEnabled"),
    *("instanceId", "adTrackingEnabled", "idfa", "iosVendorId", "gaid", "appSetId", "androidId", "lvid", "adBlocker"),
    *("userAgent", "customPlatformUserId", "vkPlatform", "customEventName", "customEventParams"),
)

IDENTITY: Final[Mapping[str, str]] = {
    "jiguang": "cuid",
    "quick_audience": "customerId",
    "mytracker": "customUserId",
    "jpush_report": "msg_id",
}
"""The field that identifies an event of the demo in a vendor's log."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A record to produce. `destination` and `identity`: where it must arrive; else it is `dead` or `skipped`.

    `dead` is the cause and code of the expected dead letter.
    """

    key: bytes
    value: bytes | None
    destination: str | None = None
    identity: str | None = None
    dead: tuple[str, str] | None = None

    @property
    def skipped(self) -> bool:
        """Whether the record is skipped because it has no value."""
        return self.value is None


def plan(encode: Encode, now_ms: int, random: Random) -> list[Planned]:
    """Return the records in the order of production, bad ones among good ones."""
    good = [_good(encode, vendor, number, now_ms) for vendor, count in GOOD.items() for number in range(count)]
    random.shuffle(good)
    records = list(good)
    for bad in [*_refused(encode, now_ms), *_invalid(encode, now_ms), *_undecodable(encode, now_ms)]:
        records.insert(random.randrange(int(len(good) * BAD_UNTIL)), bad)
    return records


def _good(encode: Encode, vendor: str, number: int, now_ms: int) -> Planned:
    body, identity = _BODIES[vendor](number, now_ms)
    return _planned(encode, vendor, f"{vendor}-{number}", body, identity=identity)


def _planned(
    encode: Encode,
    vendor: str,
    name: str,
    body: tuple[str, dict[str, Any]],
    *,
    identity: str | None = None,
    dead: tuple[str, str] | None = None,
) -> Planned:
    value = encode(EVENT, {"id": name, "target": vendor, "body": body})
    return Planned(name.encode(), value, vendor, identity, dead)


def jiguang_body(number: int, now_ms: int, **changes: Any) -> tuple[tuple[str, dict[str, Any]], str]:
    """Return a Jiguang event and its identity."""
    fields = {
        "cuid": 10_000_000_000 + number,
        "eventName": "page_view" if number % 3 else "purchase",
        "itime": now_ms - number,
        "randomId": None,
        "properties": {"page": f"/products/{number % 97}", "amount": number / 100, "new": number % 2 == 0},
        **changes,
    }
    return ("connector.events.JiguangUserEvent", fields), str(fields["cuid"])


def quick_audience_body(number: int, now_ms: int, **changes: Any) -> tuple[tuple[str, dict[str, Any]], str]:
    """Return a Quick Audience event and its identity."""
    optional = dict.fromkeys(("organizationId", "workspaceId", "entityId", "isOrder", "comeFrom", "eventChannel"))
    fields = {
        **optional,
        "customerId": f"customer-{number}",
        "eventCode": "visit",
        "eventTime": now_ms - number,
        "extendAttributes": {"shop": "上海", "amount": str(number)},
        "customerIdList": [{"customerId": f"c{number}@example.org", "idMapping": "EMAIL"}],
        **changes,
    }
    return ("connector.events.QuickAudienceEvent", fields), str(fields["customerId"])


def mytracker_body(number: int, now_ms: int, **changes: Any) -> tuple[tuple[str, dict[str, Any]], str]:
    """Return a MyTracker event and its identity; the methods alternate."""
    method = ("registration", "login", "customEvent")[number % 3]
    own = {"customEventName": "levelUp", "customEventParams": {"level": str(number)}} if method == "customEvent" else {}
    fields = {
        **dict.fromkeys(_MYTRACKER_NULLABLE),
        "method": method,
        "customUserId": f"user-{number}",
        "eventTimestamp": now_ms // 1000,
        "lvid": f"{number:032d}",
        **own,
        **changes,
    }
    return ("connector.events.MyTrackerEvent", fields), str(fields["customUserId"])


def jpush_body(number: int, now_ms: int, **changes: Any) -> tuple[tuple[str, dict[str, Any]], str]:
    """Return a question about a push and its identity."""
    msg_id = 1_000_000 + number
    fields = {
        "id": f"question-{number}-{now_ms}",
        "query": ("connector.events.Received", {"msg_id": msg_id}),
        **changes,
    }
    return ("connector.events.JPushReportQuery", fields), str(msg_id)


_BODIES: Final = {
    "jiguang": jiguang_body,
    "quick_audience": quick_audience_body,
    "mytracker": mytracker_body,
    "jpush_report": jpush_body,
}


def _refused(encode: Encode, now_ms: int) -> Sequence[Planned]:
    """Return records that only the vendor can refuse. They are found by a hint, by halving, or with evidence."""
    records = []
    for number in range(12):
        body, _ = jiguang_body(number, now_ms, cuid=20_000_000_000 + number, eventName=f"unheard_of_{number}")
        records.append(_planned(encode, "jiguang", f"unheard-{number}", body, dead=("refused", "4101")))
    for number in range(3):
        body, _ = mytracker_body(3 * number, now_ms, customUserId=f"short-{number}", lvid="too short")
        records.append(_planned(encode, "mytracker", f"short-{number}", body, dead=("refused", "http_400")))
    for number in range(2):
        body, _ = quick_audience_body(number, now_ms, customerId=f"refused-{number}", eventCode="forbidden")
        dead = ("refused", QUICK_AUDIENCE_REFUSAL)
        records.append(_planned(encode, "quick_audience", f"forbidden-{number}", body, dead=dead))
    query = ("connector.events.Users", {"time_unit": "DAY", "start": "2014-06-10", "duration": 3})
    body, _ = jpush_body(0, now_ms, query=query)
    records.append(_planned(encode, "jpush_report", "too-old", body, dead=("refused", "3005")))
    return records


def _invalid(encode: Encode, now_ms: int) -> Sequence[Planned]:
    """Return records that break a documented rule, and some whose target does not exist."""
    year_and_more = 400 * 24 * 60 * 60 * 1000
    rules: list[tuple[str, tuple[str, dict[str, Any]], str]] = [
        ("jiguang", jiguang_body(0, now_ms - year_and_more)[0], "jiguang.itime.past"),
        ("jiguang", jiguang_body(0, now_ms, eventName="")[0], "jiguang.eventName.required"),
        ("quick_audience", quick_audience_body(0, now_ms, isOrder="2")[0], "quick_audience.isOrder.value"),
        ("mytracker", mytracker_body(0, now_ms, age=129)[0], "mytracker.age.range"),
        ("mytracker", mytracker_body(0, now_ms, userAgent="x" * 2049)[0], "mytracker.userAgent.length"),
    ]
    broken = [
        _planned(encode, vendor, f"rule-{rule}-{copy}", body, dead=("invalid", rule))
        for vendor, body, rule in rules
        for copy in range(2)
    ]
    body, _ = jiguang_body(0, now_ms)
    lost = [
        _planned(encode, "nobody", f"lost-{copy}", body, dead=("route", "route.unknown_target")) for copy in range(2)
    ]
    return [*broken, *(Planned(each.key, each.value, None, None, each.dead) for each in lost)]


def _undecodable(encode: Encode, now_ms: int) -> Sequence[Planned]:
    """Return records that cannot be decoded, and some without a value, which are skipped."""
    body, _ = jiguang_body(0, now_ms)
    whole = encode(EVENT, {"id": "x", "target": "jiguang", "body": body})
    broken = {
        "decode.payload": whole[:-7],
        "decode.trailing_bytes": whole + b"\0",
        "decode.frame": b'{"not": "Avro"}',
        "decode.schema_unknown": whole[:2] + b"\x01\x02\x03\x04\x05\x06\x07\x08" + whole[10:],
        "decode.empty": b"",
    }
    dead_letters = [Planned(code.encode(), value, None, None, ("decode", code)) for code, value in broken.items()]
    return [*dead_letters, *(Planned(b"tombstone", None) for _ in range(3))]
