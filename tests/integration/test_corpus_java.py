"""The corpus of schemas in Apache Avro's Java library: it reads the same from the same bytes."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from connector.codec.schemas import named_types
from tests.unit.codec.corpus import FILES, container, long_bytes, tree_of, written
from tools.servers import TOOLS, java

JAVA_REFUSES: Final = {
    "default_invalid": "a default that is not of its type",
    "enum_symbols_odd": "symbols that are no names",
    "names_odd": "names with hyphens or digits in front",
}
"""Schemas that Java refuses whole, for a part that decoding does not need."""

NOT_IN_A_UNION: Final = {"top_union"}
"""Unions may not contain unions, and all schemas go to Java in one file."""

NAMES: Final = [file.stem for file in FILES if file.stem not in JAVA_REFUSES.keys() | NOT_IN_A_UNION]


@pytest.fixture(scope="module")
def found_by_java() -> Mapping[str, list[Any]]:
    """What Java reads of every payload, by schema: one file whose schema is the union of all."""
    jars = list((TOOLS / "avro").glob("avro-tools-*.jar"))
    machine = java()
    if not jars or machine is None:
        if "CI" in os.environ:
            pytest.fail("Apache Avro's tools are not in .tools: run `make tools` (needs Maven)")
        pytest.skip("Apache Avro's tools are not in .tools: run `make tools` (needs Maven)")
    trees = [tree_of(file) for file in FILES if file.stem in NAMES]
    payloads = [long_bytes(index) + payload for index, tree in enumerate(trees) for payload, _ in written(tree)]
    rows = map(json.loads, run_java(machine, jars[0], container(trees, payloads)).rstrip("\n").split("\n"))
    return {name: [next(rows) for _ in written(tree)] for name, tree in zip(NAMES, trees, strict=True)}


def run_java(machine: str, jar: Path, file: bytes) -> str:
    """Return a container file as Java's lines of JSON. It comes by standard input: files go through Hadoop there."""
    command = [machine, "-XX:TieredStopAtLevel=1", "-jar", str(jar), "tojson", "-"]
    done = subprocess.run(command, input=file, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(90)
def test_java_reads_the_same(name: str, found_by_java: Mapping[str, list[Any]]) -> None:
    """Apache Avro's own reader gives the same data. Kills: a reader and a reference with the same mistake."""
    tree = tree_of(next(file for file in FILES if file.stem == name))
    types = named_types(tree)
    for row, (_, datum) in zip(found_by_java[name], written(tree), strict=True):
        assert same(row[tree["name"]], datum, tree, types)


def same(found: Any, datum: Any, node: Any, types: Mapping[str, Any]) -> bool:
    """Tell whether Java's JSON is a datum: bytes are text in Latin-1 there, and a union names its branch."""
    if isinstance(node, list):
        if found is None or datum is None:
            return found is None and datum is None
        ((branch, inner),) = found.items()
        chosen = [one for one in node if (one if isinstance(one, str) else one.get("name", one["type"])) == branch]
        return same(inner, datum, chosen[0], types)
    if isinstance(node, str):
        return same(found, datum, types[node], types) if node in types else plain(found, datum, node)
    kind = node["type"]
    if kind in ("record", "error"):
        fields = {field["name"]: field["type"] for field in node["fields"]}
        return found.keys() == fields.keys() and all(
            same(found[field], datum[field], inner, types) for field, inner in fields.items()
        )
    if kind == "array":
        return len(found) == len(datum) and all(
            same(one, other, node["items"], types) for one, other in zip(found, datum, strict=True)
        )
    if kind == "map":
        return found.keys() == datum.keys() and all(
            same(found[key], datum[key], node["values"], types) for key in datum
        )
    return plain(found, datum, kind)


def plain(found: Any, datum: Any, kind: str) -> bool:
    """Compare a value without parts."""
    if kind in ("bytes", "fixed"):
        return bool(found.encode("latin-1") == datum)
    if kind == "float":
        return struct.pack("<f", float(found)) == struct.pack("<f", datum)
    if kind == "double":
        return struct.pack("<d", float(found)) == struct.pack("<d", datum)
    return bool(found == datum)
