"""The commands `connector dlq replay` and `discard`: arguments in, calls out, an exit code back."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, File, fail, in_loop
from connector.cli.dlq import Json, Key, Since, Topic, Where, quiet, read_filter

if TYPE_CHECKING:
    from connector.cli.replay_report import Tally
    from connector.config.loader import Loaded
    from connector.dead_letters.filters import Filter
    from connector.dead_letters.replay import Desk, Edit, Order, Step

_ID_LENGTH: Final = 36

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Only these letters: ids, or their first 8 characters.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without a question.")]
Rate = Annotated[
    float, typer.Option(min=0, metavar="N", help="Letters a second, at most; 0: as fast as Kafka takes them.")
]

Steps = Callable[["Order"], AsyncGenerator["Step", None]]


def replay(  # noqa: PLR0913 -- each option is one of the command line
    *,
    ids: Ids = None,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    key: Key = None,
    topic: Topic = None,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change the event first (properties.city=Berlin), encoded with its own schema; repeatable.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what would fail again by today's rules, or is another group's.")
    ] = False,
    max_replays: Annotated[
        int, typer.Option(min=1, metavar="N", help="Keep back what was replayed so often already.")
    ] = 3,
    rate: Rate = 1000.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send open letters again, each to the destination that refused it, by the group's replay topic.

    Each is checked against today's rules first. The running connector delivers what is replayed, with the dedup id that
    it always had. Interrupted or killed and begun again, nothing is sent twice.
    """
    from connector.dead_letters.replay import Order

    changes = _edits(edits or ())
    loaded = quiet(config)
    wanted = _wanted(loaded, ids, read_filter(where, since, key, topic))
    order = Order(wanted, force=force, edits=changes, max_replays=max_replays, rate=rate)
    _carry_out(loaded, order, "replay", dry_run=dry_run, yes=yes, as_json=as_json)


def discard(  # noqa: PLR0913 -- each option is one of the command line
    *,
    ids: Ids = None,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    key: Key = None,
    topic: Topic = None,
    rate: Rate = 0.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Mark open letters as discarded: hidden from now on and never replayed. They stay in the topic as they are."""
    from connector.dead_letters.replay import Order

    loaded = quiet(config)
    order = Order(_wanted(loaded, ids, read_filter(where, since, key, topic)), rate=rate)
    _carry_out(loaded, order, "discard", dry_run=dry_run, yes=yes, as_json=as_json)


def _carry_out(loaded: Loaded, order: Order, action: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Look, ask, and do it."""
    from connector.operations.replay import ReplayDesk

    desk: Desk = ReplayDesk(loaded)
    plan, act, done = {
        "replay": (desk.plan, desk.replay, "replayed"),
        "discard": (desk.plan_discard, desk.discard, "discarded"),
    }[action]
    if dry_run or not yes:
        if not dry_run and not (sys.stdin.isatty() and sys.stderr.isatty()):
            fail(f"nobody can be asked here: say --yes to {action}, or --dry-run to look", BAD_CONFIGURATION)
        planned = _run(plan, order, "looking", "ready", as_json=as_json and dry_run)
        if not as_json:
            planned.show()
        sys.stderr.write(f"{planned.done} dead letters would be {done}, {planned.kept} would be kept back\n")
        if dry_run or not planned.done:
            return
        target = f" to {loaded.settings.replay_topic}" if action == "replay" else ", so that they are never replayed"
        if not typer.confirm(f"{action.capitalize()} {planned.done} dead letters{target}?", err=True):
            sys.stderr.write("nothing was done\n")
            return
    tally = _run(act, order, {"replay": "replaying", "discard": "discarding"}[action], done, as_json=as_json)
    if not as_json:
        tally.show()
    sys.stderr.write(f"{tally.done} dead letters {done}, {tally.kept} kept back\n")


def _run(steps: Steps, order: Order, what: str, done: str, *, as_json: bool) -> Tally:
    """Go through all steps and return the counts; an interruption says what is done so far, and fails."""
    from connector.cli.replay_report import Tally, Watch, row

    tally = Tally(done)

    async def go() -> None:
        async with aclosing(steps(order)) as all_steps:
            async for step in all_steps:
                watch.see(step)
                if as_json:
                    sys.stdout.writelines(row(outcome, done) for outcome in step.outcomes)
                    sys.stdout.flush()

    try:
        with Watch(what, tally) as watch:
            in_loop(go())
    except KeyboardInterrupt:
        fail(f"interrupted: {tally.text}; the same command goes on with the rest", FAILED)
    return tally


def _wanted(loaded: Loaded, ids: Sequence[str] | None, wanted: Filter) -> Filter:
    """Return the filter with the ids that are meant by their beginnings. Raises `LetterNotFound`."""
    from connector.dead_letters import commands

    if not ids:
        return wanted
    whole = {one for one in ids if len(one) == _ID_LENGTH}
    if len(whole) < len(ids):
        with commands.open_archive(loaded.settings) as archive:
            whole.update(archive.find(one).dead_letter.facts.id for one in ids if one not in whole)
    also = wanted.where.get("id")
    return replace(wanted, where={**wanted.where, "id": frozenset(whole if also is None else whole & also)})


def _edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Return what `--set` asks for; end with 2 where it means nothing."""
    from connector.dead_letters.replay import Edit

    found = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            fail(
                f"--set is PATH=VALUE with a dotted path, such as properties.city=Berlin; not {text!r}",
                BAD_CONFIGURATION,
            )
        found.append(Edit(path, value))
    return tuple(found)
