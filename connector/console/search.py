"""Searches the records of dead letters for what the index does not keep: headers, fields of the event, text.

A search is a thread. It fetches a few records one by one, or reads many in one pass over the topic, and notes in the
index which of them match. So a page answers at once, with the matches so far and the progress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Final

from connector.console.index import DeadLetterIndex, Query, Searched
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import parse
from connector.records import Record
from connector.tasks import trouble_of

Places = Sequence[tuple[int, int]]

RUNNING: Final = 2
"""Searches that run at the same time; one more ends the oldest."""
FEW: Final = 2000
"""Up to this many records are fetched one by one; more are read in one pass over the topic."""
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class SearchPorts:
    """What a search reads. All block, are called from threads, and raise `ConnectorError`.

    `records` reads the whole topic and reports its progress. `fetch` returns the records at given places. `matching`
    gives a filter that can read events while its context is open.
    """

    records: Callable[[Callable[[int, int], None]], Iterator[Record]]
    fetch: Callable[[Places], Sequence[Record]]
    matching: Callable[[Filter], AbstractContextManager[Filter]]


class Search:
    """One search. It has examined `read` of `total` records; `trouble` says why it ended early."""

    def __init__(self, index: DeadLetterIndex, ports: SearchPorts, searched: Searched, places: Places) -> None:
        self.searched = searched
        self.read = 0
        self.total = len(places)
        self.trouble: str | None = None
        self._index = index
        self._ports = ports
        self._places = places
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it is still running."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it soon."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        conditions, contains = self.searched
        try:
            with self._ports.matching(Query(conditions=conditions, contains=contains).as_filter()) as wanted:
                self._look(self._records(), wanted)
        except Exception as error:  # noqa: BLE001 - an ended thread without a reason would be started again for ever
            self.trouble = trouble_of(error)
        else:
            # Only a completed search has seen every record. Those that it did not find are gone from Kafka.
            if not self._stopping.is_set():
                self._index.give_up(self.searched, self._places)

    def _records(self) -> Iterable[Record]:
        # One pass costs the whole topic; each fetch costs a seek.
        if len(self._places) <= FEW:
            return self._ports.fetch(self._places)
        return self._ports.records(self._note)

    def _note(self, read: int, total: int) -> None:
        self.read, self.total = read, total

    def _look(self, records: Iterable[Record], wanted: Filter) -> None:
        left = iter(records)
        while not self._stopping.is_set() and (chunk := list(islice(left, _CHUNK))):
            found = ((record, parse(record.headers)) for record in chunk if record.value is not None)
            looked = [(facts.id, wanted.matches(facts, record)) for record, facts in found if facts is not None]
            self._index.judge(self.searched, looked)


class Searches:
    """The searches of one console."""

    def __init__(self, index: DeadLetterIndex, ports: SearchPorts) -> None:
        self._index = index
        self._ports = ports
        self._searches: list[Search] = []
        self._lock = threading.Lock()

    def of(self, query: Query) -> Search | None:
        """Return the search that a query needs, started if necessary; None if none is needed. May take a moment."""
        searched = query.searched
        if searched is None:
            return None
        with self._lock:
            latest = next((each for each in self._searches if each.searched == searched), None)
            if latest is not None and latest.running:
                return latest
            places = self._index.unsearched(query)
            if not places:
                return None
            if latest is not None:
                self._searches.remove(latest)
                if latest.trouble is not None:
                    return latest  # shown once; the next request tries again
            self._searches = [each for each in self._searches if each.running]
            # End the oldest: the person who started it has probably asked for something else since.
            while len(self._searches) >= RUNNING:
                self._searches.pop(0).stop()
            self._searches.append(Search(self._index, self._ports, searched, places))
            return self._searches[-1]

    def stop(self) -> None:
        """End all searches; blocks until they have."""
        with self._lock:
            for search in self._searches:
                search.stop()
            for search in self._searches:
                search.join()
            self._searches.clear()
