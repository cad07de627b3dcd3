"""Changes single values of an encoded event, by the schema it was written with. Pure.

The event is not decoded and encoded again, because an encoder may choose another branch of a union, or another form of
a map, than the one that wrote it. Instead the bytes of the value at the path are found and replaced: every other byte
stays as it was.

A text becomes a value strictly by the field's type: `7` is a long, `1_000` and ` 7 ` are not; a string is taken
literally; bytes are base64; everything else is JSON. For a union, JSON that is a value of one of its branches is that
value, and any other text is a string, else a symbol, else base64. A named type of a union may be given by its name, as
in Avro's own JSON: `{"acme.Kind": "ONE"}`.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from math import isinf
from typing import Any, Final, NamedTuple

from connector.codec.schemas import RECORDS, named_types

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|NaN|-?Infinity")
_BITS: Final = {"int": 32, "long": 64}
_FLOATS: Final = {"float": "<f", "double": "<d"}
_FIXED_WIDTH: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_INCOMPLETE: Final = "the event is incomplete"


def edit(value: bytes, start: int, tree: Any, edits: Iterable[tuple[str, str]]) -> bytes:
    """Return the value with each (path, text) set in the datum that begins at `start`; all other bytes stay.

    Paths are as in routes: dotted, through records and maps. A missing key of a map is added. Raises `ValueError` with
    a message for people if a path does not exist or a text is not a value of its type. The value must decode with the
    schema `tree` (`Schema.tree`).
    """
    editor = _Editor(tree)
    for path, text in edits:
        try:
            change = editor.find(tree, value, start, path.split("."), text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        value = value[: change.first] + change.new + value[change.end :]
    return value


class _Change(NamedTuple):
    """The bytes from `first` up to `end` are to be replaced by `new`."""

    first: int
    end: int
    new: bytes


class _Block(NamedTuple):
    """A block of a map: where it begins, where its entries begin, their number, and the size if one is written."""

    first: int
    entries: int
    number: int
    size: int | None


class _Editor:
    """Finds and encodes values of one schema."""

    def __init__(self, tree: Any) -> None:
        self._named = named_types(tree)

    def find(self, node: Any, data: bytes, at: int, parts: list[str], text: str) -> _Change:
        """Return the change that sets the value at a path below the value of type `node` at `at`."""
        node = self._of(node)
        if not parts:
            return _Change(at, self._skip(node, data, at), self._value(node, text))
        kind = _kind(node)
        if kind == "union":
            return self._find_in_union(node, data, at, parts, text)
        if kind in RECORDS:
            for field in node["fields"]:
                if field["name"] == parts[0]:
                    return self.find(field["type"], data, at, parts[1:], text)
                at = self._skip(field["type"], data, at)
            known = ", ".join(field["name"] for field in node["fields"])
            raise ValueError(f"record {node['name']} has no field {parts[0]}; it has {known}")
        if kind == "map":
            return self._find_in_map(node, data, at, parts, text)
        raise ValueError(f"{_type_name(node)} has no fields, so there is no {parts[0]} in it")

    def _find_in_union(self, node: list[Any], data: bytes, at: int, parts: list[str], text: str) -> _Change:
        number, inner = _read_long(data, at)
        branch = self._of(node[number])
        if _kind(branch) in (*RECORDS, "map"):
            return self.find(branch, data, inner, parts, text)
        # A null becomes a map of one entry only if the union has exactly one map. Otherwise it would be a guess.
        maps = [index for index, each in enumerate(node) if _kind(self._of(each)) == "map"]
        if _kind(branch) != "null" or len(maps) != 1:
            raise ValueError(f"the current value has no {parts[0]} in it")
        entry = self._entry(self._of(node[maps[0]]), parts, text)
        return _Change(at, inner, long_bytes(maps[0]) + entry + b"\x00")

    def _find_in_map(self, node: Any, data: bytes, at: int, parts: list[str], text: str) -> _Change:
        """Change the entry whose key is the path, else the one with the shortest key that the path begins with."""
        places: dict[str, tuple[_Block, int]] = {}
        for block, key, place in self._entries(node, data, at):
            places.setdefault(key, (block, place))
        # For `a.b.c`: the keys `a.b.c`, `a`, `a.b`. As in routes the shortest key
        # wins, except that a key which is the whole path can always be set.
        for count in (len(parts), *range(1, len(parts))):
            key = ".".join(parts[:count])
            if key in places:
                block, place = places[key]
                return self._resized(self.find(node["values"], data, place, parts[count:], text), data, block)
        # A block of one entry in front of the others.
        return _Change(at, at, self._entry(node, parts, text))

    def _entry(self, node: Any, parts: list[str], text: str) -> bytes:
        """Return an encoded map block with one entry."""
        return long_bytes(1) + sized_bytes(".".join(parts).encode()) + self._value(self._of(node["values"]), text)

    @staticmethod
    def _resized(change: _Change, data: bytes, block: _Block) -> _Change:
        """Return a change inside a block together with the correction of the block's size, if a size is written."""
        if block.size is None:
            return change
        size = block.size + len(change.new) - (change.end - change.first)
        # Avro writes a block with its size in bytes as a negative count, the size, then the entries.
        head = long_bytes(-block.number) + long_bytes(size)
        return _Change(block.first, change.end, head + data[block.entries : change.first] + change.new)

    def _entries(self, node: Any, data: bytes, at: int) -> Iterator[tuple[_Block, str, int]]:
        """Yield each entry of a map: its block, its key, and where its value begins."""
        while True:
            first = at
            count, at = _read_long(data, at)
            if not count:
                return
            size = None
            if count < 0:
                count = -count
                size, at = _read_long(data, at)
            block = _Block(first, at, count, size)
            for _ in range(count):
                length, begin = _read_long(data, at)
                place = begin + length
                yield block, data[begin:place].decode(errors="replace"), place
                at = self._skip(node["values"], data, place)

    def _skip(self, node: Any, data: bytes, at: int) -> int:
        """Return where the value at `at` ends. Raises `ValueError` if that is beyond the end of the data."""
        node = self._of(node)
        kind = _kind(node)
        if kind in _FIXED_WIDTH:
            end = at + _FIXED_WIDTH[kind]
        elif kind in ("int", "long", "enum"):
            _, end = _read_long(data, at)
        elif kind in ("string", "bytes"):
            length, first = _read_long(data, at)
            end = first + length
        elif kind == "fixed":
            end = at + int(node["size"])
        elif kind == "union":
            number, inner = _read_long(data, at)
            end = self._skip(node[number], data, inner)
        elif kind in RECORDS:
            end = at
            for field in node["fields"]:
                end = self._skip(field["type"], data, end)
        else:
            end = self._skip_blocks(node, data, at)
        if end > len(data):
            raise ValueError(_INCOMPLETE)
        return end

    def _skip_blocks(self, node: Any, data: bytes, at: int) -> int:
        """Return where an array or a map ends."""
        while True:
            count, at = _read_long(data, at)
            if not count:
                return at
            if count < 0:
                size, at = _read_long(data, at)
                # A block with a written size is skipped without reading its entries.
                at += size
                continue
            for _ in range(count):
                if _kind(node) == "map":
                    at = self._skip("string", data, at)
                at = self._skip(_inner(node), data, at)

    def _value(self, node: Any, text: str) -> bytes:
        """Return a text as an encoded value of a type. Raises `ValueError`."""
        if _kind(node) == "union":
            return self._union_value(node, text)
        try:
            if _kind(node) in _READERS:
                return self.encoded(node, _READERS[_kind(node)](text))
            return self.encoded(node, _json(text))
        except (ValueError, RecursionError):
            raise ValueError(f"not a valid {_type_name(node)}") from None

    def _union_value(self, node: list[Any], text: str) -> bytes:
        try:
            # JSON allows spaces around a value. Here ` 7 ` is a string, never the number 7.
            if text == text.strip():
                return self.encoded(node, _json(text))
        except (ValueError, RecursionError):
            pass
        for kind in ("string", "enum", "bytes", "fixed"):
            for number, branch in enumerate(map(self._of, node)):
                if _kind(branch) == kind:
                    try:
                        return long_bytes(number) + self.encoded(branch, _READERS[kind](text))
                    except ValueError:
                        continue
        raise ValueError(f"not a valid {' or '.join(_type_name(self._of(branch)) for branch in node)}")

    def encoded(self, node: Any, value: Any) -> bytes:
        """Return a value of JSON's types (and base64 or bytes, for bytes) encoded as `node`. Raises `ValueError`."""
        node = self._of(node)
        kind = _kind(node)
        if kind == "union":
            return self._branch(node, value)
        if kind in RECORDS:
            if not isinstance(value, dict) or value.keys() != {field["name"] for field in node["fields"]}:
                raise ValueError
            return b"".join(self.encoded(field["type"], value[field["name"]]) for field in node["fields"])
        if kind == "array" and isinstance(value, list):
            items = [self.encoded(node["items"], item) for item in value]
            return (long_bytes(len(items)) if items else b"") + b"".join(items) + b"\x00"
        if kind == "map" and isinstance(value, dict):
            items = [sized_bytes(key.encode()) + self.encoded(node["values"], item) for key, item in value.items()]
            return (long_bytes(len(items)) if items else b"") + b"".join(items) + b"\x00"
        return _primitive(kind, node, value)

    def _branch(self, node: list[Any], value: Any) -> bytes:
        """Return a value encoded as the first branch that accepts it. An integer prefers an integer branch."""
        branches = list(enumerate(map(self._of, node)))
        # Avro's own JSON for a union: {"acme.Kind": "ONE"}.
        if isinstance(value, dict) and len(value) == 1:
            ((name, inner),) = value.items()
            for number, branch in branches:
                if isinstance(branch, dict) and branch.get("name") == name:
                    return long_bytes(number) + self.encoded(branch, inner)
        for kinds in _KINDS_OF.get(type(value), ()):
            candidates = [(number, branch) for number, branch in branches if _kind(branch) in kinds]
            for number, branch in candidates:
                try:
                    return long_bytes(number) + self.encoded(branch, value)
                except ValueError:
                    continue
            if candidates and isinstance(value, int):
                break  # too large for an integer is no reason to round it to a double
        raise ValueError

    def _of(self, node: Any) -> Any:
        """Return the definition of a type that may be given by its name."""
        return self._named.get(node, node) if isinstance(node, str) else node


