"""An answer counts only for its own request, on servers that send too much, too early or at the wrong time.

Each promise holds for GET and POST, HTTP/1.0 and 1.1, plain and TLS, directly and through a proxy.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from connector.config.loader import HttpSettings
from connector.delivery.exchange import Exchange, StaleConnectionError, WatchedProtocol
from connector.delivery.transport import HttpTransport
from connector.vendors.base import Request
from tests.unit.delivery.raw_server import Peer, Script, Server, failure, post, serving, transport
from tests.unit.delivery.test_transport_tls import certificate

LARGE = bytes(30_000_000)
"""A body that no socket buffer holds."""


@dataclass
class Wire:
    """A server, a transport to it over some way, and how its requests look."""

    server: Server
    transport: HttpTransport
    method: str
    scheme: str
    seen: list[bytes] = field(default_factory=list)

    def request(self, number: int) -> Request:
        """Return the request of this number; its answer is its own path."""
        url = f"{self.scheme}://127.0.0.1:{self.server.port}/{number}"
        return Request(self.method, url, {}, None if self.method == "GET" else b"[]")

    async def ask(self, number: int) -> bytes:
        """Return the answer to the request of this number."""
        return (await self.transport.send(self.request(number), 10.0)).body


async def tunnel(peer: Peer) -> None:
    """Be a proxy: CONNECT for TLS, absolute addresses for plain HTTP; bytes go through unchanged."""
    head = await peer.reader.readuntil(b"\r\n\r\n")
    target = head.split(b" ")[1].decode()
    port = int(target.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if head.startswith(b"CONNECT"):
        peer.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        writer.write(head)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()

    try:
        await asyncio.gather(copy(peer.reader, writer), copy(reader, peer.writer))
    finally:
        writer.close()


@asynccontextmanager
async def wire(script: Script, way: str, folder: Path) -> AsyncIterator[Wire]:
    """Connect a transport to a server over one of `WAYS`."""
    method, tls, proxied, _ = way.split()
    files = certificate(folder)
    context = None
    if tls == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(files.cert_file), files.key_file)
    async with serving(script, context) as server, serving(tunnel) as proxy:
        http = HttpSettings(ca_file=files.ca_file, proxy=proxy.url("") if proxied == "proxy" else None)
        made = HttpTransport("vendor", http, 4)
        try:
            yield Wire(server, made, method, "https" if tls == "tls" else "http")
        finally:
            await made.close()


WAYS = [
    f"{method} {tls} {proxied} {version}"
    for method in ("GET", "POST")
    for tls in ("plain", "tls")
    for proxied in ("direct", "proxy")
    for version in ("1.0", "1.1")
]


async def echo(peer: Peer, version: str) -> bytes:
    """Read one request and answer it with its own path."""
    await peer.request()
    path = peer.requests[-1].split(b" ")[1].rpartition(b"/")[2]
    keep = b"Connection: keep-alive\r\n" if version == "1.0" else b""
    await peer.answer(path, f"HTTP/{version} 200 OK".encode(), keep)
    return path


SURPLUS = {
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong",
    "a part of one": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a line break": b"\r\n",
    "an error": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.mark.promise("P1", "P15")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS.keys())
async def test_bytes_that_arrive_while_idle_answer_no_request(way: str, surplus: bytes, tmp_path: Path) -> None:
    """Every request is read by the vendor and gets its own answer, however much the vendor sends unasked.

    Kills: reusing a pooled connection without asking what it received.
    """
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await echo(peer, way.split()[3])
            await asyncio.sleep(0.005)
            peer.writer.write(surplus)
            await peer.writer.drain()
            sent.set()

    async with wire(script, way, tmp_path) as at:
        for number in range(3):
            sent.clear()
            assert await at.ask(number) == str(number).encode()
            await sent.wait()
            await asyncio.sleep(0.01)
        assert (at.server.connections, len(at.server.requests)) == (3, 3)


@pytest.mark.parametrize("way", WAYS)
async def test_a_surplus_answer_in_the_same_write_answers_no_request(way: str, tmp_path: Path) -> None:
    """Two answers in one segment: the second one is dropped with its connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        path = peer.requests[-1].split(b" ")[1].rpartition(b"/")[2]
        head = f"HTTP/{way.split()[3]} 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n".encode()
        peer.writer.write(head + path + head + b"x")
        await peer.reader.read()

    async with wire(script, way, tmp_path) as at:
        assert [await at.ask(number) for number in range(3)] == [b"0", b"1", b"2"]
        assert at.server.connections == 3


