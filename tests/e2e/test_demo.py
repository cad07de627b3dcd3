"""The demo as a newcomer starts it: a separate process with a correct exit status and output."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Restore SIGINT for child processes; a shell ignores it for background processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fetched(url: str) -> str:
    """Return a page."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def heights(page: str) -> list[str]:
    """Return the vertical position of every point of the page's line plots."""
    return [y for path in re.findall(r'<path d="([^"]+)"', page) for y in re.findall(r"[ML]?[\d.]+[ ,]([\d.]+)", path)]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.promise("P1")
@pytest.mark.promise("P5")
@pytest.mark.promise("P9")
def test_demo_totals_are_right_and_console_stays_open() -> None:
    """`connector demo --keep` shows every cause of a dead letter, its totals are right, and so is the console's page.

    The console is open from the first line on, and its plots move while the demo runs.

    Kills: an event dropped after a lost answer, a whole refused batch dead-lettered, a dead letter of re-encoded bytes.
    """
    command = [sys.executable, "-u", "-m", "connector", "demo", "--keep"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    ending = threading.Timer(120, demo.kill)
    ending.start()
    said = ""
    try:
        said = demo.stdout.readline()
        found = re.fullmatch(r"The console for the person on call: (http://\S+)\n", said)
        assert found is not None, said
        first = fetched(found[1])
        for line in demo.stdout:
            said += line
            if "Running until you press Ctrl+C" in line:
                page = fetched(found[1])
                break
        demo.send_signal(signal.SIGINT)
        rest, faults = demo.communicate(timeout=60)
    finally:
        ending.cancel()
        demo.kill()
        demo.communicate()
    assert demo.returncode == 0, said + rest + faults
    assert "<h2>Destinations" in first
    assert len(set(heights(page))) > 5 > len(set(heights(first)))
    sums = re.search(r"([\d,]+) records produced = ([\d,]+) accepted \+ (\d+) dead-lettered \+ (\d+)", said)
    assert sums is not None, said
    produced, *parts = (int(number.replace(",", "")) for number in sums.groups())
    assert produced == sum(parts)
    for shown in ("decode.frame", "route.unknown_target", "jiguang.itime.past", "4101", "E-1042", "http_400", "3005"):
        assert shown in said
    assert "Traceback" not in faults
    assert "<h2>Destinations" in page
    assert "demo" in page


CONFIG = """
kafka: {topics: [orders], group_id: g, client: {bootstrap.servers: "${NOT_SET}", security.protocol: ssl}}
schema_registry: {url: http://127.0.0.1:1}
schemas: {files: [order.avsc]}
destinations:
  tracker: {vendor: mytracker, id_app: "${NOT_SET_APP}", token: "${file:/nowhere/token}"}
  qa: {vendor: quick_audience, base_url: "${NOT_SET_URL}", app_id: a, access_key: b, access_secret: c, access_id: d}
routes:
  - schema: acme.Order
    to: [tracker, qa]
    fields:
      mytracker: {method: {const: customEvent}, customEventName: {const: order}, customUserId: user}
      quick_audience: {customerId: user, eventCode: {const: order}, eventTime: $timestamp}
"""
SCHEMA = {"type": "record", "name": "acme.Order", "fields": [{"name": "user", "type": "string"}]}


def test_own_events_are_delivered_by_the_own_configuration(tmp_path: Path) -> None:
    """`demo --events` needs no Kafka, registry or secret, shows what arrived, and exits with 1 for a refused event."""
    (tmp_path / "connector.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "order.avsc").write_text(json.dumps(SCHEMA), encoding="utf-8")
    (tmp_path / "events.jsonl").write_text('{"user": "ann"}\n{"user": "bob"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "connector", "demo", "--events"]
    done = subprocess.run([*command, "events.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "2 events produced to an embedded broker." in done.stdout
    assert "tracker accepted 2:" in done.stdout
    assert "qa accepted 2:" in done.stdout
    assert '"customUserId": "bob"' in done.stdout
    done = subprocess.run(
        [*command, "-"], cwd=tmp_path, input='{"user": ""}', capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "qa accepted 0." in done.stdout
    assert "mytracker.customUserId.length" in done.stdout
