"""The transport when a request is answered, on real sockets: what goes out, and what comes back."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from connector.config.loader import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.errors import ConfigurationError
from connector.vendors.base import Request, Response
from tests.unit.delivery.raw_server import Peer, accept_all, failure, post, serving, transport


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


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"deflate", b"br"])
async def test_an_empty_answer_is_empty_whatever_its_coding(coding: bytes) -> None:
    """A proxy that names a coding for an answer without content is answered like any other.

    Kills: looking at the first byte of a body that has none.
    """

    async def empty(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"", b"HTTP/1.1 502 Bad Gateway", b"Content-Encoding: " + coding + b"\r\n")

    async with serving(empty) as server, transport() as made:
        answer = await made.send(post(server), 10.0)
        assert (answer.status, answer.body) == (502, b"")


async def test_a_part_of_an_answer_is_no_answer() -> None:
    """A 206 that no one asked for is not read, whatever its part of the body says: the outcome is unknown.

    Kills: a success by any status of 200 to 299.
    """

    async def part(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b'{"code": 0}', b"HTTP/1.1 206 Partial Content", b"Content-Range: bytes 0-10/90\r\n")

    async with serving(part) as server, transport() as made:
        error = await failure(made, post(server))
        assert error.unknown_outcome
        assert "broke off" in error.reason


async def test_a_packed_answer_is_unpacked() -> None:
    """The verdict reads what the vendor wrote, not how it was packed; header names come in lower case."""

    async def packed(peer: Peer) -> None:
        await peer.request()
        await peer.answer(gzip.compress(b'{"code": 0}'), extra=b"Content-Encoding: gzip\r\nX-Request-ID: r1\r\n")

    async with serving(packed) as server, transport() as made:
        answer = await made.send(post(server), 10.0)
        assert isinstance(answer, Response)
        assert (answer.body, answer.headers["x-request-id"]) == (b'{"code": 0}', "r1")


@pytest.mark.parametrize(
    ("coding", "body"), [(b"utf-8", b'{"code": 0}'), (b"gzip", gzip.compress(b'{"code": 0}', mtime=0) + bytes(8))]
)
async def test_a_coding_that_is_none_and_zeros_after_gzip_hide_no_answer(coding: bytes, body: bytes) -> None:
    """Kills: an acceptance taken for an unknown outcome, and its events sent again for ever."""

    async def odd(peer: Peer) -> None:
        await peer.request()
        await peer.answer(body, extra=b"Content-Encoding: " + coding + b"\r\n")

    async with serving(odd) as server, transport() as made:
        assert (await made.send(post(server), 10.0)).body == b'{"code": 0}'


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
    """A signed URL is not encoded again, and no header is added except those that identify the client."""
    path = "/a%2Fb?sign=%2b%20x&t=1%252"
    async with serving(accept_all) as server, transport() as made:
        await made.send(Request("POST", server.url(path), {"Authorization": "token", "X-One": "1"}, b"[]"), 10.0)
        lines = server.requests[0].decode().split("\r\n")
        assert lines[0] == f"POST {path} HTTP/1.1"
        names = {line.split(":")[0].lower() for line in lines[1:] if line}
        assert names == {"host", "authorization", "x-one", "user-agent", "accept", "accept-encoding", "content-length"}


async def test_requests_with_the_same_headers_differ_in_all_else() -> None:
    """Each states its own server, target and length. Kills: lines of one request that go out with another."""
    headers = {"Authorization": "token"}
    async with serving(accept_all) as first, serving(accept_all) as second, transport() as made:
        for server in (first, second, first):
            await made.send(Request("POST", server.url("/a"), headers, b"[]"), 10.0)
        await made.send(Request("POST", first.url("/b"), headers, b"[1]"), 10.0)
        await made.send(Request("GET", first.url("/c"), headers), 10.0)
        await made.send(Request("POST", first.url("/d"), {**headers, "content-length": "2"}, b"[]"), 10.0)
    heads = [request.decode().split("\r\n") for request in first.requests]
    assert [head[0].split()[:2] for head in heads] == [
        ["POST", "/a"],
        ["POST", "/a"],
        ["POST", "/b"],
        ["GET", "/c"],
        ["POST", "/d"],
    ]
    lengths = [[line for line in head if line.lower().startswith("content-length")] for head in heads]
    own = [["Content-Length: 2"]] * 2
    assert lengths == [*own, ["Content-Length: 3"], [], ["content-length: 2"]]
    hosts = {f"Host: {server.url('').removeprefix('http://')}" for server in (first, second)}
    assert hosts == {request.decode().split("\r\n")[1] for server in (first, second) for request in server.requests}


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
    """A missing CA file, or one that is not a PEM file, is a fault at the start, with the path of its key."""
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
