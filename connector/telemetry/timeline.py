"""Recent log events for the person on call, in a bounded ring.

Everything that happens passes through the log, with a stable name and without secrets. So the timeline is taken from
the log: `logs.listen(timeline.note)`. It does not depend on the log level.
"""

from __future__ import annotations

import socket
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

EVENTS: Final = frozenset(
    {
        *("connector.started", "connector.stopping", "config.reloaded", "config.reload_failed"),
        *("destination.state", "storm.began", "storm.ended", "storm.released", "storm.partition_full"),
        *("partitions.assigned", "partitions.revoked", "partitions.lost", "member.without_partitions"),
        *("member.stuck", "member.moving", "drain.missed", "kafka.trouble", "kafka.recovered"),
        *("registry.waiting", "registry.recovered", "record.skip_by_operator", "replay.read"),
        *("console.action_ended", "console.member_action_ended"),
    }
)
"""The events that a timeline keeps."""
MOST: Final = 2000
"""Events that a ring keeps; the oldest are dropped."""
_TEXT: Final = 500
"""Characters of a field that are kept."""
_ITEMS: Final = 20
_DROPPED: Final = ("timestamp", "stack", "exception", "exc_info", "tasks", "threads")
"""Fields for the log only."""


class Timeline:
    """The last events of one process. `note` may be called from any thread.

    `member` is the name under which the process is shown. `unwritten` has the events not yet written to the topic; it
    is bounded too, and empty without a writer.
    """

    def __init__(self, member: str | None = None, *, written: bool = False) -> None:
        self.member = socket.gethostname() if member is None else member
        self.unwritten: deque[Mapping[str, Any]] = deque(maxlen=MOST if written else 0)
        self._run = uuid.uuid4().hex[:12]
        self._count = 0
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MOST)
        self._lock = threading.Lock()

    def note(self, event: Mapping[str, Any]) -> None:
        """Keep an event of the log, if it is one of `EVENTS`."""
        if event.get("event") not in EVENTS:
            return
        # Text of one form and zone, so that comparing texts compares times (`events`).
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = {str(name): _bounded(value) for name, value in event.items() if name not in _DROPPED}
        with self._lock:
            self._count += 1
            # The id shows that an event in the topic and one in the ring are the same.
            found = {"id": f"{self._run}-{self._count}", "at": at, "member": self.member, **fields}
            self._events.append(found)
            self.unwritten.append(found)

    def events(self, since: float = 0.0) -> list[Mapping[str, Any]]:
        """Return the events from a time (epoch seconds) on, the oldest first."""
        first = datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds")
        with self._lock:
            return [event for event in self._events if event["at"] >= first]


def _bounded(value: Any) -> Any:
    """Return a field as plain data of a bounded size."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    if isinstance(value, Mapping):
        return {_text(key): _bounded(child) for key, child in list(value.items())[:_ITEMS]}
    if isinstance(value, list | tuple):
        more = [f"… {len(value) - _ITEMS} more"] if len(value) > _ITEMS else []
        return [_bounded(child) for child in value[:_ITEMS]] + more
    return _text(value)


def _text(value: Any) -> str:
    """Return the beginning of a text. Half of a character, which foreign JSON may hold, becomes `?`."""
    return str(value)[:_TEXT].encode(errors="replace").decode()
