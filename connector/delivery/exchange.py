"""One request and its answer on a kept-alive aiohttp connection: an answer counts only for its own request.

aiohttp gives the connections (pool, TLS, proxies) and the parser of answers. The request is written here, in one step:
a client session would take twice the time, for cookies, redirects and retries that are not wanted.

aiohttp reuses a connection that received bytes while idle and takes them for the next answer. A vendor or proxy that
sends one answer too many would so confirm records that it never read. Three checks prevent that:

- A reused connection that received anything or was closed while idle is not used. Nothing was written on it yet, so the
  request goes out on another one. The socket itself is asked, because bytes may wait there that no callback has seen.
- This is checked in the same step that writes the request.
- An answer that begins before its request was sent whole is marked `early`; it is never a success.

The seams are aiohttp's connector, and a subclass of its protocol. A test fails where a version of aiohttp no longer
uses them (`tests/unit/delivery/test_transport_wire.py`).
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
    """How far one request came on its connection. `reused`: another request used the connection before."""

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
        # On a new connection the server spoke first: whatever it said, it is no answer to this request.
        self.early = self.answered = protocol.has_spoken_first()
        protocol.exchange = self

    def write(self, head: bytes, body: bytes | None) -> None:
        """Write the request in the step that has begun the exchange; what the socket has no room for waits."""
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
        """Break the connection off at once; closing it would first send what still waits.

        A request that is incomplete then cannot have been acted on, so its outcome is not unknown.
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
        # Under TLS 1.3 bytes of the handshake follow (session tickets), so there only what was decrypted counts.
        return transport.get_extra_info("ssl_object") is None and _is_readable(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if data:
            self._note(data)
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take the head of an answer, and note in the exchange when its body has ended."""
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
            # Handed to the transport is not sent: a part may wait in its buffer, and no vendor can have read that.
            exchange.early = _has_unsent(self.transport)


class WatchedConnector(aiohttp.TCPConnector):
    """A connector whose connections are `WatchedProtocol`s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(WatchedProtocol, loop=self._loop)
        self._factory = factory


def _is_readable(transport: asyncio.Transport) -> bool:
    """Return whether the socket has bytes, or its end, that no callback has seen yet."""
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
