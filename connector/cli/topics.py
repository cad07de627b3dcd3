"""The command `connector topics`: arguments in, one call out, an exit code back."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from connector.cli.common import DEFAULT_FILE, File, in_loop, read_config


def topics(
    *,
    config: File = DEFAULT_FILE,
    create: Annotated[bool, typer.Option("--create", help="Create those that are missing.")] = False,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Partitions of a created topic; default: as many as the largest source topic has."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show the connector's own topics and what is wrong with them; --create creates those that are missing.

    Only Kafka is asked, no registry and no vendor. Topics that are read have to exist.
    """
    from connector.runtime.checks import check_topics
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    configure(loaded.settings.log)
    for topic in in_loop(check_topics(loaded, create=create, partitions=partitions)):
        state = "created" if topic.created else "there"
        if as_json:
            sys.stdout.write(json.dumps({"topic": topic.name, "purpose": topic.purpose, "state": state}) + "\n")
        else:
            sys.stdout.write(f"{topic.purpose:<12} {state:<8} {topic.name}\n")
