"""When intake pauses and resumes: the buffer's budget, and partitions with a reason of their own. Pure.

Pausing drops what librdkafka fetched ahead, so the budget has hysteresis: it pauses at its limit and resumes at half.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

TopicPartition = tuple[str, int]

RESUME_SHARE: Final = 0.5


class Budget:
    """The bytes held for deliveries that have no outcome yet."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._full = False

    def add(self, charge: int) -> None:
        """Count bytes that are held from now on."""
        self.used += charge

    def release(self, charge: int) -> None:
        """Count bytes that are held no longer."""
        self.used -= charge

    @property
    def full(self) -> bool:
        """Whether intake has to wait: from the limit on, until half of it is free again."""
        if self._full:
            self._full = self.used > self.limit * RESUME_SHARE
        else:
            self._full = self.used >= self.limit
        return self._full


class FlowChange(NamedTuple):
    """What to tell the consumer."""

    pause: list[TopicPartition]
    resume: list[TopicPartition]


class Flow:
    """Which partitions are paused, and which should be."""

    def __init__(self) -> None:
        self._paused: set[TopicPartition] = set()

    @property
    def paused(self) -> frozenset[TopicPartition]:
        """The partitions that the consumer was told to pause."""
        return frozenset(self._paused)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that left, or that came back and so are not paused."""
        self._paused.difference_update(partitions)

    def change(
        self, assigned: Iterable[TopicPartition], blocked: Iterable[TopicPartition], *, all_blocked: bool
    ) -> FlowChange:
        """Return the difference between what is paused and what should be, and take it as done."""
        owned = set(assigned)
        wanted = owned if all_blocked else owned.intersection(blocked)
        change = FlowChange(sorted(wanted - self._paused), sorted((self._paused & owned) - wanted))
        self._paused = wanted
        return change
