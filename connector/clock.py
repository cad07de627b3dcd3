"""Time as an argument: the protocol that everything below `app` is given, and the real one.

Two times, never mixed: `now` only measures how long something took or has to wait, `wall` says what o'clock it is.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time and waits. The real one is `SystemClock`; tests turn `connector.testing.ManualClock`."""

    def now(self) -> float:
        """Return monotonic seconds from an arbitrary start: never backwards, whatever is done to the wall clock."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970-01-01 UTC, which may jump."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of `now`; zero or less only lets other tasks run."""
        ...


class SystemClock:
    """The machine's own time."""

    __slots__ = ()

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the time of day as seconds since 1970-01-01 UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        await asyncio.sleep(max(0.0, seconds))
