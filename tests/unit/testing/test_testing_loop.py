"""The virtual loop: sleeping takes no time, times are exact, and a program that can never continue raises."""

from __future__ import annotations

import asyncio
import time

import pytest

from connector.testing.loop import START, WALL, LoopClock, Stuck, run_virtual


def test_a_day_takes_no_time() -> None:
    """Sleeps end in the order of their times, at exactly those, without waiting."""

    async def play() -> list[tuple[str, float]]:
        clock, woken = LoopClock(), list[tuple[str, float]]()

        async def sleep(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append((name, clock.now()))

        await asyncio.gather(sleep("day", 86400), sleep("hour", 3600), sleep("none", 0))
        return woken

    began = time.monotonic()
    assert run_virtual(play()) == [("none", START), ("hour", START + 3600), ("day", START + 86400)]
    assert time.monotonic() - began < 60


def test_timeouts_and_timers_work() -> None:
    """`wait`, `timeout` and `call_later` keep virtual time too."""

    async def play() -> float:
        never = asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await never
        never = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([never], timeout=12)
        assert not done
        asyncio.get_running_loop().call_later(3, never.set_result, None)
        await never
        return LoopClock().now()

    assert run_virtual(play()) == START + 45


def test_a_program_that_can_never_go_on_is_stuck() -> None:
    """Tasks that wait for each other without a timer end in `Stuck` instead of a test that hangs."""

    async def play() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="no timer is left"):
        run_virtual(play())


def test_a_task_left_behind_is_a_fault() -> None:
    """A program that leaves a task running gets an error that names the task."""

    async def forgotten() -> None:
        await asyncio.sleep(1e9)

    async def play() -> asyncio.Task[None]:
        return asyncio.create_task(forgotten(), name="lonely")

    with pytest.raises(RuntimeError, match="lonely"):
        run_virtual(play())


def test_the_wall_clock_may_jump() -> None:
    """A jump of the wall clock does not touch the loop's own time."""

    async def play() -> tuple[float, float]:
        clock = LoopClock()
        assert clock.wall() == WALL
        clock.jump(-3600)
        await clock.sleep(10)
        return clock.now(), clock.wall()

    assert run_virtual(play()) == (START + 10, WALL - 3590)
