"""The HTTP port of `run`: /metrics, /healthz, /readyz, /status, and the operator's actions.

    GET  /metrics                       Prometheus' text format
    GET  /healthz                       200, or 503 if the member is stuck; a blocked loop does not answer
    GET  /readyz                        200 if the member consumes or need not, else 503 with the reasons
    GET  /status                        the state of every destination and partition
    GET  /events[?since=SECONDS]        recent events, oldest first; since: epoch seconds
    POST /destinations/NAME/hold        hold a destination in this member; answers with its status
    POST /destinations/NAME/release     resume it
    POST /destinations/NAME/probe       probe its holds now, instead of at their next probe
    POST /reload                        read the configuration again; answers with the paths applied and left
    POST /log/LEVEL[?sample=N]          set the log level: debug, info, warning, error
    POST /records/TOPIC/PARTITION/OFFSET/skip[?destination=NAME]
                                        make a record a dead letter: 200 done, 202 later, 409 impossible

Once `server.token` is set, every action needs it. Without a token only this machine may act, and only directly: the
peer and the Host are loopback, and the request has no header that a browser or a proxy would add. Otherwise a web
page could hold a destination, and a reverse proxy on this machine would open the actions to everyone.

/status and /events need the token, or a Host that cannot be a foreign domain. Otherwise a page on a foreign domain that
resolves to this address (DNS rebinding) could read them.
"""

from __future__ import annotations

import errno
import hmac
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import HttpVersion11, web
from pydantic import SecretStr

from connector.errors import StartupError
from connector.records import Position
from connector.runtime.member import Check, Member
from connector.telemetry import logs
from connector.telemetry.listener import Listener, ip_address, is_loopback
from connector.telemetry.metrics import CONTENT_TYPE, Metrics

_DIRECT: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "user-agent"}
)
"""Headers of a command-line client. Browsers and proxies add others, each under a name of its own."""
_CLUSTER_SUFFIXES: Final = (".svc", ".local", ".localhost", ".internal")
"""Names under which no one can register a domain; Kubernetes' services end in .svc or .svc.cluster.local."""
# Python's `datetime` ends there, so a time in a query may not be later.
_LAST_SECOND: Final = 253_402_300_799.0
"""Epoch seconds at the end of the year 9999."""
_SKIP_STATUS: Final = {"skipped": 200, "pending": 202, "refused": 409}


