"""The source on a real Kafka: where it starts, what it commits, and which callbacks its listener gets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import (
    AdminClient,
)

from connector.errors import FatalError
from connector.records import UNREADABLE_HEADERS, Assigned, Commit, FinalFault, LongMetadata, Record
from tests.integration import raw_records
from tests.integration.cluster import PROTOCOLS, Cluster, Member
from tools.servers import Kafka


@pytest.fixture
async def cluster(kafka: Kafka) -> AsyncIterator[Cluster]:
    """Members that are closed when the test ends."""
    async with contextlib.AsyncExitStack() as stack:
        yield Cluster(kafka, stack)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_restart_goes_on_where_the_commit_was(
    kafka: Kafka, cluster: Cluster, topic_name: str, protocol: str
) -> None:
    """An explicit commit keeps offset and metadata; the next member gets both and reads from there."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 10)
    client = PROTOCOLS[protocol]
    first = await cluster.join([topic_name], topic_name, client=client)
    await first.until(lambda: len(first.records) == 10)
    assert first.assigned == [Assigned(topic_name, 0, 0, None, "")]
    assert await first.source.commit([Commit(topic_name, 0, 4, "map")]) == {}
    assert await first.source.commit([Commit(topic_name, 0, 4, "other map")]) == {}
    first.done.clear()
    await first.source.close()
    assert cluster.committed(topic_name, topic_name) == (4, "other map")

    second = await cluster.join([topic_name], topic_name, client=client)
    await second.until(lambda: len(second.records) == 6)
    assert second.assigned == [Assigned(topic_name, 0, 4, 4, "other map")]
    assert [record.value for record in second.records] == [str(n).encode() for n in range(4, 10)]


async def test_a_record_keeps_all_that_it_has(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """Null and empty values, keys, repeated and null headers and the timestamp come as they were written."""
    kafka.create_topic(topic_name)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(topic_name, None, b"k", timestamp=1_700_000_000_123)
    producer.produce(topic_name, b"", headers=[("a", b"1"), ("a", None), ("b", b"")])
    assert producer.flush(30) == 0
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(member.records) == 2)
    tombstone, empty = member.records
    assert tombstone == Record(topic_name, 0, 0, 1_700_000_000_123, b"k", None, ())
    assert (empty.key, empty.value, list(empty.headers)) == (None, b"", [("a", b"1"), ("a", None), ("b", b"")])


@pytest.mark.parametrize(("start", "expected"), [("earliest", 0), ("latest", 5), (1_700_000_002_500, 3), (None, 0)])
async def test_a_group_without_an_offset_starts_where_it_is_told(
    kafka: Kafka, cluster: Cluster, topic_name: str, start: Any, expected: int
) -> None:
    """Each start is resolved to an offset, and one that time would move is committed at once."""
    kafka.create_topic(topic_name)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(5):
        producer.produce(topic_name, b"x", timestamp=1_700_000_000_000 + 1000 * number)
    assert producer.flush(30) == 0
    member = await cluster.join([topic_name], topic_name, start=start)
    await member.until(lambda: bool(member.assigned))
    assert member.assigned == [Assigned(topic_name, 0, expected, None, "")]
    if expected:
        assert cluster.committed(topic_name, topic_name)[0] == expected
    cluster.produce(topic_name, 1)
    await member.until(lambda: len(member.records) == 6 - expected)
    assert [record.offset for record in member.records] == list(range(expected, 6))
    await member.until(lambda: member.source.ends() == {(topic_name, 0): 6})


