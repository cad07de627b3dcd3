"""Reads the dead letters of a topic: each once, however often a crash wrote it, and whether it is resolved.

`Survey` takes the topic in once and knows the state of every dead letter at its end. What needs the dead letters
themselves in the topic's order reads it again (`read_dead_letters`), because a resolution comes behind its dead letter;
none of them is kept.
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
"""Fewest characters by which an id may be given."""


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
    """What a topic holds; complete once every record was taken in."""

    def __init__(self) -> None:
        self.states = States()
        self.foreign = 0
        """Records that are neither dead letters nor resolutions: another program's."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Survey:
        """Take in all records of a topic."""
        survey = cls()
        for record in records:
            survey.take(record)
        return survey

    def take(self, record: Record) -> tuple[int, ParsedDeadLetter] | None:
        """Take in a record; return row and facts of a dead letter that it now stands for.

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
        # The id alone first, at a tenth of the cost: most records stand for no dead letter that is still wanted.
        identity = None if record.value is None else dead_letter_id(record.headers)
        row = None if identity is None else self.states.row(identity)
        if row is None or self.states.place(row) != (record.partition, record.offset):
            return None
        facts = parse(record.headers)
        if facts is None:
            return None
        return DeadLetterEntry(record, facts, self.states.state(row), self.states.other_partitions(row))


class IdSearch:
    """Finds whole ids by their beginnings, all in one pass."""

    def __init__(self, beginnings: Iterable[str]) -> None:
        self._found: dict[str, dict[str, None]] = {beginning: {} for beginning in beginnings}
        self._any = tuple(self._found)

    def see(self, identity: str) -> bool:
        """Compare an id; return whether it is wanted."""
        if not identity.startswith(self._any):
            return False
        for beginning, found in self._found.items():
            # Two would show that the beginning is ambiguous; a few more help to choose.
            if identity.startswith(beginning) and len(found) < _NAMED:
                found[identity] = None
        return True

    def ids(self) -> frozenset[str]:
        """Return the only id of each beginning. Raises `DeadLetterNotFound` if one has none or several."""
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
    """Return what a resolution record says; None for any other record. It has a null value and `dlq-resolves`."""
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