class Server:
    """Serves one member's state. `start` and `stop` once each, in the loop that runs the member.

    It listens on the first free one of `ports`. `hosts` are further names that /status and /events accept.
    """

    def __init__(
        self,
        *,
        host: str,
        ports: Sequence[int],
        token: SecretStr | None,
        metrics: Metrics,
        member: Member,
        hosts: Collection[str] = (),
    ) -> None:
        self._host = host
        self._ports = ports
        self.use(token, hosts)
        self._metrics = metrics
        self._member = member
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """The port it listens on; before that, the first one that is configured."""
        found = None if self._listener is None else self._listener.port
        return self._ports[0] if found is None else found

    def use(self, token: SecretStr | None, hosts: Collection[str]) -> None:
        """Require this token, and serve /status under these names, from now on."""
        self._token = token.get_secret_value() if token is not None else None
        # The machine's own name too; in Kubernetes that is the pod's.
        self._hosts = frozenset(name.lower() for name in (*hosts, self._host, socket.gethostname()))

    async def start(self) -> None:
        """Listen. Raises `StartupError` if no address can be used."""
        # No action takes a body. 1 KiB is for clients that send an empty JSON object.
        application = web.Application(client_max_size=1024)
        application.router.add_get("/metrics", self._metrics_page)
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/status", self._status)
        application.router.add_get("/events", self._events)
        application.router.add_post("/destinations/{name}/hold", self._hold)
        application.router.add_post("/destinations/{name}/release", self._release)
        application.router.add_post("/destinations/{name}/probe", self._probe)
        application.router.add_post(r"/records/{topic}/{partition:\d{1,9}}/{offset:\d{1,19}}/skip", self._skip)
        application.router.add_post("/reload", self._reload)
        application.router.add_post("/log/{level}", self._log)
        listener = Listener(application, self._host, self._ports)
        try:
            await listener.start()
        except OSError as error:
            raise StartupError(_why(self._host, self._ports, error)) from error
        self._listener = listener

    async def stop(self) -> None:
        """Close the port; requests in flight get a second."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        """Return all metrics."""
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _request: web.Request) -> web.Response:
        """Return whether the process works."""
        return _checked(self._member.health())

    async def _ready(self, _request: web.Request) -> web.Response:
        """Return whether the member consumes."""
        return _checked(self._member.readiness())

    async def _status(self, request: web.Request) -> web.Response:
        """Return the state of everything."""
        return self._shown(request, self._member.status)

    async def _events(self, request: web.Request) -> web.Response:
        """Return recent events."""
        try:
            since = min(max(0.0, float(request.query.get("since", "0"))), _LAST_SECOND)
        except ValueError:
            return _json_response({"error": "since must be epoch seconds"}, 400)
        return self._shown(request, lambda: {"events": self._member.timeline.events(since)})

    def _shown(self, request: web.Request, found: Callable[[], Mapping[str, Any]]) -> web.Response:
        """Return a member's report, unless the request may come from a foreign page."""
        if not (self._has_token(request) or self._accepts_host(request)):
            return _json_response({"error": f"unknown Host {request.host!r}; add it to server.hosts"}, 403)
        return _json_response(found())

    async def _hold(self, request: web.Request) -> web.Response:
        """Hold a destination."""
        return await self._act(request, self._member.hold)

    async def _release(self, request: web.Request) -> web.Response:
        """Release a destination."""
        return await self._act(request, self._member.release)

    async def _probe(self, request: web.Request) -> web.Response:
        """Probe a destination."""
        return await self._act(request, self._member.probe)

    async def _reload(self, request: web.Request) -> web.Response:
        """Read the configuration again."""
        if not self._may_act(request):
            return self._forbidden()
        result = await self._member.reload("port")
        if result.error is not None:
            return _json_response({"error": result.error}, 422)
        return _json_response({"applied": list(result.applied), "left": list(result.left)})

    async def _log(self, request: web.Request) -> web.Response:
        """Change the log level until the process ends."""
        if not self._may_act(request):
            return self._forbidden()
        every = request.query.get("sample")
        try:
            logs.set_level(request.match_info["level"], None if every is None else int(every))
        except ValueError as error:
            return _json_response({"error": str(error)}, 400)
        return _json_response({"level": logs.level(), "sample": logs.sample.every})

    async def _skip(self, request: web.Request) -> web.Response:
        """Skip a record."""
        if not self._may_act(request):
            return self._forbidden()
        place, destination = request.match_info, request.query.get("destination")
        try:
            position = Position(place["topic"], int(place["partition"]), int(place["offset"]))
            result = await self._member.skip(position, destination)
        except KeyError:
            return self._unknown(str(destination))
        key = "error" if result.state == "refused" else "message"
        return _json_response({"state": result.state, key: result.message}, _SKIP_STATUS[result.state])

    async def _act(self, request: web.Request, action: Callable[[str], Awaitable[int | None]]) -> web.Response:
        """Take an action if the caller may, and return the destination's new status."""
        if not self._may_act(request):
            return self._forbidden()
        name = request.match_info["name"]
        try:
            released = await action(name)
        except KeyError:
            return self._unknown(name)
        count = {} if released is None else {"released": released}
        return _json_response(
            {"destination": name, **count, **self._member.status().get("destinations", {}).get(name, {})}
        )

    def _unknown(self, name: str) -> web.Response:
        """Return that this member has no such destination."""
        known = sorted(self._member.status().get("destinations", {}))
        return _json_response({"error": f"this member has no destination {name}; it has: {', '.join(known)}"}, 404)

    def _has_token(self, request: web.Request) -> bool:
        """Whether the request brings the configured token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if not self._token or scheme.lower() != "bearer":
            return False
        # In constant time: a plain comparison ends at the first wrong byte, and that can be measured.
        return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token.encode())

    def _may_act(self, request: web.Request) -> bool:
        """Whether the request has the token or, without one configured, comes directly from this machine."""
        if self._token:
            return self._has_token(request)
        # Proxies speak HTTP/1.0 to their servers by default, and command-line clients do not.
        return (
            request.version >= HttpVersion11
            and _DIRECT.issuperset(name.lower() for name in request.headers)
            and is_loopback(_hostname(request))
            and is_loopback(_peer(request))
        )

    def _accepts_host(self, request: web.Request) -> bool:
        """Whether the Host cannot be a foreign domain: it is an address, a name without dots, or one of ours."""
        name = _hostname(request)
        is_local = "." not in name or name in self._hosts or name.endswith(_CLUSTER_SUFFIXES)
        return bool(name) and (is_local or ip_address(name) is not None)

    def _forbidden(self) -> web.Response:
        """Return that the caller may not act."""
        if self._token:
            wanted = "actions need Authorization: Bearer with the token of server.token"
        else:
            wanted = "actions are taken only directly from this machine; set server.token to take them from elsewhere"
        return _json_response({"error": wanted}, 403)


def _hostname(request: web.Request) -> str:
    """Return the name or address in the Host header, without its port."""
    host = request.host.strip().lower().rstrip(".")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _peer(request: web.Request) -> str:
    """Return the address that the connection comes from."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return str(peer[0]) if peer else ""


def _why(host: str, ports: Sequence[int], error: OSError) -> str:
    """Return why no port can be used, and what to do."""
    port = f"{ports[0]}" if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
    if error.errno == errno.EADDRINUSE:
        in_use = "is in use by another process" if len(ports) == 1 else "are all in use by other processes"
        return f"server.port: {host}:{port} {in_use}; choose another port, or 0 for any free one"
    if error.errno == errno.EACCES:
        return f"server.port: this user may not listen on {host}:{port}; choose a port above 1023"
    return f"server.host: cannot listen on {host}:{port}: {error.strerror or error}"


def _checked(check: Check) -> web.Response:
    """Return the result of a check: 200 if it passes, otherwise 503."""
    return _json_response({"ok": check.ok, "reasons": list(check.reasons)}, 200 if check.ok else 503)


def _json_response(value: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return a JSON response; the listener adds `Cache-Control: no-store`."""
    try:
        body = orjson.dumps(value, default=str)
    except TypeError:
        # Half of a character, which the JSON of a registry or a proxy may hold, has no UTF-8.
        body = json.dumps(value, default=str, ensure_ascii=False).encode(errors="replace")
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})
