"""The transport against real sockets: what a vendor's server may do to a request, and what is then known."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from connector.config import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.errors import ConfigurationError, TransportError
from connector.vendors.base import Request, Response

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
async def serving(script: Script) -> AsyncIterator[Server]:
    """Run a server for one test; a script that returns closes its connection."""
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await script(Peer(reader, writer, server.requests, server.asked))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            server.ended.set()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


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


async def cut_before_answer(peer: Peer) -> None:
    """Take the request and close."""
    await peer.request()


async def cut_in_head(peer: Peer) -> None:
    """Close in the middle of the answer's head."""
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await peer.writer.drain()


async def cut_in_body(peer: Peer) -> None:
    """Close in the middle of the answer's body."""
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await peer.writer.drain()


async def cut_in_chunks(peer: Peer) -> None:
    """Close before the last chunk of a chunked answer."""
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await peer.writer.drain()


async def garbage(peer: Peer) -> None:
    """Answer in another protocol."""
    await peer.request()
    peer.writer.write(b"220 smtp.example.com ESMTP ready\r\n\r\n")
    await peer.writer.drain()


async def bad_gzip(peer: Peer) -> None:
    """Claim an encoding that the body does not have."""
    await peer.request()
    await peer.answer(b"not gzip at all", extra=b"Content-Encoding: gzip\r\n")


async def reset(peer: Peer) -> None:
    """Break the connection by a reset after the request."""
    await peer.request()
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


async def silence(peer: Peer) -> None:
    """Take the request and wait until the client goes away."""
    await peer.request()
    await peer.reader.read()


async def slow_body(peer: Peer) -> None:
    """Begin an answer and never end it."""
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await peer.reader.read()


async def accept_all(peer: Peer) -> None:
    """Answer every request of the connection."""
    while True:
        body = await peer.request()
        await peer.answer(body or b"ok")


@pytest.mark.parametrize(
    "script", [cut_before_answer, cut_in_head, cut_in_body, cut_in_chunks, garbage, bad_gzip, reset]
)
async def test_no_whole_answer_after_the_body_is_an_unknown_outcome(script: Script) -> None:
    """Whatever breaks after the body was begun, the vendor may have accepted it, and nothing is sent again."""
    async with serving(script) as server, transport() as made:
        error = await failure(made, post(server))
        assert error.unknown_outcome
        assert len(server.requests) == 1


@pytest.mark.parametrize("script", [silence, slow_body])
async def test_a_vendor_that_hangs_is_left_after_the_time_out(script: Script) -> None:
    """The time-out covers the answer's body too, says its length, closes the connection and is an unknown outcome."""
    async with serving(script) as server, transport() as made:
        error = await failure(made, post(server), timeout=0.2)
        assert error.unknown_outcome
        assert error.reason == f"no answer from 127.0.0.1:{server.port} within 0.2 s"
        await server.ended.wait()


async def test_a_refused_connection_has_no_unknown_outcome() -> None:
    """A port where nobody listens: the vendor cannot have seen the request."""
    async with serving(accept_all) as server:
        pass
    async with transport() as made:
        error = await failure(made, post(server))
        assert not error.unknown_outcome
        assert error.reason == f"connect to 127.0.0.1:{server.port} failed: Connection refused"


async def test_a_name_that_does_not_resolve_has_no_unknown_outcome() -> None:
    """A host name nobody has, by the rule of the reserved top-level name `invalid`."""
    async with transport() as made:
        error = await failure(made, Request("POST", f"http://vendor.invalid/?{SECRET}", {}, b"[]"))
        assert not error.unknown_outcome
        assert error.reason == "connect to vendor.invalid:80 failed: the host name cannot be resolved"


async def test_a_failed_handshake_has_no_unknown_outcome() -> None:
    """A server that speaks no TLS never got a byte of the request."""
    async with serving(silence) as server, transport() as made:

        async def no_tls(peer: Peer) -> None:
            await peer.reader.read(1)
            peer.writer.write(b"this is no TLS\r\n")

        async with serving(no_tls) as plain:
            error = await failure(made, Request("POST", f"https://127.0.0.1:{plain.port}/?{SECRET}", {}, b"[]"))
        assert not error.unknown_outcome
        assert error.reason.startswith(f"connect to 127.0.0.1:{plain.port} failed: ")
        assert server.connections == 0


