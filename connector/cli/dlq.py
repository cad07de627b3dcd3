"""The commands `connector dlq list`, `stats`, `show` and `export`: their arguments and output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from connector.cli.common import (
    BAD_CONFIGURATION,
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
    print_table,
    say,
    stdout_width,
)
from connector.cli.explain import show_inspection
from connector.errors import counted

if TYPE_CHECKING:
    from connector.config.loader import Settings
    from connector.dead_letters.archive import Archive, Count, DeadLetterHistory
    from connector.dead_letters.export import Format
    from connector.dead_letters.filters import Filter
    from connector.dead_letters.inspection import Inspection
    from connector.dead_letters.reader import DeadLetterEntry
    from connector.records import Record

_BY_SUFFIX: Final[Mapping[str, Format]] = {".avro": "avro", ".csv": "csv"}
SHOWN: Final = 50
"""Rows of a table unless --limit says otherwise."""
_WIDE: Final = 120
"""From this many columns on, a list shows whole ids. Commands also accept their first 8 characters."""
NONE_MATCH: Final = "no matching dead letters"

dlq = typer.Typer(
    name="dlq", help="Dead letters: list, count, show, export, replay and discard them.", no_args_is_help=True
)

Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Only dead letters with this cause, code, field, vendor, destination, group, http-status, replays, "
        "dedup-id, id, topic, partition, offset, header.NAME or event.PATH; repeatable. Several "
        "values of one name are alternatives; different names must all match.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only what failed in the last 30m, 2h or 3d, or since a time with a zone."),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only what failed before: 30m, 2h or 3d ago, or a time with a zone."),
]
Contains = Annotated[str | None, typer.Option(metavar="TEXT", help="Only records with this text in key or value.")]
Key = Annotated[str | None, typer.Option(metavar="TEXT", help="Only records with this key.")]
Topic = Annotated[list[str] | None, typer.Option(metavar="TOPIC", help="Only records of this topic; repeatable.")]
All = Annotated[bool, typer.Option("--all", help="Include replayed and discarded dead letters.")]


@dlq.command("list")
def list_dead_letters(  # noqa: PLR0913 -- each option is one of the command line
    *,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    resolved: All = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"Only the newest N. Default: {SHOWN} in a table, all with --json."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List dead letters: the newest in a table, or all of them as JSON Lines in the topic's order."""
    from connector.dead_letters.export import facts_json
    from connector.operations.events import matching_events

    wanted = read_filter(where, since, until, key, topic, contains)
    loaded = begin(config)
    with open_archive(loaded.settings) as archive, matching_events(loaded, wanted) as wanted:
        if as_json and limit is None:
            emit(archive.dead_letters(wanted, resolved=resolved), as_json, facts_json, lambda _: None)
        else:
            newest, count = archive.newest(wanted, limit or SHOWN, resolved=resolved)
            emit(newest, as_json, facts_json, lambda rows: show_dead_letters(rows, count))
        _report_foreign(archive.foreign)


@dlq.command()
def stats(  # noqa: PLR0913 -- each option is one of the command line
    *,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    resolved: All = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by cause, code and destination."""
    from connector.dead_letters.archive import Count
    from connector.operations.events import matching_events

    wanted = read_filter(where, since, until, key, topic, contains)
    loaded = begin(config)
    with open_archive(loaded.settings) as archive, matching_events(loaded, wanted) as wanted:
        emit(archive.stats(wanted, resolved=resolved), as_json, Count.as_json, show_stats)
        _report_foreign(archive.foreign)


@dlq.command()
def show(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="The dead letter's id, or its first 8 characters or more.")
    ],
    *,
    config: File = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Show one dead letter in full: why it failed, its event, what would be sent today, and its history."""
    from connector.operations.inspect import inspect

    loaded = begin(config)
    with open_archive(loaded.settings) as archive:
        history = archive.find(identity)
    inspection = in_loop(inspect(loaded, history.dead_letter, history.cluster_id))
    emit(
        [history],
        as_json,
        lambda found: dead_letter_json(found, inspection),
        lambda found: show_dead_letter(found[0], inspection),
    )


@dlq.command()
def export(  # noqa: PLR0913 -- each option is one of the command line
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; - is standard output.")],
    *,
    config: File = DEFAULT_FILE,
    form: Annotated[
        Literal["jsonl", "csv", "avro"] | None,
        typer.Option("--format", help="Default: by the file's extension, .avro or .csv, else jsonl."),
    ] = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    resolved: All = False,
) -> None:
    """Write dead letters with key, value and headers, byte for byte, as JSON Lines, CSV or an Avro container file."""
    from connector.dead_letters.export import export as write_dead_letters
    from connector.operations.events import matching_events

    wanted = read_filter(where, since, until, key, topic, contains)
    written = form or _BY_SUFFIX.get(file.suffix, "jsonl")
    loaded = begin(config)
    with open_archive(loaded.settings) as archive, matching_events(loaded, wanted) as wanted:
        dead_letters = archive.dead_letters(wanted, resolved=resolved)
        if str(file) == "-":
            count = write_dead_letters(dead_letters, sys.stdout.buffer, written)
        else:
            count = _write_file(file, dead_letters, written)
        _report_foreign(archive.foreign)
    say(f"{counted(count, 'dead letter')} written")


def _write_file(file: Path, dead_letters: Iterator[DeadLetterEntry], form: Format) -> int:
    """Write a new file completely or not at all; exit with 1 if that is impossible.

    Only its owner may read it, because it contains the records. The part file keeps another export to the same name
    from starting. It is linked, not renamed, to its final name, because a link never replaces a file.
    """
    from connector.dead_letters.export import export as write_dead_letters

    part = file.with_name(f"{file.name}.part")
    if file.exists():
        fail(f"{file} already exists; name another file", FAILED)
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            try:
                count = write_dead_letters(dead_letters, out, form)
                out.flush()
                os.link(part, file)
            finally:
                part.unlink()
    except FileExistsError as error:
        fail(f"{error.filename2 or error.filename} already exists; name another file, or remove it", FAILED)
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror or error}", FAILED)
    return count


