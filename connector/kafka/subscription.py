"""Which topics are read: names, and patterns resolved here. Pure.

librdkafka does not resolve them: with KIP-848 the broker would, and the connector's own topics could not be kept out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from connector.errors import StartupError


class TopicSelection:
    """The names and the patterns (which begin with ^) of `kafka.topics`; no pattern takes a topic of `own_topics`.

    The constructor raises `StartupError` for a pattern that is no regular expression.
    """

    def __init__(self, topics: Iterable[str], own_topics: frozenset[str]) -> None:
        self.names: list[str] = []
        self.patterns: list[re.Pattern[str]] = []
        self._own_topics = own_topics
        for topic in topics:
            if not topic.startswith("^"):
                self.names.append(topic)
                continue
            try:
                self.patterns.append(re.compile(topic))
            except re.error as error:
                raise StartupError(f"kafka.topics: {topic} is no regular expression: {error}") from None

    def matching(self, topics: Iterable[str]) -> set[str]:
        """Return the topics that a pattern takes, from its beginning; never Kafka's internal ones (`__`) or our own."""
        return {
            topic
            for topic in topics
            if not topic.startswith("__")
            and topic not in self._own_topics
            and any(pattern.match(topic) for pattern in self.patterns)
        }
