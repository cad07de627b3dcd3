"""Finds the dead letters and replays of one source record. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import DeadLetterEntry, Resolution, parse_resolution
from connector.records import Position, Record

_OFFSET: Final = "dlq-origin-offset"


def about(records: Iterable[Record], origin: Position) -> Iterator[tuple[Record, ParsedDeadLetter]]:
    """Yield the dead letters or replayed records with this first origin, copies included."""
    offset = (_OFFSET, str(origin.offset).encode())
    for record in records:
        if offset in record.headers and record.value is not None:
            facts = parse(record.headers)
            if facts is not None and facts.origin == origin:
                yield record, facts


def dead_letters_about(
    records: Callable[[], Iterable[Record]], origin: Position
) -> tuple[list[DeadLetterEntry], list[Resolution]]:
    """Return the dead letters of a record, each id once, the oldest first, and their resolutions.

    `records` reads the part of the dead-letter topic to search; it is read twice if there is a dead letter.
    """
    found = {facts.id: (record, facts) for record, facts in about(records(), origin)}
    if not found:
        return [], []
    resolutions = (parse_resolution(record) for record in records())
    own = list(dict.fromkeys(each for each in resolutions if each is not None and each.dead_letter in found))
    states = {resolution.dead_letter: resolution.kind for resolution in own}
    dead_letters = [DeadLetterEntry(record, facts, states.get(facts.id, "open")) for record, facts in found.values()]
    return sorted(dead_letters, key=lambda entry: entry.facts.failed_at), own
