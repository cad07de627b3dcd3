"""Encodes an event that a person wrote as JSON, plain or in Avro's own JSON encoding. Pure.

- A union takes the plain value, or `{"string": "a"}` as Avro writes it.
- A field that is not given takes its default, else null where the type allows it.
- Times are ISO 8601 or numbers, decimals numbers or digits, UUIDs text. Bytes are text of one character per byte, as in
  Avro's JSON, or `{"base64": "…"}`.

A fault names the place in the event and the type that is needed.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from connector.codec.editing import long_bytes, sized_bytes
from connector.codec.reader import logical_type
from connector.codec.schemas import RECORDS, named_types
from connector.config.errors import kind as json_kind
from connector.config.errors import suggest
from connector.records import LogicalType

_INTEGERS: Final = {"int": 31, "long": 63}
_FLOATS: Final = {"float": "<f", "double": "<d"}
_MOST_DIGITS: Final = 1000
_WORDS: Final = {
    "boolean": "true or false",
    "enum": "a symbol",
    "string": "a string",
    "int": "a whole number",
    "long": "a whole number",
    "float": "a number",
    "double": "a number",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND: Final = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}


class JsonFault(ValueError):
    """The JSON is not a value of the schema. The message names the place and contains no value."""


def encode_json(tree: Any, value: Any) -> bytes:
    """Return a value of JSON's types as Avro data of the schema `tree` (`Schema.tree`). Raises `JsonFault`."""
    return _Encoder(named_types(tree)).encode(tree, value, "")


class _Encoder:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named

    def encode(self, node: Any, value: Any, path: str) -> bytes:
        """Return the value encoded as the type `node`."""
        node = self._named.get(node, node) if isinstance(node, str) else node
        if isinstance(node, list):
            return self._union(node, value, path)
        kind = node if isinstance(node, str) else node["type"]
        if kind in RECORDS:
            return self._record(node, value, path)
        if kind == "array":
            if not isinstance(value, list):
                raise _unfit(path, "a list", value)
            items = [self.encode(node["items"], item, f"{path}[{index}]") for index, item in enumerate(value)]
            return _blocks(items)
        if kind == "map":
            if not isinstance(value, dict):
                raise _unfit(path, "an object", value)
            below = [(name, self.encode(node["values"], inner, _join(path, name))) for name, inner in value.items()]
            return _blocks([sized_bytes(name.encode()) + inner for name, inner in below])
        wanted = logical_type(node) if isinstance(node, dict) else None
        if wanted is not None:
            value = _written(wanted, kind, node, value, path)
        return _primitive(kind, node, value, path)

    def _record(self, node: Any, value: Any, path: str) -> bytes:
        if not isinstance(value, dict):
            raise _unfit(path, f"an object with the fields of {node['name']}", value)
        fields = {field["name"]: field for field in node["fields"]}
        unknown = next((name for name in value if name not in fields), None)
        if unknown is not None:
            raise JsonFault(f"{_join(path, unknown)}: {node['name']} has no such field; {suggest(unknown, fields)}")
        parts = []
        for name, field in fields.items():
            where = _join(path, name)
            if name in value:
                parts.append(self.encode(field["type"], value[name], where))
            elif "default" in field:
                parts.append(self._default(field, where))
            elif isinstance(field["type"], list) and "null" in field["type"]:
                parts.append(long_bytes(field["type"].index("null")))
            else:
                raise JsonFault(f"{where}: is required: {node['name']} has no default for it")
        return b"".join(parts)

    def _default(self, field: Any, path: str) -> bytes:
        """Return a field's default, which for a union is a value of its first branch (or, since Avro 1.12, of any)."""
        kind, default = field["type"], field["default"]
        if isinstance(kind, list):
            return self._union(kind, default, path, tagged=False)
        return self.encode(kind, default, path)

    def _union(self, node: list[Any], value: Any, path: str, *, tagged: bool = True) -> bytes:
        if tagged and isinstance(value, dict) and len(value) == 1:
            ((name, inner),) = value.items()
            for index, branch in enumerate(node):
                if name in self._names(branch):
                    return long_bytes(index) + self.encode(branch, inner, path)
        faults = []
        # The type alone does not decide: two branches may both be records, and only one has the given fields. So try
        # them.
        for index in sorted(range(len(node)), key=lambda number: self._rank(node[number], value)):
            try:
                return long_bytes(index) + self.encode(node[index], value, path)
            except JsonFault as fault:
                faults.append(fault)
        # Show the fault that lies deepest: the branch that matched furthest is most likely the one that was meant.
        raise (
            max(faults, key=_depth)
            if any(_depth(fault) > _depth_of(path) for fault in faults)
            else _unfit(path, " or ".join(self._name(branch) for branch in node), value)
        )

    def _rank(self, branch: Any, value: Any) -> int:
        """Return a branch's place in the order of trying: an integer as an integer, text as text, then all others."""
        branch = self._named.get(branch, branch) if isinstance(branch, str) else branch
        kind = branch if isinstance(branch, str) else branch["type"]
        first = {
            bool: ("boolean",),
            int: ("long", "int"),
            float: ("double",),
            Decimal: ("bytes", "fixed", "double"),
            str: ("string", "enum"),
            dict: (*RECORDS, "map"),
        }.get(type(value), ())
        return first.index(kind) if kind in first else len(first)

    def _names(self, branch: Any) -> tuple[str, ...]:
        full = self._name(branch)
        return full, full.rpartition(".")[2]

    @staticmethod
    def _name(branch: Any) -> str:
        return branch if isinstance(branch, str) else str(branch.get("name", branch["type"]))


