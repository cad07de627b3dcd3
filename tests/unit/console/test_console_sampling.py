"""What the console asks: of a range of ports only those count that answer; a member that dies is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
import pytest
from aiohttp import web

from connector.console.sampling import GONE_SECONDS, PartitionBacklog, Sampler
from connector.operations import member
from connector.testing.clock import ManualClock
from tools.servers import free_ports


async def no_backlog() -> Mapping[tuple[str, int], PartitionBacklog]:
    """Return nothing."""
    return {}


async def test_free_ports_of_a_range_are_no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """One member of ten ports is one member; when it dies it is unreachable, and after ten minutes forgotten.

    Kills: nine members that "do not answer" and never were there; a member that vanishes the moment it dies.
    """
    application = web.Application()

    async def status(_request: web.Request) -> web.Response:
        return web.json_response({"destinations": {"jg": {"state": "flowing"}}, "partitions": []})

    application.router.add_get("/status", status)
    runner = web.AppRunner(application)
    await runner.setup()
    port, *free = free_ports(4)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    addresses = [f"http://127.0.0.1:{each}" for each in (*free, port)]
    clock = ManualClock()
    sampler = Sampler(addresses, ["jg"], no_backlog, interval=5.0, clock=clock, sparse=True)
    every = Sampler(addresses, ["jg"], no_backlog, interval=5.0, clock=clock)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:

        async def seen(asked: Sampler = sampler) -> list[tuple[str, bool]]:
            await asked.sample(session)
            return [(each.address, each.trouble is None) for each in asked.responses]

        # What it does not serve, such as /metrics, is an empty page here.
        assert await seen() == [(addresses[-1], True)]
        assert len(await seen(every)) == 4
        await runner.cleanup()
        assert await seen() == [(addresses[-1], False)]
        clock.advance(GONE_SECONDS + 1)
        assert await seen() == [(addresses[0], False)], "with no member at all one is shown as unreachable"


async def test_since_when_a_member_does_not_answer_is_kept() -> None:
    """The headline says since when, and later looks do not begin again. Kills: a time that is that of the last look."""
    (port,) = free_ports(1)
    clock = ManualClock()
    sampler = Sampler([f"http://127.0.0.1:{port}"], ["jg"], no_backlog, interval=5.0, clock=clock)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        await sampler.sample(session)
        began = clock.wall()
        clock.advance(60)
        await sampler.sample(session)
    assert [(each.ill_since, each.ill_before) for each in sampler.responses] == [(began, True)]


async def test_half_a_character_of_a_member_breaks_no_page() -> None:
    """A name with half of a surrogate pair, which JSON can hold, is shown with a question mark.

    Kills: a link of a page that cannot be written.
    """
    application = web.Application()

    async def status(_request: web.Request) -> web.Response:
        text = r'{"destinations": {"j\uD800g": {"state": "flowing"}}, "partitions": [{"topic": "\ud83d\ude00\udfff"}]}'
        return web.Response(text=text, content_type="application/json")

    application.router.add_get("/status", status)
    runner = web.AppRunner(application)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    sampler = Sampler([f"http://127.0.0.1:{port}"], [], no_backlog, interval=5.0, clock=ManualClock())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        await sampler.sample(session)
    await runner.cleanup()
    (response,) = sampler.responses
    assert list(response.destinations) == ["j?g"]


@pytest.mark.promise("P14")
async def test_json_without_end_is_no_answer_of_a_member() -> None:
    """Whatever listens at a member's address, the other members are sampled, and a command says that none is there.

    Kills: one answer of a hundred thousand brackets that ends every sample, and a command with a traceback.
    """
    application = web.Application()

    async def status(_request: web.Request) -> web.Response:
        return web.Response(text="[" * 100_000, content_type="application/json")

    application.router.add_get("/{page}", status)
    runner = web.AppRunner(application)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    address = f"http://127.0.0.1:{port}"
    sampler = Sampler([address], [], no_backlog, interval=5.0, clock=ManualClock())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        await sampler.sample(session)
    found = await asyncio.to_thread(member.events, address, 0.0, None)
    await runner.cleanup()
    (response,) = sampler.responses
    assert "is this a connector's port?" in str(response.trouble)
    assert found == {}


async def test_a_member_that_goes_down_while_it_is_watched_has_its_time() -> None:
    """Only what was so at the first look may be older. Kills: `at least` for every trouble."""
    (port,) = free_ports(1)
    application = web.Application()

    async def page(_request: web.Request) -> web.Response:
        return web.json_response({})

    application.router.add_get("/{page}", page)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    clock = ManualClock()
    sampler = Sampler([f"http://127.0.0.1:{port}"], ["jg"], no_backlog, interval=5.0, clock=clock)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        await sampler.sample(session)
        await runner.cleanup()
        clock.advance(5)
        await sampler.sample(session)
    assert [(each.ill_since, each.ill_before) for each in sampler.responses] == [(clock.wall(), False)]
