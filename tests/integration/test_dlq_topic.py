"""The dead-letter topic as Kafka lets it be: compacted, with more partitions later, recreated, and erased in part."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the stub forgets to export some of them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from connector.config.loader import KafkaSettings
from connector.console.feed import Feed
from connector.console.index import DeadLetterIndex, Query
from connector.dead_letters.headers import to_headers
from connector.kafka.topic_reader import TopicTail
from connector.records import DeadLetter, Record
from tests.integration.dead_letters import Told, lines, printed, write_dead_letters
from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, Message, datum_bytes, event, single_object
from tests.integration.job import DESTINATION, Job, Vendor, wait_for
from tests.integration.test_corpus_java import run_java
from tools.servers import TOOLS, Kafka, java


def _some(numbers: range) -> list[Told]:
    value = single_object(datum_bytes(event(0)))
    return [Told(number, value, "refused", "4103", DESTINATION, "jiguang") for number in numbers]


def _topic(kafka: Kafka, topic: str) -> list[Any]:
    """Return every message of a topic, in offset order by partition."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "look", "enable.partition.eof": True})
    try:
        numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        found, ended = [], 0
        while ended < len(numbers):
            message = consumer.poll(10)
            assert message is not None
            ended += message.error() is not None
            found += [message] if message.error() is None else []
        return sorted(found, key=lambda message: (message.partition(), message.offset()))
    finally:
        consumer.close()


