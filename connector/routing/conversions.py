"""Converts a decoded Avro value to the type of a vendor's field: the table of `docs/routing.md` as code. Pure.

Nothing is guessed: a value without exactly one meaning in the target type is refused. A number outside of a vendor's
range is passed on, and the vendor's own rule refuses it. Null stays null in every type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from connector.records import LogicalValue

Unit = Literal["ms", "s"]
Converter = Callable[[Any], Any]

_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,19}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EXACT: Final = 2**53
_MOST_DIGITS: Final = 4_000
"""Digits of a decimal, before and after the point. A few bytes can name a scale whose text would fill the memory, and
Python refuses to write integers of more than 4,300 digits."""
_MOST_UNSCALED: Final = 10**_MOST_DIGITS
_LONG: Final = 2**63
_DAY_MICROS: Final = 86_400_000_000
_A_SECOND: Final = {"timestamp-millis": 1_000, "timestamp-micros": 1_000_000, "timestamp-nanos": 1_000_000_000}
"""How many units a second has, by logical type; a local time has no place among them."""
_YEARS: Final = range(-62_135_596_800, 253_402_300_800)
"""Epoch seconds of the years 1 to 9999."""


class Unfit(Exception):
    """A value that cannot be converted. `rule` becomes the end of the refusal's code, `why` that of its message."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(why)
        self.rule = rule
        self.why = why


def exact(value: LogicalValue) -> Any:
    """Return a value of a logical type as Python's own: `Decimal`, `date`, `time`, `datetime` or `UUID`.

    Nothing is rounded except times finer than a microsecond, which Python does not have; `_nanos_text` gives their
    exact text. Raises `Unfit` for a value that the logical type does not allow, or outside of Python's range (years 1
    to 9999).
    """
    raw = value.raw
    name = value.type.name
    try:
        if isinstance(raw, bytes):
            if name == "uuid":
                return UUID(bytes=raw)
            return _decimal(int.from_bytes(raw, "big", signed=True), value.type.scale)
        if name == "date":
            return _EPOCH.date() + timedelta(days=raw)
        if name.startswith("time-"):
            micros = raw * 1000 if name == "time-millis" else raw
            if not 0 <= micros < _DAY_MICROS:
                raise Unfit("range", "the time of day is not between 00:00 and 24:00")
            return (_EPOCH + timedelta(microseconds=micros)).time()
        local = name.startswith("local-")
        moment = _EPOCH + timedelta(microseconds=_micros(raw, name))
        return moment.replace(tzinfo=None) if local else moment
    except OverflowError:
        raise Unfit("range", "the time is not in the years 1 to 9999") from None


def _decimal(unscaled: int, scale: int) -> Decimal:
    """Return a decimal exactly: arithmetic on decimals would round to the context's precision."""
    if scale > _MOST_DIGITS or not -_MOST_UNSCALED < unscaled < _MOST_UNSCALED:
        raise Unfit("decimal", f"the decimal has more than {_MOST_DIGITS} digits")
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


def _nanos_text(value: LogicalValue) -> str | None:
    """Return a time that has nanoseconds as text; None if it has none."""
    if not value.type.name.endswith("nanos") or not isinstance(value.raw, int) or value.raw % 1000 == 0:
        return None
    seconds = exact(value).replace(microsecond=0, tzinfo=None).isoformat()
    return f"{seconds}.{value.raw % 10**9:09d}{'' if value.type.name.startswith('local-') else 'Z'}"


def _micros(raw: int, name: str) -> int:
    if name.endswith("millis"):
        return raw * 1000
    return raw // 1000 if name.endswith("nanos") else raw


def to_string(value: Any) -> Any:
    """Return text: numbers in decimal, booleans as true and false, times as ISO 8601 (UTC with Z where zoned)."""
    if type(value) is LogicalValue:
        value = _nanos_text(value) or exact(value)
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return repr(_finite(value))
    if isinstance(value, Decimal):
        return format(_finite_decimal(value), "f")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise _unfit(value, "text")


def to_long(value: Any) -> Any:
    """Return a whole number, also from text of at most 19 digits; not from a fraction or a time."""
    if type(value) is LogicalValue:
        value = exact(value)
    kind = type(value)
    if kind is int or value is None:
        return value
    if kind is str:
        if _DIGITS.fullmatch(value):
            return int(value)
        raise Unfit("type", "the text is not a whole number of at most 19 digits")
    if kind is float:
        # Above 2^53 a double stands for several whole numbers, so it is unknown which one was meant.
        if not math.isfinite(value) or value != math.floor(value) or abs(value) > _EXACT:
            raise Unfit("type", "the number is not whole, or too large to be exact")
        return int(value)
    if isinstance(value, Decimal):
        return _whole(value)
    raise _unfit(value, "a whole number")


