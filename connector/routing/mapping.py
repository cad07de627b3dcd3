"""What a route says about values: sources, conditions (`where`), and the mapping of fields (`fields`). Pure.

A source is a dotted path into the event, `$key`, `$key.field`, `$timestamp` or `$header.NAME`. A key that names a
schema is decoded (`$key.field` is a field of its record); any other key is text. Rules of a path, the same everywhere:

- each step is a field of a record or a key of a map; a branch of a union of records needs no step of its own;
- a step through null, or to something that is not there, gives null;
- a map's key may contain dots: where a key is not there, longer pieces of the path are tried as one key.

A condition compares a value by its own kind, so that `"5"` never equals 5 and `true` never equals 1. Only `$key` and
`$header.NAME`, which are text by nature, are compared with the text of a number or boolean.

A mapping gives each field of the vendor one of: a source, `{const: value}`, or `{path: source, unit: ms}` where a plain
number is a time. What a value becomes is stated in `docs/routing.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from connector.config.errors import kind, suggest
from connector.errors import ConfigFault, Refusal
from connector.records import NO_TIMESTAMP, DecodedKey, Event, LogicalValue, Record
from connector.routing.conversions import Converter, Unfit, Unit, converter, exact, to_string
from connector.vendors.base import FieldKind

Getter = Callable[[Event, Record], Any]

_HEADER: Final = "$header."
_KEY: Final = "$key."


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled source: `get(event, record)` returns the value, null where there is none.

    `path` is set for a dotted path only. `is_text`: values come from bytes outside the event (`$key`,
    `$header.NAME`); `get` raises `Unfit` with rule `utf8` for a header and `key` for a key that is not UTF-8 text.
    `is_time`: the value is the record's timestamp in epoch milliseconds.
    """

    text: str
    get: Getter
    path: tuple[str, ...] | None = None
    is_text: bool = False
    is_time: bool = False


def compile_source(text: str) -> Source:
    """Return the source that `text` names. Raises `ValueError` with what is allowed if it names none."""
    if text == "$key":
        return Source(text, _key, is_text=True)
    if text.startswith(_KEY) and all(parts := tuple(text[len(_KEY) :].split("."))):
        return Source(text, _key_getter(parts))
    if text == "$timestamp":
        return Source(text, _timestamp, is_time=True)
    if text.startswith(_HEADER) and len(text) > len(_HEADER):
        return Source(text, _header_getter(text[len(_HEADER) :]), is_text=True)
    if text.startswith("$"):
        raise ValueError(
            f"{text} is not a valid source; use $key, $key.FIELD, $timestamp, $header.NAME or a dotted path"
        )
    parts = tuple(text.split("."))
    if not all(parts):
        raise ValueError(
            f"'{text}' is not a dotted path; write field names with single dots between them, such as user.id"
        )
    return Source(text, _path_getter(parts), path=parts)


def _path_getter(parts: tuple[str, ...]) -> Getter:
    if len(parts) == 1:
        name = parts[0]

        def get_field(event: Event, _record: Record) -> Any:
            value = event.datum.get(name)
            return value[1] if type(value) is tuple else value

        return get_field
    return lambda event, _record: _walk(event.datum, parts)


def _walk(value: Any, parts: tuple[str, ...]) -> Any:
    position, count = 0, len(parts)
    while position < count:
        if not isinstance(value, dict):
            return None
        key, position = parts[position], position + 1
        while key not in value:
            if position == count:
                return None
            key, position = f"{key}.{parts[position]}", position + 1
        value = value[key]
        if type(value) is tuple:
            value = value[1]
    return value


def _key(event: Event, record: Record) -> Any:
    if event.key is not None:
        return _key_datum(event.key)
    return None if record.key is None else _decoded(record.key, "key", "the key")


def _key_getter(parts: tuple[str, ...]) -> Getter:
    def get_key_field(event: Event, record: Record) -> Any:
        if event.key is not None:
            return _walk(_key_datum(event.key), parts)
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


def path_fault(parts: tuple[str, ...], schema: Any) -> str | None:
    """Return why a path leads nowhere in a writer's schema (Avro, as parsed JSON), or None where it may lead somewhere.

    A path into a map's values, or through a union, is followed in every branch that takes it.
    """
    names: dict[str, Any] = {}
    _collect(schema, "", names)
    level: list[Any] = [schema]
    for index, part in enumerate(parts):
        kinds = [kind for node in level for kind in _branches(node, names)]
        maps = [kind for kind in kinds if kind.get("type") == "map"]
        if maps and index < len(parts) - 1:
            return None
        known = [field for kind in kinds if kind.get("type") in _RECORDS for field in kind["fields"]]
        level = [field["type"] for field in known if field["name"] == part]
        level += [kind["values"] for kind in maps]
        if not level:
            where = f"the record at {'.'.join(parts[:index])}" if index else "the record"
            if not known:
                return f"{'.'.join(parts[:index])} is not a record or map, so '{part}' is not in it"
            return f"{where} has no field '{part}'; {suggest(part, {field['name'] for field in known})}"
    return None


