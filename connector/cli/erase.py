"""The command `connector dlq erase`: shows what would be deleted, asks, and deletes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli.common import (
    DEFAULT_FILE,
    FAILED,
    File,
    begin,
    confirm,
    fail,
    in_loop,
    print_table,
    require_terminal,
    say,
)
from connector.cli.dlq import NONE_MATCH, Contains, Key, Since, Topic, Until, Where, read_filter
from connector.cli.replay import DryRun, Ids, Yes, selection
from connector.errors import counted

if TYPE_CHECKING:
    from connector.operations.erase import PartitionErasure


def erase(  # noqa: PLR0913 -- each option is one of the command line
    *,
    ids: Ids = None,
    config: File = DEFAULT_FILE,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    topic: Topic = None,
    contains: Contains = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All dead letters. Needed without ids and filters.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Erase even if unresolved dead letters that do not match are erased too.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters from Kafka for good, such as a person's data; resolved ones and copies too.

    Kafka deletes everything in front of an offset of a partition, so older ones in the same partition are deleted too.
    """
    from connector.operations.erase import Eraser

    wanted = selection(ids, read_filter(where, since, until, key, topic, contains), everything=everything)
    loaded = begin(config)
    if not (yes or dry_run):
        require_terminal("erase")
    eraser = Eraser(loaded)
    plan = eraser.plan(wanted)
    if not plan:
        say(NONE_MATCH)
        return
    show_plan(plan)
    lost = sum(each.others for each in plan)
    if dry_run:
        return
    if lost and not force:
        fail(
            f"{counted(lost, 'unresolved dead letter')} in front of them would be lost: replay, discard or export them "
            "first, or pass --force",
            FAILED,
        )
    records = counted(sum(each.selected for each in plan), "matching record")
    question = f"Delete {records} and everything in front of them from {loaded.settings.dead_letter_topic} for good?"
    if not confirm(question, "erase", yes=yes):
        say("nothing was changed")
        return
    in_loop(eraser.erase(plan))
    say(f"{records} deleted; copies in the replay topic and in the source topic stay until their retention ends")


def show_plan(plan: Sequence[PartitionErasure]) -> None:
    """Print what is deleted from each partition."""
    heads = ("partition", "deleted up to offset", "matching records", "other unresolved dead letters")
    rows = ((each.partition, each.before - 1, each.selected, each.others) for each in plan)
    print_table(heads, rows, right=heads)
