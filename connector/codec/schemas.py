"""Avro schemas: the contract's and others, with full names. Pure, except for loading files.

Anyone who may write to the registry may write a schema. The cost of a payload is counted while it is read (`reader`),
so a schema is refused only if it cannot be understood, or is nested deeper than `MAX_DEPTH`.
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

from connector.config.loader import Loaded, Settings
from connector.errors import ConfigFault, ConfigurationError, StartupError

MAX_DEPTH: Final = 64

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
RECORDS: Final = ("record", "error")
_NAMED: Final = (*RECORDS, "enum", "fixed")


class SchemaFault(ValueError):
    """A schema that cannot be used; `code` is that of the refusals."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that defines every type it names. `name` is the record's full name, None if it is not a record."""

    name: str | None
    tree: Any

    @property
    def canonical(self) -> str:
        """The parsing canonical form (Avro specification): equal for schemas that read the same bytes alike."""
        return canonical_form(self.tree)

    @property
    def fingerprint(self) -> bytes:
        """The 8 bytes that stand for the schema in single-object encoding: CRC-64-AVRO, little-endian."""
        return bytes.fromhex(fastavro_fingerprint(self.canonical, "CRC-64-AVRO"))

    @property
    def text(self) -> str:
        """The schema as JSON."""
        return json.dumps(self.tree, ensure_ascii=False, separators=(",", ":"))


class NamedType(NamedTuple):
    """A named type of another schema, as it is written there, and the namespace around it."""

    node: Any
    namespace: str


def read_schema(text: str, references: Iterable[str] = ()) -> Schema:
    """Return the schema in JSON `text`, with the types that `references` (JSON texts) define filled in.

    Raises `SchemaFault` (`decode.schema_invalid`).
    """
    found: dict[str, NamedType] = {}
    for reference in references:
        definitions(_parsed(reference), found)
    return assemble(_parsed(text), found)


def assemble(raw: Any, known: Mapping[str, NamedType]) -> Schema:
    """Return the schema `raw` (parsed JSON); names that it does not define are filled in from `known`."""
    tree = _Walk(known).node(raw, "", 0)
    name = tree["name"] if isinstance(tree, dict) and tree["type"] in RECORDS else None
    return Schema(name, tree)


def definitions(node: Any, found: dict[str, NamedType], namespace: str = "", level: int = 0) -> None:
    """Put every named type in a schema (parsed JSON) into `found` by its full name. The first definition counts."""
    if level > MAX_DEPTH:
        return
    if isinstance(node, list):
        for branch in node:
            definitions(branch, found, namespace, level + 1)
    elif isinstance(node, dict):
        if node.get("type") in _NAMED:
            full = _full_name(node, namespace)
            found.setdefault(full, NamedType(node, namespace))
            namespace = full.rpartition(".")[0]
        for key in ("type", "items", "values"):
            definitions(node.get(key), found, namespace, level + 1)
        fields = node.get("fields")
        for field in fields if isinstance(fields, list) else ():
            definitions(field.get("type") if isinstance(field, dict) else None, found, namespace, level + 1)


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
    """Return a schema without logical types, so that values are read as written: a timestamp as an integer."""
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


