"""The storm guard: trips on a share of the window, for one cause and code."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import StormSettings
from connector.pipeline.storms import StormGuard


def guard(share: float = 0.5, records: int = 100) -> StormGuard:
    """Return a guard with a window of its own."""
    return StormGuard(StormSettings(share=share, records=records))


@given(st.lists(st.sampled_from(["ok", "ok", "a", "b"]), max_size=400), st.sampled_from([0.1, 0.5, 1.0]))
def test_it_trips_exactly_above_its_share_of_the_window(outcomes: list[str], share: float) -> None:
    """A refusal trips where one cause and code would hold more than its share of the last records.

    Kills: adding up different causes; a window that never forgets.
    """
    storm, window = guard(share, 20), list[str]()
    for outcome in outcomes:
        if outcome == "ok":
            storm.accepted(1)
            window.append("ok")
        elif window[-20:].count(outcome) + 1 > share * 20:
            assert storm.refused("refused", outcome)
        else:
            assert not storm.refused("refused", outcome)
            window.append(outcome)


def test_one_cause_with_many_codes_is_no_storm() -> None:
    """Refusals for different reasons are different faults of records."""
    storm = guard()
    assert not any(storm.refused("refused", str(n)) for n in range(1000))


def test_a_large_acceptance_empties_the_window() -> None:
    """A thousand accepted records push every refusal out, at the cost of one window."""
    storm = guard()
    for _ in range(50):
        assert not storm.refused("refused", "x")
    assert storm.refused("refused", "x")
    storm.accepted(10**9)
    assert not any(storm.refused("refused", "x") for _ in range(50))


def test_a_reset_starts_a_new_window() -> None:
    """After a storm the count begins anew."""
    storm = guard()
    while not storm.refused("refused", "x"):
        pass
    storm.reset()
    assert [storm.refused("refused", "x") for _ in range(51)] == [False] * 50 + [True]


def test_off_never_trips() -> None:
    """Those who want the drain get it."""
    storm = StormGuard("off")
    storm.accepted(5)
    assert not any(storm.refused("refused", "x") for _ in range(10_000))
