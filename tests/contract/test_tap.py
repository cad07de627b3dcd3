"""`connector tap` follows the live topics from outside the group, and shows the way of each record, masked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts
from connector.testing import EmbeddedBroker, ManualClock

ENCODER = Encoder(load_contracts(), clock=ManualClock())
ROOT = Path(__file__).parents[2]


def event(cuid: int, **changes: Any) -> bytes:
    """Return an event of Jiguang's as a record's value."""
    datum = {"cuid": cuid, "eventName": "see", "itime": int(time.time() * 1000), "randomId": None}
    return ENCODER.single_object("connector.events.JiguangUserEvent", {**datum, "properties": {}, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the configuration of a topic that has one old record."""
    with EmbeddedBroker() as broker:
        broker.create("events")
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("events", event(1), b"old")
        assert producer.flush(20) == 0
        account = {"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "k"}
        config = {
            "kafka": {"topics": ["events"], "group_id": "g", "client": {"bootstrap.servers": broker.bootstrap}},
            "destinations": {"jg": account},
            "console": {"mask": ["properties.phone", "$key"]},
        }
        (tmp_path / "connector.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        yield tmp_path


def tapped(folder: Path, *arguments: str, produce: list[tuple[bytes, bytes | None]]) -> tuple[int, str, str]:
    """Run `tap`, produce the records once it follows, and return how it ended."""
    config = yaml.safe_load((folder / "connector.yaml").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "connector", "tap", "-c", str(folder / "connector.yaml"), *arguments]
    environment = {**os.environ, "NO_COLOR": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first == "Following events (4 partitions) from now on. Nothing is sent or committed. Ctrl-C stops.\n"
        producer = Producer({"bootstrap.servers": config["kafka"]["client"]["bootstrap.servers"]})
        for key, value in produce:
            producer.produce("events", value, key, partition=0)
        assert producer.flush(20) == 0
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err


RECORDS: list[tuple[bytes, bytes | None]] = [
    (b"13800138000", event(2, properties={"phone": "13800138000", "city": "Berlin"})),
    (b"k", event(3, eventName="")),
    (b"k", b"junk"),
    (b"k", None),
]


@pytest.mark.timeout(60)
def test_each_new_record_is_shown_with_its_way(folder: Path) -> None:
    """Route, bytes and refusal of each new record; the old one is not shown, and masked values are hidden."""
    code, out, err = tapped(folder, "--records", "4", "--sent", produce=RECORDS)
    assert (code, err) == (0, "")
    assert (out.count("events["), out.count("events[0]@")) == (4, 4)
    assert "jg by schema or target: " in out
    assert '"city":"Berlin"' in out
    assert "refused, jiguang.eventName.required" in out
    assert "refused, decode.frame" in out
    assert "null value, skipped" in out
    assert "13800138000" not in out


@pytest.mark.timeout(60)
def test_records_are_chosen_by_value_and_destination(folder: Path) -> None:
    """`--where` and `--destination` leave only matching records, as JSON Lines too."""
    arguments = ("--where", "cuid=3", "--where", "cuid=5", "--destination", "jg", "--records", "1", "--json")
    code, out, _ = tapped(folder, *arguments, produce=RECORDS)
    (line,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (line["topic"], line["schema"]) == ("events", "connector.events.JiguangUserEvent")
    (way,) = line["destinations"]
    assert (way["destination"], way["refused"]["code"]) == ("jg", "jiguang.eventName.required")
