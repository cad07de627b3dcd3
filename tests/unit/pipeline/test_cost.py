"""What a record costs, counted in calls and not in seconds: the same on every machine, busy or not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest
from confluent_kafka import Message

from benchmarks import job
from connector.codec.schemas import load_contracts
from connector.kafka.consumer import to_records
from connector.records import Record
from connector.testing.loop import LoopClock, run_virtual

pytestmark = pytest.mark.timeout(120)

PACKAGE = str(Path(__file__).resolve().parents[3] / "connector")
MADE = {"jiguang": 4.9, "quick_audience": 5.3, "mytracker": 10.8, "jpush_report": 17.3, "mapped": 4.9}
"""Calls from the connector's code for each record, Python's and C's, of a run with everything on, as measured."""
HEADROOM = 1.25
"""The guard catches work for each record that creeps in, such as a search or a second encoding.

It is not for saving calls: a well-named function may cost one. Where more are wanted, measure again and raise `MADE`.
"""


def count(name: str, records: list[Record]) -> Counter[str]:
    """Return the calls made by the connector's own files while the records go through the real pipeline."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event in {"call", "c_call"}:
            calls[frame.f_code.co_filename] += 1

    async def play() -> None:
        sys.setprofile(note)
        try:
            committed = await job.play(job.MemorySource(records), LoopClock(), load_contracts(), name)
        finally:
            sys.setprofile(None)
        assert sum(committed.values()) == len(records)

    run_virtual(play())
    return Counter({name: found for name, found in calls.items() if name.startswith(PACKAGE) and "testing" not in name})


async def made(name: str, count: int) -> list[Record]:
    """Return so many records of one of the benchmarks' jobs."""
    return job.records(count, LoopClock(), load_contracts(), name=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", job.JOBS)
def test_no_work_for_each_record_creeps_in(name: str) -> None:
    """What one more record costs stays near what it was. Kills: work for each record that a run could do once."""
    few, many = run_virtual(made(name, 1000)), run_virtual(made(name, 3000))
    more = sum(count(name, many).values()) - sum(count(name, few).values())
    assert more / (len(many) - len(few)) < MADE[name] * HEADROOM


def test_messages_become_records_in_bulk() -> None:
    """The jobs begin with records; before that a message costs one call. Kills: a function called for each message."""
    messages = [Message(topic="t", partition=0, offset=number, value=b"v", timestamp=(1, 7)) for number in range(1000)]
    calls: Counter[str] = Counter()

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        calls[event] += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        found = to_records(messages, lambda *_: None)
    finally:
        sys.setprofile(None)
    assert len(found) == len(messages)
    assert sum(calls.values()) < 1.1 * len(messages)


def test_the_cost_of_a_record_does_not_grow() -> None:
    """The next thousand records cost what the first did. Kills: a search through everything that was read before."""
    costs = [sum(count("jiguang", run_virtual(made("jiguang", size))).values()) for size in (1000, 2000, 4000)]
    first, second = (costs[1] - costs[0]) / 1000, (costs[2] - costs[1]) / 2000
    assert second < 1.02 * first
