"""A broker that dies under load, and topics that change or lose records while they are read."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from connector.testing.faults import Fault
from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import DESTINATION, Job, Member, Vendor, wait_for
from tests.integration.load import Load, each_at_least_once, frozen, long_or, owned, repeated, runs, settings_of, show
from tools.servers import Kafka

KILLS = long_or(5, 1)
QUICK = {"topic.metadata.refresh.interval.ms": 500}


@pytest.mark.promise("P1")
@pytest.mark.timeout(long_or(300, 120))
@pytest.mark.parametrize("protocol", ["cooperative", "kip-848"])
def test_a_broker_killed_under_load_ends_no_member_and_loses_nothing(
    protocol: str, kafka: Kafka, job: Job, vendor: Vendor
) -> None:
    """While events come and go the only broker is killed and comes back: two members live on and deliver all of them.

    Kills: a consumer's or a producer's passing trouble that is taken for the end, a commit that is not made again.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.1))
    with Load(job, 500) as load:
        members = [job.start(settings_of(job, vendor, protocol)) for _ in range(2)]
        for member in members:
            member.wait(lambda: member.status()["partitions"], "partitions")  # noqa: B023
        for _ in range(KILLS):
            before = len(vendor.cuids)
            wait_for(lambda: len(vendor.cuids) > before + 500, "events at the vendor")  # noqa: B023
            kafka.kill()
            kafka.start()
            seen = load.written
            load.until_written(seen + 500)
        load.stop()
        job.until_done(members[0])
    assert [member.stop() for member in members] == [0, 0]
    each_at_least_once(vendor, load)
    assert job.dead_letters() == []
    show("broker killed", kills=KILLS, protocol=protocol, events=load.written, came_again=len(repeated(vendor)))


def _settings(job: Job, vendor: Vendor, **client: Any) -> dict[str, Any]:
    settings = settings_of(job, vendor)
    settings["kafka"]["client"] |= QUICK | client
    return settings


def _admin(kafka: Kafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap})


