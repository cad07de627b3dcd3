"""The commands `connector hold`, `release`, `probe` and `skip`: they act on running members through their ports.

A destination is held, released and probed in every member; a record is skipped in the member that owns its partition.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    FAILED,
    File,
    fail,
    read_config,
    refuse_unknown,
    say,
    visible,
)
from connector.cli.completion import complete_destination, complete_topic
from connector.config.loader import Loaded, ServerSettings
from connector.errors import counted

if TYPE_CHECKING:
    from connector.console.advice import CommandOptions

Name = Annotated[str, typer.Argument(metavar="NAME", help="The destination.", autocompletion=complete_destination)]
Url = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="A running member's port; repeatable. Default: console.members, else the configured ports that answer.",
    ),
]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The record's topic.", autocompletion=complete_topic)]
Partition = Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Its partition.")]
Offset = Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Its offset.")]
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def hold(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Hold a destination in every running member until it is released. Its records stay uncommitted.

    A member that starts later does not hold it: for that, set destinations.NAME.hold: true in the configuration.
    """
    _act("hold", name, config, url)


def release(name: Name, config: File = DEFAULT_FILE, url: Url = None) -> None:
    """Resume a held destination in every running member.

    Records that a storm has set aside are processed again. Those that are refused again become dead letters.
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
    registered, or that must not be sent. The member that owns the record's partition is asked. A record in a request is
    skipped only if the vendor's answer says that it was not accepted.
    """
    from connector.operations import member
    from connector.records import Position

    asked = _members(config, destination, url)
    position = Position(topic, partition, offset)
    owner = member.owner(position, asked.addresses, asked.token)
    answer = member.skip(position, destination, owner, asked.token)
    sys.stdout.write(f"{visible(answer)}\n")


def _act(action: str, name: str, config: Path, urls: list[str] | None) -> None:
    """Request an action from running members, and print the resulting state; exit with 1 if one of them refuses."""
    from connector.operations import member

    asked = _members(config, name, urls)
    done, refusals = 0, []
    for address in asked.addresses:
        where = f"{address}: " if len(asked.addresses) > 1 else ""
        try:
            state, released, probed = member.act(action, name, address, asked.token)
        except member.ActionRefused as refused:
            refusals.append((refused, where))
            continue
        done += 1
        if action == "probe" and not probed:
            why = "an operator holds it; run connector release" if state == "held" else "it is not held"
            sys.stdout.write(f"{where}{name} is not probed: {why}\n")
            continue
        became = {"hold": "held", "release": "released", "probe": "probed"}[action]
        now = "" if state is None or state == became else f"; its state is now {visible(state)}"
        again = f"; {counted(released, 'record')} set aside by a storm will be tried again" if released else ""
        sys.stdout.write(f"{where}{name} is {became}{again}{now}\n")
    # A member of other destinations (--destination) does not have this one. That is fine if another member has it.
    failures = [f"{where}{refusal}" for refusal, where in refusals if not (done and refusal.is_unknown)]
    for failure in failures:
        say(failure)
    if failures:
        raise SystemExit(FAILED)


def _members(config: Path, destination: str | None, urls: list[str] | None) -> Members:
    """Return the members to act on; see `_acting`."""
    loaded = read_config(config)
    refuse_unknown(loaded, destination)
    return _acting(loaded.settings.server, loaded.settings.console.members, urls)


def _acting(server: ServerSettings, named: list[str] | None, urls: list[str] | None) -> Members:
    """Return the members to act on: the given ones, else `console.members`, else those of the configured ports.

    Without `server.token` only those of this machine take actions.
    """
    if not urls and named and server.token is None:
        urls = [each for each in named if urlsplit(each).hostname in _LOOPBACK]
        if len(urls) < len(named):
            say("Only members on this machine are asked: others accept actions only if server.token is set.")
        return _at(server, urls)
    return _at(server, urls or named)


class Members(NamedTuple):
    """The ports of running members, and the token for actions."""

    addresses: list[str]
    token: SecretStr | None


def members_to_reload(config: Path, urls: list[str] | None) -> Members:
    """Return the members to ask, as for other actions.

    The rest of the file may be faulty: the members themselves report that on `connector reload`.
    """
    from connector.config.loader import port_settings
    from connector.errors import ConfigurationError

    try:
        server, named = port_settings(config)
    except ConfigurationError:
        if not urls:
            raise
        return Members(urls, None)
    return _acting(server, named, urls)


def members_of(loaded: Loaded, urls: list[str] | None) -> Members:
    """Return every running member: the given ones, else `console.members`, else the configured ports that answer."""
    return _at(loaded.settings.server, urls or loaded.settings.console.members)


def _at(server: ServerSettings, urls: list[str] | None) -> Members:
    """Return the members at the URLs; without any, those of the configured ports that answer."""
    from connector.operations.member import each_address

    if urls:
        return Members(each_address(urls), server.token)
    if server.ports[0] == 0:
        fail("server.port is 0, so the member's port is unknown: pass --url", BAD_CONFIGURATION)
    addresses = [server_url(server.host, port) for port in server.ports]
    if len(addresses) > 1:
        addresses = [each for each in addresses if is_open(each)] or addresses[:1]
    return Members(addresses, server.token)


def command_options(config: Path, urls: list[str] | None) -> CommandOptions:
    """Return the options that a printed command needs to reach the same members."""
    from connector.console.advice import CommandOptions

    return CommandOptions(None if config == DEFAULT_FILE else str(config), tuple(urls or ()))


def is_open(address: str) -> bool:
    """Whether something listens at an address such as http://127.0.0.1:8080."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1.0).close()
    except OSError:
        return False
    return True


def server_url(host: str, port: int) -> str:
    """Return the address of a member that listens on `host`, for callers on its own machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 -- read, not bound
    return f"http://{reached}:{port}"
