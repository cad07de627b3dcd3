"""Measures the connector beside a plain script: same records, same broker, same sink, one after the other.

Real Kafka; JiguangUserEvent of about 250 bytes with 8 properties in Confluent's wire format; batches of 100. Prints,
for each, records a second, CPU seconds per million records and peak memory, and the ratios, which alone are worth a
claim: identical runs differ by up to 20 %. Every result is appended to benchmarks/results.jsonl.

    python -m benchmarks.throughput --records 300000 --partitions 4 --in-flight 64 --sink-delay 0 --order none
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import parse_schema, schemaless_writer

from tools.servers import Kafka

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results.jsonl"
SCHEMA: Final = (ROOT / "avro" / "JiguangUserEvent.avsc").read_text(encoding="utf-8")
TOPIC: Final = "events"
WARM: Final = 0.1
"""The share of the records that a system may warm up on: imports, joining the group, first connections."""

CONFIGURATION: Final = """\
kafka:
  topics: [{topic}]
  group_id: connector
  create_topics: true
  client: {{bootstrap.servers: "{bootstrap}"}}
schema_registry: {{url: "{registry}"}}
destinations:
  sink:
    vendor: jiguang
    project_id: "1"
    project_secret: secret
    app_key: key
    base_url: {sink}
    agreed_limits: true
    requests_per_second: 1000000
    max_in_flight: {in_flight}
    order: {order}
server: {{port: 0}}
log: {{level: warning, format: json}}
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What one system did, measured from the first tenth of the records to the last record."""

    system: str
    records_per_second: float
    cpu_seconds_per_million: float
    peak_rss_mb: float
    requests: int
    exit_code: int
    lag: int


class _Answer(http.server.BaseHTTPRequestHandler):
    """A schema registry that knows one schema, as id 1."""

    def do_GET(self) -> None:
        """Answer any question with the schema."""
        answer = {"schema": SCHEMA, "id": 1, "version": 1, "subject": f"{TOPIC}-value"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 -- the name is http.server's

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Serve the registry stub and give its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def sink(delay: float) -> Iterator[str]:
    """Run the sink in a process of its own and give its URL."""
    command = [sys.executable, "-m", "benchmarks.sink", "--delay", str(delay)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.kill()


def counts(url: str) -> dict[str, int]:
    """Ask the sink what arrived."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- the sink's own URL
        found: dict[str, int] = json.load(answer)
        return found


def event(number: int, now: int) -> dict[str, Any]:
    """Return one event: 8 properties of five types."""
    return {
        "cuid": 10_000_000 + number % 100_003,
        "eventName": "order_submitted",
        "itime": now - number % 60_000,
        "randomId": None,
        "properties": {
            "order_id": f"20260000{number:012d}",
            "product": "wireless headphones, over-ear",
            "category": "electronics/audio",
            "amount": 129.9 + number % 7,
            "quantity": 1 + number % 5,
            "first_order": number % 3 == 0,
            "coupons": ["welcome", "spring-sale"],
            "channel": "app-store-organic",
        },
    }


def produce(bootstrap: str, records: int) -> float:
    """Write the records, spread over the partitions by key; returns the mean size of a value in bytes."""
    schema = parse_schema(json.loads(SCHEMA))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    now = int(time.time() * 1000)
    size = 0
    for number in range(records):
        buffer = io.BytesIO()
        buffer.write(b"\0\0\0\0\1")
        schemaless_writer(buffer, schema, event(number, now))
        value = buffer.getvalue()
        size += len(value)
        while True:
            try:
                producer.produce(TOPIC, value, key=str(number % 100_003))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not take the records within 120 s")
    return size / records


