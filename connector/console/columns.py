"""The columns in which the console keeps dead letters, without a Python object per row."""

from __future__ import annotations

import uuid
from array import array
from hashlib import blake2b
from typing import Final, NamedTuple

from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.states import STATES, State
from connector.records import Record

NAMES: Final = ("cause", "code", "destination", "topic", "field", "vendor")
"""The names by which dead letters are counted and, in addition to id and key, filtered."""
KEY_LIMIT: Final = 200
"""Bytes of a key that are kept."""
MESSAGE_LIMIT: Final = 300
"""Bytes of a message that are kept. The page of a dead letter reads the complete one from Kafka."""
TEXT_LIMIT: Final = 256
"""Characters of a cause, code, field or name that are kept."""
MOST_TEXTS: Final = 10_000
"""Different texts of one column that are kept. The rest become OTHER, because programs may write anything into
codes."""
OTHER: Final = "(other)"
_FAR: Final = 1 << 53
"""Times (ms since 1970) beyond this are not kept: no calendar has them."""
_ROW: Final = 160
"""Bytes of a row without its key and message."""
_RECENT: Final = 4096
"""How many recent byte strings are searched before a value is stored again."""


class DeadLetterRow(NamedTuple):
    """One dead letter as a table shows it. Times are epoch milliseconds; `place` is its partition and offset."""

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


class TextColumn:
    """A column of texts that repeat: an array with a number for each row."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.numbers: dict[str, int] = {}
        self.rows = array("H")

    def add(self, text: str) -> None:
        """Add a row."""
        number = self.numbers.get(text)
        if number is None:
            # Numbers have 16 bits, but vendors and producers decide how many texts there are.
            if len(self.texts) >= MOST_TEXTS:
                text = OTHER
            number = self.numbers.setdefault(text, len(self.texts))
            if number == len(self.texts):
                self.texts.append(text)
        self.rows.append(number)

    def keep(self, rows: array[int]) -> None:
        """Keep these rows only, and the texts that they have."""
        old, self.texts, self.numbers = self.texts, [], {}
        old_rows, self.rows = self.rows, array("H")
        for row in rows:
            self.add(old[old_rows[row]])

    def __getitem__(self, row: int) -> str:
        """Return a row's text."""
        return self.texts[self.rows[row]]


class BytesColumn:
    """A column of byte strings of up to 64 KiB, stored end to end. A recently stored value is reused."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._places = array("Q")
        self._recent: dict[bytes, int] = {}

    def add(self, value: bytes) -> None:
        """Add a row."""
        place = self._recent.get(value)
        if place is None:
            # Start and length in one number. A value has at most 64 KiB, so 16 bits hold its length.
            place = len(self._data) << 16 | len(value)
            self._data += value
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            self._recent[value] = place
        self._places.append(place)

    @property
    def size(self) -> int:
        """Bytes of all the different values."""
        return len(self._data)

    def keep(self, rows: array[int]) -> None:
        """Keep these rows only, and their bytes."""
        kept = BytesColumn()
        for row in rows:
            kept.add(self[row])
        self.__dict__.update(kept.__dict__)

    def __getitem__(self, row: int) -> bytes:
        """Return a row's bytes."""
        start, length = divmod(self._places[row], 1 << 16)
        return bytes(self._data[start : start + length])


class IdColumn:
    """A column of ids in sixteen bytes each: a UUID, or the hash of any other text, which another program may write."""

    def __init__(self, *, keep: bool) -> None:
        self._data = bytearray()
        self._others: dict[int, str] | None = {} if keep else None

    def add(self, identity: str) -> None:
        """Add a row."""
        if self._others is not None and not is_uuid(identity):
            self._others[len(self._data) >> 4] = identity
        self._data += packed(identity)

    def keep(self, rows: array[int]) -> None:
        """Keep these rows only."""
        if self._others:
            self._others = {at: self._others[row] for at, row in enumerate(rows) if row in self._others}
        self._data = bytearray(b"".join(map(self.packed, rows)))

    def __getitem__(self, row: int) -> str:
        """Return a row's id. Only UUIDs can be returned if the column does not keep other texts."""
        other = None if self._others is None else self._others.get(row)
        return other if other is not None else str(uuid.UUID(bytes=bytes(self._data[row << 4 : (row + 1) << 4])))

    def packed(self, row: int) -> bytes:
        """Return a row's sixteen bytes."""
        return bytes(self._data[row << 4 : (row + 1) << 4])

    def add_packed(self, identity: bytes) -> None:
        """Add a row by its sixteen bytes."""
        self._data += identity

    def rows_of(self, identity: bytes) -> list[int]:
        """Return the rows with these sixteen bytes."""
        rows, at = [], self._data.find(identity)
        while at >= 0:
            # A match that does not begin at an entry is a coincidence.
            if not at & 15:
                rows.append(at >> 4)
            at = self._data.find(identity, at + 1)
        return rows


