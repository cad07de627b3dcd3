"""An event loop on virtual time: sleeping takes no time, and the same program takes the same steps each time.

`asyncio.sleep`, `call_later` and time-outs work as usual. When nothing can run, the time jumps to the next timer. If
there is no timer either, the program can never continue, and `Stuck` is raised. There is no I/O.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START = 1_000.0
WALL = 1_700_000_000.0


class Stuck(RuntimeError):
    """Every task waits for another one, and no timer is left."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time starts at `START` and does not change while anything can run."""

    def __init__(self) -> None:
        self._virtual = START
        super().__init__(_Skipping(self))

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._virtual

    def skip(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._virtual += seconds


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc,valid-type,unused-ignore]
    """A selector that advances the time instead of waiting."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now; if nothing is, advance the time instead of waiting."""
        if timeout == 0:
            # Something can run already, and there is no I/O: the system call would cost more than the turn.
            return []
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck("every task waits, and no timer is left")
            self._loop.skip(timeout)
        return ready


class LoopClock:
    """A `Clock` that reads the running loop's time; its wall clock starts at `WALL` and may be made to jump."""

    def __init__(self) -> None:
        self._wall = WALL - START

    def now(self) -> float:
        """Return the loop's seconds."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Return epoch seconds."""
        return self._wall + self.now()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of the loop's time; zero or less only lets other tasks run."""
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Move the wall clock, as an operator or NTP does."""
        self._wall += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on its own virtual loop and return its result.

    Raises `Stuck` if it can never end, and `RuntimeError` if it leaves a task running.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result, left = runner.run(_watched(main))
    if left:
        raise RuntimeError(f"tasks were left behind: {', '.join(left)}")
    return result


async def _watched(main: Coroutine[Any, Any, T]) -> tuple[T, list[str]]:
    result = await main
    for _ in range(5):  # what was cancelled a moment ago may take a turn of the loop to end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return result, [f"{task.get_name()} {task.get_coro()!r}" for task in left]
