"""HTTP over aiohttp: sends one request and returns its whole answer. Knows sockets, and no vendor.

It guarantees more than a plain client. A request is written at most once, even if a reused connection breaks. An answer
counts only for its own request (`exchange`). A redirect is never followed. Every failure says whether the vendor may
have acted on the request. Error messages contain only host and port of a URL, because vendors' query strings contain
keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from connector.config.loader import HttpSettings
from connector.delivery.exchange import Exchange, StaleConnectionError, WatchedConnector, WatchedProtocol
from connector.errors import ConfigFault, ConfigurationError, TransportError
from connector.vendors.base import Request, Response

log = structlog.get_logger()

ANSWER_CAP: Final = 2**20
CONNECT_TIMEOUT: Final = 10.0
CERTIFICATES_INTERVAL: Final = 1.0
"""Seconds between two checks of the certificates' files."""

_OUR_HEADERS: Final = {
    "accept": "Accept: */*",
    "accept-encoding": "Accept-Encoding: gzip, deflate",
    "user-agent": "User-Agent: connector",
}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class _EarlyAnswerError(Exception):
    """An answer began before its request was written whole."""


class _UnpackError(Exception):
    """A compressed body is truncated or broken, or a body is only a part of one."""


class HttpTransport:
    """The connections of one destination: kept alive, at most `max_in_flight`, opened on first use.

    `name` is the destination's name for messages. Raises `ConfigurationError` if a file of `http` cannot be used.
    """

    def __init__(
        self,
        name: str,
        http: HttpSettings,
        max_in_flight: int,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        answer_cap: int = ANSWER_CAP,
    ) -> None:
        self._name = name
        self._http = http
        self._files = [path for path in (http.ca_file, http.cert_file, http.key_file) if path is not None]
        self._stamps: list[tuple[int, int, int] | None] | None = None
        self._tls = _tls(name, http)
        self._tls_checked = float("-inf")
        self._in_use: Counter[aiohttp.BaseConnector] = Counter()
        self._proxy = None if http.proxy is None else URL(http.proxy)
        self._max_in_flight = max_in_flight
        self._connect_timeout = connect_timeout
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._answer_cap = answer_cap
        self._connector: aiohttp.BaseConnector | None = None
        self._origins: dict[URL, aiohttp.ClientRequest] = {}
        """By scheme, host and port: the key with which a connection there is requested."""

    async def send(self, request: Request, timeout: float) -> Response:
        """Write the request once and return the whole answer, whatever its status; its body is cut at the cap.

        `timeout` is in seconds, for everything from the wait for a connection to the last byte. Raises
        `TransportError`; its outcome is unknown if the body was begun. A request without a body only asks, so its
        outcome is never unknown. Cancelling closes the connection.
        """
        exchanges: list[Exchange] = []
        url = _url(request.url)
        if self._files:
            await self._renew_tls()
        try:
            async with asyncio.timeout(timeout):
                return await self._send_once(request, url, exchanges)
        except TimeoutError as late:
            begun = exchanges[-1].body_begun
            connecting = isinstance(late, aiohttp.ConnectionTimeoutError)
            seconds = self._connect_timeout if connecting else timeout
            connected = not connecting and (begun or request.body is None)
            reason = f"no {'answer from' if connected else 'connection to'} {_address(url)} within {seconds:g} s"
        except (
            _EarlyAnswerError,
            _UnpackError,
            HttpProcessingError,
            aiohttp.ClientError,
            OSError,
            ValueError,
        ) as cause:
            reason = _reason(cause, url)
            begun = exchanges[-1].body_begun
            if isinstance(cause, aiohttp.ClientConnectionError) and _certificate_alert(cause) is not None:
                # Under TLS 1.3 a server may refuse the client's certificate after the client began to send. The alert
                # proves that it read nothing.
                begun = False
        # Without the cause, because aiohttp's messages contain the whole URL.
        raise TransportError(reason, unknown_outcome=begun) from None

    async def close(self) -> None:
        """Close every connection. Safe to call twice; a later `send` opens new ones."""
        connector, self._connector = self._connector, None
        connectors = [*self._in_use, *([] if connector is None else [connector])]
        for opened in dict.fromkeys(connectors):
            await opened.close()

    async def _renew_tls(self) -> None:
        """Read the certificates again if their files changed, so that a renewed one needs no restart.

        Checks the files at most once a second. Requests in flight end on their connections. If a file cannot be read
        (half written), the old certificates stay until the files change again.
        """
        now = asyncio.get_running_loop().time()
        if now - self._tls_checked < CERTIFICATES_INTERVAL:
            return
        self._tls_checked = now
        stamps = await asyncio.to_thread(file_stamps, self._files)
        if stamps == self._stamps:
            return
        first, self._stamps = self._stamps is None, stamps
        try:
            self._tls = await asyncio.to_thread(_tls, self._name, self._http)
        except ConfigurationError as error:
            log.warning("destination.certificates_unreadable", destination=self._name, message=str(error))
            return
        if first:
            return
        log.info("destination.certificates_renewed", destination=self._name)
        connector, self._connector = self._connector, None
        # If requests are in flight, the last of them closes it (`_exchange`).
        if connector is not None and not self._in_use.get(connector):
            await connector.close()

    async def _send_once(self, request: Request, url: URL, exchanges: list[Exchange]) -> Response:
        """Write the request on the first connection that is not stale. Nothing was written on the stale ones."""
        while True:
            exchange = Exchange()
            exchanges.append(exchange)
            try:
                return await self._exchange(request, url, exchange)
            # Nothing was written, so this is not a second attempt: the vendor sees one request, and no limit counts
            # two.
            except StaleConnectionError:
                continue

    async def _exchange(self, request: Request, url: URL, exchange: Exchange) -> Response:
        # Opened on first use, inside the loop that uses it, and opened again after certificates were renewed.
        if self._connector is None:
            self._connector = WatchedConnector(limit=self._max_in_flight, ssl=self._tls)
        connector = self._connector
        self._in_use[connector] += 1
        try:
            return await self._exchange_over(connector, request, url, exchange)
        finally:
            self._in_use[connector] -= 1
            if not self._in_use[connector]:
                del self._in_use[connector]
                if connector is not self._connector:
                    await connector.close()

    async def _exchange_over(
        self, connector: aiohttp.BaseConnector, request: Request, url: URL, exchange: Exchange
    ) -> Response:
        origin = self._origin(url)
        head = _head(request, url, origin)
        try:
            connection = await connector.connect(origin, [], self._timeout)
        except TimeoutError as late:
            raise aiohttp.ConnectionTimeoutError from late
        try:
            protocol = _watched(connection.protocol)
            exchange.begin(protocol)
            # Not decompressed by aiohttp, which accepts a truncated gzip body as complete.
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
            # The proxy's credentials are known only once there is a connection.
            exchange.write(head if self._proxy is None else _with_proxy(head, origin), request.body)
            answer, content = await protocol.read()
            # Interim answers such as 103 come before the answer itself (RFC 9110, 15.2).
            while 100 <= answer.code < 200 and answer.code != 101:
                answer, content = await protocol.read()
            _check_whole(exchange, answer.code)
            body, whole = await self._read(content)
            unpacked = _unpacked(body, answer.headers.get("content-encoding", ""), self._answer_cap, whole=whole)
        except BaseException:
            # Aborted, so that buffered bytes are not sent later.
            if connection.protocol is not None:
                connection.protocol.abort()
            connection.close()
            raise
        # Reuse a connection only if everything was read: leftover bytes would be taken for the next answer.
        if content.at_eof() and not exchange.early:
            connection.release()
        else:
            connection.close()
        return Response(answer.code, answer.headers, unpacked)

    def _origin(self, url: URL) -> aiohttp.ClientRequest:
        """Return the key with which a connection to a URL's server is requested. Raises `aiohttp.InvalidURL`."""
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise aiohttp.InvalidURL(url)
        server = url.origin()
        if server not in self._origins:
            loop = asyncio.get_running_loop()
            self._origins[server] = aiohttp.ClientRequest("GET", server, loop=loop, proxy=self._proxy)
        return self._origins[server]

    async def _read(self, content: aiohttp.StreamReader) -> tuple[bytes, bool]:
        """Return an answer's body, and whether it is complete."""
        # Nearly every answer comes whole, with its head.
        if content.is_eof() and content.total_bytes <= self._answer_cap:
            return content.read_nowait(), True
        pieces: list[bytes] = []
        room = self._answer_cap
        while piece := await content.readany():
            pieces.append(piece[:room])
            room -= len(piece)
            if room < 0:
                return b"".join(pieces), False
        return b"".join(pieces), True


