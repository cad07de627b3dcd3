"""Members that join, leave, restart and die while events flow, in each way that a group can share its partitions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AdminClient,
    NewPartitions,
)

from connector.testing.faults import Fault
from tests.integration.job import DESTINATION, Job, Member, Vendor, wait_for
from tests.integration.load import (
    PROTOCOLS,
    Done,
    Load,
    each_at_least_once,
    each_once,
    long_or,
    owned,
    repeated,
    settings_of,
    show,
)
from tools.servers import Kafka

CHURN_SECONDS = long_or(60, 7)
STEP_SECONDS = 3
RATE = 500
MEMBERS = 3


class Crew:
    """Members of one group, each with a name of its own."""

    def __init__(self, job: Job, vendor: Vendor, protocol: str, **more: Any) -> None:
        self._job = job
        self._vendor = vendor
        self._protocol = protocol
        self._more = more
        self._names = itertools.count(1)

    def settings(self, name: str) -> dict[str, Any]:
        """Return the settings of the member with this name: few slow requests, so that some are always in flight."""
        settings = settings_of(self._job, self._vendor, self._protocol, name, **self._more)
        settings["destinations"][DESTINATION]["max_in_flight"] = 2
        if "session.timeout.ms" in settings["kafka"]["client"]:
            settings["kafka"]["client"]["session.timeout.ms"] = 2500
        return settings

    def join(self) -> Member:
        """Start one more member."""
        return self.start(str(next(self._names)))

    def start(self, name: str) -> Member:
        """Start the member with this name."""
        return self._job.start(self.settings(name))


def _until_shared(job: Job, *members: Member) -> None:
    """Wait until each member has partitions, and they have all six together."""
    for member in members:
        assert member.port

    def shared() -> bool:
        found = owned(job, *members)
        return all(found) and sum(found) == 6

    wait_for(shared, f"six partitions on {len(members)} members")


def _until_more(vendor: Vendor, count: int) -> None:
    before = len(vendor.accepted)
    wait_for(lambda: len(vendor.accepted) >= before + count, f"{count} more events at the vendor")


@pytest.fixture(params=PROTOCOLS)
def crew(job: Job, vendor: Vendor, request: pytest.FixtureRequest) -> Iterator[Crew]:
    """Members of a group that shares its partitions in one of the ways."""
    vendor.arm(Fault("latency", after=True, seconds=0.2))
    yield Crew(job, vendor, request.param)
    vendor.recover()


@pytest.mark.promise("P1")
@pytest.mark.promise("P3")
@pytest.mark.timeout(long_or(300, 120))
def test_members_that_come_and_go_in_order_lose_and_repeat_nothing(crew: Crew, job: Job, vendor: Vendor) -> None:
    """Every three seconds one member leaves by SIGTERM and another joins: each event is accepted exactly once.

    Kills: a revocation that commits before its requests have answered, or notes unsent work as done.
    """
    with Load(job, RATE) as load:
        members = [crew.join() for _ in range(MEMBERS - 1)]
        _until_shared(job, *members)
        rounds = 0
        end = time.monotonic() + CHURN_SECONDS
        while time.monotonic() < end:
            joined = time.monotonic()
            members.append(crew.join())
            leaver = members.pop(0)
            assert leaver.port, "it never ran"
            assert leaver.stop() == 0
            rounds += 1
            time.sleep(max(0.0, joined + STEP_SECONDS - time.monotonic()))
        load.stop()
        job.until_done(members[-1])
    assert [member.stop() for member in members] == [0] * len(members)
    each_once(vendor, load)
    assert job.dead_letters() == []
    show("come and go", rounds=rounds, events=load.written)


@pytest.mark.promise("P3")
@pytest.mark.timeout(long_or(1800, 150))
@pytest.mark.parametrize("turn", range(long_or(20, 1)))
def test_churn_of_two_rate_limited_members_repeats_nothing(kafka: Kafka, job: Job, vendor: Vendor, turn: int) -> None:
    """Two members share 12 partitions at 25 requests a second; every three seconds one is replaced, for 15 seconds.

    A stop comes in the middle of a rebalance then, and its last commit is blocked and refused. No delivery is made
    twice. Kills: a last commit that is not repeated once the group's new generation is known.
    """
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.create_partitions([NewPartitions(job.topic, 12)]).values():
        future.result(30)
    job.partitions = 12
    vendor.arm(Fault("latency", after=True, seconds=0.2))
    names = itertools.count(turn * 1000)

    def join() -> Member:
        settings = settings_of(job, vendor, "cooperative", str(next(names)))
        settings["destinations"][DESTINATION] |= {"requests_per_second": 25, "max_in_flight": 4}
        settings["destinations"][DESTINATION]["batch"] = {"records": 20}
        return job.start(settings)

    with Load(job, RATE) as load:
        members = [join(), join()]
        for member in members:
            member.wait(lambda member=member: member.status()["partitions"], "partitions")  # type: ignore[misc]
        end = time.monotonic() + 15
        while time.monotonic() < end:
            members.append(join())
            assert members.pop(0).stop() == 0
            time.sleep(STEP_SECONDS)
        load.stop()
        job.until_done(members[-1])
    assert [member.stop() for member in members] == [0] * len(members)
    vendor.recover()
    show("churn", turn=turn, events=load.written, came_again=len(repeated(vendor)))
    each_once(vendor, load)


@pytest.mark.promise("P1")
@pytest.mark.promise("P4")
def test_a_killed_members_partitions_go_on_elsewhere(crew: Crew, job: Job, vendor: Vendor) -> None:
    """One of two members is killed: the other takes over, loses nothing, and repeats what no commit calls finished.

    Kills: a start at the end of a partition that was taken over, a dedup id that a member makes of its own.
    """
    with Load(job, RATE) as load:
        stays, dies = crew.join(), crew.join()
        _until_shared(job, stays, dies)
        _until_more(vendor, 500)
        dies.kill()
        stays.wait(lambda: owned(job, stays) == [6], "the dead member's partitions", 30)
        _until_more(vendor, 300)
        load.stop()
        job.until_done(stays)
    assert stays.stop() == 0
    each_at_least_once(vendor, load)
    show("killed", events=load.written, came_again=len(repeated(vendor)))
    done = Done(job, load, vendor)
    assert len(done) == load.written
