"""Who may see the pages and act: Host names, sign-in, roles, CSRF tokens, and restrictive security headers.

Theory of operation. A request passes these checks in order. Its Host must be an address, localhost or a configured
name, so that a foreign name that resolves to this address (DNS rebinding) gets nothing. With a token, a person signs in
once and gets a session cookie that scripts cannot read and other sites cannot send. A program sends
`Authorization: Bearer`. A trusted proxy may name the person in a header. A token stands for a role: `look` sees every
page, `act` also starts actions. Every change is a POST that must carry the CSRF token of its session and must not come
from another site. Every answer forbids the browser to run, load or frame anything that is not served here.

Wrong tokens are counted for each source, from forms and headers alike. After ten within a minute that source has to
wait, but no other. Only sessions that were opened with a token take memory. Any other browser keeps a random id in its
cookie, and its CSRF token is computed from that id and the name that the proxy reports. So visitors cannot displace
sessions, and neither can a program behind the proxy that keeps no cookie.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import structlog
from aiohttp import HttpVersion11, web

from connector.clock import Clock
from connector.errors import StartupError
from connector.telemetry.listener import ip_address, is_loopback

COOKIE: Final = "connector-console"
CSRF: Final = "csrf"
SESSION_SECONDS: Final = 12 * 3600.0
OPEN_PATHS: Final = ("/healthz", "/static/")
SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
_NAME: Final = 60
"""Characters of a person's name, or of an address, that are kept."""

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
_MOST_SOURCES: Final = 10_000
"""Sources whose wrong tokens are counted; the ones that failed longest ago are dropped first."""
_COOKIE_ID: Final = re.compile(r"[\w-]{32}")
_WITH_PORT: Final = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")

Role = Literal["look", "act"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session. `name` is what the person entered at sign-in, or the proxy's name; None before sign-in."""

    id: str
    until: float
    name: str | None = None
    role: Role = "look"


class ProxySignIn:
    """Sign-in by a trusted proxy, which names the person in a header. Believed from the proxy's addresses only."""

    def __init__(self, addresses: Iterable[str], user_header: str, act: Collection[str]) -> None:
        self._networks = [ipaddress.ip_network(address) for address in addresses]
        self._header = user_header
        self._act = act

    def trusts(self, request: web.Request) -> bool:
        """Whether the request comes from the proxy."""
        address = ip_address(request.remote or "")
        return address is not None and any(address in network for network in self._networks)

    def person(self, request: web.Request) -> tuple[str, Role] | None:
        """Return who the proxy says the person is, and the role; None for any other request."""
        given = request.headers.getall(self._header, ())
        # The header came twice: the proxy added its own to the visitor's, and it is unknown which is which.
        name = " ".join(given[0].split())[:_NAME].encode(errors="replace").decode() if len(given) == 1 else ""
        if not name or not self.trusts(request):
            return None
        return name, "act" if name in self._act else "look"


def _source(address: str) -> str:
    """Return the source that wrong tokens count for: the address, or for IPv6 the network, which one host can own.

    Some proxies add the port, and some write an IPv4 address as an IPv6 one. Neither changes the source.
    """
    bare = _WITH_PORT.fullmatch(address)
    ip = ip_address(address if bare is None else bare[1] or bare[2])
    if ip is None:
        return address[:_NAME]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def demand_token(host: str, roles: Mapping[Role, str], *, proxy: bool = False) -> None:
    """Raise `StartupError` if other machines could reach the page without a token."""
    if roles or proxy or is_loopback(host):
        return
    raise StartupError(
        f"console.host is {host}, which other machines can reach, and console.tokens has no token: set one, such as "
        "act: ${file:/run/secrets/console-token}, or listen on 127.0.0.1"
    )


def host_allowed(header: str, names: Collection[str]) -> bool:
    """Whether a Host header is an address, localhost, or one of the names; any port is allowed."""
    try:
        host = urlsplit(f"//{header}").hostname or ""
        urlsplit(f"//{header}").port  # noqa: B018 -- raises where it is no port
    except ValueError:
        return False
    if host == "localhost" or host in {name.lower() for name in names}:
        return True
    # A page of another site can reach this server only under its own name, never under an address.
    return ip_address(host) is not None


def _is_direct(request: web.Request) -> bool:
    """Whether a request seems to come without a proxy in between.

    A proxy adds headers, or speaks HTTP/1.0 as no browser does, or passes on its own Host.
    """
    added = any(name in request.headers for name in _FORWARDED)
    host = urlsplit(f"//{request.host}").hostname or ""
    return not added and request.version >= HttpVersion11 and is_loopback(host)


async def read_form(request: web.Request) -> Any:
    """Return the text fields of a form, without files. Raises an HTTP answer for any other body."""
    try:
        return await request.post()
    except (ValueError, LookupError):
        raise web.HTTPBadRequest(text="the body is not a form\n") from None


class Caller(NamedTuple):
    """Who makes a request (a session, or a program that sends the token itself), and what the caller may do."""

    session: Session
    by_token: bool
    role: Role


_caller: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)


def caller() -> Caller | None:
    """Return who makes the request that is being handled; None before it has passed the checks."""
    return _caller.get()


