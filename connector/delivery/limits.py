"""The limits of one request that the vendor's answers have taught, below those that it documents. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Literal

from connector.pipeline.batching import Batch
from connector.vendors.base import Limits


class LearnedLimits:
    """The limits to use for each group. `documented` gives the vendor's own."""

    def __init__(self, documented: Callable[[Hashable], Limits]) -> None:
        self._documented = documented
        self._learned: dict[Hashable, Limits] = {}

    def of(self, group: Hashable) -> Limits:
        """Return the vendor's limits, or the smaller ones that its answers have taught."""
        limits = self._learned.get(group)
        return self._documented(group) if limits is None else limits

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
        self._learned[batch.group] = limits
        return weight, size
