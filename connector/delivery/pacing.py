"""When a request may go, and how large it may be: rate limit, back-off, and limits that answers have taught. Pure.

A vendor counts requests in its own seconds, so any second counts. The bucket gives a token every `1 / (0.985 × limit)`
seconds. Idle time saves no tokens, except `CATCH_UP`: a loop on a busy machine wakes late, and may make up for what the
timer lost. A log of the last second makes sure that this never puts more than the limit into any `WINDOW`, which is
longer than a second by what requests may gain on each other on their way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Final, Literal

from connector.config.loader import RetrySettings
from connector.pipeline.batching import Batch, OpenBatch
from connector.recent import Recent
from connector.vendors.base import Limits

# Requests may move closer together on their way; `WINDOW` is the same allowance for the log of the last second.
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
        self.rate = limit
        """The requests a second that this member may make now, or None where nothing limits it."""

    def delay(self, now: float) -> float:
        """Return the seconds until a request may go out; infinite while this member's share is nothing."""
        rate = self.rate
        if rate is None:
            return max(0.0, self._next - now)
        if rate <= 0:
            return float("inf")
        wait = max(0.0, self._next - now)
        taken = self._taken
        # The log, next to the pace: after idle time `CATCH_UP` lets requests follow closer, and the sum of a second
        # must still hold.
        if len(taken) >= ceil(rate):
            # A share of a limit is seldom whole; rounded up it is the one request more that each member may make.
            wait = max(wait, taken[-ceil(rate)] + WINDOW - now)
        return wait

    def take(self, now: float) -> None:
        """Take the token for a request that goes out now."""
        rate = self.rate
        if rate is None or rate <= 0:
            return
        # From when the token was due, not from now: a timer that fires 5 ms late would otherwise cost 5 ms each time.
        self._next = max(self._next, now - CATCH_UP) + 1.0 / (rate * PACE)
        taken = self._taken
        while taken and taken[0] <= now - WINDOW:
            taken.popleft()
        taken.append(now)

    def set_limit(self, limit: float | None, now: float) -> None:
        """Change the group's limit. The bucket starts empty, and what was taken by the old limit counts no more."""
        if limit == self._limit:
            return
        self._limit = limit
        self._taken.clear()
        self.rate = None if limit is None else limit * self._share
        if self.rate:
            self._next = max(self._next, now + 1.0 / (self.rate * PACE))

    def set_share(self, share: float, now: float) -> None:
        """Change which part of the group's limit is this member's (0 to 1).

        After every change the bucket waits `CATCH_UP`: the member may just have made up for being late. A larger share
        also starts with an empty bucket, because its former owner may just have used its token.
        """
        if share == self._share or self._limit is None:
            return
        pause = CATCH_UP if share < self._share else max(CATCH_UP, 1.0 / (self._limit * share * PACE))
        self._next = max(self._next, now + pause)
        self._share = share
        self.rate = self._limit * share
        self._taken.clear()

    def wait_until(self, moment: float) -> None:
        """Give out no token before `moment`: the vendor said so."""
        self._next = max(self._next, moment)


class Backoff:
    """Waiting times for a destination's retries and probes: exponential, with full jitter, capped."""

    def __init__(self, settings: RetrySettings, random: Random) -> None:
        self._settings = settings
        self._random = random

    def use(self, settings: RetrySettings) -> None:
        """Wait by other settings from now on."""
        self._settings = settings

    def wait(self, failures: int, wish: float | None = None) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row (1 is the first).

        Full jitter spreads members that failed together. `wish` is what the vendor asks for (`Retry-After`). It can
        only lengthen the wait: 0, or a date in the past, would mean no pause at all. And it counts up to `retry.max`:
        without a cap, one wrong header would stop the destination.
        """
        settings = self._settings
        # The exponent is bounded: a batch that has failed 2,000 times would make a number that no float holds.
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(failures - 1, 32))
        own = self._random.uniform(0.0, ceiling)
        return own if wish is None else max(own, min(wish, settings.max))

    def probe(self, probes: int) -> float:
        """Return the seconds until the next probe of a held destination, `probes` of which went before.

        The jitter does not go down to zero, because a person is shown the time of the next probe.
        """
        settings = self._settings
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(probes, 32))
        return ceiling * self._random.uniform(0.75, 1.0)


STUCK_AFTER: Final = 5
"""Pauses in a row, no request judged between, after which one record alone is tried at a time."""


class Throttle:
    """The pause that a vendor asks for with 429. Times are monotonic seconds."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._count = 0
        self.until = float("-inf")

    def begin(self, now: float, wish: float | None) -> float:
        """Note a 429 and return until when to wait.

        Requests that were in flight when the first was throttled show nothing new, so they do not raise the back-off.
        """
        # 64 requests in flight that are all answered 429 are one refusal to serve, not 64.
        if now >= self.until:
            self._count += 1
        until = now + self._backoff.wait(max(1, self._count), wish)
        self.until = max(self.until, until)
        return until

    def answered(self) -> None:
        """Note that a request was judged: the next 429 starts the back-off again."""
        self._count = 0

    @property
    def stuck(self) -> bool:
        """Whether pauses do not help: a full batch may be throttled for one record in it, and so would all of them."""
        return self._count >= STUCK_AFTER


