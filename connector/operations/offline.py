"""Applies a configuration, without Kafka and registry, to events that a person wrote as JSON.

An event file holds events as JSON: one, a list, or one on each line (JSON Lines). Each is the plain event, or an
envelope: `{"event": …, "topic": …, "schema": …, "key": …, "headers": …, "time": …}`, in which only `event` is required.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from connector import vendors
from connector.codec.from_json import JsonFault, encode_json
from connector.codec.reader import reader_of
from connector.codec.schemas import Schema, load_contracts, load_schema_files, own_schemas
from connector.config.errors import suggest
from connector.config.loader import Loaded, load
from connector.config.models import parse_start
from connector.dead_letters.inspection import Inspection
from connector.errors import ConnectorError
from connector.operations.prepare import Preparer
from connector.records import DecodedKey, Event, Record

PLACEHOLDER: Final = "1111111111111111"
"""A placeholder for missing secrets: nothing is sent, so they are not needed. A number, because some are ids."""
CLUSTER: Final = "offline"
_ENVELOPE: Final = frozenset({"event", "topic", "schema", "key", "headers", "time"})


class EventFault(ConnectorError):
    """A written event cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class WrittenEvent:
    """An event as a person wrote it. If unset, topic and schema are derived, and the time (epoch milliseconds) is now.

    `key` is text; for an Avro key it is the datum as JSON.
    """

    event: Any
    topic: str | None = None
    schema: str | None = None
    key: Any = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    time: int | None = None


def load_offline(path: Path, env: Mapping[str, str]) -> Loaded:
    """Return a configuration with a placeholder for each missing secret. Raises `ConfigurationError`."""
    known = vendors.kinds()
    return load(
        path,
        {name: vendor.settings for name, vendor in known.items()},
        env,
        {name: vendor.rules for name, vendor in known.items()},
        missing=_placeholder,
    )


def _placeholder(path: str) -> str:
    return "http://localhost" if path.endswith("url") else PLACEHOLDER


def read_events(text: str, place: str) -> list[WrittenEvent]:
    """Return the events of a file's text. Raises `EventFault` with the `place` and the line."""
    try:
        found = _json(text, place)
        values = found if isinstance(found, list) else [found]
        return [written(value, place) for value in values]
    except json.JSONDecodeError as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2 or error.lineno < 2 or not lines[0][1].rstrip().endswith("}"):
            raise EventFault(_not_json(place, error)) from None
    events = []
    for number, line in lines:
        try:
            where = f"{place}, line {number}"
            events.append(written(_json(line, where), where))
        except json.JSONDecodeError as error:
            raise EventFault(_not_json(f"{place}, line {number}", error)) from None
    return events


def written(value: Any, place: str) -> WrittenEvent:
    """Return an event written plainly or in its envelope. Raises `EventFault`."""
    if not isinstance(value, dict):
        raise EventFault(f"{place}: an event must be a JSON object")
    if "event" not in value or not value.keys() <= _ENVELOPE:
        return WrittenEvent(value)
    for name in ("topic", "schema"):
        if not isinstance(value.get(name, ""), str):
            raise EventFault(f"{place}: {name} must be a string")
    if not isinstance(value["event"], dict):
        raise EventFault(f"{place}: event must be a JSON object")
    return WrittenEvent(
        value["event"],
        value.get("topic"),
        value.get("schema"),
        value.get("key"),
        headers_of(value.get("headers") or {}, place),
        time_of(value.get("time"), place),
    )


def headers_of(value: Any, place: str) -> tuple[tuple[str, bytes | None], ...]:
    """Return headers from a mapping of strings. Raises `EventFault`."""
    if not isinstance(value, dict) or not all(
        content is None or isinstance(content, str) for content in value.values()
    ):
        raise EventFault(f"{place}: headers must be an object of strings")
    return tuple((name, None if content is None else content.encode()) for name, content in value.items())


def time_of(value: Any, place: str) -> int | None:
    """Return a time as epoch milliseconds; None for none. Raises `EventFault`."""
    try:
        found = None if value in ("earliest", "latest") else parse_start(value)
    except ValueError:
        found = None
    if value is not None and not isinstance(found, int):
        raise EventFault(f"{place}: time must be epoch milliseconds or a time with a zone: 2026-11-20T10:00:00Z")
    return found if isinstance(found, int) else None


