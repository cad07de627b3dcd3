"""What running members say on /status and /metrics, and what that makes of each destination together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

STATES: Final = ("held", "probing", "retrying", "throttled", "flowing")
"""A destination's states, the worst first; after them stands `unknown`, of which no member speaks."""
UNKNOWN: Final = "unknown"

CONSUMED: Final = "connector_records_consumed_total"
DELIVERED: Final = "connector_records_delivered_total"
DEAD_LETTERED: Final = "connector_records_dead_lettered_total"
LAG: Final = "connector_partition_lag"
COUNTERS: Final = {CONSUMED: "topic", DELIVERED: "destination", DEAD_LETTERED: "destination", LAG: "topic"}
"""The metrics that are plotted, and the label by which they are added up."""

_LINE: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Counts = Mapping[tuple[str, str], float]
"""Totals by metric and label."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one member said, or why it said nothing (`trouble`)."""

    address: str
    status: Mapping[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination over all members: the worst of their states, and how many members are in it.

    `since` and `next_probe` are epoch seconds; `members` speak of it, `affected` of them are in this state.
    """

    name: str
    state: str
    cause: str | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None
    in_flight: int = 0
    members: int = 0
    affected: int = 0

    @property
    def ill(self) -> bool:
        """Whether somebody may have to do something."""
        return self.state in ("held", "probing", UNKNOWN)


def destinations(names: Iterable[str], answers: Sequence[Answer]) -> list[Destination]:
    """Return every destination, the worst state first; `names` are the configured ones, which always appear."""
    said: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for answer in answers:
        for name, one in _mapping(answer.status.get("destinations")).items():
            if isinstance(one, Mapping):
                said.setdefault(str(name), []).append(one)
    order = {state: number for number, state in enumerate((*STATES, UNKNOWN))}
    found = [_together(name, each) for name, each in said.items()]
    return sorted(found, key=lambda one: (order.get(one.state, 0), one.name))


def counts(text: str) -> dict[tuple[str, str], float]:
    """Return the totals of `COUNTERS` on a page of metrics; lines that are none are passed over."""
    totals: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in COUNTERS:
            continue
        labels = {found[1]: _unescaped(found[2]) for found in _LABEL.finditer(match[2] or "")}
        key = (match[1], labels.get(COUNTERS[match[1]], ""))
        try:
            totals[key] = totals.get(key, 0.0) + float(match[3])
        except ValueError:
            continue
    return totals


def grown(before: Counts, now: Counts) -> dict[tuple[str, str], float]:
    """Return by how much each counter grew; one that fell began anew with its process, so all of it is growth.

    What a member had counted before it was asked for the first time is nobody's: then `before` is empty.
    """
    if not before:
        return {}
    return {key: value - (old if (old := before.get(key, 0.0)) <= value else 0.0) for key, value in now.items()}


def _together(name: str, said: Sequence[Mapping[str, Any]]) -> Destination:
    if not said:
        return Destination(name, UNKNOWN)
    known = [str(one.get("state")) if one.get("state") in STATES else UNKNOWN for one in said]
    worst = min(known, key=lambda state: STATES.index(state) if state in STATES else len(STATES))
    those = [one for one, state in zip(said, known, strict=True) if state == worst]
    told = next((one for one in those if one.get("message")), those[0])
    since = [moment for one in those if (moment := seconds(one.get("since"))) is not None]
    probes = [moment for one in those if (moment := seconds(one.get("next_probe"))) is not None]
    return Destination(
        name=name,
        state=worst,
        cause=_text(told.get("cause")),
        code=_text(told.get("code")),
        message=_text(told.get("message")),
        since=min(since, default=None),
        next_probe=min(probes, default=None),
        in_flight=sum(one["in_flight"] for one in said if isinstance(one.get("in_flight"), int)),
        members=len(said),
        affected=len(those),
    )


def seconds(value: Any) -> float | None:
    """Return ISO 8601 as epoch seconds, None where it is none."""
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _unescaped(text: str) -> str:
    return text.replace(r"\"", '"').replace(r"\n", "\n").replace(r"\\", "\\")