class _Walk:
    """One walk over a schema that makes names full and fills in definitions.

    It checks only what decoding needs. Avro's rules for names, symbols and defaults are not checked, because such a
    fault harms no record.
    """

    def __init__(self, definitions: Mapping[str, NamedType]) -> None:
        self._definitions = definitions
        self._defined: dict[str, Any] = {}

    def node(self, node: Any, namespace: str, level: int) -> Any:
        """Return the type with full names."""
        if level > MAX_DEPTH:
            raise _invalid(f"the schema is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, str):
            return self._name(node, namespace, level)
        if isinstance(node, list):
            if not node:
                raise _invalid("the schema has a union without branches")
            return [self.node(branch, namespace, level + 1) for branch in node]
        if isinstance(node, dict) and "type" in node:
            return self._dict(node, namespace, level)
        raise _invalid("the schema has a type that is not a name, a union or an object with a type")

    def _name(self, name: str, namespace: str, level: int) -> Any:
        if name in PRIMITIVES:
            return name
        # A short name is in the enclosing namespace (specification). If no type has that name, it is one without a
        # namespace.
        near = f"{namespace}.{name}" if namespace and "." not in name else name
        for full in (near, name.removeprefix(".")):
            if full in self._defined:
                return full
            if full in self._definitions:
                definition = self._definitions[full]
                return self.node(definition.node, definition.namespace, level)
        raise _invalid(f"the schema uses type {near}, which is not defined")

    def _dict(self, node: dict[str, Any], namespace: str, level: int) -> Any:
        kind = node["type"]
        if isinstance(kind, (dict, list)):
            return self.node(kind, namespace, level + 1)
        if kind in PRIMITIVES:
            return dict(node)
        if kind == "array":
            return {**node, "items": self.node(node.get("items"), namespace, level + 1)}
        if kind == "map":
            return {**node, "values": self.node(node.get("values"), namespace, level + 1)}
        if kind in _NAMED:
            return self._named(node, namespace, level)
        return self.node(kind, namespace, level + 1)

    def _named(self, node: dict[str, Any], namespace: str, level: int) -> Any:
        full = _full_name(node, namespace)
        if full in self._defined:
            # A reference may hold a type that another one, or the schema itself, defines again.
            if self._defined[full] == node:
                return full
            raise _invalid(f"the schema defines type {full} twice")
        self._defined[full] = node
        # The name is full from here on, so the namespace is dropped. Keeping both could contradict each other.
        tree = {key: value for key, value in node.items() if key != "namespace"} | {"name": full}
        if node["type"] == "enum":
            if not _are_texts(node.get("symbols")):
                raise _invalid(f"enum {full} of the schema has no list of symbols")
        elif node["type"] == "fixed":
            # A boolean is an int in Python, so it is excluded. A negative size would move the reader backwards.
            if type(node.get("size")) is not int or node["size"] < 0:
                raise _invalid(f"fixed type {full} of the schema has no size")
        else:
            tree["fields"] = self._fields(node.get("fields"), full, level)
        return tree

    def _fields(self, raw: Any, full: str, level: int) -> list[Any]:
        if not isinstance(raw, list) or not all(isinstance(f, dict) and {"name", "type"} <= f.keys() for f in raw):
            raise _invalid(f"record {full} of the schema has no list of fields")
        if not _are_texts([field["name"] for field in raw]):
            raise _invalid(f"record {full} of the schema has a field whose name is not text")
        namespace = full.rpartition(".")[0]
        return [{**field, "type": self.node(field["type"], namespace, level + 1)} for field in raw]


def canonical_form(tree: Any, *, also: tuple[str, ...] = ()) -> str:
    """Return the parsing canonical form of a tree with full names (Avro specification), with `also` among its keys."""
    return json.dumps(_canonical(tree, also), ensure_ascii=False, separators=(",", ":"))


def _canonical(node: Any, also: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_canonical(branch, also) for branch in node]
    if not isinstance(node, dict):
        return node
    if node["type"] in PRIMITIVES and not any(key in node for key in also):
        return node["type"]
    # Keys in the specification's order, all others left out: the fingerprint is a hash of this text.
    found = {key: node[key] for key in ("name", "type", "fields", "symbols", "items", "values", "size") if key in node}
    if "fields" in found:
        found["fields"] = [
            {"name": field["name"], "type": _canonical(field["type"], also)} for field in found["fields"]
        ]
    for key in ("items", "values"):
        if key in found:
            found[key] = _canonical(found[key], also)
    return found | {key: node[key] for key in also if key in node}


def self_contained(node: Any, definitions: Mapping[str, Any], seen: set[str] | None = None) -> Any:
    """Return a part of a larger schema with every named type defined at its first use."""
    seen = set() if seen is None else seen
    if isinstance(node, list):
        return [self_contained(branch, definitions, seen) for branch in node]
    if isinstance(node, str):
        if node in seen or node not in definitions:
            return node
        node = definitions[node]
    if "name" in node:
        if node["name"] in seen:
            return node["name"]
        seen.add(node["name"])
    found = dict(node)
    for key in ("items", "values"):
        if key in found:
            found[key] = self_contained(found[key], definitions, seen)
    if "fields" in found:
        found["fields"] = [
            {**field, "type": self_contained(field["type"], definitions, seen)} for field in found["fields"]
        ]
    return found


def _invalid(message: str) -> SchemaFault:
    return SchemaFault("decode.schema_invalid", message)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _full_name(node: dict[str, Any], namespace: str) -> str:
    """Return a definition's full name, by the rules of the Avro specification ("Names")."""
    name = node.get("name")
    if not isinstance(name, str) or not name:
        raise _invalid(f"the schema has a {node.get('type')} without a name")
    if "." in name:
        return name.removeprefix(".")
    space = node.get("namespace", namespace)
    return f"{space}.{name}" if isinstance(space, str) and space else name


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"the schema is not valid JSON: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class Contracts:
    """The contract schemas by full name."""

    schemas: Mapping[str, Schema]


def load_contracts() -> Contracts:
    """Return the contract schemas of this installation: `avro/` in the source, `connector/_avro` in the wheel.

    Raises `StartupError` if they are missing or broken.
    """
    # A wheel has the schemas inside of the package, a checkout next to it.
    packaged = files("connector") / "_avro"
    folder: Traversable = packaged if packaged.is_dir() else Path(__file__).parents[2] / "avro"
    texts = {str(file): file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".avsc")}
    if not texts:
        raise StartupError("the contract schemas (connector/_avro) are missing; the installation is broken")
    return Contracts({schema.name: schema for schema in _assembled(texts) if schema.name is not None})


