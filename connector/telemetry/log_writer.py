"""Writes log lines in a thread of its own, so that a blocked stream (a stalled log collector) blocks nothing else.

The queue is bounded. While it is full, lines are dropped and counted; the count is reported as soon as the stream
takes lines again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from select import select
from typing import Final, TextIO

LIMIT: Final = 4 << 20
"""Characters that may wait to be written: some ten thousand lines."""


class LogWriter:
    """Writes lines to one stream, in order. `on_dropped` is called in the thread with the number of dropped lines.

    If the stream cannot be written (closed, broken pipe), its lines are lost silently: there is nowhere to report it.
    """

    def __init__(self, stream: TextIO | None, on_dropped: Callable[[int], None], limit: int = LIMIT) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._on_dropped = on_dropped
        self._limit = limit
        self._lines: deque[str] = deque()
        self._size = 0
        self._unreported = 0
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def put(self, line: str) -> None:
        """Queue a line; never waits for the stream."""
        with self._changed:
            # Drop the newest lines, not the oldest, because the oldest show how the trouble began.
            if self._size + len(line) > self._limit:
                self.dropped += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                # Started here, not in the constructor, because most commands log nothing.
                thread = threading.Thread(target=self._run, name="log", daemon=True)
                # Where no thread can be started now, the next line tries again.
                thread.start()
                self._thread = thread
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until every line is written, at most `timeout` seconds; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                text = "".join(self._lines)
                self._lines.clear()
                self._size, self._writing = 0, True
            self._write(text)
            with self._changed:
                unreported, self._unreported = self._unreported, 0
            if unreported:
                # Outside of the lock, because it logs, and that calls `put` again.
                with suppress(Exception):
                    self._on_dropped(unreported)
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        try:
            if self._descriptor is not None:
                # Not through the stream: a blocked write would hold its lock, and Python would abort when it exits.
                data = text.encode(errors="backslashreplace")
                while data:
                    try:
                        data = data[os.write(self._descriptor, data) :]
                    except BlockingIOError:
                        # Another process may have made the pipe that it shares with this one non-blocking.
                        select([], [self._descriptor], [])
            elif self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):
            # A broken pipe, a full disk, a closed stream: a log that cannot be written must not stop deliveries.
            return


def _descriptor_of(stream: TextIO | None) -> int | None:
    """Return the stream's file descriptor; None for a stream in memory."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