@pytest.mark.parametrize("way", [way for way in WAYS if way.endswith("1.1")])
async def test_a_connection_that_was_closed_while_idle_is_not_used(way: str, tmp_path: Path) -> None:
    """The next request goes out on a new connection, and is not lost on the old one."""

    async def script(peer: Peer) -> None:
        await echo(peer, "1.1")

    async with wire(script, way, tmp_path) as at:
        for number in range(3):
            assert await at.ask(number) == str(number).encode()
            await asyncio.sleep(0.01)
        assert (at.server.connections, len(at.server.requests)) == (3, 3)


@pytest.mark.parametrize("way", [way for way in WAYS if way.endswith("1.1")])
async def test_good_connections_are_kept_alive(way: str, tmp_path: Path) -> None:
    """The checks cost no connection where the server behaves."""

    async def script(peer: Peer) -> None:
        while True:
            await echo(peer, "1.1")

    async with wire(script, way, tmp_path) as at:
        assert [await at.ask(number) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert at.server.connections == 1


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_server_that_speaks_first_has_answered_nothing(delivered: bool) -> None:
    """What a new connection received before its first request is no answer to it, delivered by the loop or not.

    Kills: reading whatever a new connection received as the answer.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    protocol = WatchedProtocol(loop)
    connection, _ = await loop.create_connection(lambda: protocol, sock=ours)
    if not delivered:
        connection.pause_reading()
    theirs.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await asyncio.sleep(0.01)
    exchange = Exchange()
    exchange.begin(protocol)
    assert exchange.early
    connection.abort()
    theirs.close()
    await asyncio.sleep(0)


@pytest.mark.promise("P1", "P15")
@pytest.mark.parametrize("tls", ["plain", "tls"])
async def test_an_answer_before_the_body_was_written_is_no_success(tls: str, tmp_path: Path) -> None:
    """A 200 to a request whose body the vendor has not read whole is no success, and the connection is broken off.

    The rest of the body is never sent, so the vendor cannot have acted on it.

    Kills: an answer that counts although its request was never complete.
    """
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.head()
        await peer.answer(b'{"code": 0}')
        await asyncio.sleep(0.1)
        while piece := await peer.reader.read(65536):
            received += len(piece)

    async with wire(script, f"POST {tls} direct 1.1", tmp_path) as at:
        request = Request("POST", at.request(0).url, {}, LARGE)
        error = await failure(at.transport, request)
        assert not error.unknown_outcome
        assert "answered before the request was sent whole" in error.reason
        await at.server.ended.wait()
        assert received < len(LARGE)


async def test_what_waits_when_a_request_times_out_is_never_sent() -> None:
    """The rest of the body does not follow once the request has ended, whenever the vendor reads on.

    Kills: closing the connection, which first sends what waits: the vendor would accept a batch that is sent again.
    """
    received = 0
    over = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.head()
        await over.wait()
        while piece := await peer.reader.read(65536):
            received += len(piece)

    async with serving(script) as server, transport() as made:
        error = await failure(made, post(server, LARGE), timeout=0.2)
        assert "within 0.2 s" in error.reason
        over.set()
        await server.ended.wait()
        assert received < len(LARGE)


async def test_bytes_that_wait_to_be_sent_make_an_answer_early() -> None:
    """A body that was written but waits in the transport has not reached the vendor.

    Kills: taking a body that was handed to the transport for one that was sent.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    protocol = WatchedProtocol(loop)
    connection, _ = await loop.create_connection(lambda: protocol, sock=ours)
    for body, early in ((b"x", False), (bytes(8_000_000), True)):
        exchange = Exchange()
        exchange.begin(protocol)
        exchange.write(b"", body)
        theirs.send(b"HTTP/1.1 200 OK\r\n")
        await asyncio.sleep(0.01)
        assert exchange.early is early
        protocol.exchange = None
        protocol.spoke_first = False
    connection.abort()
    theirs.close()
    await asyncio.sleep(0)


async def test_an_early_refusal_on_a_new_connection_counts() -> None:
    """A 413 that a server sends before it reads the body can only be about this request."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"", b"HTTP/1.1 413 Request Entity Too Large")
        await asyncio.sleep(0.2)

    async with serving(script) as server, transport() as made:
        assert (await made.send(post(server, LARGE), 10.0)).status == 413


async def test_an_early_refusal_on_a_reused_connection_does_not_count() -> None:
    """It may be the surplus answer to an earlier request, and would blame innocent records."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.head()
        await peer.answer(b'{"code": 4104}', b"HTTP/1.1 400 Bad Request")
        await asyncio.sleep(0.2)

    async with serving(script) as server, transport() as made:
        await made.send(post(server), 10.0)
        error = await failure(made, post(server, LARGE))
        assert "answered before the request was sent whole" in error.reason


@pytest.mark.parametrize("tls", ["plain", "tls"])
@pytest.mark.parametrize("size", [2, 70_000, 2**20, 2**20 + 1, 3_000_000])
async def test_an_answer_that_follows_the_body_at_once_counts(tls: str, size: int, tmp_path: Path) -> None:
    """However fast the vendor answers after the last byte, its answer is not early."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b'{"code": 0}')

    async with wire(script, f"POST {tls} direct 1.1", tmp_path) as at:
        request = Request("POST", at.request(0).url, {}, bytes(size))
        for _ in range(10):
            assert (await at.transport.send(request, 10.0)).body == b'{"code": 0}'
        assert at.server.connections == 1


async def test_interim_answers_are_not_early() -> None:
    """100 and 103 may come before the body was written; the final answer counts."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await peer.reader.readexactly(len(LARGE))
        await peer.answer()
        await peer.reader.read()

    async with serving(script) as server, transport() as made:
        assert (await made.send(post(server, LARGE), 20.0)).body == b"ok"


@pytest.mark.parametrize("closed", [False, True])
async def test_what_waits_in_the_socket_is_seen_before_the_next_request(closed: bool) -> None:
    """Bytes, or the end, that no callback has delivered yet make the connection unusable.

    Kills: asking only what the event loop has delivered.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    protocol = WatchedProtocol(loop)
    connection, _ = await loop.create_connection(lambda: protocol, sock=ours)
    protocol.exchange = Exchange(ended=True)
    assert not protocol.is_stale()
    connection.pause_reading()
    if closed:
        theirs.close()
    else:
        theirs.send(b"HTTP/1.1 200 OK\r\n")
    assert protocol.is_stale()
    assert not protocol.surplus
    connection.abort()
    theirs.close()
    await asyncio.sleep(0)


async def test_the_socket_is_asked_before_anything_is_written() -> None:
    """Bytes that wait in the socket of a reused connection keep the whole request back.

    Kills: asking only what the event loop has delivered.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    protocol = WatchedProtocol(loop)
    connection, _ = await loop.create_connection(lambda: protocol, sock=ours)
    protocol.exchange = Exchange(ended=True)
    theirs.send(b"HTTP/1.1 200 OK\r\n")
    exchange = Exchange()
    with pytest.raises(StaleConnectionError):
        exchange.begin(protocol)
    assert not exchange.body_begun
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    connection.abort()
    theirs.close()
    await asyncio.sleep(0)


async def test_a_truncated_gzip_body_is_no_answer() -> None:
    """A compressed body without its end is an unknown outcome, although its length is right.

    Kills: leaving unpacking to aiohttp, which takes the part for the whole.
    """

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(gzip.compress(b'{"code": 0, "msg": "ok"}' * 20)[:-12], extra=b"Content-Encoding: gzip\r\n")

    async with serving(script) as server, transport() as made:
        error = await failure(made, post(server))
        assert error.unknown_outcome
        assert error.reason == f"the answer from 127.0.0.1:{server.port} broke off or cannot be unpacked"


def test_nothing_is_written_on_a_connection_that_is_gone() -> None:
    """A connection that broke before the request was written leaves no doubt: nothing of the body was begun."""
    exchange = Exchange()
    with pytest.raises(aiohttp.ClientConnectionResetError):
        exchange.write(b"POST / HTTP/1.1\r\n\r\n", b"body")
    exchange.abort()
    assert not exchange.body_begun
