"""JPush's figures in the form of a result: a flat map of numbers and texts, and JSON text."""

from __future__ import annotations

from typing import Any, Final

import orjson

from connector.vendors.checks import LONG_MAX, LONG_MIN

_DEPTH: Final = 4


def flat(value: Any, prefix: str = "", depth: int = 0) -> dict[str, int | str | None]:
    """Return nested figures under names joined by dots; a list's members by their `time`, else by their place."""
    if depth < _DEPTH and isinstance(value, dict) and (value or not prefix):
        members = list(value.items())
    elif depth < _DEPTH and isinstance(value, list):
        members = [
            (member["time"] if isinstance(member, dict) and isinstance(member.get("time"), str) else str(place), member)
            for place, member in enumerate(value)
        ]
    else:
        return {prefix: _figure(value)}
    found: dict[str, int | str | None] = {}
    for name, member in members:
        found.update(flat(member, f"{prefix}.{name}" if prefix else name, depth + 1))
    return found


def _figure(value: Any) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if type(value) is int and LONG_MIN <= value <= LONG_MAX:
        return value
    return json_text(value)


def json_text(value: Any) -> str:
    """Return JSON text; what is nested beyond the encoder's depth is left out."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, RecursionError):
        return ""
