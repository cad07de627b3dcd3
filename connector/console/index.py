"""What the console keeps of every dead letter: enough to count, filter and list them without asking Kafka again.

About a kilobyte a letter: a hundred thousand are 100 MB and are searched in some hundredths of a second. Above its
limit the index forgets resolved letters first, then the oldest, and says how many.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from connector.console.table import KEY_LIMIT, STATES, Row, Table, packed
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import Resolution, parse_resolution
from connector.dead_letters.states import States
from connector.records import Record

Name = Literal["cause", "code", "destination", "topic", "field", "vendor"]

_SLACK: Final = 1.1
_REPLACED: Final = len(STATES)
"""The state of a row that another one stands for, until the rows are compacted."""


class Kind(NamedTuple):
    """How many letters have one cause, code and destination, and when the first and the last of them failed."""

    cause: str
    code: str
    destination: str
    dead_letters: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which letters are meant: one value of each name in `where`, failed `since` and `until` (epoch milliseconds)."""

    where: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    since: int | None = None
    until: int | None = None
    resolved: bool = False
    ids: frozenset[str] = frozenset()

    def as_filter(self) -> Filter:
        """Return the same for those who read the topic itself."""
        where = {name: frozenset({value}) for name, value in self.where if name != "topic"}
        if self.ids:
            where["id"] = self.ids
        topics = frozenset(value for name, value in self.where if name == "topic")
        key = None if self.key is None else self.key.encode(errors="surrogateescape")
        return Filter(where, self.since, key, topics, self.until)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Letters over time: `counts[cause][n]` failed within `width` milliseconds from `start + n * width`."""

    start: int
    width: int
    counts: Mapping[str, Sequence[int]]


class DeadLetterIndex:
    """The newest `limit` dead letters. Every method may be called from any thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._states = States()
        self.forgotten = 0
        """Open letters that were more than there is room for, the oldest."""
        self.foreign = 0
        """Records of the topic that are no letters of a connector."""
        self.version = 0
        """Changes whenever the index does."""
        self._table = Table()
        self._order: list[int] = []
        self._found: dict[Query, list[int]] = {}
        self._found_at = -1

    def __len__(self) -> int:
        """Return how many letters there are, resolved ones included."""
        return len(self._table)

    def take(self, records: Iterable[Record], *, show: bool = True) -> None:
        """Put records of the dead-letter topic into the index: letters and resolutions, in the order of the topic.

        Searches find them once something is shown again: whoever puts in many has not each of them searched for anew.
        """
        said = [(record, parse_resolution(record) or parse(record.headers)) for record in records]
        with self._lock:
            for record, found in said:
                if isinstance(found, Resolution):
                    self._resolve(found, record.partition)
                elif found is None or record.value is None:
                    self.foreign += 1
                else:
                    self._put(record, found)
            if len(self) > self._limit * _SLACK:
                self._compact()
                show = True
            self.version += show

    def show(self) -> None:
        """Let searches find everything that was taken."""
        with self._lock:
            self.version += 1

    def rows(self, query: Query) -> list[int]:
        """Return the numbers of the letters that are meant, the newest first. They hold until the version changes."""
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

    def page(self, query: Query, first: int, count: int) -> tuple[list[Row], int]:
        """Return `count` of the letters that are meant from `first` on, the newest first, and how many there are."""
        with self._lock:
            rows = self.rows(query)
            return [self._table.row(row) for row in rows[first : first + count]], len(rows)

    def counts(self, query: Query, name: Name) -> list[tuple[str, int]]:
        """Return how many of the letters that are meant have each value of a name, the most first."""
        with self._lock:
            column = self._table.columns[name]
            numbers = Counter(map(column.rows.__getitem__, self.rows(query)))
            return [(column.texts[number], count) for number, count in numbers.most_common()]

    def kinds(self, query: Query) -> list[Kind]:
        """Return what is meant by cause, code and destination, the most first."""
        with self._lock:
            columns = [self._table.columns[name] for name in ("cause", "code", "destination")]
            cause, code, to = (column.rows for column in columns)
            found: dict[tuple[int, int, int], list[int]] = {}
            for row in self.rows(query):
                at = self._table.failed[row]
                one = found.setdefault((cause[row], code[row], to[row]), [0, at, at])
                one[0] += 1
                one[1] = at  # rows come the newest first
            texts = [column.texts for column in columns]
            kinds = (Kind(texts[0][a], texts[1][b], texts[2][c], *numbers) for (a, b, c), numbers in found.items())
            return sorted(kinds, key=lambda kind: (-kind.dead_letters, kind))

    def histogram(self, query: Query, start: int, end: int, bars: int) -> Histogram:
        """Return the letters that are meant between two times in at most `bars` bars of an equal, round width."""
        width = round_width(max(1, end - start), bars)
        first = start // width * width
        number = (end - first) // width + 1
        with self._lock:
            cause = self._table.columns["cause"]
            counts: dict[int, list[int]] = {}
            for row in self.rows(query):
                at = (self._table.failed[row] - first) // width
                if 0 <= at < number:
                    counts.setdefault(cause.rows[row], [0] * number)[at] += 1
            return Histogram(first, width, {cause.texts[one]: bins for one, bins in counts.items()})

    def span(self, query: Query) -> tuple[int, int] | None:
        """Return when the first and the last of the letters that are meant failed; None where there are none."""
        with self._lock:
            rows = self.rows(query)
            return (self._table.failed[rows[-1]], self._table.failed[rows[0]]) if rows else None

    def find(self, identity: str) -> Row | None:
        """Return the letter with this id."""
        with self._lock:
            row = self._table.by_id.get(packed(identity))
            return None if row is None else self._table.row(row)

    def same_event(self, dedup_id: str) -> list[Row]:
        """Return every letter of one event, the oldest first: for its other destinations, and after each replay."""
        event = packed(dedup_id)
        with self._lock:
            rows = [row for row, one in enumerate(self._table.events) if one == event]
            return sorted(map(self._table.row, rows), key=lambda row: row.failed_at)

    def _put(self, record: Record, facts: ParsedDeadLetter) -> None:
        """Add a dead letter, or reopen one that failed again after it was resolved; a copy changes nothing."""
        _, stands = self._states.note(facts.id, record.partition, record.offset)
        if not stands:
            return
        before = self._table.by_id.pop(packed(facts.id), None)
        if before is not None:
            self._table.states[before], self._table.events[before] = _REPLACED, b""
        self._table.add(record, facts, 0)

    def _resolve(self, resolution: Resolution, partition: int) -> None:
        """Apply a resolution, which closes only the copies in front of it in its own partition."""
        noted = self._states.resolve(resolution.dead_letter, partition, resolution.kind)
        row = self._table.by_id.get(packed(resolution.dead_letter))
        if noted is None or row is None:
            return
        self._table.partitions[row], self._table.offsets[row] = self._states.place(noted)
        state = self._states.state(noted)
        if state != "open":
            self._table.states[row] = STATES.index(state)
            self._table.resolved[row] = _millis(resolution.at)

    def _search(self, query: Query) -> list[int]:
        """Return the rows that are meant; each condition looks only at what the ones before have left."""
        if len(self._order) != len(self):
            self._order = sorted(range(len(self)), key=self._table.failed.__getitem__, reverse=True)
        begin = 0 if query.until is None else self._not_after(query.until)
        end = len(self) if query.since is None else self._not_after(query.since - 1)
        states = self._table.states
        rows: Sequence[int] = [row for row in self._order[begin:end] if states[row] != _REPLACED]
        if query.ids:
            wanted = {row for one in query.ids if (row := self._table.by_id.get(packed(one))) is not None}
            rows = [row for row in rows if row in wanted]
        if not query.resolved:
            rows = [row for row in rows if not states[row]]
        for name, text in query.where:
            column = self._table.columns[name].rows
            number = self._table.columns[name].numbers.get(text, -1)
            rows = [row for row in rows if column[row] == number]
        if query.key is not None:
            key, keys = query.key.encode(errors="surrogateescape")[:KEY_LIMIT], self._table.keys
            rows = [row for row in rows if keys[row] == key]
        return list(rows)

    def _not_after(self, time: int) -> int:
        """Return where in the order, the newest first, what failed at `time` or before begins."""
        return bisect_left(self._order, -time, key=lambda row: -self._table.failed[row])

    def _compact(self) -> None:
        """Keep `limit` letters: open ones before resolved ones, then the newest."""
        old, table = self._table, Table()
        kept = sorted(
            (row for row, state in enumerate(old.states) if state != _REPLACED),
            key=lambda row: (old.states[row] != 0, -old.failed[row]),
        )
        self.forgotten += sum(not old.states[row] for row in kept[self._limit :])
        for row in sorted(kept[: self._limit]):
            table.put(old.row(row), old.events[row])
        self._table, self._order = table, []


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
    except (ValueError, OverflowError):
        return 0
