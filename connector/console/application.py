"""The console's HTTP server: listens, reads dead letters and samples members, from `start` to `stop`."""

from __future__ import annotations

import asyncio
import errno
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog
from aiohttp import web

from connector.config.loader import Settings
from connector.console.action_routes import ActionRoutes
from connector.console.auth_routes import AuthRoutes
from connector.console.member_routes import MemberRoutes
from connector.console.page_routes import PageRoutes
from connector.console.rendering import html, render
from connector.console.security import HEADERS, Handler, caller, demand_token
from connector.console.state import ConsolePorts, ConsoleState
from connector.console.timeline import DAY, read_events
from connector.errors import ConnectorError, StartupError
from connector.tasks import restarted
from connector.telemetry.listener import Listener
from connector.vendors import code_meaning

EVENTS_SECONDS: Final = 60.0
"""How often the topic of events is read."""

_log = structlog.get_logger()


class Console:
    """Serves the pages. Call `start` and `stop` once each, in one loop.

    `members` are the addresses of the members' ports. `sparse`: they are a range of ports, and some may be unused.
    Raises `StartupError` if other machines could reach the pages without a token.
    """

    def __init__(
        self, settings: Settings, members: Sequence[str], ports: ConsolePorts, *, sparse: bool = False
    ) -> None:
        own = settings.console
        demand_token(own.host, own.roles, proxy=own.proxy is not None)
        self._host, self._wanted = own.host, own.port
        self._state = ConsoleState(settings, members, ports, sparse=sparse)
        self._listener: Listener | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The port it listens on; the actual one if the configuration says 0."""
        found = None if self._listener is None else self._listener.port
        return self._wanted if found is None else found

    async def start(self) -> None:
        """Listen, and start reading. Raises `StartupError` if the address cannot be used."""
        state = self._state
        # The first call searches the disk for installed vendors, and no page should wait for that.
        await asyncio.to_thread(code_meaning, "", "")
        application = web.Application(
            client_max_size=256 * 1024, middlewares=[state.guard.middleware, self._show_failures]
        )
        for part in (PageRoutes(state), MemberRoutes(state), ActionRoutes(state), AuthRoutes(state)):
            application.router.add_routes(part.routes())
        listener = Listener(application, self._host, [self._wanted], headers=HEADERS)
        try:
            await listener.start()
        except OSError as error:
            used = error.errno == errno.EADDRINUSE
            why = "is in use by another process; choose another port" if used else error.strerror or str(error)
            raise StartupError(f"console.port: {self._host}:{self._wanted} {why}") from error
        self._listener = listener
        state.feed.start()
        work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {"console-sampler": state.sampler.run}
        if (past := state.ports.past_events) is not None:
            work["console-events"] = lambda: self._read_events(past)
        clock = self._state.clock
        self._tasks = [asyncio.create_task(restarted(each, name, clock), name=name) for name, each in work.items()]

    async def stop(self) -> None:
        """Close the port, stop running actions, and close the topic."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await listener.stop()
        await self._state.jobs.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._state.searches.stop)
        await asyncio.to_thread(self._state.feed.stop)

    async def _read_events(self, past_events: Callable[[float], Sequence[Mapping[str, Any]]]) -> None:
        """Read the topic of events: first the whole last day, then regularly, because members write events and end."""
        clock, since, is_failing = self._state.clock, 0.0, False
        while True:
            now = clock.wall()
            try:
                found = await asyncio.to_thread(past_events, max(since, now - DAY))
            except ConnectorError as error:
                if not is_failing:
                    _log.warning("console.events_unread", message=str(error))
                is_failing = True
            else:
                self._state.chronicle.add(read_events(list(found)), now)
                since, is_failing = now - EVENTS_SECONDS, False
            await clock.sleep(EVENTS_SECONDS)

    @web.middleware
    async def _show_failures(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn a problem with Kafka, or an unknown address, into a page."""
        try:
            return await handler(request)
        except ConnectorError as error:
            title, why, status = "Not possible at the moment", str(error), 503
        except web.HTTPNotFound:
            if caller() is None:
                raise
            title, why, status = "Not found", "There is no page at this address.", 404
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 -- the last place where a failure can still become a page
            # Show where it failed, not the message, which may contain a record's values.
            frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
            where = f"{frame.f_code.co_filename}:{line}"
            _log.error("console.page_failed", path=request.path, error=type(error).__name__, where=where)
            title, status = "This page failed", 500
            why = "Report this as a bug, with the line console.page_failed of the log. The other pages still work."
        page = self._state.page(title, "")
        return html(render("message.html", page, message=why, kind="warn", back="/"), status)


__all__ = ["Console", "ConsolePorts"]
