"""Reading a topic by its offsets, without a broker: how a reading ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Message

from connector.config.loader import KafkaSettings
from connector.kafka import topic_reader
from connector.kafka.topic_reader import OffsetSpan, TopicReader

SETTINGS = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "unused:9092"})


class Closing:
    """A consumer that refuses everything once it is closed, as confluent-kafka's does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._closed = False

    def consume(self, *_: object) -> Sequence[Message]:
        """Return records."""
        return [Message(topic="t", partition=0, offset=offset, timestamp=(1, 5), value=b"v") for offset in (0, 1)]

    def close(self) -> None:
        """Close."""
        self._closed = True

    def __getattr__(self, name: str) -> Any:
        """Return a method that is noted, and refuses a closed client."""

        def call(*_: object) -> None:
            if self._closed:
                raise RuntimeError("Consumer closed")
            self.calls.append(name)

        return call


@pytest.mark.parametrize("closed", [True, False])
def test_a_reading_may_be_broken_off_before_or_after_its_reader_is_closed(
    monkeypatch: pytest.MonkeyPatch, *, closed: bool
) -> None:
    """A command whose output cannot be written ends in one sentence, and a reader goes on with another reading.

    Kills: a traceback behind the sentence about a full disk or a closed pipe; an assignment that outlives its reading.
    """
    consumer = Closing()
    monkeypatch.setattr(topic_reader, "construct", lambda *_, **__: consumer)
    with TopicReader(SETTINGS) as reader:
        reading = reader.records({("t", 0): OffsetSpan(0, 10)})
        assert next(reading).offset == 0
        if not closed:
            reading.close()
    reading.close()
    assert ("unassign" in consumer.calls) is not closed
