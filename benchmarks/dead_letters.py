"""Measures commands and console on a topic of a million dead letters in real Kafka: CPU, memory, and time to a page.

Kinds, keys and failures are mixed as after some bad days: three destinations, seven codes, messages that name a value,
one in ten resolved. Each command runs as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from benchmarks import surroundings
from benchmarks.report import keep, table
from benchmarks.workloads import ROOT, WORKLOADS
from connector.dead_letters.headers import dead_letter_id, resolution, to_headers
from connector.records import DeadLetter, Headers, Record, uuid5_text

GROUP: Final = "growth"
TOPIC: Final = f"{GROUP}.dead-letters"
SOURCE: Final = "events"
PARTITIONS: Final = 6
RESOLVED: Final = 10
"""One in this many dead letters is resolved."""
SPAN: Final = 86400.0
"""Seconds over which they failed."""
_KINDS: Final = (
    ("refused", "4103", "jiguang-prod", "jiguang", "cuid {number} is not known to this app", 200),
    ("refused", "4101", "jiguang-prod", "jiguang", "eventName is not registered", 200),
    ("refused", "400", "tracker", "mytracker", "customUserId is not valid", 400),
    (
        "invalid",
        "mytracker.customUserId.length",
        "tracker",
        "mytracker",
        "customUserId has 40 characters",
        None,
    ),
    ("gave_up", None, "qa", "quick_audience", "gave up after 1 h: connection refused", None),
    ("expired", "jiguang.event.itime", "jiguang-prod", "jiguang", "itime is more than 7 days ago", None),
    ("decode", "decode.avro", None, None, "not valid Avro for connector.events.JiguangUserEvent: truncated", None),
)


def dead_letters(count: int, now: float) -> Iterator[tuple[bytes, bytes | None, Headers]]:
    """Yield key, value and headers of what is written: dead letters, and the records that resolve some of them."""
    values = list(WORKLOADS["jiguang"].values(min(count, 1000), int(now * 1000)))
    picked = random.Random(7)
    for number in range(count):
        cause, code, destination, vendor, message, status = _KINDS[picked.randrange(len(_KINDS))]
        value, key = values[number % len(values)], b"user-%d" % (number % 100_003)
        headers: Headers = (("trace", b"%032x" % number),)
        failed = now - SPAN + number * SPAN / count
        record = Record(SOURCE, number % 12, number, int(failed * 1000) - 700, key, value, headers)
        dead_letter = DeadLetter(
            record=record,
            cause=cause,
            code=code,
            message=message.format(number=number),
            failed_at=failed,
            dedup_id=uuid5_text(f"event {number}"),
            vendor=vendor,
            destination=destination,
            http_status=status,
            attempts=0 if status is None else 2,
            first_attempt=None if status is None else failed - 0.4,
        )
        block = to_headers(dead_letter, group=GROUP)
        yield key, value, block
        if number % RESOLVED == 0:
            yield key, None, resolution(dead_letter_id(block) or "", "discarded", int(failed * 1000) + 1)


def fill(bootstrap: str, count: int) -> None:
    """Write the dead letters. Exits with a message if Kafka does not take them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.kbytes": 65536,
        }
    )
    for key, value, headers in dead_letters(count, time.time()):
        while True:
            try:
                producer.produce(TOPIC, value, key, headers=list(headers))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not acknowledge the dead letters within 120 s")


def configuration(bootstrap: str, schemas: str, count: int) -> str:
    """Return the configuration of the group whose dead letters they are; the console keeps all of them."""
    accounts = {"jiguang-prod": "jiguang", "tracker": "mytracker", "qa": "quick_audience"}
    return json.dumps(
        {
            "kafka": {"topics": [SOURCE], "group_id": GROUP, "client": {"bootstrap.servers": bootstrap}},
            "schema_registry": {"url": schemas},
            "destinations": {
                name: {"vendor": vendor, "base_url": "http://127.0.0.1:9", **WORKLOADS[vendor].account}
                for name, vendor in accounts.items()
            },
            "console": {"port": 0, "letters": max(count, 1000)},
            "log": {"level": "warning", "format": "json"},
        },
        indent=2,
    )


