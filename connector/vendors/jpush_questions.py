"""What may be asked of JPush: the four questions, and the local rules of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from connector.errors import Refusal
from connector.vendors.base import VendorEvent
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, kind

_ENDPOINTS: Final = {"Received": "received", "MessageStatus": "status", "Messages": "messages", "Users": "users"}
"""The contract's questions, and the API each asks; a mapping's `kind` may be either."""

_VIP: Final = frozenset({"messages", "users"})
MOST_DEVICES: Final = 1000
_SHANGHAI: Final = timezone(timedelta(hours=8))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CALENDAR: Final = range(253_402_214_400_000)
"""Record timestamps (ms) that have a day in every zone: 1970 up to the last day but one of the year 9999."""
_STARTS: Final = {
    "HOUR": (re.compile(r"\d{4}-\d{2}-\d{2} \d{2}"), "%Y-%m-%d %H"),
    "DAY": (re.compile(r"\d{4}-\d{2}-\d{2}"), "%Y-%m-%d"),
    "MONTH": (re.compile(r"\d{4}-\d{2}"), "%Y-%m"),
}
_LONGEST: Final = {"HOUR": 24, "DAY": 60, "MONTH": 2}

RULES: Final[Mapping[str, str]] = {
    "kind.vip": "must be received or status: the destination says vip: false",
    "msg_id.range": "must not be negative",
    "registration_ids.required": "must hold at least one id",
    "registration_ids.type": "must be a list of text that is not empty",
    "registration_ids.count": f"must hold at most {MOST_DEVICES} ids",
    "date.format": "must be a day as yyyy-MM-dd",
    "date.required": "must be given where the record has no usable timestamp",
    "time_unit.value": "must be HOUR, DAY or MONTH",
    "start.format": "must be yyyy-MM-dd HH for HOUR, yyyy-MM-dd for DAY, yyyy-MM for MONTH",
    "duration.type": "must be a whole number, at least 1",
    "duration.range": "must be at most 24 for HOUR (one day), 60 for DAY, 2 for MONTH (60 days)",
}


class Question(NamedTuple):
    """What an item asks, for the answer: `ids` are the devices of a status query, `at` is when it was prepared (ms)."""

    query_id: str
    endpoint: str
    msg_id: int | None
    ids: tuple[str, ...]
    at: int


def about(event: VendorEvent) -> tuple[str, int | None]:
    """Return the endpoint and the push that a question is about, as far as a broken one tells them."""
    name, fields = _unwrapped(event)
    msg_id = fields.get("msg_id")
    known = type(msg_id) is int and LONG_MIN <= msg_id <= LONG_MAX
    return _ENDPOINTS.get(name, name), msg_id if known else None


def _unwrapped(event: VendorEvent) -> tuple[str, Mapping[str, Any]]:
    """Return the question's kind and fields, out of the contract's `query` or a mapping's flat fields."""
    query = event.fields.get("query")
    if isinstance(query, tuple) and len(query) == 2 and isinstance(query[1], Mapping):
        return str(query[0]).rpartition(".")[2], query[1]
    return str(event.fields.get("kind")), event.fields


class Questions:
    """Reads questions out of events and checks them; `vip` tells whether the VIP interfaces may be asked."""

    __slots__ = ("_rules", "_vip")

    def __init__(self, rules: Rules, *, vip: bool) -> None:
        self._rules = rules
        self._vip = vip

    def asked(self, event: VendorEvent) -> tuple[str, Mapping[str, Any]]:
        """Return the endpoint and the question's fields, out of the contract's `query` or a mapping's flat fields."""
        name, fields = _unwrapped(event)
        endpoint = _ENDPOINTS.get(name, name)
        if endpoint not in _ENDPOINTS.values():
            message = f"kind must be one of {', '.join([*_ENDPOINTS, *_ENDPOINTS.values()])}"
            raise Refusal("invalid", "jpush_report.kind.value", message, field="kind")
        if endpoint in _VIP and not self._vip:
            self._rules.broken("kind.vip", endpoint)
        return endpoint, fields

    def msg_id(self, fields: Mapping[str, Any]) -> int:
        """Return the push's id; without one there is nothing to ask, so no setting lets another value pass."""
        value = fields.get("msg_id")
        if type(value) is not int or not LONG_MIN <= value <= LONG_MAX:
            message = f"msg_id must be a whole number of 64 bits; it is {kind(value)}"
            raise Refusal("invalid", "jpush_report.msg_id.type", message, field="msg_id")
        if value < 0:
            self._rules.broken("msg_id.range", "negative")
        return value

    def devices(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the question's devices, each once."""
        value = fields.get("registration_ids")
        if not value:
            self._rules.broken("registration_ids.required", kind(value) if value is None else "empty")
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(member, str) and member for member in value):
            self._rules.broken("registration_ids.type", kind(value))
            return tuple(str(member) for member in value) if isinstance(value, list | tuple) else (str(value),)
        ids = tuple(dict.fromkeys(value))
        if len(ids) > MOST_DEVICES:
            self._rules.broken("registration_ids.count", f"a list of {len(ids)}")
        return ids

    def day(self, fields: Mapping[str, Any], timestamp: int) -> str | None:
        """Return the day asked about; the vendor's default is the request's own day, which a late question misses."""
        value = fields.get("date")
        if isinstance(value, date):
            return value.isoformat()[:10]
        if value is not None:
            if not isinstance(value, str) or not _is_time(value, "DAY"):
                self._rules.broken("date.format", kind(value))
            return str(value)
        if timestamp not in _CALENDAR:
            self._rules.broken("date.required", kind(value))
            return None
        return (_EPOCH + timedelta(milliseconds=timestamp)).astimezone(_SHANGHAI).date().isoformat()

    def users(self, fields: Mapping[str, Any]) -> str:
        """Return the query string of a question about users."""
        unit, start, duration = fields.get("time_unit"), fields.get("start"), fields.get("duration")
        known = isinstance(unit, str) and unit in _STARTS
        if not known:
            self._rules.broken("time_unit.value", kind(unit))
        if not isinstance(start, str) or (known and not _is_time(start, str(unit))):
            self._rules.broken("start.format", kind(start))
        if type(duration) is not int or duration < 1:
            self._rules.broken("duration.type", kind(duration))
        elif known and duration > _LONGEST[str(unit)]:
            self._rules.broken("duration.range", "greater")
        try:
            return f"time_unit={quote(str(unit))}&start={quote(str(start))}&duration={duration}"
        except UnicodeEncodeError:
            raise Refusal("invalid", "jpush_report.event.text", "start is not valid Unicode", field="start") from None


def _is_time(text: str, unit: str) -> bool:
    pattern, form = _STARTS[unit]
    if pattern.fullmatch(text) is None or not text.isascii():
        return False
    try:
        datetime.strptime(text, form).replace(tzinfo=_SHANGHAI)
    except ValueError:
        return False
    return True
