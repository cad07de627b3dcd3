"""Selects dead letters by fields of their events (`--where event.user.id=7`): decodes each as a run would."""

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
    """Return the filter with its conditions on events applied, each event decoded by today's registry and schemas."""
    if not wanted.events:
        yield wanted
        return
    # A loop of its own: dead letters are read by blocking calls, in the main thread or in one of a running loop.
    with asyncio.Runner() as runner:
        matcher = _EventMatcher(loaded, wanted.events, runner)
        try:
            yield replace(wanted, accept=matcher)
        finally:
            runner.run(matcher.close())


class _EventMatcher:
    """Decodes dead letters and compares fields; what cannot be decoded does not match."""

    def __init__(self, loaded: Loaded, conditions: Mapping[str, frozenset[str]], runner: asyncio.Runner) -> None:
        self._examiner = DeadLetterExaminer(loaded, "")
        self._conditions = [(path.split("."), values) for path, values in conditions.items()]
        self._runner = runner

    def __call__(self, record: Record, facts: ParsedDeadLetter) -> bool:
        """Return whether all conditions hold for the event."""
        first = facts.first_record(record)
        try:
            # Without the loop: nearly every dead letter's schema is known after the first few.
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
    """Return the value at a path as text: a string as it is, anything else as JSON, nothing and null as empty.

    A map may have both `a.b` and `a`: a key that is the whole path is taken first, then the shortest key, as in routes.
    A named union's value is looked into.
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
