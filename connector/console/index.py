"""What the console keeps of every dead letter: enough to count, filter and list them without reading Kafka again.

The rows are columns: numbers in arrays, and each text that repeats once. Above its limit the index drops resolved dead
letters first, then the oldest, and counts how many.
"""

from __future__ import annotations

import threading
import uuid
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.ids import IdSet
from connector.dead_letters.reader import Resolution, State, parse_resolution
from connector.records import Record

NAMES: Final = ("cause", "code", "destination", "topic", "field", "vendor")
"""What dead letters are counted by and, in addition to id and key, filtered by."""

STATES: Final[tuple[State, ...]] = ("open", "replayed", "discarded")
KEY_LIMIT: Final = 200
"""Bytes of a key that are kept."""
MESSAGE_LIMIT: Final = 300
"""Characters of a message that are kept; the page of a dead letter reads the whole one from Kafka."""
TEXT_LIMIT: Final = 256
"""Characters of a cause, code, field or name that are kept."""
_FAR: Final = 1 << 53
"""Milliseconds from 1970 beyond which a time is not kept: no calendar reaches it."""

Name = Literal["cause", "code", "destination", "topic", "field", "vendor"]

_SLACK: Final = 1.1


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


class DeadLetterColumns:
    """Dead letters in the order of arrival; each attribute has one entry for each."""

    def __init__(self) -> None:
        self.failed = array("q")
        self.resolved = array("q")
        self.partitions = array("l")
        self.offsets = array("q")
        self.replays = array("l")
        self.states = bytearray()
        self.columns: dict[str, TextColumn] = {name: TextColumn() for name in NAMES}
        self.ids: list[bytes | str] = []
        self.events: list[bytes | str] = []
        self.keys: list[bytes | None] = []
        self.messages: list[str] = []
        self.by_id: dict[bytes | str, int] = {}
        self._shared: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many dead letters there are."""
        return len(self.ids)

    def add(self, record: Record, facts: ParsedDeadLetter, state: int) -> None:
        """Add a dead letter; one that is already here is not added again."""
        if packed(facts.id) in self.by_id:
            return
        key = None if record.key is None else record.key[:KEY_LIMIT]
        row = DeadLetterRow(
            facts.id,
            max(-_FAR, min(_FAR, facts.failed_at)),
            *(_cut(facts.cause), _cut(facts.code), _cut(facts.destination), _cut(facts.origin.topic)),
            *(_cut(facts.field), _cut(facts.vendor)),
            key,
            facts.message[:MESSAGE_LIMIT],
            max(0, min(facts.replays, 1 << 30)),
            STATES[state],
            0,
            (record.partition, record.offset),
        )
        self.put(row, packed(facts.dedup_id))

    def put(self, row: DeadLetterRow, event: bytes | str) -> None:
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

    def row(self, number: int) -> DeadLetterRow:
        """Return a dead letter."""
        columns = self.columns
        return DeadLetterRow(
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


class KindCount(NamedTuple):
    """How many dead letters have one cause, code and destination, and when the first and the last of them failed."""

    cause: str
    code: str
    destination: str
    dead_letters: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which dead letters are wanted: one value of each name in `where`, failed `since` to `until` (epoch ms)."""

    where: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    since: int | None = None
    until: int | None = None
    resolved: bool = False
    ids: frozenset[str] = frozenset()

    def as_filter(self) -> Filter:
        """Return the same as a filter for reading the topic itself."""
        where = {name: frozenset({value}) for name, value in self.where if name != "topic"}
        if self.ids:
            where["id"] = self.ids
        topics = frozenset(value for name, value in self.where if name == "topic")
        key = None if self.key is None else self.key.encode(errors="surrogateescape")
        return Filter(where, self.since, key, topics, self.until)


@dataclass(frozen=True, slots=True)
class TimeBuckets:
    """Dead letters over time: `counts[cause][n]` failed within `width` milliseconds from `start + n * width`."""

    start: int
    width: int
    counts: Mapping[str, Sequence[int]]


