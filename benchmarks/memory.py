"""Measures that memory stays bounded with a vendor that never answers and more records than fit into memory.

Real Kafka and `connector run`. An idle member gives the base. Then one member reads a topic of small records, and one
reads a topic of large records. Prints each peak next to its bound, base + 1.5 x limits.buffer, and appends them to
benchmarks/results.jsonl. Exits with 1 if a peak exceeds its bound.

    python -m benchmarks.memory --small 1000000 --large 3000 --partitions 12 --buffer 24MiB
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from benchmarks.report import keep, table
from connector.config.models import parse_size
from tools.servers import Kafka

ROOT: Final = Path(__file__).resolve().parent.parent
SCHEMA: Final[dict[str, Any]] = json.loads((ROOT / "avro" / "JiguangUserEvent.avsc").read_text(encoding="utf-8"))
HEAD: Final = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
BOUND: Final = 1.5

CONFIGURATION: Final = """\
kafka:
  topics: [{topic}]
  group_id: {topic}-{started}
  create_topics: true
  client: {{bootstrap.servers: "{bootstrap}"}}
destinations:
  hangs:
    vendor: jiguang
    project_id: "1"
    project_secret: secret
    app_key: key
    base_url: {url}
    timeout: 4s
    max_in_flight: 8
limits: {{buffer: {buffer}}}
server: {{port: 0}}
log: {{level: info, format: json}}
"""


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Serve a vendor that reads every request and never answers. Yields its URL."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)

    def swallow(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while connection.recv(1 << 16):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=swallow, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def produce(bootstrap: str, topic: str, records: int, size: int) -> None:
    """Write records of about `size` bytes."""
    schema = parse_schema(SCHEMA)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "message.max.bytes": 2 << 20})
    properties = {"filling": "x" * max(1, size - 60)}
    now = int(time.time() * 1000)
    for number in range(records):
        out = io.BytesIO()
        event = {"cuid": 10_000_000 + number, "eventName": "page_view", "itime": now, "randomId": None}
        schemaless_writer(out, schema, {**event, "properties": properties})
        while True:
            try:
                producer.produce(topic, HEAD + out.getvalue(), key=str(number))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not acknowledge the records within 120 s")


def peak_rss(pid: int) -> float:
    """Return the process's peak resident memory, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def run(folder: Path, seconds: float, **values: Any) -> tuple[float, dict[str, Any]]:
    """Run a member for `seconds` after it joined. Return its peak in MiB and the buffer in /status."""
    path, log = folder / "memory.yaml", folder / "memory.log"
    path.write_text(CONFIGURATION.format(**values, started=int(time.time() * 1000)), encoding="utf-8")
    command = [sys.executable, "-m", "connector", "run", "-c", str(path)]
    with log.open("w") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as member:
        try:
            port = None
            begun = time.monotonic()
            while time.monotonic() < begun + seconds:
                time.sleep(0.5)
                if member.poll() is not None:
                    raise SystemExit(f"the member ended:\n{log.read_text()[-2000:]}")
                if port is None and "partitions.assigned" in (text := log.read_text()):
                    first = next(line for line in text.splitlines() if "connector.started" in line)
                    port, begun = json.loads(first)["port"], time.monotonic()
            if port is None:
                raise SystemExit(f"no partition was assigned to the member:\n{log.read_text()[-2000:]}")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
                buffer = json.load(answer)["buffer"]
            return peak_rss(member.pid), buffer
        finally:
            member.kill()


def main() -> None:
    """Measure, and exit with 1 if memory exceeded the bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=1_000_000, help="records of 200 bytes")
    parser.add_argument("--large", type=int, default=3_000, help="records of 100 kB")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--buffer", default="24MiB")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each member runs")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        kafka = Kafka(folder / "kafka", heap="512m")
        stack.callback(kafka.stop)
        kafka.start()
        url = stack.enter_context(hanging())
        values = {"bootstrap": kafka.bootstrap, "url": url, "buffer": arguments.buffer}
        for topic in ("idle", "small", "large"):
            kafka.create_topic(topic, arguments.partitions)
        base, _ = run(folder, min(10.0, arguments.seconds), topic="idle", **values)
        limit = parse_size(arguments.buffer)
        assert isinstance(limit, int)
        bound = base + BOUND * limit / 2**20
        for topic, records, size in (("small", arguments.small, 200), ("large", arguments.large, 100_000)):
            produce(kafka.bootstrap, topic, records, size)
            peak, buffer = run(folder, arguments.seconds, topic=topic, **values)
            used = (peak - base) * 2**20 / limit
            figures = {"base_mb": base, "peak_rss_mb": peak, "bound_mb": bound, "of_the_buffer": used}
            found.append({"topic": topic, "records": records, "bytes": size, **figures, "buffer_status": buffer})
    rows: list[list[str | float]] = [
        [
            f"{finding['records']:,} of {finding['bytes']:,} bytes",
            *(f"{finding[name]:.0f}" for name in ("base_mb", "peak_rss_mb", "bound_mb")),
            f"{finding['of_the_buffer']:.2f}",
        ]
        for finding in found
    ]
    print(table(["records", "base MiB", "peak MiB", "bound MiB", "above base : buffer"], rows))
    keep("memory", vars(arguments), found)
    sys.exit(1 if any(finding["peak_rss_mb"] > bound for finding in found) else 0)


if __name__ == "__main__":
    main()
