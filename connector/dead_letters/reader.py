"""Reads the dead letters of a topic: each once, however often a crash wrote it, and whether it is resolved.

A resolution may stand anywhere behind its letter, and a letter that a crash has repeated in any partition. So the topic
is read twice: `Survey` collects the ids that are resolved or come more than once, then `read_letters` yields the
letters themselves, none of which is kept. What is held is a fixed 18 MB and about 9 bytes for each of those ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import RESOLUTION, RESOLVED_AT, RESOLVES, ParsedDeadLetter, dead_letter_id, parse
from connector.dead_letters.ids import IdSet, Sieve
from connector.records import Record

State = Literal["open", "replayed", "discarded"]


class DeadLetterEntry(NamedTuple):
    """A dead letter: the record of the dead-letter topic, what its headers say, and what became of it."""

    record: Record
    facts: ParsedDeadLetter
    state: State


class Resolution(NamedTuple):
    """What a resolution record says: whose letter was `replayed` or `discarded`, and when (as it was written)."""

    dead_letter: str
    kind: State
    at: str


class Survey:
    """What the first reading of a topic found."""

    def __init__(self) -> None:
        self.dead_letters = 0
        """Letters, each id once but for those that `repeated` will settle."""
        self.foreign = 0
        """Records that have no letter's id and resolve nothing: another program's."""
        self.repeated = IdSet()
        """Ids that came more than once; perhaps a few that did not."""
        self._resolved: dict[State, IdSet] = {"replayed": IdSet(), "discarded": IdSet()}
        self._sieve: Sieve | None = Sieve()

    @classmethod
    def of(cls, records: Iterable[Record]) -> Survey:
        """Read all records of a topic."""
        survey = cls()
        survey.note(records)
        survey.end()
        return survey

    def note(self, records: Iterable[Record]) -> None:
        """Read some more records."""
        if self._sieve is None:
            raise ValueError("the survey has ended")
        for record in records:
            resolution = parse_resolution(record)
            if resolution is not None:
                self._resolved[resolution.kind].add(resolution.dead_letter)
                continue
            identity = dead_letter_id(record.headers)
            if identity is None:
                self.foreign += 1
                continue
            self.dead_letters += 1
            if self._sieve.add(identity):
                self.repeated.add(identity)

    def end(self) -> None:
        """Let go of what only the reading needs."""
        self._sieve = None

    def state(self, identity: str) -> State:
        """Return what became of a letter."""
        return next((kind for kind, ids in self._resolved.items() if identity in ids), "open")


def parse_resolution(record: Record) -> Resolution | None:
    """Return what a resolution record says: a null value and `dlq-resolves`. None for any other record."""
    if record.value is not None:
        return None
    said = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    identity, kind = said.get(RESOLVES), said.get(RESOLUTION)
    if identity is None or kind not in ("replayed", "discarded"):
        return None
    return Resolution(identity, "replayed" if kind == "replayed" else "discarded", said.get(RESOLVED_AT, ""))


def read_dead_letters(
    records: Iterable[Record], survey: Survey, wanted: Filter, *, resolved: bool = False, seen: IdSet | None = None
) -> Iterator[DeadLetterEntry]:
    """Yield the letters that are wanted, each id once, as they come; with `resolved` also those that are done with.

    `seen` are the repeated ids that came already: who reads a topic in parts passes the same one each time.
    """
    seen = IdSet() if seen is None else seen
    for record in records:
        identity = None if record.value is None else dead_letter_id(record.headers)
        if identity is None:
            continue
        state = survey.state(identity)
        if state != "open" and not resolved:
            continue
        facts = parse(record.headers)
        if facts is None or (facts.id in survey.repeated and not seen.add(facts.id)):
            continue
        # Only now: a repetition may tell another cause than its letter, and be wanted where that is not.
        if not wanted.fits(facts, record.key):
            continue
        yield DeadLetterEntry(record, facts, state)
