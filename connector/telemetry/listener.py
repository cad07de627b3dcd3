"""An HTTP port with limits on connections and on the time for a request's header and body, and with fixed headers.

The member's port and the console share it, because both must survive clients that never finish a request: without
limits a few hundred half-open connections would take the descriptors that deliveries need.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from aiohttp import StreamReader, web

log = structlog.get_logger()

MOST_CONNECTIONS: Final = 64
DESCRIPTOR_SHARE: Final = 8
"""The port's connections get the process's descriptors divided by this; the rest is for deliveries."""
HEADER_SECONDS: Final = 10.0
"""How long a client may take for the header of a request, counted from its first byte or from the connection."""
BODY_SECONDS: Final = 20.0
"""How long a client may take for the body of a request, counted from its header."""
IDLE_SECONDS: Final = 30.0
"""How long a connection is kept for a next request."""
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Restrictive headers for responses that no browser has to render."""
_HOSTS: Final = {"::": ("::", "0.0.0.0"), "127.0.0.1": ("127.0.0.1", "::1")}  # noqa: S104 -- only if configured
"""What an address stands for: `::` is every address of both families, and loopback is that of the family there is."""
_NO_SUCH_FAMILY: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def most_connections() -> int:
    """Return how many connections a port may have in this process."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(4, min(MOST_CONNECTIONS, descriptors // DESCRIPTOR_SHARE))


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a text is, without an IPv6 zone; None where it is a name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families reports an IPv4 peer as ::ffff:127.0.0.1.
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(text: str) -> bool:
    """Whether only this machine can reach a name or an address."""
    address = ip_address(text)
    return text == "localhost" if address is None else address.is_loopback


class Listener:
    """Serves an application on the first free port of several. `start` and `stop` once each, in one loop.

    Host `::` serves IPv4 and IPv6; on a host with one family only, that one is served. `headers` are added to every
    response that does not set them itself.
    """

    def __init__(
        self,
        application: web.Application,
        host: str,
        ports: Iterable[int],
        *,
        headers: Mapping[str, str] = HEADERS,
        connections: int | None = None,
        header_seconds: float = HEADER_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._host = host
        self._ports = list(ports)
        self._headers = headers
        self._most = most_connections() if connections is None else connections
        self._seconds = (header_seconds, body_seconds)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        # The outermost middleware, because a request that another middleware refuses has begun and ended too.
        application.middlewares.insert(0, _mark_request)
        application.on_response_prepare.append(self._add_headers)
        self._servers: list[asyncio.Server] = []
        self._open: dict[_Connection, None] = {}

    @property
    def port(self) -> int | None:
        """The port that is listened on; None before `start` and after `stop`."""
        return _port_of(self._servers[0]) if self._servers else None

    async def start(self) -> None:
        """Listen on the first free port. Raises the `OSError` of the last port."""
        await self._runner.setup()
        for port in self._ports:
            try:
                await self._open_servers(port)
            except OSError:
                self._close_servers()
                if port == self._ports[-1]:
                    await self._runner.cleanup()
                    raise
            else:
                return

    async def _open_servers(self, port: int) -> None:
        """Listen on the port for each address family of the host. Raises `OSError` if none is available."""
        hosts = _HOSTS.get(self._host, (self._host,))
        loop = asyncio.get_running_loop()
        missing: OSError | None = None
        for host in hosts:
            try:
                # Two sockets instead of one for both: an IPv4 client keeps its own address.
                server = await loop.create_server(self._connection, host, port, backlog=128)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                missing = error
                continue
            if not server.sockets:  # asyncio passes over a family that the system does not have
                continue
            self._servers.append(server)
            port = _port_of(server)
            if self._host != "::":
                return
        if not self._servers:
            raise missing or OSError(errno.EAFNOSUPPORT, "no such address on this host")

    async def stop(self) -> None:
        """Close the port; requests in flight get a second."""
        self._close_servers()
        await self._runner.cleanup()

    def _close_servers(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def opened(self, connection: _Connection) -> bool:
        """Count a connection and return whether it may stay. At the limit, the oldest idle one is closed instead.

        If all have a request, the oldest whose body is incomplete. So a client that opens many connections without
        finishing its requests loses its own, and the platform's probes still get through.
        """
        if len(self._open) >= self._most:
            # The first is the oldest, because a dictionary keeps the order of insertion.
            idle = next((each for each in self._open if not each.in_request), None)
            idle = idle or next((each for each in self._open if each.waits_for_body), None)
            if idle is None:
                return False
            self.closed(idle)
            idle.abort()
        self._open[connection] = None
        return True

    def closed(self, connection: _Connection) -> None:
        """Stop counting a connection."""
        self._open.pop(connection, None)

    def _connection(self) -> _Connection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the listener is not started")
        return _Connection(server, self, self._headers, *self._seconds)

    async def _add_headers(self, _request: web.Request, response: web.StreamResponse) -> None:
        _restrict(response, self._headers)


def _port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


class _Connection(web.RequestHandler):
    """One connection of a client: closed if a request's header or body does not come in time."""

    __slots__ = ("_body", "_body_seconds", "_deadline", "_header_seconds", "_headers", "_listener", "in_request")

    def __init__(
        self,
        server: web.Server,
        listener: Listener,
        headers: Mapping[str, str],
        header_seconds: float,
        body_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None, keepalive_timeout=IDLE_SECONDS)  # type: ignore[arg-type]
        self._listener = listener
        self._headers = headers
        self._header_seconds = header_seconds
        self._body_seconds = body_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None
        self.in_request = False

    @property
    def waits_for_body(self) -> bool:
        """Whether the body of the present request is not complete."""
        return self._body is not None and not self._body.is_eof()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first header, or close the connection if there are too many."""
        super().connection_made(transport)
        if self._listener.opened(self):
            self._wait_for_header()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Start the timer for the next header at its first byte."""
        if not self.in_request and self._deadline is None:
            self._wait_for_header()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection."""
        self._listener.closed(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def begin(self, request: web.Request) -> None:
        """Note that a request's header is complete, and start the timer for its body."""
        self.in_request = True
        self._body = request.content
        self._stop_waiting()
        if not request.content.is_eof():
            self._deadline = asyncio.get_running_loop().call_later(self._body_seconds, self._end_late, request)

    def end(self) -> None:
        """Note that the response is ready."""
        self.in_request = False
        self._body = None
        self._stop_waiting()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer an error without details. Log an internal error without the request.

        The base class logs a malformed request with its text, which may hold a token.
        """
        # A second status line would be read as a part of the first answer's body.
        if request.writer.output_size > 0:
            raise ConnectionError("part of the response is sent already")
        if status >= 500:
            log.error("port.failed", exc_info=exc, path=request.path)
        text = "internal error" if status >= 500 else "malformed request"
        response = web.json_response({"error": text}, status=status)
        _restrict(response, self._headers)
        response.force_close()
        return response

    def _wait_for_header(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._header_seconds, self.abort)

    def _end_late(self, request: web.Request) -> None:
        if not request.content.is_eof():
            self.abort()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _restrict(response: web.StreamResponse, headers: Mapping[str, str]) -> None:
    """Add the headers, and remove the name and version of the server, which show what it is vulnerable to."""
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "connector"


@web.middleware
async def _mark_request(request: web.Request, handler: Any) -> web.StreamResponse:
    """Tell the connection when a request's header is complete and when its response is ready."""
    connection = request.protocol
    if isinstance(connection, _Connection):
        connection.begin(request)
    try:
        response: web.StreamResponse = await handler(request)
        return response
    finally:
        if isinstance(connection, _Connection):
            connection.end()
