"""Follows the live topics without a group, and shows what today's configuration does with each record.

Nothing is sent or committed. Only records that arrive from now on are shown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connector.config.loader import Loaded
from connector.dead_letters.inspection import Inspection
from connector.errors import ConnectorError
from connector.kafka.topic_reader import TopicReader, TopicTail
from connector.operations.inspect import DeadLetterExaminer
from connector.operations.sample import wanted_topics
from connector.records import Event, Record
from connector.routing.conditions import CompiledCondition, compile_condition
from connector.routing.conversions import Unfit
from connector.routing.expressions import Expressions
from connector.routing.sources import SourceCompiler

_READ_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Tapped:
    """A record and its inspection; None for a null value, which is skipped."""

    record: Record
    inspection: Inspection | None


class Wanted:
    """Selects the records to show: those with these values that go to this destination.

    `where` are pairs of a source and a value as text; one source twice: either value, different ones: all of them.
    Raises `ValueError` for a source that is not valid.
    """

    def __init__(self, where: Sequence[tuple[str, str]], destination: str | None) -> None:
        values: dict[str, list[Any]] = {}
        for source, text in where:
            values.setdefault(source, []).extend(_values(text))
        sources = SourceCompiler(Expressions(), [])
        self._conditions: list[CompiledCondition] = [
            compile_condition(sources.path(source), wanted) for source, wanted in values.items()
        ]
        self._destination = destination

    async def shown(self, record: Record, examiner: DeadLetterExaminer) -> Tapped | None:
        """Return the record with its inspection; None if it is not wanted."""
        if record.value is None:
            # A null value has no fields and no destination, so it meets no condition.
            return None if self._conditions or self._destination else Tapped(record, None)
        if self._conditions:
            try:
                event = await examiner.event(record)
            except ConnectorError:
                return None
            if not self._met(event, record):
                return None
        found = await examiner.inspect_record(record)
        if self._destination is not None:
            own = tuple(each for each in found.preparations if each.destination == self._destination)
            if not own:
                return None
            found = replace(found, preparations=own)
        return Tapped(record, found)

    def _met(self, event: Event, record: Record) -> bool:
        try:
            return all(condition.met(event, record) for condition in self._conditions)
        except Unfit:
            return False


def _values(text: str) -> list[Any]:
    """Return the values that a text may stand for: itself, and a number, true, false or null."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return [text, value] if value is None or isinstance(value, (bool, int, float)) else [text]


def _topics(loaded: Loaded, only: Collection[str]) -> tuple[str, Mapping[str, int]]:
    """Return the cluster's id, and the followed topics with their partitions. Blocks; raises `StartupError`."""
    with TopicReader(loaded.settings.kafka) as reader:
        cluster_id, known = reader.topics()
    return cluster_id, {name: known[name] for name in wanted_topics(loaded.settings, only, known)}


async def follow(
    loaded: Loaded, only: Collection[str], wanted: Wanted, on_ready: Callable[[Mapping[str, int]], None]
) -> AsyncGenerator[Tapped]:
    """Yield the wanted records of the topics (only of `only`, unless that is empty) as they arrive, for ever.

    `on_ready` receives the topics with their partitions. Records that arrive after that call are shown. Raises
    `StartupError`.
    """
    cluster_id, topics = await asyncio.to_thread(_topics, loaded, only)
    tails: list[TopicTail] = []
    try:
        for topic in topics:
            tail = await asyncio.to_thread(TopicTail, loaded.settings.kafka, topic, latest=True)
            tails.append(tail)
        on_ready(topics)
        async with DeadLetterExaminer(loaded, cluster_id) as examiner:
            while True:
                for tail in tails:
                    for record in await asyncio.to_thread(tail.read, _READ_SECONDS / len(tails)):
                        shown = await wanted.shown(record, examiner)
                        if shown is not None:
                            yield shown
    finally:
        for tail in tails:
            await asyncio.to_thread(tail.close)