def own_schemas(loaded: Loaded) -> list[Schema]:
    """Return the schemas in the files that `schemas.files` names.

    Raises `ConfigurationError` for a pattern that matches no file, `StartupError` for a file that is not a schema.
    """
    return schemas_of(loaded.settings, loaded.folder)


def schemas_of(settings: Settings, folder: Path) -> list[Schema]:
    """Return the schemas of settings whose relative paths start in `folder`; raises as `own_schemas`."""
    found: list[Path] = []
    faults = []
    for index, pattern in enumerate(settings.schemas.files):
        absolute = Path(pattern).is_absolute()
        matches = [Path(pattern)] if absolute else sorted(folder.glob(pattern))
        if not matches:
            faults.append(ConfigFault(f"schemas.files[{index}]", f"{pattern} matches no file in {folder}"))
        found.extend(matches)
    if faults:
        raise ConfigurationError(faults)
    return load_schema_files(found)


def known_schemas(own: list[Schema]) -> dict[str, Any]:
    """Return every schema that is known without a registry, as parsed JSON by full name; the contract's win."""
    # The contract schemas come last, so that a file cannot replace a schema that the vendors' code relies on.
    return by_name([*own, *load_contracts().schemas.values()])


def by_name(schemas: Iterable[Schema]) -> dict[str, Any]:
    """Return the schemas of records by full name, also of those in a union at the top."""
    found: dict[str, Any] = {}
    for schema in schemas:
        if schema.name is not None:
            found[schema.name] = schema.tree
        elif isinstance(schema.tree, list):
            types = named_types(schema.tree)
            branches = [self_contained(branch, types) for branch in schema.tree]
            found |= {tree["name"]: tree for tree in branches if isinstance(tree, dict) and tree["type"] in RECORDS}
    return found


def load_schema_files(paths: Iterable[Path]) -> list[Schema]:
    """Return the schemas in the files, which may use each other's types; of a union at the top also its records.

    Raises `StartupError` with the name of a file that cannot be read or is not a schema.
    """
    texts = {}
    for path in paths:
        try:
            # Editors on Windows put a byte order mark in front, which is not JSON.
            texts[str(path)] = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"schemas.files: {path} cannot be read: {error}") from None
    schemas = _assembled(texts)
    unions = [schema for schema in schemas if schema.name is None]
    return [*schemas, *(Schema(name, tree) for name, tree in by_name(unions).items())]


def _assembled(texts: Mapping[str, str]) -> list[Schema]:
    trees: dict[str, Any] = {}
    known: dict[str, NamedType] = {}
    schemas: list[Schema] = []
    for path, text in sorted(texts.items()):
        with _blaming(path):
            trees[path] = json.loads(text)
            # Every file first, then each schema: files may refer to each other in any order.
            definitions(trees[path], known)
    for path, tree in trees.items():
        with _blaming(path):
            schemas.append(assemble(tree, known))
    return schemas


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} is not a usable Avro schema: {error}") from None
