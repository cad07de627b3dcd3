"""One event for Jiguang Growth: its checks, and its JSON. Every record for it comes this way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from orjson import Fragment

from connector.records import Item, uuid5_text
from connector.vendors.base import VendorEvent
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, epoch_millis, json_bytes, kind, scalar

_FUTURE_MS: Final = 5 * 60 * 1000
PAST_MS: Final = 366 * 24 * 3600 * 1000
"""How old an event may be: the vendor says a year."""
_INFINITY: Final = float("inf")
_NAMES: Final = ("cuid", "eventName", "itime", "randomId", "properties")
_values: Final = itemgetter(*_NAMES)


class Events:
    """Makes items of events that keep the rules."""

    def __init__(self, rules: Rules) -> None:
        self._rules: Rules = rules
        self._expires: bool = rules.on("itime.past")

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Return the event as a member of `data`; `now` is in epoch milliseconds.

        Raises `Refusal` for a broken rule, and for what has no form in JSON.
        """
        try:
            cuid, name, itime, random_id, properties = _values(event.fields)
        except KeyError:  # a route's mapping leaves out what it has nothing for
            cuid, name, itime, random_id, properties = map(event.fields.get, _NAMES)
        if type(cuid) is not int or not LONG_MIN <= cuid <= LONG_MAX:
            self._not_long("cuid", cuid)
        if type(name) is not str or not name:
            self._rules.broken("eventName.type" if name and type(name) is not str else "eventName.required", kind(name))
        if type(itime) is not int or not -_FUTURE_MS <= now - itime <= PAST_MS:
            itime = self._odd_time(itime, now)
        # `dedup_id` written out: its property costs as much as the id itself.
        random_id = random_id or event.first_dedup_id or uuid5_text(event.identity)
        if type(random_id) is not str:
            self._rules.broken("randomId.type", kind(random_id))
        datum = {"cuid": cuid, "eventName": name, "itime": itime, "randomId": random_id}
        if type(properties) is Fragment:
            datum["properties"] = properties
        elif properties:
            if type(properties) is dict:
                properties = self._properties(properties)
            else:
                self._rules.broken("properties.type", kind(properties))
            if properties:
                datum["properties"] = properties
        if cuid is None or name is None or itime is None:
            datum = {field: value for field, value in datum.items() if value is not None}
        expires = itime + PAST_MS if self._expires and type(itime) is int else None
        return Item(json_bytes("jiguang", datum), 1, None, expires)

    def _properties(self, properties: dict[str, Any]) -> dict[str, Any]:
        """Return the properties that are sent; the common kinds pass without a copy."""
        if "" in properties:
            self._rules.broken("properties.name", "an empty name")
        odd = [name for name, value in properties.items() if not _is_common(value)]
        if not odd:
            return properties
        plain = dict(properties)
        for name in odd:
            value = self._plain(plain[name])
            if value is None:
                del plain[name]
            else:
                plain[name] = value
        return plain

    def _plain(self, value: Any) -> Any:
        """Return a property of an uncommon kind as it is sent; None leaves it out."""
        if isinstance(value, list | tuple):
            if not all(isinstance(element, str) for element in value):
                self._rules.broken("properties.list", "a list with other elements")
            return value
        if isinstance(value, Mapping):
            self._rules.broken("properties.nested", "an object")
            return value
        try:
            value = scalar(value)
        except ValueError as error:
            self._rules.broken("properties.value", str(error))
            return value
        if isinstance(value, float) and not -_INFINITY < value < _INFINITY:
            self._rules.broken("properties.number", "NaN or infinity")
        if isinstance(value, int) and not _is_long(value):
            self._rules.broken("properties.range", "a larger whole number")
        return value

    def _not_long(self, field: str, value: object) -> None:
        larger = type(value) is int
        self._rules.broken(
            f"{field}.required" if value is None else f"{field}.type",
            "a larger whole number" if larger else kind(value),
        )

    def _odd_time(self, itime: Any, now: int) -> Any:
        """Return a time as it is sent; refuse one that is no time, or none of the last year."""
        if type(itime) is datetime and itime.tzinfo is not None:
            itime = epoch_millis(itime)
        if type(itime) is not int or not _is_long(itime):
            self._not_long("itime", itime)
        elif itime > now + _FUTURE_MS:
            self._rules.broken("itime.future", "later")
        elif itime < now - PAST_MS:
            self._rules.broken("itime.past", "earlier, or not in milliseconds")
        return itime


def _is_long(value: int) -> bool:
    """Tell whether a whole number has 64 bits."""
    return LONG_MIN <= value <= LONG_MAX


def _is_common(value: object) -> bool:
    """Tell whether a property is sent as it is, which is so for nearly all: text, a truth, a number, a list of text."""
    sort = type(value)
    if sort is str or sort is bool:
        return True
    if sort is int:
        return _is_long(value)  # type: ignore[arg-type]  # its type was just compared
    if isinstance(value, float):
        return sort is float and -_INFINITY < value < _INFINITY
    if sort is list:
        return _are_texts(value)  # type: ignore[arg-type]  # as above
    return False


def _are_texts(values: list[object]) -> bool:
    return all(type(value) is str for value in values)
