"""Partitions handed over in the odd cases: a drain that takes too long, and members with a name of their own."""

from __future__ import annotations

from typing import Any, Final

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from connector.testing.faults import Fault
from tests.integration.events import good
from tests.integration.job import Job, Vendor
from tests.integration.load import Load, each_at_least_once, each_once, frozen, owned, settings_of
from tools.servers import Kafka

COUNT: Final = 600
PARTITIONS: Final = 6
BOUNCES: Final = 'connector_rebalances_total{event="revoked"}'


def _refuse(kafka: Kafka, topic: str, *, refuse: bool) -> None:
    """Let Kafka refuse every record of a topic as too old, or take them again."""
    most = "0" if refuse else str(2**63 - 1)
    entry = ConfigEntry("message.timestamp.before.max.ms", most, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("protocol", ["cooperative", "kip-848"])
def test_what_misses_the_drain_is_done_by_the_next_owner(protocol: str, kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Dead letters that Kafka does not take outlast the drain: the next owner writes them, and repeats no delivery.

    Kills: a drain that is given up without a commit, a dead letter that is noted as written because its time was up.
    """
    bad = [
        message._replace(value=b"no avro", partition=number % PARTITIONS)
        for number, message in enumerate(good(range(12)))
    ]
    job.produce([*good(range(COUNT)), *bad])
    _refuse(kafka, job.dead_letters_topic, refuse=True)
    settings = settings_of(job, vendor, protocol, limits={"drain_timeout": "3s"})
    first = job.start(settings)
    first.wait(lambda: vendor.cuids.total() >= COUNT, "the good events")
    second = job.start(settings)
    second.wait(lambda: owned(job, second)[0], "a part of the partitions")
    assert first.lines("drain.missed")
    ends = job.ends()
    assert all(offset < ends[partition] for partition, offset in job.committed().items())

    first.terminate()
    assert first.exit_code(3 + 5) == 0
    second.wait(lambda: owned(job, second) == [PARTITIONS], "all partitions")
    _refuse(kafka, job.dead_letters_topic, refuse=False)
    job.until_done(second)
    assert second.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == COUNT
    assert len({dead_letter.own["dlq-id"] for dead_letter in job.dead_letters()}) == len(bad)


@pytest.mark.promise("P3")
def test_a_named_member_that_restarts_gets_its_partitions_back(job: Job, vendor: Vendor) -> None:
    """With `group.instance.id` a member restarts under load, and the other one is not even asked: nothing is repeated.

    Kills: a start of a static member that reads the map of another epoch, a stop that leaves the commit to the session.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.2))
    settings: dict[str, dict[str, Any]] = {}
    for name in ("one", "two"):
        settings[name] = settings_of(job, vendor, "static", name)
        settings[name]["kafka"]["client"]["session.timeout.ms"] = 45_000
    with Load(job, 400) as load:
        stays, restarts = job.start(settings["one"]), job.start(settings["two"])
        shared = lambda: all(found := owned(job, stays, restarts)) and sum(found) == PARTITIONS  # noqa: E731
        restarts.wait(shared, "the partitions on two members")
        mine = [(each["topic"], each["partition"]) for each in restarts.status()["partitions"]]
        revoked = stays.metric(BOUNCES)
        assert restarts.stop() == 0
        again = job.start(settings["two"])
        again.wait(lambda: again.status()["partitions"], "its partitions again")
        assert [(each["topic"], each["partition"]) for each in again.status()["partitions"]] == mine
        assert stays.metric(BOUNCES) == revoked
        load.stop()
        job.until_done(again)
    assert [stays.stop(), again.stop()] == [0, 0]
    each_once(vendor, load)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("protocol", ["static", "kip-848"])
def test_of_two_members_with_one_name_one_ends_and_says_why(protocol: str, job: Job, vendor: Vendor) -> None:
    """Two processes with the same `group.instance.id`: one of them ends with 1 and names it, the other delivers all.

    Kills: a member that was fenced out and goes on polling, or ends as if it had been asked to.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.2))
    settings = settings_of(job, vendor, protocol)
    settings["kafka"]["client"]["group.instance.id"] = "the-same"
    with Load(job, 400) as load:
        first = job.start(settings)
        first.wait(lambda: owned(job, first) == [PARTITIONS], "all partitions")
        second = job.start(settings)
        ends, stays = (first, second) if protocol == "static" else (second, first)
        assert ends.exit_code() == 1
        assert "group.instance.id" in ends.text or "instance ID" in ends.text
        stays.wait(lambda: owned(job, stays) == [PARTITIONS], "all partitions")
        load.stop()
        job.until_done(stays)
    assert stays.stop() == 0
    each_at_least_once(vendor, load)


def test_a_suspended_member_whose_name_was_taken_ends_soon_and_says_why(job: Job, vendor: Vendor) -> None:
    """A machine sleeps, and a process with its `group.instance.id` replaces it: when it is back, it ends at once.

    Kills: a last commit that is repeated for all of `limits.drain_timeout` although the member was fenced out, and an
    end whose reason is that a commit failed.
    """
    settings = settings_of(job, vendor, "static")
    with Load(job, 400) as load:
        sleeper = job.start(settings)
        sleeper.wait(lambda: owned(job, sleeper) == [PARTITIONS], "all partitions")
        with frozen(sleeper):
            stays = job.start(settings)
            stays.wait(lambda: owned(job, stays) == [PARTITIONS], "all partitions")
        assert sleeper.exit_code(15) == 1
        assert "group.instance.id" in sleeper.text.splitlines()[-1]
        load.stop()
        job.until_done(stays)
    assert stays.stop() == 0
    each_at_least_once(vendor, load)