class DeadLetterColumns:
    """Dead letters in the order of arrival. Each attribute is a column."""

    def __init__(self) -> None:
        self.failed = array("q")
        self.resolved = array("q")
        self.partitions = array("i")
        self.offsets = array("q")
        self.replays = array("I")
        self.origin_partitions = array("i")
        self.origin_offsets = array("q")
        self.states = bytearray()
        self.noted = array("I")
        """The row of `States` that a dead letter has."""
        self.columns: dict[str, TextColumn] = {name: TextColumn() for name in NAMES}
        self.ids = IdColumn(keep=True)
        self.events = IdColumn(keep=False)
        self.keys = BytesColumn()
        self.keyless = bytearray()
        """1 for a record without a key, which differs from an empty key."""
        self.messages = BytesColumn()

    @property
    def size(self) -> int:
        """Approximate bytes of memory."""
        return len(self) * _ROW + self.keys.size + self.messages.size

    def __len__(self) -> int:
        """Return how many dead letters there are."""
        return len(self.states)

    def add(self, record: Record, facts: ParsedDeadLetter, noted: int) -> None:
        """Add an unresolved dead letter."""
        row = DeadLetterRow(
            facts.id,
            max(-_FAR, min(_FAR, facts.failed_at)),
            *(_cut(facts.cause), _cut(facts.code), _cut(facts.destination), _cut(facts.origin.topic)),
            *(_cut(facts.field), _cut(facts.vendor)),
            record.key,
            facts.message,
            max(0, min(facts.replays, 1 << 30)),
            "open",
            0,
            (record.partition, record.offset),
        )
        self.put(row, packed(facts.dedup_id), noted, facts.origin[1:])

    def put(self, row: DeadLetterRow, event: bytes, noted: int, origin: tuple[int, int]) -> None:
        """Add a row of the event with this packed id; `origin` is the partition and offset where it was first read."""
        self.origin_partitions.append(origin[0])
        self.origin_offsets.append(origin[1])
        self.ids.add(row.id)
        self.events.add_packed(event)
        self.failed.append(row.failed_at)
        self.resolved.append(row.resolved_at)
        self.partitions.append(row.place[0])
        self.offsets.append(row.place[1])
        self.replays.append(row.replays)
        self.states.append(STATES.index(row.state))
        self.noted.append(noted)
        for name, column in self.columns.items():
            column.add(getattr(row, name))
        self.keys.add((row.key or b"")[:KEY_LIMIT])
        self.keyless.append(row.key is None)
        self.messages.add(row.message.encode(errors="replace")[:MESSAGE_LIMIT])

    def keep(self, rows: array[int]) -> None:
        """Keep these rows only, in this order. Copies one column at a time, so that little is in memory twice."""
        for name, numbers in vars(self).items():
            if isinstance(numbers, array):
                setattr(self, name, array(numbers.typecode, map(numbers.__getitem__, rows)))
        self.states = bytearray(map(self.states.__getitem__, rows))
        self.keyless = bytearray(map(self.keyless.__getitem__, rows))
        for texts in self.columns.values():
            texts.keep(rows)
        for ids in (self.ids, self.events):
            ids.keep(rows)
        self.keys.keep(rows)
        self.messages.keep(rows)

    def key(self, row: int) -> bytes | None:
        """Return the beginning of a dead letter's key, or None if it has none."""
        return None if self.keyless[row] else self.keys[row]

    def row(self, number: int) -> DeadLetterRow:
        """Return a dead letter."""
        columns = self.columns
        return DeadLetterRow(
            self.ids[number],
            self.failed[number],
            *(columns["cause"][number], columns["code"][number], columns["destination"][number]),
            *(columns["topic"][number], columns["field"][number], columns["vendor"][number]),
            self.key(number),
            self.messages[number].decode(errors="ignore"),  # it may be cut within a character
            self.replays[number],
            STATES[self.states[number]],
            self.resolved[number],
            (self.partitions[number], self.offsets[number]),
        )


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in the form that its bytes are converted back to."""
    if len(text) != 36 or text[8] + text[13] + text[18] + text[23] != "----" or text != text.lower():
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def packed(identity: str) -> bytes:
    """Return a UUID's sixteen bytes, or a hash of sixteen bytes for any other text."""
    if is_uuid(identity):
        return bytes.fromhex(identity.replace("-", ""))
    return blake2b(identity.encode(errors="surrogatepass"), digest_size=16).digest()


def _cut(text: str | None) -> str:
    return (text or "")[:TEXT_LIMIT]
