"""How many records a poll asks for, by how large they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.kafka.consumer import MAX_RECORDS, PollSize
from connector.pipeline.flow import POLL_RECORDS
from connector.records import Record


def records(size: int, count: int, part: str = "value") -> list[Record]:
    """Return `count` records one part of which has `size` bytes."""
    like = {
        "value": Record("t", 0, 0, -1, None, b"v" * size, ()),
        "key": Record("t", 0, 0, -1, b"k" * size, b"", ()),
        "header": Record("t", 0, 0, -1, None, b"", (("h", b"v" * size),)),
        "name": Record("t", 0, 0, -1, None, b"", (("h" * size, None),)),
    }
    return [like[part]] * count


@given(
    st.sampled_from([0, 1, 200, 1000, 99_999, 100_000, 100_001, 10**6]),
    st.integers(1, 4),
    st.sampled_from(["value", "key", "header", "name"]),
)
def test_a_poll_of_like_records_stays_below_its_bytes(size: int, polls: int, part: str) -> None:
    """After records of one size the next poll holds at most the bytes given, or one record.

    Kills: a fixed count; a part of a record, such as the names of its headers, that does not count.
    """
    chunk = PollSize(200_000)
    for _ in range(polls):
        chunk.saw(records(size, min(chunk.records, 3), part))
    assert chunk.records == 1 or chunk.records * size <= 200_000
    assert 1 <= chunk.records <= MAX_RECORDS


def test_many_tiny_headers_count_for_what_they_take() -> None:
    """30,000 headers of a byte each are a small message and take megabytes, so the next poll asks for one record.

    Kills: a count of a header's bytes alone.
    """
    chunk = PollSize(200_000)
    chunk.saw([Record("t", 0, 0, -1, None, b"", (("h", None),) * 30_000)])
    assert chunk.records == 1


def test_small_records_come_many_at_a_time() -> None:
    """A topic of small records is soon polled in full, and an empty poll changes nothing."""
    chunk = PollSize(200_000)
    for _ in range(5):
        chunk.saw(records(200, 10))
        chunk.saw([])
    assert chunk.records == MAX_RECORDS


def test_a_poll_returns_no_more_than_the_offset_map_keeps_room_for() -> None:
    """Kills: a larger poll, whose finished records the map of a stuck partition cannot hold."""
    assert MAX_RECORDS <= POLL_RECORDS


def test_an_idle_poll_waits_long_for_one_record() -> None:
    """After an empty poll the next one ends with the first record, and is rare; records are collected again at once.

    Kills: a long wait for many records, which keeps a lone one back; patience while something may have to be resumed.
    """
    chunk = PollSize(200_000)
    many = chunk.next(patient=True)
    assert many[0] > 1
    assert many[1] <= 0.01
    chunk.saw([])
    count, seconds = chunk.next(patient=True)
    assert count == 1
    assert seconds >= 10 * many[1]
    assert chunk.next(patient=False) == many
    chunk.saw(records(200, 1))
    assert chunk.next(patient=True)[0] > 1
