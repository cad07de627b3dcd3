"""Avro schemas: the contract's and others, measured before anything is decoded with them. Pure, but for loading files.

Anyone who may write to the registry may write a schema, so each is measured once, before it reaches the decoder:

- a recursive type is refused: a few kilobytes of deep nesting end fastavro's process with SIGSEGV;
- nesting is limited to `MAX_DEPTH`, and the cost of one datum without arrays to `MAX_WEIGHT`: types that use each other
  twice double the work at each level;
- arrays and maps whose items take far more steps than bytes are `guarded`: an array of nulls takes no bytes, so five
  bytes can claim 30 million items. A `StepCounter` walks each such payload before it is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from connector.errors import StartupError

MAX_DEPTH: Final = 64
MAX_WEIGHT: Final = 20_000
MAX_AMPLIFICATION: Final = 256
"""Steps per byte of an array's or map's item, above which payloads are counted first."""

STEPS: Final = 65_536
"""Steps that any payload may take; and `STEPS_A_BYTE` more for each of its bytes."""

STEPS_A_BYTE: Final = 8

_PRIMITIVES: Final = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
_RECORDS: Final = ("record", "error")


_COMPLEX: Final = ("record", "error", "enum", "fixed", "array", "map")
_FIXED_SIZES: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class SchemaFault(ValueError):
    """A schema that cannot be used; `code` is that of the refusals."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema whose names are full and defined in it. `name` is the record's full name, None if it is not a record."""

    name: str | None
    tree: Any
    guarded: bool

    @property
    def canonical(self) -> str:
        """The parsing canonical form (Avro specification): equal for schemas that read the same bytes alike."""
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
    """Return the schema in JSON `text`, with the types that `references` (JSON texts) define filled in.

    Raises `SchemaFault` (`decode.schema_invalid`, `decode.schema_recursive`).
    """
    definitions: dict[str, Any] = {}
    for reference in references:
        definitions |= top_level_types(_parsed(reference))
    return assemble(_parsed(text), definitions)


def assemble(raw: Any, definitions: Mapping[str, Any]) -> Schema:
    """Return the schema `raw` (parsed JSON); names without a definition are replaced by `definitions`."""
    walk = _Walk(definitions)
    tree, _ = walk.node(raw, "", 0)
    name = tree["name"] if isinstance(tree, dict) and tree.get("type") in _RECORDS else None
    return Schema(name, tree, walk.guarded)


def top_level_types(raw: Any) -> dict[str, Any]:
    """Return the types that a schema (parsed JSON) defines at its top level or in its top union, by full name."""
    found = {}
    for node in raw if isinstance(raw, list) else [raw]:
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            found[_full_name(node, "")] = node
    return found


def all_types(tree: Any) -> Iterator[Any]:
    """Yield every type in a schema: the schema itself, its branches, items, values and fields, and those inside them.

    A type that is only named, because it is defined elsewhere in the schema, is yielded as its name.
    """
    yield tree
    if isinstance(tree, list):
        inner = tree
    elif isinstance(tree, dict):
        inner = [tree[key] for key in ("items", "values") if key in tree]
        inner += [field["type"] for field in tree.get("fields", ())]
    else:
        return
    for node in inner:
        yield from all_types(node)


def named_types(tree: Any) -> dict[str, Any]:
    """Return the types that a `Schema.tree` defines, by full name."""
    return {node["name"]: node for node in all_types(tree) if isinstance(node, dict) and "name" in node}


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
    """The most a value of a type can cost (steps without those inside arrays, and levels), and its fewest bytes."""

    weight: int
    depth: int
    bytes: int


