"""Time as an argument: the clock protocol that everything below `runtime.app` is given, and the system clock.

The two times are never mixed: `now` measures durations and waits, `wall` gives the date and time of day.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Reads the time and sleeps. The real one is `SystemClock`; tests use `connector.testing.ManualClock`."""

    def now(self) -> float:
        """Return monotonic seconds since an arbitrary moment; unaffected by changes of the wall clock."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970-01-01 UTC; may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of `now`; zero or less only lets other tasks run."""
        ...


class SystemClock:
    """The time of this machine."""

    __slots__ = ()

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`."""
        await asyncio.sleep(max(0.0, seconds))
