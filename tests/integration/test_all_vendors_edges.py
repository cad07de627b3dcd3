"""Values at each vendor's limits and one past them, through the whole job: the first arrive, the others are refused."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.integration.accounts import BODIES, DAY_MS, Writer, accounts, contract, envelope, mytracker, results
from tests.integration.events import FIRST_CUID, Message, event
from tests.integration.job import Job
from tools.servers import Kafka

LIMIT: Final = 10_000
"""Bytes of a MyTracker body."""
WIDE: Final = '名"\\я'
NOW: Final = int(time.time() * 1000)


def _tracker(name: str, **fields: Any) -> dict[str, Any]:
    return {**mytracker(3), "customUserId": name, **fields}


def _as_long_as(size: int, name: str) -> dict[str, Any]:
    """Return a set that makes a body of so many bytes alone: the brackets and the set."""
    datum = _tracker(name, customEventParams={f"k{number:02}": WIDE + "x" * 240 for number in range(36)})
    sent = {key: value for key, value in datum.items() if value is not None and key != "method"}
    for spare in range(250):
        left = size - 2 - len(json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode())
        if left == 0:
            datum["customEventParams"] = sent["customEventParams"]
            return datum
        # An entry costs eight bytes in addition to its value: "nnn":"", and a comma.
        value = "y" * min(250, left - 9 if left <= 258 else 200)
        sent["customEventParams"] = {**sent["customEventParams"], f"{spare:03}": value}
    raise AssertionError(size)


def _users(days_ago: int, unit: str, duration: int) -> dict[str, Any]:
    form = {"HOUR": "%Y-%m-%d 09", "DAY": "%Y-%m-%d", "MONTH": "%Y-%m"}[unit]
    start = time.strftime(form, time.gmtime(time.time() - days_ago * 86400))
    return {"query": ("connector.events.Users", {"time_unit": unit, "start": start, "duration": duration})}


def _status(count: int) -> dict[str, Any]:
    ids = [f"device-{number}" for number in range(count)]
    return {"query": ("connector.events.MessageStatus", {"msg_id": 7, "registration_ids": ids, "date": None})}


EDGES: Final[list[tuple[str, str, Mapping[str, Any], str | None]]] = [
    ("user-1024", "mytracker", _tracker("名" * 1024), None),
    ("user-1025", "mytracker", _tracker("名" * 1025), "mytracker.customUserId.length"),
    ("user-null", "mytracker", {**mytracker(1), "customUserId": None}, "mytracker.customUserId.required"),
    ("user-none", "mytracker", {**mytracker(3), "customUserId": None}, "mytracker.customUserId.identifier"),
    ("value-255", "mytracker", _tracker("a", customEventParams={"v": '名"' * 127 + "名"}), None),
    (
        "value-256",
        "mytracker",
        _tracker("b", customEventParams={"v": '名"' * 128}),
        "mytracker.customEventParams.value",
    ),
    ("name-255", "mytracker", _tracker("c", customEventParams={'"字' * 127 + "字": "v"}), None),
    ("name-256", "mytracker", _tracker("d", customEventParams={"字" * 256: "v"}), "mytracker.customEventParams.name"),
    ("value-0", "mytracker", _tracker("e", customEventParams={"v": ""}), "mytracker.customEventParams.value"),
    ("params-empty", "mytracker", _tracker("f", customEventParams={}), None),
    ("event-255", "mytracker", _tracker("g", customEventName="я" * 255), None),
    ("event-256", "mytracker", _tracker("h", customEventName="я" * 256), "mytracker.customEventName.length"),
    ("seconds-least", "mytracker", _tracker("i", eventTimestamp=946_674_000), None),
    ("seconds-less", "mytracker", _tracker("j", eventTimestamp=946_673_999), "mytracker.eventTimestamp.range"),
    ("seconds-most", "mytracker", _tracker("k", eventTimestamp=4_294_967_295), None),
    ("seconds-more", "mytracker", _tracker("l", eventTimestamp=4_294_967_296), "mytracker.eventTimestamp.range"),
    ("body-10000", "mytracker", _as_long_as(LIMIT, "m"), None),
    ("body-10001", "mytracker", _as_long_as(LIMIT + 1, "n"), "batch.bytes"),
    ("year-ago", "jiguang", event(1, itime=NOW - 365 * DAY_MS + 3_600_000), None),
    ("over-a-year", "jiguang", event(2, itime=NOW - 366 * DAY_MS - 1), "jiguang.itime.past"),
    ("ahead", "jiguang", event(3, itime=NOW + 4 * 60_000), None),
    ("far-ahead", "jiguang", event(4, itime=NOW + 3_600_000), "jiguang.itime.future"),
    ("nan", "jiguang", event(5, properties={"ratio": math.nan}), "jiguang.properties.number"),
    ("infinity", "jiguang", event(6, properties={"ratio": -math.inf}), "jiguang.properties.number"),
    ("properties-empty", "jiguang", event(7, properties={}), None),
    ("property-null", "jiguang", event(8, properties={"page": None, "depth": 2**53}), None),
    ("cuid-most", "jiguang", event(9, cuid=2**63 - 1), None),
    ("order", "quick_audience", {**BODIES["quick_audience"][1](3), "customerId": "o"}, None),
    (
        "customer-empty",
        "quick_audience",
        {**BODIES["quick_audience"][1](3), "customerId": ""},
        "quick_audience.customerId.required",
    ),
    ("maps-empty", "quick_audience", {**BODIES["quick_audience"][1](1), "customerId": "p"}, None),
    ("devices-1000", "jpush_report", {"id": "s1", **_status(1000)}, None),
    ("devices-1001", "jpush_report", {"id": "s2", **_status(1001)}, "jpush_report.registration_ids.count"),
    ("devices-none", "jpush_report", {"id": "s3", **_status(0)}, "jpush_report.registration_ids.required"),
    ("days-59", "jpush_report", {"id": "u1", **_users(59, "DAY", 59)}, None),
    ("days-61", "jpush_report", {"id": "u2", **_users(61, "DAY", 61)}, "jpush_report.duration.range"),
    ("hours-25", "jpush_report", {"id": "u3", **_users(1, "HOUR", 25)}, "jpush_report.duration.range"),
]
"""A name, the vendor, its event, and the code of the dead letter that it must become (None: it must arrive)."""

FULL: Final = {"jiguang": 501, "quick_audience": 501, "mytracker": 501}
"""Good events next to them, so many that whole batches are sent, and one more."""


@pytest.mark.promise("P5")
@pytest.mark.promise("P7")
def test_values_at_the_limits_arrive_and_those_past_them_are_told(job: Job, kafka: Kafka) -> None:
    """Every value at a limit is accepted by a strict vendor, every one past it is a dead letter of its rule, unsent.

    Kills: lengths in bytes or UTF-16 for characters, a size without the brackets, a limit that is one off.
    """
    write = Writer(contract("Event"))
    topic = kafka.create_topic(f"{job.topic}-results")
    messages = [
        Message(write({**envelope(vendor, 0, body), "id": ""}), name.encode()) for name, vendor, body, _ in EDGES
    ]
    for vendor, count in FULL.items():
        # MyTracker's are of one method, because a batch holds one.
        bodies = [_tracker(f"t{number}") if vendor == "mytracker" else None for number in range(count)]
        messages += [Message(write(envelope(vendor, 1000 + n, body)), b"full") for n, body in enumerate(bodies)]
    pushes = [{"id": f"p{n}", "query": ("connector.events.Received", {"msg_id": n})} for n in range(1, 102)]
    messages += [Message(write(envelope("jpush_report", n, body)), b"full") for n, body in enumerate(pushes)]
    with accounts() as vendors:
        job.produce(messages)
        member = job.start(job.settings({}, destinations=vendors.destinations(topic)))
        job.until_done(member)
        assert member.stop() == 0
        dead_letters = {
            (dead_letter.key or b"").decode(): dead_letter.own["dlq-code"] for dead_letter in job.dead_letters()
        }
        assert dead_letters == {name: code for name, _, _, code in EDGES if code is not None}
        # Neither log nor dead letter repeats what a field held.
        told_of = member.text + "".join(dead_letter.own["dlq-message"] for dead_letter in job.dead_letters())
        assert [piece for piece in ("名", "я", "\\u540d", "\\u044f") if piece in told_of] == []
        vendors.check_limits()
        good = Counter(vendor for _, vendor, _, code in EDGES if code is None)
        arrived = {name: len(vendors[name].accepted) for name in FULL}
        assert arrived == {name: count + good[name] for name, count in FULL.items()}
        assert vendors["mytracker"].stats["largest_body"] == LIMIT
        assert vendors["mytracker"].stats["largest_batch"] == 20
        assert vendors["jiguang"].stats["largest_batch"] == vendors["quick_audience"].stats["largest_batch"] == 100
        told = Counter(each.datum["status"] for each in results(kafka, topic, None))
        refused = sum(vendor == "jpush_report" and code is not None for _, vendor, _, code in EDGES)
        assert told == {"found": 101 + good["jpush_report"], "refused": refused}
        (null,) = [each for each in vendors["jiguang"].accepted if each["cuid"] == FIRST_CUID + 8]
        assert null["properties"] == {"depth": 2**53}
