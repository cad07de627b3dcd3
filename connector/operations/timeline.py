"""The timeline as seen from outside: the events in the topic of events and those that running members remember."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from pydantic import SecretStr

from connector.config.loader import KafkaSettings, Settings
from connector.console.timeline import Happening, TimelineEvent, as_happening, read_events
from connector.kafka.topic_reader import OffsetSpan, TopicReader
from connector.operations import member


class PastEvents:
    """Reads the topic of events. Blocks; raises `StartupError` if Kafka does not answer or has no such topic."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._reader: TopicReader | None = None
        self._lock = threading.Lock()

    def since(self, at: float) -> Sequence[Mapping[str, Any]]:
        """Return the events written since a time (epoch seconds), without other programs' records."""
        with self._lock:
            if self._reader is None:
                self._reader = TopicReader(self._settings)
            reader = self._reader
            spans = {}
            for partition, span in reader.whole(self._topic).spans.items():
                first = reader.since(partition, int(at * 1000))
                if first is not None:
                    spans[partition] = OffsetSpan(first, span.end)
            return list(_decoded(record.value for record in reader.records(spans)))

    def close(self) -> None:
        """Close the Kafka client."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()


def _decoded(values: Iterator[bytes | None]) -> Iterator[Mapping[str, Any]]:
    for value in values:
        try:
            event = orjson.loads(value or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(event, dict):
            yield event


class MergedTimeline:
    """The events since a time, and which sources could not be asked."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._events: dict[str, TimelineEvent] = {}
        self.troubles: list[str] = []

    def read(self, settings: Settings, addresses: Sequence[str], token: SecretStr | None) -> None:
        """Ask the members, and read the topic if one is configured."""
        for address in addresses:
            try:
                self._add(member.events(address, self._since, token))
            except member.ActionRefused as refused:
                self.troubles.append(str(refused))
        topic = settings.console.events_topic
        if topic is not None:
            past = PastEvents(settings.kafka, topic)
            try:
                self._add(list(past.since(self._since)))
            finally:
                past.close()

    def _add(self, given: object) -> None:
        self._events.update({event.id: event for event in read_events(given) if event.at >= self._since})

    def events(self) -> list[TimelineEvent]:
        """Return the events, the oldest first."""
        return sorted(self._events.values(), key=lambda event: (event.at, event.id))

    def happenings(self) -> list[Happening]:
        """Return the events as sentences."""
        return [as_happening(event) for event in self.events()]
