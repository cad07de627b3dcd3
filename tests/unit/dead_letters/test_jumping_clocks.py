"""Dead letters of hosts whose clocks had jumped: listed, ordered and filtered by what they say, and never lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import MultiDict

from connector.console.index import DeadLetterIndex, Query
from connector.console.queries import query_fields, read_query
from connector.dead_letters.block import time_text
from connector.dead_letters.filters import Filter, parse_time
from connector.dead_letters.headers import parse
from tests.unit.dead_letters.test_dead_letter_reader import archive, at_their_places, dead

NOW: Final = 1_700_000_000
YEAR_1: Final = -62_135_596_800
YEAR_9999: Final = 253_402_300_799
JUMPS: Final = (-(10**11), YEAR_1 - 1, YEAR_1, -1, 0, 1, NOW, YEAR_9999, YEAR_9999 + 1, 10**11 * 9)
"""Seconds since 1970 that a clock told, far past to far future, also outside the calendar."""
calendar: Final = st.integers(YEAR_1 * 1000, YEAR_9999 * 1000 + 999)


def offsets(since: str | None, until: str | None) -> list[int]:
    """Return which of the letters of `JUMPS` the command's options select."""
    wanted = Filter(
        since=None if since is None else parse_time("--since", since, NOW * 1000),
        until=None if until is None else parse_time("--until", until, NOW * 1000),
    )
    letters = [dead(number, failed_at=at) for number, at in enumerate(JUMPS)]
    return sorted(entry.facts.origin.offset for entry in archive(*letters).newest(wanted, 100)[0])


def shown(since: str | None, until: str | None) -> list[int]:
    """Return which of them the console's page shows for the same fields, the newest last."""
    index = DeadLetterIndex(100)
    index.take(at_their_places(tuple(dead(number, failed_at=at) for number, at in enumerate(JUMPS))))
    fields = MultiDict({"since": since or "", "until": until or ""})
    rows, count = index.page(read_query(fields, NOW), 0, 100)
    assert count == len(rows)
    return [row.place[1] for row in reversed(rows)]


@pytest.mark.parametrize(
    ("since", "until", "wanted"),
    [
        (None, None, range(10)),
        ("1h", None, range(6, 10)),
        (None, "1h", range(6)),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", range(2, 8)),
        (None, "0001-01-01T00:00:00Z", range(3)),
        ("9999-12-31T23:59:59Z", None, range(7, 10)),
        ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", range(3, 5)),
        ("36500d", None, range(3, 10)),
        ("2026-01-01T00:00:00Z", "1h", []),
    ],
)
def test_since_and_until_take_a_clock_at_its_word(since: str | None, until: str | None, wanted: range) -> None:
    """A failure in the future is after any past time, one in the far past before it; each is in exactly one half.

    Kills: a time outside the calendar that is refused, wraps round, or is taken for no time.
    """
    assert offsets(since, until) == list(wanted)
    assert shown(since, until) == list(wanted)


@given(millis=calendar)
@example(millis=1_700_000_000_001)
@example(millis=-1)
@example(millis=-62_135_596_799_999)
def test_the_time_that_is_shown_selects_its_own_dead_letter(millis: int) -> None:
    """The printed time, given back as --since and --until or in the page's address, is the very millisecond.

    Kills: seconds as a float times a thousand (a millisecond too low), fractions before 1970 rounded up.
    """
    text = time_text(millis)
    assert parse_time("--since", text, 0) == millis
    query = Query(since=millis, until=millis)
    address = MultiDict(query_fields(query))
    read = read_query(address, NOW)
    assert read.since == millis
    assert read.until is not None
    assert read.until - millis in ((0,) if millis % 1000 else (999,))


@given(seconds=st.integers(-(10**12), 10**12))
def test_a_header_holds_any_time_a_clock_can_tell(seconds: int) -> None:
    """What is written is read back, in words inside the calendar and as a number outside it."""
    facts = parse(dead(1, failed_at=seconds).headers)
    assert facts is not None
    assert facts.failed_at == seconds * 1000
    if YEAR_1 <= seconds <= YEAR_9999:
        text = time_text(seconds * 1000)
        assert datetime.fromisoformat(text) == datetime.fromisoformat(f"{text[:19]}+00:00").astimezone(UTC)
