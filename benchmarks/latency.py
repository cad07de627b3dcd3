"""Measures the age of a record when its vendor accepts it, at a steady rate.

Real Kafka and `connector run`. The rate is `--rate`, or half of the last result of `benchmarks.throughput`. Each
record's timestamp and `itime` are the moment it is produced. The sink subtracts that from the time of its answer.
Prints p50, p99 and the maximum next to the bound (linger + vendor's time + 20 ms), and appends them to
benchmarks/results.jsonl.

    python -m benchmarks.latency --seconds 20 --sink-delay 0.05
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

from benchmarks import surroundings
from benchmarks.report import keep, latest, percentile, table
from benchmarks.surroundings import Members, counts
from benchmarks.workloads import WORKLOADS, event

TOPIC: Final = "events"
ALLOWANCE_MS: Final = 20
TICK: Final = 0.005
"""Seconds between two groups of records."""
SETTLE: Final = 3.0
"""Seconds at the full rate, after catching up, before counting begins."""
_STAMP: Final = 1_700_000_000_000


class Templates:
    """Encoded events with a gap for `itime`, so that a fast producer takes little CPU from what is measured."""

    def __init__(self, count: int = 1000) -> None:
        schema = parse_schema(json.loads(WORKLOADS["jiguang"].text))
        stamp, head = _long(_STAMP), b"\0" + WORKLOADS["jiguang"].schema_id.to_bytes(4, "big")
        self._parts: list[tuple[bytes, bytes]] = []
        for number in range(count):
            out = io.BytesIO()
            schemaless_writer(out, schema, {**event(number, 0), "itime": _STAMP})
            before, _, after = out.getvalue().partition(stamp)
            self._parts.append((head + before, after))

    def values(self, start: int, count: int, now: int) -> list[bytes]:
        """Return this many values for the moment `now` (epoch milliseconds)."""
        stamp, parts = _long(now), self._parts
        return [
            before + stamp + after for before, after in (parts[at % len(parts)] for at in range(start, start + count))
        ]


def _long(value: int) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, "long", value)
    return out.getvalue()


class Stream:
    """Produces at a steady rate in a thread until it is stopped."""

    def __init__(self, bootstrap: str, rate: float) -> None:
        self.produced = 0
        self._rate = rate
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1})
        self._templates = Templates()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stop producing, and wait until Kafka has acknowledged everything."""
        self._stop.set()
        self._thread.join()
        if self._producer.flush(60):
            raise SystemExit("Kafka did not acknowledge the records within 60 s")

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(TICK):
            due = int((time.monotonic() - begun) * self._rate) - self.produced
            now = int(time.time() * 1000)
            for number, value in enumerate(self._templates.values(self.produced, due, now), self.produced):
                self._producer.produce(TOPIC, value, key=str(number), timestamp=now)
            self._producer.poll(0)
            self.produced += due


def measure(command: list[str], url: str, stream: Stream, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the member under load. Return the latencies of whole seconds after it had caught up."""
    with Members([command]) as members:
        deadline = time.monotonic() + arguments.longest
        with stream:
            while (seen := counts(url)["events"]) == 0 or seen < stream.produced - arguments.rate:
                if members.ended or time.monotonic() > deadline:
                    raise SystemExit(f"the member did not keep up with {arguments.rate:,.0f} records/s")
                time.sleep(0.2)
            first = int(time.time() + SETTLE) + 1
            before = stream.produced
            time.sleep(arguments.seconds + SETTLE + 1)
            rate = (stream.produced - before) / (arguments.seconds + SETTLE + 1)
        while counts(url)["events"] < stream.produced:
            if members.ended or time.monotonic() > deadline + arguments.seconds:
                raise SystemExit("not every record arrived")
            time.sleep(0.1)
        latencies = counts(url)["latency"]
        members.stop()
    found: Counter[int] = Counter()
    for second in range(first, first + int(arguments.seconds)):
        found.update({int(taken): count for taken, count in latencies.get(str(second), {}).items()})
    bound = arguments.linger * 1000 + arguments.sink_delay * 1000 + ALLOWANCE_MS
    p99 = percentile(found, 0.99)
    return {
        "records": sum(found.values()),
        "records_per_second": rate,
        "p50_ms": percentile(found, 0.5),
        "p99_ms": p99,
        "max_ms": max(found),
        "bound_ms": bound,
        "within": p99 <= bound,
    }


def half_of_throughput(arguments: argparse.Namespace) -> float:
    """Return half of the last throughput under the same conditions. Exits with a message if there is none."""
    wanted = {"system": "connector", "vendor": "jiguang", "processes": 1, "order": arguments.order}
    found = latest("throughput", **wanted, sink_delay=arguments.sink_delay)
    if found is None:
        raise SystemExit(
            "no throughput was measured under these conditions: run benchmarks.throughput first, or pass --rate"
        )
    return float(found["records_per_second"]) / 2


def main() -> None:
    """Measure, print and store the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, help="records a second (default: half of the last throughput)")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds in which latencies are counted")
    parser.add_argument("--sink-delay", type=float, default=0.0, help="seconds until the sink answers")
    parser.add_argument("--linger", type=float, default=0.2, help="the destination's batch.linger in seconds")
    parser.add_argument("--order", choices=("none", "key"), default="none")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=64, help="requests at once")
    parser.add_argument("--longest", type=float, default=60.0, help="time limit in seconds for catching up")
    arguments = parser.parse_args()
    arguments.rate = arguments.rate or half_of_throughput(arguments)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        kafka = stack.enter_context(surroundings.kafka(Path(name)))
        kafka.create_topic(TOPIC, arguments.partitions)
        schemas = stack.enter_context(surroundings.registry())
        url = stack.enter_context(surroundings.sink("jiguang", arguments.sink_delay, "--latency"))
        settings = {
            "max_in_flight": arguments.in_flight,
            "order": arguments.order,
            "batch": {"linger": f"{arguments.linger * 1000:.0f}ms"},
        }
        file = Path(name) / "latency.yaml"
        text = surroundings.configuration(
            WORKLOADS["jiguang"], TOPIC, "latency", kafka.bootstrap, schemas, url, **settings
        )
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "connector", "run", "-c", str(file)]
        found = measure(command, url, Stream(kafka.bootstrap, arguments.rate), arguments)
    heads = ["records/s", "records", "p50 ms", "p99 ms", "max ms", "bound ms", "within"]
    shown = [f"{found['records_per_second']:,.0f}", found["records"], found["p50_ms"], found["p99_ms"], found["max_ms"]]
    print(table(heads, [[*shown, f"{found['bound_ms']:.0f}", "yes" if found["within"] else "no"]]))
    keep("latency", vars(arguments), [found])


if __name__ == "__main__":
    main()
