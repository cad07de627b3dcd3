"""The token bucket and learned limits: no second over the limit, nearly all of it used, shares handed over safely."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.delivery.pacing import LearnedLimits, TokenBucket
from connector.pipeline.batching import Batch
from connector.vendors.base import Limits
from tests.unit.delivery.delivery_rig import Rig, played

LIMITS = st.sampled_from([1, 2, 3, 5, 10, 25, 40, 99, 100, 101, 500])


def fullest_second(times: list[float]) -> int:
    """Return how many of these ascending times the fullest half-open second holds."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.promise("P8")
@settings(max_examples=150)
@given(limit=LIMITS, seed=st.integers(0, 2**32), late=st.sampled_from([0.0, 0.001, 0.009]), idle=st.booleans())
def test_no_second_is_over_the_limit_and_98_percent_is_used(limit: int, seed: int, late: float, idle: bool) -> None:
    """Asked as soon as it may be, with up to 9 ms of lateness: no sliding second is over, and 98 % is used.

    Kills: a bucket that saves tokens while idle; one that loses a timer's lateness; pacing at 100 % with lateness.
    """
    random, bucket = Random(seed), TokenBucket(limit)
    now, times = 1000.0, []
    while now < 1010.0:
        wait = bucket.delay(now)
        if wait > 0:
            now += wait + random.uniform(0.0, late)
            continue
        bucket.take(now)
        times.append(now)
        if idle and random.random() < 0.05:
            now += random.uniform(0.0, 3.0)
    assert fullest_second(times) <= limit
    if not idle:
        assert len(times) >= 0.98 * limit * (times[-1] - times[0])


@pytest.mark.promise("P8")
@settings(max_examples=100)
@given(limit=LIMITS, members=st.sampled_from([2, 3]), seed=st.integers(0, 2**32))
def test_members_that_come_and_go_share_the_limit(limit: int, members: int, seed: int) -> None:
    """Whatever moves between members, no second of the group holds more than the limit and one request a member.

    Kills: a gained share that starts with a token in hand.
    """
    random = Random(seed)
    buckets = [TokenBucket(limit) for _ in range(members)]
    shares = [1.0] + [0.0] * (members - 1)
    now = 0.0
    for bucket, share in zip(buckets, shares, strict=True):
        bucket.set_share(share, now)
    times: list[float] = []
    handover = random.uniform(0.0, 2.0)
    while now < 12.0:
        now += 0.002
        if now >= handover:
            cuts = sorted(random.randrange(13) for _ in range(members - 1))
            shares = [(b - a) / 12 for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
            order = sorted(range(members), key=lambda m: shares[m] - (buckets[m].rate or 0.0) / limit)
            for member in order:
                buckets[member].set_share(shares[member], now)
            handover = now + random.choice([0.01, 0.1, 0.5, 3.0])
        for bucket in buckets:
            if bucket.delay(now) <= 0:
                bucket.take(now)
                times.append(now)
    assert fullest_second(times) <= limit + members


def test_nothing_limits_a_vendor_without_a_limit() -> None:
    """Without a limit there is never a delay, except when the vendor asks for one."""
    bucket = TokenBucket(None)
    for _ in range(1000):
        assert bucket.delay(5.0) == 0.0
        bucket.take(5.0)
    assert bucket.rate is None
    bucket.wait_until(7.5)
    assert bucket.delay(5.0) == 2.5


def test_without_a_share_there_is_no_token() -> None:
    """A share of nothing waits for ever; the next one starts empty."""
    bucket = TokenBucket(10)
    bucket.set_share(0.0, 0.0)
    assert bucket.delay(0.0) == float("inf")
    bucket.set_share(0.5, 100.0)
    assert bucket.rate == 5.0
    assert 0.2 <= bucket.delay(100.0) <= 0.21


def test_a_vendors_wish_is_kept() -> None:
    """No token is given out before the moment that the vendor named, and an earlier one changes nothing."""
    bucket = TokenBucket(10)
    bucket.wait_until(50.0)
    bucket.wait_until(20.0)
    assert bucket.delay(10.0) == 40.0
    assert bucket.delay(60.0) == 0.0


@played
async def test_a_limit_that_is_refused_again_after_it_grew_is_tried_less_often() -> None:
    """A vendor that takes five records and no more refuses fewer and fewer requests, and one an hour at the end.

    Kills: one refused request for each raise, for ever.
    """
    deliveries = [Rig().delivery(0)] * 20
    now = [0.0]
    limits = LearnedLimits(lambda _group: Limits(20, 10**6, 2, 1), lambda: now[0])
    refused = []
    for second in range(0, 48 * 3600, 10):
        now[0] = float(second)
        size = limits.of("g").records
        if size > 5:
            refused.append(second)
            limits.too_large(Batch("g", deliveries[:size]), "records")
    grown = [later - earlier for earlier, later in pairwise(refused) if later > earlier]
    assert grown == sorted(grown)
    assert grown[-1] >= 3600 > 10 * grown[0]
