"""Backoff: jittered, growing, capped; a vendor can only lengthen it."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import RetrySettings
from connector.delivery.pacing import Backoff


@given(failures=st.sampled_from([1, 2, 3, 10, 33, 10**6]), seed=st.integers(0, 2**32))
def test_every_wait_lies_below_its_ceiling(failures: int, seed: int) -> None:
    """The n-th wait lies between nothing and initial x 2^(n-1), and never above the cap, however often it failed."""
    backoff = Backoff(RetrySettings(initial=0.5, max=60.0), Random(seed))
    assert 0.0 <= backoff.wait(failures) <= min(60.0, 0.5 * 2 ** min(failures - 1, 60))
    assert 0.75 * min(60.0, 0.5 * 2 ** min(failures, 60)) <= backoff.probe(failures) <= 60.0


@given(
    wish=st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, float("inf"), float("-inf")]),
    failures=st.sampled_from([1, 2, 9, 10**6]),
    seed=st.integers(0, 2**32),
)
def test_a_wish_lengthens_a_wait_up_to_the_cap_and_never_shortens_it(wish: float, failures: int, seed: int) -> None:
    """What a vendor asks for is waited for, not longer than the cap, and never less than without it.

    Kills: `Retry-After: 0` that means no pause at all.
    """
    own = Backoff(RetrySettings(max=60.0), Random(seed)).wait(failures)
    assert Backoff(RetrySettings(max=60.0), Random(seed)).wait(failures, wish) == max(own, min(wish, 60.0))


def test_waits_are_spread() -> None:
    """Members that failed together come back at different times: the waits fill the whole range."""
    backoff = Backoff(RetrySettings(initial=8.0, max=60.0), Random(1))
    waits = [backoff.wait(1) for _ in range(1000)]
    assert [sum(1 for wait in waits if n <= wait < n + 2) > 150 for n in (0, 2, 4, 6)] == [True] * 4