def run_command(config: Path, *arguments: str) -> dict[str, Any]:
    """Run a command and return its time, CPU seconds and peak memory. Exits with a message if it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "connector", "dlq", *arguments, "-c", str(config)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0.0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, _peak(child.pid))
        time.sleep(0.05)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"dlq {' '.join(arguments)} failed with {child.returncode}")
    return {
        "what": " ".join(arguments),
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": peak,
    }


def _peak(pid: int) -> float:
    try:
        return surroundings.peak_rss(pid)
    except (OSError, StopIteration):  # it has just ended
        return 0.0


def run_console(config: Path, pages: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Start the console; yield how long its first page, the whole topic, and each page took afterwards."""
    began = time.monotonic()
    command = [sys.executable, "-m", "connector", "console", "-c", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            assert child.stdout is not None
            url = next(found[0] for line in child.stdout if (found := re.search(r"http://[^ /]+", line)))
            text, _ = _page(f"{url}/dead-letters")
            yield _seen("console: first page", child.pid, time.monotonic() - began)
            slowest = 0.0
            while "Still reading" in text or "not been read" in text:
                time.sleep(0.5)
                text, seconds = _page(f"{url}/dead-letters")
                slowest = max(slowest, seconds)
            yield _seen("console: whole topic read", child.pid, time.monotonic() - began)
            yield _seen("console: slowest page meanwhile", child.pid, slowest)
            for name, address in pages.items():
                yield _seen(f"console: {name}", child.pid, _page(f"{url}{address}")[1])
        finally:
            child.terminate()


def _seen(what: str, pid: int, seconds: float) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": seconds,
        "cpu_seconds": surroundings.cpu_seconds(pid),
        "peak_rss_mb": surroundings.peak_rss(pid),
    }


def _page(url: str) -> tuple[str, float]:
    """Return a page, and the seconds until it was there."""
    began = time.monotonic()
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 -- the console's own URL
        return answer.read().decode(), time.monotonic() - began


COMMANDS: Final[Sequence[tuple[str, ...]]] = (
    ("stats",),
    ("list",),
    ("list", "--where", "event.cuid=17"),
    ("list", "--contains", "order_submitted"),
)
PAGES: Final[Mapping[str, str]] = {
    "overview": "/",
    "list": "/dead-letters",
    "list again": "/dead-letters",
    "filter": "/dead-letters?cause=invalid&destination=tracker",
    "last page": "/dead-letters?page=17000",
    "question": "/confirm?action=replay&cause=refused",
}


def measure(config: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what each command and page takes."""
    for command in COMMANDS:
        yield run_command(config, *command)
    for form in ("jsonl", "avro"):
        found = run_command(config, "export", str(folder / f"dead-letters.{form}"))
        yield {**found, "what": f"export {form}"}
        (folder / f"dead-letters.{form}").unlink()
    yield from run_console(config, PAGES)


def main() -> None:
    """Fill a topic, measure, print and store the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dead-letters", type=int, default=1_000_000, metavar="N")
    count = parser.parse_args().dead_letters
    with tempfile.TemporaryDirectory() as name, surroundings.registry() as schemas:
        folder = Path(name)
        with surroundings.kafka(folder) as server:
            server.create_topic(TOPIC, PARTITIONS)
            server.create_topic(SOURCE, 12)
            fill(server.bootstrap, count)
            config = folder / "connector.yaml"
            config.write_text(configuration(server.bootstrap, schemas, count), encoding="utf-8")
            found = list(measure(config, folder))
    print(
        table(
            ["what", "seconds", "CPU s so far", "peak MB"],
            [[each["what"], each["seconds"], each["cpu_seconds"], each["peak_rss_mb"]] for each in found],
        )
    )
    keep("dead_letters", {"dead_letters": count}, found)


if __name__ == "__main__":
    main()
