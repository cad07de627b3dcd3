"""Reads the dead letters of a topic and their states. Each is returned once, however often a crash wrote it.

`Survey` reads the topic once; then it knows the state of every dead letter, and keeps none of them. `read_dead_letters`
reads the topic again and yields the dead letters in order. The second pass is needed because a resolution comes after
its dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter, dead_letter_id, parse, read_resolution
from connector.dead_letters.states import State, States
from connector.errors import ConnectorError
from connector.records import Record

_NAMED: Final = 5
SHORTEST_BEGINNING: Final = 8
"""An id may be shortened to this many characters."""


class DeadLetterNotFound(ConnectorError):
    """No dead letter has the id, or several begin with it; the message says which."""


class DeadLetterEntry(NamedTuple):
    """A dead letter: the record in the dead-letter topic, what its headers say, and its state.

    `other_partitions` have a further copy that is not resolved, which a crash wrote.
    """

    record: Record
    facts: ParsedDeadLetter
    state: State
    other_partitions: tuple[int, ...] = ()


class Resolution(NamedTuple):
    """What a resolution record says: which dead letter was `replayed` or `discarded`, and when (as written)."""

    dead_letter: str
    kind: State
    at: str


class Survey:
    """The states of a topic's dead letters; complete once `take` got every record."""

    def __init__(self) -> None:
        self.states = States()
        self.foreign = 0
        """How many records are neither dead letters nor resolutions, so another program's."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Survey:
        """Take in all records of a topic."""
        survey = cls()
        for record in records:
            survey.take(record)
        return survey

    def take(self, record: Record) -> tuple[int, ParsedDeadLetter] | None:
        """Take in a record; if it now stands for a dead letter, return the row and the parsed headers.

        The whole block is parsed: a record of another program that has only the id must not hide the dead letter.
        """
        if record.value is None:
            resolution = parse_resolution(record)
            if resolution is None:
                self.foreign += 1
            else:
                self.states.resolve(resolution.dead_letter, record.partition, resolution.kind)
            return None
        facts = parse(record.headers)
        if facts is None:
            self.foreign += 1
            return None
        row, stands = self.states.note(facts.id, record.partition, record.offset)
        return (row, facts) if stands else None

    def entry(self, record: Record) -> DeadLetterEntry | None:
        """Return the dead letter that a record stands for; None for any other record."""
        # Read only the id first, at a tenth of the cost: most records do not stand for a dead letter that is wanted.
        identity = None if record.value is None else dead_letter_id(record.headers)
        row = None if identity is None else self.states.row(identity)
        if row is None or self.states.place(row) != (record.partition, record.offset):
            return None
        facts = parse(record.headers)
        if facts is None:
            return None
        return DeadLetterEntry(record, facts, self.states.state(row), self.states.other_partitions(row))


class IdSearch:
    """Completes ids that were given by their beginnings, all in one pass."""

    def __init__(self, beginnings: Iterable[str]) -> None:
        self._found: dict[str, dict[str, None]] = {beginning: {} for beginning in beginnings}
        self._any = tuple(self._found)

    def see(self, identity: str) -> bool:
        """Compare an id; return whether it is wanted."""
        if not identity.startswith(self._any):
            return False
        for beginning, found in self._found.items():
            # Two are enough to show that the beginning is ambiguous; a few more help the person to choose.
            if identity.startswith(beginning) and len(found) < _NAMED:
                found[identity] = None
        return True

    def ids(self) -> frozenset[str]:
        """Return the one id for each beginning. Raises `DeadLetterNotFound` if there is none, or more than one."""
        for beginning, found in self._found.items():
            if len(beginning) < SHORTEST_BEGINNING:
                raise DeadLetterNotFound(f"give at least {SHORTEST_BEGINNING} characters of an id, not {beginning!r}")
            if len(found) > 1:
                raise DeadLetterNotFound(
                    f"several dead letters have an id that begins with {beginning}: {', '.join(found)}"
                )
            if not found:
                raise DeadLetterNotFound(
                    f"no dead letter has the id {beginning}; `connector dlq list --all` shows all ids"
                )
        return frozenset(identity for found in self._found.values() for identity in found)


def parse_resolution(record: Record) -> Resolution | None:
    """Return a resolution from its record (null value, header `dlq-resolves`); None for any other record."""
    found = None if record.value is not None else read_resolution(record.headers)
    if found is None:
        return None
    identity, kind, at = found
    return Resolution(identity, "replayed" if kind == "replayed" else "discarded", at)


def read_dead_letters(
    records: Iterable[Record], survey: Survey, wanted: Filter, *, resolved: bool = False
) -> Iterator[DeadLetterEntry]:
    """Yield the matching dead letters in the topic's order, each id once; `resolved` includes the resolved ones."""
    for record in records:
        entry = survey.entry(record)
        if entry is None or (entry.state != "open" and not resolved):
            continue
        if wanted.matches(entry.facts, record):
            yield entry
