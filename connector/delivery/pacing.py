"""How many requests a second: a token bucket of depth one, and a log of the last second. Pure.

A vendor counts requests in its own seconds, so any second counts. The bucket gives a token each `1 / (0.985 × limit)`
seconds; idle time saves none, but for `CATCH_UP`: a loop on a busy machine wakes late, and what a timer lost is made up
for. The log sees to it that making up never puts more than the limit into any `WINDOW`, which is longer than a second
by what requests may gain on each other on their way.
"""

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final

PACE: Final = 0.985
CATCH_UP: Final = 0.05
WINDOW: Final = 1.015


class TokenBucket:
    """Paces requests to `limit` a second; None is no limit. Times are monotonic seconds."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._share = 1.0
        self._next = float("-inf")
        self._taken: deque[float] = deque()

    @property
    def rate(self) -> float | None:
        """The requests a second that this member may make now, or None where nothing limits it."""
        return None if self._limit is None else self._limit * self._share

    def delay(self, now: float) -> float:
        """Return the seconds until a request may go out; infinite while this member's share is nothing."""
        rate = self.rate
        if rate is None:
            return max(0.0, self._next - now)
        if rate <= 0:
            return float("inf")
        wait = max(0.0, self._next - now)
        taken = self._taken
        if len(taken) >= ceil(rate):
            # A share of a limit is seldom whole; rounded up it is the one request more that each member may make.
            wait = max(wait, taken[-ceil(rate)] + WINDOW - now)
        return wait

    def take(self, now: float) -> None:
        """Take the token for a request that goes out now."""
        rate = self.rate
        if rate is None or rate <= 0:
            return
        self._next = max(self._next, now - CATCH_UP) + 1.0 / (rate * PACE)
        taken = self._taken
        while taken and taken[0] <= now - WINDOW:
            taken.popleft()
        taken.append(now)

    def set_share(self, share: float, now: float) -> None:
        """Change which part of the group's limit is this member's (0 to 1).

        Every change is waited out for `CATCH_UP`: a member may just have made up for what it was late. A larger share
        starts with an empty bucket besides, because its former owner may just have used its token.
        """
        if share == self._share or self._limit is None:
            return
        pause = CATCH_UP if share < self._share else max(CATCH_UP, 1.0 / (self._limit * share * PACE))
        self._next = max(self._next, now + pause)
        self._share = share
        self._taken.clear()

    def wait_until(self, moment: float) -> None:
        """Give out no token before `moment`: the vendor said so."""
        self._next = max(self._next, moment)
