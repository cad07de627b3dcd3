"""A clean run of twenty thousand events: every good one arrives once, exactly the bad ones are dead letters."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final, NamedTuple

import pytest

from tests.integration.events import FIRST_CUID, SCHEMA, Message, datum_bytes, event, register, single_object, wire
from tests.integration.job import DESTINATION, DeadLetterEntry, Job, Sent, Vendor
from tools.servers import Registry

COUNT: Final = 20_000
DAY_MS: Final = 24 * 3600 * 1000
ODD_HEADERS: Final = (("trace", b"\x00\xff"), ("trace", None), ("dlq-note", b"of another tool"), ("", b""))
NOT_AVRO: Final = b"\xffnot avro at all"


class Bad(NamedTuple):
    """What a dead letter must say."""

    cause: str
    code: str


BAD: Final = {
    7: Bad("refused", "4101"),
    107: Bad("invalid", "jiguang.eventName.required"),
    207: Bad("invalid", "jiguang.itime.past"),
    307: Bad("invalid", "jiguang.properties.number"),
    407: Bad("decode", "decode.frame"),
}
"""By the event's number modulo 1000."""


def _message(number: int, schema_id: int | None) -> Message:
    kind = number % 1000
    datum = event(number)
    if kind == 7:
        datum["eventName"] = f"unknown_{number}"
    elif kind == 107:
        datum["eventName"] = ""
    elif kind == 207:
        datum["itime"] -= 400 * DAY_MS
    elif kind == 307:
        datum["properties"] = {"ratio": math.nan}
    body = datum_bytes(datum)
    value = single_object(body) if schema_id is None else wire(schema_id, body)
    if kind == 407:
        value = NOT_AVRO
    key = None if number % 11 == 0 else b"user-%d" % (number % 50)
    return Message(value, key, (*ODD_HEADERS, ("n", b"%d" % number)))


@pytest.mark.promise("P1")
@pytest.mark.promise("P9")
@pytest.mark.parametrize("encoding", ["wire", "single_object"])
def test_a_clean_run_delivers_each_good_event_once_and_sets_each_bad_one_aside(
    encoding: str, job: Job, vendor: Vendor, registry: Registry
) -> None:
    """Twenty thousand events with five kinds of bad ones: the vendor's log and the dead letters add up to them.

    Kills: an outcome noted for a whole refused batch, a dead letter whose headers or null key are normalised.
    """
    sections: dict[str, object] = {}
    schema_id = None
    if encoding == "wire":
        schema_id = register(registry, f"{job.topic}-value", SCHEMA)
        sections["schema_registry"] = {"url": registry.url}
    sent = job.produce(_message(number, schema_id) for number in range(COUNT))
    member = job.start(job.settings(vendor.destination, **sections))
    job.until_done(member)
    assert member.stop() == 0

    good = {FIRST_CUID + number for number in range(COUNT) if number % 1000 not in BAD}
    assert vendor.cuids.keys() == good
    assert vendor.cuids.total() == len(good)
    assert len({each["randomId"] for each in vendor.accepted}) == len(good)
    assert all(each["properties"]["tags"] == ["a", "b"] for each in vendor.accepted)

    found = job.dead_letters()
    dead_letters = {dict(dead_letter.headers)["n"]: dead_letter for dead_letter in found}
    assert len(found) == len(dead_letters) == COUNT // 1000 * len(BAD)
    for number, record in enumerate(sent):
        if number % 1000 in BAD:
            _check(dead_letters[b"%d" % number], record, BAD[number % 1000], job)
    assert job.committed() == job.ends()


def _check(dead_letter: DeadLetterEntry, record: Sent, bad: Bad, job: Job) -> None:
    """Compare a dead letter with the record that it was."""
    assert (dead_letter.key, dead_letter.value) == (record.message.key, record.message.value)
    assert tuple(dead_letter.headers) == record.message.headers
    own = dead_letter.own
    assert (own["dlq-version"], own["dlq-cause"], own["dlq-code"]) == ("1", bad.cause, bad.code)
    origin = own["dlq-origin-topic"], int(own["dlq-origin-partition"]), int(own["dlq-origin-offset"])
    assert origin == (job.topic, record.partition, record.offset)
    written = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    assert abs((datetime.fromisoformat(own["dlq-origin-timestamp"]) - written).total_seconds()) < 0.001
    assert (own["dlq-group"], own["dlq-replays"]) == (job.group, "0")
    assert ("does not exist at Jiguang. Create it" in own["dlq-message"]) == (bad.code == "4101")
    assert len({own["dlq-id"], own["dlq-dedup-id"]}) == 2
    routed = bad.cause != "decode"
    assert (own.get("dlq-vendor"), own.get("dlq-destination")) == (("jiguang", DESTINATION) if routed else (None, None))
    asked = bad.cause == "refused"
    assert own.get("dlq-http-status") == ("200" if asked else None)
    assert ("dlq-attempts" in own, "dlq-first-attempt" in own) == (asked, asked)
    failed = datetime.fromisoformat(own["dlq-failed-at"])
    assert failed >= written
