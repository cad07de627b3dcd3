"""The console's index finds exactly what reading the whole topic would find, in the right order, and stays bounded."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.console import feed as feed_module
from connector.console.columns import MOST_TEXTS, OTHER, BytesColumn, IdColumn, TextColumn, packed
from connector.console.feed import Feed
from connector.console.index import DeadLetterIndex, Query, round_width
from connector.dead_letters.reader import DeadLetterEntry, Survey, read_dead_letters
from connector.errors import StartupError, TopicRecreated
from connector.records import Record
from tests.unit.dead_letters.test_dead_letter_reader import TOPIC, at_their_places, dead, identity, resolution

CAUSES = ("refused", "invalid", "decode")
NOW = 1_700_000_000_000

dead_letters = st.builds(
    lambda number, cause, code, destination, topic: (number, cause, code, destination, topic),
    st.integers(0, 30),
    st.sampled_from(CAUSES),
    st.sampled_from([None, "4103", "4101"]),
    st.sampled_from([None, "jg", "mt"]),
    st.sampled_from(["events", "clicks"]),
)
queries = st.builds(
    Query,
    st.fixed_dictionaries(
        {},
        optional={
            "cause": st.sampled_from(CAUSES),
            "code": st.sampled_from(["", "4103"]),
            "destination": st.sampled_from(["", "jg"]),
            "topic": st.sampled_from(["events", "clicks", "unheard"]),
        },
    ).map(lambda where: tuple(where.items())),
    st.sampled_from([None, "user-1", "user"]),
    st.none() | st.integers(0, 31).map(lambda seconds: NOW + seconds * 1000),
    st.none() | st.integers(0, 31).map(lambda seconds: NOW + seconds * 1000),
    st.booleans(),
)


def topic_of(made: list[tuple[int, str, str | None, str | None, str]], done: list[int], first: bool) -> list[Record]:
    """Return a topic of dead letters, of which some are resolved, by records before or behind them."""
    records = []
    for number, _, _, destination, topic in made:
        # Ids are real ones, so that the same event for the same destination is the same dead letter.
        dedup = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
        more = {"destination": destination, "topic": topic, "dedup_id": dedup}
        # Copies say the same; which of two that differ counts is the business of the last test.
        records.append(dead(number, cause=CAUSES[number % 3], code=("4103", None)[number % 2], **more))
    resolved = [resolution(records[at % len(records)], "replayed") for at in done] if records else []
    middle = len(records) // 2 if first else len(records)
    # Each partition has its own copies and resolutions, as after a crash with a null key.
    mixed = [*records[:middle], *resolved, *records[middle:]]
    return at_their_places(replace(record, partition=at % 3 % 2) for at, record in enumerate(mixed))


def by_reading(records: list[Record], query: Query) -> list[DeadLetterEntry]:
    """Return what reading the topic finds."""
    return list(read_dead_letters(records, Survey.of(records), query.as_filter(), resolved=query.resolved))


@given(st.lists(dead_letters, max_size=25), st.lists(st.integers(0, 30), max_size=4), st.booleans(), queries)
def test_the_index_finds_what_reading_the_topic_finds(
    made: list[tuple[int, str, str | None, str | None, str]], done: list[int], first: bool, query: Query
) -> None:
    """For every query the same dead letters in the same state, newest first, however the topic was cut into reads.

    Kills: a dead letter counted twice, a forgotten resolution that comes before its dead letter, an open time bound.
    """
    records = topic_of(made, done, first)
    index = DeadLetterIndex(1000)
    for at in range(0, len(records), 7):
        index.take(records[at : at + 7])
    wanted = by_reading(records, query)
    rows, total = index.page(query, 0, 1000)
    assert total == len(wanted)
    assert {(row.id, row.state, row.cause, row.place) for row in rows} == {
        (each.facts.id, each.state, each.facts.cause, (each.record.partition, each.record.offset)) for each in wanted
    }
    assert [row.failed_at for row in rows] == sorted((row.failed_at for row in rows), reverse=True)
    assert sum(kind.dead_letters for kind in index.kinds(query)) == total
    assert sum(number for _, number in index.counts(query, "cause")) == total
    span = index.span(query)
    if span is not None:
        histogram = index.histogram(query, *span, 60)
        assert sum(sum(bins) for bins in histogram.counts.values()) == total
        assert all(len(bins) <= 62 for bins in histogram.counts.values())


def test_above_its_limit_the_index_keeps_what_matters() -> None:
    """Unresolved dead letters stay before resolved ones, new before old; what is dropped is counted."""
    records = [dead(number, dedup_id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))) for number in range(150)]
    index = DeadLetterIndex(100)
    index.take(records[100:140])
    index.take(resolution(record, "discarded") for record in records[100:140])
    index.take([*records[:100], *records[140:]])
    rows, total = index.page(Query(), 0, 200)
    assert (len(index), total, index.forgotten) == (100, 100, 10)
    assert {row.failed_at for row in rows} == {NOW + 1000 * number for number in (*range(10, 100), *range(140, 150))}
    index.take(records)
    assert len(index) <= 110
    found = index.find(identity(records[149]))
    assert found is not None
    assert index.find(identity(records[149]) + "0") is None


def test_dead_letters_of_one_event_are_found_together() -> None:
    """A record that failed for two destinations has both dead letters in its history, the older first."""
    index = DeadLetterIndex(100)
    index.take([dead(2, destination="mt", dedup_id="same"), dead(1, destination="jg", dedup_id="same"), dead(3)])
    assert [row.destination for row in index.same_event("same")] == ["jg", "mt"]


def test_a_new_failure_is_not_hidden_by_an_old_resolution() -> None:
    """A dead letter that failed again after it was discarded is open again, once, with its new cause.

    Kills: a resolution that hides later copies, two rows for one dead letter.
    """
    first = dead(1)
    topic = at_their_places([first, resolution(first, "discarded"), dead(1, cause="invalid"), dead(1)])
    index = DeadLetterIndex(100)
    index.take(topic)
    (row,), total = index.page(Query(), 0, 10)
    assert (row.cause, row.state, row.place, total) == ("invalid", "open", (0, 2), 1)
    assert [(kind.cause, kind.dead_letters) for kind in index.kinds(Query(resolved=True))] == [("invalid", 1)]
    assert [row.cause for row in index.same_event("dedup-1")] == ["invalid"]
    index.take([replace(resolution(first, "replayed"), offset=4)])
    assert index.page(Query(), 0, 10) == ([], 0)


def test_a_foreign_record_is_no_dead_letter() -> None:
    """What another program wrote to the topic is counted and not shown."""
    index = DeadLetterIndex(100)
    index.take([Record(TOPIC, 0, 1, NOW, b"k", b"v", (("dlq-id", b"x"),)), Record(TOPIC, 0, 2, NOW, b"k", None, ())])
    assert (len(index), index.foreign) == (0, 2)


@given(st.one_of(st.uuids().map(str), st.text(max_size=40), st.uuids().map(lambda each: str(each).upper())))
def test_every_id_comes_back_as_it_was(text: str) -> None:
    """A UUID is kept in sixteen bytes, any other text in full as well, and each is found by its sixteen bytes."""
    column = IdColumn(keep=True)
    for each in (str(uuid.UUID(int=1)), text):
        column.add(each)
    assert column[1] == text
    assert column.rows_of(packed(text))[-1] == 1
    assert len(column.packed(1)) == 16


@given(st.lists(st.binary(max_size=40), max_size=50))
def test_every_key_comes_back_as_it_was(values: list[bytes]) -> None:
    """Byte strings end to end in one buffer are what was put in, also those that repeat."""
    column = BytesColumn()
    for value in values:
        column.add(value)
    assert [column[row] for row in range(len(values))] == values


def test_texts_of_a_column_are_bounded() -> None:
    """A program that writes a new code into each record fills one column's texts and no more; the rest is one text."""
    column = TextColumn()
    for number in range(MOST_TEXTS + 50):
        column.add(str(number))
    assert (len(column.texts), column[MOST_TEXTS - 1], column[MOST_TEXTS]) == (MOST_TEXTS + 1, "9999", OTHER)


