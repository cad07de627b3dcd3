"""The real pipeline between models of Kafka and of the vendors, on virtual time, under faults drawn from a seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from connector.pipeline import offset_map
from tests.simulation.__main__ import run_all
from tests.simulation.mutants import MUTANTS, ROOT
from tests.simulation.scenario import STEPS, WINDOWS, draw
from tests.simulation.vendors import VENDOR_FAULTS
from tests.simulation.world import run

SEEDS = 300
CHUNK = 15


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Whatever fails and whenever, no promise is broken, and everything is finished once the faults stop.

    A seed that fails is printed; `python -m tests.simulation SEED` replays it with its trace.
    Kills: every change that `make mutants` lists.
    """
    assert run_all(range(first, first + CHUNK)) == []


def test_every_mutant_has_its_place() -> None:
    """`make mutants` takes an hour and runs seldom: a mutant whose place was changed is noticed at once.

    Kills: a mutant that breaks nothing any more, and so proves nothing.
    """
    sources = {mutant.file: (ROOT / mutant.file).read_text(encoding="utf-8") for mutant in MUTANTS}
    assert [mutant.name for mutant in MUTANTS if sources[mutant.file].count(mutant.old) != 1] == []
    assert [mutant.test for mutant in MUTANTS if not (ROOT / (mutant.test.split("::")[0] or ".")).exists()] == []


@pytest.mark.promise("P3")
@pytest.mark.parametrize("at", [0.001, 0.01, 0.02, 0.05, 0.11, 0.3, 1.0, 2.5])
def test_a_cancelled_run_drains_and_leaves_no_task(at: float) -> None:
    """Cancelled at any moment, a run ends as by a stop: nothing is sent twice, and no task of it is left.

    Kills: a runner that goes on alone when what waits for it is cancelled.
    """
    rough = draw(26)
    calm = replace(rough.weather, request=0.0, commit=0.0, dead_letter=0.0, windows=())
    scenario = replace(rough, weather=calm, members=1, crashes=(), events=((at, "cancel"),), map_limit=4095)
    assert run(26, scenario).broken is None


FAULTS = (
    *(f"crash at {step}" for step in STEPS),
    *("revoked", "revoked in the middle of something", "lost", "expelled", "a partition came back"),
    *(f"answer: {kind}" for kind in VENDOR_FAULTS),
    *(f"window: {kind}" for kind in WINDOWS),
    *("403 for one record", "5xx for one record", "429 for one record", "a slow destination", "a rotated secret"),
    *("a partition was added", "a destination was held", "a commit hung through a rebalance"),
    *("a destination was absent", "a topic was recreated", "a topic was away", "a recreated topic ended a member"),
    "a commit for a recreated topic was refused",
    *("forged headers", "our own code raised while it decoded", "our own code raised while it prepared"),
    *("slow answer", "accepted after the time-out", "a refused batch", "registry down"),
    *("a dead letter failed", "a dead letter's acknowledgement was lost"),
    *("commit did not arrive", "commit's answer was lost"),
    *("a full map", "foreign metadata", "a resumed partition went back"),
    *(f"skip of what is {what}: skipped" for what in ("not read", "not routed", "routed")),
    *(f"skip of what is {what}: refused" for what in ("routed", "done")),
    "skip of what is routed: pending",
    *(
        f"replay: {cause}"
        for cause in ("decode", "route", "invalid", "refused", "gave_up", "unknown_outcome", "operator", "internal")
    ),
    *("a replay was accepted", "a replay was dead-lettered"),
)
"""Every fault that the seeds have to bring about, each at least once."""


def test_the_seeds_reach_every_fault() -> None:
    """Among the seeds that every run of the tests plays, each kind of fault happens.

    It stops at the seed with which the last one is seen, a fraction of all.
    """
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        seen += run(seed).faults
        if all(seen[fault] for fault in FAULTS):
            return
    assert [fault for fault in FAULTS if not seen[fault]] == []


def test_a_seed_replays_step_by_step() -> None:
    """The same seed takes the same steps, so that a failure can be looked at again."""
    assert [run(seed).trace for seed in (3, 8, 26)] == [run(seed).trace for seed in (3, 8, 26)]


def test_the_worlds_are_rough() -> None:
    """The seeds reach what they are for: repeats after faults, dead letters, and many assignments."""
    reports = [run(seed) for seed in range(12)]
    totals = {name: sum(report.counts[name] for report in reports) for name in reports[0].counts}
    assert totals["repeats"] > 10
    assert totals["letters"] > 10
    assert totals["epochs"] > 40
    assert totals["accepted"] > 300


def test_an_exception_that_ends_a_member_is_in_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace of a seed that fails by an exception has its traceback, so that the place is known.

    Kills: a trace that only names the exception.
    """

    def fail(*_: object) -> bytes:
        raise ValueError("a fault of the map")

    monkeypatch.setattr(offset_map, "_content", fail)
    report = run(1)
    assert "a fault of the map" in (report.broken or "")
    assert any("Traceback" in line and "_content" in line for line in report.trace)
