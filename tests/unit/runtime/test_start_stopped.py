"""A stop while the member still waits to start: for a broker, or for the members of the other side to leave."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import StartupError
from connector.runtime.app import _done_before


async def test_a_stop_ends_what_a_start_waits_for() -> None:
    """The work is cancelled at once, and the start is told; without a stop it is done. What it raises is raised.

    Kills: a start that waits for the members of another group, deaf to SIGTERM, until a drain time is over.
    """
    ended = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fails() -> None:
        raise StartupError("group g has running members")

    stop = asyncio.Event()
    assert await _done_before(stop, asyncio.sleep(0))
    with pytest.raises(StartupError):
        await _done_before(stop, fails())
    asyncio.get_running_loop().call_soon(stop.set)
    assert not await asyncio.wait_for(_done_before(stop, waits()), 1.0)
    assert ended == ["cancelled"]
