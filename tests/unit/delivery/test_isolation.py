"""Taking a refused batch apart: every record once, always smaller, followers behind their suspects."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.delivery.isolation import (
    CONTRADICTED_FOR,
    CONTRADICTED_TIMES,
    HALVE_AFTER,
    OWN_QUOTA_AFTER,
    Evidence,
    halves,
    take_apart,
)
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


def isolate(count: int, bad: set[int], hint: Callable[[list[int]], set[int]]) -> tuple[list[int], list[int], int]:
    """Send a batch until it is done; return what was refused alone, what was accepted, and the further requests.

    `hint` gives the suspects (offsets) for the offsets of a refused request.
    """
    waiting, alone, accepted, requests = [batch([None] * count)], [], [], 0
    while waiting:
        sent = waiting.pop(0)
        requests += 1
        places = offsets(sent)
        if not bad.intersection(places):
            accepted += places
        elif len(places) == 1:
            alone += places
        else:
            named = hint(places)
            suspects = frozenset(index for index, offset in enumerate(places) if offset in named)
            waiting = take_apart(sent, suspects, ordered=False) + waiting
    return alone, accepted, requests - 1


def blind_bound(count: int, bad: int) -> int:
    """Return the most further requests that halving needs for so many bad records."""
    return 2 * bad * (count - 1).bit_length()


COUNTS = st.sampled_from([1, 2, 3, 5, 31, 33, 63, 64, 65, 99, 100, 129])


@pytest.mark.promise("P5", "P17")
@settings(max_examples=200)
@given(count=COUNTS, picks=st.sets(st.integers(0, 99), max_size=100), hinted=st.booleans())
def test_exactly_the_bad_are_left_alone(count: int, picks: set[int], hinted: bool) -> None:
    """What is refused alone is exactly what is bad, and one bad of 100 costs at most 14 requests more, hinted 3.

    Kills: halves that leave a record out; a search that asks record by record.
    """
    bad = {pick for pick in picks if pick < count}
    alone, accepted, requests = isolate(count, bad, lambda places: bad.intersection(places) if hinted else set())
    assert sorted(alone) == sorted(bad)
    assert sorted(accepted) == sorted(set(range(count)) - bad)
    if len(bad) == 1 and count <= 100:
        assert requests <= (3 if hinted else 14)


@pytest.mark.slow
@pytest.mark.promise("P5", "P17")
@settings(max_examples=120)
@given(
    count=COUNTS,
    bad=st.sets(st.integers(0, 999), min_size=1, max_size=12),
    share=st.sampled_from([0.01, 0.02, 0.1, 0.33, 0.5, 0.64, 0.65, 0.8, 0.99, 1.0]),
    right=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_hints_never_cost_more_than_three_above_the_blind_bound(
    count: int, bad: set[int], share: float, right: bool, seed: Random
) -> None:
    """For any share of suspects, and for hints that name other records in every answer.

    Kills: each suspect sent alone; every hint followed, however few records it rules out.
    """
    bad = {offset % count for offset in bad}

    def hint(places: list[int]) -> set[int]:
        named = set(seed.sample(places, max(1, round(share * len(places)))))
        return named | bad if right else named

    alone, accepted, requests = isolate(count, bad, hint)
    assert sorted(alone) == sorted(bad)
    assert len(accepted) == count - len(bad)
    assert requests <= blind_bound(count, len(bad)) + 3


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 1.0])
def test_an_attribute_that_many_events_have_costs_no_more_than_halving(share: float) -> None:
    """The vendor names the attribute in every answer: its events are one part, and one of them is bad.

    Kills: sending each event with the attribute alone, 2,000 requests where 300 do.
    """
    named = set(range(100 - round(share * 100), 100))
    _, _, hinted = isolate(100, {99}, lambda _: named)
    _, _, blind = isolate(100, {99}, lambda _: set())
    assert hinted <= blind + 1


def test_a_suspect_takes_its_keys_later_records_along() -> None:
    """With order, later records of a suspect's key go after it; the others go first, together."""
    parts = take_apart(batch([b"a", b"b", b"a", b"b", b"a"]), frozenset({2}), ordered=True)
    assert [offsets(part) for part in parts] == [[0, 1, 3], [2], [4]]
    parts = take_apart(batch([b"a", b"b", b"a", b"b", b"a"]), frozenset({2}), ordered=False)
    assert [offsets(part) for part in parts] == [[0, 1, 3, 4], [2]]


