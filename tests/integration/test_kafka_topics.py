"""The checks at start, on a real Kafka: what is unfit stops the start with the way out, what may be created is."""

import asyncio
import time
from collections.abc import Callable, Mapping

import pytest
from confluent_kafka.admin import AdminClient

from connector.clock import SystemClock
from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka.client import LEAST_BATCH, MOST_BATCH
from connector.kafka.topics import LETTER_MARGIN, BrokerUnreachable, OwnTopic, TopicCheck
from connector.testing.broker import EmbeddedBroker
from tools.servers import Kafka

Names = Callable[[str], str]


def _check(bootstrap: str, *, create: bool = False, client: Mapping[str, str] | None = None) -> TopicCheck:
    settings = KafkaSettings(
        topics=["unused"],
        group_id="unused",
        create_topics=create,
        client={"bootstrap.servers": bootstrap, **(client or {})},
    )
    return TopicCheck(settings, clock=SystemClock())


async def test_missing_own_topics_are_created_with_room_for_headers(kafka: Kafka, fresh_name: Names) -> None:
    """A created dead-letter topic has the source's partitions and takes its largest record with our headers."""
    one, two, dead_letters, results = (fresh_name(stem) for stem in ("one", "two", "letters", "results"))
    kafka.create_topic(one, 2, {"max.message.bytes": "50000"})
    kafka.create_topic(two, 5, {"max.message.bytes": "40000"})
    own = [OwnTopic(dead_letters, "dead-letter"), OwnTopic(results, "results")]
    report = await _check(kafka.bootstrap, create=True).check([one, two, "^pattern"], own)
    assert report.partitions == {one: 2, two: 5}
    assert list(report.created) == [dead_letters, results]
    assert report.batch_bytes == 50_000
    assert report.cluster_id
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    assert len(topics[dead_letters].partitions) == 5
    again = await _check(kafka.bootstrap).check([one, two], own)
    assert (list(again.created), list(again.warnings)) == ([], [])
    assert again.batch_bytes == MOST_BATCH


async def test_every_missing_topic_is_named(kafka: Kafka, fresh_name: Names) -> None:
    """Topics that are read are never created; all that are missing are named at once."""
    one, two = fresh_name("one"), fresh_name("two")
    with pytest.raises(StartupError, match=f"{one}.*{two}"):
        await _check(kafka.bootstrap, create=True).check([one, two], [])
    kafka.create_topic(one)
    with pytest.raises(StartupError, match=r"kafka\.create_topics"):
        await _check(kafka.bootstrap).check([one], [OwnTopic(two, "dead-letter")])


@pytest.mark.parametrize("limit", [49_999, 50_000, 50_000 + LETTER_MARGIN - 1, 50_000 + LETTER_MARGIN])
async def test_the_dead_letter_topic_takes_the_largest_record(kafka: Kafka, fresh_name: Names, limit: int) -> None:
    """Below the source's limit it is unfit, below the margin a warning says the setting, above it is silent.

    Kills: batches over the topic's limit, which Kafka refuses whole.
    """
    source, dead_letters = fresh_name("source"), fresh_name("letters")
    kafka.create_topic(source, 1, {"max.message.bytes": "50000"})
    kafka.create_topic(dead_letters, 1, {"max.message.bytes": str(limit)})
    checking = _check(kafka.bootstrap).check([source], [OwnTopic(dead_letters, "dead-letter")])
    command = f"--entity-name {dead_letters} --add-config max.message.bytes={50_000 + LETTER_MARGIN}"
    if limit < 50_000:
        with pytest.raises(StartupError, match=command):
            await checking
    else:
        report = await checking
        warnings = report.warnings
        assert report.batch_bytes == min(limit, MOST_BATCH)
        assert len(warnings) == (limit < 50_000 + LETTER_MARGIN)
        assert all(command in warning for warning in warnings)


async def test_a_compacted_own_topic_is_unfit(kafka: Kafka, fresh_name: Names) -> None:
    """Compaction would drop dead letters with the same key; a compacted source is read as any other."""
    source, dead_letters = fresh_name("source"), fresh_name("letters")
    for topic in (source, dead_letters):
        kafka.create_topic(topic, 1, {"cleanup.policy": "compact"})
    with pytest.raises(StartupError, match=r"cleanup\.policy=delete"):
        await _check(kafka.bootstrap).check([source], [OwnTopic(dead_letters, "dead-letter")])


async def test_a_broker_that_tells_no_configuration_is_believed() -> None:
    """The mock broker of librdkafka cannot describe a topic: the check goes on without."""
    with EmbeddedBroker() as broker:
        broker.create("events")
        broker.create("letters")
        report = await _check(broker.bootstrap).check(["events"], [OwnTopic("letters", "dead-letter")])
    assert report.partitions == {"events": 4}
    assert report.batch_bytes == LEAST_BATCH


async def test_an_unreachable_broker_is_waited_for() -> None:
    """The reason is reported while it lasts; the wait ends at its time-out, or when it is cancelled."""
    reasons: list[str | None] = []
    check = _check("127.0.0.1:1")
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
        await check.wait(reasons.append, timeout=0.1)
    assert reasons
    assert None not in reasons
    waiting = asyncio.create_task(check.wait(reasons.append))
    began = time.monotonic()
    await asyncio.sleep(0.2)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
    assert time.monotonic() - began < 60


async def test_a_reachable_broker_ends_the_wait(kafka: Kafka) -> None:
    """The callback receives None once a broker answers."""
    reasons: list[str | None] = []
    await _check(kafka.bootstrap).wait(reasons.append, timeout=30)
    assert reasons[-1] is None


def test_an_unknown_property_stops_the_start() -> None:
    """The fault has librdkafka's own message, which names the property."""
    with pytest.raises(StartupError, match=r"no\.such\.property"):
        _check("127.0.0.1:1", client={"no.such.property": "x"})