def _delete_records(kafka: Kafka, topic: str, before: dict[int, int]) -> None:
    """Delete what is below these offsets, as retention does."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    admin = _admin(kafka)  # its answers come only while it is referred to
    for future in admin.delete_records(places).values():
        future.result(10)


def _until_quiet(member: Member, vendor: Vendor, count: int) -> None:
    member.wait(lambda: vendor.cuids.total() >= count, f"{count} events at the vendor")


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_partitions_that_are_added_are_read_from_their_first_record(
    start: str, kafka: Kafka, job: Job, vendor: Vendor
) -> None:
    """A topic grows while a member runs: what was written to the new partitions before it saw them arrives too."""
    settings = _settings(job, vendor)
    settings["kafka"]["start"] = start
    member = job.start(settings)
    member.wait(lambda: owned(job, member) == [6], "the first partitions")
    job.produce(good(range(100)))
    _until_quiet(member, vendor, 100)
    admin = _admin(kafka)
    for future in admin.create_partitions([NewPartitions(job.topic, 8)]).values():
        future.result(10)
    wait_for(lambda: len(admin.list_topics(job.topic, timeout=10).topics[job.topic].partitions) == 8, "partitions")
    job.partitions = 8
    job.produce(good(range(100, 150), partition=6))
    member.wait(lambda: owned(job, member) == [8], "the new partitions")
    job.produce(good(range(150, 200), partition=7))
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.keys() == {FIRST_CUID + number for number in range(200)}
    assert vendor.cuids.total() == 200


@pytest.mark.promise("P1")
@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_topic_deleted_under_way_is_waited_for_and_said(start: str, kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """A topic is deleted and recreated: the member reports it, keeps running, and reads the whole new topic.

    Kills: the end of the new topic, because the group has no offsets in it.
    """
    settings = _settings(job, vendor)
    settings["kafka"]["start"] = start
    member = job.start(settings)
    member.wait(lambda: owned(job, member) == [6], "its partitions")
    job.produce(good(range(300)))
    job.until_done(member)
    admin = _admin(kafka)
    for future in admin.delete_topics([job.topic]).values():
        future.result(10)
    member.wait(lambda: member.lines("kafka.trouble"), "a word about the topic")
    kafka.create_topic(job.topic, 6)
    job.produce(good(range(300, 500)))
    member.wait(lambda: vendor.cuids.total() >= 500, "the new topic's events")
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.total() == 500


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("protocol", "start", "new"),
    [
        ("cooperative", "earliest", 500),
        ("kip-848", "earliest", 500),
        ("cooperative", "latest", 500),
        ("cooperative", "latest", 100),
    ],
)
def test_a_topic_made_anew_behind_a_members_back_is_read_from_its_first_record(
    protocol: str, start: str, new: int, kafka: Kafka, job: Job, vendor: Vendor
) -> None:
    """A topic is deleted, recreated and written to before its member notices: none of the new records is passed over.

    So it is whether or not the new topic is as long as the old one, and if another process goes on, for which the
    group has no offsets. Kills: a commit in the new topic of a position in the old one.
    """
    old = 300
    settings = settings_of(job, vendor, protocol)
    settings["kafka"]["start"] = start
    member = job.start(settings)
    member.wait(lambda: owned(job, member) == [6], "its partitions")
    job.produce(good(range(old), partition=0))
    job.until_done(member)
    with frozen(member):
        admin = _admin(kafka)
        for future in admin.delete_topics([job.topic]).values():
            future.result(10)
        kafka.create_topic(job.topic, 6)
        job.produce(good(range(old, old + new), partition=0))
    wait_for(lambda: not runs(member) or vendor.cuids.total() >= old + new, "the end, or all of the new events")
    if not runs(member):
        assert member.exit_code() == 1
        assert f"topic {job.topic} was deleted and recreated" in member.text
        assert "connector offsets reset" in member.text
        member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.keys() == {FIRST_CUID + number for number in range(old + new)}


@pytest.mark.promise("P1")
def test_a_topic_recreated_while_partitions_arrive_loses_no_record(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """A member that holds partitions of the old topic gets others of the new one: it commits nothing of the old.

    Kills: ids by topic, which the partitions that arrive overwrite for those still held.
    """
    old, new = 50, 80
    for number in range(6):
        job.produce(good(range(number * old, number * old + old), partition=number))
    settings = settings_of(job, vendor, "cooperative")
    stays = job.start(settings)
    leaves = job.start(settings)
    job.until_done(stays)
    wait_for(lambda: 0 < len(stays.status()["partitions"]) < 6, "both members to have partitions")
    with frozen(stays):
        admin = _admin(kafka)
        for future in admin.delete_topics([job.topic]).values():
            future.result(10)
        kafka.create_topic(job.topic, 6)
        for number in range(6):
            first = 6 * old + number * new
            job.produce(good(range(first, first + new), partition=number))
        leaves.stop()
    every = 6 * (old + new)
    wait_for(lambda: not runs(stays) or len(vendor.cuids) >= every, "the end, or all of the new events")
    if not runs(stays):
        assert stays.exit_code() == 1
        assert f"topic {job.topic} was deleted and recreated" in stays.text
        stays = job.start(settings)
    job.until_done(stays)
    assert stays.stop() == 0
    assert vendor.cuids.keys() == {FIRST_CUID + number for number in range(every)}


def test_a_committed_offset_out_of_range_stops_with_the_way_out(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Retention overtook a stopped group: the run ends with 1 and names the command, after which it goes on."""
    job.produce(good(range(100), partition=0))
    vendor.arm(Fault("hang", containing=f'"cuid":{FIRST_CUID + 50},'))
    settings = _settings(job, vendor)
    settings["destinations"][DESTINATION] |= {"timeout": "500ms", "batch": {"records": 10}}
    settings["limits"] = {"drain_timeout": "3s"}
    member = job.start(settings)
    member.wait(lambda: vendor.cuids.total() >= 90, "events at the vendor")
    assert member.stop() == 0
    committed = job.committed()[0]
    assert 0 < committed <= 50
    vendor.recover()
    job.produce(good(range(100, 200), partition=0))
    _delete_records(kafka, job.topic, {0: 120})

    member = job.start(settings)
    assert member.exit_code() == 1
    assert "connector offsets reset" in member.text
    assert f"{job.topic} [0]" in member.text
    assert job.committed()[0] == committed, "the stop leaves the offset where it was"

    config = str(job.write(settings))
    done = run_command("offsets", "reset", "-c", config, "--partition", "0", "--to", "earliest", "--yes")
    assert done.returncode == 0, done.stderr
    member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    arrived = {FIRST_CUID + number for number in range(120, 200)}
    assert arrived <= vendor.cuids.keys()


@pytest.mark.promise("P1")
def test_retention_that_overtakes_a_waiting_member_stops_it(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Records are deleted before a member with a full buffer could read them: it ends with 1 and passes over none.

    Kills: an out-of-range position that is set to the first offset there is, a fatal end without drain and commit.
    """
    count = 9000
    job.produce(good(range(count), partition=0))
    vendor.arm(Fault("status", status=503))
    settings = _settings(job, vendor)
    settings["limits"] = {"buffer": "4MiB"}
    member = job.start(settings)
    full = "connector_buffer_limit_bytes"
    member.wait(lambda: 0 < member.metric(full) <= member.metric("connector_buffer_bytes"), "a full buffer")
    _delete_records(kafka, job.topic, {0: count - 10})
    vendor.recover()
    assert member.exit_code() == 1
    assert "connector offsets reset" in member.text
    assert f"{job.topic} [0]" in member.text
    committed = job.committed()[0]
    assert {FIRST_CUID + number for number in range(committed)} <= vendor.cuids.keys()
    assert 0 < len(vendor.cuids) == vendor.cuids.total() < count - 10, "it went on where records are missing"
