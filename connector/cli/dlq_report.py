"""What `connector dlq` prints for people: dead letters as tables, and one of them in full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from rich.table import Table

from connector.cli.terminal import console_on, raw, safe
from connector.dead_letters.commands import Count, History, facts_json, moment
from connector.dead_letters.reader import DeadLetterEntry
from connector.operations.inspect import Inspection


def show_dead_letters(dead_letters: Sequence[DeadLetterEntry], count: int, stream: TextIO | None = None) -> None:
    """Print a row for each letter; `count` is how many there are in all."""
    console = console_on(stream)
    if not dead_letters:
        console.print("no dead letters that fit")
        return
    table = Table()
    for name in ("id", "failed at", "cause", "code", "destination", "origin", "message"):
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for dead_letter in dead_letters:
        facts = dead_letter.facts
        origin = f"{facts.origin.topic}[{facts.origin.partition}]@{facts.origin.offset}"
        cause = facts.cause if dead_letter.state == "open" else f"{facts.cause} ({dead_letter.state})"
        cells = (facts.id, moment(facts.failed_at), cause, facts.code or "-", facts.destination or "-", origin)
        table.add_row(*map(safe, cells), safe(facts.message))
    console.print(table)
    if count > len(dead_letters):
        console.print(f"the newest {len(dead_letters)} of {count}; more with --limit, all with --json")
    else:
        console.print("one dead letter" if count == 1 else f"{count} dead letters")


def show_stats(counts: Sequence[Count], stream: TextIO | None = None) -> None:
    """Print a row for each cause, code and destination, and the sum."""
    console = console_on(stream)
    if not counts:
        console.print("no dead letters that fit")
        return
    table = Table()
    for name in ("letters", "cause", "code", "destination", "first", "last"):
        table.add_column(name, justify="right" if name == "letters" else "left", overflow="fold")
    for one in counts:
        cells = (str(one.dead_letters), one.cause, one.code or "-", one.destination or "-")
        table.add_row(*map(safe, (*cells, moment(one.first), moment(one.last))))
    console.print(table)
    console.print(f"{sum(one.dead_letters for one in counts)} dead letters")


def show_dead_letter(history: History, inspection: Inspection, stream: TextIO | None = None) -> None:
    """Print one letter in full: why, where from, the event, what would be sent today, and what happened before."""
    console = console_on(stream)
    grid = Table.grid(padding=(0, 2))
    for name, value in _facts(history.dead_letter):
        grid.add_row(f"[dim]{name}[/dim]", safe(value))
    console.print(grid)
    console.print("\n[bold]The event[/bold]" + (f", {safe(inspection.schema)}" if inspection.schema else ""))
    if inspection.schema is not None:
        raw(console, json.dumps(inspection.event, ensure_ascii=False, indent=2))
    if inspection.fault is not None:
        console.print(safe(f"By today's rules: {inspection.fault}"))
    for one in inspection.preparations:
        console.print(f"\n[bold]For {safe(one.destination)} today[/bold]")
        if one.reason is not None:
            console.print(safe(f"not sent, {one.rule}: {one.reason}" if one.rule else f"not sent: {one.reason}"))
        if one.fragment is not None:
            raw(console, one.fragment)
    console.print("\n[bold]History[/bold]")
    for when, what in _history(history):
        console.print(safe(f"{when}  {what}"))


def dead_letter_json(history: History, inspection: Inspection) -> dict[str, Any]:
    """Return what `show --json` prints."""
    return {
        **facts_json(history.dead_letter),
        "schema": inspection.schema,
        "event": inspection.event,
        "fault_today": inspection.fault,
        "destinations_today": [
            {
                "destination": one.destination,
                "dedup_id": one.dedup_id,
                "fragment": one.fragment,
                "rule": one.rule,
                "reason": one.reason,
            }
            for one in inspection.preparations
        ],
        "history": [facts_json(dead_letter) for dead_letter in history.dead_letters],
        "resolutions": [{"id": one.dead_letter, "resolution": one.kind, "at": one.at} for one in history.resolutions],
    }


def _facts(dead_letter: DeadLetterEntry) -> Iterator[tuple[str, str]]:
    """Yield what the letter's headers say, in words."""
    facts = dead_letter.facts
    yield "id", facts.id
    yield "state", dead_letter.state
    yield "cause", facts.cause if facts.code is None else f"{facts.cause}, {facts.code}"
    yield "why", facts.message
    if facts.field is not None:
        yield "field", facts.field
    if facts.destination is not None:
        yield "destination", f"{facts.destination} ({facts.vendor})"
    if facts.http_status is not None:
        yield "answer", f"HTTP {facts.http_status}" + (f", request {facts.request_id}" if facts.request_id else "")
    if facts.attempts:
        began = "" if facts.first_attempt is None else f", the first at {moment(facts.first_attempt)}"
        yield "attempts", f"{facts.attempts}{began}"
    yield "failed at", moment(facts.failed_at)
    yield "came from", f"{facts.origin.topic}, partition {facts.origin.partition}, offset {facts.origin.offset}"
    yield "dedup id", facts.dedup_id
    yield "replays", str(facts.replays)
    if facts.edited:
        yield "edited", " ".join(facts.edited)
    if dead_letter.record.key is not None:
        yield "key", dead_letter.record.key.decode(errors="backslashreplace")


def _history(history: History) -> Iterator[tuple[str, str]]:
    """Yield what happened to the event, in order of time."""
    lines = []
    for dead_letter in history.dead_letters:
        facts = dead_letter.facts
        where = "" if facts.destination is None else f" for {facts.destination}"
        what = f"dead-lettered{where}: {facts.cause}{'' if facts.code is None else f' {facts.code}'}"
        mark = " (this letter)" if facts.id == history.dead_letter.facts.id else ""
        lines.append((moment(facts.failed_at), f"{what}, {facts.id}{mark}"))
    lines += [(one.at, f"{one.kind}, {one.dead_letter}") for one in history.resolutions]
    yield from sorted(lines)
