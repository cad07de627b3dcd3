"""A console as a process, with dead letters in Kafka, and members that say what a test wants them to say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition

from connector.dead_letters.headers import to_headers
from connector.records import DeadLetter, Record
from tests.integration.events import datum_bytes, event, single_object
from tools.servers import ROOT

GROUP: Final = "growth"
WAIT_SECONDS: Final = 90.0

CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def dead_letter(
    number: int,
    *,
    cause: str = "refused",
    code: str | None = "4103",
    message: str = "cuid is not known to this app",
    destination: str | None = "jiguang-prod",
    vendor: str | None = "jiguang",
    failed_at: float | None = None,
    key: bytes | None = None,
    value: bytes | None = None,
    headers: tuple[tuple[str, bytes | None], ...] = (("trace", b"4bf92f35"),),
    **more: Any,
) -> tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]:
    """Return key, value and headers of a dead letter about event `number`, as the connector writes it."""
    key = b"user-%d" % number if key is None else key
    value = single_object(datum_bytes(event(number))) if value is None else value
    record = Record("user-events", number % 3, number, int(time.time() * 1000), key, value, headers)
    failed = time.time() - number if failed_at is None else failed_at
    dead = DeadLetter(
        record=record,
        cause=cause,
        message=message,
        failed_at=failed,
        dedup_id=f"5f2c1b6e-0000-5000-8000-{number:012x}",
        code=code,
        vendor=vendor,
        destination=destination,
        **more,
    )
    return key, value, to_headers(dead, group=GROUP)


def produce(bootstrap: str, topic: str, records: Iterable[tuple[bytes | None, bytes, list[Any]]]) -> None:
    """Write records to a topic and wait until Kafka has them."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 200_000})
    for key, value, headers in records:
        while True:
            try:
                producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """Return every message of a topic that is committed."""
    consumer = KafkaConsumer({"bootstrap.servers": bootstrap, "group.id": "look", "isolation.level": "read_committed"})
    try:
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=10)[1] for one in numbers}
        consumer.assign([TopicPartition(topic, one, 0) for one in numbers])
        found: list[Any] = []
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            found += [message for message in consumer.consume(500, 0.3) if message.error() is None]
            places = consumer.position([TopicPartition(topic, one) for one in numbers])
            if all(place.offset >= ends[place.partition] or not ends[place.partition] for place in places):
                return found
        raise AssertionError(f"{topic} could not be read whole")
    finally:
        consumer.close()


OWNED: Final = [{"topic": "user-events", "partition": 0, "watermark": 100, "position": 120, "map_used": 0.05}]


