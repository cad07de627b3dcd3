"""Fault plans: what is shown when, the same for the same seed."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.testing.faults import EFFECTS, Call, Fault, FaultPlan, parse_fault


def call(body: bytes = b"", path: str = "/") -> Call:
    """Return a request with this body."""
    return Call(1, 0.0, 0.0, "POST", path, (), {}, body)


def shown(plan: FaultPlan, requests: int) -> list[int]:
    """Return the numbers, from 1, of the requests that were shown a fault."""
    return [number for number in range(1, requests + 1) if plan.choose(call())]


@given(every=st.integers(1, 7), times=st.none() | st.integers(1, 5), requests=st.integers(0, 60))
def test_every_nth_request_and_at_most_so_many(every: int, times: int | None, requests: int) -> None:
    """`every` counts the requests that match, and `times` those that were shown."""
    plan = FaultPlan([Fault("status", every=every, times=times)])
    assert shown(plan, requests) == list(range(every, requests + 1, every))[:times]


def test_the_same_seed_shows_the_same_faults() -> None:
    """A run with drawn faults can be repeated, and another seed draws others."""
    runs = [shown(FaultPlan([Fault("cut", probability=0.5)], random=Random(seed)), 200) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert 60 < len(runs[0]) < 140


def test_probabilities_at_their_ends() -> None:
    """0 is never and 1 is always."""
    assert shown(FaultPlan([Fault("cut", probability=0)]), 50) == []
    assert shown(FaultPlan([Fault("cut", probability=1)]), 5) == [1, 2, 3, 4, 5]


def test_only_requests_that_match() -> None:
    """A fault can be tied to a text in path or body, to a size, or to a predicate."""
    plan = FaultPlan([Fault("status", containing="poison")])
    assert plan.choose(call(b"a poison b"))
    assert plan.choose(call(path="/poison"))
    assert not plan.choose(call(b"a b"))
    sized = FaultPlan([Fault("too_large", limit=10)])
    assert not sized.choose(call(b"0123456789"))
    assert sized.choose(call(b"0123456789a"))
    assert not FaultPlan([Fault("cut", when=lambda each: each.method == "GET")]).choose(call())


def test_latencies_add_up_and_one_other_fault_ends_the_search() -> None:
    """Of the faults that are no latency the first is shown and the others are not counted."""
    plan = FaultPlan([Fault("latency", seconds=1), Fault("latency", seconds=2), Fault("cut"), Fault("status")])
    assert [fault.effect for fault in plan.choose(call())] == ["latency", "latency", "cut"]
    assert [each["shown"] for each in plan.describe()] == [1, 1, 1, 0]


def test_a_cleared_plan_is_well() -> None:
    """Nothing is shown any more once the faults are cleared."""
    plan = FaultPlan([Fault("status")])
    plan.clear()
    assert shown(plan, 3) == []


@pytest.mark.parametrize("effect", EFFECTS)
def test_json_says_what_python_says(effect: str) -> None:
    """Each effect can be armed as JSON and reads back as it was written."""
    written = {"effect": effect, "every": 3, "times": 2, "after": True, "seconds": 0.5, "retry_after": "7"}
    assert parse_fault(written).describe() == written


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "JSON object"),
        ({}, "effect: missing"),
        ({"effect": "explode"}, "effect: must be one of latency"),
        ({"effect": "cut", "evry": 1}, "evry: unknown"),
        ({"effect": "cut", "every": 0}, "every: must be at least 1"),
        ({"effect": "cut", "every": True}, "every: must be a whole number"),
        ({"effect": "cut", "times": 0}, "times: must be at least 1"),
        ({"effect": "cut", "probability": 1.5}, "probability: must be between"),
        ({"effect": "status", "status": 99}, "status: must be an HTTP status"),
        ({"effect": "cut", "when": "x"}, "when: unknown"),
    ],
)
def test_a_wrong_fault_is_refused_with_its_key(data: object, says: str) -> None:
    """Whatever cannot be meant is refused, and the message names the key and what is allowed."""
    with pytest.raises(ValueError, match=says):
        parse_fault(data)
