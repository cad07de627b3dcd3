"""What `connector dlq replay` and `discard` print: how far they are, what became of the letters, and why some stay."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from connector.cli.terminal import console_on, safe
from connector.dead_letters.replay import Outcome, Step

_CODES: Final = 20
"""Reasons in the table, at most: the most frequent ones."""


class Tally:
    """Counts what became of letters. `done` is the word for those that are not kept back."""

    def __init__(self, done: str) -> None:
        self.word = done
        self.done = 0
        self.kept = 0
        self._reasons: dict[str, list[Any]] = {}

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count some more."""
        for outcome in outcomes:
            if outcome.kept is None:
                self.done += 1
                continue
            self.kept += 1
            reason = self._reasons.setdefault(outcome.kept.code, [0, outcome.kept.reason, outcome.dead_letter.facts.id])
            reason[0] += 1

    @property
    def text(self) -> str:
        """The counts as one line."""
        return f"{self.done} {self.word}" + (f", {self.kept} kept back" if self.kept else "")

    def show(self, stream: TextIO | None = None) -> None:
        """Print why letters are kept back, the most frequent reason first; nothing where none is."""
        if not self._reasons:
            return
        table = Table(title="Kept back", title_justify="left", title_style="bold")
        table.add_column("letters", justify="right")
        for name in ("code", "why, by the first of them", "its id"):
            table.add_column(name, overflow="fold", no_wrap=name == "its id")
        rows = sorted(self._reasons.items(), key=lambda one: (-one[1][0], one[0]))
        for code, (count, reason, identity) in rows[:_CODES]:
            table.add_row(str(count), safe(code), safe(reason), safe(identity))
        console_on(stream).print(table)


class Watch:
    """A progress bar on standard error where that is a terminal; a context manager."""

    def __init__(self, what: str, tally: Tally) -> None:
        self._tally = tally
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[counts]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(what, total=None, counts="")

    def __enter__(self) -> Self:
        """Begin to show it."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._progress.stop()

    def see(self, step: Step) -> None:
        """Count a step and show how far the reading is."""
        self._tally.add(step.outcomes)
        self._progress.update(self._task, completed=step.read, total=step.total, counts=self._tally.text)


def row(outcome: Outcome, done: str) -> str:
    """Return what `--json` prints of a letter, as one line; `done` is the word for one that is not kept back."""
    facts = outcome.dead_letter.facts
    said = {
        "id": facts.id,
        "result": done if outcome.kept is None else "kept",
        "code": None if outcome.kept is None else outcome.kept.code,
        "reason": None if outcome.kept is None else outcome.kept.reason,
        "destination": facts.destination,
        "dedup_id": facts.dedup_id,
        "replays": facts.replays,
    }
    return json.dumps(said, ensure_ascii=False) + "\n"
