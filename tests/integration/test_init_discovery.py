"""`connector init` finds the schema of a topic: in a real registry by the subject, or by the topic's newest records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from connector.codec.from_json import encode_json
from connector.codec.schemas import read_schema
from tests.integration.events import register
from tools.servers import Kafka, Registry

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(60)]

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "com.acme",
    "fields": [{"name": "order_id", "type": "string"}, {"name": "user_id", "type": "long"}],
}


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `connector init` for Jiguang in a folder."""
    command = [sys.executable, "-m", "connector", "init", "--vendor", "jiguang", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_the_newest_schema_of_the_subject_is_used(
    registry: Registry, fresh_name: Callable[[str], str], tmp_path: Path
) -> None:
    """The schema's file and the registry's address are written; for an unknown topic the message says what to do."""
    topic = fresh_name("orders")
    register(registry, f"{topic}-value", ORDER)
    done = init(tmp_path, "--topic", topic, "--registry", registry.url)
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "connector.yaml").read_text(encoding="utf-8")
    assert f'schema_registry:\n  url: "{registry.url}"\n' in text
    assert "cuid: user_id" in text
    assert json.loads((tmp_path / "Order.avsc").read_text(encoding="utf-8"))["name"] == "com.acme.Order"
    done = init(tmp_path, "--topic", "no-such", "--registry", registry.url, "-c", "other.yaml")
    assert done.returncode == 1
    assert "no schema for topic no-such" in done.stderr
    assert "pass --bootstrap to look at its records, or --schema" in done.stderr


def test_the_records_name_the_schema(
    kafka: Kafka, registry: Registry, fresh_name: Callable[[str], str], tmp_path: Path
) -> None:
    """With --bootstrap the newest records say which schema it is, whatever its subject is called."""
    topic = fresh_name("orders")
    schema_id = register(registry, fresh_name("com.acme.Order"), {**ORDER, "doc": topic})
    schema = read_schema(json.dumps(ORDER))
    kafka.create_topic(topic, 2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    value = encode_json(schema.tree, {"order_id": "a", "user_id": 1})
    producer.produce(topic, b"\x00" + schema_id.to_bytes(4, "big") + value)
    producer.produce(topic, b"junk")
    assert producer.flush(20) == 0
    done = init(tmp_path, "--topic", topic, "--registry", registry.url, "--bootstrap", kafka.bootstrap)
    assert (done.returncode, done.stderr) == (0, "")
    assert "schema: com.acme.Order" in (tmp_path / "connector.yaml").read_text(encoding="utf-8")