class SignInGuard:
    """Checks each request and keeps the sessions. One per process: sessions end with it, or after 12 hours."""

    def __init__(
        self, *, roles: Mapping[Role, str], names: Collection[str], clock: Clock, proxy: ProxySignIn | None = None
    ) -> None:
        self._roles = roles
        self._names = names
        self._clock = clock
        self._proxy = proxy
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self.wrong_tokens = 0
        """Wrong tokens since the start, from every source."""

    @property
    def needs_token(self) -> bool:
        """Whether people have to sign in."""
        return bool(self._roles) or self._proxy is not None

    def csrf(self, session: Session) -> str:
        """Return the CSRF token of this session's forms.

        Computed from the name too: behind a proxy anyone may know an id, but then not another person's CSRF token.
        """
        return hmac.new(self._secret, f"{session.id}\n{session.name or ''}".encode(), sha256).hexdigest()

    def source(self, request: web.Request) -> str:
        """Return where a request comes from: its address, or the one that a trusted proxy reports."""
        address = request.remote or "unknown"
        if self._proxy is not None and self._proxy.trusts(request):
            # The proxy appends to the header, or adds another one, so only the last entry is its own.
            given = request.headers.getall("X-Forwarded-For", ("",))[-1]
            address = given.rpartition(",")[2].strip() or address
        return _source(address)

    def role_of(self, given: str) -> Role | None:
        """Return the role that a token stands for, None for a wrong one. Compares each token in constant time."""
        data = given.encode(errors="surrogateescape")
        found: Role | None = None
        for role, token in self._roles.items():
            if hmac.compare_digest(data, token.encode(errors="surrogateescape")):
                found = role
        return found

    def may_try(self, source: str) -> bool:
        """Whether a source may try a token now: after ten wrong ones within a minute it has to wait."""
        return len(self._recent(source)) < _TRIES

    def sign_in(self, source: str, given: str, name: str) -> Session | None:
        """Return a new session if the token is right, None otherwise."""
        role = self.role_of(given)
        if role is None:
            self._count_wrong(source, "form")
            return None
        session = Session(secrets.token_urlsafe(24), self._clock.now() + SESSION_SECONDS, name, role)
        self._sessions[session.id] = session
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def sign_out(self, session: Session) -> None:
        """End a session."""
        self._sessions.pop(session.id, None)

    def set_cookie(self, request: web.Request, response: web.StreamResponse, session: Session) -> None:
        """Set the session cookie; no script can read it and no other site sends it."""
        # A proxy that terminates TLS sets this header. A caller that invents it only loses its own cookie over plain
        # HTTP.
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
        """Let through what passes the checks."""
        # A connection's requests are handled one after the other in the same context.
        _caller.set(None)
        if not host_allowed(request.headers.get("Host", ""), self._names):
            raise web.HTTPMisdirectedRequest(
                text="this page is not served under that name; if the name is yours, add it to console.hosts\n"
            )
        if request.path.startswith(OPEN_PATHS):
            return await handler(request)
        found = self._identify(request)
        _caller.set(found)
        if found.session.name is None and self.needs_token and request.path != SIGN_IN:
            if request.method != "GET" or request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
                raise web.HTTPUnauthorized(text="sign in first\n")
            raise web.HTTPSeeOther(SIGN_IN)
        if request.method not in ("GET", "HEAD") and found.role != "act" and request.path not in (SIGN_IN, SIGN_OUT):
            raise web.HTTPForbidden(text="your token is read-only; sign in with a token of the role act\n")
        response = await handler(request)
        if not found.by_token and not response.prepared and COOKIE not in response.cookies:
            self.set_cookie(request, response, found.session)
        return response

    def _identify(self, request: web.Request) -> Caller:
        """Return who makes a request. Raises an HTTP answer for a source that tries too many tokens."""
        if not self.needs_token:
            if not _is_direct(request):
                # Otherwise every caller of the proxy would count as a local caller.
                raise web.HTTPForbidden(text="behind a proxy the console needs console.tokens or console.proxy\n")
            return Caller(self._unkept_session(request), by_token=False, role="act")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            role = self._bearer(self.source(request), given.strip())
            if role is not None:
                return Caller(Session("", 0.0, "bearer", role), by_token=True, role=role)
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        if session is not None and session.until <= self._clock.now():
            session = None
        person = None if self._proxy is None else self._proxy.person(request)
        if person is not None and (session is None or (session.name, session.role) != person):
            session = replace(self._unkept_session(request), name=person[0], role=person[1])
        found = session or self._unkept_session(request)
        return Caller(found, by_token=False, role=found.role)

    def _bearer(self, source: str, given: str) -> Role | None:
        """Return the role of a program's token, None for a wrong one, which is counted."""
        if not self.may_try(source):
            raise web.HTTPTooManyRequests(text="too many wrong tokens; wait a minute\n")
        role = self.role_of(given)
        if role is None:
            self._count_wrong(source, "header")
        return role

    def _count_wrong(self, source: str, by: str) -> None:
        """Count and log a wrong token."""
        self.wrong_tokens += 1
        tries = [*self._recent(source), self._clock.now()]
        self._wrong[source] = tries
        self._wrong.move_to_end(source)
        while len(self._wrong) > _MOST_SOURCES:
            self._wrong.popitem(last=False)
        _log.warning("console.sign_in_refused", remote=source, by=by, tries=len(tries), total=self.wrong_tokens)

    def _recent(self, source: str) -> list[float]:
        now = self._clock.now()
        return [at for at in self._wrong.get(source, ()) if now - at < _TRIES_SECONDS]

    def _unkept_session(self, request: web.Request) -> Session:
        """Return a session that takes no memory: its id is the cookie's, or a new one."""
        given = request.cookies.get(COOKIE, "")
        known = _COOKIE_ID.fullmatch(given) and given not in self._sessions
        return Session(given if known else secrets.token_urlsafe(24), 0.0)
