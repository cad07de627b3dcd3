"""A guard against draining a topic into the dead-letter topic. Pure.

One bad record is the record's fault; half of all records refused for the same reason is a setting's fault. The guard
counts the last `records` outcomes and trips when one cause and code holds more than its share of the whole window.
"""

from __future__ import annotations

from collections import Counter, deque

from connector.config.loader import StormSettings


class StormGuard:
    """Counts refusals by cause and code over a window of outcomes; `off` never trips."""

    def __init__(self, settings: StormSettings | str) -> None:
        self._settings = settings if isinstance(settings, StormSettings) else None
        self._window: deque[tuple[str, str] | None] = deque()
        self._refused: Counter[tuple[str, str]] = Counter()

    def accepted(self, count: int) -> None:
        """Count accepted records. Cheap while nothing was refused."""
        if self._settings is None or not self._refused:
            return
        for _ in range(min(count, self._settings.records)):
            self._push(None)

    def refused(self, cause: str, code: str) -> bool:
        """Count a refusal; return whether it is one too many, so that it must not be dead-lettered."""
        if self._settings is None:
            return False
        reason = (cause, code)
        if self._refused[reason] + 1 > self._settings.share * self._settings.records:
            return True
        self._refused[reason] += 1
        self._push(reason)
        return False

    def reset(self) -> None:
        """Start a new window, after a storm."""
        self._window.clear()
        self._refused.clear()

    def _push(self, reason: tuple[str, str] | None) -> None:
        if self._settings is None:
            return
        self._window.append(reason)
        if len(self._window) > self._settings.records:
            gone = self._window.popleft()
            if gone is not None:
                self._refused[gone] -= 1
                if not self._refused[gone]:
                    del self._refused[gone]
