"""Changes one value of an encoded event and encodes it again with the schema it was written with. Pure.

A text becomes a value of the schema's type; for a string it is taken literally. For a union it is read as JSON if that
gives a value of the union (`7`, `"7"`, `null`, `["a"]`), and as a string otherwise.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer, validate

from connector.codec.schemas import named_types, without_logical_types

_RECORDS: Final = ("record", "error")
_NUMBERS: Final = {"int": int, "long": int, "float": float, "double": float}
_LITERALS: Final[dict[str, dict[str, Any]]] = {"null": {"null": None}, "boolean": {"true": True, "false": False}}
_ABSENT: Final = object()


def edit(value: bytes, start: int, tree: Any, edits: Iterable[tuple[str, str]]) -> bytes:
    """Return the value with each (path, text) set in the datum that begins at `start`; the bytes before it stay.

    Paths are as in routes: dotted, through records and maps; a missing key of a map is added. Raises `ValueError` with
    a message for people if a path does not exist, a text is not a value of its type, or the rest of the datum would
    change. The value must decode with the schema `tree`.
    """
    schema = parse_schema(without_logical_types(tree))
    editor = _Editor(without_logical_types(tree))
    datum = _decoded(schema, value[start:])
    for path, text in edits:
        datum = editor.put(path, datum, text)
    out = BytesIO()
    try:
        schemaless_writer(out, schema, datum)
        again = _decoded(schema, out.getvalue())
    except Exception as error:  # noqa: BLE001 - fastavro raises anything for a datum that does not match
        raise ValueError(f"the changed event does not match the schema: {type(error).__name__}") from None
    # NaN does not equal itself, so then the printed form decides.
    if again != datum and repr(again) != repr(datum):
        raise ValueError("encoding the changed event would change more of it")
    return value[:start] + out.getvalue()


def _decoded(schema: Any, payload: bytes) -> Any:
    return schemaless_reader(BytesIO(payload), schema, None, return_record_name=True, return_record_name_override=True)


class _Editor:
    """Sets values in data of one schema."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._named = named_types(tree)

    def put(self, path: str, datum: Any, text: str) -> Any:
        """Return the datum with the value at a path replaced. Raises `ValueError` that names the path."""
        try:
            return self._put(self._tree, datum, path.split("."), text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _put(self, node: Any, datum: Any, parts: list[str], text: str) -> Any:
        node = self._of(node)
        if not parts:
            return self._value(node, text)
        if isinstance(node, list):
            return self._put_in_union(node, datum, parts, text)
        kind = node["type"] if isinstance(node, dict) else node
        if kind in _RECORDS:
            field = next((field for field in node["fields"] if field["name"] == parts[0]), None)
            if field is None:
                known = ", ".join(each["name"] for each in node["fields"])
                raise ValueError(f"record {node['name']} has no field {parts[0]}; it has {known}")
            return {**datum, parts[0]: self._put(field["type"], datum[parts[0]], parts[1:], text)}
        if kind == "map":
            # The longest key first: a map may have both "a.b" and "a".
            for count in (len(parts), *range(1, len(parts))):
                key = ".".join(parts[:count])
                if key in datum:
                    return {**datum, key: self._put(node["values"], datum[key], parts[count:], text)}
            return {**datum, ".".join(parts): self._put(node["values"], _ABSENT, [], text)}
        raise ValueError(f"{kind} has no fields, so there is no {parts[0]} in it")

    def _put_in_union(self, node: list[Any], datum: Any, parts: list[str], text: str) -> Any:
        if isinstance(datum, tuple):
            return datum[0], self._put(datum[0], datum[1], parts, text)
        branches = [self._of(branch) for branch in node]
        candidates = [
            branch for branch in branches if isinstance(branch, dict) and branch["type"] in (*_RECORDS, "map")
        ]
        if datum is None and len(candidates) == 1 and candidates[0]["type"] == "map":
            datum = {}
        if not isinstance(datum, dict) or len(candidates) != 1:
            raise ValueError(f"the present value has no {parts[0]} in it")
        return self._put(candidates[0], datum, parts, text)

    def _value(self, node: Any, text: str) -> Any:
        """Return a text as a value of a type."""
        if isinstance(node, list):
            return self._of_union(node, text)
        kind = node["type"] if isinstance(node, dict) else node
        try:
            value = _simple(kind, node, text)
        except (ValueError, binascii.Error):
            value = _ABSENT
        if value is _ABSENT or not self._fits(value, node):
            raise ValueError(f"not a valid {_type_name(node)}")
        return value

    def _of_union(self, node: list[Any], text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError:
            value = _ABSENT
        if value is not _ABSENT and self._fits(value, node):
            return value
        for branch in node:
            try:
                return self._value(self._of(branch), text)
            except ValueError:
                continue
        raise ValueError(f"not a valid {' or '.join(_type_name(self._of(branch)) for branch in node)}")

    def _fits(self, value: Any, node: Any) -> bool:
        schema = parse_schema(node, named_schemas={}) if isinstance(node, dict) and "name" in node else node
        try:
            return bool(validate(value, schema, raise_errors=False))
        except Exception:  # noqa: BLE001 - a type defined elsewhere, or a value that fastavro cannot check
            return False

    def _of(self, node: Any) -> Any:
        """Return the definition of a type that is given by its name."""
        return self._named.get(node, node) if isinstance(node, str) else node


def _simple(kind: str, node: Any, text: str) -> Any:
    """Return a text as a value of a type that is not a union. Raises `ValueError`."""
    if kind == "string":
        return text
    if kind in _NUMBERS:
        return _NUMBERS[kind](text)
    if kind in ("null", "boolean"):
        return _LITERALS[kind].get(text, _ABSENT)
    if kind == "enum":
        return text if text in node["symbols"] else _ABSENT
    if kind in ("bytes", "fixed"):
        return base64.b64decode(text, validate=True)
    return json.loads(text)


def _type_name(node: Any) -> str:
    if not isinstance(node, dict):
        return str(node)
    if node["type"] == "enum":
        return f"{node['name']} ({', '.join(node['symbols'])})"
    return str(node.get("name", node["type"]))
