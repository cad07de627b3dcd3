"""The letters that the console keeps, as columns: numbers in arrays, texts that repeat once each."""

from __future__ import annotations

import uuid
from array import array
from typing import Final, NamedTuple

from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.states import State
from connector.records import Record

NAMES: Final = ("cause", "code", "destination", "topic", "field", "vendor")
"""What letters are counted by, and, with id and key, filtered by."""

STATES: Final[tuple[State, ...]] = ("open", "replayed", "discarded")
KEY_LIMIT: Final = 200
"""Bytes of a key that are kept."""


class Row(NamedTuple):
    """One letter as a table shows it. Times are epoch milliseconds; `place` is its partition and offset."""

    id: str
    failed_at: int
    cause: str
    code: str
    destination: str
    topic: str
    field: str
    vendor: str
    key: bytes | None
    message: str
    replays: int
    state: State
    resolved_at: int
    place: tuple[int, int]


class Texts:
    """A column of texts that repeat: a number each, in an array."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self.rows = array("l")

    def add(self, text: str) -> None:
        """Add a row."""
        number = self.numbers.get(text)
        if number is None:
            number = self.numbers[text] = len(self.texts)
            self.texts.append(text)
        self.rows.append(number)

    def __getitem__(self, row: int) -> str:
        """Return a row's text."""
        return self.texts[self.rows[row]]


class Table:
    """Letters in the order in which they came; each attribute has one entry for each."""

    def __init__(self) -> None:
        self.failed = array("q")
        self.resolved = array("q")
        self.partitions = array("l")
        self.offsets = array("q")
        self.replays = array("l")
        self.states = bytearray()
        self.columns: dict[str, Texts] = {name: Texts() for name in NAMES}
        self.ids: list[bytes | str] = []
        self.events: list[bytes | str] = []
        self.keys: list[bytes | None] = []
        self.messages: list[str] = []
        self.by_id: dict[bytes | str, int] = {}
        self._shared: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many letters there are."""
        return len(self.ids)

    def add(self, record: Record, facts: ParsedDeadLetter, state: int) -> None:
        """Add a letter, but not twice."""
        if packed(facts.id) in self.by_id:
            return
        key = None if record.key is None else record.key[:KEY_LIMIT]
        row = Row(
            facts.id,
            max(-(1 << 62), min(1 << 62, facts.failed_at)),
            *(facts.cause, facts.code or "", facts.destination or "", facts.origin.topic),
            *(facts.field or "", facts.vendor or ""),
            key,
            facts.message,
            min(facts.replays, 1 << 30),
            STATES[state],
            0,
            (record.partition, record.offset),
        )
        self.put(row, packed(facts.dedup_id))

    def put(self, row: Row, event: bytes | str) -> None:
        """Add a row of the event with this packed id."""
        identity = packed(row.id)
        self.by_id[identity] = len(self.ids)
        self.ids.append(identity)
        self.events.append(event)
        self.failed.append(row.failed_at)
        self.resolved.append(row.resolved_at)
        self.partitions.append(row.place[0])
        self.offsets.append(row.place[1])
        self.replays.append(row.replays)
        self.states.append(STATES.index(row.state))
        for name, column in self.columns.items():
            column.add(getattr(row, name))
        self.keys.append(row.key)
        self.messages.append(self._shared.setdefault(row.message, row.message))

    def row(self, number: int) -> Row:
        """Return a letter."""
        columns = self.columns
        return Row(
            unpacked(self.ids[number]),
            self.failed[number],
            *(columns["cause"][number], columns["code"][number], columns["destination"][number]),
            *(columns["topic"][number], columns["field"][number], columns["vendor"][number]),
            self.keys[number],
            self.messages[number],
            self.replays[number],
            STATES[self.states[number]],
            self.resolved[number],
            (self.partitions[number], self.offsets[number]),
        )


def packed(identity: str) -> bytes | str:
    """Return a UUID as 16 bytes, and any other text, which a foreign program may have written, as it is."""
    if len(identity) != 36 or identity[8] + identity[13] + identity[18] + identity[23] != "----":
        return identity
    try:
        found = bytes.fromhex(identity.replace("-", ""))
    except ValueError:
        return identity
    return found if len(found) == 16 and identity == identity.lower() else identity


def unpacked(identity: bytes | str) -> str:
    """Return what `packed` was given."""
    return identity if isinstance(identity, str) else str(uuid.UUID(bytes=identity))
