"""Selects dead letters: `--where`, `--since`, `--key`, `--topic`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Final

from connector.config.models import parse_duration
from connector.dead_letters.headers import ParsedDeadLetter

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
}
"""The names of `--where`: the headers' names without `dlq-`."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a dead letter must all meet; `since` and `until` (epoch ms, included) are about its failure."""

    where: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: int | None = None
    key: bytes | None = None
    topics: frozenset[str] = frozenset()
    until: int | None = None
    ids: frozenset[str] = frozenset()
    """Ids, or beginnings of ids where the reader finds the whole ones; empty: any."""

    def matches(self, dead_letter: ParsedDeadLetter, key: bytes | None) -> bool:
        """Return whether a dead letter with this key matches. An absent field equals the empty string."""
        if self.since is not None and dead_letter.failed_at < self.since:
            return False
        if self.until is not None and dead_letter.failed_at > self.until:
            return False
        if self.ids and dead_letter.id not in self.ids:
            return False
        if self.key is not None and key != self.key:
            return False
        if self.topics and dead_letter.origin.topic not in self.topics:
            return False
        return all((FIELDS[name](dead_letter) or "") in values for name, values in self.where.items())


def parse_where(conditions: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return `NAME=VALUE` conditions as allowed values by name; a name given twice allows both values.

    Raises `ValueError` with what is allowed.
    """
    where: dict[str, frozenset[str]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals or name not in FIELDS:
            raise ValueError(f"--where must be NAME=VALUE with one of the names {', '.join(FIELDS)}; not {condition!r}")
        where[name] = where.get(name, frozenset()) | {value}
    return where


def parse_since(text: str, now: int) -> int:
    """Return as epoch milliseconds a duration before `now` (epoch milliseconds), or a time with its zone.

    Raises `ValueError` with what is allowed.
    """
    # A bare number is a duration in the configuration; here it could as well be a year or a time.
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
            f"--since must be a duration such as 30m, 2h or 3d, or a time with its zone such as 2026-11-20T00:00:00Z; "
            f"not {text!r}"
        )
    return int(moment.timestamp() * 1000)
