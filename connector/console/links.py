"""Addresses on the team's own Kafka pages, made from the templates of `console.links`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote


class Links:
    """Templates for a `topic`, `partition` or `record`; {topic}, {partition} and {offset} in them are filled in."""

    def __init__(self, templates: Mapping[Literal["topic", "partition", "record"], str]) -> None:
        self._templates = templates

    def topic(self, topic: str) -> str | None:
        """Return the address of a topic; None without a template."""
        return self._filled("topic", topic=topic)

    def partition(self, topic: str, partition: int) -> str | None:
        """Return the address of a partition, or of its topic."""
        return self._filled("partition", topic=topic, partition=partition) or self.topic(topic)

    def record(self, topic: str, partition: int, offset: int) -> str | None:
        """Return the address of a record, or of its partition."""
        found = self._filled("record", topic=topic, partition=partition, offset=offset)
        return found or self.partition(topic, partition)

    def _filled(self, name: Literal["topic", "partition", "record"], **values: object) -> str | None:
        text = self._templates.get(name)
        if text is None:
            return None
        for key, value in values.items():
            # Not str.format: a template is a person's text, and format would follow its attributes.
            text = text.replace(f"{{{key}}}", quote(str(value), safe=""))
        return text


NO_LINKS: Final = Links({})
