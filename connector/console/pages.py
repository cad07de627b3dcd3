"""The addresses that only show: the overview, dead letters, one of them in full."""

from __future__ import annotations

import asyncio
from typing import Final, Literal, get_args

from aiohttp import web

from connector.console import dead_letter_page, dead_letters_page, overview
from connector.console.dead_letter_page import Shown
from connector.console.dead_letters_page import FILTERS, PAGE, Listing
from connector.console.frame import notice, page
from connector.console.index import Query
from connector.console.markup import tag
from connector.console.overview import DEFAULT_RANGE, RANGES, DeadLetters, Situation
from connector.console.requests import read_page, read_query
from connector.console.series import HOUR
from connector.console.state import State, html
from connector.console.table import Row
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError

BARS: Final = 60
"""Bars of a histogram, at most."""

_Filter = Literal["cause", "destination", "code", "topic"]


class Pages:
    """Shows what is known."""

    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the addresses."""
        return [
            web.get("/", self._overview),
            web.get("/letters", self._dead_letters),
            web.get("/letters/{id}", self._dead_letter),
        ]

    async def _overview(self, request: web.Request) -> web.Response:
        """Show what is wrong, where, since when, and what to do."""
        state = self._state
        chosen = request.query.get("range", DEFAULT_RANGE)
        chosen = chosen if chosen in RANGES else DEFAULT_RANGE
        frame = state.frame()
        sampler = state.sampler
        situation = Situation(
            destinations=sampler.destinations,
            vendors={name: one.vendor for name, one in state.settings.destinations.items()},
            answers=sampler.answers,
            samples=sampler.history.since(frame.now - RANGES[chosen]),
            interval=state.settings.console.interval,
            range=chosen,
            dead_letters=await asyncio.to_thread(self._open_dead_letters, frame.now, RANGES[chosen]),
            kafka_trouble=sampler.kafka_trouble,
            sampled_at=sampler.sampled_at,
        )
        return html(overview.render(frame, situation))

    def _open_dead_letters(self, now: float, span: float) -> DeadLetters:
        """Return what the overview tells of open letters. Searches all of them, so it may take a moment."""
        index, feed = self._state.index, self._state.feed
        begin, end = int((now - span) * 1000), int(now * 1000)
        return DeadLetters(
            kinds=index.kinds(Query()),
            histogram=index.histogram(Query(since=begin), begin, end, BARS),
            recent=len(index.rows(Query(since=int((now - HOUR) * 1000)))),
            trouble=feed.trouble,
            left=feed.left,
            read=len(index),
            forgotten=index.forgotten,
        )

    async def _dead_letters(self, request: web.Request) -> web.Response:
        """Show a page of letters with its filters."""
        state = self._state
        frame = state.frame()
        try:
            query = read_query(request.query, frame.now)
        except ValueError as error:
            again = tag("p", tag("a", "Back", href="/letters"))
            text = page(frame, "Dead letters", "/letters", tag("h1", "Dead letters"), notice("warn", str(error)), again)
            return html(text, 400)
        listing = await asyncio.to_thread(self._listing, query, read_page(request.query))
        return html(dead_letters_page.render(frame, listing, state.mask))

    def _listing(self, query: Query, number: int) -> Listing:
        index, feed = self._state.index, self._state.feed
        rows, total = index.page(query, (number - 1) * PAGE, PAGE)
        if not rows and total:
            number = -(-total // PAGE)
            rows, total = index.page(query, (number - 1) * PAGE, PAGE)
        names: tuple[_Filter, ...] = get_args(_Filter)
        choices = {}
        for name in names:
            # Each filter offers what the others leave, so that its own choice can be changed.
            where = tuple(one for one in query.where if one[0] != name)
            others = Query(where, query.key, query.since, query.until, query.resolved)
            choices[name] = index.counts(others, name)
        span = index.span(query)
        histogram = None if span is None else index.histogram(query, span[0], span[1], BARS)
        return Listing(
            query=query,
            rows=rows,
            first=(number - 1) * PAGE,
            total=total,
            choices={name: choices[name] for name in names if name in FILTERS},
            histogram=histogram,
            trouble=feed.trouble,
            left=feed.left,
            read=len(index),
        )

    async def _dead_letter(self, request: web.Request) -> web.Response:
        """Show one letter in full."""
        state = self._state
        frame = state.frame()
        identity = request.match_info["id"]
        row = state.index.find(identity)
        if row is None:
            said = tag("p", "Perhaps it is older than what the console keeps: connector dlq show finds it by its id.")
            title = tag("h1", "No such dead letter here")
            return html(page(frame, "Not found", "/letters", title, said), 404)
        dead_letter, trouble = await self._fetch(row)
        inspection = None
        if dead_letter is not None:
            try:
                inspection = await state.edges.inspect(dead_letter)
            except ConnectorError as error:
                trouble = f"It cannot be decoded or checked now: {error}"
        same = (
            [row]
            if dead_letter is None
            else await asyncio.to_thread(state.index.same_event, dead_letter.facts.dedup_id)
        )
        return html(dead_letter_page.render(frame, Shown(row, dead_letter, inspection, trouble, same), state.mask))

    async def _fetch(self, row: Row) -> tuple[DeadLetterEntry | None, str | None]:
        """Return a letter's record from Kafka, or why there is none."""
        try:
            found = await asyncio.to_thread(self._state.edges.fetch, [row.place])
        except ConnectorError as error:
            return None, f"Its record cannot be read now: {error}"
        facts = parse(found[0].headers) if found else None
        if not found or facts is None or facts.id != row.id:
            return None, "Kafka does not keep its record any more: the topic's retention has passed."
        return DeadLetterEntry(found[0], facts, row.state), None
