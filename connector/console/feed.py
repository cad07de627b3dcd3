"""Keeps the index current: one thread that follows the dead-letter topic from its beginning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from connector.console.index import DeadLetterIndex
from connector.errors import TopicRecreated
from connector.records import Record
from connector.tasks import trouble_of

_AGAIN_SECONDS: Final = 5.0
_UNSEEN: Final = 10_000
"""While the topic is first read, the page is updated after this many dead letters."""
_log = structlog.get_logger()


class Tail(Protocol):
    """Follows a topic. `read` blocks for half a second at most and returns new records."""

    @property
    def cluster_id(self) -> str:
        """The cluster's id."""
        ...

    @property
    def left(self) -> int:
        """How many offsets are still to be read of those that existed when it was opened."""
        ...

    @property
    def beginnings(self) -> Mapping[int, int]:
        """The recent first offset of each partition. Kafka has deleted everything before it."""
        ...

    def read(self) -> Sequence[Record]:
        """Return new records. Raises `TopicRecreated` if it is another one, `ConnectorError` if it cannot be read."""
        ...

    def close(self) -> None:
        """Close the topic."""
        ...


class Feed:
    """Reads dead letters into the index. Call `start` and `stop` once each; `stop` may block for a second."""

    def __init__(self, index: DeadLetterIndex, open_tail: Callable[[], Tail]) -> None:
        self._index = index
        self._open = open_tail
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
        self.trouble: str | None = "the dead-letter topic has not been read yet"
        """Why the topic cannot be read now; None if it can."""
        self.left = 0
        """Offsets that are still to be read of those that existed at the start; 0 when the index is complete."""
        self.cluster_id = ""
        """The cluster's id, once it is known."""

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow(self._open())
            except TopicRecreated as error:
                _log.warning("console.dead_letters_unread", message=str(error))
                self._index.clear()
            except Exception as error:  # noqa: BLE001 - without this thread the page would be old and not say so
                trouble = trouble_of(error)
                # Logged once, not every five seconds.
                if self.trouble != trouble:
                    _log.warning("console.dead_letters_unread", message=trouble)
                self.trouble = trouble
                # The first member that starts may create the topic later. A dead letter that is read again counts once.
                self._stopping.wait(_AGAIN_SECONDS)

    def _follow(self, tail: Tail) -> None:
        try:
            self.cluster_id = tail.cluster_id
            self.left = tail.left
            self.trouble = None
            unseen = 0
            beginnings: dict[int, int] = {}
            while not self._stopping.is_set():
                records = tail.read()
                behind, self.left = self.left, tail.left
                unseen += len(records)
                # Not shown while it catches up: each change, of a few hundred records, would drop the cached searches.
                show = not self.left or unseen > _UNSEEN
                if records:
                    self._index.take(records, show=show)
                elif behind and show:
                    self._index.show()
                unseen = 0 if show else unseen
                if tail.beginnings != beginnings:
                    beginnings = dict(tail.beginnings)
                    self._index.drop_before(beginnings)
        finally:
            tail.close()
