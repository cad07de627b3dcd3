"""The commands `connector dlq …`: arguments in, calls out, an exit code back."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, File, fail, in_loop, read_config
from connector.config.loader import Loaded

SHOWN: Final = 50
"""Rows of a table unless --limit says otherwise."""

dlq = typer.Typer(name="dlq", help="Dead letters: list, count, look into, export.", no_args_is_help=True)

Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Only letters with this cause, code, field, vendor, destination, group, http-status, replays, dedup-id or "
        "id; repeatable: one name twice allows both values, several names all have to fit.",
    ),
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only what failed in the last 2h (30m, 3d), or after a time.")
]
Key = Annotated[str | None, typer.Option(metavar="TEXT", help="Only records with this key.")]
Topic = Annotated[list[str] | None, typer.Option(metavar="TOPIC", help="Only records of this topic; repeatable.")]
All = Annotated[bool, typer.Option("--all", help="Also what is replayed or discarded.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]


@dlq.command("list")
def list_dead_letters(
    *,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    key: Key = None,
    topic: Topic = None,
    resolved: All = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"The newest N; default: {SHOWN} in a table, all as JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List dead letters: the newest in a table, or all of them as JSON Lines, as they stand in the topic."""
    from connector.cli import dlq_report as dead_letters_report
    from connector.dead_letters import commands

    wanted = read_filter(where, since, key, topic)
    with commands.open_archive(quiet(config).settings) as archive:
        if as_json and limit is None:
            for dead_letter in archive.dead_letters(wanted, resolved=resolved):
                _print(commands.facts_json(dead_letter))
        else:
            dead_letters, count = archive.newest(wanted, limit or SHOWN, resolved=resolved)
            if as_json:
                for dead_letter in dead_letters:
                    _print(commands.facts_json(dead_letter))
            else:
                dead_letters_report.show_dead_letters(dead_letters, count)
        _warn(archive.survey.foreign)


@dlq.command()
def stats(
    *,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    key: Key = None,
    topic: Topic = None,
    resolved: All = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by cause, code and destination."""
    from connector.cli import dlq_report as dead_letters_report
    from connector.dead_letters import commands

    wanted = read_filter(where, since, key, topic)
    with commands.open_archive(quiet(config).settings) as archive:
        counts = archive.stats(wanted, resolved=resolved)
        if as_json:
            for one in counts:
                _print(one.as_json())
        else:
            dead_letters_report.show_stats(counts)
        _warn(archive.survey.foreign)


@dlq.command()
def show(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The letter's id, or its first 8 characters or more.")],
    *,
    config: File = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Show one dead letter in full: why, the event, exactly what would be sent today, and what happened before."""
    from connector.cli import dlq_report as dead_letters_report
    from connector.dead_letters import commands
    from connector.operations.inspect import inspect

    loaded = quiet(config)
    with commands.open_archive(loaded.settings) as archive:
        history = archive.find(identity)
    inspection = in_loop(inspect(loaded, history.dead_letter, history.cluster_id))
    if as_json:
        _print(dead_letters_report.dead_letter_json(history, inspection))
    else:
        dead_letters_report.show_dead_letter(history, inspection)


@dlq.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written anew; must not exist. -: standard output.")],
    *,
    config: File = DEFAULT_FILE,
    form: Annotated[
        Literal["jsonl", "avro"] | None, typer.Option("--format", help="Default: by the file's ending, else jsonl.")
    ] = None,
    where: Where = None,
    since: Since = None,
    key: Key = None,
    topic: Topic = None,
    resolved: All = False,
) -> None:
    """Write dead letters with key, value and headers, byte for byte: JSON Lines, or an Avro container file."""
    from connector.dead_letters import commands

    wanted = read_filter(where, since, key, topic)
    written = form or ("avro" if file.suffix == ".avro" else "jsonl")
    with commands.open_archive(quiet(config).settings) as archive:
        dead_letters = archive.dead_letters(wanted, resolved=resolved)
        try:
            if str(file) == "-":
                count = commands.export(dead_letters, sys.stdout.buffer, written)
            else:
                with file.open("xb") as out:
                    count = commands.export(dead_letters, out, written)
        except FileExistsError:
            fail(f"{file} exists already; name another file", FAILED)
        except OSError as error:
            fail(f"{file} cannot be written: {error.strerror or error}", FAILED)
        _warn(archive.survey.foreign)
    sys.stderr.write(f"{count} dead letters written\n")


def quiet(config: Path) -> Loaded:
    """Read the configuration and set up logging."""
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    configure(loaded.settings.log)
    return loaded


def read_filter(where: list[str] | None, since: str | None, key: str | None, topics: list[str] | None) -> Any:
    """Return what the options ask for; end with 2 where they mean nothing."""
    from connector.dead_letters.filters import Filter, parse_since, parse_where

    try:
        return Filter(
            parse_where(where or ()),
            None if since is None else parse_since(since, int(time.time() * 1000)),
            None if key is None else key.encode(errors="surrogateescape"),
            frozenset(topics or ()),
        )
    except ValueError as error:
        fail(str(error), BAD_CONFIGURATION)


def _print(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def _warn(foreign: int) -> None:
    """Say that the topic holds what is no dead letter."""
    if foreign:
        sys.stderr.write(f"{foreign} records of the dead-letter topic are not the connector's and were left out\n")
