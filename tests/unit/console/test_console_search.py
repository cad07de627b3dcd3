"""A search finds on the page what reading the topic finds, says how far it is, and never what the mask hides."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from multidict import MultiDict

from connector.console import scan
from connector.console.index import DeadLetterIndex, Query
from connector.console.masking import Mask
from connector.console.queries import query_fields, read_query
from connector.console.search import FEW, Search, Searches, SearchPorts
from connector.errors import StartupError
from connector.records import Record
from tests.unit.console.console_site import Site, running
from tests.unit.dead_letters.test_dead_letter_reader import at_their_places, dead, resolution

Places = Sequence[tuple[int, int]]


def topic(count: int) -> list[Record]:
    """Return dead letters, of which every third has a trace header and every fourth a city in its value."""
    made = []
    for number in range(count):
        record = dead(number)
        headers = [("trace", b"t%d" % (number % 3)), *record.headers]
        made.append(replace(record, headers=headers, value=b"city=Wuhan" if number % 4 == 0 else b"city=Berlin"))
    return at_their_places(made)


def rig(records: list[Record]) -> tuple[DeadLetterIndex, Searches, list[int]]:
    """Return an index of a topic, its searches, and how many records each reading was asked for."""
    index, asked = DeadLetterIndex(100_000), []
    index.take(records)
    by_place = {(record.partition, record.offset): record for record in records}

    def fetch(places: Places) -> list[Record]:
        asked.append(len(places))
        return [by_place[place] for place in places if place in by_place]

    def whole(_progress: Callable[[int, int], None]) -> Iterator[Record]:
        asked.append(-1)
        return iter(records)

    return index, Searches(index, SearchPorts(whole, fetch, nullcontext)), asked


def found(index: DeadLetterIndex, searches: Searches, query: Query) -> int:
    """Return how many match once the search has ended."""
    search = searches.of(query)
    if search is not None:
        search.join()
    assert searches.of(query) is None
    return len(index.rows(query))


def test_a_search_finds_what_reading_the_topic_finds() -> None:
    """By header and text, together with what the index knows; each record is looked at once.

    Kills: a search that starts again with every page, a verdict for another dead letter, a filter that is forgotten.
    """
    records = topic(60)
    index, searches, asked = rig(records)
    queries = [
        Query(conditions=("header.trace=t1",)),
        Query((("cause", "refused"),), conditions=("header.trace=t1", "header.trace=t2"), contains="Wuhan"),
        Query((("offset", "7"),), conditions=("header.trace=t1",)),
        Query((("partition", "0"),), contains="city"),
        Query(contains="Paris"),
    ]
    for query in queries:
        wanted = query.as_filter()
        entries = Site(records).dead_letters
        expected = sum(wanted.matches(entry.facts, entry.record) for entry in entries)
        assert found(index, searches, query) == expected
        assert found(index, searches, query) == expected
    assert len(asked) <= len(queries)
    searches.stop()


def test_what_came_later_is_searched_too_and_what_is_gone_is_not_waited_for() -> None:
    """A new dead letter is looked at by the next page; one that Kafka deleted ends no search in a circle."""
    records = topic(10)
    index, searches, asked = rig(records[:8])
    query = Query(contains="Wuhan")
    assert found(index, searches, query) == 2
    index.take(records[8:])  # the rig's topic does not have them: retention was quicker
    assert found(index, searches, query) == 2
    assert asked == [8, 2]
    index.take([replace(resolution(records[0], "discarded"), partition=records[0].partition, offset=99)])
    assert found(index, searches, query) == 1
    assert found(index, searches, Query(resolved=True, contains="Wuhan")) == 2
    searches.stop()


def test_many_records_are_read_in_one_pass() -> None:
    """Not one by one. Kills: a million fetches."""
    index, searches, asked = rig(topic(FEW + 1))
    assert found(index, searches, Query(conditions=("header.trace=t1",))) == len(range(1, FEW + 1, 3))
    assert asked == [-1]
    searches.stop()


def test_a_search_that_breaks_off_says_why() -> None:
    """Kafka's trouble is shown, and the next page tries again."""
    index, _, _ = rig(topic(3))

    def broken(_places: Places) -> list[Record]:
        raise StartupError("no broker answers")

    searches = Searches(index, SearchPorts(lambda _progress: iter(()), broken, nullcontext))
    first = searches.of(Query(contains="x"))
    assert isinstance(first, Search)
    first.join()
    shown = searches.of(Query(contains="x"))
    assert shown is not None
    assert shown.trouble == "no broker answers"
    again = searches.of(Query(contains="x"))
    assert again is not shown
    searches.stop()