def _kind(node: Any) -> str:
    """Return the kind of a type's definition, `union` for a list of branches."""
    if isinstance(node, list):
        return "union"
    return str(node["type"]) if isinstance(node, dict) else str(node)


def _inner(node: Any) -> Any:
    return node["values"] if _kind(node) == "map" else node["items"]


def _type_name(node: Any) -> str:
    if not isinstance(node, dict):
        return "union" if isinstance(node, list) else str(node)
    if node["type"] == "enum":
        return f"{node['name']} ({', '.join(node['symbols'])})"
    return str(node.get("name", node["type"]))


def _primitive(kind: str, node: Any, value: Any) -> bytes:
    """Return a value of a primitive type encoded. Raises `ValueError`."""
    if kind == "null" and value is None:
        return b""
    if kind == "boolean" and isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    if kind in _BITS and isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << (_BITS[kind] - 1)) <= value < 1 << (_BITS[kind] - 1):
            raise ValueError
        return long_bytes(value)
    if kind in _FLOATS and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            packed = struct.pack(_FLOATS[kind], value)
        except (OverflowError, struct.error):
            raise ValueError from None
        # A fraction may be rounded, as floats always are. A whole number must not change.
        if isinstance(value, int) and struct.unpack(_FLOATS[kind], packed)[0] != value:
            raise ValueError
        return packed
    if kind == "string" and isinstance(value, str):
        return sized_bytes(value.encode())  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    if kind == "enum" and isinstance(value, str):
        return long_bytes(node["symbols"].index(value))
    if kind in ("bytes", "fixed") and isinstance(value, (str, bytes)):
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else value
        if kind == "bytes":
            return sized_bytes(content)
        if len(content) == node["size"]:
            return content
    raise ValueError


