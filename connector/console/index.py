"""The facts that the console keeps of each dead letter, to count, filter and list them without reading Kafka again.

Rows are stored in columns, without a Python object per row: numbers in arrays, ids in sixteen bytes each, keys and
messages end to end in one buffer, and each repeated text once. So a dead letter takes about 200 bytes with short keys
and messages, and at most 1,000 with any content in an index of ten thousand or more. Above its limit, and above
MOST_BYTES, the index drops resolved dead letters first, then the oldest, and counts how many it dropped.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal, NamedTuple

from connector.console import scan
from connector.console.columns import KEY_LIMIT, DeadLetterColumns, DeadLetterRow, packed
from connector.dead_letters.filters import Filter, parse_where
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import Resolution, parse_resolution
from connector.dead_letters.states import STATES, States
from connector.records import Record

_GONE: Final = len(STATES)
"""The state of a row that is no longer shown: another row replaces it, or Kafka deleted its record."""

Name = Literal["cause", "code", "destination", "topic", "field", "vendor"]
Searched = tuple[tuple[str, ...], str | None]
"""What a search looks for in the records: conditions, and a text."""
PLACE: Final = ("partition", "offset")
"""Properties of the origin by which dead letters can also be filtered."""
_MATCHES: Final = 2
"""A search's verdict on a dead letter: it matches. 1: it does not match; 0: not examined."""
_SEARCHES: Final = 8
"""Searches whose verdicts are kept, at a byte per dead letter."""

