"""`connector run --destination NAME`: one destination in a group of its own, from the combined group's offsets on."""

from __future__ import annotations

from typing import Any, Final

import pytest
from confluent_kafka import Consumer, TopicPartition

from connector.testing.faults import Fault
from tests.integration.accounts import Accounts, Writer, accounts, contract, mytracker
from tests.integration.events import FIRST_CUID, Message, good
from tests.integration.job import Job, Member, wait_for
from tests.integration.load import frozen, runs

COUNT: Final = 600
RETRY: Final = {"retry": {"initial": "100ms", "max": "500ms"}}
VENDORS: Final = ("jiguang", "mytracker")


def produce(job: Job) -> None:
    """Write events of both vendors, mixed in every partition."""
    write = Writer(contract("MyTrackerEvent"))
    others = [Message(write(mytracker(number)), b"user-%d" % (number % 50)) for number in range(COUNT)]
    job.produce(message for pair in zip(good(range(COUNT)), others, strict=True) for message in pair)


def settings(job: Job, vendors: Accounts, **kafka: Any) -> dict[str, Any]:
    """Return a configuration with both destinations."""
    destinations = {name: {**one, **RETRY} for name, one in vendors.destinations().items()}
    given = job.settings({}, destinations=destinations)
    given["kafka"].update(kafka)
    return given


def committed(job: Job, group: str) -> dict[int, int]:
    """Return a group's committed offsets; 0 where it has none."""
    reader = Consumer({"bootstrap.servers": job.kafka.bootstrap, "group.id": group, "log_level": 0})
    try:
        places = [TopicPartition(job.topic, number) for number in range(job.partitions)]
        return {place.partition: max(0, place.offset) for place in reader.committed(places, timeout=10)}
    finally:
        reader.close()


def until_done(job: Job, member: Member, group: str) -> None:
    """Wait until a group has committed the ends of all partitions."""
    ends = job.ends()
    member.wait(lambda: committed(job, group) == ends, f"{group} at {ends}")


@pytest.mark.promise("P3")
def test_a_destination_leaves_the_combined_group_and_repeats_nothing(job: Job) -> None:
    """It begins with the combined group's offsets and its own part of the map: what was accepted is not sent again.

    Kills: a new group that begins at the topic's start, a map taken over with the other destinations' deliveries in it.
    """
    with accounts(*VENDORS) as vendors:
        produce(job)
        vendors["mytracker"].arm(Fault("credential"))
        combined = job.start(settings(job, vendors))
        combined.wait(lambda: len(vendors["jiguang"].accepted) == COUNT, "all of jiguang's events")
        assert combined.status()["destinations"]["mytracker"]["cause"] == "misconfigured"
        assert combined.stop() == 0
        assert vendors["mytracker"].accepted == []

        vendors["mytracker"].recover()
        for name in VENDORS:
            member = job.start(settings(job, vendors), "--destination", name)
            group = f"{job.group}.{name}"
            until_done(job, member, group)
            assert member.status()["group"] == group
            assert list(member.status()["destinations"]) == [name]
            assert member.stop() == 0
            assert member.lines("offsets.adopted")
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(COUNT)), 1)
        users = [event["customUserId"] for event in vendors["mytracker"].accepted]
        assert sorted(users) == sorted(f"u{number}" for number in range(COUNT))
        assert job.dead_letters() == []


def test_without_offsets_it_refuses_and_with_a_start_it_skips_what_is_for_others(job: Job) -> None:
    """With nothing to begin with it ends and says what to do; with kafka.start it runs and decodes no other's records.

    Kills: a group that silently sends everything again, another destination's broken record made a dead letter.
    """
    with accounts(*VENDORS) as vendors:
        produce(job)
        broken = Writer(contract("MyTrackerEvent"))(mytracker(0))[:14]
        job.produce([Message(broken, b"user-1")])
        refused = job.start(settings(job, vendors), "--destination", "jiguang")
        assert refused.exit_code() == 1
        assert "kafka.start" in refused.text
        assert vendors["jiguang"].accepted == []

        member = job.start(settings(job, vendors, start="earliest"), "--destination", "jiguang")
        until_done(job, member, f"{job.group}.jiguang")
        skipped = member.metric('connector_records_skipped_total{reason="other_destination"}')
        assert member.stop() == 0
        assert skipped == COUNT + 1
        assert vendors["jiguang"].cuids.total() == COUNT
        assert vendors["mytracker"].served == []
        assert job.dead_letters() == []


@pytest.mark.promise("P3")
@pytest.mark.timeout(180)
def test_a_split_and_the_way_back_repeat_nothing(job: Job) -> None:
    """Combined, alone, combined, alone again: each start knows what the other mode has delivered.

    Kills: offsets that are copied at the first split only, and a way back without the own groups' progress.
    """
    with accounts(*VENDORS) as vendors:
        given = settings(job, vendors)
        # Old offsets of the other side would otherwise hide behind a quick start at the end.
        for turn, arguments in enumerate(((), ("--destination", "jiguang"), (), ("--destination", "jiguang"), ())):
            job.produce(good(range(turn * 100, turn * 100 + 100)))
            vendors["mytracker"].arm(Fault("credential"))
            write = Writer(contract("MyTrackerEvent"))
            job.produce([Message(write(mytracker(turn * 100 + number)), b"user") for number in range(100)])
            member = job.start(given, *arguments)
            every = (turn + 1) * 100
            member.wait(lambda every=every: len(vendors["jiguang"].accepted) >= every, f"{every} events")  # type: ignore[misc]
            assert member.stop() == 0
            assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(every)), 1), turn
        vendors["mytracker"].recover()
        member = job.start(given)
        until_done(job, member, job.group)
        assert member.stop() == 0
        users = [event["customUserId"] for event in vendors["mytracker"].accepted]
        assert sorted(users) == sorted(f"u{number}" for number in range(500))
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(500)), 1)


