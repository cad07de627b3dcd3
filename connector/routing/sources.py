"""Where a value of a route comes from: a dotted path into the event, `$key`, `$timestamp` or `$header.NAME`. Pure.

Rules of a path, the same for `where`, `id` and `fields`:

- each step is a field of a record or a key of a map; a branch of a union of records needs no step of its own;
- a step through null, or to something that is not there, gives null;
- a map's key may contain dots: where a key is not there, longer pieces of the path are tried as one key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connector.config.errors import suggest
from connector.records import NO_TIMESTAMP, Record
from connector.routing.conversions import Unfit

Getter = Callable[[Mapping[str, Any], Record], Any]

_HEADER: Final = "$header."


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled source: `get(datum, record)` returns the value, null where there is none.

    `path` is set for a dotted path only. `is_text` tells that values come from bytes outside the event (`$key`,
    `$header.NAME`) and are UTF-8 text; `get` raises `Unfit` with rule `utf8` where they are not.
    `is_time` tells that the value is the record's timestamp in epoch milliseconds.
    """

    text: str
    get: Getter
    path: tuple[str, ...] | None = None
    is_text: bool = False
    is_time: bool = False


def compile_source(text: str) -> Source:
    """Return the source that `text` names; raise `ValueError` with what is allowed where it names none."""
    if text == "$key":
        return Source(text, _key, is_text=True)
    if text == "$timestamp":
        return Source(text, _timestamp, is_time=True)
    if text.startswith(_HEADER) and len(text) > len(_HEADER):
        return Source(text, _header_getter(text[len(_HEADER) :]), is_text=True)
    if text.startswith("$"):
        raise ValueError(f"{text} is no source; use $key, $timestamp, $header.NAME or a dotted path")
    parts = tuple(text.split("."))
    if not all(parts):
        raise ValueError(
            f"'{text}' is no dotted path; write field names with single dots between them, such as user.id"
        )
    return Source(text, _path_getter(parts), path=parts)


def _path_getter(parts: tuple[str, ...]) -> Getter:
    if len(parts) == 1:
        name = parts[0]

        def get_field(datum: Mapping[str, Any], _record: Record) -> Any:
            value = datum.get(name)
            return value[1] if type(value) is tuple else value

        return get_field
    return lambda datum, _record: _walk(datum, parts)


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


def _key(_datum: Mapping[str, Any], record: Record) -> Any:
    return None if record.key is None else _decoded(record.key)


def _header_getter(name: str) -> Getter:
    def get_header(_datum: Mapping[str, Any], record: Record) -> Any:
        for header, value in reversed(record.headers):
            if header == name:
                return None if value is None else _decoded(value)
        return None

    return get_header


def _timestamp(_datum: Mapping[str, Any], record: Record) -> Any:
    return None if record.timestamp == NO_TIMESTAMP else record.timestamp


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unfit("utf8", "the bytes are not UTF-8 text") from None


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
                return f"{'.'.join(parts[:index])} is no record or map, so '{part}' is not in it"
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