RAISE_AFTER: Final = 60.0
"""Seconds after which a learned limit is raised for the first time; each time that this was too much, twice as long."""
RAISE_AT_MOST: Final = 3600.0
RAISE_BY: Final = 1.25
_GROUPS: Final = 1000
"""For how many groups a limit is remembered: a group may be named by what a record holds."""


@dataclass(slots=True)
class _Learned:
    """A group's smaller limits, when they are raised next (monotonic seconds), and how long that was waited for."""

    limits: Limits
    raise_at: float
    interval: float
    raised: bool = False


class LearnedLimits:
    """The limits to use for each group. `documented` gives the vendor's own, `now` the monotonic time.

    A vendor may take less for a while only, or one odd record may be the reason: so a learned limit grows again slowly,
    at the price of a refused request now and then, and is forgotten when it reaches the documented one.
    """

    def __init__(self, documented: Callable[[Hashable], Limits], now: Callable[[], float]) -> None:
        self._documented = documented
        self._now = now
        self.learned: Recent[Hashable, _Learned] = Recent(_GROUPS)
        """By group; empty while the documented limits hold."""
        self.taught = False
        """Whether any limit was ever learned; seldom one is."""

    def of(self, group: Hashable) -> Limits:
        """Return the vendor's limits, or the smaller ones that its answers have taught."""
        learned = self.learned.get(group) if self.taught else None
        documented = self._documented(group)
        if learned is None:
            return documented
        # A loop, because a quiet group may have slept through several raises.
        while learned.raise_at <= self._now():
            limits = learned.limits
            learned.limits = replace(
                limits,
                records=min(documented.records, ceil(limits.records * RAISE_BY)),
                bytes=min(documented.bytes, ceil(limits.bytes * RAISE_BY)),
            )
            learned.raise_at += learned.interval
            learned.raised = True
            if learned.limits == documented:
                self.learned.pop(group)
                break
        return learned.limits

    def too_large(self, batch: Batch, which: Literal["bytes", "records"]) -> tuple[int, int]:
        """Learn that a batch was too large, and return its records (by weight) and its body's bytes.

        Half of what was refused is the new limit: the vendor does not say where the true one is.
        """
        limits = self.of(batch.group)
        weight = sum(delivery.item.weight for delivery in batch.deliveries)
        size = limits.overhead + sum(len(d.item.body) + limits.separator for d in batch.deliveries) - limits.separator
        if which == "records":
            # Never below 1: one record that is too large alone is judged as such, and no limit helps it.
            limits = replace(limits, records=max(1, min(limits.records, weight // 2)))
        else:
            limits = replace(limits, bytes=max(limits.overhead + 1, min(limits.bytes, size // 2)))
        before = self.learned.get(batch.group)
        interval = RAISE_AFTER if before is None else before.interval
        # Raised and refused again: the true limit is below, so the next trial comes later.
        if before is not None and before.raised:
            interval = min(RAISE_AT_MOST, interval * 2)
        self.taught = True
        self.learned.put(batch.group, _Learned(limits, self._now() + interval, interval))
        return weight, size

    def fit(self, batch: Batch) -> list[Batch]:
        """Return a batch that is about to be sent, cut where it was closed before a smaller limit was learned."""
        return cut(batch, self.of(batch.group)) if batch.group in self.learned else [batch]


def cut(batch: Batch, limits: Limits) -> list[Batch]:
    """Return a batch in as many parts as its limits demand, in its order."""
    parts = []
    left = batch.deliveries
    while left:
        part = OpenBatch(batch.group, limits, 0.0)
        count = part.fill(left)
        parts.append(batch.part(left[:count]))
        left = left[count:]
    return [batch] if len(parts) == 1 else parts
