"""The limits of one request that the vendor's answers have taught, below those that it documents. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Literal

from connector.pipeline.batching import Batch, OpenBatch
from connector.recent import Recent
from connector.vendors.base import Limits

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
        self._learned: Recent[Hashable, _Learned] = Recent(_GROUPS)

    def of(self, group: Hashable) -> Limits:
        """Return the vendor's limits, or the smaller ones that its answers have taught."""
        learned = self._learned.get(group)
        documented = self._documented(group)
        if learned is None:
            return documented
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
                self._learned.pop(group)
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
            limits = replace(limits, records=max(1, min(limits.records, weight // 2)))
        else:
            limits = replace(limits, bytes=max(limits.overhead + 1, min(limits.bytes, size // 2)))
        before = self._learned.get(batch.group)
        interval = RAISE_AFTER if before is None else before.interval
        if before is not None and before.raised:
            interval = min(RAISE_AT_MOST, interval * 2)
        self._learned.put(batch.group, _Learned(limits, self._now() + interval, interval))
        return weight, size

    def fit(self, batch: Batch) -> list[Batch]:
        """Return a batch that is about to be sent, cut where it was closed before a smaller limit was learned."""
        return cut(batch, self.of(batch.group)) if batch.group in self._learned else [batch]


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
