"""What all vendors share for checking events: rules that can be switched off, names of value types, JSON bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from connector.errors import Refusal

# The range of Avro's `long`. The documents of Jiguang and Quick Audience use the same name for whole numbers.
LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
_JSON_SCALARS: Final = frozenset({str, int, float})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Rules:
    """The local rules of one vendor, without those that the destination's `rules:` switches off.

    `texts` says what each rule allows, by `<field>.<rule>`; the rule's id is `<vendor>.<field>.<rule>`.
    """

    __slots__ = ("_off", "_texts", "_vendor")

    def __init__(self, vendor: str, texts: Mapping[str, str], off: Iterable[str]) -> None:
        self._vendor = vendor
        self._texts = texts
        self._off = frozenset(off)

    def on(self, rule: str) -> bool:
        """Return whether the rule applies."""
        return f"{self._vendor}.{rule}" not in self._off

    def broken(self, rule: str, found: str) -> None:
        """Refuse the event unless the rule is switched off; `found` describes the value without containing it."""
        if self.on(rule):
            name = rule.rpartition(".")[0]
            message = f"{name} {self._texts[rule]}; it is {found}"
            # If the rule is off, the caller continues and sends the value unchanged: the vendor judges it.
            raise Refusal("invalid", f"{self._vendor}.{rule}", message, field=name)


def rule_ids(vendor: str, texts: Mapping[str, str]) -> frozenset[str]:
    """Return the ids under which a vendor's rules are switched off."""
    return frozenset(f"{vendor}.{rule}" for rule in texts)


def rule_texts(vendor: str, texts: Mapping[str, str]) -> dict[str, str]:
    """Return what each rule allows, by its id."""
    return {f"{vendor}.{rule}": text for rule, text in texts.items()}


_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (type(None), "null or missing"),
    # Subclasses come before their bases: a boolean is an int, a datetime is a date.
    (bool, "a boolean"),
    (int, "a whole number"),
    (float, "a number with a fraction"),
    (str, "a string"),
    ((bytes, bytearray, memoryview), "bytes"),
    (datetime, "a date and time"),
    (date, "a date"),
    (Decimal, "a decimal"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
)


def type_name(value: object) -> str:
    """Return the type of a value in plain English, without the value: it may be personal."""
    if value == "":
        return "an empty string"
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a {type(value).__name__}"


kind = type_name
"""The name of the interface's first version, for vendors of other distributions."""


def epoch_millis(value: datetime) -> int:
    """Return the milliseconds since 1970, rounded down. Raises `ValueError` for a time without a zone."""
    if value.tzinfo is None:
        raise ValueError("a date and time without a zone")
    return (value - _EPOCH) // _MILLISECOND


def scalar(value: object) -> str | int | float | bool | None:
    """Return a value of Avro's logical types as a JSON scalar.

    A time with a zone becomes epoch milliseconds, a date `yyyy-MM-dd`. A time of day and a UUID become strings, and a
    decimal a number if that is exact. Anything else raises `ValueError` with its type.
    """
    if value is None or isinstance(value, bool) or type(value) in _JSON_SCALARS:
        return value  # type: ignore[return-value]  # it is one of those types
    if isinstance(value, datetime):
        return epoch_millis(value)
    # A datetime is a date too, so it was handled above.
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _exact_number(value)
    raise ValueError(type_name(value))


def scalar_or_same(value: Any) -> Any:
    """Return a value as `scalar` does; unchanged if it is not a scalar, for a rule to refuse."""
    try:
        return value if type(value) is str else scalar(value)
    except ValueError:
        return value


def _exact_number(value: Decimal) -> int | float:
    """Return a decimal as an equal number. Raises `ValueError` if a double would round it."""
    if value.is_finite():
        # Check the size first: `int(Decimal("1E+999999"))` would build a number of a million digits.
        if -18 <= value.adjusted() <= 18 and value == value.to_integral_value():
            return int(value)
        number = float(value)
        # Compared by the digits that JSON will show: 0.1 passes, although no double is exactly 0.1.
        if Decimal(repr(number)) == value:
            return number
    raise ValueError("a decimal that a JSON number cannot represent exactly")


def json_bytes(vendor: str, value: Any) -> bytes:
    """Return `value` as compact JSON. Refuses what JSON cannot represent as `<vendor>.event.json`, always.

    The copy matters: the bytes that orjson returns keep about 4 KB of memory for 200 bytes of JSON.
    """
    try:
        return b"%b" % orjson.dumps(value)
    except (TypeError, RecursionError, ValueError) as error:
        raise Refusal("invalid", f"{vendor}.event.json", f"the event cannot be written as JSON: {error}") from None
