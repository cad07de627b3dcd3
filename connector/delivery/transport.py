"""HTTP over aiohttp: sends one request and returns its whole answer. Knows sockets, and no vendor.

It adds certainty to a plain client. A request is written at most once: aiohttp would send an idempotent one again on a
reused connection that broke, past the rate limit. An answer counts only for its own request (`exchange`). A redirect is
never followed. Every failure says whether the vendor may have acted on the request. Error messages contain only host
and port of a URL, because vendors' query strings contain keys.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import aiohttp
import structlog
from yarl import URL

from connector.config.loader import HttpSettings
from connector.delivery.exchange import (
    CURRENT,
    ONE_WRITE,
    Exchange,
    StaleConnectionError,
    WatchedConnector,
    WatchedRequest,
    watched_body,
)
from connector.errors import ConfigFault, ConfigurationError, TransportError
from connector.vendors.base import Request, Response

log = structlog.get_logger()

ANSWER_CAP: Final = 2**20
CONNECT_TIMEOUT: Final = 10.0
CERTIFICATES_INTERVAL: Final = 1.0
"""Seconds between two looks at the certificates' files."""

_HEADERS: Final = {"User-Agent": "connector", "Accept-Encoding": "gzip, deflate"}


class _BrokenError(Exception):
    """Carries a broken connection past aiohttp's own retry of what is no POST, which looks for its own errors only."""

    def __init__(self, error: aiohttp.ClientConnectionError) -> None:
        super().__init__()
        self.error = error


class _EarlyAnswerError(Exception):
    """An answer began before its request was written whole."""


class _UnpackError(Exception):
    """A compressed body is truncated or broken."""


