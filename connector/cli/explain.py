"""The command `connector explain`: everything known about one record, for people and as one JSON line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.common import (
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    begin,
    bytes_text,
    emit,
    fail,
    in_loop,
    print_heading,
    print_line,
    print_pairs,
    print_raw,
)
from connector.cli.member import Offset, Partition, Topic
from connector.errors import counted
from connector.records import NO_TIMESTAMP, Position, Record

if TYPE_CHECKING:
    from connector.dead_letters.inspection import Inspection, Preparation
    from connector.operations.explain import Explanation, Finished, FoundReceipt


def explain(
    *,
    topic: Topic,
    partition: Partition,
    offset: Offset,
    config: File = DEFAULT_FILE,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Search all of the connector's own topics. Default: from an hour before the record on."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to one record: its event, what would be sent today, its progress, dead letters and receipts.

    Nothing is sent or committed. If Kafka no longer has the record, the rest is shown and the exit code is 1.
    """
    from connector.operations import explain as operation

    explanation = in_loop(operation.explain(begin(config), Position(topic, partition, offset), everything=everything))
    emit([explanation], as_json, explanation_json, show)
    if explanation.missing is not None:
        fail(explanation.missing, FAILED)


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Return what `--json` prints: key, value and headers in base64, times as ISO 8601."""
    from connector.dead_letters.export import facts_json

    inspection = explanation.inspection
    return {
        "topic": explanation.position.topic,
        "partition": explanation.position.partition,
        "offset": explanation.position.offset,
        "missing": explanation.missing,
        "record": None if explanation.record is None else _record_json(explanation.record),
        "replay_of": None if explanation.origin is None else explanation.origin.origin._asdict(),
        "schema": None if inspection is None else inspection.schema,
        "event": None if inspection is None else inspection.event,
        "fault": None if inspection is None else inspection.fault,
        "destinations": []
        if inspection is None
        else [_preparation_json(explanation, preparation) for preparation in inspection.preparations],
        "groups": [_group_json(group) for group in explanation.finished],
        "dead_letters": [facts_json(dead_letter) for dead_letter in explanation.dead_letters],
        "resolutions": [
            {"id": resolution.dead_letter, "resolution": resolution.kind, "at": resolution.at}
            for resolution in explanation.resolutions
        ],
        "replays": [replay._asdict() for replay in explanation.replays],
        "receipts": None
        if explanation.receipts is None
        else [_receipt_json(receipt) for receipt in explanation.receipts],
        "notes": list(explanation.notes),
    }


def show(explanations: Sequence[Explanation]) -> None:
    """Print the record, what would be sent for it today, and what happened to it."""
    (explanation,) = explanations
    topic, partition, offset = explanation.position
    print_heading(f"{topic}, partition {partition}, offset {offset}")
    if explanation.missing is not None:
        print_line(f"Kafka no longer has the record: {explanation.missing}.")
    if explanation.origin is not None:
        origin = explanation.origin.origin
        print_line(f"It is a replay of {origin.topic}, partition {origin.partition}, offset {origin.offset}.")
    if explanation.record is not None:
        hidden = explanation.inspection.hidden if explanation.inspection is not None else ()
        print_pairs(_record_lines(explanation.record, hidden))
    if explanation.inspection is not None:
        show_inspection(explanation.inspection)
        if explanation.inspection.fault is None and not explanation.inspection.preparations:
            why = explanation.inspection.skipped or "it goes nowhere"
            print_line(f"By today's rules the record is skipped: {why}.")
    print_heading("What happened to it")
    print_pairs(_outcome_lines(explanation))
    for note in explanation.notes:
        print_line(f"Note: {note}")


def show_inspection(inspection: Inspection) -> None:
    """Print an event, and what each of its destinations would be sent today."""
    print_heading("The event", f", {inspection.schema}" if inspection.schema else "")
    if inspection.schema is not None:
        print_raw(json.dumps(inspection.event, ensure_ascii=False, indent=2))
    if inspection.fault is not None:
        print_line(f"By today's rules: {inspection.fault}")
    for preparation in inspection.preparations:
        how = "" if preparation.route is None else f", by routes[{preparation.route}]"
        print_heading(f"For {preparation.destination} today", how)
        if preparation.reason is not None:
            rule = f", {preparation.rule}" if preparation.rule else ""
            print_line(f"not sent{rule}: {preparation.reason}")
        if preparation.fragment is not None:
            print_raw(preparation.fragment)


def _record_lines(record: Record, hidden: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the record's parts, as text where possible, without what is `hidden`."""
    from connector.console.masking import cover
    from connector.dead_letters.block import time_text as moment

    yield "key", cover(bytes_text(record.key), hidden)
    yield "timestamp", "none" if record.timestamp == NO_TIMESTAMP else moment(record.timestamp)
    yield "value", "null" if record.value is None else counted(len(record.value), "byte")
    for name, value in record.headers:
        yield "header", f"{name}: {cover(bytes_text(value), hidden)}"


