"""The command `connector offsets`: arguments in, calls out, an exit code back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, File, fail, in_loop, read_config

if TYPE_CHECKING:
    from connector.config.loader import Settings
    from connector.operations.offsets import PartitionState

To = str | int


def offsets(  # noqa: PLR0913 -- each option is one of the command line
    *,
    action: Annotated[Literal["show", "reset"], typer.Argument(help="What to do.")] = "show",
    config: File = DEFAULT_FILE,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Any consumer group; default: kafka.group_id.")
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(metavar="TOPIC", help="Only this topic; repeatable.")] = None,
    partition: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", min=0, help="Only partitions of this number; repeatable.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="earliest|latest|OFFSET|TIMESTAMP",
            help="Where reset goes: a whole number is an offset, a point in time has its zone (2026-11-20T00:00:00Z).",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what reset would do, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Reset without a question.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show what a group has committed, the map of what is finished above that, lag and true backlog; or reset it.

    reset wants a stopped group. What it goes back over is sent again with the same dedup ids; the replay topic only
    where --topic names it.
    """
    from connector.cli import offsets_report
    from connector.operations import offsets as app_offsets
    from connector.telemetry.logs import configure

    if action == "show" and (to is not None or dry_run or yes):
        fail("--to, --dry-run and --yes belong to offsets reset", BAD_CONFIGURATION)
    target = _target(to) if action == "reset" else None
    settings = read_config(config).settings
    configure(settings.log)
    name = group or settings.kafka.group_id
    states = in_loop(app_offsets.read(settings, name, topic or (), partition or ()))
    if action == "show" or target is None:
        if as_json:
            sys.stdout.writelines(offsets_report.as_lines(states))
        else:
            offsets_report.show_states(name, states)
        return
    in_loop(app_offsets.refuse_running(settings, name))
    # What was replayed once is not to be sent again by the way: who wants that names the topic.
    states = [one for one in states if topic or one.topic != settings.replay_topic]
    moves = list(app_offsets.plan(states, _targets(settings, states, target)))
    if as_json:
        sys.stdout.writelines(offsets_report.as_lines(moves))
    elif moves:
        offsets_report.show_moves(name, moves)
    if not moves:
        sys.stderr.write(f"nothing to do: no partition of group {name} would change\n")
        return
    if dry_run:
        return
    _ask(yes=yes, count=len(moves), group=name)
    in_loop(app_offsets.apply(settings, name, moves))
    sys.stderr.write(f"{len(moves)} offsets of group {name} are set\n")


def _targets(settings: Settings, states: Sequence[PartitionState], target: To) -> dict[tuple[str, int], int]:
    """Return the offset that is meant in each partition that exists."""
    from connector.operations import offsets as app_offsets

    if isinstance(target, int):
        return {(one.topic, one.partition): target for one in states if one.end is not None}
    return in_loop(app_offsets.targets_of(settings, states, _moment(target)))


def _target(to: str | None) -> To:
    """Return an offset as a number, anything else as its text once it is known to mean something."""
    if to is None:
        fail("offsets reset needs --to earliest|latest|OFFSET|TIMESTAMP", BAD_CONFIGURATION)
    if to.isdecimal():
        return int(to)
    _moment(to)
    return to


def _moment(to: str) -> To:
    """Return `earliest`, `latest`, or a point in time as epoch milliseconds."""
    from connector.config.values import parse_start

    try:
        moment = parse_start(to)
    except ValueError:
        moment = None
    if not isinstance(moment, (str, int)):
        allowed = "earliest, latest, an offset, or a time with its zone such as 2026-11-20T00:00:00Z"
        fail(f"--to is none of {allowed}", BAD_CONFIGURATION)
    return moment


def _ask(*, yes: bool, count: int, group: str) -> None:
    """Return where the reset is wanted: said by --yes, or answered on a terminal; else end."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail("nobody can be asked here: say --yes to reset, or --dry-run to look", BAD_CONFIGURATION)
    if not typer.confirm(f"Set {count} offsets of group {group}?", err=True):
        sys.stderr.write("nothing was changed\n")
        raise SystemExit(0)
