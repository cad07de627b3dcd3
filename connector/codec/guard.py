"""Counts the steps of a payload before it is decoded, where the schema lets few bytes claim many. Pure.

Slow, in plain Python: only payloads of schemas that `schemas.read_schema` calls guarded come here, such as one with
an array of nulls.
"""

from __future__ import annotations

from typing import Any, Final

STEPS: Final = 65_536
"""Steps that any payload may take; and `STEPS_A_BYTE` more for each of its bytes."""

STEPS_A_BYTE: Final = 8

_FIXED_SIZES: Final = {"null": 0, "boolean": 1, "float": 4, "double": 8}


class TooManySteps(ValueError):
    """The payload claims far more values than it has bytes for."""


class Guard:
    """Walks payloads of one schema (a `Schema.tree`)."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._named: dict[str, Any] = {}
        self._collect(tree)

    def check(self, payload: bytes) -> None:
        """Raise `TooManySteps` where decoding would take too many, and `ValueError` where the payload is broken."""
        _Reading(payload, self._named).value(self._tree)

    def _collect(self, node: Any) -> None:
        if isinstance(node, list):
            for branch in node:
                self._collect(branch)
        elif isinstance(node, dict):
            if "name" in node:
                self._named[node["name"]] = node
            for inner in ("items", "values"):
                self._collect(node.get(inner))
            for field in node.get("fields", ()):
                self._collect(field["type"])


class _Reading:
    """One payload, and how far it was read."""

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
