"""A corpus of schemas with the features of public ones, and payloads at the edges of each, encoded here.

The encoder is this file's own, so that neither the reader under test nor its reference decides what was written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from connector.codec.schemas import named_types, read_schema

FOLDER: Final = Path(__file__).parents[2] / "corpus"
FILES: Final = tuple(sorted(FOLDER.glob("*.avsc")))
MOST: Final = 16
"""Payloads of one schema at the most; each has other values in every field."""

DEEP: Final = 4


class Written(NamedTuple):
    """A datum and its payload. `datum` is as the reader gives it: no logical types, no names of branches."""

    payload: bytes
    datum: Any


def tree_of(file: Path) -> Any:
    """Return a file's schema with full names."""
    return read_schema(file.read_text(encoding="utf-8")).tree


def long_bytes(number: int) -> bytes:
    """Return a number as Avro writes it: zigzag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 63)
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*found, rest))


def written(tree: Any) -> list[Written]:
    """Return payloads at the edges of a schema's types."""
    return _Encoder(named_types(tree)).values(tree, 0)[:MOST]


class _Encoder:
    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types

    def values(self, node: Any, depth: int) -> list[Written]:
        if isinstance(node, list):
            return self._union(node, depth)
        if isinstance(node, str):
            return self.values(self._types[node], depth) if node in self._types else _PRIMITIVES[node]
        kind = node["type"]
        if kind in ("record", "error"):
            return self._record(node, depth + 1)
        if kind == "enum":
            return [Written(long_bytes(index), symbol) for index, symbol in enumerate(node["symbols"])]
        if kind == "fixed":
            return [Written(bytes([byte]) * node["size"], bytes([byte]) * node["size"]) for byte in (0, 0x7F, 0xFF)]
        if kind == "array":
            return self._array(node["items"], depth)
        if kind == "map":
            return self._map(node["values"], depth)
        return self.values(kind, depth)

    def _union(self, branches: Sequence[Any], depth: int) -> list[Written]:
        found = []
        for index, branch in enumerate(branches):
            if depth > DEEP and branch != "null":
                continue
            found += [Written(long_bytes(index) + p, d) for p, d in self.values(branch, depth)[:5]]
        return found

    def _record(self, node: Any, depth: int) -> list[Written]:
        columns = [self.values(field["type"], depth) for field in node["fields"]]
        found = []
        for row in range(min(MOST, max(map(len, columns), default=1))):
            cells = [column[(row + number) % len(column)] for number, column in enumerate(columns)]
            names = [field["name"] for field in node["fields"]]
            datum = dict(zip(names, (cell.datum for cell in cells), strict=True))
            found.append(Written(b"".join(cell.payload for cell in cells), datum))
        return found

    def _array(self, items: Any, depth: int) -> list[Written]:
        if depth > DEEP:
            return [Written(b"\0", [])]
        values = self.values(items, depth)[:6]
        body = b"".join(value.payload for value in values)
        sized = long_bytes(-len(values)) + long_bytes(len(body)) + body
        first = b"\2" + values[0].payload
        return [
            Written(b"\0", []),
            Written(long_bytes(len(values)) + body + b"\0", [value.datum for value in values]),
            Written(first + sized + b"\0", [values[0].datum, *(value.datum for value in values)]),
        ]

    def _map(self, inner: Any, depth: int) -> list[Written]:
        if depth > DEEP:
            return [Written(b"\0", {})]
        names = ["", "a.b", "名", 'quo"te', "x" * 130, "\u0001"]
        values = list(zip(names, self.values(inner, depth), strict=False))
        body = b"".join(text_bytes(name) + value.payload for name, value in values)
        datum = {name: value.datum for name, value in values}
        sized = long_bytes(-len(values)) + long_bytes(len(body)) + body + b"\0"
        return [Written(b"\0", {}), Written(long_bytes(len(values)) + body + b"\0", datum), Written(sized, datum)]


def text_bytes(text: str) -> bytes:
    """Return a text as Avro writes it."""
    return long_bytes(len(text.encode())) + text.encode()


_INTS: Final = (0, -1, 1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31))
_LONGS: Final = (*_INTS, 2**53, 2**53 + 1, 2**63 - 1, -(2**63))
_TEXTS: Final = ("", "a", "线上", "é" * 40, 'quo"te\\', "\u0000", "😀", "x" * 300)
_BYTES: Final = (b"", b"\0", b"\xff\x7f", bytes(range(256)))
# Each is the shortest decimal of its float of 32 bits, as the reader gives it.
_FLOATS: Final = (0.0, -0.0, 12.99, 1e-45, 3.4028235e38, 16777216.0, 0.1)
_DOUBLES: Final = (0.0, -0.0, 12.99, 5e-324, 1.7976931348623157e308, 2.0**53, 0.1)

_PRIMITIVES: Final[Mapping[str, list[Written]]] = {
    "null": [Written(b"", None)],
    "boolean": [Written(b"\0", datum=False), Written(b"\1", datum=True)],
    "int": [Written(long_bytes(number), number) for number in _INTS],
    "long": [Written(long_bytes(number), number) for number in _LONGS],
    "float": [Written(struct.pack("<f", number), number) for number in _FLOATS],
    "double": [Written(struct.pack("<d", number), number) for number in _DOUBLES],
    "string": [Written(text_bytes(text), text) for text in _TEXTS],
    "bytes": [Written(long_bytes(len(data)) + data, data) for data in _BYTES],
}


def container(tree: Any, payloads: Sequence[bytes]) -> bytes:
    """Return an Avro object container file of encoded data."""
    sync = b"connector-corpus"
    meta = {"avro.schema": json.dumps(tree, ensure_ascii=False).encode(), "avro.codec": b"null"}
    header = long_bytes(len(meta))
    for name, value in meta.items():
        header += text_bytes(name) + long_bytes(len(value)) + value
    body = b"".join(payloads)
    return b"Obj\x01" + header + b"\0" + sync + long_bytes(len(payloads)) + long_bytes(len(body)) + body + sync
