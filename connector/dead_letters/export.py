"""Dead letters as JSON Lines and as an Avro container file, byte for byte."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final

import orjson

from connector.codec.container_file import write_dead_letters
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.reader import DeadLetterEntry
from connector.records import NO_TIMESTAMP

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def facts_json(dead_letter: DeadLetterEntry) -> dict[str, Any]:
    """Return what `list --json` prints of a dead letter: what its headers say, without key and value."""
    facts = dead_letter.facts
    return {
        "id": facts.id,
        "state": dead_letter.state,
        "cause": facts.cause,
        "code": facts.code,
        "field": facts.field,
        "message": facts.message,
        "vendor": facts.vendor,
        "destination": facts.destination,
        "http_status": facts.http_status,
        "request_id": facts.request_id,
        "attempts": facts.attempts,
        "first_attempt": None if facts.first_attempt is None else moment(facts.first_attempt),
        "failed_at": moment(facts.failed_at),
        "origin": {"topic": facts.origin.topic, "partition": facts.origin.partition, "offset": facts.origin.offset},
        "origin_timestamp": None if facts.origin_timestamp == NO_TIMESTAMP else moment(facts.origin_timestamp),
        "dedup_id": facts.dedup_id,
        "group": facts.group,
        "replays": facts.replays,
        "edited": list(facts.edited),
    }


def record_json(dead_letter: DeadLetterEntry) -> dict[str, Any]:
    """Return what `export` writes as one JSON line: what the headers say, and the original record in base64."""
    return {
        **facts_json(dead_letter),
        "key": _base64(dead_letter.record.key),
        "value": _base64(dead_letter.record.value),
        "headers": [{"name": name, "value": _base64(value)} for name, value in dead_letter.facts.original],
    }


def export(dead_letters: Iterable[DeadLetterEntry], out: IO[bytes], form: str) -> int:
    """Write dead letters as `jsonl` or `avro`, one by one; return how many."""
    count = 0

    def counting() -> Iterator[DeadLetterEntry]:
        nonlocal count
        for dead_letter in dead_letters:
            count += 1
            yield dead_letter

    if form == "avro":
        write_dead_letters(out, (_avro(dead_letter) for dead_letter in counting()))
    else:
        for dead_letter in counting():
            out.write(orjson.dumps(record_json(dead_letter)) + b"\n")
    return count


def moment(millis: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC; outside the years 1 to 9999, as a number."""
    try:
        text = (_EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds")
    except OverflowError:
        return str(millis)
    return text.replace("+00:00", "Z")


def _avro(dead_letter: DeadLetterEntry) -> Mapping[str, Any]:
    facts: ParsedDeadLetter = dead_letter.facts
    return {
        **{name: getattr(facts, name) for name in ("id", "cause", "message", "dedup_id", "group", "failed_at")},
        **{name: getattr(facts, name) for name in ("replays", "attempts", "code", "field", "vendor", "destination")},
        **{name: getattr(facts, name) for name in ("request_id", "first_attempt", "http_status")},
        **{f"origin_{name}": value for name, value in facts.origin._asdict().items()},
        "origin_timestamp": None if facts.origin_timestamp == NO_TIMESTAMP else facts.origin_timestamp,
        "resolved": None if dead_letter.state == "open" else dead_letter.state,
        "edited": list(facts.edited),
        "key": dead_letter.record.key,
        "value": dead_letter.record.value,
        "headers": [{"name": name, "value": value} for name, value in facts.original],
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
