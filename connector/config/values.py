"""The kinds of value that settings are made of: durations, sizes, points in time, and the base of every model.

Durations are seconds and sizes bytes once they are read.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?")
_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}


def parse_duration(value: object) -> object:
    """Return seconds for text such as `200ms`, `1.5s`, `1h`; a number is seconds already."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        return float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a duration is a number with ms, s, m, h or d, such as 200ms")
    return value


def parse_size(value: object) -> object:
    """Return bytes for text such as `1MiB` or `10kB`; a number is bytes already."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a size is a whole number with B, kB, KiB, MB, MiB, GB or GiB, such as 1MiB")
    return value


def parse_start(value: object) -> object:
    """Return epoch milliseconds for a point in time; `earliest` and `latest` stay as they are."""
    if value is None or value in ("earliest", "latest"):
        return value
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return int(moment.timestamp() * 1000)
    raise ValueError(
        "allowed: earliest, latest, epoch milliseconds, or a time with its zone such as 2026-11-20T00:00:00Z"
    )


def _off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false; both mean the same here."""
    return "off" if value is False else value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": rf"^{_DURATION.pattern}$"},
                {"type": "number", "exclusiveMinimum": 0},
            ],
            "x-kind": "duration",
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": rf"^{_SIZE.pattern}$"}, {"type": "integer", "exclusiveMinimum": 0}],
            "x-kind": "size",
        }
    ),
]
Start = Annotated[
    Literal["earliest", "latest"] | int,
    BeforeValidator(parse_start),
    WithJsonSchema({"type": ["string", "integer"], "x-kind": "earliest, latest or a point in time"}),
]
Off = Annotated[Literal["off"], BeforeValidator(_off), WithJsonSchema({"enum": ["off", False], "x-kind": "off"})]


class Model(BaseModel):
    """Base of all settings: frozen, unknown keys refused; a number is taken where text is wanted (ids)."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)