def _watched(protocol: object) -> WatchedProtocol:
    if not isinstance(protocol, WatchedProtocol):
        raise TypeError("aiohttp made a connection that is not watched")
    return protocol


def _head(request: Request, url: URL, origin: aiohttp.ClientRequest) -> bytes:
    """Return the request line and headers. Raises `ValueError` if one of them contains a line break."""
    target = str(url) if origin.proxy is not None and url.scheme == "http" else url.raw_path_qs
    if " " in target or _CONTROL.search(request.method + target):
        raise ValueError("a line break in a request")
    lines, counted = _header_lines(origin.headers["Host"], tuple(request.headers.items()))
    length = "" if request.body is None or counted else f"Content-Length: {len(request.body)}\r\n"
    return f"{request.method} {target} HTTP/1.1\r\n{lines}{length}\r\n".encode()


@lru_cache(maxsize=32)
def _header_lines(host: str, headers: tuple[tuple[str, str], ...]) -> tuple[str, bool]:
    """Return the lines of all headers but the body's length, and whether the vendor's own headers state that.

    Most vendors' headers are the same for every request. Raises `ValueError` as `_head` does.
    """
    ours = {"host": f"Host: {host}", **_OUR_HEADERS}
    names = {name.lower() for name, _ in headers}
    # A header that the vendor sets replaces the default one.
    lines = [line for name, line in ours.items() if name not in names]
    lines += [f"{name}: {value}" for name, value in headers]
    # A value with a line break would add a header of its own, or begin a second request.
    if _CONTROL.search("".join(lines)):
        raise ValueError("a line break in a request")
    return "".join([f"{line}\r\n" for line in lines]), "content-length" in names


