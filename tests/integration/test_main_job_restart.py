"""A member that is killed, stopped, or joined by another: nothing is lost, and only a crash repeats deliveries."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from connector.testing.faults import Fault
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import DESTINATION, Job, Member, Vendor, wait_for
from tools.servers import Kafka

COUNT: Final = 10_000
DRAIN_SECONDS: Final = 8


def _all(count: int = COUNT) -> set[int]:
    return {FIRST_CUID + number for number in range(count)}


def _settings(job: Job, vendor: Vendor, **client: Any) -> dict[str, Any]:
    settings = job.settings(vendor.destination, limits={"drain_timeout": f"{DRAIN_SECONDS}s"})
    settings["kafka"]["client"] |= client
    return settings


@pytest.mark.promise("P1")
@pytest.mark.promise("P4")
def test_a_kill_in_the_middle_loses_nothing_and_repeats_with_the_same_id(job: Job, vendor: Vendor) -> None:
    """After SIGKILL between acceptance and answer the next run delivers the rest; repeats carry the same randomId.

    Kills: committing what was read instead of what is done, a new dedup id for each attempt.
    """
    job.produce(good(range(COUNT)))
    # The vendor takes what it is asked from the 30th request on, and never says so.
    vendor.arm(Fault("hang", after=True, when=lambda call: call.number > 30))
    settings = _settings(job, vendor, **{"session.timeout.ms": 2000})
    first = job.start(settings)
    first.wait(lambda: len(vendor.served) >= 38, "eight requests that hang")
    first.wait(lambda: any(job.committed().values()), "a commit of what was answered")
    first.kill()
    before = vendor.cuids
    committed = job.committed()
    assert 0 < sum(committed.values()) < before.total()
    assert before.keys() < _all()

    vendor.recover()
    job.until_done(job.start(settings))
    after = vendor.cuids
    assert after.keys() == _all()
    assert after.total() > COUNT, "the kill came too late to repeat anything"
    assert all(before[cuid] for cuid, times in after.items() if times > 1)
    ids: dict[int, set[str]] = defaultdict(set)
    for each in vendor.accepted:
        ids[each["cuid"]].add(each["randomId"])
    assert {len(every) for every in ids.values()} == {1}
    assert job.dead_letters() == []


@pytest.mark.promise("P1")
def test_a_kill_of_the_broker_loses_nothing(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """After a SIGKILL of Kafka the member continues by itself: every event arrives, and repeats have the same id.

    Kills: a failed commit or dead letter that is taken for done, a fatal error of a client that only has to wait.
    """
    job.produce([*good(range(COUNT)), *(message._replace(value=b"no avro") for message in good(range(5)))])
    ends = job.ends()
    vendor.arm(Fault("latency", after=True, seconds=0.2))
    member = job.start(_settings(job, vendor))
    member.wait(lambda: len(vendor.served) >= 20, "twenty requests")
    kafka.kill()
    member.wait(lambda: len(vendor.served) >= 30, "requests without a broker")
    kafka.start()
    vendor.recover()
    member.wait(lambda: job.committed() == ends, "commits up to the ends")
    assert vendor.cuids.keys() == _all()
    assert len({each["randomId"] for each in vendor.accepted}) == COUNT
    assert len({dead_letter.own["dlq-id"] for dead_letter in job.dead_letters()}) == 5
    assert member.stop() == 0


@pytest.mark.promise("P3")
def test_sigterm_in_the_middle_ends_in_order_and_the_next_run_repeats_nothing(job: Job, vendor: Vendor) -> None:
    """SIGTERM with requests in flight: exit 0 within the drain time, and two runs deliver each event once together.

    Kills: a stop that does not await what is in flight, or leaves out the last commit.
    """
    job.produce(good(range(COUNT)))
    # Uneven, so that at the stop batches are done above others that are not.
    vendor.arm(Fault("latency", after=True, seconds=1.5, every=3), Fault("latency", after=True, seconds=0.2))
    first = job.start(_settings(job, vendor))
    first.wait(lambda: len(vendor.served) >= 30, "thirty requests")
    assert first.destination()["in_flight"] > 0
    first.terminate()
    assert first.exit_code(DRAIN_SECONDS + 5) == 0
    delivered = vendor.cuids
    assert 0 < len(delivered) < COUNT

    vendor.recover()
    second = job.start(_settings(job, vendor))
    job.until_done(second)
    assert vendor.cuids.keys() == _all()
    assert vendor.cuids.total() == COUNT
    assert second.stop() == 0
    assert job.dead_letters() == []


@pytest.mark.promise("P3")
@pytest.mark.promise("P6")
def test_a_restart_behind_one_stuck_record_sends_only_that_one(job: Job, vendor: Vendor) -> None:
    """A record that fails with 503 holds nothing else up; after a stop only it is sent again, of all above it too.

    Kills: a commit without the map of what is finished above the watermark, a batch that fails for ever as a whole.
    """
    count, stuck = 2000, FIRST_CUID + 10
    job.produce(good(range(count)))
    vendor.arm(Fault("status", status=503, containing=f'"cuid":{stuck},'))
    first = job.start(_settings(job, vendor))
    first.wait(lambda: vendor.cuids.total() >= count - 1, "all but the stuck record")
    assert vendor.cuids.keys() == _all(count) - {stuck}
    assert first.stop() == 0
    ends = job.ends()
    behind = [partition for partition, offset in job.committed().items() if offset < ends[partition]]
    assert len(behind) == 1
    assert ends[behind[0]] - job.committed()[behind[0]] > 100, "nothing finished stands above the stuck record"

    vendor.recover()
    second = job.start(_settings(job, vendor))
    job.until_done(second)
    assert vendor.cuids.keys() == _all(count)
    assert vendor.cuids.total() == count
    assert second.stop() == 0
    assert job.dead_letters() == []


def test_sigterm_does_not_wait_for_a_vendor_that_never_answers(job: Job, vendor: Vendor) -> None:
    """A stop ends within drain time and margin with exit 0 where the vendor hangs; its records stay uncommitted."""
    job.produce(good(range(300)))
    vendor.arm(Fault("hang"))
    member = job.start({**_settings(job, vendor), "limits": {"drain_timeout": "3s"}})
    member.wait(lambda: len(vendor.served) >= 1, "a request that hangs")
    member.terminate()
    assert member.exit_code(3 + 5) == 0
    assert job.committed() == dict.fromkeys(range(6), 0)
    assert job.dead_letters() == []


def _partitions(member: Member) -> int:
    """Return how many partitions it has, the replay topic's left out."""
    return sum(not one["topic"].endswith(".replay") for one in member.status()["partitions"])