async def test_a_time_after_the_last_record_is_the_end(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """A start in the future reads what comes from now on."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)
    member = await cluster.join([topic_name], topic_name, start=int(time.time() * 1000) + 3_600_000)
    await member.until(lambda: bool(member.assigned))
    assert member.assigned[0].start == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_drain_inside_revoke_repeats_and_loses_nothing(
    kafka: Kafka, cluster: Cluster, topic_name: str, protocol: str
) -> None:
    """A second member takes over exactly where the first one's drained commit stands."""
    kafka.create_topic(topic_name, 2)
    for partition in (0, 1):
        cluster.produce(topic_name, 20, partition)
    client = PROTOCOLS[protocol]
    first = await cluster.join([topic_name], topic_name, client=client)
    first.drain = 0.5
    await first.until(lambda: len(first.records) == 40)
    second = await cluster.join([topic_name], topic_name, client=client)
    await first.until(lambda: bool(second.source.assignment) and len(first.source.assignment) == 1, [second])
    assert first.faults == {}
    assert len(first.source.assignment | second.source.assignment) == 2
    for partition in (0, 1):
        cluster.produce(topic_name, 5, partition)
    await first.until(lambda: len(first.records) + len(second.records) == 50, [second])
    for _ in range(30):
        await asyncio.gather(first.once(), second.once())
    read = [(r.partition, r.offset) for r in first.records + second.records]
    assert sorted(read) == [(partition, offset) for partition in (0, 1) for offset in range(25)]


async def test_close_drains_and_commits_inside(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """Leaving revokes: the listener's commit inside is stored, and no partition is left."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(member.records) == 3)
    await member.source.close()
    assert member.revoked == [(topic_name, 0)]
    assert member.source.assignment == frozenset()
    assert cluster.committed(topic_name, topic_name)[0] == 3


async def test_a_partition_whose_member_was_silent_is_lost(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """A member that did not poll in time loses its partitions, commits nothing, and gets them again."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)
    client = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 2000}
    member = await cluster.join([topic_name], topic_name, client=client)
    await member.until(lambda: len(member.records) == 3)
    await asyncio.sleep(3)
    await member.until(lambda: len(member.assigned) == 2)
    assert member.lost == [(topic_name, 0)]
    assert member.revoked == []
    assert member.assigned[1] == Assigned(topic_name, 0, 0, None, "")
    await member.until(lambda: len(member.records) == 6)


async def test_a_commit_of_a_lost_generation_is_told_and_does_not_raise(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """A commit that the coordinator refuses comes back as faults by partition."""
    kafka.create_topic(topic_name)
    client = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 300, "max.poll.interval.ms": 2000}
    member = await cluster.join([topic_name], topic_name, client=client)
    await member.until(lambda: bool(member.assigned))
    await asyncio.sleep(3)
    faults = await member.source.commit([Commit(topic_name, 0, 0, "")])
    assert set(faults) == {(topic_name, 0)}
    too_long = await member.source.commit([Commit(topic_name, 0, 0, "x" * 5000)])
    assert set(too_long) == {(topic_name, 0)}


async def test_a_commit_with_metadata_that_is_too_long_stores_the_others(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """The fault says that shorter metadata helps. librdkafka reports it for all partitions of the commit.

    Kills: a fault of any kind, for which the same map is tried again for ever.
    """
    kafka.create_topic(topic_name, 2)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(member.assigned) == 2)
    faults = await member.source.commit([Commit(topic_name, 0, 0, "x" * 5000), Commit(topic_name, 1, 0, "short")])
    assert isinstance(faults[topic_name, 0], LongMetadata)
    assert {type(fault) for fault in faults.values()} == {LongMetadata}
    assert cluster.committed(topic_name, topic_name, 1) == (0, "short")


async def test_a_commit_after_a_fatal_error_does_not_hide_its_cause(
    kafka: Kafka, cluster: Cluster, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a commit is not repeated, and ends the member only if the next polls do not say what happened.

    Kills: a last commit that is tried for all of the drain's time; `Commit failed` as the reason of an end.
    """
    kafka.create_topic(topic_name)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: bool(member.assigned))

    async def fatal(**_: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    monkeypatch.setattr(member.source._consumer, "commit", fatal)
    faults = await member.source.commit([Commit(topic_name, 0, 0, "")])
    assert isinstance(faults[topic_name, 0], FinalFault)
    await member.source.poll()
    await member.source.commit([Commit(topic_name, 0, 0, "")])
    with pytest.raises(FatalError, match="_FATAL"):
        await member.source.poll()


async def test_an_offset_out_of_range_in_a_recreated_topic_says_so(
    kafka: Kafka, cluster: Cluster, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The member stops, and a group with `latest` begins the new topic at its first record, not at its end.

    Kills: a member that asks a person to reset offsets that Kafka has deleted.
    """
    kafka.create_topic(topic_name)
    member = await cluster.join([topic_name], topic_name, start="latest")
    await member.until(lambda: bool(member.assigned))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.delete_topics([topic_name]).values():
        future.result(10)
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)

    async def out_of_range(*_: object) -> list[object]:
        error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "no such offset")
        return [SimpleNamespace(error=lambda: error, topic=lambda: topic_name, partition=lambda: 0)]

    monkeypatch.setattr(member.source._consumer, "consume", out_of_range)
    # The error comes before the next look.
    member.source._next_look = float("inf")
    with pytest.raises(FatalError, match="deleted and recreated"):
        await member.source.poll()
    assert cluster.committed(topic_name, topic_name) == (0, "")


