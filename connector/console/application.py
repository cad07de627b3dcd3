"""The console's server: listens, reads and samples, from `start` to `stop`."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence

from aiohttp import web

from connector.config.loader import Settings
from connector.console.door import Door
from connector.console.frame import notice, page
from connector.console.markup import tag
from connector.console.pages import Pages
from connector.console.security import Handler, caller, demand_token
from connector.console.state import Edges, State, html
from connector.console.work import Work
from connector.errors import ConnectorError, StartupError


class Console:
    """Serves the page. `start` and `stop` once each, in one loop.

    `members` are the addresses of the members' ports. Raises `StartupError` where the page would be open to other
    machines without a token.
    """

    def __init__(self, settings: Settings, members: Sequence[str], edges: Edges) -> None:
        own = settings.console
        demand_token(own.host, own.token.get_secret_value() if own.token is not None else None)
        self._host, self._wanted = own.host, own.port
        self._state = State(settings, members, edges)
        self._runner: web.AppRunner | None = None
        self._sampling: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: also the real one where 0 was wanted."""
        if self._runner is None or not self._runner.addresses:
            return self._wanted
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen, and begin to read. Raises `StartupError` where the address cannot be had."""
        state = self._state
        application = web.Application(
            client_max_size=256 * 1024, middlewares=[state.guard.middleware, self._say_what_failed]
        )
        for room in (Pages(state), Work(state), Door(state)):
            application.router.add_routes(room.routes())
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._wanted).start()
        except OSError as error:
            await runner.cleanup()
            used = error.errno == errno.EADDRINUSE
            why = "is in use by another process; choose another port" if used else error.strerror or str(error)
            raise StartupError(f"console.port: {self._host}:{self._wanted} {why}") from error
        self._runner = runner
        state.feed.start()
        self._sampling = asyncio.create_task(state.sampler.run(), name="console-sampler")

    async def stop(self) -> None:
        """Close the port, stop what is under way, and let go of the topic."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await runner.cleanup()
        await self._state.jobs.close()
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        await asyncio.to_thread(self._state.feed.stop)

    @web.middleware
    async def _say_what_failed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn trouble with Kafka, and addresses that lead nowhere, into a page."""
        try:
            return await handler(request)
        except ConnectorError as error:
            title, why, status = "This does not work now", str(error), 503
        except web.HTTPNotFound:
            if caller() is None:
                raise
            title, why, status = "Nothing is here", "No page has this address.", 404
        frame = self._state.frame()
        return html(page(frame, title, "", tag("h1", title), notice("warn", why)), status)


__all__ = ["Console", "Edges"]