class _Walk:
    """One walk over a schema that makes names full, fills in definitions and measures."""

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
                "decode.schema_invalid", "the schema has a type that is not a name, a union or an object with a type"
            )
        if measure.weight > MAX_WEIGHT or measure.depth > MAX_DEPTH:
            raise SchemaFault(
                "decode.schema_invalid",
                f"one value of the schema may need more than {MAX_WEIGHT} steps or {MAX_DEPTH} levels",
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
        raise SchemaFault("decode.schema_invalid", f"the schema uses type {near}, which is not defined")

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
        raise SchemaFault("decode.schema_invalid", f"the schema is not valid JSON: {type(error).__name__}") from None


class TooManySteps(ValueError):
    """The payload claims far more values than its length allows."""


class StepCounter:
    """Counts the steps of payloads of one guarded schema. Slow, in plain Python, so only guarded schemas have one."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._named = named_types(tree)

    def check(self, payload: bytes) -> None:
        """Raise `TooManySteps` if decoding would take too many, and `ValueError` if the payload is broken."""
        _Payload(payload, self._named).value(self._tree)


class _Payload:
    """One payload, and how far it is read."""

    def __init__(self, payload: bytes, named: dict[str, Any]) -> None:
        self._payload = payload
        self._named = named
        self._at = 0
        self._left = STEPS + STEPS_A_BYTE * len(payload)

    def value(self, node: Any) -> None:
        """Step over one value of the type."""
        self._left -= 1
        if self._left < 0:
            raise TooManySteps("the payload claims more values than its length allows")
        if isinstance(node, list):
            branch = self._long()
            if not 0 <= branch < len(node):
                raise ValueError("a union's branch is out of range")
            self.value(node[branch])
            return
        kind = node["type"] if isinstance(node, dict) else node
        if kind in ("record", "error"):
            for field in node["fields"]:
                self.value(field["type"])
        elif kind in ("array", "map"):
            self._blocks(node, kind)
        elif kind in _FIXED_SIZES:
            self._skip(_FIXED_SIZES[kind])
        elif kind == "fixed":
            self._skip(node["size"])
        elif kind in ("bytes", "string"):
            self._skip(self._long())
        elif kind in ("int", "long", "enum"):
            self._long()
        else:
            self._left += 1
            self.value(self._named[kind])

    def _blocks(self, node: dict[str, Any], kind: str) -> None:
        while (count := self._long()) != 0:
            if count < 0:
                self._long()
            for _ in range(abs(count)):
                if kind == "map":
                    self._skip(self._long())
                self.value(node["items" if kind == "array" else "values"])

    def _long(self) -> int:
        number = shift = 0
        while True:
            if self._at >= len(self._payload) or shift > 63:
                raise ValueError("the payload ends within a number, or the number is too long")
            byte = self._payload[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)
            shift += 7

    def _skip(self, count: int) -> None:
        if count < 0 or self._at + count > len(self._payload):
            raise ValueError("the payload ends within a value")
        self._at += count


@dataclass(frozen=True, slots=True)
class Contracts:
    """The contract schemas by full name."""

    schemas: Mapping[str, Schema]


def load_contracts() -> Contracts:
    """Return the contract schemas of this installation: `avro/` in the source, `connector/_avro` in the wheel.

    Raises `StartupError` if they are missing or broken.
    """
    packaged = files("connector") / "_avro"
    folder: Traversable = packaged if packaged.is_dir() else Path(__file__).parents[2] / "avro"
    texts = {str(file): file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".avsc")}
    if not texts:
        raise StartupError("the contract schemas (connector/_avro) are missing; the installation is broken")
    return Contracts({schema.name: schema for schema in _assembled(texts) if schema.name is not None})


def load_schema_files(paths: Iterable[Path]) -> list[Schema]:
    """Return the schemas in the files, which may use each other's types.

    Raises `StartupError` with the name of a file that cannot be read or is not a schema.
    """
    texts = {}
    for path in paths:
        try:
            texts[str(path)] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"schemas.files: {path} cannot be read: {error}") from None
    return _assembled(texts)


def _assembled(texts: Mapping[str, str]) -> list[Schema]:
    trees: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    schemas: list[Schema] = []
    for path, text in sorted(texts.items()):
        with _blaming(path):
            trees[path] = json.loads(text)
            definitions |= top_level_types(trees[path])
    for path, tree in trees.items():
        with _blaming(path):
            schemas.append(assemble(tree, definitions))
    return schemas


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} is not a usable Avro schema: {error}") from None
