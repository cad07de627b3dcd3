"""What the vendors' local checks share: rules that can be switched off, kinds of values in words, JSON bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson

from connector.errors import Refusal

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
_JSON_SCALARS: Final = frozenset({str, int, float})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Rules:
    """The local rules of one vendor, without those that the destination's `rules:` switches off.

    `texts` gives for each rule, as `<field>.<rule>`, what it demands; its id is `<vendor>.<field>.<rule>`.
    """

    __slots__ = ("_off", "_texts", "_vendor")

    def __init__(self, vendor: str, texts: Mapping[str, str], off: Iterable[str]) -> None:
        self._vendor = vendor
        self._texts = texts
        self._off = frozenset(off)

    def on(self, rule: str) -> bool:
        """Tell whether the rule is in force."""
        return f"{self._vendor}.{rule}" not in self._off

    def broken(self, rule: str, found: str) -> None:
        """Refuse the event for the rule, unless it is switched off; `found` says what was found, never the value."""
        if self.on(rule):
            name = rule.rpartition(".")[0]
            message = f"{name} {self._texts[rule]}; it is {found}"
            raise Refusal("invalid", f"{self._vendor}.{rule}", message, field=name)


def rule_ids(vendor: str, texts: Mapping[str, str]) -> frozenset[str]:
    """Return the ids under which a vendor's rules are switched off."""
    return frozenset(f"{vendor}.{rule}" for rule in texts)


_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (type(None), "null or missing"),
    (bool, "a boolean"),
    (int, "a whole number"),
    (float, "a fraction"),
    (str, "text"),
    ((bytes, bytearray, memoryview), "bytes"),
    (datetime, "a date with time"),
    (date, "a date"),
    (Decimal, "a decimal"),
    (Mapping, "an object"),
    ((list, tuple), "a list"),
)


def kind(value: object) -> str:
    """Return in words what sort of value it is, without the value: it may be personal."""
    if value == "":
        return "empty text"
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a {type(value).__name__}"


def epoch_millis(value: datetime) -> int:
    """Return the milliseconds since 1970, rounded down. A time without a zone is refused by `ValueError`."""
    if value.tzinfo is None:
        raise ValueError("a date with time but without a zone")
    return (value - _EPOCH) // _MILLISECOND


def scalar(value: object) -> str | int | float | bool | None:
    """Return a value of Avro's logical types as one of JSON's scalars.

    A time with a zone becomes epoch milliseconds, a date `yyyy-MM-dd`, a time of day, a UUID and an enum symbol text,
    a decimal a number where the number says exactly the same. Everything else is a `ValueError` that says what it was.
    """
    if value is None or isinstance(value, bool) or type(value) in _JSON_SCALARS:
        return value  # type: ignore[return-value]  # it is one of those types
    if isinstance(value, datetime):
        return epoch_millis(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return scalar(value.value)
    if isinstance(value, Decimal):
        return _exact(value)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise ValueError(kind(value))


def plain(value: Any) -> Any:
    """Return a value as `scalar` does, and what has no such form as it is, for a rule to name."""
    try:
        return value if type(value) is str else scalar(value)
    except ValueError:
        return value


def _exact(value: Decimal) -> int | float:
    """Return a decimal as the number that says the same; what a double would round is refused, not changed."""
    if value.is_finite():
        if -18 <= value.adjusted() <= 18 and value == value.to_integral_value():
            return int(value)
        number = float(value)
        if Decimal(repr(number)) == value:
            return number
    raise ValueError("a decimal that no JSON number holds exactly")


def json_bytes(vendor: str, value: Any) -> bytes:
    """Return `value` as compact JSON, copied: what orjson returns keeps about 4 KB for 200 bytes.

    What JSON cannot hold is refused as `<vendor>.event.json`, which no setting switches off.
    """
    try:
        return b"%b" % orjson.dumps(value)
    except (TypeError, RecursionError, ValueError) as error:
        raise Refusal("invalid", f"{vendor}.event.json", f"the event has no form in JSON: {error}") from None
