"""Which changes of a destination's state are logged: those that a person acts on, and those that last. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from connector.delivery.holds import Condition
from connector.delivery.states import Cause, DestinationState

SETTLED: Final = 5.0
"""Seconds that a state has to last to be logged, where it is not logged at once."""
AT_ONCE: Final = 6
"""Changes logged at once within `WINDOW` seconds; one that goes to and fro faster has to last."""
WINDOW: Final = 60.0

_HELD: Final = (DestinationState.HELD, DestinationState.PROBING)


class ConditionLog:
    """The state of one destination as it was seen last, and as it was logged last.

    The beginning of a hold, and its end in `flowing`, are logged at once. All else is logged when it has lasted
    `SETTLED` seconds, and the line says how many changes were left out: a destination that is throttled ten times a
    second is not ten lines a second. A probe is part of its hold.
    """

    def __init__(self, wall: float) -> None:
        self.seen = Condition(DestinationState.FLOWING, since=wall)
        self._logged = self.seen
        self._changed_at = 0.0
        self._left_out = 0
        self._at_once: deque[float] = deque(maxlen=AT_ONCE)

    def see(self, condition: Condition, now: float, wall: float) -> bool:
        """Take note of the present state; return whether it differs from the one that was seen last."""
        if condition.state is self.seen.state and _same(condition, self.seen):
            return False
        if not _same(condition, self.seen):
            self._left_out += not _same(self.seen, self._logged)
            self._changed_at = now
        self.seen = replace(condition, since=wall if condition.since is None else condition.since)
        return True

    def to_log(self, now: float) -> tuple[Condition, Condition, int] | None:
        """Return the last logged state, the present one, and how many changes between were left out.

        None where there is nothing to log yet.
        """
        if _same(self.seen, self._logged) or not (self._urgent(now) or now - self._changed_at >= SETTLED):
            return None
        before, left_out = self._logged, self._left_out
        self._logged, self._left_out = self.seen, 0
        return before, self.seen, left_out

    def due(self, now: float) -> float | None:
        """Return in how many seconds a change has lasted long enough; None where none waits for that."""
        return None if _same(self.seen, self._logged) else max(0.0, self._changed_at + SETTLED - now)

    def _urgent(self, now: float) -> bool:
        ends = self._logged.state in _HELD and self.seen.state is DestinationState.FLOWING
        if not ends and self.seen.state not in _HELD:
            return False
        if len(self._at_once) == AT_ONCE and now - self._at_once[0] < WINDOW:
            return False
        self._at_once.append(now)
        return True


def _same(one: Condition, other: Condition) -> bool:
    return _name(one) == _name(other)


def _name(condition: Condition) -> tuple[DestinationState, Cause | None, str | None]:
    state = DestinationState.HELD if condition.state in _HELD else condition.state
    return state, condition.cause, condition.code