def long_bytes(value: int) -> bytes:
    """Return a long as Avro writes it: a zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def sized_bytes(content: bytes) -> bytes:
    """Return bytes or text as Avro writes them: their length, then the content."""
    return long_bytes(len(content)) + content


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    """Return a zigzag varint and where it ends."""
    found = shift = 0
    # A long has at most ten bytes of seven bits.
    while shift < 70:
        if at >= len(data):
            raise ValueError(_INCOMPLETE)
        byte = data[at]
        found |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
        shift += 7
    raise ValueError(_INCOMPLETE)


def _integer(text: str) -> int:
    # A long has at most 19 digits and a sign. `int` alone would take `1_000`, ` 7 ` and other scripts' digits.
    if len(text) > 20 or _INTEGER.fullmatch(text) is None:
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    # Whole numbers stay integers, so that a double that cannot hold one is refused
    # instead of rounded. "-0" is a float only. A double has at most 309 digits.
    if len(text) <= 400 and _INTEGER.fullmatch(text) is not None and text != "-0":
        return int(text)
    if _NUMBER.fullmatch(text) is None:
        raise ValueError
    number = float(text)
    # Python reads 1e999 as infinity, without an error.
    if isinf(number) and not text.endswith("Infinity"):
        raise ValueError
    return number


def _word(words: dict[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in words:
            raise ValueError
        return words[text]

    return read


def _no_constant(text: str) -> Any:
    """Refuse NaN and the infinities, which JSON does not have."""
    raise ValueError(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a name twice: only one of the two values could be written."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _json(text: str) -> Any:
    return json.loads(text, parse_float=_number, parse_constant=_no_constant, object_pairs_hook=_distinct)


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "null": _word({"null": None}),
    "boolean": _word({"true": True, "false": False}),
    "int": _integer,
    "long": _integer,
    "float": _number,
    "double": _number,
    "string": str,
    "enum": str,
    "bytes": str,
    "fixed": str,
}
"""How a text is read as a primitive type that is not in a union."""
_KINDS_OF: Final[dict[type, tuple[tuple[str, ...], ...]]] = {
    type(None): (("null",),),
    bool: (("boolean",),),
    int: (("int", "long"), ("double",), ("float",)),
    float: (("double",), ("float",)),
    str: (("string",), ("enum",), ("bytes",), ("fixed",)),
    list: (("array",),),
    dict: (("map",), RECORDS),
}
"""The kinds of branches that a JSON value may take in a union, in order of preference."""
