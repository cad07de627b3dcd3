"""What an operator asked to be skipped, for the oracle: which dead letters that allows, and which sends it forbids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.facts import MILLISECOND, Epoch
from tests.simulation.scenario import Planned


@dataclass(slots=True)
class Wish:
    """One wish to skip a record, for one destination or, where it is None, for all that it waits for."""

    serial: int
    destination: str | None
    epoch: Epoch
    at: float
    refused: bool = False
    """Whether the member said that it does nothing, so that it has to be as if no one had asked."""
    dead_letters: int = 0
    """Dead letters that are stored because of it."""


class Wishes:
    """All wishes of a world. One lives as long as the assignment in which it was said."""

    def __init__(self) -> None:
        self._all: dict[int, list[Wish]] = defaultdict(list)

    def ask(self, planned: Planned, destination: str | None, epoch: Epoch, now: float) -> Wish:
        """Note that somebody asks now."""
        wish = Wish(planned.serial, destination, epoch, now)
        self._all[planned.serial].append(wish)
        return wish

    def concerning(self, serial: int, destination: str | None) -> Iterator[Wish]:
        """Yield what was asked of a delivery and not refused, the latest first; None is a record without a route."""
        if serial in self._all:
            for wish in reversed(self._all[serial]):
                if not wish.refused and wish.destination in (None, destination):
                    yield wish

    def meant(self, serial: int, destination: str | None, member: str, failed: float) -> list[Wish]:
        """Return which wishes a member's dead letter may be of that was begun, to the millisecond, at `failed`."""
        mine = [one for one in self.concerning(serial, destination) if one.epoch.member == member]
        before = [one for one in mine if one.at <= failed + MILLISECOND]
        # One epoch ends before the next one's wishes; within a millisecond no one knows which of them it was.
        return [one for one in before if one.at >= before[0].at or before[0].at > failed - MILLISECOND]

    def dead_letters(self, wish: Wish, *, alone: bool = False) -> int:
        """Return how many dead letters are stored because of a wish, or of one that the same member was told before.

        `alone` returns none where there is such another one: which of both they are of is not known.
        """
        same = [one for one in self._all[wish.serial] if one.epoch is wish.epoch]
        return 0 if alone and len(same) > 1 else sum(one.dead_letters for one in same)
