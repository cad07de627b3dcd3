"""The dead letters of a topic: listed, counted, and found by their ids."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from connector.dead_letters.export import moment
from connector.dead_letters.filters import Filter
from connector.dead_letters.reader import DeadLetterEntry, Resolution, Survey, parse_resolution, read_dead_letters
from connector.errors import ConnectorError
from connector.records import Record

Records = Callable[[str], Iterator[Record]]

_NAMED: Final = 5
_SHORTEST: Final = 8


class DeadLetterNotFound(ConnectorError):
    """No dead letter has the id, or several begin with it; the message says which."""


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
    """One dead letter, every dead letter of the same event (the oldest first, itself included), and resolutions."""

    dead_letter: DeadLetterEntry
    dead_letters: tuple[DeadLetterEntry, ...]
    resolutions: tuple[Resolution, ...]
    cluster_id: str


class Archive:
    """The dead letters of one topic. `records` starts a new reading of it each time; its argument says what for."""

    def __init__(self, records: Records, cluster_id: str) -> None:
        self._records = records
        self._cluster_id = cluster_id
        self._survey: Survey | None = None

    @property
    def survey(self) -> Survey:
        """What the topic holds; read once, when first needed."""
        if self._survey is None:
            self._survey = Survey.of(self._records("reading resolved dead letters"))
        return self._survey

    def dead_letters(self, wanted: Filter, *, resolved: bool = False) -> Iterator[DeadLetterEntry]:
        """Yield the matching dead letters in the topic's order."""
        survey = self.survey
        return read_dead_letters(self._records("reading dead letters"), survey, wanted, resolved=resolved)

    def newest(self, wanted: Filter, limit: int, *, resolved: bool = False) -> tuple[list[DeadLetterEntry], int]:
        """Return the `limit` dead letters that failed last, the newest first, and how many match in all."""
        heap: list[tuple[int, int, DeadLetterEntry]] = []
        count = 0
        for dead_letter in self.dead_letters(wanted, resolved=resolved):
            count += 1
            entry = (dead_letter.facts.failed_at, -count, dead_letter)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
        return [dead_letter for _, _, dead_letter in sorted(heap, reverse=True)], count

    def stats(self, wanted: Filter, *, resolved: bool = False) -> list[Count]:
        """Return how many dead letters there are of each cause, code and destination, the most frequent first."""
        counts: dict[tuple[str, str | None, str | None], list[int]] = {}
        for dead_letter in self.dead_letters(wanted, resolved=resolved):
            facts = dead_letter.facts
            at = facts.failed_at
            numbers = counts.setdefault((facts.cause, facts.code, facts.destination), [0, at, at])
            numbers[0], numbers[1], numbers[2] = numbers[0] + 1, min(numbers[1], at), max(numbers[2], at)
        found = [Count(*kind, *numbers) for kind, numbers in counts.items()]
        return sorted(
            found, key=lambda count: (-count.dead_letters, count.cause, count.code or "", count.destination or "")
        )

    def find(self, identity: str) -> DeadLetterHistory:
        """Return the dead letter with this id, or the only one whose id begins with it (8 characters or more).

        Raises `DeadLetterNotFound`.
        """
        found: dict[str, DeadLetterEntry] = {}
        for dead_letter in self.dead_letters(Filter(), resolved=True):
            if dead_letter.facts.id == identity:
                found = {identity: dead_letter}
                break
            if len(identity) >= _SHORTEST and len(found) < _NAMED and dead_letter.facts.id.startswith(identity):
                found[dead_letter.facts.id] = dead_letter
        if len(found) != 1:
            raise DeadLetterNotFound(
                f"several dead letters have an id that begins with {identity}: {', '.join(found)}"
                if found
                else f"no dead letter has the id {identity}; `connector dlq list --all` shows all ids"
            )
        (dead_letter,) = found.values()
        same = Filter({"dedup-id": frozenset({dead_letter.facts.dedup_id})})
        related = sorted(self.dead_letters(same, resolved=True), key=lambda entry: entry.facts.failed_at)
        ids = {entry.facts.id for entry in related}
        resolutions = (parse_resolution(record) for record in self._records("reading its history"))
        own = {
            resolution: None for resolution in resolutions if resolution is not None and resolution.dead_letter in ids
        }
        return DeadLetterHistory(dead_letter, tuple(related), tuple(own), self._cluster_id)
