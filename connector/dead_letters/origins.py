"""What the dead-letter and replay topics say about one record of a source topic. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import DeadLetterEntry, Resolution, parse_resolution
from connector.records import Position, Record

_OFFSET: Final = "dlq-origin-offset"


def about(records: Iterable[Record], origin: Position) -> Iterator[tuple[Record, ParsedDeadLetter]]:
    """Yield the letters, or replayed records, whose first origin this is, as they come; repetitions included."""
    offset = (_OFFSET, str(origin.offset).encode())
    for record in records:
        if offset in record.headers and record.value is not None:
            facts = parse(record.headers)
            if facts is not None and facts.origin == origin:
                yield record, facts


def dead_letters_about(
    records: Callable[[], Iterable[Record]], origin: Position
) -> tuple[list[DeadLetterEntry], list[Resolution]]:
    """Return the letters about a record, each id once, the oldest first, and the resolutions of these.

    `records` reads all of the dead-letter topic that may be of interest; twice, where there is a letter.
    """
    found = {facts.id: (record, facts) for record, facts in about(records(), origin)}
    if not found:
        return [], []
    said = (parse_resolution(record) for record in records())
    own = list(dict.fromkeys(one for one in said if one is not None and one.dead_letter in found))
    states = {one.dead_letter: one.kind for one in own}
    dead_letters = [DeadLetterEntry(record, facts, states.get(facts.id, "open")) for record, facts in found.values()]
    return sorted(dead_letters, key=lambda one: one.facts.failed_at), own