def test_erased_dead_letters_are_gone_and_others_are_not_lost_by_chance(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """A person's dead letters go with what is older in their partition; unresolved others forbid it unless forced.

    Kills: an offset one too low, a copy that stays, an erasure without its audit record.
    """
    audit = kafka.create_topic(f"{job.group}.audit")
    settings = job.settings(vendor.destination, console={"audit_topic": audit})
    config = str(job.write(settings))
    write_dead_letters(job, _some(range(10)))
    planned = run_command("dlq", "erase", "-c", config, "--key", "k4", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    refused = run_command("dlq", "erase", "-c", config, "--key", "k4", "--yes")
    assert refused.returncode == 1
    assert "2 unresolved dead letters in front of them would be lost" in refused.stderr
    assert len(lines("list", "-c", config)) == 10
    assert _topic(kafka, audit) == []

    printed("dlq", "discard", "-c", config, "--yes", "--where", "offset=0", "--where", "offset=2")
    erased = run_command("dlq", "erase", "-c", config, "--key", "k4", "--yes")
    assert erased.returncode == 0, erased.stderr
    left = lines("list", "-c", config, "--all")
    assert sorted(row["origin"]["offset"] for row in left) == [1, 3, 5, 6, 7, 8, 9]
    (noted,) = (json.loads(message.value()) for message in _topic(kafka, audit))
    assert (noted["action"], noted["dead_letters"], noted["before"]) == ("erase", 1, {"0": 3})
    assert run_command("dlq", "erase", "-c", config, "--key", "nobody", "--yes").returncode == 0
    assert len(lines("list", "-c", config, "--all")) == 7


def test_a_compacted_topic_is_not_written_to(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """A resolution would delete every dead letter with its key, so replay and discard refuse, and list warns."""
    config = str(job.write(job.settings(vendor.destination)))
    write_dead_letters(job, _some(range(3)))
    policy = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, job.dead_letters_topic, incremental_configs=[policy])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    for command in ("replay", "discard"):
        done = run_command("dlq", command, "-c", config, "--all", "--yes")
        assert done.returncode == 1
        assert "is compacted" in done.stderr
        assert "cleanup.policy=delete" in done.stderr
    shown = run_command("dlq", "list", "-c", config)
    assert shown.returncode == 0
    assert "is compacted" in shown.stderr
    assert len(lines("list", "-c", config)) == 3


def test_dead_letters_survive_partitions_that_are_added_later(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """After partitions were added, old and new dead letters are listed, resolved and erased alike, each id once.

    Kills: a resolution in the partition that today's partitioner names instead of the dead letter's own.
    """
    config = str(job.write(job.settings(vendor.destination)))
    write_dead_letters(job, _some(range(6)))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_partitions([NewPartitions(job.dead_letters_topic, 5)]).values():
        future.result(10)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    again = [message for message in _topic(kafka, job.dead_letters_topic) if message.key() in (b"k1", b"k2")]
    for number, message in enumerate(again):  # a crash wrote them twice, into partitions that are new
        producer.produce(job.dead_letters_topic, message.value(), message.key(), 3 + number, headers=message.headers())
    assert producer.flush(10) == 0
    assert sorted(row["origin"]["offset"] for row in lines("list", "-c", config)) == list(range(6))
    done = lines("discard", "-c", config, "--all", "--yes")
    assert Counter(row["result"] for row in done) == {"discarded": 6}
    assert lines("list", "-c", config) == []
    assert len(lines("list", "-c", config, "--all")) == 6


@pytest.mark.timeout(120)
def test_a_recreated_topic_with_fewer_partitions_is_another_one(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """The old dead letters are shown nowhere any more, also by a console that runs; the new are listed and replayed.

    Kills: an index that keeps what was in a partition that is gone, or at an offset that is another record's now.
    """
    settings = job.settings(vendor.destination)
    config = str(job.write(settings))
    write_dead_letters(job, _some(range(6)))
    index = DeadLetterIndex(1000)

    def apart(command: str, *arguments: str) -> list[dict[str, Any]]:
        # In a process of its own: the feed's thread writes its log into what a command of this process prints.
        done = run_command("dlq", command, "-c", config, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    reads = KafkaSettings.model_validate(settings["kafka"])
    feed = Feed(index, lambda: TopicTail(reads, job.dead_letters_topic))
    feed.start()
    try:
        wait_for(lambda: len(index) == 6 and not feed.left, "the old dead letters")
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        for future in admin.delete_topics([job.dead_letters_topic]).values():
            future.result(10)
        wait_for(lambda: job.dead_letters_topic not in admin.list_topics(timeout=10).topics, "the deletion")
        for future in admin.create_topics([NewTopic(job.dead_letters_topic, 1, 1)]).values():
            future.result(10)
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        for told in _some(range(10, 12)):
            record = Record(job.topic, 0, told.number, 5, b"k%d" % told.number, told.value, ())
            own: Any = {"vendor": "jiguang", "destination": DESTINATION}
            fault = DeadLetter(record, "refused", "4103", "unknown", 1.0, f"id-{told.number}", **own)
            headers: Any = to_headers(fault, group=job.group)
            producer.produce(job.dead_letters_topic, told.value, record.key, 0, headers=headers)
        assert producer.flush(10) == 0
        assert sorted(row["origin"]["offset"] for row in apart("list")) == [10, 11]
        wait_for(lambda: sorted(row.key or b"" for row in index.page(Query(), 0, 99)[0]) == [b"k10", b"k11"], "the new")
        done = apart("replay", "--all", "--yes")
        assert Counter(row["result"] for row in done) == {"replayed": 2}
        wait_for(lambda: len(index.rows(Query())) == 0, "the resolutions")
        assert apart("list") == []
    finally:
        feed.stop()


@pytest.mark.timeout(90)
def test_left_out_values_are_read_at_their_origin_and_replayed_in_key_order(job: Job, vendor: Vendor) -> None:
    """With `order: key`, what was too large for the dead-letter topic is read from its source and delivered, once.

    Kills: an empty value that is replayed, a value that is not compared with what failed.
    """
    settings = job.settings({**vendor.destination, "order": "key"})
    config = str(job.write(settings))
    sent = job.produce(Message(single_object(datum_bytes(event(n))), b"k", (("n", b"%d" % n),), 0) for n in range(4))
    producer = Producer({"bootstrap.servers": job.kafka.bootstrap})
    for each in sent:
        message = each.message
        value = b"another value" if each.offset == 3 else message.value
        record = Record(job.topic, each.partition, each.offset, each.timestamp, message.key, value, message.headers)
        own: Any = {"vendor": "jiguang", "destination": DESTINATION}
        fault = DeadLetter(record, "refused", "4103", "unknown", 1.0, f"id-{each.offset}", **own)
        headers: Any = to_headers(fault, group=job.group, left_out=("value", "key", "headers"))
        producer.produce(job.dead_letters_topic, b"", None, 0, headers=headers)
    assert producer.flush(10) == 0
    results = {row["dedup_id"]: (row["result"], row["code"]) for row in lines("replay", "-c", config, "--all", "--yes")}
    assert results == {**{f"id-{n}": ("replayed", None) for n in range(3)}, "id-3": ("kept", "left_out")}
    replays = _topic(job.kafka, f"{job.group}.replay")
    assert [(each.key(), each.value()) for each in replays] == [(b"k", each.message.value) for each in sent[:3]]
    assert [each.headers()[0] for each in replays] == [("n", b"%d" % n) for n in range(3)]
    member = job.start({**settings, "kafka": {**settings["kafka"], "start": "latest"}})
    member.wait(lambda: len(vendor.accepted) >= 3, "all replays")
    assert vendor.cuids == Counter(FIRST_CUID + number for number in range(3))
    assert member.stop() == 0


def test_exports_are_read_back_by_fastavro_java_and_a_spreadsheet(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """What is exported is what was written, odd headers, undecodable values and formulas included.

    Kills: a cell that a spreadsheet runs, a header that is dropped, a file that only fastavro reads.
    """
    config = str(job.write(job.settings(vendor.destination)))
    odd = (("", b""), ("n", None), ("n", b"\xff\x00"), ("=1+1", "礼".encode()))
    producer = Producer({"bootstrap.servers": job.kafka.bootstrap})
    keys = (b"=HYPERLINK(1)", b"\xff", None)
    for number, key in enumerate(keys):
        record = Record(job.topic, 0, number, 5, key, b"\x00not avro", odd)
        at = 253402300800.0 * number  # the second and third clock have jumped out of the calendar
        fault = DeadLetter(record, "decode", "decode.avro", "=cmd|' /C calc'!A0", at, f"id-{number}")
        headers: Any = to_headers(fault, group=job.group)
        producer.produce(job.dead_letters_topic, record.value, key, 0, headers=headers)
    assert producer.flush(10) == 0
    files = {form: tmp_path / f"letters.{form}" for form in ("jsonl", "csv", "avro")}
    for file in files.values():
        assert run_command("dlq", "export", str(file), "-c", config).returncode == 0
    with files["avro"].open("rb") as opened:
        rows: list[Any] = list(fastavro.reader(opened))
    assert [row["key"] for row in rows] == list(keys)
    assert {row["value"] for row in rows} == {b"\x00not avro"}
    assert [[(each["name"], each["value"]) for each in row["headers"]] for row in rows] == [list(odd)] * 3
    tools, machine = next((TOOLS / "avro").glob("avro-tools*.jar"), None), java()
    if tools is not None and machine is not None:
        read = [json.loads(line) for line in run_java(machine, tools, files["avro"].read_bytes()).splitlines()]
        assert [row["id"] for row in read] == [row["id"] for row in rows]
        assert [row["key"] and row["key"]["bytes"].encode("latin-1") for row in read] == list(keys)
    with files["csv"].open(encoding="utf-8-sig", newline="") as table:
        cells = list(csv.DictReader(table))
    assert [cell["key"] for cell in cells] == ["'=HYPERLINK(1)", "", ""]
    assert [cell["message"] for cell in cells] == ["'=cmd|' /C calc'!A0"] * 3
    assert [cell["id"] for cell in cells] == [row["id"] for row in rows]
    written = [json.loads(line) for line in files["jsonl"].read_text("utf-8").splitlines()]
    assert [row["failed_at"] for row in written] == ["1970-01-01T00:00:00.000Z", "253402300800000", "506804601600000"]
    assert [header["value"] for header in written[0]["headers"]] == ["", None, "/wA=", "56S8"]
