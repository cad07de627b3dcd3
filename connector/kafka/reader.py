"""Reads Avro data, written so that mypyc compiles it: a quarter of fastavro's time for the dearest step of a record.

A schema becomes a tree of readers, one for each node, and a payload is read from left to right by one cursor. Logical
types and schema resolution are fastavro's, and so is everything where this module is not compiled: interpreted it is
the slower of the two. fastavro is the reference: a property test holds both against each other, on good payloads and
on broken ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, Final

from mypy_extensions import i64

COMPILED: Final = not __file__.endswith(".py")
"""Whether this module was compiled when the package was built."""

_DOUBLE: Final = Struct("<d").unpack_from
_FLOAT: Final = Struct("<f").unpack_from
_LAST_SHIFT: Final[i64] = 62


class Unsupported(Exception):
    """The schema has something that no reader is made of; fastavro decodes it."""


class Cursor:
    """A payload, and how far it is read."""

    def __init__(self, data: bytes, at: i64) -> None:
        self.data: bytes = data
        self.at: i64 = at
        self.end: i64 = len(data)

    def long(self) -> i64:
        """Read a variable-length zigzag number of 64 bits."""
        data, at = self.data, self.at
        byte: i64 = data[at]
        at += 1
        # The lowest bit is the sign: kept apart, what is left has 63 bits, and no mask of that length is needed. One
        # is no small number to mypyc, and would be converted each time.
        sign: i64 = byte & 1
        found: i64 = (byte & 127) >> 1
        shift: i64 = 6
        while byte > 127:
            byte = data[at]
            at += 1
            if shift == _LAST_SHIFT and byte > 1:
                raise ValueError("a number of more than 64 bits")
            found |= (byte & 127) << shift
            shift += 7
        self.at = at
        return found ^ -sign

    def take(self, size: i64) -> bytes:
        """Read so many bytes."""
        at = self.at
        if size < 0 or size > self.end - at:
            raise ValueError("a length below zero, or past the end of the payload")
        self.at = at + size
        return self.data[at : at + size]

    def text(self) -> str:
        """Read a string."""
        return self.take(self.long()).decode("utf-8")

    def count(self) -> i64:
        """Read how many items the next block of an array or a map has; 0 ends it."""
        found = self.long()
        if found < 0:
            # A negative count is followed by the block's size in bytes, for those who skip it.
            self.long()
            found = -found
            if found < 0:
                raise ValueError("a block of more items than a payload can have")
        return found


class Reader:
    """Reads one value of a schema's node. The base class reads null."""

    def read(self, cursor: Cursor) -> object:
        """Return the value and move the cursor behind it. Raises anything where the payload is broken."""
        return None


class _Boolean(Reader):
    def read(self, cursor: Cursor) -> object:
        at = cursor.at
        value: i64 = cursor.data[at]
        cursor.at = at + 1
        return value != 0


class _Long(Reader):
    def read(self, cursor: Cursor) -> object:
        return cursor.long()


class _Float(Reader):
    def read(self, cursor: Cursor) -> object:
        at = cursor.at
        cursor.at = at + 4
        return _FLOAT(cursor.data, at)[0]


class _Double(Reader):
    def read(self, cursor: Cursor) -> object:
        at = cursor.at
        cursor.at = at + 8
        return _DOUBLE(cursor.data, at)[0]


class _Bytes(Reader):
    def read(self, cursor: Cursor) -> object:
        return cursor.take(cursor.long())


class _String(Reader):
    def read(self, cursor: Cursor) -> object:
        return cursor.text()


class _Fixed(Reader):
    def __init__(self, size: i64) -> None:
        self.size: i64 = size

    def read(self, cursor: Cursor) -> object:
        return cursor.take(self.size)


class _Enum(Reader):
    def __init__(self, symbols: list[str]) -> None:
        self.symbols: list[str] = symbols

    def read(self, cursor: Cursor) -> object:
        return self.symbols[_index(cursor, self.symbols)]


class _Array(Reader):
    def __init__(self, items: Reader) -> None:
        self.items: Reader = items

    def read(self, cursor: Cursor) -> object:
        items = self.items
        found: list[object] = []
        while count := cursor.count():
            while count:
                found.append(items.read(cursor))
                count -= 1
        return found