def test_credentials_that_are_rotated_twice_blame_no_record() -> None:
    """The old credential is denied each time, and the new one accepted in between: that is not the record's fault.

    Kills: a good record that is dead-lettered for two rotations of a secret.
    """
    evidence, (record, other) = Evidence(), halves(batch([b"a", b"b"]))

    def refuse(at: float) -> tuple[bool, bool]:
        """Send the record alone, and deny it; return whether it is blamed, and whether that is believed."""
        evidence.sending(record, at)
        blamed = evidence.blames_records(record, probing=False)
        evidence.denied(record)
        evidence.refused(record, "4100", at + 0.1)
        believed = evidence.believes(record)
        evidence.refused_alone(record.deliveries[0])
        return blamed, believed

    def accept(at: float) -> None:
        evidence.sending(other, at)
        evidence.accepted(other, 1)

    refuse(1.0)
    evidence.renewed(2.0)
    accept(3.0)
    assert refuse(4.0) == (False, False)
    accept(5.0)
    assert refuse(6.0) == (True, True)


def test_what_an_earlier_credential_was_denied_is_no_evidence_when_the_answer_comes_late() -> None:
    """The answer to a request from before the rotation comes after it, and says nothing about the new credential."""
    evidence, (record, other) = Evidence(), halves(batch([b"a", b"b"]))
    evidence.sending(record, 1.0)
    evidence.renewed(2.0)
    evidence.denied(record)
    evidence.refused(record, "4100", 2.5)
    evidence.refused_alone(record.deliveries[0])
    evidence.sending(other, 3.0)
    evidence.accepted(other, 1)
    evidence.sending(record, 4.0)
    assert not evidence.blames_records(record, probing=False)
    evidence.refused(record, "4100", 4.5)
    assert not evidence.believes(record)


def test_one_record_is_not_taken_apart() -> None:
    """What a partition that left has made a batch of one stays that batch."""
    alone = batch([b"a"])
    assert take_apart(alone, frozenset({0}), ordered=False) == [alone]


def test_batches_are_denied_in_a_row_only_where_none_is_accepted_between() -> None:
    """Two batches of an endpoint that are denied, nothing accepted between, show that no record is the reason.

    Kills: denials that are counted for ever: two records that a firewall dislikes, days apart, would hold the endpoint.
    """
    evidence, batches = Evidence(), [batch([b"a", b"b"]) for _ in range(4)]
    for at, (one, accepted) in enumerate(zip(batches, (False, True, False, False), strict=True)):
        evidence.sending(one, float(at))
        if accepted:
            evidence.accepted(one, 2)
        else:
            assert evidence.denied(one) is (at == 3)


@pytest.mark.parametrize(
    ("code", "group", "later", "times"),
    [
        ("X", "g", 0.0, CONTRADICTED_TIMES),
        ("X", "g", CONTRADICTED_FOR, 2),
        ("Y", "g", 0.0, 2),
        ("X", "h", 0.0, 2),
    ],
    ids=["the same", "later", "another code", "another endpoint"],
)
def test_a_contradicted_code_needs_more_refusals(code: str, group: str, later: float, times: int) -> None:
    """A code that refused a record which was then accepted is believed after many refusals, there and for a while.

    Kills: a contradiction that is forgotten, that lasts for ever, or that is about every code and endpoint.
    """
    evidence, innocent, at = Evidence(), batch([b"a"]), 10.0

    def refused(record: Batch, code: str) -> bool:
        """Send a record, have it refused alone, and another accepted; return whether the refusal is believed."""
        nonlocal at
        at += 1.0
        evidence.sending(record, at)
        evidence.refused(record, code, at + 0.1)
        believed = evidence.believes(record)
        evidence.refused_alone(record.deliveries[0])
        other = batch([b"b"])
        other.group = record.group
        evidence.sending(other, at + 0.2)
        evidence.accepted(other, 1)
        return believed

    assert not refused(innocent, "X")
    evidence.sending(innocent, at + 0.5)
    evidence.accepted(innocent, 1)
    at += later
    bad = batch([b"c"])
    bad.group = group
    assert [refused(bad, code) for _ in range(times)] == [False] * (times - 1) + [True]


def test_failures_of_other_kinds_are_no_quota() -> None:
    """A record that an outage made fail often is throttled with all others, until it is throttled alone often.

    Kills: an account's 429 that pauses nothing because the record had failed before.
    """
    evidence, record, other = Evidence(), batch([b"a"]), batch([b"b"])
    evidence.failed(record)
    evidence.accepted(other, 1)
    for _ in range(HALVE_AFTER):
        evidence.failed(record)
    found = []
    for _ in range(OWN_QUOTA_AFTER):
        assert evidence.throttled(record)
        found.append(evidence.has_own_quota(record))
    assert found == [False] * (OWN_QUOTA_AFTER - 1) + [True]
