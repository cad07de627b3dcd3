"""Every way in which one record can be wrong: its documented outcome, its message, and nothing else touched by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.integration.events import SCHEMA, Message, datum_bytes, event, good, register, single_object, wire
from tests.integration.job import DeadLetterEntry, Job, Vendor, jobs
from tools.servers import Kafka, Registry

GOOD: Final = 60
UNKNOWN_ID: Final = 987_654
DEEP: Final = 20_000

NEST: Final = {"type": "record", "name": "Nest", "fields": [{"name": "next", "type": ["null", "Nest"]}]}
OTHER: Final = {"type": "record", "name": "com.example.Other", "fields": [{"name": "a", "type": "long"}]}
NULLS: Final = {
    "type": "record",
    "name": "com.example.Nulls",
    "fields": [{"name": "nulls", "type": {"type": "array", "items": "null"}}],
}
INCOMPATIBLE: Final = {
    **SCHEMA,
    "fields": [{"name": "cuid", "type": "string"}, *(field for field in SCHEMA["fields"] if field["name"] != "cuid")],
}


class Expected(NamedTuple):
    """What the dead letter of a record says; `says` are words that its message must have."""

    cause: str
    code: str
    says: tuple[str, ...]


EXPECTED: Final = {
    "empty": Expected("decode", "decode.empty", ("the value is empty",)),
    "not_avro": Expected("decode", "decode.frame", ("0xff", "accepted: ")),
    "json": Expected("decode", "decode.frame", ("JSON",)),
    "avro_file": Expected("decode", "decode.frame", ("Avro file",)),
    "unknown_id": Expected("decode", "decode.schema_unknown", (str(UNKNOWN_ID), "does not know")),
    "unknown_fingerprint": Expected("decode", "decode.schema_unknown", ("schemas.files",)),
    "truncated": Expected("decode", "decode.payload", ("JiguangUserEvent",)),
    "truncated_single_object": Expected("decode", "decode.payload", ("JiguangUserEvent",)),
    "left_over": Expected("decode", "decode.trailing_bytes", ("3 bytes are left",)),
    "incompatible": Expected("decode", "decode.schema_mismatch", ("cannot be read",)),
    "no_record": Expected("decode", "decode.schema_mismatch", ("not a record",)),
    "other_schema": Expected("route", "route.unrouted", ("com.example.Other", "add a route")),
    "nested too deep": Expected("decode", "decode.payload", ("Nest", "deeper than 64")),
    "endless_nulls": Expected("decode", "decode.payload", ("com.example.Nulls",)),
}


def _bad_values(registry: Registry, subject: Callable[[str], str]) -> dict[str, bytes]:
    ids = {
        name: register(registry, subject(name), schema)
        for name, schema in {
            "contract": SCHEMA,
            "nest": NEST,
            "other": OTHER,
            "nulls": NULLS,
            "incompatible": INCOMPATIBLE,
            "text": {"type": "string"},
        }.items()
    }
    body = datum_bytes(event(GOOD))
    return {
        "empty": b"",
        "not_avro": b"\xffnot avro",
        "json": json.dumps({"cuid": 1}).encode(),
        "avro_file": b"Obj\x01" + body,
        "unknown_id": wire(UNKNOWN_ID, body),
        "unknown_fingerprint": b"\xc3\x01" + bytes(8) + body,
        "truncated": wire(ids["contract"], body[:-9]),
        "truncated_single_object": single_object(body[:4]),
        "left_over": wire(ids["contract"], body + b"abc"),
        "incompatible": wire(ids["incompatible"], b"\x02x" + body),
        "no_record": wire(ids["text"], b"\x02x"),
        "other_schema": wire(ids["other"], b"\x02"),
        "nested too deep": wire(ids["nest"], b"\x02" * DEEP + b"\x00"),
        # One block of 2^40 nulls, which take no bytes.
        "endless_nulls": wire(ids["nulls"], b"\x80\x80\x80\x80\x80\x40\x00"),
    }


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run has made of all of them."""

    values: dict[str, bytes]
    dead_letters: dict[str, DeadLetterEntry]
    vendor: Vendor
    skipped: float
    metrics: str
    log: str
    committed: dict[int, int]
    ends: dict[int, int]
    code: int


