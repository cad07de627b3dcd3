"""Who may see the pages and act: Host names, sign-in, CSRF tokens, and restrictive security headers.

Theory of operation. A request passes these checks in order. Its Host must be an address, localhost or a configured
name, so that a foreign name that resolves to this address (DNS rebinding) gets nothing. With a token, a person signs in
once and holds a session cookie that no script can read and no other site sends; a program sends `Authorization:
Bearer`. Every change is a POST and must carry the CSRF token of its session and no sign of another site. Every answer
forbids the browser to run, load or frame anything that is not served here.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from connector.clock import Clock
from connector.errors import StartupError

COOKIE: Final = "connector-console"
CSRF: Final = "csrf"
SESSION_SECONDS: Final = 12 * 3600.0
OPEN_PATHS: Final = ("/healthz", "/static/")
SIGN_IN: Final = "/sign-in"

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-store",
}

_MOST_SESSIONS: Final = 1000
_TRIES: Final = 10
_TRIES_SECONDS: Final = 60.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Session:
    """A browser's session. `name` is what the person entered at sign-in; None before sign-in."""

    id: str
    until: float
    name: str | None = None


def demand_token(host: str, token: str | None) -> None:
    """Raise `StartupError` if other machines could reach the page without a token."""
    if token or is_loopback(host):
        return
    raise StartupError(
        f"console.host is {host}, which other machines can reach, and there is no console.token: set one, such as "
        "${file:/run/secrets/console-token}, or listen on 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_allowed(header: str, names: Collection[str]) -> bool:
    """Whether a Host header is an address, localhost, or one of the names; any port is allowed."""
    try:
        host = urlsplit(f"//{header}").hostname or ""
        urlsplit(f"//{header}").port  # noqa: B018 -- raises where it is no port
    except ValueError:
        return False
    if host == "localhost" or host in {name.lower() for name in names}:
        return True
    try:
        # A page of another site can reach us under its own name only, never under an address.
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Caller(NamedTuple):
    """Who makes a request: a session, or a program that sends the token itself."""

    session: Session
    by_token: bool


_caller: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)


def caller() -> Caller | None:
    """Return who makes the request that is being handled; None before it has passed the checks."""
    return _caller.get()


class SignInGuard:
    """Checks each request and keeps the sessions. One per process: sessions end with it, or after 12 hours."""

    def __init__(self, *, token: str | None, names: Collection[str], clock: Clock) -> None:
        self._token = token
        self._names = names
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._wrong: list[float] = []

    @property
    def needs_token(self) -> bool:
        """Whether people have to sign in."""
        return self._token is not None

    def csrf(self, session: Session) -> str:
        """Return the CSRF token of this session's forms."""
        return hmac.new(self._secret, session.id.encode(), sha256).hexdigest()

    def session(self, request: web.Request) -> Session:
        """Return the request's session, a new one if it has no valid one."""
        found = self._sessions.get(request.cookies.get(COOKIE, ""))
        if found is not None and found.until > self._clock.now():
            return found
        return self._begin(None)

    def bearer(self, request: web.Request) -> bool:
        """Whether the request carries the token itself, as programs send it."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.right(given.strip())

    def right(self, given: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and hmac.compare_digest(
            given.encode(errors="surrogateescape"), self._token.encode(errors="surrogateescape")
        )

    def may_try(self) -> bool:
        """Whether a token may be tried now: after ten wrong ones within a minute everyone has to wait."""
        now = self._clock.now()
        self._wrong = [at for at in self._wrong if now - at < _TRIES_SECONDS]
        return len(self._wrong) < _TRIES

    def sign_in(self, given: str, name: str) -> Session | None:
        """Return a new session if the token is right, None otherwise."""
        if not self.right(given):
            self._wrong.append(self._clock.now())
            return None
        return self._begin(name)

    def sign_out(self, session: Session) -> None:
        """End a session."""
        self._sessions.pop(session.id, None)

    def set_cookie(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Set the session cookie; no script can read it and no other site sends it."""
        # A proxy that ends TLS sets this header. A caller who invents it only loses the cookie over plain HTTP.
        secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(COOKIE, session.id, path="/", httponly=True, samesite="Strict", secure=secure)

    def form_fault(self, request: web.Request, session: Session, given: str) -> str | None:
        """Return why a POST is refused: from another site, or without its session's CSRF token. None if it is fine."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return "the request came from another site"
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            return "the request came from another site"
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), self.csrf(session).encode()):
            return "the session of this form has ended; go back, reload the page and try again"
        return None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let through what passes the checks, and set the security headers on every answer."""
        try:
            response = await self._pass(request, handler)
        except web.HTTPException as answer:
            answer.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update({name: value for name, value in HEADERS.items() if name not in response.headers})
        return response

    async def _pass(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # A connection's requests are handled one after the other in the same context.
        _caller.set(None)
        if not host_allowed(request.headers.get("Host", ""), self._names):
            raise web.HTTPMisdirectedRequest(
                text="this page is not served under that name; if the name is yours, add it to console.hosts\n"
            )
        if request.path.startswith(OPEN_PATHS):
            return await handler(request)
        by_token = self.needs_token and self.bearer(request)
        session = Session("", 0.0, "bearer") if by_token else self.session(request)
        _caller.set(Caller(session, by_token))
        if self.needs_token and session.name is None and request.path != SIGN_IN:
            if request.method != "GET" or request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
                raise web.HTTPUnauthorized(text="sign in first\n")
            raise web.HTTPSeeOther(SIGN_IN)
        response = await handler(request)
        if not by_token and not response.prepared and COOKIE not in response.cookies:
            self.set_cookie(request, response, session)
        return response

    def _begin(self, name: str | None) -> Session:
        session = Session(secrets.token_urlsafe(24), self._clock.now() + SESSION_SECONDS, name)
        self._sessions[session.id] = session
        while len(self._sessions) > _MOST_SESSIONS:
            # Browsers that never signed in go first: a thousand visits must not sign a person out.
            strangers = (key for key, other in self._sessions.items() if other.name is None and key != session.id)
            self._sessions.pop(next(strangers, next(iter(self._sessions))))
        return session
