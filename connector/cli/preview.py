"""The command `connector preview`: arguments in, calls out, an exit code back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, File, fail, in_loop, read_config

if TYPE_CHECKING:
    from connector.operations.sample import Speed, Start


def preview(
    *,
    config: File = DEFAULT_FILE,
    records: Annotated[int, typer.Option(min=1, metavar="N", help="Read at most so many, of all partitions.")] = 10_000,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="group|earliest|newest|TIME",
            help="group: where the group would go on, or kafka.start; newest: the last N; a time has its zone.",
        ),
    ] = "group",
    topic: Annotated[list[str] | None, typer.Option(metavar="TOPIC", help="Only this topic; repeatable.")] = None,
    speed: Annotated[
        str,
        typer.Option(
            metavar="topic|backlog|RATE",
            help="How the records come in: at the pace of their timestamps, all at once, or so many a second.",
        ),
    ] = "topic",
    latency: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the vendors are taken to answer.")
    ] = "100ms",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show what a run would send, refuse and skip, in which batches and at what rate, of records that are there now.

    Nothing is sent and nothing committed. Decoding, routing, the vendors' rules, batching and rate limits are those of
    a run; that the vendors accept what keeps their rules is assumed.
    """
    from connector.cli import preview_report
    from connector.operations import preview as app_preview
    from connector.operations import sample as app_sample
    from connector.telemetry.logs import configure

    wish = app_sample.Wish(records, _start(start), frozenset(topic or ()))
    pace, seconds = _speed(speed), _latency(latency)
    loaded = read_config(config)
    configure(loaded.settings.log)
    sample = in_loop(app_sample.read(loaded, wish))
    # What the pipeline says of itself is about a run that does not take place.
    configure(loaded.settings.log.model_copy(update={"level": "error"}))
    seen = app_preview.preview(loaded.settings, sample, pace, seconds)
    if as_json:
        sys.stdout.writelines(preview_report.as_lines(seen, pace))
    else:
        preview_report.show(seen, pace)


def _start(text: str) -> Start:
    """Return where to read from; end with 2 where it means nothing."""
    from connector.config.values import parse_start

    if text in ("group", "earliest", "newest"):
        return text  # type: ignore[return-value]  # one of the three
    try:
        moment = parse_start(text)
    except ValueError:
        moment = None
    if not isinstance(moment, int):
        fail("--from is group, earliest, newest, or a time with its zone: 2026-11-20T00:00:00Z", BAD_CONFIGURATION)
    return moment


def _speed(text: str) -> Speed:
    """Return the pace; end with 2 where it means nothing."""
    if text in ("topic", "backlog"):
        return text  # type: ignore[return-value]  # one of the two
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e9:
        fail("--speed is topic, backlog, or a number of records a second", BAD_CONFIGURATION)
    return rate


def _latency(text: str) -> float:
    """Return seconds; end with 2 where the text is no duration."""
    from connector.config.values import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = None
    if not isinstance(seconds, float) or seconds <= 0:
        fail("--latency is a duration such as 100ms or 2s", BAD_CONFIGURATION)
    return seconds
