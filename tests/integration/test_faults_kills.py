"""Members that are killed again and again while events go out: nothing is lost, and no finished event comes again."""

from __future__ import annotations

import pytest

from connector.testing.faults import Fault
from tests.integration.job import DESTINATION, Job, Member, Vendor
from tests.integration.load import Done, Load, each_at_least_once, long_or, repeated, settings_of, show

KILLS = long_or(10, 3)
EVENTS = long_or(30_000, 6_000)
RATE = long_or(700, 600)

FAULTS = (
    Fault("latency", after=True, seconds=0.05),
    Fault("status", status=429, retry_after="1", every=41),
    Fault("status", status=503, every=17),
    Fault("status", status=503, every=29, after=True),
    Fault("cut", every=37, after=True),
    Fault("hang", every=97, after=True),
)


@pytest.mark.promise("P1")
@pytest.mark.promise("P2")
@pytest.mark.promise("P4")
@pytest.mark.timeout(long_or(600, 120))
def test_kills_in_a_row_lose_nothing_and_repeat_only_what_no_commit_says(job: Job, vendor: Vendor) -> None:
    """Whatever a killed member's commits call finished the vendor has, and never gets it again; the rest, with its id.

    Kills: a map that is read as if it began elsewhere, a commit of what was only sent, a dedup id by attempt.
    """
    vendor.arm(*FAULTS)
    settings = settings_of(job, vendor)
    settings["kafka"]["client"]["session.timeout.ms"] = 1500
    settings["kafka"]["client"]["heartbeat.interval.ms"] = 300
    settings["destinations"][DESTINATION]["timeout"] = "3s"
    past: list[Done] = []
    with Load(job, RATE) as load:
        for _ in range(KILLS):
            member = job.start(settings)
            until_committed(member, job, vendor)
            member.kill()
            past.append(Done(job, load, vendor))
        load.until_written(EVENTS)
        load.stop()
        member = job.start(settings)
        ends = job.ends()
        member.wait(lambda: job.committed() == ends, f"commits up to {ends}", long_or(400, 60))
    assert member.stop() == 0
    for done in past:
        assert len(done), "killed before anything was committed"
        done.check(vendor)
    each_at_least_once(vendor, load)
    assert job.dead_letters() == []
    show("kills", kills=KILLS, events=load.written, came_again=len(repeated(vendor)), requests=vendor.stats["requests"])


def until_committed(member: Member, job: Job, vendor: Vendor) -> None:
    """Wait until the vendor has accepted something, the group has committed since, and more was accepted after that."""
    accepted = len(vendor.accepted)
    member.wait(lambda: len(vendor.accepted) > accepted, "events at the vendor")
    before = sum(job.committed().values())
    member.wait(lambda: sum(job.committed().values()) > before, "a commit")
    after = len(vendor.accepted)
    member.wait(lambda: len(vendor.accepted) > after, "an acceptance after the commit")
