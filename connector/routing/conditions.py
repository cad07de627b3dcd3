"""The conditions of a route: `where`, and the topics that it is for. Pure.

A condition compares a value by its own kind, so that `"5"` never equals 5 and `true` never equals 1. Only `$key` and
`$header.NAME`, which are text by nature, are compared with the text of a number or boolean.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple
from uuid import UUID

from connector.config.errors import kind
from connector.config.routes import Condition as Wanted
from connector.records import Event, LogicalValue, Record
from connector.routing.conversions import Unfit, exact, to_string
from connector.routing.patterns import bounded_search
from connector.routing.schema_types import name_of, never_equal, never_found, never_ordered, never_text
from connector.routing.sources import Value

Test = Callable[[Any], bool]


class CompiledCondition(NamedTuple):
    """One entry of `where`: `met(event, record)` returns whether it holds, and raises `Unfit` if that is unknown.

    `plain` is a path of names and the strings accepted there, if the entry is no more than that.
    """

    text: str
    met: Callable[[Event, Record], bool]
    plain: tuple[tuple[str, ...], frozenset[str]] | None = None


_SCALARS: Final = (str, bool, int, float, date, datetime)
_NUMBERS: Final = (int, float, Decimal)
_UNKNOWN: Final = object()
"""A value that equals nothing: bytes, a list, a map, or text that is not UTF-8."""
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


class TopicPattern:
    """Names of topics, or patterns that begin with `^` and match as Kafka's subscriptions do: from the start on."""

    def __init__(self, topics: Sequence[str]) -> None:
        """Compile `topics`; raises `ValueError` for a pattern that is not a regular expression."""
        self.names = frozenset(topic for topic in topics if not topic.startswith("^"))
        self._patterns = tuple(_compiled(topic) for topic in topics if topic.startswith("^"))

    def matches(self, topic: str) -> bool:
        """Whether the topic is named, or matched by a pattern."""
        return topic in self.names or any(pattern.match(topic) for pattern in self._patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"{pattern} is not a regular expression: {fault}") from None


def compile_condition(value: Value, wanted: object) -> CompiledCondition:
    """Return a compiled entry of `where`.

    Raises `ValueError` for a condition that can never hold. Null matches null and missing values. Bytes, lists, records
    and maps equal nothing, nor does a key or header that is not UTF-8 text.
    """
    test, get, is_text = _test(value, wanted), value.get, value.is_text

    def met(event: Event, record: Record) -> bool:
        try:
            found = get(event, record)
            if is_text:
                found = to_string(found)
            elif type(found) is LogicalValue:
                found = exact(found)
        except Unfit:
            # A value that cannot be compared equals nothing. A condition on one field must not refuse the record.
            found = _UNKNOWN
        return test(found)

    options = wanted if isinstance(wanted, list) else [wanted]
    texts = frozenset(option for option in options if isinstance(option, str))
    plain = None if value.names is None or len(texts) < len(options) else (value.names, texts)
    return CompiledCondition(value.text, met, plain)


def _test(value: Value, wanted: object) -> Test:
    if not isinstance(wanted, Wanted):
        return _equality(value, wanted if isinstance(wanted, list) else [wanted])
    tests: list[Test] = []
    given = wanted.model_fields_set
    if wanted.exists is not None:
        tests.append(_exists if wanted.exists else _missing)
    if "negated" in given:
        tests.append(_negation(_test(value, wanted.negated)))
    if wanted.one_of is not None:
        tests.append(_equality(value, wanted.one_of))
    if wanted.matches is not None:
        _raise(never_text(value.nodes))
        tests.append(_search(wanted.matches))
        _raise(never_found(value.nodes, tests[-1], wanted.matches))
    tests += [_order(value, name, getattr(wanted, name)) for name in _ORDERS if name in given]
    return tests[0] if len(tests) == 1 else lambda found: all(test(found) for test in tests)


def _raise(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)


def _exists(found: Any) -> bool:
    return found is not None


def _missing(found: Any) -> bool:
    return found is None


