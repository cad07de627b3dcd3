"""Routes that need no session: sign-in and sign-out, health, and static files."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

from connector.console.rendering import html, render
from connector.console.security import CSRF, SIGN_IN, SIGN_OUT, read_form
from connector.console.state import ConsoleState
from connector.errors import ConnectorError

_STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_FILES: Final = {name: (files("connector.console") / "static" / name).read_bytes() for name in _STATIC}
_NAME: Final = 40
"""Characters of a person's name that are kept."""


class AuthRoutes:
    """Signs people in and out."""

    def __init__(self, state: ConsoleState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/healthz", self._health),
            web.get("/static/{name}", self._static),
            web.get(SIGN_IN, self._ask),
            web.post(SIGN_IN, self._sign_in),
            web.post(SIGN_OUT, self._sign_out),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        """Answer that the event loop runs; problems of Kafka and of members are shown on the page."""
        return web.json_response({"ok": True})

    async def _static(self, request: web.Request) -> web.Response:
        """Answer with a static file."""
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return web.Response(
            body=_FILES[name],
            content_type=_STATIC[name],
            charset="utf-8",
            headers={"Cache-Control": "max-age=300"},
        )

    async def _ask(self, request: web.Request) -> web.Response:
        """Show the form."""
        if not self._state.guard.needs_token or self._state.session().name is not None:
            raise web.HTTPSeeOther("/")
        return self._form()

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Sign a person in who has the token."""
        state = self._state
        source = state.guard.source(request)
        form = await read_form(request)
        fault = state.form_fault(request, form.get(CSRF))
        if fault is not None:
            return self._form(fault, 403)
        if not state.guard.may_try(source):
            return self._form("Too many wrong tokens. Wait a minute, then try again.", 429)
        name = " ".join(str(form.get("name", "")).split())[:_NAME] or "anonymous"
        session = state.guard.sign_in(source, str(form.get("token", "")), name)
        if session is None:
            return self._form("Wrong token.", 401)
        state.guard.sign_out(state.session())
        try:
            await state.audit.note("sign_in", f"{name} ({source})", {"role": session.role})
        except ConnectorError as error:
            state.guard.sign_out(session)
            return self._form(f"Sign-in failed, because it cannot be recorded in the audit topic: {error}", 503)
        answer = web.Response(status=303, headers={"Location": "/"})
        state.guard.set_cookie(request, answer, session)
        return answer

    async def _sign_out(self, request: web.Request) -> web.Response:
        """End a session."""
        form = await read_form(request)
        if self._state.form_fault(request, form.get(CSRF)) is None:
            self._state.guard.sign_out(self._state.session())
        raise web.HTTPSeeOther("/")

    def _form(self, fault: str | None = None, status: int = 200) -> web.Response:
        """Return the form, with what was wrong with the last attempt."""
        state = self._state
        csrf = state.guard.csrf(state.session())
        group = state.settings.kafka.group_id
        return html(render("sign_in.html", fault=fault, csrf=csrf, group=group, longest_name=_NAME), status)
