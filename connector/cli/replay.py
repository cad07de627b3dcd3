"""The commands `connector dlq replay` and `discard`: show a plan, ask, and report each dead letter's outcome."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    begin,
    confirm,
    fail,
    in_loop,
    json_line,
    print_table,
    refuse_unknown,
    require_terminal,
    say,
)
from connector.cli.dlq import Contains, Key, Since, Topic, Until, Where, read_filter
from connector.errors import counted

if TYPE_CHECKING:
    from connector.config.loader import Loaded
    from connector.dead_letters.filters import Filter
    from connector.dead_letters.replay import Edit, Order, Outcome, ReplayService, Step, Target

_SHOWN_REASONS: Final = 20

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Only these dead letters: ids, or their first 8 characters."),
]
Everything = Annotated[
    bool, typer.Option("--all", help="All unresolved dead letters. Required without ids and filters.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
Rate = Annotated[
    float, typer.Option(min=0, metavar="N", help="At most N dead letters a second; 0: as fast as Kafka takes them.")
]

Steps = Callable[["Order"], AsyncGenerator["Step", None]]


def replay(  # noqa: PLR0913 -- each option is one of the command line
    *,
    ids: Ids = None,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    everything: Everything = False,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change the event first, such as properties.city=Berlin, in its own schema; repeatable.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Send them to this destination instead, if a route leads there."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Include what would fail again by today's rules, and other groups' dead letters."),
    ] = False,
    max_replays: Annotated[
        int, typer.Option(min=1, metavar="N", help="Keep back what was already replayed N times.")
    ] = 3,
    rate: Rate = 1000.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send unresolved dead letters again, through the group's replay topic, to the destination that refused them.

    Each is checked against today's rules first. A running connector delivers what is replayed, with the same dedup id
    as before. If a replay is interrupted or killed, run it again: nothing is sent twice.
    """
    from connector.dead_letters.replay import Order

    changes = _edits(edits or ())
    wanted = selection(ids, read_filter(where, since, until, key, topic, contains), everything=everything)
    loaded = begin(config)
    target = _target(loaded, to)
    order = Order(wanted, force=force, edits=changes, max_replays=max_replays, rate=rate, to=target)
    _carry_out(loaded, order, "replay", dry_run=dry_run, yes=yes, as_json=as_json)


