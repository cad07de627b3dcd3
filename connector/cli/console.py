"""The command `connector console`: the page for the person on call, served until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, File, begin, fail, in_loop, say
from connector.cli.member import command_options, server_url
from connector.config.loader import Loaded

if TYPE_CHECKING:
    from connector.console.advice import CommandOptions


def console(
    *,
    config: File = DEFAULT_FILE,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="A running member's port; repeatable. Default: console.members, else the configured server.",
        ),
    ] = None,
) -> None:
    """Serve the page for the person on call: what is wrong, since when, what to do, and the dead letters."""
    loaded = begin(config)
    settings = loaded.settings
    members = url or settings.console.members
    sparse = members is None
    if members is None:
        if settings.server.ports[0] == 0:
            fail("server.port is 0, so the member's port is unknown: pass --url", BAD_CONFIGURATION)
        members = [server_url(settings.server.host, port) for port in settings.server.ports]
    wrong = [member for member in members if not member.startswith(("http://", "https://"))]
    if wrong:
        fail(f"--url must be http://host:port, not {wrong[0]}", BAD_CONFIGURATION)
    in_loop(_serve(loaded, members, command_options(config, url), sparse=sparse and len(members) > 1))


async def _serve(loaded: Loaded, members: list[str], options: CommandOptions, *, sparse: bool) -> None:
    from connector.operations.console import serving

    stop = asyncio.Event()
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stop_signal, stop.set)
    async with serving(loaded, members, sparse=sparse, options=options) as page:
        say(f"The console is at {server_url(loaded.settings.console.host, page.port)}/")
        await stop.wait()