def _outcome_lines(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """Yield what happened to the record: offsets, dead letters, replays, receipts."""
    for group in explanation.finished:
        members = "no member runs" if not group.members else f"members running: {group.members}"
        yield f"group {group.group}", f"{_progress(group)} ({members})"
    yield from _dead_letter_lines(explanation)
    for replay in explanation.replays:
        yield "replay", f"{replay.topic}, partition {replay.partition}, offset {replay.offset}"
    yield from _receipt_lines(explanation)


def _dead_letter_lines(explanation: Explanation) -> Iterator[tuple[str, str]]:
    from connector.dead_letters.block import time_text as moment
    from connector.vendors import explained

    resolutions = {resolution.dead_letter: resolution for resolution in explanation.resolutions}
    for dead_letter in explanation.dead_letters:
        facts, resolution = dead_letter.facts, resolutions.get(dead_letter.facts.id)
        where = "" if facts.destination is None else f" for {facts.destination}"
        code = "" if facts.code is None else f" {facts.code}"
        state = (
            dead_letter.state
            if dead_letter.state == "open" or resolution is None
            else f"{resolution.kind} {resolution.at}"
        )
        yield "dead letter", f"{facts.id}{where}, {moment(facts.failed_at)}: {facts.cause}{code}, {state}"
        yield "", explained(facts.vendor, facts.code, facts.message)
    if not explanation.dead_letters:
        yield "dead letters", "none"


def _receipt_lines(explanation: Explanation) -> Iterator[tuple[str, str]]:
    from connector.dead_letters.block import time_text as moment

    if explanation.receipts is None:
        yield "receipts", "not written: receipts.topic is not set"
        return
    for receipt in explanation.receipts:
        datum = receipt.datum
        answer = f"HTTP {datum['http_status']}" + (f", request {datum['request_id']}" if datum["request_id"] else "")
        yield f"accepted by {datum['destination']}", f"{moment(datum['delivered_at'])}, {answer}"
        of = "" if receipt.position == explanation.position else f", as the replay at offset {receipt.position.offset}"
        yield "", f"batch {datum['id']} of {counted(datum['records'], 'record')}, attempt {datum['attempts']}{of}"
    if not explanation.receipts:
        yield "receipts", "none"


def _progress(group: Finished) -> str:
    """Return a group's progress with the record."""
    committed = group.state.committed
    if committed is None:
        return "has not committed anything in this partition yet"
    if group.by == "committed":
        return f"finished: below the committed offset {committed}"
    if group.by == "map":
        return f"finished: in the offset map above the committed offset {committed}"
    fault = f"; {group.state.fault}" if group.state.fault else ""
    if group.destinations:
        return f"finished for {', '.join(group.destinations)} only; the committed offset is {committed}{fault}"
    return f"not finished; the committed offset is {committed}{fault}"


def _group_json(group: Finished) -> dict[str, Any]:
    return {
        "group": group.group,
        "committed": group.state.committed,
        "finished": group.by is not None,
        "by": group.by,
        "finished_for": list(group.destinations),
        "members": group.members,
        "metadata_fault": group.state.fault,
    }


def _preparation_json(explanation: Explanation, preparation: Preparation) -> dict[str, Any]:
    """Return what one destination would be sent, and whether the record is finished for it."""
    groups = _groups_of(explanation, preparation.destination)
    finished = any(group.by is not None or preparation.destination in group.destinations for group in groups)
    return {
        "destination": preparation.destination,
        "route": preparation.route,
        "dedup_id": preparation.dedup_id,
        "fragment": preparation.fragment,
        "rule": preparation.rule,
        "reason": preparation.reason,
        "finished": finished,
    }


def _groups_of(explanation: Explanation, destination: str) -> list[Finished]:
    """Return the group that delivers to a destination: its own if it has ever run alone, else the combined one."""
    own = [group for group in explanation.finished[1:] if group.group.endswith(f".{destination}")]
    return own or list(explanation.finished[:1])


def _record_json(record: Record) -> dict[str, Any]:
    from connector.dead_letters.block import time_text as moment
    from connector.dead_letters.export import base64_text

    return {
        "timestamp": None if record.timestamp == NO_TIMESTAMP else moment(record.timestamp),
        "key": base64_text(record.key),
        "value": base64_text(record.value),
        "headers": [{"name": name, "value": base64_text(value)} for name, value in record.headers],
    }


def _receipt_json(receipt: FoundReceipt) -> dict[str, Any]:
    """Return a receipt's fields with times as ISO 8601, and the position under which it lists the record."""
    from connector.dead_letters.block import time_text as moment

    times = {name: receipt.datum[name] for name in ("delivered_at", "first_attempt")}
    shown = {name: None if time is None else moment(time) for name, time in times.items()}
    return {**receipt.datum, **shown, "names": receipt.position._asdict()}
