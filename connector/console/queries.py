"""Reads URLs and forms into queries and replay orders, and writes queries as URLs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import urlencode

from connector.config.models import parse_duration
from connector.console.columns import NAMES
from connector.console.formatting import moment
from connector.console.index import PLACE, Query
from connector.console.members import ReportedWaitingRecord
from connector.dead_letters.export import FORMATS, Format
from connector.dead_letters.filters import epoch_millis, parse_where
from connector.dead_letters.replay import MAX_REPLAYS, Edit, Order

LIST: Final = "/dead-letters"
"""The address of the list of dead letters."""
MEMBERS: Final = "/members"
"""The address of the page of members and partitions."""
TIMELINE: Final = "/timeline"
ANY: Final = "*"
"""A filter field with this text accepts every value; an empty text asks for dead letters without one."""
RATE: Final = 1000.0
"""Dead letters a second of a replay, unless the form says otherwise; as for `connector dlq replay`."""
_IDS: Final = 200
MOST_CONDITIONS: Final = 5
"""Conditions on headers and fields of the event in one query."""
_MOST_OFFSETS: Final = 1 << 63
_LONGEST: Final = 1e11


class Fields(Protocol):
    """The fields of a URL or a form; a name may occur more than once."""

    def get(self, key: str) -> object:
        """Return a field, or None if there is none."""
        ...

    def getall(self, key: str, default: list[str]) -> list[str]:
        """Return every value of a field."""
        ...


def read_query(given: Fields, now: float) -> Query:
    """Return the query for the fields; `now` is epoch seconds. Raises `ValueError` that says what is allowed."""
    where = tuple((name, text) for name in NAMES if (text := _field(given, name)) is not None and text != ANY)
    ids = [identity for identity in given.getall("id", []) if identity]
    if len(ids) > _IDS:
        raise ValueError(f"at most {_IDS} dead letters can be selected one by one; use the filters")
    places = tuple((name, _place(name, text)) for name in PLACE if (text := _field(given, name)))
    conditions = tuple(dict.fromkeys(text.strip() for text in given.getall("where", []) if text.strip()))
    if len(conditions) > MOST_CONDITIONS:
        raise ValueError(f"at most {MOST_CONDITIONS} conditions on headers and fields of the event are allowed")
    parse_where(conditions)
    return Query(
        (*where, *places),
        _field(given, "key") or None,
        _time(_field(given, "since"), now, last=False),
        _time(_field(given, "until"), now, last=True),
        bool(_field(given, "all")),
        frozenset(ids),
        conditions,
        _field(given, "contains") or None,
    )


def read_order(given: Fields, query: Query) -> Order:
    """Return how to replay the dead letters. Raises `ValueError` that says what is allowed."""
    edits = []
    for line in (_field(given, "edits") or "").splitlines():
        path, equals, text = line.strip().partition("=")
        if path and not equals:
            raise ValueError(f"an edit must be field=value, one a line, not {path}")
        if path:
            edits.append(Edit(path.strip(), text))
    rate = _number(given, "rate", RATE)
    most = int(_number(given, "max_replays", MAX_REPLAYS))
    if most < 1:
        raise ValueError("max_replays must be 1 or more")
    return Order(query.as_filter(), bool(_field(given, "force")), tuple(edits), most, rate)


def read_format(given: Fields) -> Format:
    """Return the format of an export. Raises `ValueError` that says what is allowed."""
    text = _field(given, "format") or "jsonl"
    found = next((form for form in FORMATS if form == text), None)
    if found is None:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {text!r}")
    return found


def read_page_number(given: Mapping[str, str]) -> int:
    """Return the requested page number, from 1."""
    text = given.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1


def address(path: str, query: Query, **more: str | int | None) -> str:
    """Return the URL of a path with a query's filters."""
    return f"{path}?{urlencode([*query_fields(query), *((key, str(value)) for key, value in more.items() if value)])}"


def member_action(action: str, destination: str, record: ReportedWaitingRecord | None = None) -> str:
    """Return the URL of the confirmation of an action on running members."""
    fields: list[tuple[str, str]] = [("action", action), ("destination", destination)]
    if record is not None:
        place = ("topic", record.topic), ("partition", str(record.partition)), ("offset", str(record.offset))
        fields += place
    return f"{MEMBERS}/confirm?{urlencode(fields)}"


def query_fields(query: Query) -> list[tuple[str, str]]:
    """Return a query as the fields of an address or a form; `read_query` reads them."""
    found = [*query.where, *(("where", condition) for condition in query.conditions)]
    found += [(name, text) for name, text in (("key", query.key), ("contains", query.contains)) if text is not None]
    found += [(name, time_field(at)) for name, at in (("since", query.since), ("until", query.until)) if at is not None]
    if query.resolved:
        found.append(("all", "1"))
    return [*found, *(("id", identity) for identity in sorted(query.ids))]


def time_field(millis: int) -> str:
    """Return epoch milliseconds as text for a URL: in UTC, with milliseconds if there are any."""
    text = moment(millis // 1000, "%Y-%m-%dT%H:%M:%S")
    return f"{text}.{millis % 1000:03}" if millis % 1000 else text


def _place(name: str, text: str) -> str:
    """Return a partition or an offset as headers write it. Raises `ValueError` for any other text."""
    if not (text.isascii() and text.isdigit() and int(text) < _MOST_OFFSETS):
        raise ValueError(f"{name} must be a whole number from 0 on")
    return str(int(text))


def _number(given: Fields, name: str, default: float) -> float:
    text = _field(given, name)
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise ValueError(f"{name} must be a number from 0 on")
    return number


def _time(text: str | None, now: float, *, last: bool) -> int | None:
    """Return epoch milliseconds of a time in UTC, or of a duration before now; None for an empty field.

    A `last` time without milliseconds includes its whole second.
    """
    if not text:
        return None
    before = _duration(text)
    if before is not None:
        return int((now - before) * 1000)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a time must be like 2026-11-20T02:14 (UTC), or a duration like 2h") from None
    given = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return epoch_millis(given) + (999 if last and not given.microsecond else 0)


def _duration(text: str) -> float | None:
    """Return the seconds of a duration with its unit, of some millennia at most; None for any other text."""
    try:
        seconds = parse_duration(text) if text[-1].isalpha() else None
    except ValueError:
        return None
    return seconds if isinstance(seconds, float) and seconds < _LONGEST else None


def _field(given: Fields, name: str) -> str | None:
    value = given.get(name)
    return value.strip() if isinstance(value, str) else None
