"""A clock that a test moves by hand, so that an hour takes a millisecond."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

_SETTLE_TURNS = 20
"""Turns of the loop for woken tasks; a test awaits longer chains of awaits itself."""


class ManualClock:
    """A `Clock` whose time changes only in `advance`, `elapse` and `set_wall`."""

    def __init__(self, now: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._fell_asleep = asyncio.Event()

    def now(self) -> float:
        """Return the monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Return the epoch seconds."""
        return self._wall

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved by `seconds`; zero or less only lets other tasks run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), wake))
        self._fell_asleep.set()
        await wake

    @property
    def sleeping(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(1 for _, _, wake in self._sleepers if not wake.done())

    @property
    def next_wake(self) -> float | None:
        """When (by `now`) the next sleeper wakes; None if no task sleeps."""
        self._forget_cancelled()
        return self._sleepers[0][0] if self._sleepers else None

    def advance(self, seconds: float) -> None:
        """Move both times forward at once and wake the sleepers that are due; they run when the caller next awaits."""
        if seconds < 0:
            raise ValueError(
                "seconds must be 0 or more: a monotonic clock never goes back; use set_wall to move the wall clock"
            )
        self._move_to(self._now + seconds)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)

    async def elapse(self, seconds: float) -> None:
        """Let `seconds` pass from one sleeper's wake to the next, with time for each to act.

        A task that sleeps again in between is woken again at its own time.
        """
        end = self._now + seconds
        await self.settle()
        while (wake := self.next_wake) is not None and wake <= end:
            self.advance(max(0.0, wake - self._now))
            await self.settle()
        self.advance(max(0.0, end - self._now))
        await self.settle()

    async def until_sleeping(self, tasks: int = 1) -> None:
        """Wait, in real time, until at least so many tasks sleep on this clock."""
        while self.sleeping < tasks:
            self._fell_asleep.clear()
            await self._fell_asleep.wait()

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as an operator or NTP does; the monotonic time does not change."""
        self._wall = wall

    async def settle(self) -> None:
        """Run the tasks that can run, without any time passing."""
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)

    def _move_to(self, now: float) -> None:
        self._wall += now - self._now
        self._now = now

    def _forget_cancelled(self) -> None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
