"""A server on a raw socket that does to a request what a script says, and the transport under test."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from connector.config.loader import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.errors import TransportError
from connector.vendors.base import Request

Script = Callable[["Peer"], Awaitable[None]]
SECRET = "accessKey=very-secret"


@dataclass
class Peer:
    """One connection, seen from the server: what it was asked, and the raw means to answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes]
    asked: asyncio.Event

    async def head(self) -> bytes:
        """Read one request's head and keep it."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        self.asked.set()
        return head

    async def request(self) -> bytes:
        """Read one whole request and return its body."""
        head = await self.head()
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        return await self.reader.readexactly(length)

    async def answer(self, body: bytes = b"ok", head: bytes = b"HTTP/1.1 200 OK", extra: bytes = b"") -> None:
        """Write one whole answer."""
        self.writer.write(head + b"\r\nContent-Length: %d\r\n" % len(body) + extra + b"\r\n" + body)
        await self.writer.drain()


@dataclass
class Server:
    """A server whose every connection runs a script; it keeps the requests it saw and counts the connections."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = f"/events?{SECRET}") -> str:
        """Return an address of this server."""
        return f"http://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server for one test; a script that returns closes its connection."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        try:
            await script(Peer(reader, writer, server.requests, server.asked))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            server.ended.set()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def transport(**options: object) -> AsyncIterator[HttpTransport]:
    """Return a transport that is closed after the test."""
    made = HttpTransport("vendor", HttpSettings(), 4, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


def post(server: Server, body: bytes = b"[1,2,3]") -> Request:
    """Return a request with a body and a secret in its URL."""
    return Request("POST", server.url(), {"Authorization": "very-secret"}, body)


async def failure(made: HttpTransport, request: Request, timeout: float = 10.0) -> TransportError:
    """Return the error that the request ends with; it never tells the URL's query."""
    with pytest.raises(TransportError) as caught:
        await made.send(request, timeout)
    assert "secret" not in caught.value.reason
    assert caught.value.__cause__ is None
    return caught.value


async def silence(peer: Peer) -> None:
    """Take the request and wait until the client goes away."""
    await peer.request()
    await peer.reader.read()


async def accept_all(peer: Peer) -> None:
    """Answer every request of the connection."""
    while True:
        body = await peer.request()
        await peer.answer(body or b"ok")