@pytest.mark.parametrize(
    ("condition", "contains"),
    [
        *(("event.properties.phone=1", None), ("event.body.properties.phone=1", None), ("event.properties={}", None)),
        *(("event.phones.properties.phone.area=1", None), ("header.Phone=1", None), (None, "138")),
    ],
)
def test_what_the_mask_hides_cannot_be_found_by_guessing(condition: str | None, contains: str | None) -> None:
    """Nor by what contains it, what is in it, or payload text. Kills: a search that reveals a hidden value."""
    mask, conditions = Mask(["properties.phone", "$header.phone"]), [condition] if condition else []
    with pytest.raises(ValueError, match="console.mask hides"):
        mask.check_search(conditions, contains)
    mask.check_search(["event.properties.city=x", "event.phone=1", "header.trace=x", "http-status=400"], None)
    Mask().check_search(conditions, contains)


def test_conditions_come_back_from_their_address() -> None:
    """Header, field, text and place of origin survive a link; nonsense is refused."""
    query = Query((("partition", "3"), ("offset", "41")), conditions=("header.a=b=c", "event.x=1"), contains="é")
    assert read_query(MultiDict(query_fields(query)), 0.0) == query
    for wrong in ({"where": "colour=red"}, {"offset": "-1"}, {"partition": "x"}, {"offset": "9" * 30}):
        with pytest.raises(ValueError, match="NAME=VALUE|whole number"):
            read_query(MultiDict(wrong), 0.0)


@pytest.mark.promise("P14")
def test_a_search_that_fails_unexpectedly_says_so_once() -> None:
    """Its trouble is shown without a value. Kills: a thread that ends unseen, and another one for every request."""
    _, searches, _ = rig(topic(5))

    def broken(_places: Places) -> list[Record]:
        raise KeyError("a value")

    searches._ports = SearchPorts(lambda _progress: iter(()), broken, nullcontext)
    query = Query(contains="city")
    search = searches.of(query)
    assert search is not None
    search.join()
    shown = searches.of(query)
    assert shown is search
    assert str(shown.trouble).startswith("unexpected KeyError at line")


async def test_the_page_searches_and_exports_in_each_format() -> None:
    """The list shows what was found, and a file of it holds exactly that."""
    site = Site(topic(12))
    async with running(site), aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        address = f"{site.url}/dead-letters?where=header.trace%3Dt1&contains=Wuhan"
        for _ in range(100):
            async with browser.get(address) as answer:
                text = await answer.text()
            if "1 to 1 of 1" in text:
                break
            await asyncio.sleep(0.1)
        assert "1 to 1 of 1" in text
        async with browser.get(f"{site.url}/confirm?action=export&contains=Wuhan&where=header.trace%3Dt1") as answer:
            token = (await answer.text()).partition('name="csrf" value="')[2].partition('"')[0]
        form = {"csrf": token, "action": "export", "contains": "Wuhan", "where": "header.trace=t1", "format": "csv"}
        async with browser.post(f"{site.url}/jobs", data=form, headers={"Origin": site.url}) as answer:
            job = answer.url
            assert "/jobs/" in str(job), await answer.text()
        async with browser.get(f"{job}/file") as answer:
            assert answer.headers["Content-Type"].startswith("text/csv")
            lines = (await answer.text()).splitlines()
        assert len(lines) == 2
        async with browser.post(f"{site.url}/jobs", data={**form, "format": "xml"}) as answer:
            assert answer.status == 400
    assert json.loads(site.audit.records[-1])["format"] == "csv"


@given(
    st.lists(st.integers(-5, 5), max_size=40),
    st.integers(0, 40),
    st.lists(st.integers(0, 3), min_size=40, max_size=40),
)
def test_columns_are_scanned_as_lists_would_be(failed: list[int], old: int, kinds: list[int]) -> None:
    """Order, selection and counts are those of plain Python. Kills: ties in another order, a bound off by one."""
    times, rows, cut = array("q", failed), range(len(failed)), min(old, len(failed))
    newest = sorted(rows, key=lambda row: (-failed[row], -row))
    begun, fresh = ([row for row in newest if (row < cut) is early] for early in (True, False))
    order = scan.merged(array("I", begun), array("I", fresh), times)
    assert list(order) == newest
    states = bytearray(kinds[: len(failed)])
    assert list(scan.below(order, 0, len(order), states, 2)) == [row for row in order if states[row] < 2]
    column = array("H", kinds)
    assert list(scan.equal(order, column, 2)) == [row for row in order if kinds[row] == 2]
    assert list(scan.tally(order, column, 4)) == [sum(kinds[row] == kind for row in rows) for kind in range(4)]
    found = scan.bins(order, times, column, -4, 3, 3)
    assert {kind: list(bins) for kind, bins in found.items()} == {
        kind: [sum(kinds[row] == kind and (failed[row] + 4) // 3 == at for row in rows) for at in range(3)]
        for kind in {kinds[row] for row in rows if -4 <= failed[row] < 5}
    }
    counted = dict(scan.kinds(order, times, column, column, column))
    assert {kind: sum(kinds[row] == kind[0] for row in rows) for kind in counted} == {
        kind: numbers[0] for kind, numbers in counted.items()
    }
    assert all(
        (first, last) == (min(own), max(own))
        for (kind, *_), (_, first, last) in counted.items()
        if (own := [failed[row] for row in rows if kinds[row] == kind])
    )