class Offline:
    """Applies a configuration to events from a file.

    `schema_files` are further schema files. The constructor raises `ConfigurationError` for routes that are not valid.
    """

    def __init__(self, loaded: Loaded, schema_files: Iterable[Path] = ()) -> None:
        own = [*own_schemas(loaded), *load_schema_files(schema_files)]
        self._settings = loaded.settings
        self._contracts = load_contracts().schemas
        self._own = {schema.name: schema for schema in own if schema.name and schema.name not in self._contracts}
        self.schemas = {**self._own, **self._contracts}
        """Every known schema by its full name."""
        self._preparer = Preparer(self._settings, {name: known.tree for name, known in self.schemas.items()}, CLUSTER)

    def inspect(self, given: WrittenEvent, now: int | None = None) -> Inspection:
        """Return what each destination would be sent, at `now` (epoch milliseconds, the event's time or present).

        Raises `EventFault` for an event that is not one of its schema.
        """
        schema, value = self.encoded(given)
        contract = schema.name in self._contracts
        datum, _ = reader_of(schema.tree, tagged=contract, logical=not contract)(value, 0)
        key = None if given.key is None or isinstance(given.key, str) else DecodedKey(given.key)
        at = given.time if given.time is not None else int(time.time() * 1000)
        record = self._record(given, at, value)
        return self._preparer.inspect(Event(str(schema.name), datum, key), record, at if now is None else now)

    def records(self, events: Sequence[WrittenEvent]) -> Iterator[Record]:
        """Yield the events as records in single-object encoding. Raises `EventFault` with the event's number."""
        now = int(time.time() * 1000)
        offsets: dict[str, int] = {}
        for number, given in enumerate(events, 1):
            try:
                schema, value = self.encoded(given)
            except EventFault as fault:
                raise EventFault(f"event {number}: {fault}") from None
            at = now if given.time is None else given.time
            record = self._record(given, at, b"\xc3\x01" + schema.fingerprint + value)
            offset = offsets[record.topic] = offsets.get(record.topic, -1) + 1
            yield Record(record.topic, 0, offset, at, record.key, record.value, record.headers)

    def topic_of(self, given: WrittenEvent) -> str:
        """Return the event's topic: its own, else that of the first route for its schema, else the first topic."""
        if given.topic is not None:
            return given.topic
        routed = [
            name
            for route in self._settings.routes
            if given.schema in (None, route.schema_name)
            for name in route.topics or ()
        ]
        names = [name for name in (*routed, *self._settings.kafka.topics) if not name.startswith("^")]
        return names[0] if names else "events"

    def encoded(self, given: WrittenEvent) -> tuple[Schema, bytes]:
        """Return the event's schema, derived if it is not given, and the datum. Raises `EventFault`."""
        if given.schema is not None:
            schema = self._named(given.schema)
            try:
                return schema, encode_json(schema.tree, given.event)
            except JsonFault as fault:
                raise EventFault(f"not an event of {schema.name}: {fault}") from None
        faults: dict[str, str] = {}
        for names in self._candidates(given):
            found = []
            for name in names:
                try:
                    found.append((self.schemas[name], encode_json(self.schemas[name].tree, given.event)))
                except JsonFault as fault:
                    faults.setdefault(name, str(fault))
            if len(found) == 1:
                return found[0]
            if found:
                matching = ", ".join(str(schema.name) for schema, _ in found)
                raise EventFault(f"the event matches several schemas; name one of them: {matching}")
        if len(faults) == 1 or (self._own and len(self._own) == 1):
            name, why = next(iter(faults.items()))
            raise EventFault(f"not an event of {name}: {why}")
        raise EventFault(f"the event matches no known schema; name its schema, one of: {', '.join(faults)}")

    def _named(self, name: str) -> Schema:
        if name in self.schemas:
            return self.schemas[name]
        hint = suggest(name, self._own or self._contracts)
        raise EventFault(f"unknown schema {name}: {hint}; name its file in schemas.files")

    def _candidates(self, given: WrittenEvent) -> list[list[str]]:
        """Return the names of the schemas that may match the event, the likely ones first."""
        topic = self.topic_of(given)
        plain = self._settings.schemas.plain.get(topic)
        if plain is not None:
            return [[plain]]
        routed = [
            route.schema_name
            for route in self._settings.routes
            if route.schema_name in self.schemas and (given.topic is None or not route.topics or topic in route.topics)
        ]
        kinds = vendors.kinds()
        used = {kinds[each.vendor].schema for each in self._settings.destinations.values()}
        contracts = [name for name in (*sorted(used), "connector.events.Event") if name in self._contracts]
        return [list(dict.fromkeys(map(str, routed))), list(self._own), contracts]

    def _record(self, given: WrittenEvent, at: int, value: bytes) -> Record:
        key = given.key
        if key is not None:
            key = key.encode() if isinstance(key, str) else json.dumps(key, default=str).encode()
        return Record(self.topic_of(given), 0, 0, at, key, value, given.headers)


def _json(text: str, place: str) -> Any:
    """Return a JSON value that an event may have. Raises `EventFault`, and `JSONDecodeError` if it is not JSON."""
    try:
        value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise EventFault(f"{place} is nested too deep for an event") from None
    except UnicodeEncodeError:
        raise EventFault(rf"{place} has half of a character (\ud800 to \udfff), which no text has") from None
    except ValueError:
        # Python reads at most 4,300 digits.
        raise EventFault(f"{place} has a number with thousands of digits, which no event can have") from None
    return value


def _no_constant(text: str) -> Any:
    raise EventFault(f"{text} is not JSON; write a number, a string or null")


def _not_json(place: str, error: json.JSONDecodeError) -> str:
    return f"{place} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
