"""Watches the event loop from a thread of its own, and says once where everything stands when it is stuck.

A blocked loop can answer nothing, so `/healthz` fails by not answering; the log line is what tells why. The thread
wakes once a second, asks the loop for one turn, and costs about nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog

log = structlog.get_logger()

INTERVAL: Final = 1.0
LOOP_LIMIT: Final = 10.0
"""Seconds without a turn of the loop that count as stuck; a slice of records takes milliseconds."""
_MOST_LINES: Final = 60
_MOST_FRAMES: Final = 25


class Watchdog:
    """Calls `judge` in the loop once an interval; it returns why the member is stuck, or None.

    A reason counts when it was given twice in a row, so that a process that was suspended is not taken for stuck.
    """

    def __init__(
        self, judge: Callable[[], str | None], *, interval: float = INTERVAL, loop_limit: float = LOOP_LIMIT
    ) -> None:
        self._judge = judge
        self._interval = interval
        self._limit = max(2, round(loop_limit / interval))
        self._ended = threading.Event()
        self._answered = True
        self._said: str | None = None
        self._before: str | None = None
        self._since = 0
        self.reason: str | None = None
        """Why the member is stuck now, or None."""

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _watch(self) -> None:
        silent = 0
        while not self._ended.wait(self._interval):
            self._since += 1
            silent = 0 if self._answered else silent + 1
            if self._answered:
                twice = self._said if self._before is not None else None
                self._note(twice)
                self._before, self._answered = self._said, False
                try:
                    self._loop.call_soon_threadsafe(self._turn)
                except RuntimeError:
                    # The loop is closed: nothing is left to watch.
                    return
            elif silent >= self._limit:
                self._note(f"the event loop did not turn for {silent * self._interval:.0f} s")

    def _turn(self) -> None:
        """Answer; runs in the loop."""
        self._said = self._judge()
        self._answered = True

    def _note(self, reason: str | None) -> None:
        """Say that it is stuck, or goes on: once for each episode."""
        was, self.reason = self.reason, reason
        if reason is not None and was is None:
            self._since = 0
            log.error(
                "member.stuck",
                reason=reason,
                threads=list(threads()),
                tasks=list(tasks(self._loop)),
                message="nothing moves: /healthz fails until it does; where threads and tasks stand is told once",
            )
        elif reason is None and was is not None:
            log.info("member.moving", reason=was, seconds=round(self._since * self._interval, 1))


def threads() -> Iterator[str]:
    """Yield for each thread of the process its name and where it stands, innermost first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 -- documented, though spelt so
        yield f"{names.get(ident, ident)}: {_places(_outwards(frame))}"


def tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """Yield for each place at which tasks wait how many do, the first one's name and the place, innermost first."""
    found: dict[str, list[str]] = {}
    for task in asyncio.all_tasks(loop):
        found.setdefault(_places(_awaited(task.get_coro())), []).append(task.get_name())
    counts = Counter({place: len(names) for place, names in found.items()})
    for place, count in counts.most_common(_MOST_LINES):
        others = f" and {count - 1} more" if count > 1 else ""
        yield f"{min(found[place])}{others}: {place}"


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it waits for, innermost first."""
    frames: list[FrameType] = []
    while coroutine is not None and len(frames) < _MOST_FRAMES:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return reversed(frames)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _places(frames: Iterator[FrameType]) -> str:
    """Return frames as `file.py:line function`, without any value: those may be personal."""
    places = []
    for _, frame in zip(range(_MOST_FRAMES), frames, strict=False):
        path = Path(frame.f_code.co_filename)
        places.append(f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}")
    return " < ".join(places) or "it has ended"