HALF = 1500


def memory_of(made: list[Record], patch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return the bytes that an index takes for the first half of the records, and for all of them.

    What all rows share is made smaller here, so that few records show what each of them takes.
    """
    patch.setattr("connector.console.columns.MOST_TEXTS", 1000)
    patch.setattr("connector.console.columns._RECENT", 100)
    index, taken = DeadLetterIndex(1_000_000), []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for half in (0, HALF):
            for at in range(half, half + HALF, 500):
                index.take(made[at : at + 500])
            index.rows(Query())
            taken.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert len(index) == 2 * HALF
    return taken[0], taken[1]


def test_memory_of_a_dead_letter_is_bounded_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of any length that never repeat take a bounded part each, and different codes stop to take any at all.

    Kills: a message or key that is kept whole, codes that are kept for every row, an id that is an object of its
    own. The second half is measured for itself, because the texts that all rows share must not hide what each takes.
    """
    made = []
    for number in range(2 * HALF):
        text = f"{number:06} " + "\u4e8b" * 2000
        record = dead(number, message=text, code=text, dedup_id=str(uuid.uuid4()))
        made.append(replace(record, key=text.encode()))
    half, whole = memory_of(made, monkeypatch)
    assert (whole - half) / HALF < 800
    assert half / HALF < 2100, "the texts that rows share are cut too"


def test_memory_of_a_usual_dead_letter_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages and codes that repeat are kept once. Kills: a text for each row."""
    made = []
    for number in range(2 * HALF):
        record = dead(number, message="cuid is not known " * 15, code="4103", dedup_id=str(uuid.uuid4()))
        made.append(replace(record, key=b"user-%d" % number))
    half, whole = memory_of(made, monkeypatch)
    assert max(half, whole - half) / HALF < 250


def test_dead_letters_that_kafka_deleted_are_dropped() -> None:
    """What is in front of its partition's first offset is gone, resolved or not; a copy elsewhere stays.

    Kills: a page that shows thirty where ten are in the topic, a first offset that is applied to every partition.
    """
    index = DeadLetterIndex(100)
    made = [
        replace(dead(number, dedup_id=str(uuid.uuid4())), partition=number % 2, offset=number) for number in range(8)
    ]
    copy = replace(made[0], partition=1, offset=20)
    index.take([*made, copy, replace(resolution(made[2], "discarded"), partition=0, offset=30)])
    assert index.drop_before({0: 7, 1: 2}) == 4
    rows, total = index.page(Query(resolved=True), 0, 100)
    assert total == len(index) == 4
    assert {row.place for row in rows} == {(1, 3), (1, 5), (1, 7), (1, 20)}
    assert index.find(identity(made[1])) is None
    assert [row.id for row in index.same_event(made_dedup(made[6]))] == []
    assert index.drop_before({0: 7, 1: 2}) == 0
    index.take([replace(made[1], offset=40)])
    assert index.find(identity(made[1])) is not None


def made_dedup(record: Record) -> str:
    """Return a dead letter's dedup id."""
    return next((value or b"").decode() for name, value in record.headers if name == "dlq-dedup-id")


def test_dropped_rows_give_their_memory_back() -> None:
    """Once more rows are gone than are left the columns are written again, and everything left is still found."""
    index = DeadLetterIndex(10_000)
    made = [dead(number, dedup_id=str(uuid.uuid4())) for number in range(2500)]
    index.take(made)
    assert index.drop_before({0: 2000}) == 2000
    assert len(index._columns) == len(index) == 500
    assert all((row := index.find(identity(record))) and row.place == (0, record.offset) for record in made[2000:])


@given(st.integers(0, 10**13), st.integers(1, 200))
def test_bars_cover_their_span(span: int, bars: int) -> None:
    """So many bars of the width cover the span, and the width is a second at least."""
    width = round_width(span, bars)
    assert width * bars >= span
    assert width >= 1000


class Tail:
    """A topic that comes in chunks and then ends."""

    cluster_id = "cluster"
    beginnings: Mapping[int, int] = MappingProxyType({})

    def __init__(self, chunks: list[list[Record]], feed: list[Feed]) -> None:
        self._chunks = chunks
        self._feed = feed
        self.closed = False

    @property
    def left(self) -> int:
        """How much is left."""
        return sum(map(len, self._chunks))

    def read(self) -> list[Record]:
        """Return the next chunk; after the last one the feed is stopped."""
        if not self._chunks:
            self._feed[0]._stopping.set()
            return []
        return self._chunks.pop(0)

    def close(self) -> None:
        """Record that it is closed."""
        self.closed = True


def test_the_feed_shows_everything_when_it_has_caught_up() -> None:
    """After the first reading every dead letter is found, and the topic is closed in the end."""
    index = DeadLetterIndex(1000)
    feeds: list[Feed] = []
    tail = Tail([[dead(number)] for number in range(20)], feeds)
    feeds.append(Feed(index, lambda: tail))
    feeds[0].start()
    feeds[0]._thread.join(10)
    assert (len(index.rows(Query())), feeds[0].left, feeds[0].trouble, tail.closed) == (20, 0, None, True)


def test_the_feed_follows_the_beginning_of_each_partition() -> None:
    """When Kafka deletes the first records of a partition while the console runs, it shows the rest only."""
    index = DeadLetterIndex(1000)
    feeds: list[Feed] = []

    class Deleting(Tail):
        def read(self) -> list[Record]:
            records = super().read()
            self.beginnings = {} if self._chunks else {0: 15}
            return records

    tail = Deleting([[dead(number)] for number in range(20)], feeds)
    feeds.append(Feed(index, lambda: tail))
    feeds[0].start()
    feeds[0]._thread.join(10)
    assert sorted(row.place for row in index.page(Query(), 0, 100)[0]) == [(0, number) for number in range(15, 20)]


def test_the_feed_begins_again_when_the_topic_was_recreated() -> None:
    """What was only in the old topic is shown no longer, whatever its partition and offset; the new one is whole.

    Kills: dead letters that stay until the console restarts; an old resolution that closes a new dead letter.
    """
    index = DeadLetterIndex(1000)
    feeds: list[Feed] = []

    class Gone(Tail):
        def read(self) -> list[Record]:
            if not self._chunks:
                raise TopicRecreated("recreated")
            return super().read()

    old = Gone([[dead(number)] for number in range(5)] + [[resolution(dead(1), "replayed")]], feeds)
    new = Tail([[dead(1)], [dead(7)]], feeds)
    tails: list[Tail] = [new, old]
    feeds.append(Feed(index, tails.pop))
    feeds[0].start()
    feeds[0]._thread.join(10)
    assert sorted((row.place[1], row.state) for row in index.page(Query(resolved=True), 0, 100)[0]) == [
        (1, "open"),
        (7, "open"),
    ]
    assert (old.closed, feeds[0].trouble) == (True, None)


@pytest.mark.promise("P14")
@pytest.mark.parametrize("error", [KeyError("a value"), StartupError("Kafka does not answer")])
def test_the_feed_goes_on_after_any_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The page says why the topic is not read, and the topic is opened again.

    Kills: a thread that ends with a traceback on stderr, after which the page is old and calls itself current.
    """
    monkeypatch.setattr(feed_module, "_AGAIN_SECONDS", 0.01)
    index = DeadLetterIndex(1000)
    feeds: list[Feed] = []
    troubles: list[str | None] = []
    tail = Tail([[dead(number)] for number in range(3)], feeds)

    def opened() -> Tail:
        troubles.append(feeds[0].trouble)
        if len(troubles) < 3:
            raise error
        return tail

    feeds.append(Feed(index, opened))
    feeds[0].start()
    feeds[0]._thread.join(10)
    assert (len(index.rows(Query())), feeds[0].trouble) == (3, None)
    said = str(troubles[-1])
    assert ("a value" in said, "KeyError" in said or said == str(error)) == (False, True)
