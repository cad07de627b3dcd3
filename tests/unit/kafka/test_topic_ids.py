"""Topic ids: which partitions are of a recreated topic, and that they are asked for only while a broker answers."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from connector.config.models import KafkaSettings
from connector.kafka import topic_ids
from connector.kafka.topic_ids import GONE, HeldIds, TopicIds

AWAY = KafkaException(KafkaError(KafkaError._TRANSPORT))


class Broker:
    """An admin client: `reachable` says whether metadata comes, `described` how often ids were asked for."""

    def __init__(self, *_: Any) -> None:
        self.reachable = True
        self.silent = False
        """Whether it answers, but tells no ids."""
        self.described = 0
        self.client = self

    def describe_topics(self, wanted: Any, **_: Any) -> dict[str, Future[Any]]:
        """Answer, or fail as a broker that is away does."""
        self.described += 1
        answers: dict[str, Future[Any]] = {}
        for name in ("a", "b"):
            future: Future[Any] = Future()
            answers[name] = future
            if not self.silent and (self.reachable or name == "b"):
                future.set_result(SimpleNamespace(topic_id=f"id of {name}", partitions=[0]))
            else:
                future.set_exception(AWAY)
        return answers

    async def topics(self, _timeout: float) -> None:
        """Return metadata, or fail."""
        if not self.reachable:
            raise AWAY

    async def close(self) -> None:
        """End."""


async def test_no_admin_request_waits_for_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one question without an answer the next is asked only once metadata comes, whichever topic failed.

    librdkafka can end the process by an assertion where an admin request waits for a broker. Kills: a question at each
    commit while no broker answers, and a last topic's answer that hides another one's failure.
    """
    broker = Broker()
    monkeypatch.setattr(topic_ids, "Admin", lambda *_: broker)
    ids = TopicIds(KafkaSettings(topics=["a", "b"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"}), {})
    held = {("a", 0), ("b", 0)}
    await ids.note(held)
    broker.reachable = False
    for _ in range(3):
        assert await ids.others(held) == set()
    assert broker.described == 2
    broker.reachable = True
    assert await ids.others(held) == set()
    assert broker.described == 3


async def test_a_broker_that_tells_no_ids_is_asked_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Kafka did not tell an id, a commit does not wait for the next question; later it is asked again.

    Kills: a time-out at each commit to a broker that has no topic ids, so that nothing is read meanwhile.
    """
    broker = Broker()
    broker.silent = True
    monkeypatch.setattr(topic_ids, "Admin", lambda *_: broker)
    ids = TopicIds(KafkaSettings(topics=["a", "b"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"}), {})
    await ids.note({("a", 0)})
    for _ in range(5):
        assert await ids.others({("a", 0)}) == set()
        await ids.look()
    assert broker.described == 1
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1e9)
    await ids.look()
    assert broker.described == 2


def test_an_id_that_is_found_late_counts_from_then_on() -> None:
    """Kafka does not describe the topic at the assignment, as after a restart of the broker: a later answer counts.

    Kills: a partition that is unprotected as long as it is held, because one question had no answer.
    """
    ids = HeldIds()
    ids.note({("a", 0)}, {})
    assert ids.others({("a", 0)}, {"a": GONE}) == set()
    assert ids.others({("a", 0)}, {"a": "old"}) == set()
    assert ids.others({("a", 0), ("b", 0)}, {"a": "new", "b": "old"}) == {("a", 0)}
    assert "topic a was deleted and recreated" in (ids.fault() or "")


def test_each_partition_has_the_id_of_its_own_assignment() -> None:
    """A partition that arrives is already the new topic's, while one that is held is still the old one's."""
    ids = HeldIds()
    ids.note({("a", 0)}, {"a": "old"})
    ids.note({("a", 1)}, {"a": "new"})
    assert ids.others({("a", 0), ("a", 1)}, {"a": "new"}) == {("a", 0)}
    ids.forget([("a", 0)])
    assert ids.fault() is None


def test_a_topic_that_is_gone_is_waited_for() -> None:
    """While the topic does not exist nothing is committed for it, and nothing is said."""
    ids = HeldIds()
    ids.note({("a", 0)}, {"a": "old"})
    assert ids.others({("a", 0)}, {"a": GONE}) == {("a", 0)}
    assert ids.fault() is None
    assert ids.others({("a", 0)}, {}) == set()


def test_a_topic_that_is_gone_at_the_assignment_is_another_one_when_it_comes_back() -> None:
    """The group's offset may still be the deleted topic's; only a partition that begins at 0 can pass over nothing.

    Kills: taking the new topic's id for that of the partition, whose first records are then passed over.
    """
    ids = HeldIds()
    ids.note({("a", 0), ("a", 1)}, {"a": GONE})
    ids.at_first_offset([("a", 1)])
    assert ids.others({("a", 0), ("a", 1)}, {"a": "new"}) == {("a", 0)}
    assert "topic a was deleted and recreated" in (ids.fault() or "")
