"""Ids are kept in few bytes and distinguished exactly."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from connector.dead_letters.ids import IdSet, Sieve
from connector.records import uuid5_text


@given(st.lists(st.text(max_size=3) | st.uuids().map(str), max_size=60), st.text(max_size=3))
def test_a_set_of_ids_is_a_set(ids: list[str], other: str) -> None:
    """Against Python's own set: what is new, what is in it, how many.

    Kills: an insertion that leaves a bucket unsorted, an id that is counted twice.
    """
    known: set[str] = set()
    found = IdSet()
    for one in ids:
        assert found.add(one) == (one not in known)
        known.add(one)
    assert len(found) == len(known)
    assert (other in found) == (other in known)
    assert all(one in found for one in ids)


def test_a_set_stays_within_16_bytes_an_id() -> None:
    """200,000 ids take at most 16 bytes each plus a fixed megabyte, growth included."""
    count = 200_000
    tracemalloc.start()
    try:
        ids = IdSet()
        for number in range(count):
            ids.add(uuid5_text(str(number)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ids) == count
    assert peak <= 16 * count + 1_000_000


def test_a_sieve_never_misses_a_repetition_and_seldom_errs() -> None:
    """Each repeated id is recognised; of 50,000 new ids hardly any is taken for one."""
    sieve = Sieve()
    ids = [uuid5_text(str(number)) for number in range(50_000)]
    assert sum(sieve.add(one) for one in ids) <= 2
    assert all(sieve.add(one) for one in ids[::97])
