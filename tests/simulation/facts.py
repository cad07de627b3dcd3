"""What the models note down of a simulated world: assignments, acceptances, and what became of the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from connector.pipeline.offset_map import FinishedMap
from connector.records import TopicPartition
from connector.testing.loop import START, WALL, LoopClock

INSTANT = 1e-6
"""Seconds within which the order of two steps is left open."""


@dataclass(slots=True)
class Report:
    """What became of a seed: `broken` is the first broken promise, `trace` what went before it."""

    seed: int
    broken: str | None
    trace: list[str]
    counts: Mapping[str, int]
    faults: Counter[str]
    """Which faults happened, and how often."""


MILLISECOND: Final = 0.0025
"""Seconds by which a dead letter's time, cut to milliseconds, may differ."""


class Broken(AssertionError):
    """A promise was broken; the text says which, where and when."""


@dataclass(slots=True)
class Epoch:
    """One assignment of one partition to one member, and what the group had committed when it began."""

    number: int
    member: str
    partition: TopicPartition
    committed: int
    finished: FinishedMap
    began: float
    drain_began: float | None = None
    """When the member was told to leave; None while it is not."""
    last_commit: float | None = None
    faulty_commit: bool = False
    """Whether the last commit of this epoch was not acknowledged."""
    ended: float | None = None
    clean: bool = False
    read: bool = False
    """Whether any record of it was read in this epoch."""
    crowded: bool = False
    """Whether the map that it tried to commit last takes so much of the space that reading has to rest."""
    expelled: bool = False
    """Whether the group put the member out, so that others may have the partition while it works on."""
    lacks: str | None = None
    """The destination that the member does not have in its configuration."""
    refused: int = 0
    """How often, while it ended, a commit of it was refused for good."""


@dataclass(slots=True)
class Acceptance:
    """One delivery that a vendor took: when, for which epoch, and when the client had read the whole answer."""

    at: float
    epoch: Epoch
    answered: float | None = None


class MemberClock(LoopClock):
    """One machine's clock: its wall clock is `off` by some seconds, and from `forward_at` on by `forward` more."""

    def __init__(self, off: float = 0.0, forward: float = 0.0, forward_at: float = float("inf")) -> None:
        super().__init__()
        self._off = off
        self._forward = forward
        self._forward_at = forward_at

    def wall(self) -> float:
        """Return what the machine takes for epoch seconds."""
        return super().wall() + self._off + (self._forward if self.now() >= self._forward_at else 0.0)

    def moment(self, wall: float) -> float:
        """Return at which of the loop's seconds the machine showed this time."""
        moment = wall - WALL + START - self._off
        return moment if moment < self._forward_at else moment - self._forward


class Epochs(Protocol):
    """A member, as far as it matters here."""

    name: str
    clock: MemberClock
    lacks: str | None

    def epoch_of(self, partition: TopicPartition) -> Epoch:
        """Return the present epoch of a partition, or its last one."""
        ...

    def has(self, partition: TopicPartition, *, ever: bool = False) -> bool:
        """Whether the partition is the member's, as far as it knows, or `ever` was."""
        ...
