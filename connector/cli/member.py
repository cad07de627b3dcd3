"""The commands that act on one running member: hold, release and skip, through its port."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, File, fail, read_config, refuse_unknown

Name = Annotated[str, typer.Argument(metavar="NAME", help="The destination.")]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The port of a running member; default: the configured one.")
]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The record's topic.")]
Partition = Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Its partition.")]
Offset = Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Its offset.")]


def hold(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Hold a destination in one running member until it is released; its records wait uncommitted.

    destinations.NAME.hold: true in the configuration holds it in every member.
    """
    _act("hold", name, config, url)


def release(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Let a destination go on that was held by hand."""
    _act("release", name, config, url)


def skip(
    topic: Topic,
    partition: Partition,
    offset: Offset,
    config: File = DEFAULT_FILE,
    destination: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only for this destination; others still get the record.")
    ] = None,
    url: Url = None,
) -> None:
    """Set one record aside in the member that owns its partition: a dead letter (cause operator) instead of a delivery.

    For a record that others wait behind: one that fails again and again, waits for a schema that nobody registers, or
    must not be sent. A record in a request is skipped only if its answer says that it was not accepted.
    """
    from connector.cli.actions import Refused
    from connector.cli.actions import skip as ask
    from connector.records import Position

    address, token = _member(config, destination, url)
    try:
        said = ask(Position(topic, partition, offset), destination, address, token)
    except Refused as error:
        fail(str(error), FAILED)
    sys.stdout.write(f"{said}\n")


def _act(action: str, name: str, config: Path, url: str | None) -> None:
    """Ask a running member for an action and print what it answers."""
    from connector.cli.actions import Refused, act

    address, token = _member(config, name, url)
    try:
        state = act(action, name, address, token)
    except Refused as error:
        fail(str(error), FAILED)
    done = {"hold": "held", "release": "released"}[action]
    sys.stdout.write(f"{name} is {done}; it is now {state or 'in an unknown state'}\n")


def _member(config: Path, destination: str | None, url: str | None) -> tuple[str, SecretStr | None]:
    """Return where the member is reached, and the token to bring."""
    loaded = read_config(config)
    refuse_unknown(loaded, destination)
    server = loaded.settings.server
    if url is None and server.port == 0:
        fail("server.port is 0, so the member's port is not known; give it with --url", BAD_CONFIGURATION)
    return url or server_url(server.host, server.port), server.token


def server_url(host: str, port: int) -> str:
    """Return where a member that listens on `host` is reached from its own machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 -- read, not bound
    return f"http://{reached}:{port}"
