"""Reads unresolved dead letters from an event loop. A thread does the blocking reads, some records at a time."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from connector.dead_letters.filters import Filter
from connector.dead_letters.reader import DeadLetterEntry, IdSearch, Survey, read_dead_letters
from connector.dead_letters.replay import Read
from connector.records import Record
from connector.tasks import in_thread

RECORDS: Final = 1000
"""Most records read at a time."""
BYTES: Final = 4 << 20
"""Most bytes of values read at a time, except for the last record."""

T = TypeVar("T")
Progress = Callable[[int, int], None]


class Stopped(Exception):
    """The reading was cancelled. Raised inside the reading thread only."""


class DeadLetterStream:
    """The unresolved dead letters of one topic.

    Each call of `records` starts a new blocking read of the same records, and reports its progress (offsets read,
    offsets in all) at least once a second.
    """

    def __init__(self, records: Callable[[Progress], Iterator[Record]]) -> None:
        self._records = records
        self._stop = threading.Event()
        self._done = 0
        self._total = 0
        self.survey = Survey()
        """The states of the topic's dead letters; complete once the first dead letters are yielded."""

    async def dead_letters(self, wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the matching unresolved dead letters, each once; the first pass yields progress only.

        Raises `DeadLetterNotFound` for an id that the topic does not have, before anything is yielded.
        """
        self.survey = survey = Survey()
        search = IdSearch(wanted.ids)

        def take(records: list[Record]) -> None:
            for record in records:
                found = survey.take(record)
                if found is not None:
                    search.see(found[1].id)

        async with aclosing(self._pass(take)) as first:
            async for _ in first:
                # Two passes, shown as one progress. A resolution comes after its dead letter, so the first pass must
                # reach the end before any dead letter can be yielded.
                yield Read((), self._done, 2 * self._total)
        whole = replace(wanted, ids=search.ids())

        def find(records: list[Record]) -> list[DeadLetterEntry]:
            return list(read_dead_letters(records, survey, whole))

        async with aclosing(self._pass(find)) as second:
            async for dead_letters in second:
                yield Read(dead_letters, self._total + self._done, 2 * self._total)

    async def _pass(self, work: Callable[[list[Record]], T]) -> AsyncGenerator[T, None]:
        """Yield the result of `work` for each portion of the records, in order."""
        iterator = self._records(self._note_progress)

        def read_some() -> tuple[bool, T]:
            records = _take(iterator)
            return bool(records), work(records)

        try:
            while True:
                # `_stop` makes the reader's next report of progress raise; only then may it be closed.
                more, result = await in_thread(read_some, self._stop.set)
                if not more:
                    return
                yield result
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _note_progress(self, done: int, total: int) -> None:
        """Note the progress; called in the reading thread."""
        if self._stop.is_set():
            raise Stopped
        self._done, self._total = done, total


def _take(records: Iterator[Record]) -> list[Record]:
    taken: list[Record] = []
    size = 0
    for record in records:
        taken.append(record)
        size += len(record.value or b"")
        if len(taken) >= RECORDS or size >= BYTES:
            break
    return taken
