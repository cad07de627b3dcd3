"""Sources: each form is compiled to a function of the event and its record that returns a value. Pure.

A key that names a schema is decoded (`$key.field` is a field of its record); any other key is text. Inside a map, a
list or JSON text a value keeps its own type; `docs/routing.md` states what becomes of it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from connector.config.errors import suggest
from connector.config.routes import CelSource, ConstSource, JsonSource, ListSource, MapSource, PathSource, Source
from connector.config.yaml import join
from connector.errors import ConfigFault
from connector.records import NO_TIMESTAMP, DecodedKey, Event, Record
from connector.routing.conversions import Unfit, Unit, to_epoch, to_json, to_string
from connector.routing.expression_types import types_of
from connector.routing.expressions import Expressions
from connector.routing.paths import RECORDS, SchemaTree, getter, parse_path
from connector.routing.schema_types import STRING, Nodes, constant_nodes, unfit

Getter = Callable[[Event, Record], Any]
Change = Callable[[Any], Any]

_HEADER: Final = "$header."
_KEY: Final = "$key."
_LONG: Final = ({"type": "long"},)


class Value(NamedTuple):
    """A compiled source: `get(event, record)` returns the value (null if there is none) or raises `Unfit`.

    `nodes` are the types that the value may have, or None if they are not known. `is_text`: the value comes from bytes
    outside the event (`$key`, `$header.NAME`). `unit` is the unit of a plain number that is a time. `is_time`: the
    value is the record's timestamp in epoch milliseconds. `constant`: the value is the same for every event. `names` is
    the path, if the source is a path of names only and the value stays unchanged.
    """

    text: str
    get: Getter
    nodes: Nodes | None = None
    is_text: bool = False
    is_time: bool = False
    unit: Unit | None = None
    constant: bool = False
    names: tuple[str, ...] | None = None


class SourceCompiler:
    """Compiles sources, against a writer's schema if one is known. Every fault is added to `faults`."""

    def __init__(self, expressions: Expressions, faults: list[ConfigFault], schema: SchemaTree | None = None) -> None:
        self.expressions = expressions
        self.faults = faults
        self.schema = schema

    def compile(self, source: Source, path: str) -> Value | None:
        """Return the compiled source; None if it has a fault. `path` is its place in the file."""
        try:
            match source:
                case str():
                    return self.path(source)
                case ConstSource():
                    return _constant(source.const)
                case PathSource():
                    return self._changed(source)
                case MapSource():
                    return self._map(source, path)
                case ListSource():
                    return self._list(source, path)
                case JsonSource():
                    return self._json(source, path)
                case CelSource():
                    get = self.expressions.compile(source.cel, self.schema)
                    return Value("cel", get, types_of(source.cel, self.schema))
        except ValueError as fault:
            self.faults.append(ConfigFault(path, str(fault)))
            return None

    def path(self, text: str) -> Value:
        """Return the value that a source text refers to. Raises `ValueError` that says what is allowed."""
        if text == "$key":
            return Value(text, _key, (STRING,), is_text=True)
        if text == "$timestamp":
            return Value(text, _timestamp, _LONG, is_time=True, unit="ms")
        if text.startswith(_KEY):
            return Value(text, _key_getter(getter(parse_path(text[len(_KEY) :]))))
        if text.startswith(_HEADER) and len(text) > len(_HEADER):
            return Value(text, _header_getter(text[len(_HEADER) :]), (STRING,), is_text=True)
        if text.startswith("$"):
            raise ValueError(
                f"{text} is not a valid source; use $key, $key.FIELD, $timestamp, $header.NAME or a dotted path"
            )
        steps = parse_path(text)
        place = None if self.schema is None else self.schema.follow(steps)
        nodes = None if place is None or place.unknown else tuple(place.nodes)
        names = tuple(str(step) for step in steps) if all(isinstance(step, str) for step in steps) else None
        if len(steps) == 1:
            return Value(text, _field_getter(str(steps[0])), nodes, names=names)
        get = getter(steps)
        return Value(text, lambda event, _record: get(event.datum), nodes, names=names or None)

    def identity(self, text: str) -> Value:
        """Return the value with the event's id. Raises `ValueError` if it can never be an id."""
        return _fitting(self.path(text), "id", "an event's id")

    def _changed(self, source: PathSource) -> Value:
        """Return the value at a path with default, case and hash applied."""
        value = self.path(source.path)
        if source.unit is not None and value.is_time:
            raise ValueError("$timestamp needs no unit: it is known to be milliseconds")
        get, nodes, names = value.get, value.nodes, value.names
        if source.default is not None:
            names = None
            get = _with_default(get, source.default)
            nodes = None if nodes is None else (*nodes, *constant_nodes(source.default))
        changes: list[Change] = []
        if source.case is not None:
            changes.append(str.lower if source.case == "lower" else str.upper)
        if source.hash is not None:
            changes.append(_sha256 if source.key is None else partial(_hmac, source.key.get_secret_value().encode()))
        if not changes:
            return value._replace(get=get, nodes=nodes, unit=source.unit or value.unit, names=names)
        _fitting(value._replace(nodes=nodes), "string", "case or hash")
        text_only = {"type": "string", "hash": source.hash is not None}
        return Value(source.path, _as_text(get, changes), (text_only,), is_text=value.is_text)

    def _map(self, source: MapSource, path: str, *, optional: bool = False) -> Value | None:
        """Return a map made of parts. An `optional` one is null if all of its sources except constants are null."""
        where = join(path, "map")
        parts = {key: self.compile(entry, join(where, key)) for key, entry in source.entries.items()}
        base: Getter | None = None
        if source.base is not None:
            try:
                start = _fitting(self.path(source.base), "map", "base")
            except ValueError as fault:
                self.faults.append(ConfigFault(join(path, "base"), str(fault)))
                return None
            omitted = _never_omitted(source.omit, start.nodes)
            if omitted is not None:
                self.faults.append(ConfigFault(join(path, "omit"), omitted))
            base = start.get
        entries = tuple((key, _inner(part)) for key, part in parts.items() if part is not None)
        if len(entries) < len(parts):
            return None
        nodes: Nodes = ({"type": "map"},)
        if base is not None:
            return Value("map", _based_map_getter(base, frozenset(source.omit), entries), nodes)
        sources = frozenset(key for key, part in parts.items() if part is not None and not part.constant)
        return Value("map", _map_getter(entries, sources if optional else frozenset()), nodes)

    def _list(self, source: ListSource, path: str) -> Value | None:
        """Return a list made of parts; null parts are left out."""
        found: list[Value] = []
        for index, each in enumerate(source.sources):
            where = join(join(path, "list"), index)
            if isinstance(each, MapSource) and each.base is None:
                part = self._map(each, where, optional=True)
            else:
                part = self.compile(each, where)
            if part is not None:
                found.append(part)
        if len(found) < len(source.sources):
            return None
        known = [part.nodes for part in found if part.nodes is not None]
        items = [node for nodes in known for node in nodes] if len(known) == len(found) else None
        gets = tuple(map(_inner, found))

        def get_list(event: Event, record: Record) -> Any:
            return [value for get in gets if (value := get(event, record)) is not None]

        return Value("list", get_list, ({"type": "array", "items": items},))

    def _json(self, source: JsonSource, path: str) -> Value | None:
        """Return the JSON text of a source; null stays null."""
        part = self.compile(source.source, join(path, "json"))
        if part is None:
            return None
        get = _inner(part)

        def get_json(event: Event, record: Record) -> Any:
            value = get(event, record)
            return None if value is None else json_text(value)

        return Value("json", get_json, (STRING,))


