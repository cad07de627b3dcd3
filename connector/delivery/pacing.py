"""When a request may be sent, and how large it may be: rate limit, back-off, and limits learned from answers. Pure.

The vendor decides when its seconds begin, so the limit must hold in every possible second. The bucket gives a token
every `1 / (0.985 × limit)` seconds. Idle time saves no tokens, except `CATCH_UP`: on a busy machine the loop wakes
late, and may make up for the lost time. A log of the last second ensures that no `WINDOW` ever gets more than the
limit. The window is a little longer than a second, because requests may move closer together on their way.
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
    """Paces requests to `limit` a second; None means no limit. Times are monotonic seconds."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self._share = 1.0
        self._next = float("-inf")
        self._taken: deque[float] = deque()
        self.rate = limit
        """The requests per second that this member may make now; None if there is no limit."""

    def delay(self, now: float) -> float:
        """Return the seconds until a request may be sent; infinite while this member has no share."""
        rate = self.rate
        if rate is None:
            return max(0.0, self._next - now)
        if rate <= 0:
            return float("inf")
        wait = max(0.0, self._next - now)
        taken = self._taken
        # The log applies in addition to the pace: after idle time `CATCH_UP` lets requests come closer together, and
        # the limit per second must still hold.
        if len(taken) >= ceil(rate):
            # A share of a limit is seldom a whole number. Rounded up, it allows each member at most one request more.
            wait = max(wait, taken[-ceil(rate)] + WINDOW - now)
        return wait

    def take(self, now: float) -> None:
        """Take the token for a request that is sent now."""
        rate = self.rate
        if rate is None or rate <= 0:
            return
        # Counted from when the token was due, not from now. Otherwise a timer that fires 5 ms late would cost 5 ms each
        # time.
        self._next = max(self._next, now - CATCH_UP) + 1.0 / (rate * PACE)
        taken = self._taken
        while taken and taken[0] <= now - WINDOW:
            taken.popleft()
        taken.append(now)

    def set_limit(self, limit: float | None, now: float) -> None:
        """Change the group's limit. The bucket starts empty, and tokens taken under the old limit no longer count."""
        if limit == self._limit:
            return
        self._limit = limit
        self._taken.clear()
        self.rate = None if limit is None else limit * self._share
        if self.rate:
            self._next = max(self._next, now + 1.0 / (self.rate * PACE))

    def set_share(self, share: float, now: float) -> None:
        """Change this member's share of the group's limit (0 to 1).

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
        """Give out no token before `moment`, because the vendor asked for that."""
        self._next = max(self._next, moment)


class Backoff:
    """Waiting times for a destination's retries and probes: exponential, with full jitter, capped."""

    def __init__(self, settings: RetrySettings, random: Random) -> None:
        self._settings = settings
        self._random = random

    def use(self, settings: RetrySettings) -> None:
        """Use other settings from now on."""
        self._settings = settings

    def wait(self, failures: int, wish: float | None = None) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row (1 is the first).

        Full jitter spreads members that failed together. `wish` is what the vendor asks for (`Retry-After`). It can
        only lengthen the wait: 0, or a date in the past, would mean no pause at all. And it counts up to `retry.max`:
        without a cap, one wrong header would stop the destination.
        """
        settings = self._settings
        # The exponent is bounded: after 2,000 failures the number would be too large for a float.
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(failures - 1, 32))
        own = self._random.uniform(0.0, ceiling)
        return own if wish is None else max(own, min(wish, settings.max))

    def probe(self, probes: int) -> float:
        """Return the seconds until the next probe of a held destination after `probes` earlier ones.

        The jitter is small, because the time of the next probe is shown to a person.
        """
        settings = self._settings
        ceiling: float = min(settings.max, settings.initial * 2.0 ** min(probes, 32))
        return ceiling * self._random.uniform(0.75, 1.0)


STUCK_AFTER: Final = 5
"""After this many pauses in a row, without an acceptance in between, single records are tried."""


class Throttle:
    """The pause that a vendor asks for with 429. Times are monotonic seconds."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._count = 0
        self._pauses = 0
        """The pauses since the last acceptance."""
        self.until = float("-inf")

    def begin(self, now: float, wish: float | None) -> float:
        """Note a 429 and return until when to wait.

        Requests that were already in flight at the first 429 do not raise the back-off, because they show nothing new.
        """
        # If 64 requests are in flight and all get a 429, that is one throttling, not 64.
        if now >= self.until:
            self._count += 1
            self._pauses += 1
        until = now + self._backoff.wait(max(1, self._count), wish)
        self.until = max(self.until, until)
        return until

    def answered(self) -> None:
        """Note that a request was judged: the back-off starts again from its first step at the next 429."""
        self._count = 0

    def accepted(self) -> None:
        """Note that a request was accepted, so that pauses help."""
        self._count = self._pauses = 0

    @property
    def stuck(self) -> bool:
        """Whether pauses do not help. One record may be the reason that its batch, and so each batch, is throttled.

        Refusals do not change that: bad records may come, or be tried again, between the pauses for ever.
        """
        return self._pauses >= STUCK_AFTER


