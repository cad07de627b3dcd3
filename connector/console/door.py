"""The addresses for those who are not in yet: signing in and out, health, and the files that pages are drawn with."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import structlog
from aiohttp import web

from connector.console.frame import hidden, notice, plain_page
from connector.console.markup import tag
from connector.console.security import CSRF, HEADERS, SIGN_IN
from connector.console.state import State, html
from connector.errors import ConnectorError

_STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_FILES: Final = {name: (files("connector.console") / "static" / name).read_bytes() for name in _STATIC}
_NAME: Final = 40
_log = structlog.get_logger()


class Door:
    """Lets people in."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the addresses."""
        return [
            web.get("/healthz", self._health),
            web.get("/static/{name}", self._static),
            web.get(SIGN_IN, self._ask),
            web.post(SIGN_IN, self._sign_in),
            web.post("/sign-out", self._sign_out),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        """Answer that the loop turns; Kafka's and the members' troubles are the page's to tell."""
        return web.json_response({"ok": True})

    async def _static(self, request: web.Request) -> web.Response:
        """Answer with a file of ours."""
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return web.Response(
            body=_FILES[name],
            content_type=_STATIC[name],
            charset="utf-8",
            headers={**HEADERS, "Cache-Control": "max-age=300"},
        )

    async def _ask(self, request: web.Request) -> web.Response:
        """Show the form."""
        if not self._state.guard.needs_token or self._state.session().name is not None:
            raise web.HTTPSeeOther("/")
        return self._form(request)

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Let in who has the token."""
        state = self._state
        form = await request.post()
        fault = state.fault(request, form.get(CSRF))
        if fault is not None:
            return self._form(request, fault, 403)
        if not state.guard.may_try():
            return self._form(request, "Too many wrong tokens were tried. Wait a minute.", 429)
        name = " ".join(str(form.get("name", "")).split())[:_NAME] or "somebody"
        session = state.guard.sign_in(str(form.get("token", "")), name)
        if session is None:
            _log.warning("console.sign_in_refused", remote=request.remote)
            return self._form(request, "That is not the token.", 401)
        state.guard.sign_out(state.session())
        try:
            await state.audit.note("sign_in", f"{name} ({request.remote})", {})
        except ConnectorError as error:
            state.guard.sign_out(session)
            return self._form(request, f"Nobody gets in that the audit topic does not know of: {error}", 503)
        answer = web.Response(status=303, headers={"Location": "/"})
        state.guard.set_cookie(request, answer, session)
        return answer

    async def _sign_out(self, request: web.Request) -> web.Response:
        """End a session."""
        form = await request.post()
        if self._state.fault(request, form.get(CSRF)) is None:
            self._state.guard.sign_out(self._state.session())
        raise web.HTTPSeeOther("/")

    def _form(self, request: web.Request, fault: str | None = None, status: int = 200) -> web.Response:
        """Return the form, with what was wrong before."""
        token = tag("input", id="token", name="token", type="password", autocomplete="current-password", required=True)
        name = tag("input", id="name", name="name", autocomplete="username", maxlength=_NAME)
        state = self._state
        form = tag(
            "form",
            hidden(CSRF, state.guard.csrf(state.session())),
            tag("p", tag("label", "Your name, for the audit log", for_="name"), name, class_="field"),
            tag("p", tag("label", "Token (console.token)", for_="token"), token, class_="field"),
            tag("p", tag("button", "Sign in", class_="main")),
            method="post",
            action=SIGN_IN,
        )
        told = None if fault is None else notice("bad", fault)
        return html(plain_page("Sign in", tag("h1", state.settings.kafka.group_id), told, form), status)
