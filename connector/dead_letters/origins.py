"""Finds the dead letters and replays of one source record. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import DeadLetterEntry, Resolution, Survey, parse_resolution
from connector.records import Position, Record

_OFFSET: Final = "dlq-origin-offset"


def about(records: Iterable[Record], origin: Position) -> Iterator[tuple[Record, ParsedDeadLetter]]:
    """Yield the dead letters or replayed records with this first origin, including copies."""
    offset = (_OFFSET, str(origin.offset).encode())
    for record in records:
        # Compare one header first: parsing the block takes some 10 µs, and hardly any record of the topic has this
        # origin.
        if offset in record.headers and record.value is not None:
            facts = parse(record.headers)
            if facts is not None and facts.origin == origin:
                yield record, facts


def dead_letters_about(records: Iterable[Record], origin: Position) -> tuple[list[DeadLetterEntry], list[Resolution]]:
    """Return the dead letters of a record, oldest first and each id once, and their resolutions.

    `records` are the records of the dead-letter topic to search.
    """
    survey = Survey()
    found: dict[str, Record] = {}
    own: dict[Resolution, None] = {}
    for record in records:
        resolution = parse_resolution(record)
        if resolution is None:
            for _, facts in about([record], origin):
                if survey.take(record) is not None:
                    found[facts.id] = record
        elif resolution.dead_letter in found:
            survey.take(record)
            own[resolution] = None
    entries = [
        DeadLetterEntry(record, parsed, survey.states.state(row))
        for identity, record in found.items()
        if (row := survey.states.row(identity)) is not None and (parsed := parse(record.headers)) is not None
    ]
    return sorted(entries, key=lambda entry: entry.facts.failed_at), list(own)