class Members:
    """A member's port: /status and /metrics as a test sets them."""

    def __init__(self) -> None:
        self.destinations: dict[str, dict[str, Any]] = {}
        self.reasons: list[str] = []
        self.config_fault: str | None = None
        self.events: list[dict[str, Any]] = []
        self.partitions: list[dict[str, Any]] = OWNED
        self.metrics = ""
        members = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = {
                    "destinations": members.destinations,
                    "partitions": members.partitions,
                    "group": GROUP,
                    "version": "0.1.0",
                    "unready_since": moment(1500) if members.reasons else None,
                    "config_fault": members.config_fault and {"message": members.config_fault, "since": moment(600)},
                }
                body = members.metrics.encode()
                if self.path == "/status":
                    body = json.dumps(status).encode()
                elif self.path.startswith("/events"):
                    body = json.dumps({"events": members.events}).encode()
                elif self.path == "/readyz":
                    body = json.dumps({"ok": not members.reasons, "reasons": members.reasons}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def say(self, name: str, state: str = "flowing", **more: Any) -> None:
        """Have a destination be in a state."""
        blank = dict.fromkeys(("cause", "code", "message", "since", "next_probe", "requests_per_second"))
        self.destinations[name] = {**blank, "state": state, "in_flight": 0, "buffered_bytes": 0, **more}

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def moment(seconds_ago: float) -> str:
    """Return a time so long ago as /status writes it."""
    return datetime.fromtimestamp(time.time() - seconds_ago, UTC).isoformat(timespec="milliseconds")


def configuration(bootstrap: str, members: str, **console: Any) -> dict[str, Any]:
    """Return a configuration of three destinations, whose console listens on any free port."""
    return {
        "kafka": {"topics": ["user-events"], "group_id": GROUP, "client": {"bootstrap.servers": bootstrap}},
        "destinations": {
            "jiguang-prod": {
                "vendor": "jiguang",
                "project_id": "1",
                "project_secret": "s",
                "app_key": "a" * 24,
                "base_url": "http://127.0.0.1:9",
            },
            "quick-audience": {
                "vendor": "quick_audience",
                "base_url": "http://127.0.0.1:9",
                "app_id": "1",
                "access_key": "key",
                "access_secret": "secret",
                "access_id": "id",
                "organization_id": "org",
            },
            "tracker": {"vendor": "mytracker", "id_app": 666, "token": "token", "base_url": "http://127.0.0.1:9"},
        },
        "console": {"port": 0, "members": [members], "interval": "1s", **console},
        "log": {"format": "json"},
    }


@contextmanager
def consoles(folder: Path, *all_settings: Mapping[str, Any]) -> Iterator[list[str]]:
    """Run a `connector console` for each configuration and yield where they listen; they have to end cleanly."""
    processes, logs = [], []
    for number, settings in enumerate(all_settings):
        file, log = folder / f"console-{number}.yaml", folder / f"console-{number}.log"
        file.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        command = [sys.executable, "-m", "connector", "console", "-c", str(file)]
        with log.open("wb") as out:
            processes.append(subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT))
        logs.append(log)
    try:
        yield [_address(process, log) for process, log in zip(processes, logs, strict=True)]
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(20) for process in processes]
    assert codes == [0] * len(codes), "".join(log.read_text(encoding="utf-8") for log in logs)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := re.search(r"The console is at (http://\S+)/", log.read_text(encoding="utf-8"))):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    return found[1]


KINDS: Final[tuple[dict[str, Any], ...]] = (
    {"cause": "refused", "code": "4103", "message": "[4103] cuid is not known to this app", "http_status": 200},
    {"cause": "refused", "code": "4101", "message": "[4101] 事件不存在: page_view_v2", "http_status": 200},
    {
        "cause": "invalid",
        "code": "mytracker.age.range",
        "destination": "tracker",
        "vendor": "mytracker",
        "message": "age is out of its range; allowed: 0 to 128",
        "field": "age",
    },
    {
        "cause": "gave_up",
        "code": None,
        "destination": "quick-audience",
        "vendor": "quick_audience",
        "message": "tried for 1h: HTTP 503",
        "attempts": 41,
    },
    {
        "cause": "decode",
        "code": "decode.payload",
        "destination": None,
        "vendor": None,
        "value": b"{no avro",
        "message": "the payload is not what its schema says",
    },
    {
        "cause": "route",
        "code": "route.unknown_target",
        "destination": None,
        "vendor": None,
        "message": "no destination is named nobody",
    },
)
"""Six kinds of dead letters, of three vendors."""


def mixed(count: int, seconds: float = 86_400.0) -> Iterator[tuple[bytes | None, bytes, list[Any]]]:
    """Yield dead letters of six kinds that failed in the last `seconds`, most of them lately."""
    random = Random(7)
    now = time.time()
    made = [[dead_letter(number, **kind) for number in range(20)] for kind in KINDS]
    chosen = random.choices(made, (50, 14, 18, 8, 6, 4), k=count)
    for number, kind in enumerate(chosen):
        _, value, headers = kind[number % len(kind)]
        at = datetime.fromtimestamp(now - seconds * random.random() ** 4, UTC)
        failed = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        own = {
            "dlq-id": b"7d1f0c2a-0000-5000-9000-%012x" % number,
            "dlq-dedup-id": b"5f2c1b6e-0000-5000-9000-%012x" % number,
            "dlq-failed-at": failed.encode(),
        }
        yield b"user-%d" % number, value, [(name, own.get(name, text)) for name, text in headers]
