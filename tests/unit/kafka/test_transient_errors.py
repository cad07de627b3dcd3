"""Commands repeat what a cluster that is starting or moving its leaders refuses for a moment, until a deadline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka import client, groups, topic_reader
from connector.kafka.groups import CommittedOffsets, Groups
from connector.kafka.membership import GroupMembership
from connector.kafka.retention import Retention
from connector.kafka.topic_reader import TopicReader, TopicTail
from connector.kafka.topics import OwnTopic, TopicCheck

SETTINGS = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "unused:9092"})
STARTING = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.LEADER_NOT_AVAILABLE)


class Stumbling:
    """A Kafka client each of whose methods fails with the given errors first, and then answers."""

    def __init__(self, errors: tuple[int, ...] = STARTING) -> None:
        self._errors = errors
        self._left: dict[str, Iterator[int]] = {}

    def _answer(self, name: str, answer: Any) -> Any:
        code = next(self._left.setdefault(name, iter(self._errors)), None)
        if code is not None:
            raise KafkaException(KafkaError(code))
        return answer

    def list_topics(self, *_: object, **__: object) -> Any:
        """Answer with one topic of two partitions."""
        topic = SimpleNamespace(partitions={0: None, 1: None})
        return self._answer("list_topics", SimpleNamespace(cluster_id="c", topics={"t": topic}))

    def get_watermark_offsets(self, *_: object, **__: object) -> Any:
        """Answer with five offsets."""
        return self._answer("bounds", (0, 5))

    def offsets_for_times(self, *_: object, **__: object) -> Any:
        """Answer with an offset."""
        return self._answer("times", [TopicPartition("t", 0, 3)])

    def committed(self, *_: object, **__: object) -> Any:
        """Answer with an offset."""
        return self._answer("committed", [TopicPartition("t", 0, 4)])

    def describe_consumer_groups(self, *_: object, **__: object) -> Any:
        """Answer with two members."""
        return {"g": self._later("members", SimpleNamespace(members=[1, 2], authorized_operations=None))}

    def describe_configs(self, *_: object, **__: object) -> Any:
        """Answer that a topic is compacted."""
        return {"t": self._later("configs", {"cleanup.policy": SimpleNamespace(value="compact")})}

    def create_topics(self, *_: object, **__: object) -> Any:
        """Create a topic; the first answer is lost, so it exists by then."""
        return {"t": self._later("create", None)}

    def delete_records(self, *_: object, **__: object) -> Any:
        """Delete records."""
        return {"t": self._later("delete", None)}

    def _later(self, name: str, answer: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(self._answer(name, answer))
        except KafkaException as error:
            future.set_exception(error)
        return future

    def incremental_assign(self, *_: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> Stumbling:
    """Let every client of this test stumble; no pause is waited out."""
    found = Stumbling()
    monkeypatch.setattr(client, "_REPEAT_PAUSE", 0.0)
    for module in (groups, topic_reader):
        monkeypatch.setattr(module, "construct", lambda *_, **__: found)
    return found


QUESTIONS: list[Callable[[], Any]] = [
    lambda: TopicReader(SETTINGS).topics(),
    lambda: TopicReader(SETTINGS).bounds(("t", 0)),
    lambda: TopicReader(SETTINGS).since(("t", 0), 1),
    lambda: TopicReader(SETTINGS).whole("t").total,
    lambda: CommittedOffsets(SETTINGS, "g").committed([("t", 0)])["t", 0].offset,
    lambda: CommittedOffsets(SETTINGS, "g").bounds(("t", 0)),
    lambda: TopicTail(SETTINGS, "t", latest=True).left,
]


@pytest.mark.parametrize(
    ("question", "answer"), list(zip(QUESTIONS, [("c", {"t": 2}), (0, 5), 3, 10, 4, (0, 5), 0], strict=True))
)
@pytest.mark.usefixtures("stumbling")
def test_a_question_is_repeated_while_the_cluster_starts(question: Callable[[], Any], answer: object) -> None:
    """Each question to Kafka is asked again after NOT_COORDINATOR and its kind, and answered.

    Kills: a command that ends with the first NOT_COORDINATOR of a fresh cluster.
    """
    assert question() == answer


async def test_members_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The admin client's futures are repeated like blocking calls."""
    monkeypatch.setattr(client, "_REPEAT_PAUSE", 0.0)
    monkeypatch.setattr(Groups, "client", Stumbling(), raising=False)
    assert await asyncio.wait_for(Groups.__new__(Groups).members("g"), 5) == 2
    asking = GroupMembership.__new__(GroupMembership)
    asking._requesting = threading.Lock()
    monkeypatch.setattr(asking, "client", Stumbling(), raising=False)
    assert await asyncio.wait_for(asking.may_read("g"), 5)


async def test_what_an_admin_client_does_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic is created, its policy read, its beginning deleted, whatever the cluster answers for a moment.

    Kills: `topics --create` and `dlq erase` that end with a leader's move; a compacted topic that is written to,
    because it could not be asked about.
    """
    monkeypatch.setattr(client, "_REPEAT_PAUSE", 0.0)
    for kind in (Retention, TopicCheck):
        monkeypatch.setattr(kind, "client", Stumbling(), raising=False)
    retention, topics = Retention.__new__(Retention), TopicCheck.__new__(TopicCheck)
    topics._settings = SETTINGS.model_copy(update={"create_topics": True})
    async with asyncio.timeout(5):
        assert "compacted" in str(await retention.compacted("t"))
        await retention.delete_before("t", {0: 1})
        with capture_logs() as logged:
            await topics._create([OwnTopic("t", "dead-letter")], 0, 1)
    assert [line["event"] for line in logged] == ["kafka.topic_created"]


@pytest.mark.parametrize(
    ("errors", "seconds"),
    [((KafkaError.TOPIC_AUTHORIZATION_FAILED,), 15.0), ((KafkaError.NOT_COORDINATOR,) * 1000, 0.0)],
)
def test_an_error_that_lasts_is_reported(
    monkeypatch: pytest.MonkeyPatch, stumbling: Stumbling, errors: tuple[int, ...], seconds: float
) -> None:
    """An error that is not transient ends the command at once, and a transient one at the deadline."""
    stumbling._errors = errors
    monkeypatch.setattr(client, "_REPEAT_SECONDS", seconds)
    with pytest.raises(StartupError, match="no Kafka broker"):
        TopicReader(SETTINGS).topics()
