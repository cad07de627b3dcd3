"""Whether a record costs more where there are more of them: the CPU of a small run beside that of a large one.

A member that starts, joins and delivers one record is the base; what the records of a run cost is what its member took
beyond that, so that nothing of either run is left out. Small runs are repeated, and the lowest counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Final

from benchmarks import surroundings
from benchmarks.report import keep, table
from benchmarks.surroundings import Result
from benchmarks.workloads import WORKLOADS
from tools.servers import Kafka

ROUNDS: Final = 5
_FEW: Final = 200_000
"""Below so many records a run is too short for one round to tell."""


def grow(kafka: Kafka, schemas: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Measure both sizes, print what a record costs in each and the ratio, and keep it."""
    workload = WORKLOADS["jiguang"]
    small, large = arguments.growth
    lowest: dict[int, Result] = {}
    for records in (1, small, large):
        topic = f"growth-{records}"
        kafka.create_topic(topic, arguments.partitions)
        surroundings.produce(kafka.bootstrap, topic, workload.values(records, int(time.time() * 1000)))
        for number in range(ROUNDS if records < _FEW else 1):
            with surroundings.sink("jiguang", arguments.sink_delay[0]) as url:
                group = f"{topic}-{number}"
                settings = {"max_in_flight": arguments.in_flight, "order": arguments.order[0]}
                text = surroundings.configuration(workload, topic, group, kafka.bootstrap, schemas, url, **settings)
                file = folder / f"{group}.yaml"
                file.write_text(text, encoding="utf-8")
                run = [sys.executable, "-m", "connector", "run", "-c", str(file)]
                # A run of many records is allowed as long as they would take at 10,000 a second.
                seconds = max(arguments.seconds, records / 10_000)
                result = surroundings.measure("connector", [run], url, records, seconds)
            if records not in lowest or result.cpu_seconds < lowest[records].cpu_seconds:
                lowest[records] = result
    base = lowest[1].cpu_seconds[0]
    costs = {records: (lowest[records].cpu_seconds[0] - base) / records * 1e6 for records in (small, large)}
    rows: list[list[str | float]] = [
        [f"{records:,}", round(cost, 1), f"{lowest[records].records_per_second:,.0f}", lowest[records].peak_rss_mb]
        for records, cost in costs.items()
    ]
    print(table(["records", "CPU s/million", "records/s", "peak RSS MB"], rows))
    ratio = costs[large] / costs[small]
    print(f"ratio of a record's cost, {large:,} to {small:,} records: {ratio:.2f}")
    tenths = lowest[large].tenths
    drift = mean(tenths[-2:]) / mean(tenths[:2]) if len(tenths) >= 9 else None
    if drift is not None:
        print(f"within the large run, its last fifth to its second and third tenth: {drift:.2f}")
    found = {
        "small": small,
        "large": large,
        "base_cpu_seconds": base,
        "small_cpu_seconds_per_million": costs[small],
        "large_cpu_seconds_per_million": costs[large],
        "ratio": ratio,
        "drift": drift,
        "peak_rss_mb": lowest[large].peak_rss_mb,
    }
    keep("growth", vars(arguments), [found])
