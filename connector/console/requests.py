"""What an address or a form asks for, read into queries and orders. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

from connector.config.models import parse_duration
from connector.console.index import Query
from connector.console.table import NAMES
from connector.dead_letters.replay import MAX_REPLAYS, Edit, Order

ANY: Final = "*"
"""What a filter's field says where every value will do; an empty text asks for letters without one."""
RATE: Final = 1000.0
"""Letters a second of a replay, unless the form says otherwise; as for `connector dlq replay`."""
_IDS: Final = 200
_LONGEST: Final = 1e11


class Fields(Protocol):
    """The fields of an address or a form; a name may come more than once."""

    def get(self, key: str) -> object:
        """Return a field, None where there is none."""
        ...

    def getall(self, key: str, default: list[str]) -> list[str]:
        """Return a field as often as it came."""
        ...


def read_query(given: Fields, now: float) -> Query:
    """Return which letters are meant; `now` is epoch seconds. Raises `ValueError` that says what is allowed."""
    where = tuple((name, text) for name in NAMES if (text := _text(given, name)) is not None and text != ANY)
    ids = [one for one in given.getall("id", []) if one]
    if len(ids) > _IDS:
        raise ValueError(f"at most {_IDS} letters are named one by one; use the filters")
    until = _text(given, "until")
    return Query(
        where,
        _text(given, "key") or None,
        _time(_text(given, "since"), now, last=False),
        _time(until, now, last=True),
        bool(_text(given, "all")),
        frozenset(ids),
    )


def read_order(given: Fields, query: Query) -> Order:
    """Return how the letters are to be replayed. Raises `ValueError` that says what is allowed."""
    edits = []
    for line in (_text(given, "edits") or "").splitlines():
        path, equals, text = line.strip().partition("=")
        if path and not equals:
            raise ValueError(f"a change is field=value, one a line; not {path}")
        if path:
            edits.append(Edit(path.strip(), text))
    rate = _number(given, "rate", RATE)
    most = int(_number(given, "max_replays", MAX_REPLAYS))
    if most < 1:
        raise ValueError("a letter may be replayed once at least")
    return Order(query.as_filter(), bool(_text(given, "force")), tuple(edits), most, rate)


def read_page(given: Mapping[str, str]) -> int:
    """Return the number of the page that is asked for, from 1 on."""
    text = given.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def _number(given: Fields, name: str, default: float) -> float:
    text = _text(given, name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise ValueError(f"{name} is a number from 0 on")
    return number


def _time(text: str | None, now: float, *, last: bool) -> int | None:
    """Return epoch milliseconds of a time in UTC, or of a duration before now; None where nothing is said.

    A `last` time without milliseconds means its whole second.
    """
    if not text:
        return None
    before = _duration(text)
    if before is not None:
        return int((now - before) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a time is such as 2026-11-20T02:14 in UTC, or a duration such as 2h") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000 + (999 if last and not moment.microsecond else 0)


def _duration(text: str) -> float | None:
    """Return the seconds of a duration with its unit, of some millennia at most; None for any other text."""
    try:
        seconds = parse_duration(text) if text[-1].isalpha() else None
    except ValueError:
        return None
    return seconds if isinstance(seconds, float) and seconds < _LONGEST else None


def _text(given: Fields, name: str) -> str | None:
    value = given.get(name)
    return value.strip() if isinstance(value, str) else None