@pytest.mark.promise("P3")
@pytest.mark.timeout(120)
def test_neither_side_starts_while_the_other_has_members(job: Job) -> None:
    """A run of all and a run of one would both deliver every record: the second ends and names the group.

    Kills: two groups that deliver everything twice.
    """
    with accounts(*VENDORS) as vendors:
        given = settings(job, vendors)
        given["limits"] = {"drain_timeout": "3s"}
        for destination in given["destinations"].values():
            destination["timeout"] = "1s"
        job.produce(good(range(100)))
        combined = job.start(given)
        combined.wait(lambda: len(vendors["jiguang"].accepted) == 100, "100 events")
        alone = job.start(given, "--destination", "jiguang")
        assert alone.exit_code(40) == 1
        assert f"group {job.group} has running members" in alone.text
        assert combined.stop() == 0
        alone = job.start(given, "--destination", "jiguang")
        until_done(job, alone, f"{job.group}.jiguang")
        combined = job.start(given)
        assert combined.exit_code(40) == 1
        assert f"group {job.group}.jiguang has running members" in combined.text
        assert alone.stop() == 0
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(100)), 1)


@pytest.mark.promise("P3")
@pytest.mark.timeout(120)
def test_all_wait_for_one_that_has_read_nothing_and_a_stop_ends_the_wait(job: Job) -> None:
    """A member alone that waits for its first record counts as the other side; who waits for it stops at once, with 0.

    Kills: looking for members only where there are commits; a stop that the wait for the other side does not see.
    """
    with accounts(*VENDORS) as vendors:
        given = settings(job, vendors, start="earliest")
        alone = job.start(given, "--destination", "jiguang")
        alone.wait(lambda: alone.status()["partitions"], "partitions")
        combined = job.start(given)
        combined.wait(lambda: combined.lines("offsets.waiting"), "a word of the wait")
        combined.terminate()
        assert combined.exit_code(5) == 0
        combined = job.start(given)
        job.produce(good(range(100)))
        alone.wait(lambda: len(vendors["jiguang"].accepted) == 100, "100 events")
        assert alone.stop() == 0
        until_done(job, combined, job.group)
        assert combined.stop() == 0
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(100)), 1)


@pytest.mark.promise("P3")
@pytest.mark.timeout(180)
def test_of_two_sides_that_start_at_once_one_delivers(job: Job) -> None:
    """Both deployments start with the machine, and neither sees the other one yet: each event is delivered once.

    Kills: two runs that found no members of each other when they started, and deliver everything twice from then on.
    """
    with accounts(*VENDORS) as vendors:
        given = settings(job, vendors, start="earliest")
        given["limits"] = {"drain_timeout": "3s"}
        for destination in given["destinations"].values():
            destination["timeout"] = "1s"
        job.produce(good(range(300)))
        sides = [job.start(given), job.start(given, "--destination", "jiguang")]
        wait_for(lambda: not all(runs(side) for side in sides), "the end of one of them", 90)
        (ended, runner), group = (sides if not runs(sides[0]) else sides[::-1]), job.group
        assert ended.exit_code() == 1
        assert "stop the members of" in ended.text
        until_done(job, runner, group if runner is sides[0] else f"{group}.jiguang")
        assert runner.stop() == 0
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(300)), 1)


@pytest.mark.promise("P3")
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("suspended", "leaves"), [("combined", False), ("alone", True)])
def test_a_member_that_was_suspended_delivers_nothing_beside_or_after_the_other_side(
    suspended: str, job: Job, *, leaves: bool
) -> None:
    """A machine sleeps beyond the session, and the other side starts: the member ends when it is back.

    So it does if the other side has stopped again. Started once more, it knows what was delivered meanwhile.
    Kills: a member that looks for the other side only before its first record.
    """
    with accounts(*VENDORS) as vendors:
        given = settings(job, vendors, start="earliest")
        given["limits"] = {"drain_timeout": "3s"}
        for destination in given["destinations"].values():
            destination["timeout"] = "1s"
        sides = {"combined": ((), job.group), "alone": (("--destination", "jiguang"), f"{job.group}.jiguang")}
        (first, group), (second, other) = sides.pop(suspended), sides.popitem()[1]
        job.produce(good(range(100)))
        sleeper = job.start(given, *first)
        until_done(job, sleeper, group)
        with frozen(sleeper):
            meanwhile = job.start(given, *second)
            job.produce(good(range(100, 200)))
            until_done(job, meanwhile, other)
            if leaves:
                assert meanwhile.stop() == 0
        assert sleeper.exit_code(40) == 1
        assert f"group {other} has {'run' if leaves else 'running members'}" in sleeper.text
        job.produce(good(range(200, 300)))
        if not leaves:
            until_done(job, meanwhile, other)
            assert meanwhile.stop() == 0
        again = job.start(given, *first)
        until_done(job, again, group)
        assert again.stop() == 0
        assert vendors["jiguang"].cuids == dict.fromkeys((FIRST_CUID + number for number in range(300)), 1)
