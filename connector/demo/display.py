"""The demo's display: a live table while it runs (plain lines without a terminal), and the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from connector.demo.check import DemoDeadLetter

_PLAIN_EVERY: Final = 1.0
_STATES: Final = {"flowing": "green", "held": "red", "probing": "magenta"}


@dataclass(slots=True)
class Progress:
    """The progress at one moment. `status` is the member's `/status`, `stats` the simulators' counts."""

    seconds: float = 0.0
    planned: int = 0
    produced: int = 0
    settled: int = 0
    dead_letters: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Display:
    """Shows the progress: redrawn in place on a terminal, one line a second elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        """Start the display."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Clear the live table."""
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show the latest progress."""
        if self._live is not None:
            self._live.update(_picture(progress), refresh=True)
        elif progress.seconds >= self._next_line:
            self._next_line = progress.seconds + _PLAIN_EVERY
            self._console.print(_progress_line(progress), highlight=False, soft_wrap=True)


def _progress_line(progress: Progress) -> str:
    states = progress.status.get("destinations", {})
    troubled = [f"{name} {shown['state']}" for name, shown in states.items() if shown["state"] != "flowing"]
    return (
        f"{progress.seconds:5.1f} s  produced {progress.produced:,}  done {progress.settled:,}  "
        f"accepted {_accepted(progress):,}  dead letters {progress.dead_letters}"
        + (f"  ({', '.join(troubled)})" if troubled else "")
    )


def _accepted(progress: Progress) -> int:
    return sum(stats["accepted"] for stats in progress.stats.values())


def _picture(progress: Progress) -> Group:
    bars = Table.grid(padding=(0, 2))
    for label, count in (("produced", progress.produced), ("done", progress.settled)):
        bar = ProgressBar(total=max(1, progress.planned), completed=count, width=50)
        bars.add_row(label, bar, f"{count:,} of {progress.planned:,}")
    bars.add_row("dead letters", Text(str(progress.dead_letters), style="yellow"), f"{progress.seconds:.1f} s")
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("destination", no_wrap=True, min_width=14)
    table.add_column("state", no_wrap=True, min_width=20)
    for heading in ("accepted", "requests", "refused", "in flight", "per s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, counts in progress.stats.items():
        condition = progress.status.get("destinations", {}).get(name, {})
        state = str(condition.get("state", "starting"))
        shown = f"{state}: {condition['cause']}" if condition.get("cause") else state
        verdicts = counts["verdicts"]
        table.add_row(
            name,
            Text(shown, style=_STATES.get(state, "yellow")),
            f"{counts['accepted']:,}",
            f"{counts['requests']:,}",
            str(verdicts.get("refused", 0)),
            str(condition.get("in_flight", 0)),
            str(counts["max_per_second"]),
        )
    return Group(bars, Text(), table)


def summary(
    stats: Mapping[str, Mapping[str, Any]],
    dead_letters: Sequence[DemoDeadLetter],
    distinct: Mapping[str, int],
    shown: Counter[str],
) -> Table:
    """Return the table of each vendor's own log. `shown` counts the faults of each simulator."""
    table = Table(
        title="The vendors' own logs",
        caption="repeated: accepted again after an answer was lost; batch: the largest; per s: the most in any second",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("destination", no_wrap=True)
    for heading in ("accepted", "repeated", "dead", "requests", "faults", "batch", "per s"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    dead = Counter(dead_letter.destination for dead_letter in dead_letters)
    for name, counts in stats.items():
        table.add_row(
            name,
            f"{distinct[name]:,}",
            str(counts["accepted"] - distinct[name]),
            str(dead[name]),
            f"{counts['requests']:,}",
            str(shown[name]),
            str(counts["largest_batch"]),
            str(counts["max_per_second"]),
        )
    table.add_row("(none)", "", "", str(dead[None]), "", "", "", "")
    return table


def dead_letters(dead_letters: Iterable[DemoDeadLetter]) -> Table:
    """Return the dead letters, similar ones in one row."""
    table = Table(title="Dead letters", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("cause", no_wrap=True, min_width=7)
    table.add_column("records, code, destination, first record, what is wrong", overflow="ellipsis", no_wrap=True)
    alike: dict[tuple[str, str, str], list[DemoDeadLetter]] = {}
    for dead_letter in sorted(dead_letters, key=lambda each: (each.cause, each.code, each.origin)):
        alike.setdefault((dead_letter.cause, dead_letter.code, dead_letter.destination or ""), []).append(dead_letter)
    for (cause, code, destination), group in alike.items():
        partition, offset = group[0].origin
        where = " ".join(filter(None, (destination, f"{partition}:{offset}")))
        what = Text.assemble(f"{len(group)} × ", (code, "bold"), f" {where}\n", (group[0].message, "dim"))
        table.add_row(cause, what)
    return table