def _never_omitted(names: Iterable[str], nodes: Nodes | None) -> str | None:
    """Return a key of `omit` that no record at the base has; None if each of them may exist."""
    there = [node for node in nodes or () if node.get("type") != "null"]
    if there and all(node.get("type") in RECORDS for node in there):
        known = {field["name"] for node in there for field in node["fields"]}
        for name in names:
            if name not in known:
                return f"the record has no field '{name}'; {suggest(name, known)}"
    return None


def json_text(value: Any) -> str:
    """Return a value as JSON text, by the last column of `docs/routing.md`'s table. Raises `Unfit`."""
    try:
        return orjson.dumps(to_json(value)).decode()
    except TypeError:
        raise Unfit(
            "type", "no JSON text has this value: it nests too deeply, or has a number of over 64 bits"
        ) from None


def _fitting(value: Value, wanted: str, what: str) -> Value:
    """Return the value. Raises `ValueError` if it can never become the type `wanted` that `what` needs."""
    reason = None if value.is_text else unfit(value.nodes, wanted, what)  # $key may be a record
    if reason is not None:
        raise ValueError(f"{value.text} can never be used here: {reason}")
    return value


def _constant(value: Any) -> Value:
    if value is None:
        raise ValueError("a constant null has no effect; leave the field out")
    return Value("const", lambda _event, _record: value, constant_nodes(value), constant=True)


