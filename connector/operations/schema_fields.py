"""The fields of a record schema, flattened to paths, and an invented event of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from connector.codec.reader import logical_type
from connector.codec.schemas import RECORDS, Schema, named_types

TEST_TIME: Final = 1_795_168_805_000
"""The time of the first test: 2026-11-20T10:00:05Z."""
_TEST_TEXT: Final = "2026-11-20T10:00:00Z"
_UUID: Final = "6de20157-5a72-57d2-9ca5-942311a8bdfa"
_SAMPLES: Final = {
    "email": "ann@example.com",
    "phone": "13800138000",
    "currency": "EUR",
    "country": "DE",
    "city": "Berlin",
    **dict.fromkeys(("idfa", "idfv", "gaid", "uuid", "guid"), _UUID),
    "ip": "203.0.113.7",
}
"""Invented values, by a word in the field's name."""


class Leaf(NamedTuple):
    """A field of the schema that is not a record: its path, and its kind (of its logical type, if it has one).

    `items` is the kind of an array's elements or a map's values. It is empty if these may be null or are not single
    values.
    """

    path: str
    kind: str
    optional: bool
    items: str = ""


def leaves(schema: Schema) -> Iterator[Leaf]:
    """Yield the fields of a record schema that are not records, in the schema's order.

    For a union, the first branch, or each branch that is a record. Fields of records in an array have paths such as
    `a[].b`.
    """
    yield from _leaves(schema.tree, named_types(schema.tree), "", optional=False, seen=())


def _leaves(
    record: Any, named: Mapping[str, Any], prefix: str, *, optional: bool, seen: tuple[str, ...]
) -> Iterator[Leaf]:
    for field in record["fields"]:
        path = f"{prefix}{field['name']}"
        node, null = _branch(field["type"], named)
        kind = _kind(node)
        if kind == "array" and _kind(inner := _branch(node["items"], named)[0]) in RECORDS:
            if inner["name"] not in seen:
                for leaf in _leaves(inner, named, f"{path}[].", optional=False, seen=(*seen, inner["name"])):
                    items = "" if leaf.optional or leaf.kind in ("array", "map") else leaf.kind
                    yield Leaf(leaf.path, "array", optional or null, items)
            continue
        records = _records(field["type"], named) if kind in RECORDS else []
        for each in records:
            if each["name"] not in seen:
                may_miss = optional or null or len(records) > 1
                yield from _leaves(each, named, f"{path}.", optional=may_miss, seen=(*seen, each["name"]))
        if not records:
            yield Leaf(path, kind, optional or null, _items(node, named) if kind in ("array", "map") else "")


def _kind(node: Any) -> str:
    """Return the kind of a type, or of its logical type if it has one."""
    logical = logical_type(node) if isinstance(node, dict) else None
    if logical is not None:
        return "timestamp" if logical.name.startswith("timestamp-") else logical.name
    return str(node if isinstance(node, str) else node["type"])


def _items(node: Any, named: Mapping[str, Any]) -> str:
    """Return the kind of an array's elements or a map's values, as in `Leaf.items`."""
    inner, null = _branch(node.get("items", node.get("values")), named)
    kind = _kind(inner)
    return "" if (null and "items" in node) or kind in ("array", "map", "bytes", "fixed", *RECORDS) else kind


def _records(node: Any, named: Mapping[str, Any]) -> list[Any]:
    """Return the record types that a value of a type may have."""
    branches = node if isinstance(node, list) else [node]
    found = [_branch(each, named)[0] for each in branches]
    return [each for each in found if _kind(each) in RECORDS]


def _branch(node: Any, named: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return a type, or the first branch of a union that is not null, and whether it may be null."""
    null = False
    while True:
        if isinstance(node, list):
            null = null or "null" in node
            node = next((branch for branch in node if branch != "null"), "null")
        elif isinstance(node, str) and node in named:
            node = named[node]
        else:
            return node, null


def sample_event(schema: Schema) -> dict[str, Any]:
    """Return an invented event of the schema, in plain JSON."""
    value: dict[str, Any] = _sample(schema.tree, named_types(schema.tree), schema.name or "event", 0)
    return value


def _sample(node: Any, named: Mapping[str, Any], name: str, depth: int) -> Any:
    node, null = _branch(node, named)
    kind = node if isinstance(node, str) else node["type"]
    if null and depth > 4:
        return None
    if kind in RECORDS:
        return {each["name"]: _sample(each["type"], named, each["name"], depth + 1) for each in node["fields"]}
    if kind == "array":
        return [] if depth > 4 else [_sample(node["items"], named, name, depth + 1)]
    if kind == "map":
        return {} if depth > 4 else {"key": _sample(node["values"], named, name, depth + 1)}
    if kind == "enum":
        return node["symbols"][0]
    logical = logical_type(node) if isinstance(node, dict) else None
    if logical is not None:
        return _sample_of_logical(logical.name, logical.scale)
    plain = {"boolean": True, "int": 1, "long": 1, "float": 1.5, "double": 1.5, "bytes": "bytes", "null": None}
    if kind in ("int", "long") and is_time(name):
        return TEST_TIME - 5000 if kind == "long" else (TEST_TIME - 5000) // 1000
    if kind == "fixed":
        return "0" * int(node["size"])
    return plain.get(kind, _sample_text(name))


def _sample_of_logical(name: str, scale: int) -> Any:
    if name == "decimal":
        return ("20", "19.9")[scale] if scale < 2 else "19.98"
    if name == "uuid":
        return _UUID
    if name == "date":
        return _TEST_TEXT[:10]
    if name.startswith("time-"):
        return "10:00:00"
    return _TEST_TEXT[:-1] if name.startswith("local-") else _TEST_TEXT


def _sample_text(name: str) -> str:
    words = parts_of(name)
    if is_time(name):
        return _TEST_TEXT
    return next((text for word, text in _SAMPLES.items() if word in words), f"{'-'.join(words) or 'text'}-1")


def is_time(path: str) -> bool:
    """Whether a field's name says that it is a time."""
    return any(part in ("time", "timestamp", "ts", "at", "epoch") for part in parts_of(path.rpartition(".")[2]))


def words_of(path: str) -> list[str]:
    """Return a path's names normalized for comparison: `user.firstName` and `user.first_name` are equal."""
    return [re.sub(r"[^a-z0-9]", "", name.lower()) for name in path.split(".")]


def parts_of(path: str) -> list[str]:
    """Return the words of a name, such as booked and at of `bookedAt`."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path)]
