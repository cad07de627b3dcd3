"""The console's index finds exactly what reading the whole topic would find, in the right order, and stays bounded."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.console.feed import Feed
from connector.console.index import DeadLetterIndex, Query, packed, round_width, unpacked
from connector.dead_letters.reader import DeadLetterEntry, Survey, read_dead_letters
from connector.records import Record
from tests.unit.dead_letters.test_dead_letter_reader import TOPIC, dead, identity, resolution

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
    """Return a topic of dead letters, some of them resolved by records before or after them."""
    records = []
    for number, cause, code, destination, topic in made:
        # Ids are real ones, so that the same event for the same destination is the same dead letter.
        dedup = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
        more = {"destination": destination, "topic": topic, "dedup_id": dedup}
        records.append(dead(number, cause=cause, code=code, **more))
    records = [replace(record, offset=at) for at, record in enumerate(records)]
    resolved = [resolution(records[at % len(records)], "replayed") for at in done] if records else []
    return [*resolved, *records] if first else [*records, *resolved]


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
    index.take(resolution(record, "discarded") for record in records[100:140])
    index.take(records)
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


def test_a_foreign_record_is_no_dead_letter() -> None:
    """What another program wrote to the topic is counted and not shown."""
    index = DeadLetterIndex(100)
    index.take([Record(TOPIC, 0, 1, NOW, b"k", b"v", (("dlq-id", b"x"),)), Record(TOPIC, 0, 2, NOW, b"k", None, ())])
    assert (len(index), index.foreign) == (0, 2)


@given(st.one_of(st.uuids().map(str), st.text(max_size=40), st.uuids().map(lambda each: str(each).upper())))
def test_every_id_comes_back_as_it_was(text: str) -> None:
    """Ids are kept in sixteen bytes where they are UUIDs, and no two different ones become the same."""
    assert unpacked(packed(text)) == text


@given(st.integers(0, 10**13), st.integers(1, 200))
def test_bars_cover_their_span(span: int, bars: int) -> None:
    """So many bars of the width cover the span, and the width is a second at least."""
    width = round_width(span, bars)
    assert width * bars >= span
    assert width >= 1000


class Tail:
    """A topic that comes in chunks and then ends."""

    cluster_id = "cluster"

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
