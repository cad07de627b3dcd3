"""The dead letters of a topic: listed, counted, and found by their ids, each in one pass over the topic."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connector.dead_letters.block import time_text as moment
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.reader import (
    DeadLetterEntry,
    IdSearch,
    Resolution,
    Survey,
    parse_resolution,
    read_dead_letters,
)
from connector.records import Record

Records = Callable[[str], Iterator[Record]]
Fetch = Callable[[Sequence[tuple[int, int]]], Iterable[Record]]

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Count:
    """How many dead letters of one cause, code and destination there are, and when the first and last failed."""

    cause: str
    code: str | None
    destination: str | None
    dead_letters: int
    first: int
    last: int

    def as_json(self) -> dict[str, Any]:
        """Return what `stats --json` prints."""
        return {
            "cause": self.cause,
            "code": self.code,
            "destination": self.destination,
            "letters": self.dead_letters,
            "first_failed_at": moment(self.first),
            "last_failed_at": moment(self.last),
        }


@dataclass(frozen=True, slots=True)
class DeadLetterHistory:
    """One dead letter, all dead letters of the same event (oldest first, itself included), and their resolutions."""

    dead_letter: DeadLetterEntry
    dead_letters: tuple[DeadLetterEntry, ...]
    resolutions: tuple[Resolution, ...]
    cluster_id: str


class Archive:
    """The dead letters that one topic has now.

    `records` starts a new reading of the topic each time; its argument names the purpose for the progress display.
    `fetch` returns the records at given partitions and offsets. A pass keeps numbers only, and fetches at its end the
    records to show.
    """

    def __init__(self, records: Records, fetch: Fetch, cluster_id: str) -> None:
        self._records = records
        self._fetch = fetch
        self._cluster_id = cluster_id
        self._survey = Survey()

    @property
    def foreign(self) -> int:
        """How many records of the topic are not the connector's; known once it was read."""
        return self._survey.foreign

    def dead_letters(self, wanted: Filter, *, resolved: bool = False) -> Iterator[DeadLetterEntry]:
        """Yield the matching dead letters in the topic's order. Unlike the other methods it reads the topic twice."""
        self._survey = survey = Survey.of(self._records("reading resolved dead letters"))
        return read_dead_letters(self._records("reading dead letters"), survey, wanted, resolved=resolved)

    def newest(self, wanted: Filter, limit: int, *, resolved: bool = False) -> tuple[list[DeadLetterEntry], int]:
        """Return the `limit` matching dead letters that failed last, newest first, and how many match in all."""
        failed, matching = array("q"), bytearray()
        for row, record, facts in self._pass():
            _put(failed, row, facts.failed_at)
            _put(matching, row, int(wanted.matches(facts, record)))
        states = self._survey.states
        rows = [row for row in states.rows(resolved=resolved) if matching[row]]
        # It shows some fifty of perhaps a million, so it does not sort them all. Of equal times the first in the topic
        # comes first.
        chosen = heapq.nlargest(limit, rows, key=lambda row: (failed[row], -row))
        entries = self._entries(chosen)
        return [entries[place] for place in map(states.place, chosen) if place in entries], len(rows)

    def stats(self, wanted: Filter, *, resolved: bool = False) -> list[Count]:
        """Return how many dead letters each cause, code and destination has, most frequent first."""
        failed, kind_of = array("q"), array("I")
        # Columns of numbers instead of objects, because a topic may hold a million. 0 means that the filter does not
        # match.
        kinds: dict[tuple[str, str | None, str | None] | None, int] = {None: 0}
        for row, record, facts in self._pass():
            kind = (facts.cause, facts.code, facts.destination) if wanted.matches(facts, record) else None
            number = kinds.setdefault(kind, len(kinds))
            if row == len(failed):
                failed.append(facts.failed_at)
                kind_of.append(number)
            else:
                failed[row], kind_of[row] = facts.failed_at, number
        numbers: dict[int, list[int]] = {}
        for row in self._survey.states.rows(resolved=resolved):
            at = failed[row]
            found = numbers.setdefault(kind_of[row], [0, at, at])
            found[0], found[1], found[2] = found[0] + 1, min(found[1], at), max(found[2], at)
        counts = [Count(*kind, *numbers[number]) for kind, number in kinds.items() if kind and number in numbers]
        return sorted(
            counts, key=lambda count: (-count.dead_letters, count.cause, count.code or "", count.destination or "")
        )

    def find(self, identity: str) -> DeadLetterHistory:
        """Return the dead letter with this id, or the only one whose id begins with it (8 characters or more).

        Raises `DeadLetterNotFound`.
        """
        search = IdSearch([identity])
        events, closed = array("Q"), array("q")
        for row, _, facts in self._pass(closed):
            search.see(facts.id)
            _put(events, row, hash(facts.dedup_id) & _MASK)
        (whole,) = search.ids()
        states = self._survey.states
        event = events[states.row(whole) or 0]
        # Found by a hash of 64 bits, so an unrelated row may be included. The fetch below compares the dedup ids
        # themselves.
        related = {row for row, other in enumerate(events) if other == event}
        entries = sorted(self._entries(related).values(), key=lambda entry: entry.facts.failed_at)
        (dead_letter,) = (entry for entry in entries if entry.facts.id == whole)
        same = tuple(entry for entry in entries if entry.facts.dedup_id == dead_letter.facts.dedup_id)
        ids = {entry.facts.id for entry in same}
        # Three numbers for each resolution: row, partition, offset.
        places = [(closed[at + 1], closed[at + 2]) for at in range(0, len(closed), 3) if closed[at] in related]
        resolutions = (parse_resolution(record) for record in self._fetch(places))
        own = {each: None for each in resolutions if each is not None and each.dead_letter in ids}
        return DeadLetterHistory(dead_letter, same, tuple(own), self._cluster_id)

    def _pass(self, closed: array[int] | None = None) -> Iterator[tuple[int, Record, ParsedDeadLetter]]:
        """Read the topic once; yield each record that stands for a dead letter (for now), with its row.

        A row is yielded again if its dead letter failed again after it was resolved. `closed` receives the row,
        partition and offset of each resolution.
        """
        self._survey = survey = Survey()
        for record in self._records("reading dead letters"):
            found = survey.take(record)
            if found is not None:
                yield found[0], record, found[1]
            elif closed is not None and (resolution := parse_resolution(record)) is not None:
                row = survey.states.row(resolution.dead_letter)
                if row is not None:
                    closed.extend((row, record.partition, record.offset))

    def _entries(self, rows: Iterable[int]) -> dict[tuple[int, int], DeadLetterEntry]:
        """Fetch dead letters by partition and offset, without those that retention has deleted in the meantime."""
        found = map(self._survey.entry, self._fetch(sorted(map(self._survey.states.place, rows))))
        return {(entry.record.partition, entry.record.offset): entry for entry in found if entry is not None}


def _put(column: array[int] | bytearray, row: int, value: int) -> None:
    """Set a row's value in a column; a new row is appended."""
    if row == len(column):
        column.append(value)
    else:
        column[row] = value