def _feed(job: Job, vendor: Vendor, enough: threading.Event) -> int:
    """Write events so that there is always work, until it is enough; return how many."""
    count = 0
    while not enough.is_set() or count < COUNT:
        job.produce(good(range(count, count + 500)))
        count += 500
        _wait_for_room(count, vendor, enough)
    return count


def _wait_for_room(count: int, vendor: Vendor, enough: threading.Event) -> None:
    wait_for(lambda: enough.is_set() or count - len(vendor.accepted) < 2000, "room for more events")


@pytest.mark.promise("P3")
@pytest.mark.promise("P1")
def test_a_member_that_joins_and_leaves_loses_and_repeats_nothing(job: Job, vendor: Vendor) -> None:
    """One member takes partitions over and gives them back by SIGTERM while events flow: each is accepted once.

    Kills: a revocation that commits without draining, or drains without committing; a late answer after the epoch.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.5))
    settings = _settings(job, vendor)
    settings["destinations"][DESTINATION]["max_in_flight"] = 4
    enough = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(_feed, job, vendor, enough)
        try:
            first = job.start(settings)
            first.wait(lambda: vendor.accepted, "the first events")
            second = job.start(settings)
            second.wait(lambda: _partitions(second) in (2, 3, 4), "its half of the partitions")
            delivered = f'connector_records_delivered_total{{destination="{DESTINATION}"}}'
            second.wait(lambda: second.metric(delivered), "deliveries of the second member")
            second.wait(lambda: second.destination()["in_flight"], "a request of the second member in flight")
            assert second.stop() == 0
            first.wait(lambda: _partitions(first) == 6, "all partitions again")
        finally:
            enough.set()
        count = feeding.result()
    vendor.recover()
    job.until_done(first)
    assert vendor.cuids.keys() == _all(count)
    assert vendor.cuids.total() == count
    assert first.stop() == 0
    assert job.dead_letters() == []
