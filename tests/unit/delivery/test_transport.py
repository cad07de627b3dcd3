"""The transport when a request fails, on real sockets: what a server may do, and what is then known."""

from __future__ import annotations

import asyncio
import socket

import pytest

from connector.config.loader import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.vendors.base import Request
from tests.unit.delivery.raw_server import SECRET, Peer, Script, accept_all, failure, post, serving, silence, transport


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


async def slow_body(peer: Peer) -> None:
    """Begin an answer and never end it."""
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await peer.reader.read()


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
    """A port where nothing listens: the vendor cannot have seen the request."""
    async with serving(accept_all) as server:
        pass
    async with transport() as made:
        error = await failure(made, post(server))
        assert not error.unknown_outcome
        assert error.reason == f"connect to 127.0.0.1:{server.port} failed: Connection refused"


async def test_a_name_that_does_not_resolve_has_no_unknown_outcome() -> None:
    """A host name under the reserved top-level domain `invalid` never resolves."""
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
