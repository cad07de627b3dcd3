"""How many requests a second: a token bucket of depth one. Pure.

A vendor counts requests in its own seconds, so any second counts. The bucket runs at 99 % of the limit and forgives
10 ms of lateness: then no second holds more than the limit, because (1 s + 10 ms) × 0.99 × limit < limit, and a timer
that fires late costs nothing.
"""

from __future__ import annotations

from typing import Final

PACE: Final = 0.99
LATENESS: Final = 0.010


class TokenBucket:
    """Paces requests to `limit` a second; None is no limit. Times are monotonic seconds."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._share = 1.0
        self._next = float("-inf")

    @property
    def rate(self) -> float | None:
        """The requests a second that this member may make now, or None where nothing limits it."""
        return None if self._limit is None else self._limit * self._share

    def delay(self, now: float) -> float:
        """Return the seconds until a request may go out; infinite while this member's share is nothing."""
        if self._limit is None:
            return max(0.0, self._next - now)
        if self._share <= 0:
            return float("inf")
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Take the token for a request that goes out now."""
        rate = self.rate
        if rate is not None and rate > 0:
            self._next = max(self._next, now - LATENESS) + 1.0 / (rate * PACE)

    def set_share(self, share: float, now: float) -> None:
        """Change which part of the group's limit is this member's (0 to 1).

        A larger share starts with an empty bucket, because its former owner may just have used its token.
        """
        if share > self._share and self._limit is not None:
            self._next = max(self._next, now + 1.0 / (self._limit * share * PACE))
        self._share = share

    def wait_until(self, moment: float) -> None:
        """Give out no token before `moment`: the vendor said so."""
        self._next = max(self._next, moment)