def to_boolean(value: Any) -> Any:
    """Return true or false, also from the texts `true` and `false` and the numbers 0 and 1."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return bool(value)
    if type(value) is str:
        if value in ("true", "false"):
            return value == "true"
        raise Unfit("type", "the text is neither true nor false")
    raise _unfit(value, "true or false")


def to_epoch(value: Any, wanted: Unit, unit: Unit) -> Any:
    """Return a point in time as whole milliseconds or seconds since 1970, floored.

    A zoned time needs no unit; a number is in `unit`. Text is digits in `unit`, or ISO 8601 with a zone.
    """
    if type(value) is LogicalValue:
        parts = _A_SECOND.get(value.type.name)
        if parts is not None and isinstance(value.raw, int):
            seconds = value.raw // parts
            if seconds not in _YEARS:  # such as PostgreSQL's infinity
                raise Unfit("range", "the time is not in the years 1 to 9999")
            return seconds if wanted == "s" else value.raw * 1000 // parts
        value = exact(value)
    if type(value) is str:
        value = int(value) if _DIGITS.fullmatch(value) else _parsed(value)
    kind = type(value)
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Unfit("local_time", "a local time without a zone is not a point in time")
        millis = (value - _EPOCH) // _MILLISECOND
        return millis if wanted == "ms" else millis // 1000
    if kind is float:
        value = Decimal(repr(_finite(value)))
    elif isinstance(value, Decimal):
        _finite_decimal(value)
    elif kind is not int:
        raise _unfit(value, "a point in time")
    # Computed exactly: with floats some times would be one millisecond off.
    number = value if kind is int else Fraction(value)
    if wanted == unit:
        return math.floor(number)
    return math.floor(number * 1000 if wanted == "ms" else number // 1000)


def to_json(value: Any) -> Any:
    """Return a value of JSON's types: containers keep their form, zoned times become epoch milliseconds."""
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if kind is float:
        return _finite(value)
    if kind is dict:
        return {key: to_json(inner) for key, inner in value.items()}
    if kind is list:
        return [to_json(inner) for inner in value]
    if kind is tuple:
        return to_json(value[1])
    if kind is orjson.Fragment:
        return value  # a map that was decoded as the JSON that it becomes
    if kind is LogicalValue:
        zoned = value.type.name in _A_SECOND
        return to_epoch(value, "ms", "ms") if zoned else _nanos_text(value) or to_json(exact(value))
    if isinstance(value, Decimal):
        return _json_number(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return _iso(value) if value.tzinfo is None else (value - _EPOCH) // _MILLISECOND
    if isinstance(value, (date, time)):
        return value.isoformat()
    raise _unfit(value, "a JSON value")


def to_map(value: Any) -> Any:
    """Return a record or map with its values in JSON's types."""
    if value is None or type(value) is dict:
        return to_json(value)
    raise _unfit(value, "a map")


def to_strings(value: Any) -> Any:
    """Return a list of strings. A null in it is refused, because leaving it out would move the others."""
    if value is None:
        return None
    if type(value) is not list:
        raise _unfit(value, "a list of texts")
    if any(inner is None for inner in value):
        raise Unfit("type", "a null in a list of texts")
    return [to_string(inner) for inner in value]


def to_string_map(value: Any) -> Any:
    """Return a map of strings: scalars as in `to_string`, records, maps and lists as JSON text; nulls are left out."""
    if value is None:
        return None
    if type(value) is not dict:
        raise _unfit(value, "a map")
    return {key: _text(inner) for key, inner in value.items() if inner is not None}


def to_records(value: Any) -> Any:
    """Return a list of records with their values in JSON's types."""
    if value is None:
        return None
    if type(value) is not list:
        raise _unfit(value, "a list of records")
    return [_record(inner) for inner in value]


def to_string_records(value: Any) -> Any:
    """Return a list of maps of strings from a list of records or maps, each as in `to_string_map`."""
    return None if value is None else [to_string_map(record) for record in to_records(value)]


def converter(kind: str, unit: Unit | None) -> Converter:
    """Return the conversion for a `FieldKind.type`. `unit` is that of a plain number; by default the type's own."""
    if kind == "millis":
        return lambda value: value if type(value) is int and unit != "s" else to_epoch(value, "ms", unit or "ms")
    if kind == "seconds":
        return lambda value: value if type(value) is int and unit != "ms" else to_epoch(value, "s", unit or "s")
    return _BY_KIND[kind]


_BY_KIND: Final[dict[str, Converter]] = {
    "string": to_string,
    "long": to_long,
    "boolean": to_boolean,
    "map": to_map,
    "strings": to_strings,
    "string_map": to_string_map,
    "records": to_records,
    "string_records": to_string_records,
    "any": to_json,
}


def _text(value: Any) -> Any:
    if type(value) is tuple:
        value = value[1]
    return orjson.dumps(to_json(value)).decode() if type(value) in _CONTAINERS else to_string(value)


_CONTAINERS: Final = (dict, list, orjson.Fragment)


def _record(value: Any) -> Any:
    if type(value) is tuple:
        value = value[1]
    if type(value) is not dict:
        raise _unfit(value, "a record")
    return to_json(value)


def _iso(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Unfit("type", "the text is neither a whole number nor a time in ISO 8601") from None


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise Unfit("nan", "NaN and infinity have no representation")


def _finite_decimal(value: Decimal) -> Decimal:
    if value.is_finite():
        return value
    raise Unfit("nan", "NaN and infinity have no representation")


def _whole(value: Decimal) -> int:
    if not value.is_finite() or value != value.to_integral_value():
        raise Unfit("type", "the decimal is not a whole number")
    return int(value)


def _json_number(value: Decimal) -> int | float:
    """Return a decimal as an exact JSON number: a whole one of 64 bits, or one whose digits a double keeps."""
    _finite_decimal(value)
    number: int | float = float(value)
    if value == value.to_integral_value() and -_LONG <= value < _LONG:
        number = int(value)
    elif Decimal(repr(number)) != value:
        raise Unfit("decimal", "the decimal has more digits than a JSON number keeps; map it to a text")
    return number


def _unfit(value: Any, wanted: str) -> Unfit:
    if isinstance(value, LogicalValue):
        value = exact(value)
    if isinstance(value, (bytes, bytearray)):
        return Unfit("bytes", f"bytes are not {wanted}")
    return Unfit("type", f"{_KINDS.get(type(value), 'this kind of value')} is not {wanted}")


_KINDS: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    Decimal: "a decimal",
    str: "a text",
    dict: "a record or map",
    list: "a list",
    datetime: "a timestamp",
    date: "a date",
    time: "a time of day",
    UUID: "a UUID",
}
