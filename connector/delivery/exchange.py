"""One request and its answer on a kept-alive aiohttp connection: an answer counts only for its own request.

aiohttp provides the connections (pool, TLS, proxies) and parses the answers. This module writes the request, in one
step: a client session would take twice the time, for cookies, redirects and retries that are not wanted.

aiohttp reuses a connection that received bytes while idle, and takes those bytes for the next answer. So a vendor or
proxy that sends one answer too many would confirm records that it never read. Three checks prevent that:

- A connection that received anything, or was closed, while idle is not used again. Nothing was written on it yet, so
  the request goes out on another one. The check includes the socket, because bytes may wait there that no callback has
  seen.
- The check happens in the same step that writes the request.
- An answer that begins before its request was completely sent is marked `early`; it is never a success.

It relies on aiohttp's connector and on a subclass of aiohttp's protocol. `tests/unit/delivery/test_transport_wire.py`
fails if a version of aiohttp no longer uses them.
"""

from __future__ import annotations

import asyncio
import re
import select
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

_INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*\r?\n")


class StaleConnectionError(Exception):
    """A kept-alive connection received something or was closed while idle. Nothing of the request was written."""


@dataclass(slots=True, eq=False)
class Exchange:
    """The progress of one request on its connection. `reused`: another request used the connection before."""

    protocol: WatchedProtocol | None = None
    reused: bool = False
    body_begun: bool = False
    answered: bool = False
    early: bool = False
    ended: bool = False

    def begin(self, protocol: WatchedProtocol) -> None:
        """Take the connection for this request. Raises `StaleConnectionError` if it cannot be reused."""
        self.protocol = protocol
        self.reused = protocol.exchange is not None
        if self.reused and protocol.is_stale():
            raise StaleConnectionError
        # The server of a new connection sent something first. Whatever it is, it does not answer this request.
        self.early = self.answered = protocol.has_spoken_first()
        protocol.exchange = self

    def write(self, head: bytes, body: bytes | None) -> None:
        """Write the request in the same step as `begin`. Bytes that the socket cannot take yet are buffered."""
        protocol = self.protocol
        transport = None if protocol is None else protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        self.body_begun = bool(body)
        transport.write(head + body if body else head)

    def end(self) -> None:
        """Note that the whole answer was received."""
        self.ended = True

    def abort(self) -> None:
        """Abort the connection at once. A normal close would first send the buffered bytes.

        The vendor cannot have acted on an incomplete request, so its outcome is known: not accepted.
        """
        protocol = self.protocol
        if protocol is not None:
            if _has_unsent(protocol.transport):
                self.body_begun = False
            protocol.abort()


class WatchedProtocol(ResponseHandler):
    """A connection that knows which exchange it serves, and whether it received bytes that belong to none."""

    exchange: Exchange | None = None
    surplus = False
    spoke_first = False

    def is_stale(self) -> bool:
        """Return whether a next request must not use the connection."""
        transport = self.transport
        return self.has_surplus() or transport is None or _is_readable(transport)

    def has_surplus(self) -> bool:
        """Return whether the loop has delivered bytes that belong to no request, or the connection's end."""
        transport = self.transport
        return transport is None or transport.is_closing() or self.surplus or self.should_close

    def has_spoken_first(self) -> bool:
        """Return whether the server sent anything before the first request."""
        transport = self.transport
        if self.spoke_first or transport is None or self.exchange is not None:
            return self.spoke_first
        # Under TLS 1.3 bytes of the handshake (session tickets) may follow, so only decrypted bytes count there.
        return transport.get_extra_info("ssl_object") is None and _is_readable(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if data:
            self._note(data)
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Receive the head of an answer, and note in the exchange when its body has ended."""
        super().feed_data(data, size)
        message, payload = data
        exchange = self.exchange
        if exchange is not None and message.code >= 200:
            payload.on_eof(exchange.end)

    def _note(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.spoke_first = True
        elif exchange.ended:
            self.surplus = True
            self.force_close()
        elif not exchange.answered and not _is_interim(data):
            exchange.answered = True
            # Bytes handed to the transport may still be in its buffer, and no vendor can have read those.
            exchange.early = _has_unsent(self.transport)


class WatchedConnector(aiohttp.TCPConnector):
    """A connector whose connections are `WatchedProtocol`s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(WatchedProtocol, loop=self._loop)
        self._factory = factory


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether the socket has bytes, or an end of the stream, that no callback has seen yet."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    # `poll` and not `select`, which takes no descriptor above 1,023.
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _has_unsent(transport: asyncio.Transport | None) -> bool:
    """Return whether a part of the request still waits to be sent; under TLS the encrypted bytes count too."""
    if transport is None:
        return True
    encrypted = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return any(layer is not None and layer.get_write_buffer_size() > 0 for layer in (transport, encrypted))


def _is_interim(data: bytes) -> bool:
    """Return whether the bytes are only interim answers (1xx), which may come before the request is whole."""
    end = 0
    while (found := _INTERIM.match(data, end)) is not None:
        end = found.end()
    return end == len(data)
