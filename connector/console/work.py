"""The addresses that set something off: a question first, then a job with its CSRF token, audited before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from connector.console import dead_letters_page, export, jobs_page
from connector.console.frame import ACTIONS, fields, notice, page
from connector.console.index import Query
from connector.console.jobs import Action, Busy, Job
from connector.console.markup import tag
from connector.console.requests import read_order, read_query
from connector.console.security import CSRF, HEADERS
from connector.console.state import State, html
from connector.console.words import moment
from connector.dead_letters.replay import Order
from connector.errors import ConnectorError

_ACTIONS: Final[Mapping[str, Action]] = {
    "recheck": "recheck",
    "replay": "replay",
    "discard": "discard",
    "export": "export",
}


class Work:
    """Re-checks, replays, discards and exports letters."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the addresses."""
        number = r"/jobs/{number:\d{1,9}}"
        return [
            web.get("/confirm", self._confirm),
            web.get("/jobs", self._jobs),
            web.post("/jobs", self._begin),
            web.get(number, self._job),
            web.post(number + "/stop", self._stop),
            web.get(number + "/file", self._file),
        ]

    async def _confirm(self, request: web.Request) -> web.Response:
        """Ask before anything is done."""
        action = _ACTIONS.get(request.query.get("action", ""))
        try:
            query = read_query(request.query, self._state.clock.wall())
        except ValueError as error:
            return self._refuse(str(error), 400)
        if action is None:
            return self._refuse(f"allowed actions: {', '.join(ACTIONS)}", 400)
        if request.query.get("ticked") and not query.ids:
            return self._refuse("Tick the letters that you mean first, or use the buttons for all that fit.", 400)
        return await self._question(request, action, query)

    async def _question(
        self, request: web.Request, action: Action, query: Query, fault: str | None = None
    ) -> web.Response:
        state = self._state
        # Only open letters are acted on; an export may hold the others too. What fails from now on is not meant.
        meant = query if action == "export" else replace(query, resolved=False)
        span = await asyncio.to_thread(state.index.span, meant)
        if span is not None and meant.until is None:
            meant = replace(meant, until=span[1])
        kinds = await asyncio.to_thread(state.index.kinds, meant)
        return html(dead_letters_page.confirm(state.frame(), action, meant, kinds, fault))

    async def _begin(self, request: web.Request) -> web.Response:
        """Begin what was confirmed."""
        state = self._state
        form = await request.post()
        fault = state.fault(request, form.get(CSRF))
        if fault is not None:
            return self._refuse(fault, 403)
        action = _ACTIONS.get(str(form.get("action", "")))
        if action is None:
            return self._refuse(f"allowed actions: {', '.join(ACTIONS)}", 400)
        try:
            query = read_query(form, state.clock.wall())  # type: ignore[arg-type]  # files are no texts and left out
            order = read_order(form, query)  # type: ignore[arg-type]  # as above
        except ValueError as error:
            return self._refuse(str(error), 400)
        expected = len(await asyncio.to_thread(state.index.rows, query))
        if str(expected) != form.get("expected", str(expected)):
            fault = "Their number has changed since you were asked. Look again."
            return await self._question(request, action, query, fault)
        try:
            job = await self._audited(request, action, query, order, expected)
        except Busy as error:
            return await self._question(request, action, query, str(error))
        except ConnectorError as error:
            return self._refuse(f"Nothing was done, because it cannot be written to the audit topic: {error}", 503)
        if action != "export":
            state.jobs.run(job)
        raise web.HTTPSeeOther(f"/jobs/{job.number}")

    async def _audited(self, request: web.Request, action: Action, query: Query, order: Order, expected: int) -> Job:
        """Return a new job once the audit log has it. Raises `Busy`, and `ConnectorError` where the log has not."""
        state = self._state
        job = state.jobs.begin(action, state.who(request), query, order, expected)
        what: dict[str, Any] = {
            "job": job.number,
            "letters": expected,
            "filter": [
                f"{name}={'•••' if name == 'key' and state.mask.key else value}" for name, value in fields(query)
            ],
            "force": order.force,
            "edited": [edit.path for edit in order.edits],
        }
        try:
            await state.audit.note(action, job.who, what)
        except ConnectorError as error:
            state.jobs.end(job, "failed", str(error))
            raise
        return job

    async def _jobs(self, request: web.Request) -> web.Response:
        """Show what was done."""
        return html(jobs_page.render_all(self._state.frame(), self._state.jobs.all()))

    async def _job(self, request: web.Request) -> web.Response:
        """Show how far something is."""
        job = self._state.jobs.get(int(request.match_info["number"]))
        if job is None:
            return self._refuse("there is no such action here; the console may have been started anew", 404)
        return html(jobs_page.render(self._state.frame(), job))

    async def _stop(self, request: web.Request) -> web.Response:
        """End a job early."""
        state = self._state
        form = await request.post()
        fault = state.fault(request, form.get(CSRF))
        if fault is not None:
            return self._refuse(fault, 403)
        job = state.jobs.get(int(request.match_info["number"]))
        if job is not None and job.state == "running":
            await state.audit.note("stop", state.who(request), {"job": job.number})
            state.jobs.stop(job)
        raise web.HTTPSeeOther(f"/jobs/{request.match_info['number']}")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Write an export to who asked for it; once, because it was confirmed and audited once."""
        state = self._state
        job = state.jobs.get(int(request.match_info["number"]))
        if job is None or job.action != "export" or not state.jobs.take_up(job):
            return self._refuse("this export was written already, or is none; ask for a new one", 410)
        name = f"dead-letters-{moment(job.started, '%Y%m%dT%H%M%SZ')}.jsonl"
        response = web.StreamResponse(
            headers={
                **HEADERS,
                "Content-Type": "application/jsonl; charset=utf-8",
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        await response.prepare(request)
        try:
            await self._write(job, response)
        except ConnectorError as error:
            state.jobs.end(job, "failed", str(error))
            if request.transport is not None:
                # A file that ends in the middle must not look whole: without its last chunk the browser says so.
                request.transport.abort()
            return response
        except (ConnectionError, asyncio.CancelledError):
            state.jobs.end(job, "stopped", "the download was broken off")
            raise
        state.jobs.end(job, "done")
        await response.write_eof()
        return response

    async def _write(self, job: Job, response: web.StreamResponse) -> None:
        state = self._state

        def progress(done: int, total: int) -> None:
            job.read, job.total = done, total

        dead_letters = state.edges.dead_letters(job.order.wanted, job.query.resolved, progress)
        async with aclosing(export.lines(dead_letters, state.mask, state.edges.inspect)) as chunks:
            async for text, count in chunks:
                await response.write(text)
                job.done += count

    def _refuse(self, why: str, status: int) -> web.Response:
        back = tag("p", tag("a", "Back to the dead letters", href="/letters"))
        frame = self._state.frame()
        return html(
            page(frame, "Not done", "/letters", tag("h1", "Nothing was done"), notice("warn", why), back), status
        )
