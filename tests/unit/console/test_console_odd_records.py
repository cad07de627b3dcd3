"""Anyone may write to the dead-letter topic: no record of it breaks a page or ends the thread that reads it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.console import index as index_module
from connector.console.columns import KEY_LIMIT, MESSAGE_LIMIT, TEXT_LIMIT
from connector.console.dead_letter_detail import Found, detail_view
from connector.console.dead_letter_list import Listing, list_view
from connector.console.index import DeadLetterIndex, Query
from connector.console.masking import Mask
from connector.console.rendering import Page, html, render
from connector.console.security import HEADERS
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from connector.records import Record
from tests.unit.console.console_site import Site, running
from tests.unit.dead_letters.test_dead_letter_reader import dead

PAGE = Page("growth", 1_700_000_000.0, "csrf", None)
NAMES = sorted(name for name, _ in dead(1).headers if name.startswith("dlq-"))
ODD = (
    *(b"", b"\xff\xfe", b"NaN", b"-1", b"99999999999999999999", b"9" * 5000, b"2023-11-14T22:13:20", b"0001-01-01"),
    *(b"9999-12-31T23:59:59.999+00:00", "\u0663".encode(), b"<script>", b"x" * 3000, b"../../x?y#z", None),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ODD), max_size=4),
    st.none() | st.binary(max_size=300),
    st.integers(0, 2**62),
)
def test_odd_dead_letters_are_listed_or_left_out(
    changed: dict[str, bytes | None], key: bytes | None, offset: int
) -> None:
    """Whatever a header holds, the record is a row of the list with its own page, or it is counted as foreign."""
    record = dead(1)
    headers = [(name, changed.get(name, value)) for name, value in record.headers]
    record = replace(record, headers=headers, key=key, offset=offset)
    index = DeadLetterIndex(100)
    index.take([record])
    rows, total = index.page(Query(), 0, 10)
    assert total + index.foreign == 1
    span = index.span(Query())
    buckets = None if span is None else index.histogram(Query(), *span, 60)
    shown = render("dead_letters.html", PAGE, list_view(Listing(Query(), rows, 0, total, {}, buckets), Mask()))
    assert ("Select all" in shown) == bool(rows)
    for row in rows:
        facts = parse(record.headers)
        assert facts is not None
        found = Found(row, DeadLetterEntry(record, facts, "open"), None, None, [row])
        assert row.cause in render("dead_letter.html", PAGE, detail_view(found, Mask())) or "<" in row.cause


def test_what_is_kept_of_a_dead_letter_is_bounded() -> None:
    """However long the texts of a record are, the index keeps a part of each."""
    long = "x" * 100_000
    record = replace(dead(1, code=long, message=long), key=long.encode())
    index = DeadLetterIndex(100)
    index.take([record])
    ((row,), _) = index.page(Query(), 0, 1)
    sizes = [len(text) for text in (row.code, row.message, row.key or b"")]
    assert sizes == [TEXT_LIMIT, MESSAGE_LIMIT, KEY_LIMIT]


def test_a_record_that_the_parser_fails_on_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in reading one record leaves the records around it on the page.

    Kills: an exception that ends the thread that follows the topic, after which the page is old and does not say so.
    """

    def parsed(headers: Any) -> Any:
        if any(name == "poison" for name, _ in headers):
            raise TypeError("can't subtract offset-naive and offset-aware datetimes")
        return parse(headers)

    monkeypatch.setattr(index_module, "parse", parsed)
    index = DeadLetterIndex(100)
    poison = replace(dead(2), headers=[("poison", b"1"), *dead(2).headers])
    index.take([dead(1), poison, Record("dlq", 0, 3, 0, None, None, ())])
    assert (len(index), index.foreign) == (1, 2)


async def test_an_event_that_json_cannot_hold_costs_only_itself() -> None:
    """The page of a record whose event is nested too deep is drawn without the event, and says so."""
    async with running(Site([dead(1)])) as site, aiohttp.ClientSession() as browser:
        event: Any = 1
        for _ in range(100_000):
            event = [event]

        async def inspect(_dead_letter: DeadLetterEntry) -> Any:
            return SimpleNamespace(schema="x", event=event, fault=None, preparations=())

        object.__setattr__(site.console._state.ports, "inspect", inspect)
        address = f"{site.url}/dead-letters/{site.dead_letters[0].facts.id}"
        while True:
            async with browser.get(address) as answer:
                if answer.status != 404:
                    break
        assert answer.status == 200
        async with browser.get(address) as answer:
            text = await answer.text()
        assert "The event cannot be shown: RecursionError" in text
        assert "What happened" in text


async def test_a_page_that_fails_says_so_with_every_security_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the console's own is a page with a way back, not a bare 500 without its headers."""
    async with running(Site([dead(1)])) as site, aiohttp.ClientSession() as browser:

        def broken(*_: object) -> Any:
            raise AssertionError("a fault of ours")

        monkeypatch.setattr(site.console._state.index, "kinds", broken)
        async with browser.get(f"{site.url}/") as answer:
            assert answer.status == 500
            assert {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS)
            text = await answer.text()
        assert "This page failed" in text
        assert "a fault of ours" not in text


def test_half_a_character_is_replaced() -> None:
    """A lone surrogate, which JSON may hold, has no UTF-8: the page is sent with a question mark in its place."""
    assert html("a\ud800b").body == b"a?b"
