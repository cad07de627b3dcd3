"""The command `connector topics`: the connector's own topics, and their creation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from connector.cli.common import DEFAULT_FILE, File, Json, begin, emit, in_loop, print_raw


def topics(
    *,
    config: File = DEFAULT_FILE,
    create: Annotated[bool, typer.Option("--create", help="Create missing topics.")] = False,
    partitions: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Partitions of a created topic. Default: as many as the largest source topic has."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the connector's own topics; --create creates those that are missing.

    Only Kafka is asked, no registry and no vendor. Source topics must exist.
    """
    from connector.runtime.checks import check_topics

    found = in_loop(check_topics(begin(config), create=create, partitions=partitions))
    rows = [(topic.purpose, "created" if topic.created else "there", topic.name) for topic in found]
    emit(rows, as_json, _topic_json, _show)


def _show(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print a plain line for each topic, suitable for the log of a job."""
    for purpose, state, name in rows:
        print_raw(f"{purpose:<12} {state:<8} {name}")


def _topic_json(row: tuple[str, str, str]) -> dict[str, Any]:
    purpose, state, name = row
    return {"topic": name, "purpose": purpose, "state": state}
