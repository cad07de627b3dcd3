"""Writes a decoder in Python for one schema: about half of fastavro's time, which is the dearest step of a record.

The code that comes out reads a payload from left to right with everything in local variables. It covers what events are
made of; for logical types, schema resolution and very large schemas `generate` returns None, and fastavro decodes. It
is the reference: a property test holds both against each other, on good payloads and on broken ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from struct import Struct
from typing import Any, Final

Read = Callable[[bytes, int], tuple[Any, int]]

_MAX_LINES: Final = 4000
_MAX_VARINT: Final = 63
_POPULAR: Final = ("string", "long", "int", "double", "boolean", "null")
"""Branches of a union that are tried first: the order costs time, not correctness."""


class _Unsupported(Exception):
    """The schema has something that no code is written for."""


def generate(tree: Any, *, tagged: bool = False) -> Read | None:
    """Return a decoder for a schema that fastavro accepts, without recursion; None where it is fastavro's to decode.

    The decoder returns the datum and the index after it, and raises anything where the payload is broken or ends early.
    `tagged`: a record in a union of several records becomes `(full name, datum)`.
    """
    writer = _Writer(tagged=tagged)
    try:
        with writer.block("def read(b, i):"):
            writer.value(tree, "datum")
            writer.line("if i > len(b):")
            writer.line("    raise IndexError('the payload ends early')")
            writer.line("return datum, i")
        scope: dict[str, Any] = {
            "long": _long,
            "double": Struct("<d").unpack_from,
            "float_": Struct("<f").unpack_from,
            **writer.constants,
        }
        # The text is made of a schema's structure; names in it only appear as literals made by repr.
        exec(compile("\n".join(writer.lines), "<decoder>", "exec"), scope)  # noqa: S102
    except (_Unsupported, SyntaxError, RecursionError, MemoryError):
        return None
    read: Read = scope["read"]
    return read


def _long(b: bytes, i: int, n: int) -> tuple[int, int]:
    """Return the rest of a variable-length number whose first byte was `n`, and the index after it."""
    n &= 127
    shift = 7
    while True:
        byte = b[i]
        i += 1
        n |= (byte & 127) << shift
        if byte < 128:
            return n, i
        shift += 7
        if shift > _MAX_VARINT:
            raise ValueError("a number of more than 64 bits")


class _Writer:
    """Writes the code line by line. Every value ends in the variable it was asked for."""

    def __init__(self, *, tagged: bool) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._tagged = tagged
        self._indent = ""
        self._named: dict[str, Any] = {}
        self._count = 0

    def line(self, text: str) -> None:
        """Write one line."""
        if len(self.lines) >= _MAX_LINES:
            raise _Unsupported
        self.lines.append(self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write a line and, indented, what is written inside."""
        self.line(head)
        before, self._indent = self._indent, self._indent + " "
        yield
        self._indent = before

    def value(self, node: Any, target: str) -> None:
        """Write what reads one value of the type into `target`."""
        if isinstance(node, list):
            self._union(node, target)
            return
        kind = node
        if isinstance(node, dict):
            if "logicalType" in node:
                raise _Unsupported
            kind = node["type"]
            if isinstance(kind, dict | list):
                self.value(kind, target)
                return
            if "name" in node:
                self._named[_full_name(node)] = node
        if kind in self._named and not isinstance(node, dict):
            self.value(self._named[kind], target)
            return
        method = _METHODS.get(kind)
        if method is None:
            raise _Unsupported
        method(self, node, target)

    def _number(self, variable: str) -> None:
        """Write what reads a variable-length number as it stands, before zigzag."""
        self.line(f"{variable} = b[i]")
        self.line("i += 1")
        self.line(f"if {variable} > 127: {variable}, i = long(b, i, {variable})")

    def _null(self, _node: Any, target: str) -> None:
        self.line(f"{target} = None")

    def _boolean(self, _node: Any, target: str) -> None:
        self.line(f"{target} = b[i] != 0")
        self.line("i += 1")

    def _integer(self, _node: Any, target: str) -> None:
        """Write the loop in line: ids and times have six bytes, and a call costs as much as two of them."""
        self.line("n = b[i]")
        self.line("i += 1")
        with self.block("if n > 127:"):
            self.line("n &= 127")
            self.line("j = 7")
            with self.block("while True:"):
                self.line("m = b[i]")
                self.line("i += 1")
                self.line("n |= (m & 127) << j")
                self.line("if m < 128: break")
                self.line("j += 7")
                self.line(f"if j > {_MAX_VARINT}: raise ValueError('a number of more than 64 bits')")
        self.line(f"{target} = (n >> 1) ^ -(n & 1)")

    def _float(self, _node: Any, target: str) -> None:
        self.line(f"{target} = float_(b, i)[0]")
        self.line("i += 4")

    def _double(self, _node: Any, target: str) -> None:
        self.line(f"{target} = double(b, i)[0]")
        self.line("i += 8")

    def _slice(self, target: str, suffix: str) -> None:
        self._number("n")
        self.line("if n & 1: raise ValueError('a negative length')")
        self.line("j = i + (n >> 1)")
        self.line(f"{target} = b[i:j]{suffix}")
        self.line("i = j")

    def _bytes(self, _node: Any, target: str) -> None:
        self._slice(target, "")

    def _string(self, _node: Any, target: str) -> None:
        self._slice(target, ".decode()")

    def _fixed(self, node: Any, target: str) -> None:
        self.line(f"{target} = b[i:i + {int(node['size'])}]")
        self.line(f"i += {int(node['size'])}")

    def _enum(self, node: Any, target: str) -> None:
        name = self._name("symbols")
        self.constants[name] = tuple(node["symbols"])
        self._number("n")
        self.line("if n & 1: raise IndexError('a negative symbol')")
        self.line(f"{target} = {name}[n >> 1]")

    def _record(self, node: Any, target: str) -> None:
        fields = [(field["name"], self._name("f")) for field in node["fields"]]
        for field, (_, variable) in zip(node["fields"], fields, strict=True):
            self.value(field["type"], variable)
        self.line(f"{target} = {{{', '.join(f'{name!r}: {variable}' for name, variable in fields)}}}")

    def _array(self, node: Any, target: str) -> None:
        item = self._name("v")
        self.line(f"{target} = []")
        with self._blocks():
            self.value(node["items"], item)
            self.line(f"{target}.append({item})")

    def _map(self, node: Any, target: str) -> None:
        key, item = self._name("k"), self._name("v")
        self.line(f"{target} = {{}}")
        with self._blocks():
            self._slice(key, ".decode()")
            self.value(node["values"], item)
            self.line(f"{target}[{key}] = {item}")

    @contextmanager
    def _blocks(self) -> Iterator[None]:
        """Write the loops over an array's or map's blocks; a negative count is followed by the block's size."""
        count = self._name("c")
        with self.block("while True:"):
            self._number(count)
            self.line(f"if {count} == 0: break")
            with self.block(f"if {count} & 1:"):
                self._number("n")
                self.line(f"{count} += 1")
            with self.block(f"for _ in range({count} >> 1):"):
                yield

    def _union(self, branches: list[Any], target: str) -> None:
        if not branches:
            raise _Unsupported
        choice = self._tagged and sum(self._is_record(branch) for branch in branches) > 1
        order = sorted(range(len(branches)), key=lambda index: (_popularity(branches[index]), index))
        index = self._name("u")
        self._number(index)
        word = "if"
        for place in order:
            with self.block(f"{word} {index} == {2 * place}:"):
                self.value(branches[place], target)
                if choice and self._is_record(branches[place]):
                    self.line(f"{target} = ({self._record_name(branches[place])!r}, {target})")
            word = "elif"
        with self.block("else:"):
            self.line("raise IndexError('no such branch')")

    def _is_record(self, branch: Any) -> bool:
        node = self._named.get(branch) if isinstance(branch, str) else branch
        return isinstance(node, dict) and node.get("type") in ("record", "error")

    def _record_name(self, branch: Any) -> str:
        return branch if isinstance(branch, str) else _full_name(branch)

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


def _full_name(node: Mapping[str, Any]) -> str:
    name, namespace = str(node["name"]), node.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _popularity(branch: Any) -> int:
    return _POPULAR.index(branch) if isinstance(branch, str) and branch in _POPULAR else len(_POPULAR)


_METHODS: Final[Mapping[Any, Callable[[_Writer, Any, str], None]]] = {
    "null": _Writer._null,  # noqa: SLF001
    "boolean": _Writer._boolean,  # noqa: SLF001
    "int": _Writer._integer,  # noqa: SLF001
    "long": _Writer._integer,  # noqa: SLF001
    "float": _Writer._float,  # noqa: SLF001
    "double": _Writer._double,  # noqa: SLF001
    "bytes": _Writer._bytes,  # noqa: SLF001
    "string": _Writer._string,  # noqa: SLF001
    "enum": _Writer._enum,  # noqa: SLF001
    "fixed": _Writer._fixed,  # noqa: SLF001
    "record": _Writer._record,  # noqa: SLF001
    "error": _Writer._record,  # noqa: SLF001
    "array": _Writer._array,  # noqa: SLF001
    "map": _Writer._map,  # noqa: SLF001
}
