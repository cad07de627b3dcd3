"""The console's HTTP server: listens, reads dead letters and samples members, from `start` to `stop`."""

from __future__ import annotations

import asyncio
import errno
import traceback
from collections.abc import Sequence

import structlog
from aiohttp import web

from connector.clock import SystemClock
from connector.config.loader import Settings
from connector.console.action_routes import ActionRoutes
from connector.console.auth_routes import AuthRoutes
from connector.console.member_routes import MemberRoutes
from connector.console.page_routes import PageRoutes
from connector.console.rendering import html, render
from connector.console.security import Handler, caller, demand_token
from connector.console.state import ConsolePorts, ConsoleState
from connector.errors import ConnectorError, StartupError
from connector.tasks import restarted

_log = structlog.get_logger()


class Console:
    """Serves the pages. Call `start` and `stop` once each, in one loop.

    `members` are the addresses of the members' ports. Raises `StartupError` if other machines could reach the pages
    without a token.
    """

    def __init__(self, settings: Settings, members: Sequence[str], ports: ConsolePorts) -> None:
        own = settings.console
        demand_token(own.host, own.roles, proxy=own.proxy is not None)
        self._host, self._wanted = own.host, own.port
        self._state = ConsoleState(settings, members, ports)
        self._runner: web.AppRunner | None = None
        self._sampling: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the actual one where the configuration says 0."""
        if self._runner is None or not self._runner.addresses:
            return self._wanted
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen, and start to read. Raises `StartupError` if the address cannot be used."""
        state = self._state
        application = web.Application(
            client_max_size=256 * 1024, middlewares=[state.guard.middleware, self._show_failures]
        )
        for part in (PageRoutes(state), MemberRoutes(state), ActionRoutes(state), AuthRoutes(state)):
            application.router.add_routes(part.routes())
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
        sampling = restarted(state.sampler.run, "console-sampler", SystemClock())
        self._sampling = asyncio.create_task(sampling, name="console-sampler")

    async def stop(self) -> None:
        """Close the port, stop running actions, and close the topic."""
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
    async def _show_failures(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn a problem with Kafka, or an unknown address, into a page."""
        try:
            return await handler(request)
        except ConnectorError as error:
            title, why, status = "This does not work now", str(error), 503
        except web.HTTPNotFound:
            if caller() is None:
                raise
            title, why, status = "Not found", "No page has this address.", 404
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 -- the last place where a failure can still become a page
            # Where it failed, not its message: that may hold what a record held.
            frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
            where = f"{frame.f_code.co_filename}:{line}"
            _log.error("console.page_failed", path=request.path, error=type(error).__name__, where=where)
            title, status = "This page failed", 500
            why = "Report this as a bug, with the line console.page_failed of the log. The other pages still work."
        page = self._state.page(title, "")
        return html(render("message.html", page, message=why, kind="warn", back="/"), status)


__all__ = ["Console", "ConsolePorts"]
