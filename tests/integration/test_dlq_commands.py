"""`connector dlq` on real Kafka: what a job has dead-lettered is listed, counted, shown and exported as it is."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Producer

from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, Message, datum_bytes, event, good, single_object
from tests.integration.job import DESTINATION, Job, Vendor
from tools.servers import Kafka


def _bad() -> list[Message]:
    """Return one record that is no Avro, one that breaks a rule, and three whose event the vendor does not know."""
    unknown = [single_object(datum_bytes(event(number, eventName="unknown"))) for number in (11, 12, 13)]
    values = [b"no avro", single_object(datum_bytes(event(10, eventName=""))), *unknown]
    return [Message(value, b"bad-%d" % number, (("trace", b"\xff"),), 0) for number, value in enumerate(values)]


def _lines(*arguments: str) -> list[dict[str, Any]]:
    done = run_command("dlq", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _in_transactions(kafka: Kafka, topic: str, *records: tuple[bytes | None, list[tuple[str, bytes]], bool]) -> None:
    """Write records to partition 0, each in a transaction of its own that is committed or aborted."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for value, headers, committed in records:
        producer.begin_transaction()
        producer.produce(topic, value, b"bad-2", 0, headers=list(headers))
        assert producer.flush(30) == 0
        if committed:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)


def _dead_lettered(job: Job, vendor: Vendor) -> tuple[str, list[Message]]:
    """Run a job that ends with five dead letters; return its configuration, and the records that they are of."""
    bad = _bad()
    job.produce([*good(range(5), partition=0), *bad])
    settings = job.settings(vendor.destination)
    member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    return str(job.write(settings)), bad


def test_dead_letters_are_listed_counted_shown_and_exported(
    kafka: Kafka, job: Job, vendor: Vendor, tmp_path: Path
) -> None:
    """All four commands show the same five dead letters; only a committed resolution hides one."""
    config, bad = _dead_lettered(job, vendor)
    rows = _lines("list", "-c", config, "--json")
    by_key = {row["origin"]["offset"]: row for row in rows}
    assert sorted(by_key) == [5, 6, 7, 8, 9]
    assert [by_key[offset]["cause"] for offset in sorted(by_key)] == ["decode", "invalid", *["refused"] * 3]
    assert {row["state"] for row in rows} == {"open"}
    code = by_key[7]["code"]
    counts = _lines("stats", "-c", config, "--json")
    assert (counts[0]["cause"], counts[0]["code"], counts[0]["destination"], counts[0]["letters"]) == (
        *("refused", code, DESTINATION),
        3,
    )
    assert sum(one["letters"] for one in counts) == 5
    table = run_command("dlq", "stats", "-c", config, "--where", f"code={code}")
    assert "3 dead letters" in table.stdout
    assert [row["origin"]["offset"] for row in _lines("list", "-c", config, "--json", "--key", "bad-3")] == [8]

    resolves = [("dlq-resolves", by_key[7]["id"].encode()), ("dlq-resolution", b"discarded"), ("dlq-at", b"now")]
    others = [("dlq-resolves", by_key[8]["id"].encode()), ("dlq-resolution", b"discarded")]
    _in_transactions(kafka, job.dead_letters_topic, (None, resolves, True), (None, others, False))
    left = run_command("dlq", "list", "-c", config)
    assert left.returncode == 0
    assert by_key[8]["id"] in left.stdout
    assert by_key[7]["id"] not in left.stdout
    assert "4 dead letters" in left.stdout
    assert len(_lines("list", "-c", config, "--json", "--all", "--limit", "3")) == 3

    file = tmp_path / "letters.avro"
    assert run_command("dlq", "export", str(file), "-c", config, "--all").returncode == 0
    with file.open("rb") as opened:
        exported = [row for row in fastavro.reader(opened) if isinstance(row, dict)]
    assert {row["key"]: row["value"] for row in exported} == {message.key: message.value for message in bad}
    assert [row["headers"] for row in exported] == [[{"name": "trace", "value": b"\xff"}]] * 5
    assert [row["resolved"] for row in exported if row["origin_offset"] == 7] == ["discarded"]
    again = run_command("dlq", "export", str(file), "-c", config)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    piped = _lines("export", "-", "-c", config, "--where", "cause=decode")
    assert [base64.b64decode(row["value"]) for row in piped] == [b"no avro"]


def test_show_tells_the_event_and_what_would_be_sent(job: Job, vendor: Vendor) -> None:
    """A refused dead letter shows its event and the bytes sent to the vendor; others show why nothing is sent."""
    config, _ = _dead_lettered(job, vendor)
    by_offset = {row["origin"]["offset"]: row for row in _lines("list", "-c", config, "--json")}
    (refused,) = _lines("show", by_offset[8]["id"], "-c", config, "--json")
    assert refused["event"]["cuid"] == FIRST_CUID + 12
    (today,) = refused["destinations_today"]
    assert (today["destination"], today["reason"], today["dedup_id"]) == (DESTINATION, None, refused["dedup_id"])
    fragment = json.loads(today["fragment"])
    assert (fragment["eventName"], fragment["randomId"]) == ("unknown", refused["dedup_id"])
    assert [row["id"] for row in refused["history"]] == [refused["id"]]

    (invalid,) = _lines("show", by_offset[6]["id"], "-c", config, "--json")
    assert invalid["destinations_today"][0]["rule"] == invalid["code"]
    assert invalid["destinations_today"][0]["fragment"] is None
    (broken,) = _lines("show", by_offset[5]["id"], "-c", config, "--json")
    assert (broken["event"], broken["destinations_today"]) == (None, [])
    assert broken["fault_today"] == broken["message"]
    told = run_command("dlq", "show", by_offset[8]["id"][:8], "-c", config)
    assert told.returncode == 0, told.stderr
    assert today["fragment"] in told.stdout
    assert "(this dead letter)" in told.stdout


def test_what_cannot_be_is_said_with_the_right_code(job: Job, vendor: Vendor) -> None:
    """No dead letters: exit 0; an unknown id, a topic that is not there: 1; a filter that means nothing: 2."""
    settings = job.settings(vendor.destination)
    config = str(job.write(settings))
    assert "no matching dead letters" in run_command("dlq", "list", "-c", config).stdout
    assert _lines("stats", "-c", config, "--json") == []
    unknown = run_command("dlq", "show", "0000000000", "-c", config)
    assert unknown.returncode == 1
    assert "no dead letter has the id" in unknown.stderr
    wrong = run_command("dlq", "stats", "-c", config, "--where", "colour=red")
    assert wrong.returncode == 2
    assert "one of the names cause, code" in wrong.stderr
    missing = str(job.write({**settings, "dead_letters": {"topic": f"{job.topic}-none"}}, "missing"))
    none = run_command("dlq", "list", "-c", missing)
    assert none.returncode == 1
    assert f"topic {job.topic}-none does not exist" in none.stderr