async def test_an_offset_out_of_range_is_fatal(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """Where the committed offset was deleted the run ends, and the message names the way out."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 10)
    first = await cluster.join([topic_name], topic_name)
    await first.until(lambda: bool(first.assigned))
    assert await first.source.commit([Commit(topic_name, 0, 2, "")]) == {}
    first.done.clear()
    await first.source.close()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.delete_records([PartitionOffset(topic_name, 0, 6)]).values():
        future.result(10)
    second = await cluster.join([topic_name], topic_name)
    with pytest.raises(FatalError, match="connector offsets reset"):
        await second.until(lambda: False)
    assert second.records == []


async def test_a_paused_partition_rests_until_it_is_resumed(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """Nothing comes of a paused partition, the other one goes on; resumed, it gives what came meanwhile."""
    kafka.create_topic(topic_name, 2)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(member.source.assignment) == 2)
    await member.source.pause([(topic_name, 0), ("not ours", 3)])
    for partition in (0, 1):
        cluster.produce(topic_name, 5, partition)
    await member.until(lambda: len(member.records) == 5)
    for _ in range(20):
        await member.once()
    assert {record.partition for record in member.records} == {1}
    await member.source.resume([(topic_name, 0), ("not ours", 3)])
    await member.until(lambda: len(member.records) == 10)


async def test_a_resumed_partition_gives_its_next_record_at_once(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """A resume wakes librdkafka's thread for the broker, which sleeps up to a second once nothing is to be fetched.

    Eleven resumes at different moments of that second: without the wake-up their median is half of it. Kills: a full
    buffer that costs half a second each time.
    """
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 20)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: bool(member.records))
    waits = []
    for number in range(11):
        await member.source.pause([(topic_name, 0)])
        before = asyncio.get_running_loop().time()
        # Longer than a fetch may wait at the broker.
        while asyncio.get_running_loop().time() - before < 0.55 + number * 0.37 % 1:
            await member.once()
        cluster.produce(topic_name, 1)
        seen, started = len(member.records), asyncio.get_running_loop().time()
        await member.source.resume([(topic_name, 0)])
        while len(member.records) == seen:
            await member.once()
        waits.append(asyncio.get_running_loop().time() - started)
    assert sorted(waits)[5] < 0.2, waits


async def test_a_resume_waits_for_no_fetch_of_other_partitions(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """While another partition's fetch waits at the broker for records, a resume returns at once.

    The broker would read a request only after that fetch. Kills: a wake-up for each resume, which keeps the records of
    other brokers back for half a second, and whose time-out ends the connection.
    """
    kafka.create_topic(topic_name, 2)
    member = await cluster.join([topic_name], topic_name, client={"fetch.wait.max.ms": 5000})
    await member.until(lambda: len(member.assigned) == 2)
    waits = []
    for _ in range(3):
        await member.source.pause([(topic_name, 0)])
        before = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - before < 1:
            await member.once()
        started = asyncio.get_running_loop().time()
        await member.source.resume([(topic_name, 0)])
        waits.append(asyncio.get_running_loop().time() - started)
    assert max(waits) < 0.3, waits


async def test_a_cancelled_poll_loses_no_record(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """However often polls are cancelled, every record comes once and in order."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 2_000)
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: bool(member.assigned))
    cancelled = 0
    while len(member.records) < 2_000:
        poll = asyncio.create_task(member.source.poll())
        await asyncio.sleep(0)
        poll.cancel()
        cancelled += isinstance((await asyncio.gather(poll, return_exceptions=True))[0], asyncio.CancelledError)
        member.records.extend(await member.source.poll())
    assert cancelled >= 4
    assert [record.offset for record in member.records] == list(range(2_000))


