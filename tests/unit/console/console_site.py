"""A console in this process, on fakes: a topic that is a list, a replay service that counts, no members."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from types import MappingProxyType
from typing import Any

from connector.clock import SystemClock
from connector.config.loader import ConsoleSettings, Settings
from connector.console.application import Console, ConsolePorts
from connector.console.search import SearchPorts
from connector.console.state import Progress
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import parse
from connector.dead_letters.reader import DeadLetterEntry
from connector.dead_letters.replay import Order, Outcome, Step
from connector.errors import StartupError
from connector.records import Record
from connector.vendors import code_meaning

code_meaning("mytracker", "0", "")  # looks up what is installed once, which a page of a test must not wait for


class ListedTail:
    """A topic of some records, which come at the first reading."""

    cluster_id = "cluster"
    left = 0
    beginnings: Mapping[int, int] = MappingProxyType({})

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list(records)

    def read(self) -> Sequence[Record]:
        """Return everything, once."""
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Do nothing."""


class CountingReplays:
    """Does what is asked with every matching dead letter, and records it."""

    def __init__(self, dead_letters: Sequence[DeadLetterEntry]) -> None:
        self.dead_letters = dead_letters
        self.orders: list[tuple[str, Order]] = []

    async def plan(self, order: Order) -> AsyncGenerator[Step, None]:
        """Find that all would pass."""
        async for step in self._all("plan", order):
            yield step

    async def plan_discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Find that all would be discarded."""
        async for step in self._all("plan_discard", order):
            yield step

    async def replay(self, order: Order) -> AsyncGenerator[Step, None]:
        """Say that all are replayed."""
        async for step in self._all("replay", order):
            yield step

    async def discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Say that all are discarded."""
        async for step in self._all("discard", order):
            yield step

    async def _all(self, what: str, order: Order) -> AsyncIterator[Step]:
        self.orders.append((what, order))
        fit = [
            dead_letter
            for dead_letter in self.dead_letters
            if order.wanted.matches(dead_letter.facts, dead_letter.record)
        ]
        yield Step(tuple(Outcome(dead_letter, None) for dead_letter in fit), 1, 1)


class ListedAudit:
    """Audit records as a list; none where `broken`."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.broken = False

    async def write(self, record: bytes) -> None:
        """Keep a record."""
        if self.broken:
            raise StartupError("the audit topic is gone")
        self.records.append(record)


class Site:
    """A console that listens, and the fakes behind it."""

    def __init__(self, records: Sequence[Record], *, server_token: str | None = None, **console: Any) -> None:
        found = ((record, parse(record.headers)) for record in records)
        self.dead_letters = [DeadLetterEntry(record, facts, "open") for record, facts in found if facts is not None]
        self.replays = CountingReplays(self.dead_letters)
        self.audit = ListedAudit()
        kafka = {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "unused"}}
        own = ConsoleSettings.model_validate({"port": 0, **console})
        server = {"token": server_token}
        self.settings = Settings.model_validate({"kafka": kafka, "destinations": {}, "console": own, "server": server})
        self.console = Console(self.settings, [], self._ports(records))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.console.port}"

    def _ports(self, records: Sequence[Record]) -> ConsolePorts:
        by_place = {(record.partition, record.offset): record for record in records}

        def fetch(places: Sequence[tuple[int, int]]) -> list[Record]:
            return [by_place[place] for place in places if place in by_place]

        async def inspect(_dead_letter: DeadLetterEntry) -> Any:
            raise StartupError("there are no rules here")

        async def backlog() -> dict[Any, Any]:
            return {}

        def dead_letters(wanted: Filter, _resolved: bool, progress: Progress) -> Iterator[DeadLetterEntry]:
            progress(1, 1)
            yield from (each for each in self.dead_letters if wanted.matches(each.facts, each.record))

        return ConsolePorts(
            tail=lambda: ListedTail(records),
            fetch=fetch,
            dead_letters=dead_letters,
            inspect=inspect,
            decode=inspect,
            search=SearchPorts(lambda _progress: iter(records), fetch, nullcontext),
            replays=self.replays,
            backlog=backlog,
            audit=self.audit,
            clock=SystemClock(),
        )


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Site]:
    """Run a console until the context is left."""
    await site.console.start()
    try:
        yield site
    finally:
        await site.console.stop()