def _primitive(kind: str, node: Any, value: Any, path: str) -> bytes:
    """Return a value of a primitive type encoded."""
    number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    if kind == "null" and value is None:
        return b""
    if kind == "boolean" and isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    # 5.0 and 5 are the same number in JSON, and some tools write only the first form.
    if kind in _INTEGERS and number and value == int(value):
        whole = int(value)
        if -(1 << _INTEGERS[kind]) <= whole < 1 << _INTEGERS[kind]:
            return long_bytes(whole)
        raise JsonFault(f"{path or 'the event'}: is out of the range of {kind}")
    if kind in _FLOATS and number:
        return struct.pack(_FLOATS[kind], float(value))
    if kind == "string" and isinstance(value, str):
        return sized_bytes(value.encode())
    if kind == "enum":
        if value in node["symbols"]:
            return long_bytes(node["symbols"].index(value))
        if isinstance(value, str):
            raise JsonFault(f"{path}: {node['name']} has no symbol {value!r}; {suggest(value, node['symbols'])}")
    if kind in ("bytes", "fixed") and (content := _bytes(value)) is not None:
        if kind == "bytes":
            return sized_bytes(content)
        if len(content) == node["size"]:
            return content
        raise JsonFault(f"{path}: must have {node['size']} bytes; it has {len(content)}")
    raise _unfit(path, _WORDS.get(kind, kind), value)


def _bytes(value: Any) -> bytes | None:
    """Return bytes from bytes, from Avro's JSON text (ISO 8859-1) or from `{"base64": …}`; None for anything else."""
    try:
        if isinstance(value, dict) and value.keys() == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
        return value if isinstance(value, bytes) else value.encode("latin-1")
    except (AttributeError, TypeError, ValueError):
        return None


def _written(wanted: LogicalType, kind: str, node: Any, value: Any, path: str) -> Any:
    """Return a value of a logical type as Avro writes it, a number or bytes; an unreadable value is unchanged."""
    if wanted.name == "decimal":
        return _decimal(wanted, kind, node, value, path)
    if not isinstance(value, str):
        return value
    try:
        # Only a fixed uuid is written as bytes. A uuid of type string stays a string.
        if wanted.name == "uuid":
            return UUID(value).bytes if kind == "fixed" else value
        if wanted.name == "date":
            return (date.fromisoformat(value) - _EPOCH.date()).days
        _, _, unit = wanted.name.rpartition("-")
        per_second = _PER_SECOND[unit]
        if wanted.name.startswith("time-"):
            # A time of day has no zone in Avro. On the first day of 1970 in UTC its epoch time is its time of day.
            day = datetime.combine(_EPOCH.date(), time.fromisoformat(value), tzinfo=UTC)
            return _count(day, per_second)
        moment = datetime.fromisoformat(value)
    except (KeyError, ValueError):
        return value
    if wanted.name.startswith("local-"):
        return _count(moment.replace(tzinfo=UTC), per_second)
    if moment.tzinfo is None:
        raise JsonFault(f"{path}: the time needs its zone, such as 2026-11-20T10:00:00Z")
    return _count(moment, per_second)


def _count(moment: datetime, per_second: int) -> int:
    past = moment - _EPOCH
    # Computed in whole numbers: a float would lose nanoseconds.
    micros = (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
    return micros * per_second // 1_000_000


def _decimal(wanted: LogicalType, kind: str, node: Any, value: Any, path: str) -> Any:
    """Return a decimal's unscaled number as bytes; text that is no number is taken as bytes in Avro's JSON form."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return value
    try:
        sign, digits, exponent = Decimal(repr(value) if isinstance(value, float) else value).as_tuple()
    except InvalidOperation:
        return value
    if not isinstance(exponent, int) or abs(exponent) > _MOST_DIGITS:
        return value
    # Not by decimal arithmetic, which rounds to the context's precision.
    whole, rest = int("".join(map(str, digits))), exponent + wanted.scale
    whole, cut = (whole * 10**rest, 0) if rest >= 0 else divmod(whole, 10**-rest)
    whole = -whole if sign else whole
    if cut:
        raise JsonFault(f"{path}: has more than {wanted.scale} digits after the point")
    if kind == "fixed":
        size = node["size"]
        if whole.bit_length() >= size * 8:
            raise JsonFault(f"{path}: the decimal does not fit into {size} bytes")
        return whole.to_bytes(size, "big", signed=True)
    # One bit more than the digits need, for the sign: the shortest form, as Avro demands of bytes.
    return whole.to_bytes(whole.bit_length() // 8 + 1, "big", signed=True)


def _blocks(items: list[bytes]) -> bytes:
    return (long_bytes(len(items)) if items else b"") + b"".join(items) + b"\x00"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unfit(path: str, wanted: str, value: Any) -> JsonFault:
    found = "an object" if isinstance(value, dict) else json_kind(value)
    if isinstance(value, (float, Decimal)):
        found = "a number with a fraction"
    return JsonFault(f"{path or 'the event'}: must be {wanted}, not {found}")


def _depth(fault: JsonFault) -> int:
    return _depth_of(str(fault).partition(":")[0])


def _depth_of(path: str) -> int:
    return path.count(".") + path.count("[") + bool(path)
