"""The commands `connector hold`, `release` and `skip`: they act on one running member, over its port."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, File, fail, read_config, refuse_unknown, visible
from connector.cli.completion import complete_destination, complete_topic
from connector.config.loader import Loaded

Name = Annotated[str, typer.Argument(metavar="NAME", help="The destination.", autocompletion=complete_destination)]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="The port of a running member. Default: the configured one.")
]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The record's topic.", autocompletion=complete_topic)]
Partition = Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Its partition.")]
Offset = Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Its offset.")]


def hold(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Hold a destination in one running member until it is released. Its records stay uncommitted.

    To hold it in every member, set destinations.NAME.hold: true in the configuration.
    """
    _act("hold", name, config, url)


def release(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Resume a held destination in one running member.

    Records that a storm has set aside are taken in again. Those that are refused again become dead letters.
    """
    _act("release", name, config, url)


def probe(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Try a held destination now, in place of waiting for its next probe. A hold by an operator is not probed.

    One record is sent. If the vendor accepts it, the hold ends; otherwise the next probe comes later.
    """
    _act("probe", name, config, url)


def skip(
    topic: Topic,
    partition: Partition,
    offset: Offset,
    config: File = DEFAULT_FILE,
    destination: Annotated[
        str | None, typer.Option(metavar="NAME", help="Skip it for this destination only; others still get the record.")
    ] = None,
    url: Url = None,
) -> None:
    """Make one record a dead letter (cause: operator) instead of delivering it.

    Use it for a record that blocks others: one that fails again and again, that waits for a schema that will never be
    registered, or that must not be sent. Ask the member that owns the record's partition. A record in a request is
    skipped only if the vendor's answer says that it was not accepted.
    """
    from connector.operations import member
    from connector.records import Position

    address, token = _member(config, destination, url)
    answer = member.skip(Position(topic, partition, offset), destination, address, token)
    sys.stdout.write(f"{visible(answer)}\n")


def _act(action: str, name: str, config: Path, url: str | None) -> None:
    """Ask a running member for an action, and print the state that follows."""
    from connector.operations import member

    address, token = _member(config, name, url)
    state, released = member.act(action, name, address, token)
    done = {"hold": "held", "release": "released", "probe": "probed"}[action]
    now = "" if state is None or state == done else f"; its state is now {visible(state)}"
    again = (
        f"; {released} {'record' if released == 1 else 'records'} set aside by a storm will be tried again"
        if released
        else ""
    )
    sys.stdout.write(f"{name} is {done}{again}{now}\n")


def _member(config: Path, destination: str | None, url: str | None) -> tuple[str, SecretStr | None]:
    """Return the member's address, and the token to send."""
    loaded = read_config(config)
    refuse_unknown(loaded, destination)
    server = loaded.settings.server
    if url is None and server.ports[0] == 0:
        fail("server.port is 0, so the member's port is unknown: pass --url", BAD_CONFIGURATION)
    return url or server_url(server.host, server.ports[0]), server.token


class Members(NamedTuple):
    """The ports of running members, and the token for actions."""

    addresses: list[str]
    token: SecretStr | None


def members(config: Path, urls: list[str] | None) -> Members:
    """Return the members to ask: the given ones, else those of the configured ports that answer.

    The rest of the file may be faulty: `connector reload` is to tell the member so.
    """
    from connector.config.loader import server_settings
    from connector.errors import ConfigurationError
    from connector.operations.member import each_address

    try:
        server = server_settings(config)
    except ConfigurationError:
        if not urls:
            raise
        return Members(urls, None)
    if urls:
        return Members(each_address(urls), server.token)
    if server.ports[0] == 0:
        fail("server.port is 0, so the member's port is unknown: pass --url", BAD_CONFIGURATION)
    addresses = [server_url(server.host, port) for port in server.ports]
    if len(addresses) > 1:
        addresses = [each for each in addresses if is_open(each)] or addresses[:1]
    return Members(addresses, server.token)


def members_of(loaded: Loaded, urls: list[str] | None) -> Members:
    """Return every running member: the given ones, else `console.members`, else the configured ports that answer."""
    from connector.operations.member import each_address

    server, named = loaded.settings.server, loaded.settings.console.members
    if urls or named:
        return Members(each_address([*(urls or named or ())]), server.token)
    if server.ports[0] == 0:
        fail("server.port is 0, so the member's port is unknown: pass --url", BAD_CONFIGURATION)
    addresses = [server_url(server.host, port) for port in server.ports]
    if len(addresses) > 1:
        addresses = [each for each in addresses if is_open(each)] or addresses[:1]
    return Members(addresses, server.token)


def is_open(address: str) -> bool:
    """Whether something listens at an address such as http://127.0.0.1:8080."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1.0).close()
    except OSError:
        return False
    return True


def server_url(host: str, port: int) -> str:
    """Return the address of a member that listens on `host`, as seen from its own machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 -- read, not bound
    return f"http://{reached}:{port}"
