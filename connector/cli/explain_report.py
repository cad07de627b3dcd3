"""What `connector explain` prints: one record's story for people, and as one JSON line for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from connector.cli.terminal import console_on, raw, safe
from connector.dead_letters.commands import facts_json, moment
from connector.operations.explain import Explanation, Finished, Receipt
from connector.operations.inspect import Preparation
from connector.records import NO_TIMESTAMP, Record


def as_json(told: Explanation) -> str:
    """Return everything as one line: key, value and headers in base64, times as ISO 8601."""
    inspection = told.inspection
    return json.dumps(
        {
            "topic": told.position.topic,
            "partition": told.position.partition,
            "offset": told.position.offset,
            "missing": told.missing,
            "record": None if told.record is None else _record_json(told.record),
            "replay_of": None if told.origin is None else told.origin.origin._asdict(),
            "schema": None if inspection is None else inspection.schema,
            "event": None if inspection is None else inspection.event,
            "fault": None if inspection is None else inspection.fault,
            "destinations": []
            if inspection is None
            else [_preparation_json(told, one) for one in inspection.preparations],
            "groups": [
                {
                    "group": one.group,
                    "committed": one.state.committed,
                    "finished": one.by is not None,
                    "by": one.by,
                    "finished_for": list(one.destinations),
                    "members": one.members,
                    "metadata_fault": one.state.fault,
                }
                for one in told.finished
            ],
            "dead_letters": [facts_json(dead_letter) for dead_letter in told.dead_letters],
            "resolutions": [{"id": one.dead_letter, "resolution": one.kind, "at": one.at} for one in told.resolutions],
            "replays": [one._asdict() for one in told.replays],
            "receipts": None if told.receipts is None else [_receipt_json(one) for one in told.receipts],
            "notes": list(told.notes),
        },
        ensure_ascii=False,
    )


def show(told: Explanation, stream: TextIO | None = None) -> None:
    """Print the record, what would be made of it today, and what became of it."""
    console = console_on(stream)
    topic, partition, offset = told.position
    console.print(f"[bold]{safe(topic)}, partition {partition}, offset {offset}[/bold]")
    if told.missing is not None:
        console.print(safe(f"The record is gone: {told.missing}."))
    if told.origin is not None:
        at = told.origin.origin
        console.print(safe(f"It is a replay of {at.topic}, partition {at.partition}, offset {at.offset}."))
    if told.record is not None:
        _grid(console, _facts(told.record))
    if told.inspection is not None:
        _show_event(console, told)
    console.print("\n[bold]What became of it[/bold]")
    _grid(console, _story(told))
    for note in told.notes:
        console.print(safe(f"Note: {note}"))


def _show_event(console: Console, told: Explanation) -> None:
    inspection = told.inspection
    assert inspection is not None  # noqa: S101 -- the caller has looked
    console.print("\n[bold]The event[/bold]" + (f", {safe(inspection.schema)}" if inspection.schema else ""))
    if inspection.schema is not None:
        raw(console, json.dumps(inspection.event, ensure_ascii=False, indent=2))
    if inspection.fault is not None:
        console.print(safe(f"By today's rules: {inspection.fault}"))
    elif not inspection.preparations:
        console.print("By today's rules: no route takes it, and unrouted: skip passes over it")
    for one in inspection.preparations:
        how = "" if one.route is None else f", by routes[{one.route}]"
        console.print(f"\n[bold]For {safe(one.destination)} today[/bold]{safe(how)}")
        if one.reason is not None:
            console.print(safe(f"not sent, {one.rule}: {one.reason}" if one.rule else f"not sent: {one.reason}"))
        if one.fragment is not None:
            raw(console, one.fragment)


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    """Yield what the record is, as text where it is text."""
    yield "key", "null" if record.key is None else record.key.decode(errors="backslashreplace")
    yield "timestamp", "none" if record.timestamp == NO_TIMESTAMP else moment(record.timestamp)
    yield "value", "null" if record.value is None else f"{len(record.value)} bytes"
    for name, value in record.headers:
        yield "header", f"{name}: {'null' if value is None else value.decode(errors='backslashreplace')}"


def _story(told: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what became of it: offsets, dead letters, replays, receipts."""
    for group in told.finished:
        members = "no member runs" if not group.members else f"members running: {group.members}"
        yield f"group {group.group}", f"{_how_far(group)} ({members})"
    states = {one.dead_letter: one for one in told.resolutions}
    for dead_letter in told.dead_letters:
        facts, done = dead_letter.facts, states.get(dead_letter.facts.id)
        where = "" if facts.destination is None else f" for {facts.destination}"
        code = "" if facts.code is None else f" {facts.code}"
        end = "open" if done is None else f"{done.kind} {done.at}"
        yield "dead letter", f"{facts.id}{where}, {moment(facts.failed_at)}: {facts.cause}{code}, {end}"
        yield "", facts.message
    if not told.dead_letters:
        yield "dead letters", "none"
    for at in told.replays:
        yield "replay", f"{at.topic}, partition {at.partition}, offset {at.offset}"
    if told.receipts is None:
        yield "receipts", "not written: receipts.topic is not set"
        return
    for receipt in told.receipts:
        datum = receipt.datum
        answer = f"HTTP {datum['http_status']}" + (f", request {datum['request_id']}" if datum["request_id"] else "")
        yield f"accepted by {datum['destination']}", f"{moment(datum['delivered_at'])}, {answer}"
        of = "" if receipt.position == told.position else f", as the replay at offset {receipt.position.offset}"
        yield "", f"batch {datum['id']} of {datum['records']} records, attempt {datum['attempts']}{of}"
    if not told.receipts:
        yield "receipts", "none"


def _how_far(one: Finished) -> str:
    """Say how far a group is with the record."""
    committed = one.state.committed
    if committed is None:
        return "has committed nothing of this partition yet"
    if one.by == "committed":
        return f"finished, below the committed offset {committed}"
    if one.by == "map":
        return f"finished, in the offset map above the committed offset {committed}"
    fault = f"; {one.state.fault}" if one.state.fault else ""
    if one.destinations:
        return f"finished for {', '.join(one.destinations)} only; committed is {committed}{fault}"
    return f"not finished as far as is committed, which is offset {committed}{fault}"


def _preparation_json(told: Explanation, one: Preparation) -> dict[str, Any]:
    """Return what one destination would be sent, and whether the record is finished for it."""
    finished = any(group.by is not None or one.destination in group.destinations for group in _groups_of(told, one))
    return {
        "destination": one.destination,
        "route": one.route,
        "dedup_id": one.dedup_id,
        "fragment": one.fragment,
        "rule": one.rule,
        "reason": one.reason,
        "finished": finished,
    }


def _groups_of(told: Explanation, one: Preparation) -> list[Finished]:
    """Return the groups that may deliver to a destination: its own where that has been there, else the common one."""
    own = [group for group in told.finished[1:] if group.group.endswith(f".{one.destination}")]
    return own or list(told.finished[:1])


def _grid(console: Console, rows: Iterator[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(f"[dim]{safe(name)}[/dim]", safe(value))
    console.print(grid)


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "timestamp": None if record.timestamp == NO_TIMESTAMP else moment(record.timestamp),
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [{"name": name, "value": _base64(value)} for name, value in record.headers],
    }


def _receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt in its schema's fields, times as ISO 8601, and the place by which it names the record."""
    times = {name: receipt.datum[name] for name in ("delivered_at", "first_attempt")}
    shown = {name: None if time is None else moment(time) for name, time in times.items()}
    return {**receipt.datum, **shown, "names": receipt.position._asdict()}


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
