"""Measures how much of a vendor's rate limit one member uses without a single answer 429.

`connector run` on real Kafka with small batches, so that the rate is the bottleneck. A simulator in its own process
admits as many requests in any sliding second as the document says. Prints requests per second, the share of the limit,
the fullest second and the number of answers 429, and appends them to benchmarks/results.jsonl.

    python -m benchmarks.rate --seconds 60
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks.memory import ROOT, produce
from benchmarks.report import keep, table
from tools.servers import Kafka, free_ports

LIMIT: Final = 100
RECORDS: Final = 5
_SHOWN: Final = ("fullest_second", "throttled", "requests")

CONFIGURATION: Final = """\
kafka:
  topics: [events]
  group_id: rate
  create_topics: true
  client: {{bootstrap.servers: "{bootstrap}"}}
destinations:
  paced:
    vendor: jiguang
    base_url: "{url}"
    project_id: "100102"
    project_secret: simulated-secret
    app_key: 96441e4d73207a6517abfbbc
    batch: {{records: {records}}}
server: {{port: 0}}
log: {{level: warning, format: json}}
"""


def stats(url: str) -> dict[str, Any]:
    """Return the simulator's counts."""
    with urllib.request.urlopen(f"{url}/_simulator/stats", timeout=10) as answer:  # noqa: S310 -- our own
        found: dict[str, Any] = json.load(answer)
        return found


def measure(url: str, seconds: float) -> tuple[float, dict[str, Any]]:
    """Return the requests per second after the first two seconds, and the simulator's final counts."""
    while stats(url)["requests"] < 2 * LIMIT:
        time.sleep(0.1)
    begun, before = time.monotonic(), stats(url)["requests"]
    time.sleep(seconds)
    after, ended = stats(url), time.monotonic()
    return (after["requests"] - before) / (ended - begun), after


def main() -> None:
    """Measure, print and store the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        kafka = Kafka(Path(name) / "kafka")
        stack.callback(kafka.stop)
        kafka.start()
        kafka.create_topic("events", 6)
        produce(kafka.bootstrap, "events", int((arguments.seconds + 10) * LIMIT * RECORDS), 200)
        (port,) = free_ports(1)
        log = Path(name) / "simulator.log"
        with log.open("w") as out:
            simulate = ["simulate", "jiguang", "--rate", str(LIMIT), "--event", "page_view", "--port", str(port)]
            vendor = subprocess.Popen([sys.executable, "-m", "connector", *simulate], cwd=ROOT, stdout=out, stderr=out)
        stack.callback(vendor.kill)
        url = f"http://127.0.0.1:{port}"
        path = Path(name) / "rate.yaml"
        values = {"bootstrap": kafka.bootstrap, "url": url, "records": RECORDS}
        path.write_text(CONFIGURATION.format(**values), encoding="utf-8")
        while str(port) not in log.read_text():
            if vendor.poll() is not None:
                raise SystemExit(f"the simulator ended:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        member = subprocess.Popen([sys.executable, "-m", "connector", "run", "-c", str(path)], cwd=ROOT)
        stack.callback(member.kill)
        rate, seen = measure(url, arguments.seconds)
    found: dict[str, Any] = {
        "requests_per_second": rate,
        "share": rate / LIMIT,
        "fullest_second": seen["max_per_second"],
        "throttled": seen["verdicts"].get("throttled", 0),
        "requests": seen["requests"],
        "verdicts": seen["verdicts"],
    }
    heads = ["requests/s", "of the limit", "fullest second", "answered 429", "requests"]
    row: list[str | float] = [
        rate,
        f"{rate / LIMIT:.1%}",
        found["fullest_second"],
        found["throttled"],
        seen["requests"],
    ]
    print(table(heads, [row]))
    keep("rate", vars(arguments), [found])


if __name__ == "__main__":
    main()
