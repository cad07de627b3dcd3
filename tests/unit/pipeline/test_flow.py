"""The budget's hysteresis, and what the consumer is told to pause and resume."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.pipeline.flow import Budget, Flow
from connector.records import TopicPartition

A, B, C = ("t", 0), ("t", 1), ("u", 0)


@pytest.mark.promise("P12")
def test_the_budget_is_full_from_its_limit_until_half_is_free() -> None:
    """Intake waits at the limit and goes on at half of it, not one byte later or earlier.

    Kills: no hysteresis, or a comparison that is off by one.
    """
    budget = Budget(100)
    seen = []
    for change in (99, 1, -1, -48, -1, 49, 1):
        if change > 0:
            budget.add(change)
        else:
            budget.release(-change)
        seen.append((budget.used, budget.full))
    assert seen == [(99, False), (100, True), (99, True), (51, True), (50, False), (99, False), (100, True)]


@given(st.lists(st.tuples(st.sets(st.sampled_from([A, B, C])), st.sets(st.sampled_from([A, B, C])), st.booleans())))
def test_what_is_paused_is_always_what_should_be(
    steps: list[tuple[set[TopicPartition], set[TopicPartition], bool]],
) -> None:
    """Told of every change, a consumer has exactly the blocked of its assigned partitions paused.

    Kills: pausing twice, resuming what has left, forgetting that a partition which came back is not paused.
    """
    flow = Flow()
    consumer: set[TopicPartition] = set()
    before: set[TopicPartition] = set()
    for assigned, blocked, all_blocked in steps:
        flow.forget(before ^ assigned)
        consumer &= before & assigned
        change = flow.change(assigned, blocked, all_blocked=all_blocked)
        assert consumer.isdisjoint(change.pause)
        assert consumer.issuperset(change.resume)
        consumer = (consumer | set(change.pause)) - set(change.resume)
        assert consumer == (assigned if all_blocked else assigned & blocked) == flow.paused
        before = assigned