_RECORDS: Final = ("record", "error")


def _branches(node: Any, names: Mapping[str, Any]) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [kind for branch in node for kind in _branches(branch, names)]
    if isinstance(node, str):
        return [names[node]] if node in names else []
    if isinstance(node, dict):
        inner = node.get("type")
        return _branches(inner, names) if isinstance(inner, (dict, list)) or inner in names else [node]
    return []


def _collect(node: Any, namespace: str, names: dict[str, Any]) -> None:
    """Put every named type of a schema into `names`, by its full name and by the name it may be referred to."""
    if isinstance(node, list):
        for branch in node:
            _collect(branch, namespace, names)
    elif isinstance(node, dict):
        name = node.get("name")
        if isinstance(name, str) and node.get("type") in (*_RECORDS, "enum", "fixed"):
            space, _, short = name.rpartition(".")
            namespace = space or node.get("namespace", namespace)
            names[f"{namespace}.{short}" if namespace else short] = node
            names.setdefault(short, node)
        for inner in ("type", "items", "values"):
            if isinstance(node.get(inner), (dict, list)):
                _collect(node[inner], namespace, names)
        for field in node.get("fields", ()):
            _collect(field["type"], namespace, names)


Condition = Callable[[Event, Record], bool]

_SCALARS: Final = (str, bool, int, float, date, datetime)
_NUMBERS: Final = (int, float, Decimal)


class TopicPattern:
    """Names of topics, or patterns that begin with `^` and match as Kafka's subscriptions do: from the start on."""

    def __init__(self, topics: Sequence[str]) -> None:
        """Compile `topics`; raises `ValueError` for a pattern that is not a regular expression."""
        self.names = frozenset(topic for topic in topics if not topic.startswith("^"))
        self._patterns = tuple(_compiled(topic) for topic in topics if topic.startswith("^"))

    def matches(self, topic: str) -> bool:
        """Whether the topic is named, or matched by a pattern."""
        return topic in self.names or any(pattern.match(topic) for pattern in self._patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"{pattern} is not a regular expression: {fault}") from None


def compile_condition(source: Source, wanted: object) -> Condition:
    """Return a test for one entry of `where`: the source's value is `wanted`, or one of its values where it is a list.

    Raises `ValueError` for a wanted value that can never match. Null matches null and what is not there. Bytes,
    lists, records and maps never match, nor does a key or header that is not UTF-8 text.
    """
    options = wanted if isinstance(wanted, list) else [wanted]
    if not options:
        raise ValueError("an empty list never matches; give a value or a list of values")
    for option in options:
        if option is not None and not isinstance(option, _SCALARS):
            raise ValueError(f"{kind(option)} cannot be compared; give text, numbers, true or false")
    accepted = _texts(options) if source.is_text else frozenset(map(_comparable, options))
    get = source.get

    def met(event: Event, record: Record) -> bool:
        try:
            value = get(event, record)
            if source.is_text:
                value = to_string(value)
            return _comparable(exact(value) if type(value) is LogicalValue else value) in accepted
        except Unfit:
            return False

    return met


def _texts(options: Sequence[Any]) -> frozenset[Any]:
    """Return the options as a header would write them."""
    return frozenset(
        _comparable(str(option).lower() if isinstance(option, bool) else None if option is None else str(option))
        for option in options
    )


