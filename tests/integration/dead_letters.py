"""Dead letters written straight into a job's dead-letter topic, as the connector writes them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import Producer
from typer.testing import CliRunner

from connector.cli.main import app
from connector.dead_letters.headers import to_headers
from connector.records import DeadLetter, Record, uuid5_text
from tests.integration.job import Job

PARTITIONS: Final = 2


class Told(NamedTuple):
    """A dead letter to write: the value that it holds, and what its headers say."""

    number: int
    value: bytes
    cause: str
    code: str
    destination: str | None = None
    vendor: str | None = None


def write_dead_letters(job: Job, dead_letters: Iterable[Told]) -> dict[int, str]:
    """Write dead letters and return the dedup id of each by its number."""
    producer = Producer({"bootstrap.servers": job.kafka.bootstrap, "linger.ms": 5, "acks": "all"})
    ids = {}
    now = time.time()
    for one in dead_letters:
        record = Record(job.topic, one.number % 6, one.number, int(now * 1000), b"k%d" % one.number, one.value, ())
        ids[one.number] = uuid5_text(f"letter {one.number}")
        dead_letter = DeadLetter(
            record=record,
            cause=one.cause,
            code=one.code,
            message=f"refused for the test with {one.code}",
            failed_at=now,
            dedup_id=ids[one.number],
            vendor=one.vendor,
            destination=one.destination,
            http_status=200 if one.cause == "refused" else None,
            attempts=1 if one.destination is not None else 0,
        )
        headers: Any = to_headers(dead_letter, group=job.group)
        producer.produce(job.dead_letters_topic, one.value, record.key, one.number % PARTITIONS, headers=headers)
        if one.number % 500 == 0:
            producer.poll(0)
    assert producer.flush(30) == 0
    return ids


def lines(*arguments: str) -> list[dict[str, Any]]:
    """Return what a `dlq` command prints with --json."""
    return [json.loads(line) for line in printed("dlq", *arguments, "--json").splitlines()]


def printed(*arguments: str) -> str:
    """Return what a command prints; it runs in this process, because a new one takes longer than most commands."""
    try:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    finally:
        structlog.reset_defaults()
    assert done.exit_code == 0, done.stderr
    return str(done.stdout)
