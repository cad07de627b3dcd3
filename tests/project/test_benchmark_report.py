"""The benchmarks report correctly: percentiles, tables, and the result that a later benchmark reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.latency import Templates
from benchmarks.workloads import WORKLOADS
from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.schemas import load_contracts
from connector.records import Record


@given(st.lists(st.integers(-5, 5000), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_percentile_splits_values_at_its_share(values: list[int], share: float) -> None:
    """At least the share is at or below it, and less than the share is below it. Kills: an index off by one."""
    found = report.percentile(Counter(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_table_aligns_numbers() -> None:
    """Numbers are aligned right with thousands separators, names are aligned left."""
    shown = report.table(["name", "n", "x"], [["a", 1234567, 2.25], ["longer", 5, 10.0]])
    assert shown.splitlines() == ["name            n     x", "a       1,234,567   2.2", "longer          5  10.0"]


def test_latest_result_with_same_conditions_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency starts at half of the last throughput under the same conditions."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.jsonl")
    assert report.latest("throughput") is None
    for order, rate in (("none", 1.0), ("none", 2.0), ("key", 3.0)):
        report.keep("throughput", {"order": order}, [{"records_per_second": rate}])
    report.keep("latency", {"order": "none"}, [{"records_per_second": 4.0}])
    found = report.latest("throughput", order="none")
    assert found is not None
    assert found["records_per_second"] == 2.0


def test_prepared_records_contain_their_time() -> None:
    """Records of the latency benchmark decode to events whose `itime` is the time they were produced."""
    contracts, workload = load_contracts(), WORKLOADS["jiguang"]
    decoder = Decoder(contracts, clock=SystemClock(), plain={"events": "connector.events.JiguangUserEvent"})
    for moment in (1_700_000_000_001, 1_900_000_000_000):
        for value in Templates(10).values(7, 20, moment):
            assert value[:5] == b"\0" + workload.schema_id.to_bytes(4, "big")
            event = decoder.event(Record("events", 0, 0, moment, None, value[5:], ()))
            assert event.datum["itime"] == moment
            assert len(event.datum["properties"]) == 8


@pytest.mark.parametrize("vendor", WORKLOADS)
def test_workloads_match_their_contract_schemas(vendor: str) -> None:
    """Values differ, and each is valid for the vendor's schema."""
    first, *_, last = list(WORKLOADS[vendor].values(300, 1_700_000_000_000))
    assert first != last
    schema = f"connector.events.{WORKLOADS[vendor].schema}"
    decoder = Decoder(load_contracts(), clock=SystemClock(), plain={"events": schema})
    for value in (first, last):
        assert decoder.event(Record("events", 0, 0, 0, None, value[5:], ())).schema == schema
