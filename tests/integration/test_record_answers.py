"""`connector explain`, `skip` and `preview` on real Kafka: what became, becomes or would become of records."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.testing.faults import Fault
from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, Message, datum_bytes, event, good, single_object, wire
from tests.integration.job import DESTINATION, Job, Member, Vendor
from tools.servers import Kafka


def _explain(config: str, topic: str, partition: int, offset: int, *more: str, code: int = 0) -> dict[str, Any]:
    """Explain one record as JSON."""
    done = run_command("explain", topic, str(partition), str(offset), "-c", config, "--json", *more)
    assert done.returncode == code, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _skip(config: str, member: Member, topic: str, offset: int) -> tuple[int, str]:
    """Skip a record of partition 0; return the exit code and what was said."""
    done = run_command("skip", topic, "0", str(offset), "-c", config, "--url", f"http://127.0.0.1:{member.port}")
    return done.returncode, done.stdout + done.stderr


def _aborted(kafka: Kafka, topic: str) -> None:
    """Write a record to partition 0 in a transaction that is aborted."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"never", None, 0)
    assert producer.flush(30) == 0
    producer.abort_transaction(30)


def test_a_record_is_explained_with_its_receipt_or_its_dead_letter(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Shows the receipt of a delivery, the dead letter of a refusal, an outcome by offset, and a deleted record."""
    bad = Message(single_object(datum_bytes(event(5, eventName="unknown"))), b"bad", (), 0)
    job.produce([*good(range(5), partition=0), bad])
    settings = job.settings(vendor.destination, receipts={"topic": f"{job.group}.receipts"})
    settings["kafka"]["create_topics"] = True
    member = job.start(settings)
    job.until_done(member)
    member.wait(lambda: member.metric('connector_receipts_total{result="written"}') >= 1, "a receipt")
    assert member.stop() == 0
    config = str(job.write(settings))

    told = _explain(config, job.topic, 0, 2)
    assert (told["event"]["cuid"], told["schema"]) == (FIRST_CUID + 2, "connector.events.JiguangUserEvent")
    assert base64.b64decode(told["record"]["key"]) == b"user-2"
    (today,) = told["destinations"]
    assert (today["destination"], today["finished"], today["reason"]) == (DESTINATION, True, None)
    assert json.loads(today["fragment"])["cuid"] == FIRST_CUID + 2
    assert (told["groups"][0]["by"], told["groups"][0]["committed"]) == ("committed", 6)
    (receipt,) = told["receipts"]
    assert (receipt["destination"], receipt["http_status"], receipt["group"]) == (DESTINATION, 200, job.group)
    assert any(one["first"] <= 2 <= one["last"] for one in receipt["positions"])
    assert told["dead_letters"] == []

    told = _explain(config, job.topic, 0, 5, "--all")
    assert [dead_letter["cause"] for dead_letter in told["dead_letters"]] == ["refused"]
    assert told["receipts"] == []

    text = run_command("explain", job.topic, "0", "2", "-c", config).stdout
    for part in (f"For {DESTINATION} today", "finished: below the committed offset 6", f"accepted by {DESTINATION}"):
        assert part in text

    _aborted(kafka, job.topic)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    (deleted,) = admin.delete_records([TopicPartition(job.topic, 0, 2)]).values()
    deleted.result(20)
    gone = _explain(config, job.topic, 0, 1, code=1)
    assert "begins at offset 2 now" in gone["missing"]
    assert len(gone["receipts"]) == 1
    assert "was aborted" in _explain(config, job.topic, 0, 6, code=1)["missing"]
    assert "marker of a transaction" in _explain(config, job.topic, 0, 7, code=1)["missing"]


def test_what_was_never_there_is_said(job: Job, vendor: Vendor) -> None:
    """A topic, partition or offset that is not there ends with 1 and one sentence that names it."""
    job.produce(good(range(3), partition=0))
    config = str(job.write(job.settings(vendor.destination)))
    for place, said in (
        ((f"{job.topic}-none", "0", "0"), "-none does not exist"),
        ((job.topic, "6", "0"), "has no partition 6; it has partitions 0 to 5"),
        ((job.topic, "0", "3"), "there is no record at offset 3 yet"),
        ((job.topic, "0", "5000"), "there is no record at offset 5000 yet"),
    ):
        done = run_command("explain", *place, "-c", config)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr


@pytest.mark.promise("P1", "P10")
def test_a_poison_at_the_head_is_skipped(job: Job, vendor: Vendor) -> None:
    """A record that makes the vendor fail becomes a dead letter by hand, and the group's offset passes it.

    Kills: an offset that passes a skipped record without its dead letter.
    """
    job.produce(good(range(200), partition=0))
    vendor.arm(Fault("status", status=503, containing=f'"cuid":{FIRST_CUID},'))
    settings = job.settings(vendor.destination)
    member = job.start(settings)
    member.wait(lambda: vendor.cuids.total() >= 199, "all but the stuck record")
    config = str(job.write(settings))
    assert job.committed()[0] == 0
    told = _explain(config, job.topic, 0, 0)
    assert (told["groups"][0]["by"], told["groups"][0]["members"]) == (None, 1)
    code, said = _skip(config, member, job.topic, 0)
    assert (code, "is skipped: a dead letter with cause operator" in said) == (0, True), said
    job.until_done(member)
    (dead_letter,) = job.dead_letters()
    assert (dead_letter.own["dlq-cause"], dead_letter.own["dlq-code"], dead_letter.own["dlq-origin-offset"]) == (
        *("operator", "operator.skip"),
        "0",
    )
    assert int(dead_letter.own["dlq-attempts"]) >= 1
    for offset, words in ((0, "already done"), (200, "ends at 200")):
        code, said = _skip(config, member, job.topic, offset)
        assert (code, words in said) == (1, True), said
    code, said = _skip(config, member, f"{job.topic}-other", 0)
    assert (code, "this member does not own" in said) == (1, True), said
    assert member.stop() == 0
    assert vendor.cuids.total() == 199


def test_a_record_that_waits_for_its_schema_is_skipped(job: Job, vendor: Vendor) -> None:
    """While the registry is away the head can be set aside by hand, and what it kept waiting is delivered."""
    head = Message(wire(77, datum_bytes(event(0))), b"head", (), 0)
    job.produce([head, *good(range(1, 10), partition=0)])
    settings = job.settings(vendor.destination, schema_registry={"url": "http://127.0.0.1:1"})
    member = job.start(settings)
    member.until_held("registry")
    code, said = _skip(str(job.write(settings)), member, job.topic, 0)
    assert code == 0, said
    job.until_done(member)
    assert vendor.cuids.total() == 9
    (dead_letter,) = job.dead_letters()
    assert (dead_letter.value, dead_letter.own["dlq-cause"]) == (head.value, "operator")
    assert "dlq-destination" not in dead_letter.own
    assert member.stop() == 0


def test_a_preview_sends_nothing_and_commits_nothing(job: Job, vendor: Vendor) -> None:
    """What is there is accounted for, for a new group and from the end back, and neither vendor nor group sees it."""
    bad = [Message(single_object(datum_bytes(event(n, eventName=""))), b"bad", (), 1) for n in range(3)]
    job.produce([*good(range(250), partition=0), *bad, Message(b"junk", b"junk", (), 2)])
    config = str(job.write(job.settings(vendor.destination)))
    done = run_command("preview", "-c", config, "--json", "--speed", "backlog")
    assert done.returncode == 0, done.stderr
    sample, sent, *refused = [json.loads(line) for line in done.stdout.splitlines()]
    assert (sample["read"], sample["left"]) == ({job.topic: 254}, 0)
    assert (sent["destination"], sent["records"], sent["requests"]) == (DESTINATION, 250, 3)
    assert [(one["cause"], one["records"]) for one in refused] == [("invalid", 3), ("decode", 1)]
    few = run_command("preview", "-c", config, "--from", "newest", "--records", "10")
    assert "10 records read" in few.stdout
    assert "Would become dead letters" in few.stdout
    assert sum(job.committed().values()) == 0
    assert vendor.served == []
    wrong = run_command("preview", "-c", config, "--topic", "other")
    assert (wrong.returncode, "other is not in kafka.topics" in wrong.stderr) == (1, True)
