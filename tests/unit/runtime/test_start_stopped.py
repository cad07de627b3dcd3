"""A stop while the member still waits to start: for a broker, or for the members of the other side to leave."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import StartupError
from connector.runtime.app import _unless_stopped


async def test_a_stop_ends_what_a_start_waits_for() -> None:
    """The work is cancelled at once; without a stop its result comes. What it raises is raised.

    Kills: a start that waits for the members of another group, deaf to SIGTERM, until a drain time is over.
    """
    ended = []

    async def waits() -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def fails() -> None:
        raise StartupError("group g has running members")

    async def works() -> str:
        return "done"

    stop = asyncio.Event()
    assert await _unless_stopped(works(), stop) == "done"
    with pytest.raises(StartupError):
        await _unless_stopped(fails(), stop)
    asyncio.get_running_loop().call_soon(stop.set)
    assert await asyncio.wait_for(_unless_stopped(waits(), stop), 1.0) is None
    assert ended == ["cancelled"]
