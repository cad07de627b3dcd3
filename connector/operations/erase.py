"""Erases dead letters from their topic: a person's data, or anything else that must not stay until retention ends.

Kafka cannot delete a single record, only everything before an offset of a partition. So a plan says what else would be
deleted.
"""

from __future__ import annotations

import getpass
import socket
from array import array
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from connector.clock import SystemClock
from connector.config.loader import Loaded
from connector.console.audit import Audit
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import IdSearch, Survey, parse_resolution
from connector.kafka.retention import Retention
from connector.kafka.topic_reader import TopicReader
from connector.operations.audit import KafkaAuditTopic
from connector.operations.events import matching_events
from connector.records import Record


class PartitionErasure(NamedTuple):
    """What is deleted from one partition: everything before offset `before`.

    `selected` records match, including copies and resolved dead letters. Their resolutions are deleted too, because
    they have the same key. `others` unresolved dead letters do not match, and would be lost.
    """

    partition: int
    before: int
    selected: int
    others: int


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases the dead letters of one configuration's topic."""

    loaded: Loaded

    def plan(self, wanted: Filter) -> Sequence[PartitionErasure]:
        """Return what would be deleted, for partitions with matching records. Blocks.

        Raises `DeadLetterNotFound` for an unknown id, and `StartupError`.
        """
        settings = self.loaded.settings
        with TopicReader(settings.kafka) as reader, matching_events(self.loaded, wanted) as applied:
            topic = reader.whole(settings.dead_letter_topic)
            survey, search = Survey(), IdSearch(wanted.ids)
            for record in topic.records():
                found = survey.take(record)
                if found is not None:
                    search.see(found[1].id)
            return erasures(topic.records(), survey, replace(applied, ids=search.ids()))

    async def erase(self, plan: Sequence[PartitionErasure]) -> None:
        """Delete permanently, after an audit record. If it raises `ConnectorError`, a part may be deleted."""
        settings = self.loaded.settings
        name = settings.console.audit_topic
        topic = None if name is None else KafkaAuditTopic(settings.kafka, name)
        offsets = {each.partition: each.before for each in plan}
        try:
            if topic is not None:
                await topic.open()
            who = f"{getpass.getuser()}@{socket.gethostname()} (command line)"
            what = {"topic": settings.dead_letter_topic, "before": {str(each): at for each, at in offsets.items()}}
            dead_letters = sum(each.selected for each in plan)
            # Recorded before the deletion: without an audit record nothing is deleted.
            await Audit(topic, SystemClock()).note("erase", who, {**what, "dead_letters": dead_letters})
            async with Retention(settings.kafka) as retention:
                await retention.delete_before(settings.dead_letter_topic, offsets)
        finally:
            if topic is not None:
                await topic.close()


def erasures(records: Iterator[Record], survey: Survey, wanted: Filter) -> list[PartitionErasure]:
    """Return what must be deleted from each partition so that no matching record is left."""
    selected: Counter[int] = Counter()
    last: dict[int, int] = {}
    ids: set[str] = set()
    open_others: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
    for record in records:
        # A key is personal data as much as a value, and a resolution has it too.
        if (resolution := parse_resolution(record)) is not None and resolution.dead_letter in ids:
            last[record.partition] = record.offset
        facts = None if record.value is None else parse(record.headers)
        if facts is None:
            continue
        if wanted.matches(facts, record):
            ids.add(facts.id)
            selected[record.partition] += 1
            last[record.partition] = record.offset
        elif (entry := survey.entry(record)) is not None and entry.state == "open":
            open_others[record.partition].append(record.offset)
    return [
        # Up to the last matching record. Offsets ascend, so a binary search finds how many others are before it.
        PartitionErasure(partition, offset + 1, selected[partition], bisect_left(open_others[partition], offset))
        for partition, offset in sorted(last.items())
    ]