def _inner(value: Value) -> Getter:
    """Return a getter for a value inside a map, a list or JSON text, where a time with a unit is in milliseconds."""
    get, unit = value.get, value.unit
    if unit is None or value.is_time:
        return get
    return lambda event, record: to_epoch(get(event, record), "ms", unit)


def _field_getter(name: str) -> Getter:
    def get_field(event: Event, _record: Record) -> Any:
        value = event.datum.get(name)
        return value[1] if type(value) is tuple else value

    return get_field


def _with_default(get: Getter, default: Any) -> Getter:
    def get_or_default(event: Event, record: Record) -> Any:
        value = get(event, record)
        # Empty text counts as missing, because many producers write it if they have no value.
        return default if value is None or value == "" else value

    return get_or_default


def _as_text(get: Getter, changes: list[Change]) -> Getter:
    def get_text(event: Event, record: Record) -> Any:
        value = to_string(get(event, record))
        if value is not None:
            for change in changes:
                value = change(value)
        return value

    return get_text


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hmac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


def _map_getter(entries: tuple[tuple[str, Getter], ...], needed: frozenset[str]) -> Getter:
    def get_map(event: Event, record: Record) -> Any:
        found = _entries(entries, event, record)
        # The list leaves out a part that has constants only, because such a part says nothing about the event.
        return None if needed and all(found[key] is None for key in needed) else found

    return get_map


def _based_map_getter(base: Getter, omit: frozenset[str], entries: tuple[tuple[str, Getter], ...]) -> Getter:
    def get_map(event: Event, record: Record) -> Any:
        begun = base(event, record)
        if begun is not None and type(begun) is not dict:
            raise Unfit("type", "base is not a record or map")
        kept = {key: value for key, value in (begun or {}).items() if key not in omit}
        return kept | _entries(entries, event, record)

    return get_map


def _entries(entries: tuple[tuple[str, Getter], ...], event: Event, record: Record) -> dict[str, Any]:
    """Return the entries of a map. A fault in an entry names the entry."""
    found: dict[str, Any] = {}
    for key, get in entries:
        try:
            found[key] = get(event, record)
        except Unfit as unfit:
            raise Unfit(unfit.rule, f"{key}: {unfit.why}") from None
    return found


def _key(event: Event, record: Record) -> Any:
    if event.key is not None:
        return _key_datum(event.key)
    # Number serializers write zero bytes, which are valid UTF-8 too, but such a key is not text.
    if record.key is not None and b"\0" in record.key:
        raise Unfit("key", "the key is not text: it has zero bytes, and it names no schema")
    return None if record.key is None else _decoded(record.key, "key", "the key")


def _key_getter(follow: Change) -> Getter:
    def get_key_field(event: Event, record: Record) -> Any:
        if event.key is not None:
            return follow(_key_datum(event.key))
        if record.key is None:
            return None
        raise Unfit("key", "the key names no schema, so it has no fields")

    return get_key_field


def _key_datum(key: DecodedKey) -> Any:
    if key.fault is not None:
        raise Unfit("key", key.fault)
    return key.datum


def _header_getter(name: str) -> Getter:
    def get_header(_event: Event, record: Record) -> Any:
        # The last of several, like Kafka's `lastHeader`.
        for header, value in reversed(record.headers):
            if header == name:
                return None if value is None else _decoded(value, "utf8", "the header")
        return None

    return get_header


def _timestamp(_event: Event, record: Record) -> Any:
    return None if record.timestamp == NO_TIMESTAMP else record.timestamp


def _decoded(value: bytes, rule: str, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unfit(rule, f"{what} is not UTF-8 text") from None


def texts_of(source: Source) -> Iterator[tuple[str, bool]]:
    """Yield every path and every expression in a source, and whether it is an expression."""
    match source:
        case str():
            yield source, False
        case PathSource():
            yield source.path, False
        case CelSource():
            yield source.cel, True
        case JsonSource():
            yield from texts_of(source.source)
        case ListSource():
            for each in source.sources:
                yield from texts_of(each)
        case MapSource():
            for each in source.entries.values():
                yield from texts_of(each)
            if source.base is not None:
                yield source.base, False
