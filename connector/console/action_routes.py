"""Routes that act on dead letters: ask first, then start a job, recorded in the audit log before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from connector.console import export
from connector.console.dead_letter_list import ACTIONS, question
from connector.console.formatting import moment
from connector.console.index import Query
from connector.console.jobs import Action, Busy, Job, job_view
from connector.console.masking import HIDDEN
from connector.console.queries import LIST, query_fields, read_format, read_order, read_query
from connector.console.rendering import html, render
from connector.console.search import Search
from connector.console.security import CSRF, HEADERS, read_form
from connector.console.state import ConsoleState
from connector.dead_letters.export import FORMATS, Format
from connector.dead_letters.replay import Order
from connector.errors import ConnectorError

_ACTIONS: Final[Mapping[str, Action]] = {
    "recheck": "recheck",
    "replay": "replay",
    "discard": "discard",
    "export": "export",
}


class ActionRoutes:
    """Re-checks, replays, discards and exports dead letters."""

    def __init__(self, state: ConsoleState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
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
        """Ask for confirmation."""
        if not self._state.may_act:
            return self._refuse("Your token is read-only. Sign in with a token of the role act.", 403)
        action = _ACTIONS.get(request.query.get("action", ""))
        try:
            query = read_query(request.query, self._state.clock.wall())
            self._state.mask.check_search(query.conditions, query.contains)
        except ValueError as error:
            return self._refuse(str(error), 400)
        if action is None:
            return self._refuse(f"allowed actions: {', '.join(ACTIONS)}", 400)
        if request.query.get("ticked") and not query.ids:
            return self._refuse("Select dead letters first, or use the buttons for all that match.", 400)
        if (search := await self._search(query)) is not None:
            return await self._wait(search)
        return await self._question(request, action, query)

    async def _search(self, query: Query) -> Search | None:
        """Return the search that must end before it is known which dead letters a query selects."""
        return await asyncio.to_thread(self._state.searches.of, query)

    async def _wait(self, search: Search) -> web.Response:
        """Show a search's progress; the question follows when it has ended."""
        why = search.trouble or f"{search.read:,} of {search.total:,} read"
        page = self._state.page("Searching", LIST, live=None if search.trouble else 2)
        return html(render("message.html", page, message=f"The search is not complete: {why}.", kind="calm", back=LIST))

    async def _question(
        self, request: web.Request, action: Action, query: Query, fault: str | None = None
    ) -> web.Response:
        state = self._state
        # Actions apply to unresolved dead letters; an export may include resolved ones. Later failures are not
        # included.
        meant = query if action == "export" else replace(query, resolved=False)
        span = await asyncio.to_thread(state.index.span, meant)
        if span is not None and meant.until is None:
            meant = replace(meant, until=span[1])
        kinds = await asyncio.to_thread(state.index.kinds, meant)
        page = state.page(ACTIONS[action], LIST)
        return html(render("confirm.html", page, question(action, meant, kinds, fault)))

    async def _begin(self, request: web.Request) -> web.Response:
        """Start the confirmed action."""
        state = self._state
        form = await read_form(request)
        fault = state.form_fault(request, form.get(CSRF))
        if fault is not None:
            return self._refuse(fault, 403)
        action = _ACTIONS.get(str(form.get("action", "")))
        if action is None:
            return self._refuse(f"allowed actions: {', '.join(ACTIONS)}", 400)
        try:
            query = read_query(form, state.clock.wall())
            order = read_order(form, query)
            written = read_format(form)
            state.mask.check_search(query.conditions, query.contains)
        except ValueError as error:
            return self._refuse(str(error), 400)
        if (search := await self._search(query)) is not None:
            return await self._wait(search)
        expected = len(await asyncio.to_thread(state.index.rows, query))
        # The person confirmed a number of dead letters. If the number has changed, ask again.
        if str(expected) != form.get("expected", str(expected)):
            fault = "Check again: the number of dead letters has changed since the question."
            return await self._question(request, action, query, fault)
        try:
            job = await self._audited(request, action, query, order, expected, written)
        except Busy as error:
            return await self._question(request, action, query, str(error))
        except ConnectorError as error:
            return self._refuse(f"The action cannot be recorded in the audit topic: {error}", 503)
        # An export is written while it is downloaded (`_file`), so that no copy stays on this machine.
        if action != "export":
            state.jobs.run(job)
        raise web.HTTPSeeOther(f"/jobs/{job.number}")

    async def _audited(
        self, request: web.Request, action: Action, query: Query, order: Order, expected: int, written: Format
    ) -> Job:
        """Return a new job once it is in the audit log. Raises `Busy`, and `ConnectorError` if the log fails."""
        state = self._state
        job = state.jobs.begin(action, state.who(request), query, order, expected, written)
        what: dict[str, Any] = {
            "job": job.number,
            "dead_letters": expected,
            "filter": [
                f"{name}={HIDDEN if name == 'key' and state.mask else value}" for name, value in query_fields(query)
            ],
            "force": order.force,
            "edited": [edit.path for edit in order.edits],
            **({"format": written} if action == "export" else {}),
        }
        try:
            # Before it runs: an action that cannot be recorded is not taken.
            await state.audit.note(action, job.who, what)
        except ConnectorError as error:
            state.jobs.end(job, "failed", str(error))
            raise
        return job

    async def _jobs(self, request: web.Request) -> web.Response:
        """Show all actions."""
        jobs = self._state.jobs.all()
        live = 2 if any(job.state == "running" for job in jobs) else None
        return html(render("actions.html", self._state.page("Actions", "/jobs", live), jobs))

    async def _job(self, request: web.Request) -> web.Response:
        """Show the progress of one action."""
        job = self._state.jobs.get(int(request.match_info["number"]))
        if job is None:
            return self._refuse("There is no such action. The console may have been restarted since.", 404)
        page = self._state.page(job.name, "/jobs", 1 if job.state == "running" else None)
        return html(render("action.html", page, job_view(job, page.now, self._state.mask)))

    async def _stop(self, request: web.Request) -> web.Response:
        """End a job early."""
        state = self._state
        form = await read_form(request)
        fault = state.form_fault(request, form.get(CSRF))
        if fault is not None:
            return self._refuse(fault, 403)
        job = state.jobs.get(int(request.match_info["number"]))
        if job is not None and job.state == "running":
            await state.audit.note("stop", state.who(request), {"job": job.number})
            state.jobs.stop(job)
        raise web.HTTPSeeOther(f"/jobs/{request.match_info['number']}")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Write an export; only once, because it was confirmed and audited once."""
        state = self._state
        if not state.may_act:
            return self._refuse("Your token is read-only. Sign in with a token of the role act.", 403)
        job = state.jobs.get(int(request.match_info["number"]))
        if job is None or job.action != "export" or not state.jobs.take_up(job):
            return self._refuse("Start a new export: this one was already downloaded, or does not exist.", 410)
        name = f"dead-letters-{moment(job.started, '%Y%m%dT%H%M%SZ')}.{job.form}"
        response = web.StreamResponse(
            headers={
                **HEADERS,
                "Content-Type": FORMATS[job.form][1],
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        await response.prepare(request)
        try:
            await self._write(job, response)
        except ConnectorError as error:
            state.jobs.end(job, "failed", str(error))
            if request.transport is not None:
                # A truncated file must not look complete: without the last chunk the browser reports an error.
                request.transport.abort()
            return response
        except (ConnectionError, asyncio.CancelledError):
            state.jobs.end(job, "stopped", "the download was interrupted")
            raise
        state.jobs.end(job, "done")
        await response.write_eof()
        return response

    async def _write(self, job: Job, response: web.StreamResponse) -> None:
        state = self._state

        def progress(done: int, total: int) -> None:
            job.read, job.total = done, total

        dead_letters = state.ports.dead_letters(job.order.wanted, job.query.resolved, progress)
        async with aclosing(export.pieces(dead_letters, job.form, state.mask, state.ports.decode)) as chunks:
            async for text, count in chunks:
                await response.write(text)
                job.done += count

    def _refuse(self, why: str, status: int) -> web.Response:
        page = self._state.page("Nothing was done", LIST)
        return html(render("message.html", page, message=why, kind="warn", back=LIST), status)