async def test_a_slow_handshake_ends_by_the_connect_time_out() -> None:
    """A server that accepts and never answers the handshake: no connection, so no unknown outcome."""

    async def mute(peer: Peer) -> None:
        await peer.reader.read()

    async with serving(mute) as server, transport(connect_timeout=0.2) as made:
        error = await failure(made, Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"[]"))
        assert not error.unknown_outcome
        assert error.reason == f"no connection to 127.0.0.1:{server.port} within 0.2 s"


async def test_waiting_for_a_connection_is_no_unknown_outcome() -> None:
    """With every connection in use, a request that times out in the queue was never sent."""
    async with serving(silence) as server:
        made = HttpTransport("vendor", HttpSettings(), 1)
        first = asyncio.ensure_future(made.send(post(server), 10.0))
        await server.asked.wait()
        error = await failure(made, post(server), timeout=0.1)
        assert not error.unknown_outcome
        assert error.reason == f"no connection to 127.0.0.1:{server.port} within 0.1 s"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await made.close()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_broken_reused_connection_is_not_tried_again(method: str) -> None:
    """A kept-alive connection that breaks under the second request: it reaches the server once, idempotent or not.

    Kills: leaving aiohttp's own retry of idempotent methods on, which sends past the pace and the count.
    """

    async def once_then_cut(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()

    body = None if method == "GET" else b"[]"
    async with serving(once_then_cut) as server, transport() as made:
        request = Request(method, server.url(), {}, body)
        assert (await made.send(request, 10.0)).body == b"ok"
        error = await failure(made, request)
        assert (len(server.requests), server.connections) == (2, 1)
        assert error.unknown_outcome is (body is not None)
        assert error.reason == f"127.0.0.1:{server.port} closed the connection without an answer"


async def test_connections_are_kept_alive() -> None:
    """Requests one after the other share one connection."""
    async with serving(accept_all) as server, transport() as made:
        for _ in range(5):
            assert (await made.send(post(server), 10.0)).status == 200
        assert server.connections == 1


async def test_a_redirect_is_an_answer() -> None:
    """A redirect is never followed: the body and its credential go to the configured host and to no other."""

    async def elsewhere(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", b"HTTP/1.1 307 Temporary Redirect", b"Location: /other\r\n")

    async with serving(elsewhere) as server, transport() as made:
        answer = await made.send(post(server), 10.0)
        assert (answer.status, answer.headers["location"], len(server.requests)) == (307, "/other", 1)


@pytest.mark.parametrize("size", [99, 100, 101, 8_000_000])
async def test_an_answer_is_cut_at_the_cap(size: int) -> None:
    """An answer of the cap's size is whole; of a larger one the first bytes come, and the rest is not waited for."""

    async def large(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"x" * size)

    async with serving(large) as server, transport(answer_cap=100) as made:
        for _ in range(2):
            answer = await made.send(post(server), 10.0)
            assert answer.body == b"x" * min(size, 100)
        assert server.connections == (2 if size > 1_000_000 else 1)


async def test_the_cap_counts_unpacked_bytes() -> None:
    """A small answer that unpacks to a large one is cut as well."""

    async def bomb(peer: Peer) -> None:
        await peer.request()
        await peer.answer(gzip.compress(bytes(10_000_000)), extra=b"Content-Encoding: gzip\r\n")

    async with serving(bomb) as server, transport(answer_cap=1000) as made:
        assert (await made.send(post(server), 10.0)).body == bytes(1000)


async def test_a_packed_answer_is_unpacked() -> None:
    """The verdict reads what the vendor wrote, not how it was packed; header names come in lower case."""

    async def packed(peer: Peer) -> None:
        await peer.request()
        await peer.answer(gzip.compress(b'{"code": 0}'), extra=b"Content-Encoding: gzip\r\nX-Request-ID: r1\r\n")

    async with serving(packed) as server, transport() as made:
        answer = await made.send(post(server), 10.0)
        assert isinstance(answer, Response)
        assert (answer.body, answer.headers["x-request-id"]) == (b'{"code": 0}', "r1")


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3_000_000])
async def test_a_body_arrives_whole_and_with_its_length(size: int) -> None:
    """The body goes out byte for byte under a Content-Length, also above the size of one write."""
    seen: list[bytes] = []

    async def keep(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()

    body = bytes(range(256)) * (size // 256 + 1)
    async with serving(keep) as server, transport() as made:
        await made.send(post(server, body[:size]), 10.0)
        assert seen == [body[:size]]
        assert b"\r\nContent-Length: %d\r\n" % size in server.requests[0]
        assert b"chunked" not in server.requests[0]


async def test_the_url_and_headers_go_out_as_they_are() -> None:
    """A signed URL must not be encoded anew, and no header is added that says more than who asks."""
    path = "/a%2Fb?sign=%2b%20x&t=1%252"
    async with serving(accept_all) as server, transport() as made:
        await made.send(Request("POST", server.url(path), {"Authorization": "token", "X-One": "1"}, b"[]"), 10.0)
        lines = server.requests[0].decode().split("\r\n")
        assert lines[0] == f"POST {path} HTTP/1.1"
        names = {line.split(":")[0].lower() for line in lines[1:] if line}
        assert names == {"host", "authorization", "x-one", "user-agent", "accept", "accept-encoding", "content-length"}


async def test_cookies_are_not_kept() -> None:
    """What a vendor's balancer sets as a cookie is not sent back: one request never depends on another."""

    async def cookies(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(extra=b"Set-Cookie: session=1; Path=/\r\n")

    async with serving(cookies) as server, transport() as made:
        await made.send(post(server), 10.0)
        await made.send(post(server), 10.0)
        assert b"cookie" not in server.requests[1].lower()


async def test_cancelling_closes_the_connection() -> None:
    """A cancelled request leaves no connection on which a late answer could be taken for the next one's."""
    async with serving(silence) as server, transport() as made:
        sending = asyncio.ensure_future(made.send(post(server), 10.0))
        await server.asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await server.ended.wait()


async def test_a_request_that_is_not_http_is_an_error_of_the_transport() -> None:
    """A header with a line break, or another scheme, ends as the documented error and is sent nowhere."""
    async with serving(accept_all) as server, transport() as made:
        broken = await failure(made, Request("POST", server.url(), {"X": "a\r\nvery-secret: b"}, b"[]"))
        other = await failure(made, Request("POST", f"ftp://vendor.example/?{SECRET}", {}, b"[]"))
        assert not broken.unknown_outcome
        assert not other.unknown_outcome
        assert server.requests == []


async def test_a_proxy_gets_the_request() -> None:
    """With `http.proxy` the connection goes to the proxy, and a proxy that is down is named as such."""
    async with serving(accept_all) as proxy:
        made = HttpTransport("vendor", HttpSettings(proxy=proxy.url("")), 1)
        answer = await made.send(Request("POST", "http://vendor.example/x", {}, b"[]"), 10.0)
        await made.close()
        assert answer.status == 200
        assert proxy.requests[0].startswith(b"POST http://vendor.example/x HTTP/1.1\r\n")
    made = HttpTransport("vendor", HttpSettings(proxy=proxy.url("")), 1)
    error = await failure(made, Request("POST", "http://vendor.example/x", {}, b"[]"))
    await made.close()
    assert not error.unknown_outcome
    assert error.reason == "connect to the proxy for vendor.example:80 failed: Connection refused"


def test_unusable_files_are_faults_of_the_configuration(tmp_path: Path) -> None:
    """A missing CA file, or one that is no PEM file, is told at start with its path in the file."""
    with pytest.raises(ConfigurationError, match=r"destinations\.vendor\.http\.ca_file: the file cannot be read"):
        HttpTransport("vendor", HttpSettings(ca_file=str(tmp_path / "none.pem")), 1)
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"http\.ca_file: the file is not a PEM file"):
        HttpTransport("vendor", HttpSettings(ca_file=str(text)), 1)
    with pytest.raises(ConfigurationError, match=r"http\.cert_file: the file is not a PEM file"):
        HttpTransport("vendor", HttpSettings(cert_file=str(text), key_file=str(text)), 1)


async def test_closing_twice_is_harmless() -> None:
    """`close` may be called before anything was sent, and again."""
    made = HttpTransport("vendor", HttpSettings(), 1)
    await made.close()
    await made.close()
