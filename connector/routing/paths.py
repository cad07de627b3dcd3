"""Paths into an event: how they are written, followed, and checked against a writer's schema. Pure.

Rules of a path, the same everywhere:

- `.` is the whole event;
- each step is a field of a record or a key of a map; a branch of a union needs no step;
- `a[0]` is an element of the list at `a`; `a[]` is every element: the following steps apply to each, and the result is
  one flat list;
- a step through null, or to something missing, gives null;
- a map's key may contain dots: if a key is missing, longer pieces of the path are tried as one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from connector.config.errors import suggest

EVERY: Final = -1
"""The step `[]`: every element of a list."""
Step = str | int
"""A name, an index, or `EVERY`."""

_PART: Final = re.compile(r"([^\[\]]+)((?:\[[0-9]{0,6}\])*)")
_INDEX: Final = re.compile(r"\[([0-9]*)\]")


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path; none for `.`. Raises `ValueError` that names what is allowed."""
    if text == ".":
        return ()
    steps: list[Step] = []
    for part in text.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(
                f"'{text}' is not a dotted path; write field names with single dots between them, such as user.id, "
                "items[0].sku or items[].sku"
            )
        steps.append(match[1])
        steps += [int(index) if index else EVERY for index in _INDEX.findall(match[2])]
    return tuple(steps)


def getter(steps: Sequence[Step]) -> Callable[[Any], Any]:
    """Return a function that follows a path from a record's datum."""
    if not steps:
        return lambda datum: datum
    if all(isinstance(step, str) for step in steps):
        names = tuple(str(step) for step in steps)
        return lambda datum: walk(datum, names)
    return lambda datum: _walk_lists(datum, tuple(steps))


def walk(value: Any, parts: tuple[str, ...]) -> Any:
    """Return the value at the names; null if there is none."""
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


def _walk_lists(value: Any, steps: tuple[Step, ...]) -> Any:
    """Return the value at the steps, some of which go into lists."""
    names: list[str] = []
    for position, step in enumerate(steps):
        if isinstance(step, str):
            names.append(step)
            continue
        value, names = walk(value, tuple(names)), []
        if not isinstance(value, list):
            return None
        if step == EVERY:
            rest = steps[position + 1 :]
            found = [_walk_lists(_bare(inner), rest) for inner in value]
            return [each for inner in found for each in inner or ()] if EVERY in rest else found
        value = _bare(value[step]) if step < len(value) else None
    return walk(value, tuple(names))


def _bare(value: Any) -> Any:
    return value[1] if type(value) is tuple else value


class SchemaNodes(NamedTuple):
    """Where a path leads in a schema: the nodes of the values there. `unknown`: the path may lead into a map."""

    nodes: list[dict[str, Any]]
    unknown: bool = False


class SchemaTree:
    """A writer's schema (Avro, as parsed JSON with full names), in which paths can be followed."""

    def __init__(self, tree: Any) -> None:
        self._names: dict[str, Any] = {}
        _collect(tree, self._names)
        self._tree = tree

    def follow(self, steps: Sequence[Step]) -> SchemaNodes:
        """Return where a path leads. Raises `ValueError` with the reason if it leads nowhere.

        Through a map's values or a union, the path is followed in every branch that has it.
        """
        level = self.branches(self._tree)
        every = False
        for index, step in enumerate(steps):
            where = _text(steps[:index])
            if isinstance(step, int):
                lists = [node for node in level if node.get("type") == "array"]
                if not lists:
                    raise ValueError(f"{where} is not an array, so it has no elements")
                every = every or step == EVERY
                level = [each for node in lists for each in self.branches(node["items"])]
                continue
            maps = [node for node in level if node.get("type") == "map"]
            if maps and any(isinstance(later, str) for later in steps[index + 1 :]):
                return SchemaNodes([], unknown=True)
            known = [field for node in level if node.get("type") in RECORDS for field in node["fields"]]
            found = [field["type"] for field in known if field["name"] == step] + [node["values"] for node in maps]
            if not found:
                raise ValueError(self._missing(step, where, level, known))
            level = [each for node in found for each in self.branches(node)]
        return SchemaNodes([{"type": "array", "items": level}] if every else level)

    def branches(self, node: Any) -> list[dict[str, Any]]:
        """Return a node as the types that its value may have, references resolved, primitive types as nodes too."""
        if isinstance(node, list):
            return [found for branch in node for found in self.branches(branch)]
        if isinstance(node, str):
            return [self._names[node]] if node in self._names else [{"type": node}]
        return [{**node, "items": self.branches(node["items"])}] if node["type"] == "array" else [node]

    @staticmethod
    def _missing(step: str, where: str, level: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]) -> str:
        if any(node.get("type") in RECORDS for node in level):
            record = f"the record at {where}" if where else "the record"
            return f"{record} has no field '{step}'; {suggest(step, {field['name'] for field in known})}"
        if step.isdecimal() and any(node.get("type") == "array" for node in level):
            return f"{where} is an array: write {where}[{step}] for an element"
        if any(node.get("type") == "array" for node in level):
            return f"{where} is an array: write {where}[].{step} for every element, or {where}[0].{step} for the first"
        return f"{where} is not a record or map, so '{step}' is not in it"


RECORDS: Final = ("record", "error")


def _text(steps: Sequence[Step]) -> str:
    """Return the steps as text."""
    parts = [f".{step}" if isinstance(step, str) else "[]" if step == EVERY else f"[{step}]" for step in steps]
    return "".join(parts).removeprefix(".")


def _collect(node: Any, names: dict[str, Any]) -> None:
    """Put every named type of a schema into `names`."""
    if isinstance(node, list):
        for branch in node:
            _collect(branch, names)
    elif isinstance(node, dict):
        if "name" in node:
            names[node["name"]] = node
        for inner in (node.get("items"), node.get("values"), *(field["type"] for field in node.get("fields", ()))):
            _collect(inner, names)
