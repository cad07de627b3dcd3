"""A route's conditions: which topics it is for, and which values `where` wants. Pure.

A value of `where` is compared by its own kind, so that `"5"` never equals 5 and `true` never equals 1. Only `$key`
and `$header.NAME`, which are text by nature, are compared with the text of a number or boolean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from connector.config.errors import kind
from connector.records import Record
from connector.routing.conversions import Unfit
from connector.routing.sources import Source

Condition = Callable[[Mapping[str, Any], Record], bool]

_SCALARS: Final = (str, bool, int, float, date, datetime)
_NUMBERS: Final = (int, float, Decimal)


class TopicPattern:
    """Names of topics, or patterns that begin with `^` and match as Kafka's subscriptions do: from the start on."""

    def __init__(self, topics: Sequence[str]) -> None:
        """Compile `topics`; raises `ValueError` for a pattern that is no regular expression."""
        self.names = frozenset(topic for topic in topics if not topic.startswith("^"))
        self._patterns = tuple(_compiled(topic) for topic in topics if topic.startswith("^"))

    def matches(self, topic: str) -> bool:
        """Tell whether the topic is named, or matched by a pattern."""
        return topic in self.names or any(pattern.match(topic) for pattern in self._patterns)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as fault:
        raise ValueError(f"{pattern} is no regular expression: {fault}") from None


def compile_condition(source: Source, wanted: object) -> Condition:
    """Return a test for one entry of `where`: the source's value is `wanted`, or one of its values where it is a list.

    Raises `ValueError` for a wanted value that can never be met. Null is met by null and by what is not there;
    bytes, lists, records and maps meet nothing, nor does a key or header that is not UTF-8 text.
    """
    options = wanted if isinstance(wanted, list) else [wanted]
    if not options:
        raise ValueError("an empty list is met by nothing; give a value or a list of values")
    for option in options:
        if option is not None and not isinstance(option, _SCALARS):
            raise ValueError(f"{kind(option)} is no value to compare with; give text, numbers, true or false")
    accepted = _texts(options) if source.is_text else frozenset(map(_comparable, options))
    get = source.get

    def met(datum: Mapping[str, Any], record: Record) -> bool:
        try:
            value = get(datum, record)
        except Unfit:
            return False
        return _comparable(value) in accepted

    return met


def _texts(options: Sequence[Any]) -> frozenset[Any]:
    """Return the options as a header would write them."""
    return frozenset(
        _comparable(str(option).lower() if isinstance(option, bool) else None if option is None else str(option))
        for option in options
    )


def _comparable(value: Any) -> Any:
    """Return a value with its kind, so that only one kind's equals are equal; bytes and containers equal nothing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, _NUMBERS):
        return ("number", value)
    if isinstance(value, (UUID, date)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return _INCOMPARABLE


_INCOMPARABLE: Final = object()