@pytest.fixture(scope="module")
def ran(kafka: Kafka, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """One run over good events with every kind of bad record and a null value among them."""
    folder: Path = tmp_path_factory.mktemp("input")
    name = f"input-{folder.parent.name}-{folder.name}"
    with Vendor() as vendor, jobs(kafka, folder, name) as job:
        values = _bad_values(registry, lambda kind: f"{name}-{kind}")
        schema_id = register(registry, f"{name}-contract", SCHEMA)
        yield _run(job, vendor, values, schema_id, registry)


def _run(job: Job, vendor: Vendor, values: dict[str, bytes], schema_id: int, registry: Registry) -> Ran:
    bad = [Message(value, kind.encode(), (("kind", kind.encode()),), 0) for kind, value in values.items()]
    first, second = good(range(GOOD // 2), schema_id, 0), good(range(GOOD // 2, GOOD), schema_id, 0)
    job.produce([*first, Message(None, b"tombstone", partition=0), *bad, *second])
    settings: dict[str, Any] = job.settings(vendor.destination, schema_registry={"url": registry.url})
    member = job.start(settings)
    job.until_done(member)
    skipped = member.metric('connector_records_skipped_total{reason="null_value"}')
    metrics = member.get("/metrics")[1]
    code = member.stop()
    dead_letters = {dict(dead_letter.headers)["kind"] or b"": dead_letter for dead_letter in job.dead_letters()}
    named = {kind.decode(): dead_letter for kind, dead_letter in dead_letters.items()}
    return Ran(values, named, vendor, skipped, metrics, member.text, job.committed(), job.ends(), code)


@pytest.mark.promise("P5")
@pytest.mark.promise("P9")
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_bad_record_becomes_a_dead_letter_that_says_why(kind: str, ran: Ran) -> None:
    """Cause, code and message are as documented, and the value is the original.

    Kills: a decoder's exception that ends the run or passes the record, a cause or code that is another fault's.
    """
    dead_letter, expected = ran.dead_letters[kind], EXPECTED[kind]
    assert (dead_letter.key, dead_letter.value) == (kind.encode(), ran.values[kind])
    assert (dead_letter.own["dlq-cause"], dead_letter.own["dlq-code"]) == (expected.cause, expected.code)
    message = dead_letter.own["dlq-message"]
    assert [text for text in expected.says if text not in message] == []
    assert "dlq-destination" not in dead_letter.own


def test_the_documented_codes_are_the_ones_that_are_given(ran: Ran) -> None:
    """docs/outcomes.md names the code of every case, and only bad records become dead letters."""
    assert ran.dead_letters.keys() == EXPECTED.keys()
    page = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text(encoding="utf-8")
    assert [expected.code for expected in EXPECTED.values() if f"`{expected.code}`" not in page] == []


@pytest.mark.promise("P1")
def test_good_events_around_bad_records_arrive_once_and_a_null_value_is_skipped(ran: Ran) -> None:
    """The good events before and behind all of them, in the same partition, are accepted once; the run ends in order.

    Kills: a null value taken for a broken one, a park that is never taken up again.
    """
    assert ran.vendor.cuids.total() == len(ran.vendor.cuids) == GOOD
    assert ran.skipped == 1
    assert ran.committed == ran.ends
    assert ran.code == 0


def test_no_value_of_a_record_is_logged(ran: Ran) -> None:
    """Neither log nor metrics repeat what stands in a broken record."""
    assert "not avro" not in ran.log + ran.metrics
    assert f"/{GOOD}" not in ran.log + ran.metrics
    assert "Traceback" not in ran.log
