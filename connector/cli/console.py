"""The command `connector console`: the page for the person on call, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, File, fail, in_loop, read_config
from connector.cli.member import server_url
from connector.config.loader import Loaded


def console(
    *,
    config: File = DEFAULT_FILE,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url", metavar="URL", help="A running member's port; repeatable. Default: console.members, else server."
        ),
    ] = None,
) -> None:
    """Serve the page for the person on call: what is wrong, where, since when, what to do, and the dead letters."""
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    settings = loaded.settings
    members = url or settings.console.members
    if members is None:
        if settings.server.port == 0:
            fail("server.port is 0, so the member's port is not known; give it with --url", BAD_CONFIGURATION)
        members = [server_url(settings.server.host, settings.server.port)]
    faults = [one for one in members if not one.startswith(("http://", "https://"))]
    if faults:
        fail(f"--url is no address of a member; allowed: http://host:port, but not {faults[0]}", BAD_CONFIGURATION)
    configure(settings.log)
    in_loop(_serve(loaded, members))


async def _serve(loaded: Loaded, members: list[str]) -> None:
    from connector.operations.console import serving

    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    async with serving(loaded, members) as page:
        sys.stderr.write(f"The console is at {server_url(loaded.settings.console.host, page.port)}/\n")
        await stop.wait()