class DeadLetterIndex:
    """The newest `limit` dead letters. Every method may be called from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._early = {kind: IdSet() for kind in STATES}
        self.forgotten = 0
        """Unresolved dead letters that were dropped because there was no room for them, the oldest."""
        self.foreign = 0
        """Records of the topic that are not dead letters of a connector, or not readable as such."""
        self.version = 0
        """Changes whenever the index does."""
        self._columns = DeadLetterColumns()
        self._order: list[int] = []
        self._found: dict[Query, list[int]] = {}
        self._found_at = -1

    def __len__(self) -> int:
        """Return how many dead letters there are, including resolved ones."""
        return len(self._columns)

    def take(self, records: Iterable[Record], *, show: bool = True) -> None:
        """Put records of the dead-letter topic into the index: dead letters and resolutions, in the order of the topic.

        With `show` false, searches find them only after the next `show`: each change drops the cached searches, which
        would make reading a large topic slow.
        """
        parsed = [(record, _parsed(record)) for record in records]
        with self._lock:
            for record, found in parsed:
                if isinstance(found, Resolution):
                    self._resolve(found)
                elif found is None or record.value is None:
                    self.foreign += 1
                else:
                    self._columns.add(record, found, self._state(found.id))
            if len(self) > self._limit * _SLACK:
                self._compact()
                show = True
            self.version += show

    def show(self) -> None:
        """Let searches find everything that was taken."""
        with self._lock:
            self.version += 1

    def rows(self, query: Query) -> list[int]:
        """Return the row numbers of the wanted dead letters, newest first. Valid until the version changes."""
        with self._lock:
            if self._found_at != self.version:
                self._found.clear()
                self._found_at = self.version
            found = self._found.get(query)
            if found is None:
                if len(self._found) > 8:
                    self._found.clear()
                found = self._found[query] = self._search(query)
            return found

    def page(self, query: Query, first: int, count: int) -> tuple[list[DeadLetterRow], int]:
        """Return `count` of the wanted dead letters from `first` on, newest first, and how many there are."""
        with self._lock:
            rows = self.rows(query)
            return [self._columns.row(row) for row in rows[first : first + count]], len(rows)

    def counts(self, query: Query, name: Name) -> list[tuple[str, int]]:
        """Return how many of the wanted dead letters have each value of a name, most frequent first."""
        with self._lock:
            column = self._columns.columns[name]
            numbers = Counter(map(column.rows.__getitem__, self.rows(query)))
            return [(column.texts[number], count) for number, count in numbers.most_common()]

    def kinds(self, query: Query) -> list[KindCount]:
        """Return the wanted dead letters by cause, code and destination, most frequent first."""
        with self._lock:
            columns = [self._columns.columns[name] for name in ("cause", "code", "destination")]
            cause, code, to = (column.rows for column in columns)
            found: dict[tuple[int, int, int], list[int]] = {}
            for row in self.rows(query):
                at = self._columns.failed[row]
                numbers = found.setdefault((cause[row], code[row], to[row]), [0, at, at])
                numbers[0] += 1
                numbers[1] = at  # rows come newest first
            texts = [column.texts for column in columns]
            kinds = (KindCount(texts[0][a], texts[1][b], texts[2][c], *each) for (a, b, c), each in found.items())
            return sorted(kinds, key=lambda kind: (-kind.dead_letters, kind))

    def histogram(self, query: Query, start: int, end: int, bars: int) -> TimeBuckets:
        """Return the wanted dead letters between two times in at most `bars` buckets of equal, round width."""
        width = round_width(max(1, end - start), bars)
        first = start // width * width
        number = (end - first) // width + 1
        with self._lock:
            cause = self._columns.columns["cause"]
            counts: dict[int, list[int]] = {}
            for row in self.rows(query):
                at = (self._columns.failed[row] - first) // width
                if 0 <= at < number:
                    counts.setdefault(cause.rows[row], [0] * number)[at] += 1
            return TimeBuckets(first, width, {cause.texts[number]: bins for number, bins in counts.items()})

    def span(self, query: Query) -> tuple[int, int] | None:
        """Return when the first and the last of the wanted dead letters failed; None where there are none."""
        with self._lock:
            rows = self.rows(query)
            return (self._columns.failed[rows[-1]], self._columns.failed[rows[0]]) if rows else None

    def find(self, identity: str) -> DeadLetterRow | None:
        """Return the dead letter with this id."""
        with self._lock:
            row = self._columns.by_id.get(packed(identity))
            return None if row is None else self._columns.row(row)

    def same_event(self, dedup_id: str) -> list[DeadLetterRow]:
        """Return every dead letter of one event, oldest first: for its other destinations, and after each replay."""
        event = packed(dedup_id)
        with self._lock:
            rows = [row for row, other in enumerate(self._columns.events) if other == event]
            return sorted(map(self._columns.row, rows), key=lambda row: row.failed_at)

    def _state(self, identity: str) -> int:
        """Return the state from a resolution that was read before its dead letter."""
        early = ((number, self._early[kind]) for number, kind in enumerate(STATES))
        return next((number for number, ids in early if len(ids) and identity in ids), 0)

    def _resolve(self, resolution: Resolution) -> None:
        row = self._columns.by_id.get(packed(resolution.dead_letter))
        if row is None:
            # It may come before its dead letter, from another partition, or the dead letter was dropped and may return.
            self._early[resolution.kind].add(resolution.dead_letter)
            return
        self._columns.states[row] = STATES.index(resolution.kind)
        self._columns.resolved[row] = _millis(resolution.at)

    def _search(self, query: Query) -> list[int]:
        """Return the wanted rows; each condition looks only at what the conditions before it left."""
        if len(self._order) != len(self):
            self._order = sorted(range(len(self)), key=self._columns.failed.__getitem__, reverse=True)
        begin = 0 if query.until is None else self._not_after(query.until)
        end = len(self) if query.since is None else self._not_after(query.since - 1)
        rows: Sequence[int] = self._order[begin:end]
        if query.ids:
            wanted = {row for identity in query.ids if (row := self._columns.by_id.get(packed(identity))) is not None}
            rows = [row for row in rows if row in wanted]
        if not query.resolved:
            states = self._columns.states
            rows = [row for row in rows if not states[row]]
        for name, text in query.where:
            column = self._columns.columns[name].rows
            number = self._columns.columns[name].numbers.get(text, -1)
            rows = [row for row in rows if column[row] == number]
        if query.key is not None:
            key, keys = query.key.encode(errors="surrogateescape")[:KEY_LIMIT], self._columns.keys
            rows = [row for row in rows if keys[row] == key]
        return list(rows)

    def _not_after(self, time: int) -> int:
        """Return the first place in the order (newest first) of what failed at `time` or before."""
        return bisect_left(self._order, -time, key=lambda row: -self._columns.failed[row])

    def _compact(self) -> None:
        """Keep `limit` dead letters: unresolved before resolved, then the newest."""
        old, table = self._columns, DeadLetterColumns()
        kept = sorted(range(len(old)), key=lambda row: (old.states[row] != 0, -old.failed[row]))
        self.forgotten += sum(not old.states[row] for row in kept[self._limit :])
        for row in sorted(kept[: self._limit]):
            table.put(old.row(row), old.events[row])
        self._columns, self._order = table, []


def _parsed(record: Record) -> Resolution | ParsedDeadLetter | None:
    """Return what a record of the topic is; None for one that is not ours or cannot be read."""
    try:
        return parse_resolution(record) or parse(record.headers)
    except Exception:  # noqa: BLE001 -- anyone may write to the topic: no record may end the thread that reads it
        return None


def _cut(text: str | None) -> str:
    return (text or "")[:TEXT_LIMIT]


def round_width(span: int, bars: int) -> int:
    """Return the least round number of milliseconds, a second or more, of which `bars` cover `span`."""
    return next((width for width in _WIDTHS if width * bars >= span), -(-span // bars))


_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WIDTHS: Final = (
    *(number * _SECOND for number in (1, 2, 5, 10, 15, 30)),
    *(number * _MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 7, 14, 28, 91, 364)),
)


def _millis(text: str) -> int:
    """Return ISO 8601 as epoch milliseconds, 0 where it is none."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return 0


def packed(identity: str) -> bytes | str:
    """Return a UUID as 16 bytes. Any other text, which another program may have written, stays as it is."""
    if len(identity) != 36 or identity[8] + identity[13] + identity[18] + identity[23] != "----":
        return identity
    try:
        found = bytes.fromhex(identity.replace("-", ""))
    except ValueError:
        return identity
    return found if len(found) == 16 and identity == identity.lower() else identity


def unpacked(identity: bytes | str) -> str:
    """Return the id that `packed` was given."""
    return identity if isinstance(identity, str) else str(uuid.UUID(bytes=identity))