def _with_proxy(head: bytes, origin: aiohttp.ClientRequest) -> bytes:
    """Return a head with the credentials for a proxy that forwards plain HTTP."""
    credentials = origin.headers.get("Proxy-Authorization")
    return head if credentials is None else head[:-2] + f"Proxy-Authorization: {credentials}\r\n\r\n".encode()


def _check_whole(exchange: Exchange, status: int) -> None:
    """Raise `_EarlyAnswerError` if an early answer does not count, `_UnpackError` if only a part of the answer came.

    A part (206) was not requested, so it is not the vendor's answer, whatever is in it (RFC 9110, 15.3.7). On a new
    connection an early refusal can only be about this request: 413 before the body was read. On a reused one it may
    belong to an earlier request.
    """
    if exchange.early and (exchange.reused or status < 300):
        exchange.abort()
        raise _EarlyAnswerError
    if status == 206:
        raise _UnpackError


def _unpacked(body: bytes, encoding: str, cap: int, *, whole: bool) -> bytes:
    """Return a body decompressed and cut at `cap`. Raises `_UnpackError` if it is truncated or broken.

    An invalid Content-Encoding, such as the `utf-8` of some servers, is ignored.

    `whole` is false if the body itself was cut at the cap: then its end is missing for that reason.
    """
    name = encoding.strip().lower()
    # An empty body is not compressed, whatever the header of a proxy's answer says.
    if not body or name not in ("gzip", "x-gzip", "deflate"):
        return body
    # Some servers send deflate without the zlib header that RFC 9110 demands.
    raw = name == "deflate" and body[0] & 0x0F != 8
    pieces: list[bytes] = []
    room = cap
    while body and room > 0:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32)
        try:
            pieces.append(unpacker.decompress(body, room))
        except zlib.error as error:
            raise _UnpackError from error
        room -= len(pieces[-1])
        if not unpacker.eof and whole and room > 0:
            raise _UnpackError
        # A gzip stream may be padded with zeros.
        body = unpacker.unused_data.lstrip(b"\0")
    return b"".join(pieces)


