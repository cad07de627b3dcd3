"""What `connector offsets` prints: tables for people, JSON Lines for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector.operations.offsets import Move, PartitionState, ranges

PIPE_WIDTH: Final = 160
"""Columns where the output is no terminal, so that a line stays a line for grep."""
_SHOWN_RANGES: Final = 4
_COLUMNS: Final = ("topic", "partition", "committed", "end", "lag", "backlog", "map")


def show_states(group: str, states: Sequence[PartitionState], stream: TextIO | None = None) -> None:
    """Print a row for each partition, and the sums."""
    console = _console(stream)
    if not states:
        console.print(escape(f"group {group} has committed no offsets that fit"))
        return
    table = Table(title=escape(f"Offsets of group {group}"), title_justify="left", title_style="bold")
    for name in (*_COLUMNS, "finished above, and what is wrong"):
        table.add_column(name, justify="right" if name in _COLUMNS[1:] else "left", overflow="fold")
    for one in states:
        cells = (one.topic, one.partition, one.committed, one.end, one.lag, one.backlog, f"{one.map_used:.0%}")
        table.add_row(*(escape(_cell(cell)) for cell in cells), escape("; ".join(_notes(one))))
    console.print(table)
    lag, backlog = sum(one.lag or 0 for one in states), sum(one.backlog or 0 for one in states)
    console.print(f"lag {lag}, of that not finished {backlog}")


def show_moves(group: str, moves: Sequence[Move], stream: TextIO | None = None) -> None:
    """Print a row for each partition that gets another offset."""
    console = _console(stream)
    table = Table(title=escape(f"New offsets of group {group}"), title_justify="left", title_style="bold")
    for name in ("topic", "partition", "from", "to", "read again", "passed over", "kept finished"):
        table.add_column(name, justify="left" if name == "topic" else "right", overflow="fold")
    for one in moves:
        cells = (one.state.topic, one.state.partition, one.state.committed, one.offset)
        table.add_row(*(escape(_cell(cell)) for cell in (*cells, one.again, one.passed_over, one.kept)))
    console.print(table)


def as_lines(rows: Sequence[PartitionState] | Sequence[Move]) -> Iterator[str]:
    """Yield one JSON line for each row."""
    for row in rows:
        yield json.dumps(row.as_json(), ensure_ascii=False) + "\n"


def _console(stream: TextIO | None) -> Console:
    stream = sys.stdout if stream is None else stream
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _notes(state: PartitionState) -> Iterator[str]:
    if state.out_of_range:
        yield f"OUT OF RANGE: the partition holds {state.first} to {state.end}; use offsets reset"
    if state.fault is not None:
        yield state.fault
    if state.finished.whole.bounds:
        yield _ranges(state.finished.whole.bounds)
    for name, runs in state.finished.parts.items():
        yield f"for {name}: {_ranges(runs.bounds)}"


def _ranges(bounds: Sequence[int]) -> str:
    """Return the first few ranges as text, and how many more there are."""
    found = ranges(bounds)
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found[:_SHOWN_RANGES])
    return text if len(found) <= _SHOWN_RANGES else f"{text} and {len(found) - _SHOWN_RANGES} more ranges"