_SLACK: Final = 1.1
MOST_BYTES: Final = 256 << 20
"""Approximate maximum bytes of all rows: a pod's memory is limited, however long keys and messages are."""


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
    """Selects dead letters: one value for each name in `where`, failed from `since` to `until` (epoch ms)."""

    where: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    since: int | None = None
    until: int | None = None
    resolved: bool = False
    ids: frozenset[str] = frozenset()
    conditions: tuple[str, ...] = ()
    """Conditions in the form of `--where` on what the index does not keep: headers and fields of the event."""
    contains: str | None = None
    """Text that the record's key or value contains."""

    @property
    def searched(self) -> Searched | None:
        """The conditions that need a search of the records; None if the index can decide all."""
        return (self.conditions, self.contains) if self.conditions or self.contains is not None else None

    def as_filter(self) -> Filter:
        """Return the query as a filter for reading the topic."""
        found = parse_where(self.conditions)
        where = {name: frozenset({value}) for name, value in self.where if name != "topic"}
        if self.ids:
            where["id"] = self.ids
        return replace(
            found,
            where={**found.where, **where},
            since=self.since,
            until=self.until,
            key=None if self.key is None else self.key.encode(errors="surrogateescape"),
            topics=frozenset(value for name, value in self.where if name == "topic"),
            contains=None if self.contains is None else self.contains.encode(errors="surrogateescape"),
        )


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
        self._states = States()
        self._row_of = array("i")
        """The row of each dead letter that `States` has noted; -1 if it was dropped."""
        self._gone = 0
        self.forgotten = 0
        """Unresolved dead letters that were dropped because there was no room for them, the oldest."""
        self.foreign = 0
        """Records of the topic that are not dead letters of a connector, or not readable as such."""
        self.version = 0
        """Changes whenever the index changes."""
        self._columns = DeadLetterColumns()
        self._order = array("I")
        self._found: dict[Query, array[int]] = {}
        self._found_at = -1
        self._verdicts: OrderedDict[Searched, bytearray] = OrderedDict()
        """The verdicts of searches, by the rows of `States`, which never change."""

    def __len__(self) -> int:
        """Return how many dead letters there are, including resolved ones."""
        return len(self._columns) - self._gone

    def clear(self) -> None:
        """Forget everything, because the topic was recreated."""
        with self._lock:
            self.__dict__.update(
                DeadLetterIndex(self._limit).__dict__ | {"_lock": self._lock, "version": self.version + 1}
            )

    def take(self, records: Iterable[Record], *, show: bool = True) -> None:
        """Add records of the dead-letter topic to the index: dead letters and resolutions, in the topic's order.

        With `show` false, searches find them only after the next `show`. Each change drops the cached searches, which
        would slow down reading a large topic.
        """
        # Outside of the lock, because parsing is most of the work, and pages read at the same time.
        parsed = [(record, _parsed(record)) for record in records]
        with self._lock:
            for record, found in parsed:
                if isinstance(found, Resolution):
                    self._resolve(found, record.partition)
                elif found is None or record.value is None:
                    self.foreign += 1
                else:
                    self._put(record, found)
            full = len(self) > self._limit * _SLACK or self._columns.size > MOST_BYTES
            if full or self._gone > max(1000, len(self)):
                self._compact()
                show = True
            self.version += show

    def drop_before(self, beginnings: Mapping[int, int]) -> int:
        """Drop the dead letters that Kafka has deleted: those before their partition's first offset.

        Returns how many. A dead letter with a copy in another partition stays, at the place of that copy.
        """
        with self._lock:
            columns, dropped = self._columns, 0
            for row, state in enumerate(columns.states):
                partition = columns.partitions[row]
                if state == _GONE or columns.offsets[row] >= beginnings.get(partition, 0):
                    continue
                noted = columns.noted[row]
                if state == STATES.index("open"):
                    # Close a deleted copy like a discarded one: a copy in another partition keeps the dead letter open.
                    self._states.resolve(columns.ids[row], partition, "discarded")
                    if self._states.state(noted) == "open":
                        columns.partitions[row], columns.offsets[row] = self._states.place(noted)
                        continue
                self._forget(row)
                dropped += 1
            if self._gone > max(1000, len(self)):
                self._compact()
            self.version += bool(dropped)
            return dropped

    def show(self) -> None:
        """Let searches find everything that was added."""
        with self._lock:
            self.version += 1

    def rows(self, query: Query) -> array[int]:
        """Return the row numbers of the wanted dead letters, newest first. Valid until the version changes."""
        with self._lock:
            if self._found_at != self.version:
                self._found.clear()
                self._found_at = self.version
            found = self._found.get(query)
            if found is None:
                # A page asks for the same rows several times (table, counts,
                # charts); more than a few queries are not worth keeping.
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
            numbers = scan.tally(self.rows(query), column.rows, len(column.texts))
            found = [(text, number) for text, number in zip(column.texts, numbers, strict=True) if number]
            return sorted(found, key=lambda each: -each[1])

    def kinds(self, query: Query) -> list[KindCount]:
        """Return the wanted dead letters by cause, code and destination, most frequent first."""
        with self._lock:
            columns = [self._columns.columns[name] for name in ("cause", "code", "destination")]
            cause, code, to = (column.rows for column in columns)
            found = scan.kinds(self.rows(query), self._columns.failed, cause, code, to)
            texts = [column.texts for column in columns]
            kinds = (KindCount(texts[0][a], texts[1][b], texts[2][c], *each) for (a, b, c), each in found)
            return sorted(kinds, key=lambda kind: (-kind.dead_letters, kind))

    def histogram(self, query: Query, start: int, end: int, bars: int) -> TimeBuckets:
        """Return the wanted dead letters between two times in at most `bars` buckets of equal, round width."""
        width = round_width(max(1, end - start), bars)
        first = start // width * width
        number = (end - first) // width + 1
        with self._lock:
            cause = self._columns.columns["cause"]
            found = scan.bins(self.rows(query), self._columns.failed, cause.rows, first, width, number)
            return TimeBuckets(first, width, {cause.texts[each]: counts.tolist() for each, counts in found.items()})

    def span(self, query: Query) -> tuple[int, int] | None:
        """Return when the first and the last of the wanted dead letters failed; None if there are none."""
        with self._lock:
            rows = self.rows(query)
            return (self._columns.failed[rows[-1]], self._columns.failed[rows[0]]) if rows else None

    def unsearched(self, query: Query) -> list[tuple[int, int]]:
        """Return the places of dead letters that may match and that no search has examined yet."""
        if query.searched is None:
            return []
        with self._lock:
            rows = self.rows(replace(query, conditions=(), contains=None))
            columns = self._columns
            left = scan.judged(rows, columns.noted, self._verdict(query.searched), 0)
            return [(columns.partitions[row], columns.offsets[row]) for row in left]

    def judge(self, searched: Searched, looked: Iterable[tuple[str, bool]]) -> None:
        """Note which dead letters (ids) a search has examined, and whether they match."""
        with self._lock:
            verdicts = self._verdict(searched)
            for identity, matches in looked:
                noted = self._states.row(identity)
                if noted is not None:
                    verdicts[noted] = _MATCHES if matches else 1
            self.version += 1

    def give_up(self, searched: Searched, places: Iterable[tuple[int, int]]) -> None:
        """Note that no search finds the records at these places: Kafka has deleted them."""
        with self._lock:
            wanted, columns, verdicts = set(places), self._columns, self._verdict(searched)
            for row, noted in enumerate(columns.noted):
                if (columns.partitions[row], columns.offsets[row]) in wanted:
                    # Counts as "does not match", unless a search examined it before it was deleted.
                    verdicts[noted] = verdicts[noted] or 1

    def find(self, identity: str) -> DeadLetterRow | None:
        """Return the dead letter with this id."""
        with self._lock:
            row = self._row(identity)
            return None if row is None else self._columns.row(row)

    def same_event(self, dedup_id: str) -> list[DeadLetterRow]:
        """Return every dead letter of one event, oldest first: for its other destinations, and after each replay."""
        with self._lock:
            rows = [row for row in self._columns.events.rows_of(packed(dedup_id)) if self._columns.states[row] != _GONE]
            return sorted(map(self._columns.row, rows), key=lambda row: row.failed_at)

    def _row(self, identity: str) -> int | None:
        """Return the row of an id; None if it is not here, or if only another id with the same hash is."""
        noted = self._states.row(identity)
        row = -1 if noted is None else self._row_of[noted]
        return row if row >= 0 and self._columns.ids.packed(row) == packed(identity) else None

    def _put(self, record: Record, facts: ParsedDeadLetter) -> None:
        """Add a dead letter, or reopen one that failed again after it was resolved; a copy changes nothing."""
        noted, stands = self._states.note(facts.id, record.partition, record.offset)
        if not stands:
            return
        if noted == len(self._row_of):
            self._row_of.append(-1)
        # It failed again after it was resolved, so its new facts take the place of the old ones.
        elif self._row_of[noted] >= 0:
            self._forget(self._row_of[noted])
        self._row_of[noted] = len(self._columns)
        self._columns.add(record, facts, noted)

    def _forget(self, row: int) -> None:
        """Stop showing a row."""
        self._columns.states[row] = _GONE
        self._row_of[self._columns.noted[row]] = -1
        self._gone += 1

    def _resolve(self, resolution: Resolution, partition: int) -> None:
        """Apply a resolution, which closes only the copies in front of it in its own partition."""
        noted = self._states.resolve(resolution.dead_letter, partition, resolution.kind)
        row = -1 if noted is None else self._row_of[noted]
        if noted is None or row < 0:
            return
        self._columns.partitions[row], self._columns.offsets[row] = self._states.place(noted)
        state = self._states.state(noted)
        if state != "open":
            self._columns.states[row] = STATES.index(state)
            self._columns.resolved[row] = _millis(resolution.at)

    def _search(self, query: Query) -> array[int]:
        """Return the wanted rows; each condition looks only at what the conditions before it left."""
        columns = self._columns
        if len(self._order) != len(columns):
            # Sort only the new rows, and merge: of a million rows nearly all are in order already.
            fresh = sorted(
                range(len(columns) - 1, len(self._order) - 1, -1), key=columns.failed.__getitem__, reverse=True
            )
            self._order = scan.merged(self._order, array("I", fresh), columns.failed)
        begin = 0 if query.until is None else self._not_after(query.until)
        end = len(self._order) if query.since is None else self._not_after(query.since - 1)
        most = _GONE if query.resolved else 1
        # Times first. The order is by time, so they cost two binary searches, however many rows there are.
        found = scan.below(self._order, begin, end, columns.states, most)
        if query.ids:
            wanted = {row for identity in query.ids if (row := self._row(identity)) is not None}
            found = array("I", (row for row in found if row in wanted))
        for name, text in query.where:
            if name in PLACE:
                numbers = columns.origin_partitions if name == "partition" else columns.origin_offsets
                number = int(text)
            else:
                numbers = columns.columns[name].rows
                number = columns.columns[name].numbers.get(text, -1)
            found = scan.equal(found, numbers, number)
        if query.key is not None:
            key = query.key.encode(errors="surrogateescape")[:KEY_LIMIT]
            found = array("I", (row for row in found if columns.key(row) == key))
        if query.searched is not None:
            found = scan.judged(found, columns.noted, self._verdict(query.searched), _MATCHES)
        return found

    def _verdict(self, searched: Searched) -> bytearray:
        """Return a search's verdicts so far, extended by rows for the dead letters noted since."""
        verdicts = self._verdicts.setdefault(searched, bytearray())
        self._verdicts.move_to_end(searched)
        if len(self._verdicts) > _SEARCHES:
            self._verdicts.popitem(last=False)
        verdicts.extend(bytes(len(self._states) - len(verdicts)))
        return verdicts

    def _not_after(self, time: int) -> int:
        """Return the first index in the order (newest first) of a dead letter that failed at `time` or before."""
        return bisect_left(self._order, -time, key=lambda row: -self._columns.failed[row])

    def _compact(self) -> None:
        """Keep as many dead letters as there is room for: unresolved ones first, and the newest of those."""
        old = self._columns
        room = self._limit
        if old.size > MOST_BYTES:
            room = min(room, int(len(old) * MOST_BYTES / old.size / _SLACK))
        kept = sorted(
            (row for row, state in enumerate(old.states) if state != _GONE),
            key=lambda row: (old.states[row] != 0, -old.failed[row]),
        )
        self.forgotten += sum(not old.states[row] for row in kept[room:])
        for row in kept[room:]:
            self._row_of[old.noted[row]] = -1
        old.keep(array("I", sorted(kept[:room])))
        for row, noted in enumerate(old.noted):
            self._row_of[noted] = row
        self._order, self._gone = array("I"), 0


def _parsed(record: Record) -> Resolution | ParsedDeadLetter | None:
    """Parse a record of the topic; None if it is another program's or cannot be read."""
    try:
        return parse_resolution(record) or parse(record.headers)
    except Exception:  # noqa: BLE001 -- anyone may write to the topic: no record may end the thread that reads it
        return None


def round_width(span: int, bars: int) -> int:
    """Return the smallest round number of milliseconds, at least a second, so that `bars` of them cover `span`."""
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
    """Return ISO 8601 as epoch milliseconds, 0 if it is none."""
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return 0
