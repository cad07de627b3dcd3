"""The environment of a benchmark: real Kafka, a registry stub, the sink, records, and the members to measure."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.workloads import EVERY, RESULT_ID, ROOT, Workload
from tools.servers import Kafka

POLL_SECONDS: Final = 0.02
_SCHEMAS: Final = {one.schema_id: one.text for one in EVERY.values()}


class _Answer(http.server.BaseHTTPRequestHandler):
    """A schema registry that has the contract schemas and returns one id for every registration."""

    def do_GET(self) -> None:
        """Answer with the schema of an id."""
        found = re.search(r"/schemas/ids/(\d+)", self.path)
        schema_id = int(found[1]) if found else RESULT_ID
        self._say({"schema": _SCHEMAS.get(schema_id, ""), "id": schema_id, "version": 1, "subject": "events-value"})

    def do_POST(self) -> None:
        """Accept any schema."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._say({"schema": asked["schema"], "id": RESULT_ID, "version": 1, "subject": "results-value"})

    def _say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(http.server.ThreadingHTTPServer):
    """Accepts connections as fast as a member opens them."""

    request_queue_size = 128


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Serve the registry stub. Yields its URL."""
    server = _Server(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def kafka(folder: Path, *, members: int = 1) -> Iterator[Kafka]:
    """Run a broker. If a group will have several members, its first assignment waits for all of them."""
    properties = {"group.initial.rebalance.delay.ms": "6000"} if members > 1 else {}
    server = Kafka(folder / "kafka", heap="512m", properties=properties)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def sink(vendor: str, delay: float, *more: str) -> Iterator[str]:
    """Run the sink in its own process. Yields its URL."""
    command = [sys.executable, "-m", "benchmarks.sink", "--vendor", vendor, "--delay", str(delay), *more]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.kill()


def counts(url: str) -> dict[str, Any]:
    """Return the sink's counts."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- the sink's own URL
        found: dict[str, Any] = json.load(answer)
        return found


def configuration(
    workload: Workload, topic: str, group: str, bootstrap: str, schemas: str, url: str, **settings: Any
) -> str:
    """Return the connector's configuration: one destination without a rate limit. JSON is valid YAML."""
    lifted = {"agreed_limits": True, "requests_per_second": 1_000_000}
    return json.dumps(
        {
            "kafka": {
                "topics": [topic],
                "group_id": group,
                "create_topics": True,
                "client": {"bootstrap.servers": bootstrap},
            },
            "schema_registry": {"url": schemas},
            "destinations": {
                "sink": {"vendor": workload.vendor, "base_url": url, **workload.account, **lifted, **settings}
            },
            "routes": workload.routes("sink"),
            "server": {"port": 0},
            "log": {"level": "warning", "format": "json"},
        },
        indent=2,
    )


def produce(bootstrap: str, topic: str, values: Iterable[bytes]) -> float:
    """Write the values, distributed over the partitions by key. Return their mean size in bytes."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    size = number = 0
    for number, value in enumerate(values, 1):
        size += len(value)
        while True:
            try:
                producer.produce(topic, value, key=str(number % 100_003))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not acknowledge the records within 120 s")
    return size / max(number, 1)


def lag(bootstrap: str, group: str, topic: str, partitions: int) -> int:
    """Return how many records the group has not committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [TopicPartition(topic, number) for number in range(partitions)]
        committed = {found.partition: max(found.offset, 0) for found in consumer.committed(asked, timeout=20)}
        ends = [consumer.get_watermark_offsets(one, timeout=20)[1] for one in asked]
        return sum(end - committed[number] for number, end in enumerate(ends))
    finally:
        consumer.close()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with all its threads, including ended ones."""
    if Path("/proc").exists():
        # The clock id of another process, as in clock_getcpuclockid(3): the id's complement, and 2 for CPU time.
        return time.clock_gettime((~pid << 3) | 2)
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def peak_rss(pid: int) -> float:
    """Return the process's peak resident memory, in MiB."""
    # Not ru_maxrss of wait4: it includes the memory of the process that forked this one.
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return float(psutil.Process(pid).memory_info().rss / 2**20)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one system, from the first tenth of the records to the last record.

    CPU and memory are for all its processes; `rss_mb` and `cpu_seconds` (since start) are for each. `tenths` is
    the cost of each tenth of the records from the second on, in CPU seconds per million.
    """

    system: str
    records_per_second: float
    cpu_seconds_per_million: float
    peak_rss_mb: float
    requests: int
    exit_code: int
    lag: int = -1
    rss_mb: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    tenths: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    cpu: float
    arrived: int


class Members:
    """A system's processes: started together, stopped together, and killed if the measurement is aborted."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self.children = [subprocess.Popen(list(command), cwd=ROOT) for command in commands]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is still running."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()

    @property
    def ended(self) -> bool:
        """Whether a process ended by itself."""
        return any(child.poll() is not None for child in self.children)

    def stop(self) -> int:
        """Stop all processes. Return the worst exit code."""
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        return max((child.wait(60) for child in self.children), key=abs)


def measure(system: str, commands: Sequence[Sequence[str]], url: str, records: int, seconds: float) -> Result:
    """Run the processes until the sink has all records, stop them cleanly, and return the result."""
    before = counts(url)
    deadline = time.monotonic() + seconds
    marks: list[_Mark] = []
    with Members(commands) as members:
        pids = [child.pid for child in members.children]
        while True:
            now = counts(url)
            mark = _Mark(time.monotonic(), sum(map(cpu_seconds, pids)), now["events"] - before["events"])
            # The first tenth is for warming up: imports, joining the group, first connections.
            if mark.arrived >= records * (len(marks) + 1) / 10:
                marks.append(mark)
            if mark.arrived >= records:
                break
            if members.ended or mark.at > deadline:
                raise SystemExit(
                    f"{system}: {mark.arrived} of {records} records arrived before it ended or {seconds} s passed"
                )
            time.sleep(POLL_SECONDS)
        peaks, used = tuple(map(peak_rss, pids)), tuple(map(cpu_seconds, pids))
        code = members.stop()
    first, measured = marks[0], mark.arrived - marks[0].arrived
    return Result(
        system=system,
        records_per_second=measured / max(mark.at - first.at, 1e-9),
        cpu_seconds_per_million=_cost(first, mark),
        peak_rss_mb=sum(peaks),
        requests=now["requests"] - before["requests"],
        exit_code=code,
        rss_mb=peaks,
        cpu_seconds=used,
        tenths=tuple(_cost(mark, following) for mark, following in itertools.pairwise(marks)),
    )


def _cost(first: _Mark, last: _Mark) -> float:
    return (last.cpu - first.cpu) / max(last.arrived - first.arrived, 1) * 1e6
