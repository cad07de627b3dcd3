"""What running members report on /status, /readyz and /metrics, combined for each destination. Pure.

Another program may answer on a configured address. So everything is read into bounded values here, and invalid values
are left out. The pages can rely on that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

STATES: Final = ("held", "probing", "retrying", "throttled", "flowing")
"""A destination's states, worst first; `unknown`, for one that no member reports, comes after them."""
UNKNOWN: Final = "unknown"

CONSUMED: Final = "connector_records_consumed_total"
DELIVERED: Final = "connector_records_delivered_total"
DEAD_LETTERED: Final = "connector_records_dead_lettered_total"
LAG: Final = "connector_partition_lag"
COUNTERS: Final = {CONSUMED: "topic", DELIVERED: "destination", DEAD_LETTERED: "destination", LAG: "topic"}
"""The metrics that are plotted, and the label by which each is summed."""

_LINE: Final = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_GAUGE: Final = re.compile(
    r"^(process_resident_memory_bytes|process_start_time_seconds|connector_kafka_refused) (\S+)", re.MULTILINE
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TEXT: Final = 1000
"""Characters of a message that are kept."""
_NAME: Final = 250
_ITEMS: Final = 10_000
"""Entries of a list, or of an object, that are read."""
_REASONS: Final = 20
_HOLDS: Final = 20
_WAITING: Final = 1000
_MOST: Final = float(2**53)
"""The largest whole number that a float represents exactly. No member writes larger ones."""
_LAST_YEAR: Final = 253_402_300_800.0
"""Epoch seconds at the end of the year 9999."""

Counts = Mapping[tuple[str, str], float]
"""Totals by metric and label."""


@dataclass(frozen=True, slots=True)
class ReportedHold:
    """One hold of a destination, as one member or several report it. Times are epoch seconds.

    `set_aside` is how many records wait apart for its cause; None if that is unknown.
    """

    cause: str | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None
    set_aside: int | None = None
    members: int = 1


@dataclass(frozen=True, slots=True)
class ReportedWaitingRecord:
    """A record that waits alone, because it fails again and again while others are accepted."""

    topic: str
    partition: int
    offset: int
    since: float | None = None
    attempts: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """One partition as the member that owns it reports it; `map_used` is a share from 0 to 1."""

    topic: str
    partition: int
    watermark: int | None = None
    position: int | None = None
    map_used: float | None = None


@dataclass(frozen=True, slots=True)
class DestinationReport:
    """One destination as one member reports it. Times are epoch seconds."""

    state: str = UNKNOWN
    cause: str | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None
    in_flight: int = 0
    holds: tuple[ReportedHold, ...] = ()
    waiting: tuple[ReportedWaitingRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberResponse:
    """One member's report, or why there is none (`trouble`).

    `ready` is what /readyz answered, or None if it did not, with its `reasons`. `partitions` is None if it is not
    reported. `memory` is in bytes, `started` epoch seconds. `refused`: Kafka refuses it, and a person has to fix that.
    `filled_by` is the destination whose records fill its buffer. `ill_since` is since when (epoch seconds) it has been
    unreachable or not ready; `ill_before`: perhaps earlier, because it was already so when first asked. `config_fault`
    is why it could not read its configuration again, since `config_fault_since`.
    """

    address: str
    destinations: Mapping[str, DestinationReport] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    trouble: str | None = None
    partitions: tuple[PartitionReport, ...] | None = None
    ready: bool | None = None
    reasons: tuple[str, ...] = ()
    version: str | None = None
    memory: float | None = None
    started: float | None = None
    refused: bool = False
    filled_by: str | None = None
    ill_since: float | None = None
    ill_before: bool = False
    config_fault: str | None = None
    config_fault_since: float | None = None

    @property
    def ill(self) -> bool:
        """Whether it does not answer or is not ready."""
        return self.trouble is not None or self.ready is False


@dataclass(frozen=True, slots=True)
class DestinationView:
    """One destination across all members: the worst of their states, and how many members are in it.

    `since` and `next_probe` are epoch seconds; `members` report it, `affected` of them are in this state.
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
    holds: tuple[ReportedHold, ...] = ()
    waiting: tuple[ReportedWaitingRecord, ...] = ()

    @property
    def held(self) -> bool:
        """Whether it sends nothing but probes."""
        return self.state in ("held", "probing")

    @property
    def ill(self) -> bool:
        """Whether a person may have to do something."""
        return self.held or self.state == UNKNOWN or bool(self.waiting)


def read_response(address: str, status: Any, metrics: str = "", ready: Any = None) -> MemberResponse:
    """Return what /status and /readyz (as decoded JSON) and /metrics (as text) report, each value bounded."""
    status, ready = _mapping(status), _mapping(ready)
    found = {}
    for name, entry in _entries(status.get("destinations")):
        if isinstance(entry, Mapping):
            found[name[:_NAME]] = _destination(entry)
    fault = _mapping(status.get("config_fault"))
    gauges = {name: _number(value) for name, value in _GAUGE.findall(metrics)}
    return MemberResponse(
        address,
        found,
        counts(metrics),
        partitions=tuple(_partitions(status["partitions"])) if "partitions" in status else None,
        ready=ready["ok"] if isinstance(ready.get("ok"), bool) else None,
        reasons=tuple(text for reason in _list(ready.get("reasons"))[:_REASONS] if (text := _text(reason))),
        version=_text(status.get("version"), _NAME),
        memory=gauges.get("process_resident_memory_bytes"),
        started=gauges.get("process_start_time_seconds"),
        refused=gauges.get("connector_kafka_refused") == 1,
        filled_by=_text(_mapping(status.get("buffer")).get("filled_by"), _NAME),
        ill_since=seconds(status.get("unready_since")),
        config_fault=_text(fault.get("message")),
        config_fault_since=seconds(fault.get("since")),
    )


def stopped(responses: Sequence[MemberResponse]) -> bool:
    """Whether no member reads records. Then no destination delivers, whatever its state says."""
    return all(response.ill for response in responses)


def destinations(names: Iterable[str], responses: Sequence[MemberResponse]) -> list[DestinationView]:
    """Return every destination, the worst state first; `names` are the configured ones, which always appear."""
    reports: dict[str, list[DestinationReport]] = {name: [] for name in names}
    for response in responses:
        for name, report in response.destinations.items():
            reports.setdefault(name, []).append(report)
    order = {state: number for number, state in enumerate((*STATES, UNKNOWN))}
    found = [_combined(name, each) for name, each in reports.items()]
    return sorted(found, key=lambda destination: (order[destination.state], destination.name))


def counts(text: str) -> dict[tuple[str, str], float]:
    """Return the totals of `COUNTERS` on a page of metrics, without invalid or negative values."""
    totals: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[1] not in COUNTERS:
            continue
        labels = {found[1]: _unescaped(found[2]) for found in _LABEL.finditer(match[2] or "")}
        key = (match[1], labels.get(COUNTERS[match[1]], "")[:_NAME])
        value = _number(match[3])
        if value is not None and (key in totals or len(totals) < _ITEMS):
            totals[key] = totals.get(key, 0.0) + value
    return totals


def growth(before: Counts, now: Counts) -> dict[tuple[str, str], float]:
    """Return the growth of each counter. A counter that fell was restarted, so all of it counts as growth.

    Without `before` there is no growth: it is unknown how long a member took for what it counted earlier.
    """
    if not before:
        return {}
    # Like Prometheus' `increase`.
    return {key: value - (old if (old := before.get(key, 0.0)) <= value else 0.0) for key, value in now.items()}


def seconds(value: Any) -> float | None:
    """Return ISO 8601 as epoch seconds, or None if it is not a time from 1970 to 9999."""
    try:
        found = datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return found if found is not None and 0 <= found < _LAST_YEAR else None


def _destination(entry: Mapping[Any, Any]) -> DestinationReport:
    state = entry.get("state")
    return DestinationReport(
        state=state if isinstance(state, str) and state in STATES else UNKNOWN,
        cause=_text(entry.get("cause"), _NAME),
        code=_text(entry.get("code"), _NAME),
        message=_text(entry.get("message")),
        since=seconds(entry.get("since")),
        next_probe=seconds(entry.get("next_probe")),
        in_flight=_count(entry.get("in_flight")) or 0,
        holds=tuple(_hold(hold) for hold in _list(entry.get("holds"))[:_HOLDS] if isinstance(hold, Mapping)),
        waiting=tuple(_waiting(entry.get("waiting"))),
    )


def _hold(entry: Mapping[Any, Any]) -> ReportedHold:
    return ReportedHold(
        _text(entry.get("cause"), _NAME),
        _text(entry.get("code"), _NAME),
        _text(entry.get("message")),
        seconds(entry.get("since")),
        seconds(entry.get("next_probe")),
        _count(entry.get("set_aside")),
    )


def _waiting(value: Any) -> Iterable[ReportedWaitingRecord]:
    """Yield the records that wait alone; one without a place is left out."""
    for entry in _list(value)[:_WAITING]:
        found = _mapping(entry)
        topic, partition, offset = (
            _text(found.get("topic")),
            _count(found.get("partition")),
            _count(found.get("offset")),
        )
        if topic and partition is not None and offset is not None:
            since, attempts = seconds(found.get("since")), _count(found.get("attempts"))
            yield ReportedWaitingRecord(topic, partition, offset, since, attempts, _text(found.get("reason")))


def _partitions(value: Any) -> Iterable[PartitionReport]:
    """Yield the partitions that a member owns; one without a name and number is left out."""
    for entry in _list(value):
        found = _mapping(entry)
        topic, partition = _text(found.get("topic"), _NAME), _count(found.get("partition"))
        if topic and partition is not None:
            watermark, position = _count(found.get("watermark")), _count(found.get("position"))
            yield PartitionReport(topic, partition, watermark, position, _number(found.get("map_used")))


def _combined(name: str, reports: Sequence[DestinationReport]) -> DestinationView:
    """Return one destination from what its members report."""
    if not reports:
        return DestinationView(name, UNKNOWN)
    # The worst state, because a person has to see it even if other members deliver.
    worst = next((state for state in STATES if any(report.state == state for report in reports)), UNKNOWN)
    affected = [report for report in reports if report.state == worst]
    # Show one member's message for all: nearly always they have the same cause, and the page has a table of members.
    shown = next((report for report in affected if report.message), affected[0])
    return DestinationView(
        name=name,
        state=worst,
        cause=shown.cause,
        code=shown.code,
        message=shown.message,
        since=min((report.since for report in affected if report.since is not None), default=None),
        next_probe=min((report.next_probe for report in affected if report.next_probe is not None), default=None),
        in_flight=sum(report.in_flight for report in reports),
        members=len(reports),
        affected=len(affected),
        holds=_holds([report for report in reports if report.state in ("held", "probing")]),
        waiting=tuple(
            sorted((each for report in reports for each in report.waiting), key=lambda each: each.since or _LAST_YEAR)
        ),
    )


def _holds(reports: Sequence[DestinationReport]) -> tuple[ReportedHold, ...]:
    """Return the holds of all members, those with the same cause and code as one, in the order of the first member.

    An older member reports only its worst hold, as the destination's own cause.
    """
    together: dict[tuple[str | None, str | None], list[ReportedHold]] = {}
    for report in reports:
        own = ReportedHold(report.cause, report.code, report.message, report.since, report.next_probe)
        for hold in report.holds or (own,):
            together.setdefault((hold.cause, hold.code), []).append(hold)
    return tuple(
        ReportedHold(
            cause,
            code,
            next((hold.message for hold in holds if hold.message), None),
            min((hold.since for hold in holds if hold.since is not None), default=None),
            min((hold.next_probe for hold in holds if hold.next_probe is not None), default=None),
            sum(aside) if (aside := [hold.set_aside for hold in holds if hold.set_aside is not None]) else None,
            len(holds),
        )
        for (cause, code), holds in together.items()
    )


def _list(value: Any) -> list[Any]:
    return value[:_ITEMS] if isinstance(value, list) else []


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return [(str(key), entry) for key, entry in list(_mapping(value).items())[:_ITEMS]]


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any, limit: int = _TEXT) -> str | None:
    """Return a value as text, cut at a limit; None for objects and lists."""
    return str(value)[:limit] if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    found = None if isinstance(value, bool | str) else _number(value)
    return None if found is None else int(found)


def _number(value: Any) -> float | None:
    """Return a finite number from 0 on, None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found <= _MOST else None


def _unescaped(text: str) -> str:
    return text.replace(r"\"", '"').replace(r"\n", "\n").replace(r"\\", "\\")
