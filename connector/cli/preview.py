"""The command `connector preview`: what a run would send, refuse and skip of the records in Kafka now."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    begin,
    emit,
    fail,
    in_loop,
    print_heading,
    print_line,
    print_raw,
    print_table,
    read_event_file,
)
from connector.cli.completion import complete_topic
from connector.errors import counted

if TYPE_CHECKING:
    from connector.config.loader import Loaded
    from connector.operations.preview import Preview, RefusedSummary, Sent
    from connector.operations.sample import RecordSample, Speed, Start

BEHIND: Final = 1.0
"""A last request up to this many seconds after the last record's arrival does not count as late."""


def preview(  # noqa: PLR0913 -- each option is one of the command line
    *,
    config: File = DEFAULT_FILE,
    records: Annotated[int, typer.Option(min=1, metavar="N", help="Read at most N records in all.")] = 10_000,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="START",
            help="group: the group's committed offsets, else kafka.start; earliest; newest: the last N; or a time "
            "with a zone.",
        ),
    ] = "group",
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="Only this topic; repeatable.", autocompletion=complete_topic),
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            metavar="SPEED",
            help="How fast records arrive. topic: at their own timestamps; backlog: all at once; or a number of "
            "records a second.",
        ),
    ] = "topic",
    latency: Annotated[
        str, typer.Option(metavar="DURATION", help="How long a vendor is assumed to take to answer.")
    ] = "100ms",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Read events from a JSON file instead of Kafka.")
    ] = None,
    shown: Annotated[int, typer.Option("--show", min=0, metavar="N", help="Show N events of each destination.")] = 1,
    fail_on_refused: Annotated[
        bool, typer.Option("--fail-on-refused", help="Exit with 1 if a record would be refused.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a run would send, refuse and skip, in which batches and how fast.

    It reads records that are in Kafka now; nothing is sent or committed. Decoding, routes, the vendors' local rules,
    batches and rate limits are those of a run. Vendors are assumed to accept every request.
    """
    from connector.operations import preview as operation
    from connector.operations import sample as samples
    from connector.telemetry.logs import configure

    request = samples.SampleRequest(records, _start(start), frozenset(topic or ()))
    pace, seconds = _speed(speed), _latency(latency)
    if file is None:
        loaded = begin(config)
        sample = in_loop(samples.read(loaded, request))
    else:
        loaded, sample = _of_file(config, file, topic or ())
    # The pipeline would log as in a run, but this is not one.
    configure(loaded.settings.log.model_copy(update={"level": "error"}))
    found = operation.preview(loaded.settings, sample, pace, seconds, shown)
    emit(preview_rows(found, pace), as_json, dict, lambda _: show(found, pace))
    if fail_on_refused and found.refused:
        raise SystemExit(FAILED)


def _of_file(config: Path, file: Path, topics: Sequence[str]) -> tuple[Loaded, RecordSample]:
    """Return the configuration, which needs no secrets here, and the events of a JSON file."""
    from connector.operations.offline import EventFault, Offline, load_offline, read_events
    from connector.operations.sample import of_events

    loaded = load_offline(config, os.environ)
    try:
        events = read_events(read_event_file(str(file), "--file"), str(file))
        if len(topics) == 1:
            events = [replace(event, topic=event.topic or topics[0]) for event in events]
        return loaded, of_events(loaded, Offline(loaded), events)
    except EventFault as fault:
        fail(f"{file}: {fault}", BAD_CONFIGURATION)


def preview_rows(preview: Preview, speed: Speed) -> Iterator[Mapping[str, Any]]:
    """Yield the rows that `--json` prints: one for the sample, one per destination, one per kind of refusal."""
    yield {
        "kind": "sample",
        "speed": speed,
        "read": dict(preview.read),
        "left": preview.left,
        "skipped": dict(preview.skipped),
        "seconds": round(preview.seconds, 3),
        "took": round(preview.took, 3),
        "would_stop": preview.would_stop,
        "storms": list(preview.storms),
    }
    yield from map(_sent_json, preview.sent)
    yield from map(_refused_json, preview.refused)


def show(preview: Preview, speed: Speed) -> None:
    """Print what was read, what each destination would be sent, and what would be refused."""
    for line in _headline(preview, speed):
        print_line(line)
    if not any(preview.read.values()):
        return
    numbers = ("records", "requests", "records each", "bytes each")
    print_table(
        ("destination", *numbers),
        map(_sent_cells, preview.sent),
        title="Would be sent",
        right=numbers,
        whole=("destination",),
    )
    pace = ("requests/s", "peak", "limit")
    print_table(
        ("destination", *pace, "batches closed by"),
        map(_pace_cells, preview.sent),
        title="How fast",
        right=pace,
        whole=("destination",),
    )
    if preview.refused:
        print_heading("Would become dead letters")
    for refused in preview.refused:
        for line in _refused_lines(refused):
            print_line(line)
    for line in _warnings(preview, speed):
        print_line(f"Note: {line}")
    for sent in preview.sent:
        if sent.examples:
            count = len(sent.examples)
            print_heading(f"The first {'event' if count == 1 else f'{count} events'} for {sent.destination}")
        for example in sent.examples:
            print_raw(example)


def _headline(preview: Preview, speed: Speed) -> Iterator[str]:
    """Yield how much was read and how fast it arrives."""
    total = sum(preview.read.values())
    topics = ", ".join(f"{topic} {count}" for topic, count in preview.read.items())
    yield f"{counted(total, 'record')} read ({topics}). Nothing was sent or committed."
    if not total:
        yield "There is nothing to read from there on. Pass --from earliest or --from newest."
        return
    pace = {
        "topic": f"Replayed at their own timestamps, over {_duration(preview.seconds)}",
        "backlog": "Replayed all at once, as after a long stop",
    }.get(str(speed), f"Replayed at {speed:g} records a second" if isinstance(speed, float) else "")
    yield f"{pace}; done after {_duration(preview.took)}."
    if preview.left > 0:
        yield f"{counted(preview.left, 'more offset')} not read; --records sets how many are read."
    if preview.skipped:
        yield "Skipped: " + ", ".join(f"{count} {reason}" for reason, count in preview.skipped.items()) + "."


def _warnings(preview: Preview, speed: Speed) -> Iterator[str]:
    """Yield what else a run would do, as warnings."""
    if preview.would_stop:
        yield "unrouted: stop would end the run at the first record with route.unrouted"
    for storm in preview.storms:
        yield f"a run would set records aside instead of writing more dead letters (storm): {storm}"
    for sent in preview.sent:
        if sent.storm is not None:
            yield f"a run would set records of {sent.destination} aside (storm): too many break {sent.storm}"
        if sent.held:
            yield f"{sent.destination} is held by the configuration (hold: true); a run sends it nothing"
        late = sent.requests[-1][0] - preview.seconds if sent.requests else 0.0
        if speed != "backlog" and late > BEHIND:
            limit = "" if sent.limit is None else f" (its limit is {sent.limit:g} requests/s)"
            yield f"{sent.destination} does not keep up{limit}: its last request is {_duration(late)} late"


def _sent_cells(sent: Sent) -> tuple[object, ...]:
    """Return a destination's row of what is sent."""
    records = [count for _, count, _ in sent.requests]
    sizes = [size for _, _, size in sent.requests]
    return sent.destination, sent.records, len(records), _mean_and_most(records), _mean_and_most(sizes)


def _pace_cells(sent: Sent) -> tuple[object, ...]:
    """Return a destination's row of how fast it is sent, and why batches are closed."""
    count = len(sent.requests)
    return (
        sent.destination,
        f"{count / max(sent.seconds, 1.0):.1f}" if count else "-",
        sent.peak or "-",
        "none" if sent.limit is None else f"{sent.limit:g}/s",
        ", ".join(f"{by} {number}" for by, number in sorted(sent.closed_by.items())) or "-",
    )


def _mean_and_most(values: list[int]) -> str:
    return f"{sum(values) / len(values):.1f}, most {max(values)}" if values else "-"


def _refused_lines(refused: RefusedSummary) -> Iterator[str]:
    """Yield how many records are refused, by which rule and for which destination, and why."""
    code = refused.cause if refused.code is None else f"{refused.code} ({refused.cause})"
    where = "" if refused.destination is None else f" for {refused.destination}"
    yield f"{counted(refused.records, 'record')}{where}: {code}, the first is {refused.example}"
    yield f"  {refused.message}"


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def _sent_json(sent: Sent) -> dict[str, Any]:
    records = [count for _, count, _ in sent.requests]
    sizes = [size for _, _, size in sent.requests]
    return {
        "kind": "destination",
        "destination": sent.destination,
        "vendor": sent.vendor,
        "records": sent.records,
        "requests": len(records),
        "records_per_request": _stats(records),
        "bytes_per_request": _stats(sizes),
        "closed_by": dict(sent.closed_by),
        "requests_per_second": round(len(records) / max(sent.seconds, 1.0), 3),
        "peak_requests_per_second": sent.peak,
        "limit_requests_per_second": sent.limit,
        "seconds": round(sent.seconds, 3),
        "storm": sent.storm,
        "held": sent.held,
        "example": sent.examples[0] if sent.examples else None,
        "examples": sent.examples,
    }


def _stats(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    return {"least": min(values), "mean": round(sum(values) / len(values), 2), "most": max(values)}


def _refused_json(refused: RefusedSummary) -> dict[str, Any]:
    return {
        "kind": "refused",
        "destination": refused.destination,
        "cause": refused.cause,
        "code": refused.code,
        "field": refused.field,
        "records": refused.records,
        "message": refused.message,
        "example": refused.example._asdict(),
    }


def _start(text: str) -> Start:
    """Return where to read from; exit with 2 if the text is not valid."""
    from connector.config.models import parse_start

    if text in ("group", "earliest", "newest"):
        return text  # type: ignore[return-value]  # one of the three
    try:
        time = parse_start(text)
    except ValueError:
        time = None
    if not isinstance(time, int):
        fail(
            f"--from must be group, earliest, newest, or a time with a zone such as 2026-11-20T00:00:00Z; not {text!r}",
            BAD_CONFIGURATION,
        )
    return time


def _speed(text: str) -> Speed:
    """Return the pace; exit with 2 if the text is not valid."""
    if text in ("topic", "backlog"):
        return text  # type: ignore[return-value]  # one of the two
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e9:
        fail(f"--speed must be topic, backlog, or a number of records a second; not {text!r}", BAD_CONFIGURATION)
    return rate


def _latency(text: str) -> float:
    """Return seconds; exit with 2 if the text is not a duration."""
    from connector.config.models import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or seconds <= 0:
        fail(f"--latency must be a duration such as 100ms or 2s; not {text!r}", BAD_CONFIGURATION)
    return seconds