async def test_a_pattern_reads_what_it_matches_and_never_our_own(
    kafka: Kafka, cluster: Cluster, fresh_name: Callable[[str], str]
) -> None:
    """A pattern matches topics except the connector's own; a topic that is named in addition is read."""
    events, dead_letters, named = (fresh_name("pat") for _ in range(3))
    for topic in (events, dead_letters, named):
        kafka.create_topic(topic)
        cluster.produce(topic, 1)
    stem = events.rpartition("-")[0]
    member = await cluster.join([f"^{stem}.*", named], events, own=frozenset({dead_letters, named}))
    await member.until(lambda: len(member.source.assignment) == 2 and len(member.records) == 2)
    assert {record.topic for record in member.records} == {events, named}


async def test_a_topic_that_comes_later_is_read(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """A named topic that does not exist is waited for, said once, and read when it is there."""
    client = {**PROTOCOLS["cooperative"], "topic.metadata.refresh.interval.ms": 500}
    member = await cluster.join([topic_name], topic_name, client=client)
    await member.until(lambda: bool(member.source.troubles))
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 1)
    await member.until(lambda: len(member.records) == 1)
    assert not member.source.troubles


async def test_the_cluster_has_an_id(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """The id that dedup ids are built from is the cluster's own."""
    kafka.create_topic(topic_name)
    member = await cluster.join([topic_name], topic_name)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    assert await member.source.cluster_id() == admin.list_topics(timeout=10).cluster_id


async def test_a_broker_that_comes_back_is_no_end(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """While the broker is away polls go on and a commit fails softly; when it is back, both work again."""
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)
    member = await cluster.join([topic_name], topic_name, client={"session.timeout.ms": 30_000})
    await member.until(lambda: len(member.records) == 3)
    kafka.kill()
    await member.until(lambda: bool(member.source.troubles))
    faults = await member.source.commit([Commit(topic_name, 0, 3, "")])
    assert set(faults) == {(topic_name, 0)}
    kafka.start()
    cluster.produce(topic_name, 2)
    await member.until(lambda: len(member.records) == 5 and not member.source.troubles, seconds=60)
    for _ in range(50):
        if not (faults := await member.source.commit([Commit(topic_name, 0, 5, "")])):
            break
        await member.once()
    assert faults == {}
    assert cluster.committed(topic_name, topic_name)[0] == 5


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_a_member_leaves_while_it_joins(kafka: Kafka, cluster: Cluster, topic_name: str, turns: int) -> None:
    """Leaving ends at any moment of an assignment: one that comes while the consumer closes asks Kafka nothing."""
    kafka.create_topic(topic_name, 4)
    source = cluster.source([topic_name], topic_name)
    await source.start(Member(source))
    for _ in range(turns):
        await source.poll()
    await source.close()
    assert source.assignment == frozenset()


async def test_an_assignment_that_a_stop_leaves_without_an_answer_is_no_error(
    kafka: Kafka, cluster: Cluster, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll is cancelled while an assignment asks for offsets: what librdkafka then takes by itself is not ours."""
    kafka.create_topic(topic_name)
    source = cluster.source([topic_name], topic_name)
    await source.start(Member(source))
    asked = asyncio.Event()

    async def unanswered(*_: object) -> None:
        asked.set()
        raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))

    monkeypatch.setattr(source._starts, "find", unanswered)
    while not asked.is_set():
        poll = asyncio.create_task(source.poll())
        asking = asyncio.create_task(asked.wait())
        await asyncio.wait({poll, asking}, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        poll.cancel()
        await asyncio.gather(poll, asking, return_exceptions=True)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert await source.poll() == []
    await source.close()


async def test_the_end_of_a_partition_that_came_during_a_stop_is_not_reported(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """A stop comes while the member joins: librdkafka then assigns by itself, and reads to ends that are not ours.

    Kills: an end that is reported for a partition without a tracker, which ends the stop with a KeyError.
    """
    kafka.create_topic(topic_name)
    cluster.produce(topic_name, 3)
    first = await cluster.join([topic_name], topic_name)
    await first.until(lambda: len(first.records) == 3)
    assert await first.source.commit(list(first.done.values())) == {}
    await first.source.close()
    member = await cluster.join([topic_name], topic_name)
    member.source.leave()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        await member.once()
        assert member.source.reached() == {}
    assert (member.records, member.assigned) == ([], [])


@pytest.mark.promise("P1")
@pytest.mark.parametrize("restart", [True, False])
async def test_latest_reads_a_partition_that_is_added_later_from_its_beginning(
    kafka: Kafka, cluster: Cluster, topic_name: str, *, restart: bool
) -> None:
    """Records of an added partition are newer than the group: a restarted or second member reads every one.

    Kills: the end of every partition in which the group has no offset.
    """
    kafka.create_topic(topic_name, 1)
    cluster.produce(topic_name, 3)
    first = await cluster.join([topic_name], topic_name, start="latest")
    await first.until(lambda: bool(first.assigned))
    assert first.assigned[0].start == 3
    cluster.add_partitions(topic_name, 2)
    await asyncio.sleep(1)
    cluster.produce(topic_name, 30, partition=1)
    if restart:
        await first.source.close()
    second = await cluster.join([topic_name], topic_name, start="latest")
    others = [] if restart else [first]
    members = [second, *others]
    await second.until(lambda: sum(len(member.records) for member in members) == 30, others)
    assert {record.partition for member in members for record in member.records} == {1}


@pytest.mark.promise("P1")
@pytest.mark.parametrize("restart", [True, False])
async def test_latest_reads_a_new_topic_of_a_pattern_from_its_beginning(
    kafka: Kafka, cluster: Cluster, topic_name: str, *, restart: bool
) -> None:
    """A topic created after the group's first start is read from its beginning, also by members that start later.

    A running member notices it after up to 30 s; a restarted or a second one sees it at once.
    Kills: the end of every topic that a member finds at its start.
    """
    pattern = [f"^{topic_name}-.*"]
    kafka.create_topic(f"{topic_name}-a", 1)
    cluster.produce(f"{topic_name}-a", 3)
    first = await cluster.join(pattern, topic_name, start="latest")
    await first.until(lambda: bool(first.assigned))
    kafka.create_topic(f"{topic_name}-b", 2)
    cluster.produce(f"{topic_name}-b", 30, partition=1)
    if restart:
        await first.source.close()
    second = await cluster.join(pattern, topic_name, start="latest")
    others = [] if restart else [first]
    members = [second, *others]
    await second.until(lambda: sum(len(member.records) for member in members) == 30, others)
    assert {record.topic for member in members for record in member.records} == {f"{topic_name}-b"}


async def test_latest_skips_the_old_records_of_every_topic_of_a_pattern(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """The members of a new group share several topics: each topic is begun at its end, whichever member has it.

    Kills: taking the second topic for a new one because the first member has committed its start in the first.
    """
    for name in "ab":
        kafka.create_topic(f"{topic_name}-{name}", 2)
        for number in range(2):
            cluster.produce(f"{topic_name}-{name}", 5, partition=number)
    members = [await cluster.join([f"^{topic_name}-.*"], topic_name, start="latest") for _ in range(2)]
    await members[0].until(lambda: sum(len(set(member.assigned)) for member in members) >= 4, members[1:])
    await members[0].until(lambda: all(member.assigned for member in members), members[1:])
    assert {assigned.start for member in members for assigned in member.assigned} == {5}


async def test_latest_skips_the_old_records_in_every_member_of_a_new_group(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """The second member of a group that never committed starts at the end too, not at the beginning.

    Kills: taking partitions of other members, which have no offset yet, for added ones.
    """
    kafka.create_topic(topic_name, 4)
    for number in range(4):
        cluster.produce(topic_name, 5, partition=number)
    first = await cluster.join([topic_name], topic_name, start="latest")
    await first.until(lambda: len(first.assigned) == 4)
    await first.source.close()
    assert [cluster.committed(topic_name, topic_name, number)[0] for number in range(4)] == [5, 5, 5, 5]
    members = [await cluster.join([topic_name], topic_name + "2", start="latest") for _ in range(2)]
    await members[0].until(lambda: sum(len(set(member.assigned)) for member in members) >= 4, members[1:])
    await members[0].until(lambda: all(member.assigned for member in members), members[1:])
    assert {assigned.start for member in members for assigned in member.assigned} == {5}


async def test_the_count_of_partitions_is_fresh_when_an_assignment_comes(
    kafka: Kafka, cluster: Cluster, topic_name: str
) -> None:
    """Partitions that were added count for a named topic before the listener shares a rate limit by them.

    So it is also if all of them went to another member, and before this one would look for itself.
    Kills: counts of the start, by which two members together pass the limit.
    """
    kafka.create_topic(topic_name, 2)
    member = await cluster.join([topic_name], topic_name)
    seen: list[int] = []
    on_assign = member.on_assign

    async def counted(partitions: Sequence[Assigned]) -> None:
        seen.append(member.source.counts[topic_name])
        await on_assign(partitions)

    member.on_assign = counted  # type: ignore[method-assign]
    await member.until(lambda: len(member.assigned) == 2)
    member.source._next_look = float("inf")
    cluster.add_partitions(topic_name, 4)
    other = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(other.assigned) == 2 and len(seen) > 1, [other])
    assert len(member.assigned) == 2
    assert seen[0] == 2
    assert seen[-1] == 4


@pytest.mark.promise("P1")
async def test_a_header_name_that_is_not_utf8_loses_no_record(kafka: Kafka, cluster: Cluster, topic_name: str) -> None:
    """Such records come with unreadable headers, and those between them as they are.

    Kills: an error of the client library for which the whole batch is lost.
    """
    kafka.create_topic(topic_name)
    # CPython specialises a call that is made often; from then on it does not check what the library returns.
    for number in range(100):
        raw_records.produce(kafka.bootstrap, topic_name, 0, b"%d" % number, [(b"name", b"\xff")])
        raw_records.produce(kafka.bootstrap, topic_name, 0, b"bad", [(b"\xff\xfe", b"2"), (b"name", b"3")])
    member = await cluster.join([topic_name], topic_name)
    await member.until(lambda: len(member.records) == 200)
    assert [record.value for record in member.records[::2]] == [b"%d" % number for number in range(100)]
    assert all(list(record.headers) == [("name", b"\xff")] for record in member.records[::2])
    assert all(record.headers is UNREADABLE_HEADERS for record in member.records[1::2])