def lag(bootstrap: str, group: str, partitions: int) -> int:
    """Return how many records the group has not committed."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [TopicPartition(TOPIC, number) for number in range(partitions)]
        committed = {found.partition: max(found.offset, 0) for found in consumer.committed(asked, timeout=20)}
        ends = [consumer.get_watermark_offsets(one, timeout=20)[1] for one in asked]
        return sum(end - committed[number] for number, end in enumerate(ends))
    finally:
        consumer.close()


def _peak_rss(pid: int) -> float:
    # Not wait4's ru_maxrss: it begins with the memory of the process that forked this one.
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def measure(system: str, command: list[str], url: str, records: int, seconds: float) -> Result:
    """Run the command until the sink has all records, stop it in order, and return what it took."""
    before = counts(url)
    deadline = time.monotonic() + seconds
    start: tuple[float, float, int] | None = None
    with subprocess.Popen(command, cwd=ROOT) as child:
        process = psutil.Process(child.pid)
        while True:
            now = counts(url)
            clock, times = time.monotonic(), process.cpu_times()
            arrived, cpu = now["events"] - before["events"], times.user + times.system
            if start is None and arrived >= records * WARM:
                start = (clock, cpu, arrived)
            if arrived >= records:
                break
            if child.poll() is not None or clock > deadline:
                child.kill()
                raise SystemExit(
                    f"{system}: {arrived} of {records} records arrived, then it ended or {seconds} s were over"
                )
            time.sleep(0.02)
        peak = _peak_rss(child.pid)
        child.send_signal(signal.SIGTERM)
        code = child.wait(60)
    assert start is not None
    measured = arrived - start[2]
    return Result(
        system=system,
        records_per_second=measured / max(clock - start[0], 1e-9),
        cpu_seconds_per_million=(cpu - start[1]) / max(measured, 1) * 1e6,
        peak_rss_mb=peak,
        requests=now["requests"] - before["requests"],
        exit_code=code,
        lag=-1,
    )


def show(results: Mapping[str, Result]) -> None:
    """Print the table and the ratios."""
    print(f"{'':12}{'records/s':>12}{'CPU s/million':>16}{'peak RSS MB':>14}{'requests':>10}{'exit':>6}{'lag':>6}")
    for name, found in results.items():
        print(
            f"{name:12}{found.records_per_second:12,.0f}{found.cpu_seconds_per_million:16.1f}{found.peak_rss_mb:14.0f}"
            f"{found.requests:10,}{found.exit_code:6}{found.lag:6}"
        )
    if {"connector", "script"} <= results.keys():
        one, other = results["connector"], results["script"]
        speed, cpu = (
            getattr(one, name) / getattr(other, name) for name in ("records_per_second", "cpu_seconds_per_million")
        )
        print(f"{'ratio':12}{speed:12.2f}{cpu:16.2f}{one.peak_rss_mb / other.peak_rss_mb:14.2f}")


def commands(
    arguments: argparse.Namespace, bootstrap: str, schemas: str, url: str, folder: Path
) -> dict[str, list[str]]:
    """Return how each system is started."""
    file = folder / "connector.yaml"
    values = {"bootstrap": bootstrap, "registry": schemas, "sink": url, "topic": TOPIC}
    text = CONFIGURATION.format(**values, in_flight=arguments.in_flight, order=arguments.order)
    file.write_text(text, encoding="utf-8")
    path = "/smartop/api/v1/events/report"
    script = ["-m", "benchmarks.plain_script", bootstrap, TOPIC, schemas, url + path, str(arguments.in_flight)]
    both = {
        "script": [sys.executable, *script],
        "connector": [sys.executable, "-m", "connector", "run", "-c", str(file)],
    }
    return {name: command for name, command in both.items() if name in arguments.systems}


def main() -> None:
    """Read the arguments, run everything once, print and keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--in-flight", type=int, default=64, help="requests at once")
    parser.add_argument("--sink-delay", type=float, default=0.0, help="seconds until the sink answers")
    parser.add_argument("--order", choices=("none", "key"), default="none", help="the connector's order")
    parser.add_argument("--systems", nargs="+", choices=("script", "connector"), default=("script", "connector"))
    parser.add_argument("--seconds", type=float, default=300.0, help="the longest that one system may take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        kafka = Kafka(Path(name) / "kafka", heap="512m")
        stack.callback(kafka.stop)
        kafka.start()
        kafka.create_topic(TOPIC, arguments.partitions)
        size = produce(kafka.bootstrap, arguments.records)
        where = f"{arguments.partitions} partitions, {os.cpu_count()} cores"
        print(f"{arguments.records:,} records of {size:.0f} bytes in {where}", flush=True)
        schemas, url = stack.enter_context(registry()), stack.enter_context(sink(arguments.sink_delay))
        results: dict[str, Result] = {}
        for system, command in commands(arguments, kafka.bootstrap, schemas, url, Path(name)).items():
            result = measure(system, command, url, arguments.records, arguments.seconds)
            group = "plain" if system == "script" else "connector"
            results[system] = Result(**{**asdict(result), "lag": lag(kafka.bootstrap, group, arguments.partitions)})
    show(results)
    with RESULTS.open("a", encoding="utf-8") as file:
        conditions = {
            **vars(arguments),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "at": time.time(),
        }
        file.writelines(json.dumps({**conditions, **asdict(result)}) + "\n" for result in results.values())


if __name__ == "__main__":
    main()
