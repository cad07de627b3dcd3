"""A vendor's words, fit for logs and status pages: what they repeat of the records is hidden. Pure.

A dead letter has the words in full, beside the record that they are about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from connector.telemetry.redaction import HIDDEN

_NAMES: Final = re.compile(r"event_?(name|code)|method", re.IGNORECASE)
"""Keys whose values say what sort of event it is, which is nobody's secret and what a person needs to know."""
_SHORTEST_TEXT: Final = 3
_SHORTEST_NUMBER: Final = 5
"""Shorter ones are statuses, codes and counts as often as they are a record's."""


def discreet(words: str, bodies: Iterable[bytes]) -> str:
    """Return a vendor's words without the values of the items that they may be about; items that are no JSON have none.

    A value is hidden where it stands as a word of its own.
    """
    values: set[str] = set()
    for body in bodies:
        try:
            _collect(orjson.loads(body), values)
        except orjson.JSONDecodeError:
            continue
    for value in sorted(values, key=len, reverse=True):
        if value in words:
            words = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, words)
    return words


def _collect(value: Any, values: set[str]) -> None:
    """Add every text and number in a value, however deep."""
    match value:
        case dict():
            for key, child in value.items():
                if not (isinstance(child, str) and _NAMES.search(key)):
                    _collect(child, values)
        case list():
            for child in value:
                _collect(child, values)
        case str() if len(value) >= _SHORTEST_TEXT:
            values.add(value)
        case int() | float() if not isinstance(value, bool) and len(str(value)) >= _SHORTEST_NUMBER:
            values.add(str(value))
