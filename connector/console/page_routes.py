"""Routes that only show: the overview, the list of dead letters, and one of them in full."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, Literal, get_args

from aiohttp import web

from connector.console.columns import DeadLetterRow
from connector.console.dead_letter_detail import Found, detail_view
from connector.console.dead_letter_list import FILTERS, PAGE_SIZE, Listing, list_view
from connector.console.index import Query
from connector.console.overview import DEFAULT_RANGE, RANGES, DeadLetterSummary, Situation, overview_view
from connector.console.queries import LIST, TIMELINE, read_page_number, read_query
from connector.console.rendering import html, render
from connector.console.sampling import HOUR
from connector.console.state import ConsoleState
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError

HAPPENINGS: Final = 8
"""Events that the first page lists."""
ROWS: Final = 1000
"""Events that the timeline's page lists."""
BUCKETS: Final = 60
"""Bars of a chart, at most."""

_Filter = Literal["cause", "destination", "code", "topic"]


class PageRoutes:
    """Shows what is known."""

    def __init__(self, state: ConsoleState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/", self._overview),
            web.get(TIMELINE, self._timeline),
            web.get(LIST, self._dead_letters),
            web.get(LIST + "/{id:.+}", self._dead_letter),
        ]

    async def _overview(self, request: web.Request) -> web.Response:
        """Show what is wrong, where, since when, and what to do."""
        state, sampler = self._state, self._state.sampler
        chosen = request.query.get("range", DEFAULT_RANGE)
        chosen = chosen if chosen in RANGES else DEFAULT_RANGE
        now = state.clock.wall()
        interval = state.settings.console.interval
        view = overview_view(
            Situation(
                now=now,
                destinations=sampler.destinations,
                vendors={name: destination.vendor for name, destination in state.settings.destinations.items()},
                responses=sampler.responses,
                samples=sampler.history.since(now - RANGES[chosen]),
                interval=interval,
                range=chosen,
                dead_letters=await asyncio.to_thread(self._summary, now, RANGES[chosen]),
                kafka_trouble=sampler.kafka_trouble,
                sampled_at=sampler.sampled_at,
                links=state.links,
                happenings=state.happenings()[:HAPPENINGS],
            )
        )
        page = state.page(view.title, "/", live=max(2, round(interval)))
        return html(render("overview.html", page, view))

    async def _timeline(self, _request: web.Request) -> web.Response:
        """Show what happened in the last 24 hours."""
        state = self._state
        page = state.page("Timeline", TIMELINE, live=max(2, round(state.settings.console.interval)))
        kept = state.settings.console.events_topic is not None
        return html(render("timeline.html", page, state.happenings()[:ROWS], kept=kept))

    def _summary(self, now: float, span: float) -> DeadLetterSummary:
        """Return what the overview shows of dead letters. Searches all of them, so it may take a moment."""
        index, feed = self._state.index, self._state.feed
        begin, end = int((now - span) * 1000), int(now * 1000)
        return DeadLetterSummary(
            kinds=index.kinds(Query()),
            buckets=index.histogram(Query(since=begin), begin, end, BUCKETS),
            recent=len(index.rows(Query(since=int((now - HOUR) * 1000)))),
            trouble=feed.trouble,
            left=feed.left,
            read=len(index),
            forgotten=index.forgotten,
        )

    async def _dead_letters(self, request: web.Request) -> web.Response:
        """Show a page of dead letters with its filters."""
        state = self._state
        page = state.page("Dead letters", LIST)
        try:
            query = read_query(request.query, page.now)
            state.mask.check_search(query.conditions, query.contains)
        except ValueError as error:
            return html(render("message.html", page, message=str(error), kind="warn", back=LIST), 400)
        listing = await asyncio.to_thread(self._listing, query, read_page_number(request.query))
        if listing.left or (listing.search is not None and listing.search.running):
            page = state.page("Dead letters", LIST, live=2)
        return html(render("dead_letters.html", page, list_view(listing, state.mask)))

    def _listing(self, query: Query, number: int) -> Listing:
        index, feed = self._state.index, self._state.feed
        search = self._state.searches.of(query)
        rows, total = index.page(query, (number - 1) * PAGE_SIZE, PAGE_SIZE)
        if not rows and total:
            number = -(-total // PAGE_SIZE)
            rows, total = index.page(query, (number - 1) * PAGE_SIZE, PAGE_SIZE)
        names: tuple[_Filter, ...] = get_args(_Filter)
        choices = {}
        for name in names:
            # Each filter offers the values that the other filters leave, so that its own value can be changed.
            where = tuple(condition for condition in query.where if condition[0] != name)
            others = replace(query, where=where, ids=frozenset())
            choices[name] = index.counts(others, name)
        span = index.span(query)
        buckets = None if span is None else index.histogram(query, span[0], span[1], BUCKETS)
        return Listing(
            query=query,
            rows=rows,
            first=(number - 1) * PAGE_SIZE,
            total=total,
            choices={name: choices[name] for name in names if name in FILTERS},
            buckets=buckets,
            trouble=feed.trouble,
            left=feed.left,
            read=len(index),
            foreign=index.foreign,
            search=search,
        )

    async def _dead_letter(self, request: web.Request) -> web.Response:
        """Show one dead letter in full."""
        state = self._state
        row = state.index.find(request.match_info["id"])
        if row is None:
            page = state.page("No such dead letter", LIST)
            message = "Run connector dlq show with its id: it may be older than what the console keeps."
            return html(render("message.html", page, message=message, kind="warn", back=LIST), 404)
        dead_letter, trouble = await self._fetch(row)
        inspection, same = None, [row]
        if dead_letter is not None:
            try:
                inspection = await state.ports.inspect(dead_letter)
            except ConnectorError as error:
                trouble = f"It cannot be decoded or checked now: {error}"
            same = await asyncio.to_thread(state.index.same_event, dead_letter.facts.dedup_id)
        page = state.page(f"Dead letter {row.id[:8]}", LIST)
        try:
            text = render(
                "dead_letter.html", page, detail_view(Found(row, dead_letter, inspection, trouble, same), state.mask)
            )
        except (ValueError, TypeError, RecursionError) as error:
            # JSON may be unable to represent an event, for example one nested too deeply. The rest of the page is still
            # useful.
            trouble = f"The event cannot be shown: {type(error).__name__}. Export the dead letter to see it."
            text = render(
                "dead_letter.html", page, detail_view(Found(row, dead_letter, None, trouble, same), state.mask)
            )
        return html(text)

    async def _fetch(self, row: DeadLetterRow) -> tuple[DeadLetterEntry | None, str | None]:
        """Return a dead letter's record from Kafka, or why there is none."""
        try:
            found = await asyncio.to_thread(self._state.ports.fetch, [row.place])
        except ConnectorError as error:
            return None, f"Its record cannot be read now: {error}"
        facts = parse(found[0].headers) if found else None
        if not found or facts is None or facts.id != row.id:
            return None, "Kafka no longer keeps its record: the topic's retention time has passed."
        return DeadLetterEntry(found[0], facts, row.state), None
