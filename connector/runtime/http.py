"""The HTTP port of `run`: /metrics, /healthz, /readyz, /status, and the operator's actions.

    GET  /metrics                       Prometheus' text format
    GET  /healthz                       200, or 503 with the reasons: nothing is stuck; a blocked loop does not answer
    GET  /readyz                        200, or 503 with the reasons: assigned or validly idle, a broker within reach
    GET  /status                        what every destination and partition does
    POST /destinations/NAME/hold        hold a destination in this member; answers with its status
    POST /destinations/NAME/release     let it go on
    POST /log/LEVEL[?sample=N]          log from this level on: debug, info, warning, error
    POST /records/TOPIC/PARTITION/OFFSET/skip[?destination=NAME]
                                        make a record a dead letter: 200 it is one, 202 it will be, 409 it cannot be

An action is taken only from loopback, or with the bearer token. A request that came through a browser or a proxy is
not from loopback, whatever its address says: a web page must not hold a destination, nor a sidecar for others.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import SecretStr

from connector.errors import StartupError
from connector.records import Position
from connector.runtime.member import Check, Member
from connector.telemetry import logs
from connector.telemetry.metrics import CONTENT_TYPE, Metrics

_RELAYED: Final = ("Origin", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "Via")


_SKIP_STATUS: Final = {"skipped": 200, "pending": 202, "refused": 409}


class Server:
    """Serves one member's state. `start` and `stop` once each, in the loop that runs the member."""

    def __init__(self, *, host: str, port: int, token: SecretStr | None, metrics: Metrics, member: Member) -> None:
        self._host = host
        self._wanted = port
        self._token = token.get_secret_value() if token is not None else None
        self._metrics = metrics
        self._member = member
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on: also the real one where 0 was wanted."""
        if self._runner is None or not self._runner.addresses:
            return self._wanted
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Listen. Raises `StartupError` where the address cannot be had."""
        application = web.Application(client_max_size=1024)
        application.router.add_get("/metrics", self._metrics_page)
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/status", self._status)
        application.router.add_post("/destinations/{name}/hold", self._hold)
        application.router.add_post("/destinations/{name}/release", self._release)
        application.router.add_post(r"/records/{topic}/{partition:\d{1,9}}/{offset:\d{1,19}}/skip", self._skip)
        application.router.add_post("/log/{level}", self._log)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._wanted).start()
        except OSError as error:
            await runner.cleanup()
            raise StartupError(_why(self._host, self._wanted, error)) from error
        self._runner = runner

    async def stop(self) -> None:
        """Close the port; requests under way get a second."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        """Answer with all metrics."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _request: web.Request) -> web.Response:
        """Answer whether the process works."""
        return _checked(self._member.health())

    async def _ready(self, _request: web.Request) -> web.Response:
        """Answer whether it does its work."""
        return _checked(self._member.readiness())

    async def _status(self, _request: web.Request) -> web.Response:
        """Answer with what everything does."""
        return _answer(self._member.status())

    async def _hold(self, request: web.Request) -> web.Response:
        """Hold a destination."""
        return await self._act(request, self._member.hold)

    async def _release(self, request: web.Request) -> web.Response:
        """Release a destination."""
        return await self._act(request, self._member.release)

    async def _log(self, request: web.Request) -> web.Response:
        """Change the level of the log until the process ends."""
        if not self._may_act(request):
            return _forbidden()
        every = request.query.get("sample")
        try:
            logs.set_level(request.match_info["level"], None if every is None else int(every))
        except ValueError as error:
            return _answer({"error": str(error)}, 400)
        return _answer({"level": logs.level(), "sample": logs.sample.every})

    async def _skip(self, request: web.Request) -> web.Response:
        """Skip a record."""
        if not self._may_act(request):
            return _forbidden()
        place, destination = request.match_info, request.query.get("destination")
        try:
            position = Position(place["topic"], int(place["partition"]), int(place["offset"]))
            came = await self._member.skip(position, destination)
        except KeyError:
            return self._unknown(str(destination))
        key = "error" if came.state == "refused" else "message"
        return _answer({"state": came.state, key: came.message}, _SKIP_STATUS[came.state])

    async def _act(self, request: web.Request, action: Callable[[str], Awaitable[None]]) -> web.Response:
        """Take an action where the caller may, and answer with the destination's new status."""
        if not self._may_act(request):
            return _forbidden()
        name = request.match_info["name"]
        try:
            await action(name)
        except KeyError:
            return self._unknown(name)
        return _answer({"destination": name, **self._member.status().get("destinations", {}).get(name, {})})

    def _unknown(self, name: str) -> web.Response:
        """Answer that this member has no such destination."""
        known = sorted(self._member.status().get("destinations", {}))
        return _answer({"error": f"this member has no destination {name}; it has: {', '.join(known)}"}, 404)

    def _may_act(self, request: web.Request) -> bool:
        """Whether the request has the token, or comes from this machine itself."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._token and scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token.encode())
        return _from_loopback(request) and not any(header in request.headers for header in _RELAYED)


def _forbidden() -> web.Response:
    """Answer that the caller may not act."""
    allowed = "from loopback, or with Authorization: Bearer and the token of server.token"
    return _answer({"error": f"actions are taken only {allowed}"}, 403)


def _from_loopback(request: web.Request) -> bool:
    """Whether the connection comes from this machine."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    try:
        address = ipaddress.ip_address(peer[0]) if peer else None
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback) if address is not None else False


def _why(host: str, port: int, error: OSError) -> str:
    """Return why the port cannot be had, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return f"server.port: {host}:{port} is in use by another process; choose another port, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"server.port: this user may not listen on {host}:{port}; choose a port above 1023"
    return f"server.host: cannot listen on {host}:{port}: {error.strerror or error}"


def _checked(check: Check) -> web.Response:
    """Answer with a check: 200 where it is well, 503 where not."""
    return _answer({"ok": check.ok, "reasons": list(check.reasons)}, 200 if check.ok else 503)


def _answer(value: Mapping[str, Any], status: int = 200) -> web.Response:
    """Answer with JSON that nobody keeps."""
    body = orjson.dumps(value, default=str)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)