def _comparable(value: Any) -> Any:
    """Return a value with its kind, so that only one kind's equals are equal; bytes and containers equal nothing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, _NUMBERS):
        return ("number", value)
    if isinstance(value, (UUID, date)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return _INCOMPARABLE


_INCOMPARABLE: Final = object()


_UNITS: Final = ("ms", "s")
_TIMES: Final = ("millis", "seconds")
_NEVER_TEXT: Final = ("map", "strings", "string_map", "records")
_ALLOWED: Final = (
    "a dotted path, $key, $key.FIELD, $timestamp, $header.NAME, {const: VALUE} or {path: PATH, unit: ms or s}"
)


class _Step(NamedTuple):
    field: str
    text: str
    get: Getter
    convert: Converter


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A compiled mapping. Its result has every field the vendor knows; null where nothing is mapped or found."""

    template: Mapping[str, Any]
    steps: tuple[_Step, ...]

    def apply(self, event: Event, record: Record) -> dict[str, Any]:
        """Return the vendor's fields for one event.

        Raises `Refusal` with cause `invalid` and code `mapping.FIELD.RULE`, the rule being `type`, `bytes`, `utf8`,
        `key`, `nan`, `decimal`, `range` or `local_time`. A required field that is null is for the vendor's own rule to
        refuse.
        """
        fields = dict(self.template)
        for field, text, get, convert in self.steps:
            try:
                fields[field] = convert(get(event, record))
            except Unfit as unfit:
                message = f"{field} from {text}: {unfit.why}"
                raise Refusal("invalid", f"mapping.{field}.{unfit.rule}", message, field=field) from None
        return fields


def compile_mapping(
    fields: Mapping[str, Any], wanted: Mapping[str, FieldKind], path: str, schema: Any = None
) -> tuple[FieldMapping, list[ConfigFault]]:
    """Return a route's mapping for one vendor, and every fault in it; with a fault the mapping is not to be used.

    `wanted` is the vendor's `VendorKind.fields`, `path` where the mapping stands in the file. With a `schema` (the
    writer's, as parsed JSON) every dotted path is checked against it; without, a path that is not there gives null.
    """
    faults: list[ConfigFault] = []
    template: dict[str, Any] = dict.fromkeys(wanted)
    steps: list[_Step] = []
    for name, entry in fields.items():
        where = f"{path}.{name}"
        if name not in wanted:
            faults.append(ConfigFault(where, f"the vendor has no such field; {suggest(name, wanted)}"))
            continue
        try:
            step = _compile_field(name, entry, wanted[name], schema)
        except ValueError as fault:
            faults.append(ConfigFault(where, str(fault)))
            continue
        if isinstance(step, _Constant):
            template[name] = step.value
        else:
            steps.append(step)
    missing = [name for name, field in wanted.items() if field.required and name not in fields]
    faults += [ConfigFault(f"{path}.{name}", "the vendor requires this field: map it") for name in missing]
    return FieldMapping(template, tuple(steps)), faults


class _Constant(NamedTuple):
    value: Any


def _compile_field(name: str, entry: Any, wanted: FieldKind, schema: Any) -> _Step | _Constant:
    """Return one field's compiled entry; raise `ValueError` with what is wrong and what is allowed."""
    unit: Unit | None = None
    text = entry
    if isinstance(entry, dict):
        if set(entry) == {"const"}:
            return _constant(entry["const"], wanted)
        if "path" not in entry or not set(entry) <= {"path", "unit"}:
            raise ValueError(f"keys {', '.join(map(str, entry)) or 'none'} are unknown; write {_ALLOWED}")
        text, unit = entry["path"], _unit(entry, wanted)
    if not isinstance(text, str):
        raise ValueError(f"{kind(text)} is not a valid source; write {_ALLOWED}")
    source = compile_source(text)
    if source.is_text and wanted.type in _NEVER_TEXT:
        raise ValueError(f"{text} is text, and the field wants a {wanted.type}; map a field of the event")
    if source.is_time:
        if unit is not None:
            raise ValueError("$timestamp needs no unit: it is known to be milliseconds")
        if wanted.type in (*_NEVER_TEXT, "boolean"):
            raise ValueError(f"$timestamp is a time, and the field wants a {wanted.type}; map a field of the event")
        unit = "ms"
    if source.path is not None and schema is not None:
        fault = path_fault(source.path, schema)
        if fault is not None:
            raise ValueError(fault)
    return _Step(name, text, source.get, converter(wanted.type, unit))


def _unit(entry: Mapping[str, Any], wanted: FieldKind) -> Unit | None:
    if "unit" not in entry:
        return None
    if wanted.type not in _TIMES:
        raise ValueError(f"a unit belongs to a time, and the field wants a {wanted.type}; leave the unit out")
    unit = entry["unit"]
    if unit not in _UNITS:
        raise ValueError("unit must be ms or s")
    return "ms" if unit == "ms" else "s"


def _constant(value: Any, wanted: FieldKind) -> _Constant:
    if value is None:
        raise ValueError("a constant null has no effect; leave the field out")
    try:
        return _Constant(converter(wanted.type, None)(value))
    except Unfit as unfit:
        raise ValueError(f"the constant cannot be a {wanted.type}: {unfit.why}") from None
