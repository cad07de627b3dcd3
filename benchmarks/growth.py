"""Measures whether a record costs more when there are more records: the CPU of a small run and of a very large one.

The small run goes to a member that has just started. It is stopped (SIGSTOP) while the records are produced, so its CPU
time from then on contains neither its start nor a series of small polls. The lowest of several rounds counts. The large
run is an ordinary run, measured from its second tenth.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks import surroundings
from benchmarks.report import keep, table
from benchmarks.surroundings import Members, Result, counts, cpu_seconds
from benchmarks.workloads import WORKLOADS
from tools.servers import Kafka

ROUNDS: Final = 5
WARM: Final = 5_000
"""Records that a member delivers before the first round, so that connections are open and code is loaded."""


def grow(kafka: Kafka, schemas: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Measure both sizes, print the cost per record and the ratio, and store the result."""
    small, large = arguments.growth
    workload, settings = WORKLOADS["jiguang"], {"max_in_flight": arguments.in_flight, "order": arguments.order[0]}
    rounds: list[float] = []
    result: Result | None = None
    for records, topic in ((small, "few"), (large, "many")):
        kafka.create_topic(topic, arguments.partitions)
        file = folder / f"{topic}.yaml"
        with surroundings.sink("jiguang", arguments.sink_delay[0]) as url:
            text = surroundings.configuration(workload, topic, topic, kafka.bootstrap, schemas, url, **settings)
            file.write_text(text, encoding="utf-8")
            run = [sys.executable, "-m", "connector", "run", "-c", str(file)]
            if topic == "few":
                rounds = in_rounds(run, url, kafka.bootstrap, records, arguments.seconds)
            else:
                values = workload.values(records, int(time.time() * 1000))
                surroundings.produce(kafka.bootstrap, topic, values)
                # The time limit allows for 5,000 records a second.
                seconds = max(arguments.seconds, records / 5_000)
                result = surroundings.measure("connector", [run], url, records, seconds)
    assert result is not None
    tell(arguments, rounds, result)


def in_rounds(run: Sequence[str], url: str, bootstrap: str, records: int, seconds: float) -> list[float]:
    """Return the cost in a young member for each round, in CPU seconds per million records."""
    ready = list(WORKLOADS["jiguang"].values(records, int(time.time() * 1000)))
    arrived = WARM
    costs = []
    with Members([run]) as members:
        member = members.children[0]
        surroundings.produce(bootstrap, "few", WORKLOADS["jiguang"].values(WARM, int(time.time() * 1000)))
        wait(members, url, arrived, seconds)
        for _ in range(ROUNDS):
            member.send_signal(signal.SIGSTOP)
            surroundings.produce(bootstrap, "few", ready)
            before = cpu_seconds(member.pid)
            member.send_signal(signal.SIGCONT)
            arrived += records
            wait(members, url, arrived, seconds)
            costs.append((cpu_seconds(member.pid) - before) / records * 1e6)
        members.stop()
    return costs


def wait(members: Members, url: str, events: int, seconds: float) -> None:
    """Wait until this many events have arrived. Exits with a message if they do not."""
    deadline = time.monotonic() + seconds
    while (seen := counts(url)["events"]) < events:
        if members.ended or time.monotonic() > deadline:
            raise SystemExit(f"connector: {seen} of {events} records arrived before it ended or {seconds} s passed")
        time.sleep(surroundings.POLL_SECONDS)


def tell(arguments: argparse.Namespace, rounds: Sequence[float], result: Result) -> None:
    """Print and store the cost of both sizes."""
    small, large = arguments.growth
    few, many, tenths = min(rounds), result.cpu_seconds_per_million, result.tenths
    print(table(["records", "CPU s/million"], [[f"{small:,}", few], [f"{large:,}", many]]))
    print(f"ratio {many / few:.2f}; peak of the large run {result.peak_rss_mb:.0f} MB")
    found: dict[str, Any] = {
        "small_cpu_seconds_per_million": few,
        "large_cpu_seconds_per_million": many,
        "ratio": many / few,
        "rounds": rounds,
        "tenths": tenths,
        "peak_rss_mb": result.peak_rss_mb,
        "records_per_second": result.records_per_second,
    }
    if len(tenths) == 9:
        found["drift"] = mean(tenths[-2:]) / mean(tenths[:2])
        print(f"large run, last two tenths : second and third: {found['drift']:.2f}")
    keep("growth", vars(arguments), [found])