class _Map(Reader):
    def __init__(self, values: Reader) -> None:
        self.values: Reader = values

    def read(self, cursor: Cursor) -> object:
        values = self.values
        found: dict[str, object] = {}
        while count := cursor.count():
            while count:
                name = cursor.text()
                found[name] = values.read(cursor)
                count -= 1
        return found


class _Union(Reader):
    def __init__(self, branches: list[Reader]) -> None:
        self.branches: list[Reader] = branches

    def read(self, cursor: Cursor) -> object:
        return self.branches[_index(cursor, self.branches)].read(cursor)


class _Record(Reader):
    def __init__(self) -> None:
        # Filled after it is known by its name, so that an error of the schema shows where it is.
        self.fields: list[tuple[str, Reader]] = []

    def read(self, cursor: Cursor) -> object:
        found: dict[str, object] = {}
        for name, field in self.fields:
            found[name] = field.read(cursor)
        return found


class _Named(Reader):
    """A record in a union of several: `(full name, datum)`."""

    def __init__(self, name: str, record: Reader) -> None:
        self.name: str = name
        self.record: Reader = record

    def read(self, cursor: Cursor) -> object:
        return self.name, self.record.read(cursor)


def _index(cursor: Cursor, among: list[Any]) -> i64:
    found = cursor.long()
    if found < 0 or found >= len(among):
        raise IndexError("no such branch or symbol")
    return found


def reader_of(tree: Any, *, tagged: bool = False) -> Callable[[bytes, int], tuple[object, int]]:
    """Return what decodes payloads of a schema that fastavro accepts, without recursion.

    It is given the bytes and an index, returns the datum and the index after it, and raises anything where the payload
    is broken or ends early. `tagged`: a record in a union of several records becomes `(full name, datum)`. Raises
    `Unsupported` for a schema that is fastavro's to decode.
    """
    root = _Builder(tagged=tagged).reader(tree)

    def read(data: bytes, at: int) -> tuple[object, int]:
        cursor = Cursor(data, at)
        return root.read(cursor), cursor.at

    return read


class _Builder:
    """Makes the readers of one schema."""

    def __init__(self, *, tagged: bool) -> None:
        self.tagged: bool = tagged
        self.named: dict[str, Reader] = {}
        self.records: set[str] = set()

    def reader(self, node: Any) -> Reader:
        if isinstance(node, list):
            return self.union(node)
        if isinstance(node, str):
            found = self.named.get(node) or _PRIMITIVES.get(node)
            if found is None:
                raise Unsupported
            return found
        if "logicalType" in node:
            raise Unsupported
        kind = node["type"]
        if kind == "array":
            return _Array(self.reader(node["items"]))
        if kind == "map":
            return _Map(self.reader(node["values"]))
        return self.complex(node, kind) if "name" in node else self.reader(kind)

    def complex(self, node: Any, kind: Any) -> Reader:
        """Make the reader of a type that has a name."""
        name = _full_name(node)
        if kind == "enum":
            self.named[name] = _Enum(list(node["symbols"]))
        elif kind == "fixed":
            self.named[name] = _Fixed(int(node["size"]))
        elif kind in {"record", "error"}:
            record = _Record()
            self.named[name] = record
            self.records.add(name)
            record.fields = [(str(field["name"]), self.reader(field["type"])) for field in node["fields"]]
        else:
            raise Unsupported
        return self.named[name]

    def union(self, branches: list[Any]) -> Reader:
        readers = [self.reader(branch) for branch in branches]
        names = [branch if isinstance(branch, str) else _name_of(branch) for branch in branches]
        if self.tagged and sum(name in self.records for name in names) > 1:
            readers = [
                _Named(name, reader) if name in self.records else reader
                for name, reader in zip(names, readers, strict=True)
            ]
        return _Union(readers)


def _name_of(branch: Any) -> str:
    return _full_name(branch) if "name" in branch else ""


def _full_name(node: Mapping[str, Any]) -> str:
    name, namespace = str(node["name"]), node.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


_PRIMITIVES: Final[dict[str, Reader]] = {
    "null": Reader(),
    "boolean": _Boolean(),
    "int": _Long(),
    "long": _Long(),
    "float": _Float(),
    "double": _Double(),
    "bytes": _Bytes(),
    "string": _String(),
}
