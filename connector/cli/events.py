"""The command `connector events`: recent events, from running members and from the topic of events."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, File, Json, begin, fail, json_line, say
from connector.cli.common import print_line as line
from connector.cli.member import members_of


def events(
    *,
    config: File = DEFAULT_FILE,
    since: Annotated[str, typer.Option(metavar="DURATION", help="How far back, such as 30m, 24h or 7d.")] = "24h",
    url: Annotated[
        list[str] | None,
        typer.Option("--url", metavar="URL", help="A running member's port; repeatable. Default: the configured ones."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what happened: holds, releases, restarts, rebalances, storms, skips and replays, the oldest first.

    Members remember what happened since they started. With console.events_topic the timeline outlasts them.
    """
    from connector.config.models import UnreadableSymbol, parse_duration
    from connector.console.formatting import moment
    from connector.operations.timeline import MergedTimeline

    loaded = begin(config)
    try:
        seconds = parse_duration(since)
    except UnreadableSymbol as error:
        fail(f"--since must be {error}", BAD_CONFIGURATION)
    found = members_of(loaded, url)
    timeline = MergedTimeline(time.time() - float(str(seconds)))
    timeline.read(loaded.settings, found.addresses, found.token)
    for trouble in timeline.troubles:
        say(trouble)
    if as_json:
        for event in timeline.events():
            sys.stdout.write(json_line(dict(event.fields)))
    else:
        for happening in timeline.happenings():
            detail = f": {happening.detail}" if happening.detail else ""
            line(f"{moment(happening.at)}Z  {happening.title}{detail} ({happening.member})")
    if timeline.troubles and len(timeline.troubles) == len(found.addresses) and not timeline.events():
        raise SystemExit(FAILED)
