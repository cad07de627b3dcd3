"""`connector offsets` on real Kafka: what a group has done is shown as it is, and reset only where that is safe."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.testing.faults import Fault
from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import DESTINATION, Job, Vendor, wait_for
from tools.servers import Kafka


def _lines(*arguments: str) -> list[dict[str, Any]]:
    """Run a command with --json and return its lines."""
    done = run_command("offsets", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _commit(kafka: Kafka, group: str, *places: TopicPartition) -> None:
    """Set a group's offsets, once the coordinator of a broker that has just started knows the group."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    wanted = [ConsumerGroupTopicPartitions(group, list(places))]

    def committed() -> bool:
        (future,) = admin.alter_consumer_group_offsets(wanted).values()
        return not any(place.error for place in future.result(20).topic_partitions)

    wait_for(committed, "an answer of the group's coordinator")


def _config(job: Job, vendor: Vendor) -> str:
    return str(job.write(job.settings(vendor.destination)))


def test_show_tells_lag_backlog_and_what_is_finished_above(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """The map is shown as ranges, whole and by destination, and the backlog leaves out what is finished for good."""
    job.produce(good(range(20), partition=0))
    finished = FinishedMap(Runs((5, 8, 10, 11)), {DESTINATION: Runs((12, 14))})
    _commit(kafka, job.group, TopicPartition(job.topic, 0, 3, metadata.encode(3, finished).text))
    _commit(kafka, job.group, TopicPartition(job.topic, 1, 0, "written by another program"))
    replay, *rows = _lines("show", "-c", _config(job, vendor))
    assert (replay["topic"], replay["lag"]) == (f"{job.group}.replay", 0)
    assert [(row["topic"], row["partition"]) for row in rows] == [(job.topic, number) for number in range(6)]
    assert (rows[0]["committed"], rows[0]["end"], rows[0]["lag"], rows[0]["backlog"]) == (3, 20, 17, 13)
    assert rows[0]["finished"] == [[5, 7], [10, 10]]
    assert rows[0]["finished_for"] == {DESTINATION: [[12, 13]]}
    assert rows[1]["metadata_fault"] == "not base64"
    assert (rows[2]["committed"], rows[2]["lag"]) == (None, 0)

    table = run_command("offsets", "-c", _config(job, vendor))
    assert table.returncode == 0
    assert "5-7, 10" in table.stdout
    assert "lag 17, of which unfinished 13" in table.stdout


def test_any_group_can_be_shown(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """--group shows the committed partitions of a group that is not the connector's; an unknown one has none."""
    job.produce(good(range(4), partition=2))
    other = f"{job.group}-other"
    _commit(kafka, other, TopicPartition(job.topic, 2, 1))
    rows = _lines("-c", _config(job, vendor), "--group", other)
    assert [(row["partition"], row["committed"], row["backlog"]) for row in rows] == [(2, 1, 3)]
    assert _lines("-c", _config(job, vendor), "--group", f"{other}-unknown") == []


def test_reset_forward_passes_over_one_record_and_repeats_nothing(job: Job, vendor: Vendor) -> None:
    """A stuck record is passed over by an offset one higher: what was finished above it is not sent again."""
    job.produce(good(range(200), partition=0))
    stuck = FIRST_CUID + 10
    vendor.arm(Fault("status", status=503, containing=f'"cuid":{stuck},'))
    settings = job.settings(vendor.destination)
    member = job.start(settings)
    member.wait(lambda: vendor.cuids.total() >= 199, "all but the stuck record")
    config = str(job.write(settings))
    refused = run_command("offsets", "reset", "-c", config, "--to", "11", "--partition", "0", "--yes")
    assert refused.returncode == 1
    assert "1 member running: stop it first" in refused.stderr
    assert member.stop() == 0
    assert job.committed()[0] == 10

    (move,) = _lines("reset", "-c", config, "--to", "11", "--partition", "0", "--dry-run")
    assert (move["from"], move["to"], move["again"], move["passed_over"], move["kept"]) == (10, 11, 0, 1, 189)
    assert job.committed()[0] == 10
    done = run_command("offsets", "reset", "-c", config, "--to", "11", "--partition", "0", "--yes")
    assert done.returncode == 0, done.stderr
    assert job.committed()[0] == 11
    vendor.recover()
    again = job.start(settings)
    again.wait(lambda: job.committed()[0] == 200, "the end")
    assert again.stop() == 0
    assert vendor.cuids.total() == 199


def test_reset_back_reads_all_again(job: Job, vendor: Vendor) -> None:
    """Set to earliest, or to a time before the first record, a stopped group sends all again, with the same ids."""
    job.produce(good(range(60), partition=0))
    settings = job.settings(vendor.destination)
    member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    config = str(job.write(settings))
    (move,) = _lines("reset", "-c", config, "--to", "2020-01-01T00:00:00Z", "--partition", "0", "--dry-run")
    assert (move["partition"], move["from"], move["to"], move["again"]) == (0, 60, 0, 60)
    assert run_command("offsets", "reset", "-c", config, "--to", "earliest", "--yes").returncode == 0
    assert job.committed()[0] == 0
    job.until_done(job.start(settings))
    assert vendor.cuids.total() == 120
    assert len({event["randomId"] for event in vendor.accepted}) == 60
    assert _lines("reset", "-c", config, "--to", "latest", "--dry-run", "--group", f"{job.group}-none") == []


def test_reset_refuses_what_is_outside_and_asks_no_one_in_a_pipe(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """An offset past the end changes nothing (exit 1). A pipe without --yes, and a bad --to, are refused (exit 2)."""
    job.produce(good(range(5), partition=0))
    config = _config(job, vendor)
    _commit(kafka, job.group, TopicPartition(job.topic, 0, 2))
    outside = run_command("offsets", "reset", "-c", config, "--to", "6", "--partition", "0", "--yes")
    assert outside.returncode == 1
    assert "has offsets 0 to its end 5, so it cannot be set to 6" in outside.stderr
    asked = run_command("offsets", "reset", "-c", config, "--to", "earliest")
    assert asked.returncode == 2
    assert "pass --yes to reset, or --dry-run" in asked.stderr
    for wrong in (["--to", "yesterday"], ["--to", "2026-11-20T00:00:00"], []):
        assert run_command("offsets", "reset", "-c", config, *wrong).returncode == 2
    assert run_command("offsets", "show", "-c", config, "--yes").returncode == 2
    assert job.committed()[0] == 2


def test_out_of_range_is_shown_and_mended(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """A committed offset beyond the end is marked in the table, and reset sets it to one that is there."""
    job.produce(good(range(5), partition=0))
    config = _config(job, vendor)
    _commit(kafka, job.group, TopicPartition(job.topic, 0, 50))
    assert "OUT OF RANGE" in run_command("offsets", "-c", config).stdout
    assert run_command("offsets", "reset", "-c", config, "--to", "latest", "--partition", "0", "--yes").returncode == 0
    (row,) = _lines("show", "-c", config, "--partition", "0", "--topic", job.topic)
    assert (row["committed"], row["out_of_range"], row["backlog"]) == (5, False, 0)
    assert job.committed()[0] == 5