def discard(  # noqa: PLR0913 -- each option is one of the command line
    *,
    ids: Ids = None,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    everything: Everything = False,
    force: Annotated[bool, typer.Option("--force", help="Include other groups' dead letters.")] = False,
    rate: Rate = 0.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Mark unresolved dead letters as discarded: hidden from now on and never replayed. They stay in the topic."""
    from connector.dead_letters.replay import Order

    wanted = selection(ids, read_filter(where, since, until, key, topic, contains), everything=everything)
    loaded = begin(config)
    order = Order(wanted, force=force, rate=rate)
    _carry_out(loaded, order, "discard", dry_run=dry_run, yes=yes, as_json=as_json)


def _target(loaded: Loaded, to: str | None) -> Target | None:
    """Return the destination of --to; exit with 2 if it is not configured."""
    from connector.dead_letters.replay import Target

    refuse_unknown(loaded, to)
    return None if to is None else Target(to, loaded.settings.destinations[to].vendor)


def _carry_out(loaded: Loaded, order: Order, action: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Show the plan, ask, and carry it out."""
    if not isfinite(order.rate):
        fail("--rate must be a number such as 100; 0: as fast as Kafka takes them", BAD_CONFIGURATION)
    from connector.operations.replay import KafkaReplayService

    service: ReplayService = KafkaReplayService(loaded)
    plan, act, doing, done = {
        "replay": (service.plan, service.replay, "replaying", "replayed"),
        "discard": (service.plan_discard, service.discard, "discarding", "discarded"),
    }[action]
    if dry_run or not yes:
        if not dry_run:
            require_terminal(action)
        planned = _run(plan, order, "checking", "ready", as_json=as_json and dry_run)
        if not as_json:
            planned.show()
        say(f"{counted(planned.done, 'dead letter')} would be {done}, {planned.kept} would be kept back")
        if dry_run or not planned.done:
            return
        target = f" to {loaded.settings.replay_topic}" if action == "replay" else ", so that they are never replayed"
        question = f"{action.capitalize()} {counted(planned.done, 'dead letter')}{target}?"
        if not confirm(question, action, yes=yes):
            say("nothing was changed")
            return
    tally = _run(act, order, doing, done, as_json=as_json)
    if not as_json:
        tally.show()
    say(f"{counted(tally.done, 'dead letter')} {done}, {tally.kept} kept back")


def _run(steps: Steps, order: Order, doing: str, done: str, *, as_json: bool) -> Tally:
    """Run all steps and return the counts. If interrupted, report what is done so far, and fail."""
    tally = Tally(done)

    async def go() -> None:
        async with aclosing(steps(order)) as all_steps:
            async for step in all_steps:
                progress.see(step)
                if as_json:
                    sys.stdout.writelines(json_line(outcome_json(outcome, done)) for outcome in step.outcomes)
                    sys.stdout.flush()

    try:
        with ReplayProgress(doing, tally) as progress:
            in_loop(go())
    except KeyboardInterrupt:
        fail(f"interrupted: {tally.text}; run the same command again for the rest", FAILED)
    return tally


class Tally:
    """Counts outcomes of dead letters. `word` is the result of those that are not kept back."""

    def __init__(self, word: str) -> None:
        self.word = word
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

    def show(self) -> None:
        """Print why dead letters are kept back, most frequent reason first; print nothing if none is."""
        if self._reasons:
            found = sorted(self._reasons.items(), key=lambda reason: (-reason[1][0], reason[0]))
            print_table(
                ("dead letters", "code", "reason, by the first of them", "its id"),
                ((count, code, reason, identity) for code, (count, reason, identity) in found[:_SHOWN_REASONS]),
                title="Kept back",
                right=("dead letters",),
                whole=("its id",),
            )


class ReplayProgress:
    """A progress bar on standard error, if that is a terminal; a context manager."""

    def __init__(self, doing: str, tally: Tally) -> None:
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
        self._task = self._progress.add_task(doing, total=None, counts="")

    def __enter__(self) -> Self:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._progress.stop()

    def see(self, step: Step) -> None:
        """Count a step's outcomes and show the progress."""
        self._tally.add(step.outcomes)
        self._progress.update(self._task, completed=step.read, total=step.total, counts=self._tally.text)


def outcome_json(outcome: Outcome, done: str) -> dict[str, Any]:
    """Return what `--json` prints of a dead letter; `done` is the result of one that is not kept back."""
    facts = outcome.dead_letter.facts
    return {
        "id": facts.id,
        "result": done if outcome.kept is None else "kept",
        "code": None if outcome.kept is None else outcome.kept.code,
        "reason": None if outcome.kept is None else outcome.kept.reason,
        "destination": facts.destination,
        "dedup_id": facts.dedup_id,
        "replays": facts.replays,
    }


def selection(ids: Sequence[str] | None, wanted: Filter, *, everything: bool) -> Filter:
    """Return the filter with the ids; exit with 2 if nothing selects dead letters and --all was not given."""
    from connector.dead_letters.filters import Filter

    if not ids and wanted == Filter() and not everything:
        fail("Name dead letters by their ids or by a filter such as --where, or pass --all.", BAD_CONFIGURATION)
    return replace(wanted, ids=frozenset(ids or ()))


def _edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Return the changes of `--set`; exit with 2 if one is not valid."""
    from connector.dead_letters.replay import Edit

    found = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            fail(
                f"--set must be PATH=VALUE with a dotted path, such as properties.city=Berlin; not {text!r}",
                BAD_CONFIGURATION,
            )
        found.append(Edit(path, value))
    return tuple(found)