def _negation(test: Test) -> Test:
    return lambda found: not test(found)


def _search(pattern: str) -> Test:
    search = bounded_search(pattern)
    return lambda found: search(_text_of(found))


def _text_of(found: Any) -> str | None:
    """Return the text that a regular expression is applied to: a string, or a UUID or time as text."""
    if found is None or isinstance(found, (bool, *_NUMBERS)):
        return None
    compared = comparable(found)
    return compared if isinstance(compared, str) else None


def _equality(value: Value, options: Sequence[object]) -> Test:
    if not options:
        raise ValueError("an empty list never matches; give a value or a list of values")
    for option in options:
        if option is not None and not isinstance(option, _SCALARS):
            raise ValueError(f"{kind(option)} cannot be compared; give text, numbers, true or false")
        if not value.is_text:
            _raise(never_equal(value.nodes, option))
    accepted = _texts(options) if value.is_text else frozenset(map(comparable, options))
    return lambda found: comparable(found) in accepted


def _texts(options: Sequence[Any]) -> frozenset[Any]:
    """Return the options in the form that a header would have."""
    return frozenset(
        comparable(str(option).lower() if isinstance(option, bool) else None if option is None else str(option))
        for option in options
    )


def comparable(value: Any) -> Any:
    """Return a value paired with its kind, so that values of other kinds differ. Bytes and containers equal nothing.

    A double is compared by its shortest decimal, so that the decimal 19.99 equals the 19.99 of the file.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        # Paired with the kind, because in Python True == 1, with the same hash.
        return ("boolean", value)
    if isinstance(value, _NUMBERS):
        return ("number", _decimal(value))
    if isinstance(value, (UUID, date, time)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return _UNKNOWN


def _decimal(value: float | Decimal) -> int | float | Decimal:
    # By its shortest digits: Decimal(19.99) has 47 digits and does not equal Decimal("19.99").
    return Decimal(repr(value)) if isinstance(value, float) and math.isfinite(value) else value


def _order(value: Value, name: str, bound: float | str) -> Test:
    """Return a test for `gt`, `ge`, `lt` or `le`: numbers by number, times by time, other texts by their characters."""
    holds = _ORDERS[name]
    moment = _moment(bound) if isinstance(bound, str) else None
    if value.is_time and isinstance(bound, str):
        if moment is None:
            raise ValueError(f"{name} of a time must be milliseconds, or a time such as 2026-11-20T00:00:00Z")
        limit = moment.timestamp() * 1000
        return lambda found: isinstance(found, int) and holds(found, limit)
    if not value.is_text:
        _raise(never_ordered(value.nodes, bound))
    if not isinstance(bound, str):
        number = _decimal(bound)
        of = _number_in_text if value.is_text else _number
        return lambda found: (other := of(found)) is not None and holds(other, number)
    only_times = value.nodes is not None and all(
        name_of(node) in ("timestamp", "date", "local timestamp", "null") for node in value.nodes
    )
    if only_times and moment is None:
        raise ValueError(f"{name} of a time must be a time such as 2026-11-20T00:00:00Z, or a date")
    return lambda found: _holds_for_text(holds, found, bound, moment)


def _holds_for_text(holds: Callable[[Any, Any], bool], found: Any, bound: str, moment: datetime | None) -> bool:
    if isinstance(found, (date, datetime)):
        other = found if isinstance(found, datetime) else datetime(found.year, found.month, found.day, tzinfo=UTC)
        return moment is not None and holds(other if other.tzinfo else other.replace(tzinfo=UTC), moment)
    text = _text_of(found)
    return text is not None and holds(text, bound)


def _moment(text: str) -> datetime | None:
    """Return the time in a text, in UTC if it has no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _number(found: Any) -> int | float | Decimal | None:
    if isinstance(found, bool) or not isinstance(found, _NUMBERS):
        return None
    number = _decimal(found)
    return number if math.isfinite(number) else None


def _number_in_text(found: Any) -> Decimal | None:
    try:
        number = Decimal(found) if isinstance(found, str) and len(found) < 64 else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None