RAISE_AFTER: Final = 60.0
"""Seconds until a learned limit is first raised; doubled each time the raised limit was too much."""
RAISE_AT_MOST: Final = 3600.0
RAISE_BY: Final = 1.25
_GROUPS: Final = 1000
"""For how many groups limits are remembered. Bounded, because records may decide how many groups there are."""


@dataclass(slots=True)
class _Learned:
    """A group's smaller limits, when to raise them next (monotonic seconds), and how long that wait is."""

    limits: Limits
    raise_at: float
    interval: float
    raised: bool = False


class LearnedLimits:
    """The limits to use for each group. `documented` gives the vendor's own, `now` the monotonic time.

    A vendor may accept less only for a while. So a learned limit slowly grows again, at the cost of an occasional
    refused request, and is forgotten when it reaches the documented one. If one odd record was the reason, it is
    forgotten at once.
    """

    def __init__(self, documented: Callable[[Hashable], Limits], now: Callable[[], float]) -> None:
        self._documented = documented
        self._now = now
        self.learned: Recent[Hashable, _Learned] = Recent(_GROUPS)
        """By group; empty while the documented limits apply."""
        self.taught = False
        """Whether any limit was ever learned. Usually none is, and then nothing has to be looked up."""

    def of(self, group: Hashable) -> Limits:
        """Return the vendor's limits, or smaller ones learned from its answers."""
        learned = self.learned.get(group) if self.taught else None
        documented = self._documented(group)
        if learned is None:
            return documented
        # A loop, because several raises may have become due in a quiet group.
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

        The new limit is half of what was refused, because the vendor does not say what it accepts.
        """
        limits = self.of(batch.group)
        weight = sum(delivery.item.weight for delivery in batch.deliveries)
        size = limits.overhead + sum(len(d.item.body) + limits.separator for d in batch.deliveries) - limits.separator
        if which == "records":
            # Never below 1: a record that is too large alone is refused as such, and no limit can help.
            limits = replace(limits, records=max(1, min(limits.records, weight // 2)))
        else:
            limits = replace(limits, bytes=max(limits.overhead + 1, min(limits.bytes, size // 2)))
        before = self.learned.get(batch.group)
        interval = RAISE_AFTER if before is None else before.interval
        # The limit was raised and refused again, so the true one is lower. The next trial comes later.
        if before is not None and before.raised:
            interval = min(RAISE_AT_MOST, interval * 2)
        self.taught = True
        self.learned.put(batch.group, _Learned(limits, self._now() + interval, interval))
        return weight, size

    def forget(self, group: Hashable) -> None:
        """Forget a group's smaller limits, because one record taught them. A true limit is learned again."""
        self.learned.pop(group)

    def fit(self, batch: Batch) -> list[Batch]:
        """Return a batch that is about to be sent, cut if it was closed before a smaller limit was learned."""
        return cut(batch, self.of(batch.group)) if batch.group in self.learned else [batch]


def cut(batch: Batch, limits: Limits) -> list[Batch]:
    """Cut a batch into as many parts as the limits require, in order."""
    parts = []
    left = batch.deliveries
    while left:
        part = OpenBatch(batch.group, limits, 0.0)
        count = part.fill(left)
        parts.append(batch.part(left[:count]))
        left = left[count:]
    return [batch] if len(parts) == 1 else parts
