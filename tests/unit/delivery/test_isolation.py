"""Taking a refused batch apart: every record once, always smaller, followers behind their suspects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.delivery.isolation import halves, take_apart
from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.offsets import PartitionTracker
from connector.records import Item, Record

TRACKER = PartitionTracker("t", 0, 0, ["d"])


def batch(keys: list[bytes | None]) -> Batch:
    """Return a batch of records with these keys, at offsets from 0."""
    return Batch(
        "g",
        [
            Delivery(Record("t", n % 2, n, -1, key, b"v", ()), TRACKER, 2, Item(b"x"), f"id-{n}", 1)
            for n, key in enumerate(keys)
        ],
    )


def offsets(part: Batch) -> list[int]:
    """Return the offsets of a batch."""
    return [delivery.record.offset for delivery in part.deliveries]


@settings(max_examples=200)
@given(
    keys=st.lists(st.sampled_from([None, b"a", b"b", b"c"]), min_size=2, max_size=100),
    picks=st.sets(st.integers(0, 99)),
    ordered=st.booleans(),
)
def test_parts_hold_every_record_once_and_are_smaller(keys: list[bytes | None], picks: set[int], ordered: bool) -> None:
    """Whatever the hints: no record is lost or doubled, no part is the whole, and a key's records keep their order.

    Kills: a refused batch that is sent again as it was; a follower sent before the suspect it waits for.
    """
    refused = batch(keys)
    suspects = frozenset(pick for pick in picks if pick < len(keys))
    parts = take_apart(refused, suspects, ordered=ordered)
    sent = [offset for part in parts for offset in offsets(part)]
    assert sorted(sent) == list(range(len(keys)))
    assert all(0 < len(part.deliveries) < len(keys) for part in parts)
    assert {part.group for part in parts} == {"g"}
    if ordered:
        for key in set(keys):
            same = [o for o in sent if keys[o] == key and (key is not None or o % 2 == 0)]
            assert same == sorted(same)


def test_halves_are_even_and_in_order() -> None:
    """The earlier half goes first, and is the larger one by at most one record."""
    first, second = halves(batch([None] * 7))
    assert (offsets(first), offsets(second)) == ([0, 1, 2, 3], [4, 5, 6])


@pytest.mark.promise("P5")
@settings(max_examples=200)
@given(
    count=st.sampled_from([1, 2, 3, 63, 64, 65, 99, 100]),
    picks=st.sets(st.integers(0, 99), max_size=100),
    hinted=st.booleans(),
)
def test_exactly_the_bad_are_left_alone(count: int, picks: set[int], hinted: bool) -> None:
    """Sent level by level, what is refused alone is exactly what is bad, and one bad of 100 costs at most 14 or 3 more.

    Kills: halves that leave a record out; a search that asks record by record.
    """
    bad = {pick for pick in picks if pick < count}
    waiting, alone, accepted, requests = [batch([None] * count)], [], [], 0
    while waiting:
        sent = waiting.pop(0)
        requests += 1
        wrong = [place for place, offset in enumerate(offsets(sent)) if offset in bad]
        if not wrong:
            accepted += offsets(sent)
        elif len(sent.deliveries) == 1:
            alone += offsets(sent)
        else:
            waiting = take_apart(sent, frozenset(wrong if hinted else ()), ordered=False) + waiting
    assert sorted(alone) == sorted(bad)
    assert sorted(accepted) == sorted(set(range(count)) - bad)
    if len(bad) == 1:
        assert requests - 1 <= (3 if hinted else 14)


def test_a_suspect_takes_its_keys_later_records_along() -> None:
    """With order, what stands behind a suspect of its key goes behind it, alone; others go first, together."""
    parts = take_apart(batch([b"a", b"b", b"a", b"b", b"a"]), frozenset({2}), ordered=True)
    assert [offsets(part) for part in parts] == [[0, 1, 3], [2], [4]]
    parts = take_apart(batch([b"a", b"b", b"a", b"b", b"a"]), frozenset({2}), ordered=False)
    assert [offsets(part) for part in parts] == [[0, 1, 3, 4], [2]]