@lru_cache(maxsize=32)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


def _tls(name: str, http: HttpSettings) -> ssl.SSLContext | bool:
    """Return the TLS settings; True is the system's own certificates."""
    if http.ca_file is None and http.cert_file is None:
        return True
    path = f"destinations.{name}.http"
    try:
        context = ssl.create_default_context(cafile=http.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            [ConfigFault(f"{path}.ca_file", _unusable(error, "certificates of authorities"))]
        ) from error
    if http.cert_file is not None:
        try:
            # Without this callback OpenSSL would ask for an encrypted key's password on the terminal.
            context.load_cert_chain(http.cert_file, http.key_file, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            fault = ConfigFault(f"{path}.cert_file", _unusable(error, "a certificate with its unencrypted key"))
            raise ConfigurationError([fault]) from error
    return context


def file_stamps(files: Sequence[str]) -> list[tuple[int, int, int] | None]:
    """Return stamps that change with the files' contents. Kubernetes renews a secret behind a link."""
    found: list[tuple[int, int, int] | None] = []
    for path in files:
        try:
            status = Path(path).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return found


def _unusable(error: OSError, wanted: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"the file is not a PEM file of {wanted}"
    return f"the file cannot be read: {error.strerror}; give a PEM file of {wanted}"


def _is_closing(error: Exception) -> bool:
    """Return whether aiohttp itself refused the write, because the connection was being closed."""
    cause = error.__cause__ or error
    return isinstance(cause, aiohttp.ClientConnectionResetError) and "closing transport" in str(cause)


def _certificate_alert(error: Exception) -> str | None:
    """Return the TLS alert with which the server refuses this client's certificate; None for any other error."""
    cause = error.__cause__
    alert = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
    about = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
    return alert if "ALERT" in alert and any(word in alert for word in about) else None


def _reason(error: Exception, url: URL) -> str:
    """Return what happened in words; of the URL it has host and port only."""
    address = _address(url)
    match error:
        case aiohttp.ClientProxyConnectionError():
            return f"connect to the proxy for {address} failed: {_system(error.os_error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy refused to connect to {address}: status {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return f"connect to {address} failed: the host name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return f"connect to {address} failed: {_system(error.certificate_error)}"
        case aiohttp.ClientConnectorError():
            return f"connect to {address} failed: {_system(error.os_error)}"
        case aiohttp.ServerDisconnectedError():
            return f"{address} closed the connection without an answer"
        case _EarlyAnswerError():
            return f"{address} answered before the request was sent whole; its answer may belong to another request"
        case aiohttp.ClientPayloadError() | _UnpackError():
            return f"the answer from {address} broke off or cannot be unpacked"
        case HttpProcessingError():
            return f"the answer from {address} is not HTTP"
        case aiohttp.ClientConnectionError() if (alert := _certificate_alert(error)) is not None:
            return f"{address} refuses this client's certificate ({alert}); see http.cert_file"
        case aiohttp.ClientConnectionError() if _is_closing(error):
            wanted = "; does it want a client certificate, http.cert_file?" if url.scheme == "https" else ""
            return f"{address} closed the connection before the request was sent{wanted}"
        case aiohttp.InvalidURL():
            return "the URL is not one of HTTP"
        case OSError():
            return f"the connection to {address} broke: {_system(error)}"
        case ValueError():
            return f"the request to {address} is not one of HTTP"
        case _:
            return f"the connection to {address} broke: {type(error).__name__}"


def _system(error: BaseException) -> str:
    """Return an operating system's or TLS's error in short."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'handshake broken off'}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return type(error).__name__


def _address(url: URL) -> str:
    return f"{url.host}:{url.port}"