@contextmanager
def open_archive(settings: Settings) -> Iterator[Archive]:
    """Open the dead-letter topic; on a terminal, show progress on standard error. Raises `StartupError`."""
    from rich.console import Console
    from rich.progress import Progress

    from connector.dead_letters.archive import Archive
    from connector.kafka.topic_reader import TopicReader

    with (
        TopicReader(settings.kafka) as reader,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress,
    ):
        topic = reader.whole(settings.dead_letter_topic)
        if (why := in_loop(_compacted(settings))) is not None:
            say(f"warning: {why}")

        def records(what: str) -> Iterator[Record]:
            task = progress.add_task(what, total=topic.total)
            yield from topic.records(lambda done, total: progress.update(task, completed=done, total=total))
            progress.remove_task(task)

        yield Archive(records, lambda places: reader.at(settings.dead_letter_topic, places), topic.cluster_id)


async def _compacted(settings: Settings) -> str | None:
    """Return the message about a compacted dead-letter topic; None if it is not compacted."""
    from connector.kafka.retention import Retention

    async with Retention(settings.kafka) as retention:
        return await retention.compacted(settings.dead_letter_topic)


def read_filter(
    where: list[str] | None,
    since: str | None,
    until: str | None,
    key: str | None,
    topics: list[str] | None,
    contains: str | None,
) -> Filter:
    """Return the filter for the options; exit with 2 if one is invalid."""
    from connector.dead_letters.filters import parse_time, parse_where

    now = int(time.time() * 1000)
    try:
        return replace(
            parse_where(where or ()),
            since=None if since is None else parse_time("--since", since, now),
            until=None if until is None else parse_time("--until", until, now),
            key=None if key is None else key.encode(errors="surrogateescape"),
            topics=frozenset(topics or ()),
            contains=None if contains is None else contains.encode(errors="surrogateescape"),
        )
    except ValueError as error:
        fail(str(error), BAD_CONFIGURATION)


def show_dead_letters(dead_letters: Sequence[DeadLetterEntry], count: int) -> None:
    """Print a row for each dead letter; `count` is how many match in all."""
    from connector.dead_letters.block import time_text as moment

    if not dead_letters:
        print_line(NONE_MATCH)
        return
    length = _id_length([each.facts.id for each in dead_letters])
    rows = []
    for dead_letter in dead_letters:
        facts = dead_letter.facts
        cause = facts.cause if dead_letter.state == "open" else f"{facts.cause} ({dead_letter.state})"
        where = (facts.destination, facts.origin)
        rows.append((facts.id[:length], moment(facts.failed_at), cause, facts.code, *where, facts.message))
    print_table(("id", "failed at", "cause", "code", "destination", "origin", "message"), rows, whole=("id",))
    if count > len(dead_letters):
        print_line(f"the newest {len(dead_letters)} of {counted(count, 'dead letter')}; more with --limit N or --json")
    else:
        print_line(counted(count, "dead letter"))


def _id_length(ids: Sequence[str]) -> int | None:
    """Return how many characters of ids to show: all on a wide output, else as few as distinguish them, at least 8."""
    if stdout_width() >= _WIDE:
        return None
    return next((size for size in range(8, 36) if len({each[:size] for each in ids}) == len(set(ids))), None)


