"""Selects dead letters: `--where`, `--since`, `--until`, `--key`, `--topic`, `--contains`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Final

from connector.config.models import parse_duration
from connector.dead_letters.headers import ParsedDeadLetter
from connector.records import Record

FIELDS: Final[Mapping[str, Callable[[ParsedDeadLetter], str | None]]] = {
    "cause": lambda dead_letter: dead_letter.cause,
    "code": lambda dead_letter: dead_letter.code,
    "field": lambda dead_letter: dead_letter.field,
    "vendor": lambda dead_letter: dead_letter.vendor,
    "destination": lambda dead_letter: dead_letter.destination,
    "group": lambda dead_letter: dead_letter.group,
    "http-status": lambda dead_letter: None if dead_letter.http_status is None else str(dead_letter.http_status),
    "replays": lambda dead_letter: str(dead_letter.replays),
    "dedup-id": lambda dead_letter: dead_letter.dedup_id,
    "id": lambda dead_letter: dead_letter.id,
    "topic": lambda dead_letter: dead_letter.origin.topic,
    "partition": lambda dead_letter: str(dead_letter.origin.partition),
    "offset": lambda dead_letter: str(dead_letter.origin.offset),
}
"""The names of `--where`: the headers' names without `dlq-`; topic, partition and offset are the origin's."""
HEADER: Final = "header."
EVENT: Final = "event."
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all hold. `since` and `until` (epoch ms, inclusive) bound the time of the failure."""

    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: int | None = None
    key: bytes | None = None
    topics: frozenset[str] = frozenset()
    until: int | None = None
    headers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Values of the record's own headers, by name."""
    contains: bytes | None = None
    """Bytes that the key or the value contains."""
    events: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Values of the event, by path. `accept` tests them, because that needs the decoded event."""
    accept: Callable[[Record, ParsedDeadLetter], bool] | None = None
    ids: frozenset[str] = frozenset()
    """Ids, or beginnings of ids for readers that complete them; empty: any."""

    def matches(self, dead_letter: ParsedDeadLetter, record: Record) -> bool:
        """Return whether the dead letter in this record matches. An absent field equals the empty string."""
        if self.since is not None and dead_letter.failed_at < self.since:
            return False
        if self.until is not None and dead_letter.failed_at > self.until:
            return False
        if self.ids and dead_letter.id not in self.ids:
            return False
        if self.key is not None and record.key != self.key:
            return False
        if self.topics and dead_letter.origin.topic not in self.topics:
            return False
        # Test for an empty condition first: with a million dead letters each saved call counts.
        if self.where and not all((FIELDS[name](dead_letter) or "") in values for name, values in self.where.items()):
            return False
        if self.contains is not None and not any(self.contains in (part or b"") for part in (record.value, record.key)):
            return False
        if self.headers and not all(_header(dead_letter, name) & values for name, values in self.headers.items()):
            return False
        # Last, because decoding is the most expensive step.
        return self.accept is None or self.accept(record, dead_letter)


def _header(dead_letter: ParsedDeadLetter, name: str) -> set[str]:
    """Return the values of the record's own headers of this name; a null, or no such header, is the empty string."""
    found = {(value or b"").decode(errors="replace") for header, value in dead_letter.original if header == name}
    return found or {""}


def parse_where(conditions: Iterable[str]) -> Filter:
    """Return a filter of `NAME=VALUE` conditions; a name given twice allows both values.

    Raises `ValueError` that names the allowed values.
    """
    found: dict[str, dict[str, frozenset[str]]] = {"": {}, HEADER: {}, EVENT: {}}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        kind = next((prefix for prefix in (HEADER, EVENT) if name.startswith(prefix)), "")
        rest = name.removeprefix(kind)
        if not equals or not rest or (not kind and name not in FIELDS):
            raise ValueError(
                f"--where must be NAME=VALUE with one of the names {', '.join(FIELDS)}, {HEADER}NAME or {EVENT}PATH; "
                f"not {condition!r}"
            )
        found[kind][rest] = found[kind].get(rest, frozenset()) | {value}
    return Filter(found[""], headers=found[HEADER], events=found[EVENT])


def parse_time(option: str, text: str, now: int) -> int:
    """Return epoch milliseconds for a time with a zone, or for a duration before `now` (epoch milliseconds).

    Raises `ValueError` that names the allowed values.
    """
    # In the configuration a bare number is a duration. Here it could also be a year or a time, so it is refused.
    try:
        seconds = None if text.strip().replace(".", "").isdecimal() else parse_duration(text)
    except ValueError:
        seconds = None
    if isinstance(seconds, float) and isfinite(seconds):
        return now - int(seconds * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{option} must be a duration such as 30m, 2h or 3d, or a time with a zone such as 2026-11-20T00:00:00Z; "
            f"not {text!r}"
        )
    return epoch_millis(moment)


def epoch_millis(moment: datetime) -> int:
    """Return a time with a zone as epoch milliseconds, rounded down.

    Computed in whole numbers: for some times a float is one millisecond too low.
    """
    return (moment - _EPOCH) // timedelta(milliseconds=1)