class HttpTransport:
    """The connections of one destination: kept alive, at most `max_in_flight`, opened on first use.

    `name` is the destination's, for faults. Raises `ConfigurationError` where a file of `http` cannot be used.
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
        self._in_use: Counter[aiohttp.ClientSession] = Counter()
        self._proxy = http.proxy
        self._max_in_flight = max_in_flight
        self._connect_timeout = connect_timeout
        self._answer_cap = answer_cap
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, timeout: float) -> Response:
        """Write the request once and return the whole answer, whatever its status; its body is cut at the cap.

        `timeout` is in seconds, for everything from the wait for a connection to the last byte. Raises
        `TransportError`; its outcome is unknown where the body was begun. A request without a body only asks, so its
        outcome never is. Cancelling closes the connection.
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
        except (_BrokenError, _EarlyAnswerError, _UnpackError, aiohttp.ClientError, OSError, ValueError) as raised:
            cause = raised.error if isinstance(raised, _BrokenError) else raised
            reason = _reason(cause, url)
            begun = exchanges[-1].body_begun
            if isinstance(cause, aiohttp.ClientConnectionError) and _turned_away(cause, request.body):
                begun = False
        # The cause is left out: aiohttp's own texts hold the whole URL.
        raise TransportError(reason, unknown_outcome=begun) from None

    async def close(self) -> None:
        """Close every connection. Safe to call twice; a later `send` opens new ones."""
        session, self._session = self._session, None
        sessions = [*self._in_use, *([] if session is None else [session])]
        for open_session in dict.fromkeys(sessions):
            await open_session.close()

    async def _renew_tls(self) -> None:
        """Use the certificates again where their files changed, so that a renewed one needs no restart.

        The files are looked at once a second at most. Requests under way end on the connections they have; what cannot
        be read (a file half written) leaves the old certificates in place until the files change again.
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
        session, self._session = self._session, None
        if session is not None and not self._in_use.get(session):
            await session.close()

    async def _send_once(self, request: Request, url: URL, exchanges: list[Exchange]) -> Response:
        """Write the request on the first connection that can still be used: nothing was written on the others."""
        while True:
            exchange = Exchange()
            exchanges.append(exchange)
            try:
                return await self._exchange(request, url, exchange)
            # Nothing was written, so this is no second attempt: no limit counts it, and the vendor sees one request.
            except StaleConnectionError:
                continue
            except aiohttp.ClientConnectionError as error:
                if not isinstance(error.__cause__, StaleConnectionError):
                    raise

    async def _exchange(self, request: Request, url: URL, exchange: Exchange) -> Response:
        # Opened late, inside the loop that uses it; and again after certificates were renewed.
        if self._session is None:
            self._session = self._opened()
        session = self._session
        self._in_use[session] += 1
        try:
            return await self._exchange_in(session, request, url, exchange)
        finally:
            self._in_use[session] -= 1
            if not self._in_use[session]:
                del self._in_use[session]
                if session is not self._session:
                    await session.close()

    async def _exchange_in(
        self, session: aiohttp.ClientSession, request: Request, url: URL, exchange: Exchange
    ) -> Response:
        body = request.body
        CURRENT.set(exchange)
        answer = await session.request(
            request.method,
            url,
            headers=request.headers,
            data=None if body is None else watched_body(body, exchange),
            allow_redirects=False,
            # A POST is never sent twice by aiohttp; a GET would be, past the rate limit.
            middlewares=() if request.method == "POST" else (_never_again,),
        )
        try:
            _check_early(exchange, answer.status)
            content, whole = await self._read(answer)
            unpacked = _unpacked(content, answer.headers.get("content-encoding", ""), self._answer_cap, whole=whole)
        except BaseException:
            answer.close()
            raise
        # Only a connection on which everything was read is used again: what is left would be the next answer.
        if whole and not exchange.early:
            answer.release()
        else:
            answer.close()
        return Response(answer.status, answer.headers, unpacked)

    async def _read(self, answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """Return the answer's body, and whether that is all of it."""
        pieces: list[bytes] = []
        room = self._answer_cap
        while piece := await answer.content.readany():
            pieces.append(piece[:room])
            room -= len(piece)
            if room < 0:
                return b"".join(pieces), False
        return b"".join(pieces), True

    def _opened(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=WatchedConnector(limit=self._max_in_flight, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            headers=_HEADERS,
            skip_auto_headers=("Content-Type",),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
            trust_env=False,
            request_class=WatchedRequest,
            # aiohttp takes a truncated gzip body for a whole one.
            auto_decompress=False,
        )


async def _never_again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Let a broken connection end the request; without this aiohttp sends an idempotent one a second time."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenError(error) from error


def _check_early(exchange: Exchange, status: int) -> None:
    """Raise `_EarlyAnswerError` where an early answer does not count.

    On a new connection an early refusal can only be about this request: 413 before the body was read. On a reused one
    it may belong to an earlier request.
    """
    if exchange.early and (exchange.reused or status < 300):
        exchange.abort()
        raise _EarlyAnswerError


def _unpacked(body: bytes, encoding: str, cap: int, *, whole: bool) -> bytes:
    """Return a body unpacked and cut at `cap`. Raises `_UnpackError` where it is truncated or broken.

    A coding that is none, such as the `utf-8` of some servers, is left as it is: the body shows what it is.

    `whole` is false where the body itself was cut at the cap: then its end is missing for that reason.
    """
    name = encoding.strip().lower()
    if name not in ("gzip", "x-gzip", "deflate"):
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
        # A file of gzip may be filled up with zeros.
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
            # Without an answer of our own OpenSSL would ask the terminal for an encrypted key's password.
            context.load_cert_chain(http.cert_file, http.key_file, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            fault = ConfigFault(f"{path}.cert_file", _unusable(error, "a certificate with its unencrypted key"))
            raise ConfigurationError([fault]) from error
    return context


def file_stamps(files: Sequence[str]) -> list[tuple[int, int, int] | None]:
    """Return what changes with a file's content; a secret that Kubernetes renews is another file behind a link."""
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


def _turned_away(error: aiohttp.ClientConnectionError, body: bytes | None) -> bool:
    """Tell whether the vendor cannot have acted on a request although its body was begun.

    Under TLS 1.3 a server may refuse the client's certificate when the client sends already: its alert says that it
    read nothing. And of a body that is one write nothing went out where that write found the connection closing.
    """
    if _certificate_alert(error) is not None:
        return True
    one_write = body is not None and len(body) <= ONE_WRITE
    return one_write and _is_closing(error)


def _is_closing(error: Exception) -> bool:
    """Tell whether aiohttp had a write refused by its own side, because the connection was being closed."""
    cause = error.__cause__ or error
    return isinstance(cause, aiohttp.ClientConnectionResetError) and "closing transport" in str(cause)


def _certificate_alert(error: Exception) -> str | None:
    """Return the TLS alert by which the other side refuses this client's certificate, None for any other error."""
    cause = error.__cause__
    alert = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
    about = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
    return alert if "ALERT" in alert and any(word in alert for word in about) else None


def _reason(error: Exception, url: URL) -> str:
    """Return what happened in words for people, with nothing of the URL but host and port."""
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
        case aiohttp.ClientResponseError():
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
