"""Selects dead letters by fields of their events (`--where event.user.id=7`), decoded as in a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from connector.config.loader import Loaded
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter
from connector.errors import ConnectorError, Refusal, SchemaUnavailable
from connector.operations.inspect import DeadLetterExaminer
from connector.operations.prepare import plain
from connector.records import Record


@contextmanager
def matching_events(loaded: Loaded, wanted: Filter) -> Iterator[Filter]:
    """Return the filter with its conditions on events made testable, by decoding with today's registry and schemas."""
    if not wanted.events:
        yield wanted
        return
    # An event loop of its own, because dead letters are read by blocking calls, perhaps in a thread of a running loop.
    with asyncio.Runner() as runner:
        matcher = _EventMatcher(loaded, wanted.events, runner)
        try:
            yield replace(wanted, accept=matcher)
        finally:
            runner.run(matcher.close())


class _EventMatcher:
    """Decodes dead letters and compares fields. Those that cannot be decoded do not match."""

    def __init__(self, loaded: Loaded, conditions: Mapping[str, frozenset[str]], runner: asyncio.Runner) -> None:
        self._examiner = DeadLetterExaminer(loaded, "")
        self._conditions = [(path.split("."), values) for path, values in conditions.items()]
        self._runner = runner

    def __call__(self, record: Record, facts: ParsedDeadLetter) -> bool:
        """Return whether all conditions hold for the event."""
        first = facts.first_record(record)
        try:
            # First without the loop: after a few dead letters nearly every schema is known.
            event = self._examiner.event_of_known_schema(first)
        except SchemaUnavailable:
            try:
                event = self._runner.run(self._examiner.event(first))
            except ConnectorError:
                return False
        except Refusal:
            return False
        datum = plain(event.datum)
        return all(text_at(datum, path) in values for path, values in self._conditions)

    async def close(self) -> None:
        """Close the registry client."""
        await self._examiner.close()


def text_at(datum: Any, path: list[str]) -> str:
    """Return the value at a path as text: a string unchanged, null or nothing as empty, anything else as JSON.

    A map may have both `a.b` and `a`. A key that equals the whole path comes first, then the shortest key, as in
    routes. The value of a named union is searched too.
    """
    if not path:
        if datum is None:
            return ""
        return datum if isinstance(datum, str) else json.dumps(datum, ensure_ascii=False)
    if not isinstance(datum, dict):
        return ""
    for count in (len(path), *range(1, len(path))):
        key = ".".join(path[:count])
        if key in datum:
            return text_at(datum[key], path[count:])
    if len(datum) == 1:
        ((_, inner),) = datum.items()
        return text_at(inner, path) if isinstance(inner, dict) else ""
    return ""
