"""Which changes of a destination's state are logged: those that last. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from connector.delivery.holds import Condition
from connector.delivery.states import DestinationState

SETTLED: Final = 5.0
"""Seconds that a state has to last, before or after a change, for the change to be logged."""


class ConditionLog:
    """The state of one destination as it was seen last, and as it was logged last.

    A change is logged at once if the state before it lasted `SETTLED` seconds, else when the new state has. So a
    destination that changes its state ten times a second logs one line, and one more when it comes to rest, which says
    how many changes were left out.
    """

    def __init__(self, now: float, wall: float) -> None:
        self.seen = Condition(DestinationState.FLOWING, since=wall)
        self._logged = self.seen
        self._changed_at = now - SETTLED
        self._at_once = False
        self._left_out = 0

    def see(self, condition: Condition, now: float, wall: float) -> bool:
        """Take note of the present state; return whether it differs from the one that was seen last."""
        if _same(condition, self.seen):
            return False
        self._left_out += not _same(self.seen, self._logged)
        self.seen = replace(condition, since=wall if condition.since is None else condition.since)
        self._at_once = now - self._changed_at >= SETTLED
        self._changed_at = now
        return True

    def to_log(self, now: float) -> tuple[Condition, Condition, int] | None:
        """Return the last logged state, the present one, and how many changes between were left out.

        None where there is nothing to log yet.
        """
        if _same(self.seen, self._logged) or not (self._at_once or now - self._changed_at >= SETTLED):
            return None
        before, left_out = self._logged, self._left_out
        self._logged, self._left_out = self.seen, 0
        return before, self.seen, left_out

    def due(self, now: float) -> float | None:
        """Return in how many seconds a change has lasted long enough; None where none waits for that."""
        return None if _same(self.seen, self._logged) else max(0.0, self._changed_at + SETTLED - now)


def _same(one: Condition, other: Condition) -> bool:
    return (one.state, one.cause, one.code) == (other.state, other.cause, other.code)