def show_stats(counts: Sequence[Count]) -> None:
    """Print a row for each cause, code and destination, and the sum."""
    from connector.dead_letters.block import time_text as moment

    if not counts:
        print_line(NONE_MATCH)
        return
    print_table(
        ("dead letters", "cause", "code", "destination", "first failed at", "last failed at"),
        (
            (count.dead_letters, count.cause, count.code, count.destination, moment(count.first), moment(count.last))
            for count in counts
        ),
        right=("dead letters",),
    )
    print_line(counted(sum(count.dead_letters for count in counts), "dead letter"))


def show_dead_letter(history: DeadLetterHistory, inspection: Inspection) -> None:
    """Print one dead letter in full: its reason, its origin, the event, what would be sent today, and its history."""
    print_pairs(_header_lines(history.dead_letter, inspection.hidden))
    show_inspection(inspection)
    print_heading("History")
    for when, what in _history_lines(history):
        print_line(f"{when}  {what}")


def dead_letter_json(history: DeadLetterHistory, inspection: Inspection) -> dict[str, Any]:
    """Return what `show --json` prints."""
    from connector.dead_letters.export import facts_json
    from connector.vendors import code_meaning

    facts = history.dead_letter.facts
    explained = code_meaning(facts.vendor, facts.code, facts.message)
    return {
        **facts_json(history.dead_letter),
        "meaning": None if explained is None else explained.meaning,
        "solution": None if explained is None else explained.solution,
        "schema": inspection.schema,
        "event": inspection.event,
        "fault_today": inspection.fault,
        "destinations_today": [
            {
                "destination": preparation.destination,
                "dedup_id": preparation.dedup_id,
                "fragment": preparation.fragment,
                "rule": preparation.rule,
                "reason": preparation.reason,
            }
            for preparation in inspection.preparations
        ],
        "history": [facts_json(dead_letter) for dead_letter in history.dead_letters],
        "resolutions": [
            {"id": resolution.dead_letter, "resolution": resolution.kind, "at": resolution.at}
            for resolution in history.resolutions
        ],
    }


def _header_lines(dead_letter: DeadLetterEntry, hidden: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the facts in the dead letter's headers as text, without what is `hidden`."""
    from connector.console.masking import cover
    from connector.dead_letters.block import time_text as moment
    from connector.vendors import explained

    facts = dead_letter.facts
    yield "id", facts.id
    yield "state", dead_letter.state
    yield "cause", facts.cause if facts.code is None else f"{facts.cause}, {facts.code}"
    yield "reason", explained(facts.vendor, facts.code, facts.message)
    if facts.field is not None:
        yield "field", facts.field
    if facts.destination is not None:
        yield "destination", f"{facts.destination} ({facts.vendor})"
    if facts.http_status is not None:
        yield "answer", f"HTTP {facts.http_status}" + (f", request {facts.request_id}" if facts.request_id else "")
    if facts.attempts:
        first = "" if facts.first_attempt is None else f", the first at {moment(facts.first_attempt)}"
        yield "attempts", f"{facts.attempts}{first}"
    yield "failed at", moment(facts.failed_at)
    yield "origin", f"{facts.origin.topic}, partition {facts.origin.partition}, offset {facts.origin.offset}"
    yield "dedup id", facts.dedup_id
    yield "replays", str(facts.replays)
    if facts.edited:
        yield "edited", " ".join(facts.edited)
    if dead_letter.record.key is not None:
        yield "key", cover(bytes_text(dead_letter.record.key), hidden)


def _history_lines(history: DeadLetterHistory) -> Iterator[tuple[str, str]]:
    """Yield what happened to the event, in order."""
    from connector.dead_letters.block import time_text as moment

    lines = []
    for dead_letter in history.dead_letters:
        facts = dead_letter.facts
        where = "" if facts.destination is None else f" for {facts.destination}"
        what = f"dead-lettered{where}: {facts.cause}{'' if facts.code is None else f' {facts.code}'}"
        mark = " (this dead letter)" if facts.id == history.dead_letter.facts.id else ""
        lines.append((moment(facts.failed_at), f"{what}, {facts.id}{mark}"))
    lines += [(resolution.at, f"{resolution.kind}, {resolution.dead_letter}") for resolution in history.resolutions]
    yield from sorted(lines)


def _report_foreign(foreign: int) -> None:
    """Print how many records of the topic are not dead letters of the connector."""
    if foreign:
        is_or_are = "is" if foreign == 1 else "are"
        say(f"{counted(foreign, 'record')} of the dead-letter topic {is_or_are} not the connector's and not shown")
