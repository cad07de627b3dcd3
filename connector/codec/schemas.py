"""Avro schemas before anything is decoded with them: names resolved, references filled in, measured. Pure.

A schema comes from whoever may write to the registry, so it is measured once, before it meets the decoder:

- a recursive type is refused: a few kilobytes nested deep enough end fastavro's process;
- nesting is bounded by `MAX_DEPTH`, and what one datum without arrays costs by `MAX_WEIGHT`: types that use each other
  twice double the work at each level;
- arrays and maps whose items take far more steps than bytes (an array of nulls takes none: five bytes can claim 30
  million) are `guarded`: `Guard` then walks each payload and counts before it is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import to_parsing_canonical_form

MAX_DEPTH: Final = 64
MAX_WEIGHT: Final = 20_000
MAX_AMPLIFICATION: Final = 256
"""Steps for one byte of an array's or map's item, above which payloads are guarded."""

_PRIMITIVES: Final = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
_RECORDS: Final = ("record", "error")


class SchemaFault(ValueError):
    """A schema that nothing is decoded with; `code` is a refusal's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema whose names are all full and all defined in it. `name` is the record's; None where it is no record."""

    name: str | None
    tree: Any
    guarded: bool

    @property
    def canonical(self) -> str:
        """The parsing canonical form (Avro specification): the same for schemas that read the same bytes alike."""
        return to_parsing_canonical_form(self.tree)

    @property
    def fingerprint(self) -> bytes:
        """The 8 bytes that stand for the schema in single-object encoding: CRC-64-AVRO, little-endian."""
        return bytes.fromhex(fastavro_fingerprint(self.canonical, "CRC-64-AVRO"))

    @property
    def text(self) -> str:
        """The schema as JSON."""
        return json.dumps(self.tree, ensure_ascii=False, separators=(",", ":"))


def read_schema(text: str, references: Iterable[str] = ()) -> Schema:
    """Return the schema that JSON `text` states, with the types that `references` (JSON texts) define filled in.

    Raises `SchemaFault` (`decode.schema_invalid`, `decode.schema_recursive`).
    """
    definitions: dict[str, Any] = {}
    for reference in references:
        definitions |= top_level_types(_parsed(reference))
    return assemble(_parsed(text), definitions)


def assemble(raw: Any, definitions: Mapping[str, Any]) -> Schema:
    """Return the schema `raw` (parsed JSON), names that it does not define replaced by definitions at first use."""
    walk = _Walk(definitions)
    tree, _ = walk.node(raw, "", 0)
    name = tree["name"] if isinstance(tree, dict) and tree.get("type") in _RECORDS else None
    return Schema(name, tree, walk.guarded)


def top_level_types(raw: Any) -> dict[str, Any]:
    """Return the types that a schema (parsed JSON) defines at its top, or in its top union, by full name."""
    found = {}
    for node in raw if isinstance(raw, list) else [raw]:
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            found[_full_name(node, "")] = node
    return found


def without_logical_types(tree: Any) -> Any:
    """Return a schema whose values come out as they are written: a timestamp as an integer."""
    if isinstance(tree, list):
        return [without_logical_types(branch) for branch in tree]
    if not isinstance(tree, dict):
        return tree
    plain = {key: value for key, value in tree.items() if key != "logicalType"}
    for key in ("type", "items", "values"):
        if key in plain:
            plain[key] = without_logical_types(plain[key])
    if "fields" in plain:
        plain["fields"] = [{**field, "type": without_logical_types(field["type"])} for field in plain["fields"]]
    return plain


class _Measure(NamedTuple):
    """What a value of a type costs at most: steps without those inside arrays, levels; and its fewest bytes."""

    weight: int
    depth: int
    bytes: int


class _Walk:
    """One walk over a schema: makes names full, fills in definitions, measures."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.guarded = False
        self._definitions = definitions
        self._known: dict[str, _Measure] = {}
        self._open: set[str] = set()

    def node(self, node: Any, namespace: str, level: int) -> tuple[Any, _Measure]:
        """Return the type with full names, and its measure."""
        if level > MAX_DEPTH:
            raise SchemaFault("decode.schema_invalid", f"the schema is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, str):
            tree, measure = self._name(node, namespace, level)
        elif isinstance(node, list):
            branches = [self.node(branch, namespace, level + 1) for branch in node]
            tree = [branch for branch, _ in branches]
            measure = _either([measure for _, measure in branches])
        elif isinstance(node, dict) and "type" in node:
            tree, measure = self._dict(node, namespace, level)
        else:
            raise SchemaFault(
                "decode.schema_invalid", "the schema has a type that is no name, union or object with a type"
            )
        if measure.weight > MAX_WEIGHT or measure.depth > MAX_DEPTH:
            raise SchemaFault(
                "decode.schema_invalid",
                f"one datum of the schema may need more than {MAX_WEIGHT} steps or {MAX_DEPTH} levels",
            )
        return tree, measure

    def _name(self, name: str, namespace: str, level: int) -> tuple[Any, _Measure]:
        if name in _PRIMITIVES:
            return name, _Measure(1, 1, _PRIMITIVES[name])
        near = f"{namespace}.{name}" if namespace and "." not in name else name
        for full in (near, name):
            if full in self._open:
                raise SchemaFault("decode.schema_recursive", f"type {full} of the schema contains itself")
            if full in self._known:
                return full, self._known[full]
            if full in self._definitions:
                return self.node(self._definitions[full], "", level)
        raise SchemaFault("decode.schema_invalid", f"the schema uses type {near}, which nothing defines")

    def _dict(self, node: dict[str, Any], namespace: str, level: int) -> tuple[Any, _Measure]:
        kind = node["type"]
        if isinstance(kind, (dict, list)) or (kind not in _COMPLEX and kind not in _PRIMITIVES):
            return self.node(kind, namespace, level + 1)
        if kind in _PRIMITIVES:
            return dict(node), _Measure(1, 1, _PRIMITIVES[kind])
        if kind in ("array", "map"):
            inner = "items" if kind == "array" else "values"
            tree, measure = self.node(node.get(inner), namespace, level + 1)
            least = measure.bytes + (kind == "map")
            if measure.weight > MAX_AMPLIFICATION * least:
                self.guarded = True
            return {**node, inner: tree}, _Measure(measure.weight + 1, measure.depth + 1, 1)
        return self._named(node, namespace, level)

    def _named(self, node: dict[str, Any], namespace: str, level: int) -> tuple[Any, _Measure]:
        full = _full_name(node, namespace)
        if full in self._open or full in self._known:
            raise SchemaFault("decode.schema_invalid", f"the schema defines type {full} twice")
        tree = {key: value for key, value in node.items() if key != "namespace"} | {"name": full}
        if node["type"] == "enum":
            measure = _Measure(1, 1, 1)
        elif node["type"] == "fixed":
            measure = _Measure(1, 1, _size(node, full))
        else:
            self._open.add(full)
            tree["fields"], measure = self._fields(node, full, level)
            self._open.discard(full)
        self._known[full] = measure
        return tree, measure

    def _fields(self, node: dict[str, Any], full: str, level: int) -> tuple[list[Any], _Measure]:
        fields, measures = [], []
        raw = node.get("fields")
        if not isinstance(raw, list) or not all(isinstance(f, dict) and "name" in f and "type" in f for f in raw):
            raise SchemaFault("decode.schema_invalid", f"record {full} of the schema has no list of fields")
        for field in raw:
            tree, measure = self.node(field["type"], full.rpartition(".")[0], level + 1)
            fields.append({**field, "type": tree})
            measures.append(measure)
        depth = 1 + max((measure.depth for measure in measures), default=0)
        return fields, _Measure(1 + sum(m.weight for m in measures), depth, sum(m.bytes for m in measures))


_COMPLEX: Final = ("record", "error", "enum", "fixed", "array", "map")


def _either(branches: list[_Measure]) -> _Measure:
    if not branches:
        raise SchemaFault("decode.schema_invalid", "the schema has a union without branches")
    weight, depth = max(m.weight for m in branches), max(m.depth for m in branches)
    return _Measure(1 + weight, 1 + depth, 1 + min(m.bytes for m in branches))


def _size(node: dict[str, Any], full: str) -> int:
    size = node.get("size")
    if not isinstance(size, int) or size < 0:
        raise SchemaFault("decode.schema_invalid", f"fixed type {full} of the schema has no size")
    return size


def _full_name(node: dict[str, Any], namespace: str) -> str:
    """Return a definition's full name, by the rules of the Avro specification ("Names")."""
    name = node.get("name")
    if not isinstance(name, str) or not name:
        raise SchemaFault("decode.schema_invalid", f"the schema has a {node.get('type')} without a name")
    if "." in name:
        return name.lstrip(".")
    space = node.get("namespace", namespace)
    return f"{space}.{name}" if space else name


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaFault("decode.schema_invalid", f"the schema is no JSON: {type(error).__name__}") from None
