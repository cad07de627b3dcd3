"""The command `connector explain`: arguments in, one call out, an exit code back."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from connector.cli.common import DEFAULT_FILE, FAILED, File, fail, in_loop, read_config
from connector.cli.member import Offset, Partition, Topic


def explain(
    *,
    topic: Topic,
    partition: Partition,
    offset: Offset,
    config: File = DEFAULT_FILE,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Search the connector's own topics whole, not from an hour before the record on."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Tell what happened to one record: event, what would be sent today, whether it is finished, letters, receipts.

    Nothing is sent, nothing committed. Where the record is not there any more it tells the rest and exits with 1.
    """
    from connector.cli import explain_report
    from connector.operations import explain as app_explain
    from connector.records import Position
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    configure(loaded.settings.log)
    told = in_loop(app_explain.explain(loaded, Position(topic, partition, offset), everything=everything))
    if as_json:
        sys.stdout.write(explain_report.as_json(told) + "\n")
    else:
        explain_report.show(told)
    if told.missing is not None:
        fail(told.missing, FAILED)
