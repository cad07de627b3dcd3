"""The contract schemas (`avro/` in the source, `connector/_avro` in the wheel) and other schema files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from connector.codec.schemas import Schema, assemble, top_level_types
from connector.errors import StartupError


@dataclass(frozen=True, slots=True)
class Contracts:
    """The contract schemas by full name."""

    schemas: Mapping[str, Schema]


def load_contracts() -> Contracts:
    """Return the contract schemas of this installation. Raises `StartupError` where they are missing or broken."""
    packaged = files("connector") / "_avro"
    folder: Traversable = packaged if packaged.is_dir() else Path(__file__).parents[2] / "avro"
    texts = {str(file): file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".avsc")}
    if not texts:
        raise StartupError("the contract schemas (connector/_avro) are missing; the installation is broken")
    return Contracts({schema.name: schema for schema in _read(texts) if schema.name is not None})


def load_schema_files(paths: Iterable[Path]) -> list[Schema]:
    """Return the schemas in the files, which may use each other's types.

    Raises `StartupError` that names the file which cannot be read or is no schema.
    """
    texts = {}
    for path in paths:
        try:
            texts[str(path)] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"schemas.files: {path} cannot be read: {error}") from None
    return _read(texts)


def _read(texts: Mapping[str, str]) -> list[Schema]:
    trees: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    schemas: list[Schema] = []
    for path, text in sorted(texts.items()):
        with _naming(path):
            trees[path] = json.loads(text)
            definitions |= top_level_types(trees[path])
    for path, tree in trees.items():
        with _naming(path):
            schemas.append(assemble(tree, definitions))
    return schemas


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise StartupError(f"{path} is no Avro schema that can be used: {error}") from None
