"""Measures how long a start takes: from the process's start to the first event at the sink, by the clock and in CPU.

Real Kafka, `connector run`, a new group for each start. It includes imports, joining the group and the first request.

    python -m benchmarks.start --starts 7
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import surroundings
from benchmarks.report import keep, table
from benchmarks.throughput import Cell, Surroundings, command, topic_of
from benchmarks.workloads import EVERY

_LOOK_SECONDS = 0.01
_MOST_SECONDS = 60.0


def start(number: int, to: Surroundings) -> tuple[float, float]:
    """Start one member; return the seconds until the first event, by the clock and in CPU, and stop it."""
    with surroundings.sink("jiguang", 0) as url:
        begun = time.monotonic()
        with surroundings.Members(
            [command("connector", Cell("jiguang", 0, "none", 1), f"g-{number}", url, to, 64)]
        ) as it:
            (child,) = it.children
            while not surroundings.counts(url)["events"]:
                if it.ended or time.monotonic() - begun > _MOST_SECONDS:
                    raise SystemExit(f"start {number}: no event arrived")
                time.sleep(_LOOK_SECONDS)
            found = time.monotonic() - begun, surroundings.cpu_seconds(child.pid)
            it.stop()
    return found


def main() -> None:
    """Start a member several times, print the median and the range, and store all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--starts", type=int, default=7)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        surroundings.kafka(Path(name)) as kafka,
        surroundings.registry() as schemas,
    ):
        kafka.create_topic("results", 4)
        kafka.create_topic(topic_of("jiguang"), 4)
        values = EVERY["jiguang"].values(1000, int(time.time() * 1000))
        surroundings.produce(kafka.bootstrap, topic_of("jiguang"), values)
        to = Surroundings(kafka.bootstrap, schemas, Path(name))
        found = [start(number, to) for number in range(arguments.starts)]
    keep("start", vars(arguments), [{"seconds": seconds, "cpu_seconds": cpu} for seconds, cpu in found])
    rows = [
        [what, f"{statistics.median(each):.2f}", f"{min(each):.2f}", f"{max(each):.2f}"]
        for what, each in zip(("seconds by the clock", "CPU seconds"), zip(*found, strict=True), strict=True)
    ]
    print(table(["to the first event", "median", "lowest", "highest"], rows))


if __name__ == "__main__":
    main()
