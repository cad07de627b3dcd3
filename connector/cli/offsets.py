"""The command `connector offsets`: what a group has committed and what is left to do, and its reset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    File,
    Json,
    begin,
    confirm,
    emit,
    fail,
    in_loop,
    print_line,
    print_table,
    say,
)
from connector.cli.completion import complete_topic
from connector.errors import counted

if TYPE_CHECKING:
    from connector.config.loader import Settings
    from connector.operations.offsets import Move, PartitionState
    from connector.records import TopicPartition

To = str | int

_SHOWN_RANGES: Final = 4


def offsets(  # noqa: PLR0913 -- each option is one of the command line
    *,
    action: Annotated[Literal["show", "reset"], typer.Argument(help="What to do.")] = "show",
    config: File = DEFAULT_FILE,
    group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Any consumer group. Default: kafka.group_id.")
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="Only this topic; repeatable.", autocompletion=complete_topic),
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option(metavar="NUMBER", min=0, help="Only partitions of this number; repeatable.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION",
            help="The new position: earliest, latest, an offset, or a time with a zone such as 2026-11-20T00:00:00Z.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what reset would do, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Reset without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Show a group's committed offsets, what is finished above them, lag and backlog; or reset the offsets.

    A reset needs a stopped group. Records below the old offset are sent again, with the same dedup ids. The replay
    topic is reset only if --topic names it.
    """
    from connector.operations import offsets as operation

    if action == "show" and (to is not None or dry_run or yes):
        fail("--to, --dry-run and --yes are options of `connector offsets reset`", BAD_CONFIGURATION)
    target = _target(to) if action == "reset" else None
    settings = begin(config).settings
    name = group or settings.kafka.group_id
    states = in_loop(operation.read(settings, name, topic or (), partition or ()))
    if action == "show" or target is None:
        emit(states, as_json, operation.PartitionState.as_json, lambda found: show_states(name, found))
        return
    in_loop(operation.refuse_running(settings, name))
    # Replayed records must not be sent again by accident, so this topic has to be named.
    states = [state for state in states if topic or state.topic != settings.replay_topic]
    moves = list(operation.plan(states, _targets(settings, states, target)))
    if moves or as_json:
        emit(moves, as_json, operation.Move.as_json, lambda found: show_moves(name, found))
    if not moves:
        say(f"nothing to do: no offset of group {name} would change")
        return
    if dry_run:
        return
    if not confirm(f"Set {counted(len(moves), 'offset')} of group {name}?", "reset", yes=yes):
        say("nothing was changed")
        return
    in_loop(operation.apply(settings, name, moves))
    say(f"{counted(len(moves), 'offset')} of group {name} set")


def show_states(group: str, states: Sequence[PartitionState]) -> None:
    """Print a row for each partition, and the sums."""
    if not states:
        print_line(f"group {group} has no matching committed offsets")
        return
    numbers = ("partition", "committed", "end", "lag", "backlog", "map")
    print_table(
        ("topic", *numbers, "finished above, and faults"),
        (
            (
                *(state.topic, state.partition, state.committed, state.end, state.lag, state.backlog),
                *(f"{state.map_used:.0%}", "; ".join(_notes(state))),
            )
            for state in states
        ),
        title=f"Offsets of group {group}",
        right=numbers,
    )
    lag, backlog = sum(state.lag or 0 for state in states), sum(state.backlog or 0 for state in states)
    print_line(f"lag {lag}, of which unfinished {backlog}")


def show_moves(group: str, moves: Sequence[Move]) -> None:
    """Print a row for each partition whose offset changes."""
    numbers = ("partition", "from", "to", "read again", "skipped", "kept finished")
    print_table(
        ("topic", *numbers),
        (
            (
                *(move.state.topic, move.state.partition, move.state.committed, move.offset),
                *(move.again, move.passed_over, move.kept),
            )
            for move in moves
        ),
        title=f"New offsets of group {group}",
        right=numbers,
    )


def _notes(state: PartitionState) -> Iterator[str]:
    """Yield what is wrong with a partition, and what is finished above its committed offset."""
    if state.out_of_range:
        yield f"OUT OF RANGE: the partition has offsets {state.first} to {state.end}; run `connector offsets reset`"
    if state.fault is not None:
        yield state.fault
    if state.finished.whole.bounds:
        yield _ranges_text(state.finished.whole.bounds)
    for name, runs in state.finished.parts.items():
        yield f"for {name}: {_ranges_text(runs.bounds)}"


def _ranges_text(bounds: Sequence[int]) -> str:
    """Return the first few ranges as text, and how many more there are."""
    from connector.operations.offsets import ranges

    found = ranges(bounds)
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found[:_SHOWN_RANGES])
    more = len(found) - _SHOWN_RANGES
    return text if more <= 0 else f"{text} and {counted(more, 'more range')}"


def _targets(settings: Settings, states: Sequence[PartitionState], target: To) -> dict[TopicPartition, int]:
    """Return the target offset of each existing partition."""
    from connector.operations import offsets as operation

    if isinstance(target, int):
        return {(state.topic, state.partition): target for state in states if state.end is not None}
    return in_loop(operation.targets_of(settings, states, _position_or_time(target)))


def _target(to: str | None) -> To:
    """Return an offset as a number, or any other valid target as text."""
    if to is None:
        fail("offsets reset needs --to: earliest, latest, an offset, or a time with a zone", BAD_CONFIGURATION)
    if to.isascii() and to.isdecimal():
        return int(to)
    _position_or_time(to)
    return to


def _position_or_time(to: str) -> To:
    """Return `earliest`, `latest`, or a time as epoch milliseconds; exit with 2 for anything else."""
    from connector.config.models import parse_start

    try:
        found = parse_start(to)
    except ValueError:
        found = None
    if not isinstance(found, (str, int)):
        fail(
            f"--to must be earliest, latest, an offset, or a time with a zone such as 2026-11-20T00:00:00Z; not {to!r}",
            BAD_CONFIGURATION,
        )
    return found
