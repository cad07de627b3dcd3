"""Measures the connector and its peers, a plain script and FastStream: one after the other, in the same surroundings.

They read the same records from the same broker and post to the same sink. Confluent's wire format, batches as large as
the vendor accepts. Prints records per second, CPU seconds per million records and peak memory of each, and the ratios.
Only ratios are meaningful: identical runs differ by up to 20 %. Every result is appended to benchmarks/results.jsonl.

    python -m benchmarks.throughput --records 300000 --partitions 4 --in-flight 64 --sink-delay 0 --order none

Several values of --vendor, --sink-delay, --order and --processes are combined; `--all` combines all values. The peers
support Jiguang only. FastStream (`--systems script faststream connector`) has to be installed first. `mapped` is
Jiguang's events in another schema, which a route maps. JPush's records are queries of about 40 bytes, and the run
includes writing the answers to the results topic.
`--systems before connector --before PATH` compares with the connector of another checkout, which has its own `.venv`.
`--growth 10000 10000000` compares the cost per record in a small and in a large run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import surroundings
from benchmarks.growth import grow
from benchmarks.report import keep, table
from benchmarks.surroundings import Result
from benchmarks.workloads import EVERY

PEERS: Final = {
    "script": "benchmarks.plain_script",
    "faststream": "benchmarks.faststream_app",
    "floor": "benchmarks.floor",
}
BEFORE: Final = "before"
SYSTEMS: Final = (*PEERS, BEFORE, "connector")
DELAYS: Final = (0.0, 0.05)
ORDERS: Final = ("none", "key")
PROCESSES: Final = (1, 2)
SCRIPT_PATH: Final = "/smartop/api/v1/events/report"


class Cell(NamedTuple):
    """One set of conditions under which systems are compared."""

    vendor: str
    sink_delay: float
    order: str
    processes: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The servers that the systems use."""

    bootstrap: str
    schemas: str
    folder: Path


def topic_of(name: str) -> str:
    """Return the topic of a workload's events."""
    return f"events-{name}"


def command(
    system: str, cell: Cell, group: str, url: str, to: Surroundings, in_flight: int, before: str | None = None
) -> list[str]:
    """Return the command that starts a system; `before` is the checkout of the system of that name."""
    workload = EVERY[cell.vendor]
    topic = topic_of(cell.vendor)
    if system in PEERS:
        where = [to.bootstrap, topic, to.schemas, url + SCRIPT_PATH]
        return [sys.executable, "-m", PEERS[system], *where, str(in_flight), group]
    file = to.folder / f"{group}.yaml"
    settings = {"max_in_flight": in_flight, "order": cell.order}
    text = surroundings.configuration(workload, topic, group, to.bootstrap, to.schemas, url, **settings)
    file.write_text(text, encoding="utf-8")
    if system == BEFORE and before is not None:
        return [f"{before}/.venv/bin/connector", "run", "-c", str(file)]
    return [sys.executable, "-m", "connector", "run", "-c", str(file)]


def compare(cell: Cell, number: int, to: Surroundings, arguments: argparse.Namespace) -> list[Result]:
    """Measure each system under the same conditions, and store the results."""
    results = []
    with surroundings.sink(EVERY[cell.vendor].vendor, cell.sink_delay) as url:
        for system in arguments.systems:
            if system in PEERS and cell.vendor != "jiguang":
                continue
            group = f"{system}-{number}"
            started = [command(system, cell, group, url, to, arguments.in_flight, arguments.before)] * cell.processes
            result = surroundings.measure(system, started, url, arguments.records, arguments.seconds)
            left = surroundings.lag(to.bootstrap, group, topic_of(cell.vendor), arguments.partitions)
            results.append(replace(result, lag=left))
    conditions = {**vars(arguments), **cell._asdict()}
    keep("throughput", conditions, [asdict(result) for result in results])
    return results


def show(cells: list[tuple[Cell, list[Result]]]) -> str:
    """Return the table, with a line of ratios for each peer that the connector ran beside."""
    heads = ["vendor", "sink", "order", "processes", "system", "records/s", "CPU s/million", "peak RSS MB"]
    rows: list[list[str | float]] = []
    for cell, results in cells:
        where = [cell.vendor, f"{cell.sink_delay * 1000:.0f} ms", cell.order, str(cell.processes)]
        for one in results:
            measured: list[str | float] = [
                f"{one.records_per_second:,.0f}",
                one.cpu_seconds_per_million,
                f"{one.peak_rss_mb:.0f}",
            ]
            rows.append([*where, one.system, *measured, one.requests, one.exit_code, one.lag])
        by_name = {one.system: one for one in results}
        for peer in {*PEERS, BEFORE} & by_name.keys() if "connector" in by_name else ():
            ours, theirs = by_name["connector"], by_name[peer]
            ratios = [
                f"{getattr(ours, name) / getattr(theirs, name):.2f}"
                for name in ("records_per_second", "cpu_seconds_per_million", "peak_rss_mb")
            ]
            rows.append([*where, f"connector : {peer}", *ratios, "", "", ""])
    return table([*heads, "requests", "exit", "lag"], rows)


def parsed() -> argparse.Namespace:
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=64, help="requests in flight per process")
    parser.add_argument("--vendor", nargs="+", choices=EVERY, default=["jiguang"])
    parser.add_argument("--sink-delay", nargs="+", type=float, default=[0.0], help="seconds until the sink answers")
    parser.add_argument("--order", nargs="+", choices=ORDERS, default=["none"], help="the connector's order")
    parser.add_argument("--processes", nargs="+", type=int, default=[1], help="processes in one group")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["script", "connector"])
    parser.add_argument("--all", action="store_true", help="every vendor, delay, order and number of processes")
    parser.add_argument("--growth", nargs=2, type=int, metavar=("SMALL", "LARGE"), help="compare two sizes instead")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit per system")
    parser.add_argument("--before", help="another checkout, the system `before`")
    arguments = parser.parse_args()
    if (BEFORE in arguments.systems) != (arguments.before is not None):
        parser.error("--before and the system `before` belong together")
    if arguments.all:
        arguments.vendor, arguments.sink_delay = list(EVERY), list(DELAYS)
        arguments.order, arguments.processes = list(ORDERS), list(PROCESSES)
    return arguments


def main() -> None:
    """Run every combination once, print and store the results."""
    arguments = parsed()
    choices = (arguments.vendor, arguments.sink_delay, arguments.order, arguments.processes)
    cells = [Cell(*chosen) for chosen in itertools.product(*choices)]
    done: list[tuple[Cell, list[Result]]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        kafka = stack.enter_context(surroundings.kafka(Path(name), members=max(arguments.processes)))
        to = Surroundings(kafka.bootstrap, stack.enter_context(surroundings.registry()), Path(name))
        if arguments.growth:
            grow(kafka, to.schemas, to.folder, arguments)
            return
        kafka.create_topic("results", arguments.partitions)
        for vendor in arguments.vendor:
            workload = EVERY[vendor]
            kafka.create_topic(topic_of(vendor), arguments.partitions)
            values = workload.values(arguments.records, int(time.time() * 1000))
            size = surroundings.produce(kafka.bootstrap, topic_of(vendor), values)
            print(
                f"{vendor}: {arguments.records:,} records of {size:.0f} bytes in {arguments.partitions} partitions",
                flush=True,
            )
        for number, cell in enumerate(cells):
            if len(cells) > 1:
                print(f"{number + 1} of {len(cells)}: {' '.join(map(str, cell))}", file=sys.stderr)
            done.append((cell, compare(cell, number, to, arguments)))
    print(show(done))


if __name__ == "__main__":
    main()
