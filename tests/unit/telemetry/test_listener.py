"""A port stays usable whatever its clients do: half-open requests, many connections, ports that are taken."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from connector.telemetry.listener import Listener, most_connections


def application(gate: asyncio.Event | None = None) -> web.Application:
    """An application with one page, which waits for the gate."""

    async def page(_request: web.Request) -> web.Response:
        if gate is not None:
            await gate.wait()
        return web.Response(text="page")

    served = web.Application()
    served.router.add_get("/", page)
    return served


@asynccontextmanager
async def listening(
    served: web.Application,
    *,
    host: str = "127.0.0.1",
    ports: Iterable[int] = (0,),
    connections: int = 5,
    **seconds: float,
) -> AsyncIterator[int]:
    """Serve an application and give its port."""
    port = Listener(served, host, ports, connections=connections, **seconds)  # type: ignore[arg-type]  # the bounds in seconds
    await port.start()
    try:
        yield port.port or 0
    finally:
        await port.stop()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def opened(port: int, sent: bytes = b"") -> Ends:
    """Open a connection and send the beginning of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    return reader, writer


async def status(port: int, host: str = "127.0.0.1") -> bytes:
    """Return the first line of an answer."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(REQUEST)
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.close()
    return line.strip()


async def is_closed(ends: Ends, seconds: float = 5.0) -> bool:
    """Whether the other side closes within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await ends[0].read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_a_crowd_of_half_open_requests_keeps_no_one_out() -> None:
    """Of more connections than allowed the oldest without a whole request are closed; a probe gets its answer.

    Kills: no bound on connections; a bound that turns the platform's own probe away.
    """
    async with listening(application()) as port:
        crowd = [await opened(port, b"GET / HTTP/1.1\r\nHost:") for _ in range(12)]
        assert await status(port) == b"HTTP/1.1 200 OK"
        closed = [await is_closed(ends, 0.2) for ends in crowd]
        assert closed[:8] == [True] * 8
        assert closed[8:] == [False] * 4
        for _, writer in crowd:
            writer.close()


async def test_a_crowd_of_half_sent_bodies_keeps_no_one_out() -> None:
    """The oldest of them is closed for a new connection, and not only when its time is over.

    Kills: a port that a client takes whole with a few bytes for each connection.
    """
    served = application()

    async def form(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    served.router.add_post("/", form)
    async with listening(served) as port:
        crowd = [await opened(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc") for _ in range(7)]
        assert await status(port) == b"HTTP/1.1 200 OK"
        assert await is_closed(crowd[0], 1.0)
        for _, writer in crowd:
            writer.close()


async def test_a_request_under_way_is_not_closed_for_a_new_one() -> None:
    """Where every connection has a request, the new one is closed."""
    gate = asyncio.Event()
    async with listening(application(gate), connections=2) as port:
        busy = [await opened(port, REQUEST) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await opened(port, REQUEST)
        assert await is_closed(refused)
        refused[1].close()
        gate.set()
        for reader, writer in busy:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x"])
async def test_a_header_that_does_not_come_closes_the_connection(sent: bytes) -> None:
    """A client has so many seconds for its header, also if it sends a byte of it now and then."""
    async with listening(application(), header_seconds=0.3) as port:
        ends = await opened(port, sent)

        async def drip() -> None:
            while not ends[1].is_closing():
                ends[1].write(b"x" if sent else b"")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await is_closed(ends, 2.0)
        ends[1].close()
        await dripping


async def test_a_body_that_does_not_come_closes_the_connection() -> None:
    """Requests without their bodies keep no connection, so they cannot take all of them. Kills: no time for a body."""
    served = web.Application()

    async def read(request: web.Request) -> web.Response:
        return web.Response(text=await request.text())

    served.router.add_post("/", read)
    async with listening(served, connections=2, body_seconds=0.3) as port:
        crowd = [await opened(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc") for _ in range(2)]
        assert [await is_closed(ends, 2.0) for ends in crowd] == [True, True]
        for _, writer in crowd:
            writer.close()
        whole = await opened(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        assert (await whole[0].read()).endswith(b"abc")
        whole[1].close()


async def test_a_slow_response_is_not_cut() -> None:
    """The time for a header ends with it."""
    gate = asyncio.Event()
    async with listening(application(gate), header_seconds=0.1, body_seconds=0.1) as port:
        reader, writer = await opened(port, REQUEST)
        await asyncio.sleep(0.3)
        gate.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_the_first_free_port_of_a_range_is_taken() -> None:
    """Several members on one host share a range; when all of it is taken, the start fails."""
    async with listening(application()) as first:
        async with listening(application(), ports=[first, 0]) as second:
            assert second != first
            assert await status(second) == b"HTTP/1.1 200 OK"
        with pytest.raises(OSError, match="in use"):
            async with listening(application(), ports=[first]):
                pass


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
async def test_all_addresses_are_those_of_both_families() -> None:
    """`::` serves IPv4 and IPv6 on one port, and an IPv4 client keeps its own address.

    Kills: a socket that asyncio binds for IPv6 only; one socket for both, to which IPv4 clients are ::ffff:1.2.3.4.
    """

    async def remote(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.remote in ("127.0.0.1", "::1") else 500)

    served = web.Application()
    served.router.add_get("/", remote)
    async with listening(served, host="::") as port:
        for host in ("127.0.0.1", "::1"):
            assert await status(port, host) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(("host", "missing"), [("127.0.0.1", "127.0.0.1"), ("::", "::"), ("::", "0.0.0.0")])
async def test_a_host_with_one_family_is_served_by_it(host: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system lacks an address, the other family's stands in; where it has neither, the start fails."""
    loop = asyncio.get_running_loop()
    real = loop.create_server
    gone = {missing}

    async def create(factory: Any, address: str, *arguments: Any, **more: Any) -> Any:
        if address in gone:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return await real(factory, address, *arguments, **more)

    monkeypatch.setattr(loop, "create_server", create)
    reached = "127.0.0.1" if missing == "::" else "::1"
    async with listening(application(), host=host) as port:
        assert await status(port, reached) == b"HTTP/1.1 200 OK"
    gone |= {"::1", "::", "0.0.0.0"}
    with pytest.raises(OSError, match="Cannot assign"):
        async with listening(application(), host=host):
            pass


def test_a_small_process_gives_the_port_a_small_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 descriptors 8 are the port's; deliveries have the rest."""
    for descriptors, most in ((64, 8), (8, 4), (1 << 20, 64), (resource.RLIM_INFINITY, 64)):
        limits = (descriptors, descriptors)
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        assert most_connections() == most
