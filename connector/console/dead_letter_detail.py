"""One dead letter in full: why it failed, what to do, its event, what would be sent today, and its history. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from connector.console.advice import Advice, for_cause
from connector.console.columns import DeadLetterRow
from connector.console.dead_letter_list import ACTIONS
from connector.console.masking import Mask, MaskedRecord
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.inspection import Inspection, Preparation
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import counted
from connector.vendors import explained

_DUMPED: Final = 4096
"""Bytes of a record's value that the page shows."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything known about a dead letter; `dead_letter` is None if Kafka no longer has its record."""

    row: DeadLetterRow
    dead_letter: DeadLetterEntry | None
    inspection: Inspection | None
    trouble: str | None
    same_event: Sequence[DeadLetterRow]


@dataclass(frozen=True, slots=True)
class Fact:
    """A named fact: text, a code, or a time (epoch seconds) with optional text before it."""

    name: str
    text: str = ""
    code: bool = False
    at: float | None = None


@dataclass(frozen=True, slots=True)
class PreparationView:
    """What one destination would be sent by today's rules; `reason` is None if it would be sent."""

    destination: str
    rule: str | None
    reason: str | None
    fragment: str | None


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of an event's history; `own`: it is about the dead letter of this page."""

    at: float
    before: str
    id: str
    own: bool


@dataclass(frozen=True, slots=True)
class DetailView:
    """Everything that the page shows."""

    id: str
    cause: str
    code: str
    destination: str
    state: str
    resolved_at: float | None
    message: str
    advice: Advice
    actions: Sequence[tuple[str, str]]
    facts: Sequence[Fact]
    trouble: str | None
    schema: str | None
    event: str | None
    fault: str | None
    preparations: Sequence[PreparationView]
    history: Sequence[HistoryLine]
    has_record: bool
    headers: Sequence[tuple[str, str | None]]
    value_size: str
    value: str | None


def detail_view(found: Found, mask: Mask) -> DetailView:
    """Return the view of one dead letter."""
    row, inspection, dead_letter = found.row, found.inspection, found.dead_letter
    masked = MaskedRecord.of(dead_letter, inspection, mask)
    decoded = inspection is not None and inspection.schema is not None
    value = b"" if dead_letter is None else dead_letter.record.value or b""
    return DetailView(
        id=row.id,
        cause=row.cause,
        code=row.code,
        destination=row.destination,
        state=row.state,
        resolved_at=row.resolved_at / 1000 if row.resolved_at else None,
        message=masked.message(row.cause, row.field, explained(row.vendor, row.code, row.message or "no message")),
        advice=for_cause(row.cause),
        actions=list(ACTIONS.items()) if row.state == "open" else [],
        facts=_facts(found, masked),
        trouble=found.trouble,
        schema=inspection.schema if inspection is not None else None,
        event=json.dumps(masked.event, ensure_ascii=False, indent=2) if decoded else None,
        fault=masked.fault(inspection.fault) if inspection is not None and inspection.fault is not None else None,
        preparations=[_preparation(each, masked) for each in (inspection.preparations if inspection else ())],
        history=_history(found),
        has_record=dead_letter is not None,
        headers=[
            (name, masked.header(name, text)) for name, text in (dead_letter.facts.original if dead_letter else ())
        ],
        value_size=counted(len(value), "byte"),
        value=_dump(value) if masked.raw else None,
    )


def _facts(found: Found, masked: MaskedRecord) -> list[Fact]:
    """Return the facts in the dead letter's headers."""
    row = found.row
    facts = [Fact("Failed at", at=row.failed_at / 1000), Fact("Destination", row.destination or "none yet")]
    if row.vendor:
        facts.append(Fact("Vendor", row.vendor))
    if row.field:
        facts.append(Fact("Field", row.field, code=True))
    if found.dead_letter is not None:
        facts += _record_facts(found.dead_letter.facts)
    facts.append(Fact("Id", row.id, code=True))
    facts.append(_key(found, masked))
    return facts


def _record_facts(parsed: ParsedDeadLetter) -> list[Fact]:
    """Return the facts that only the record itself has."""
    origin = parsed.origin
    facts = [Fact("Origin", f"{origin.topic}, partition {origin.partition}, offset {origin.offset}")]
    if parsed.http_status is not None:
        facts.append(Fact("Vendor's answer", f"HTTP {parsed.http_status}"))
    if parsed.request_id:
        facts.append(Fact("Vendor's request id", parsed.request_id, code=True))
    if parsed.attempts:
        times = counted(parsed.attempts, "time")
        if parsed.first_attempt is None:
            facts.append(Fact("Sent", times))
        else:
            facts.append(Fact("Sent", f"{times}, first at ", at=parsed.first_attempt / 1000))
    facts.append(Fact("Replayed before", counted(parsed.replays, "time")))
    facts.append(Fact("Dedup id", parsed.dedup_id, code=True))
    return facts


def _key(found: Found, masked: MaskedRecord) -> Fact:
    key = masked.key(found.row.key if found.dead_letter is None else found.dead_letter.record.key)
    return Fact("Key", "none") if key is None else Fact("Key", key, code=True)


def _preparation(preparation: Preparation, masked: MaskedRecord) -> PreparationView:
    return PreparationView(
        preparation.destination,
        preparation.rule,
        None if preparation.reason is None else masked.text(preparation.reason),
        None if preparation.fragment is None else masked.text(preparation.fragment),
    )


def _history(found: Found) -> list[HistoryLine]:
    """Return every dead letter of the same event, and how each was resolved, in the order of time."""
    lines: list[HistoryLine] = []
    for row in found.same_event:
        own = row.id == found.row.id
        where = f" for {row.destination}" if row.destination else ""
        lines.append(HistoryLine(row.failed_at / 1000, f"dead-lettered{where}: {row.cause} {row.code}", row.id, own))
        if row.state != "open":
            lines.append(HistoryLine((row.resolved_at or row.failed_at) / 1000, row.state, row.id, own))
    return sorted(lines, key=lambda line: line.at)


def _dump(value: bytes) -> str:
    """Return bytes as a hexadecimal dump."""
    lines = []
    for at in range(0, min(len(value), _DUMPED), 16):
        row = value[at : at + 16]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<47}  {characters}")
    if len(value) > _DUMPED:
        lines.append(f"… {len(value) - _DUMPED:,} more bytes; run connector dlq export to see all")
    return "\n".join(lines)
