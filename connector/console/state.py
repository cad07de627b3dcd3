"""What the console gets from outside, and what it keeps in memory for all of its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from connector.clock import Clock
from connector.config.loader import Settings
from connector.console.advice import NO_OPTIONS, CommandOptions
from connector.console.audit import Audit, AuditTopic
from connector.console.feed import Feed, Tail
from connector.console.index import DeadLetterIndex, Query
from connector.console.jobs import Jobs
from connector.console.links import Links
from connector.console.masking import Mask
from connector.console.rendering import Page
from connector.console.sampling import Backlog, Sampler
from connector.console.search import Searches, SearchPorts
from connector.console.security import ProxySignIn, Session, SignInGuard, caller
from connector.console.timeline import Chronicle, Happening, read_events
from connector.dead_letters.filters import Filter
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.dead_letters.replay import ReplayService
from connector.records import Record

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ConsolePorts:
    """Everything that the console uses of Kafka and the vendors. The first three block.

    `tail` follows the dead-letter topic, `fetch` returns its records at some partitions and offsets, and `dead_letters`
    reads those that match a filter (with True the resolved ones too) and reports its progress. `inspect` decodes and
    prepares a dead letter by today's rules; `decode` only decodes it. `search` reads for searches. All raise
    `ConnectorError` if they cannot. `own_events` is what this process did; `past_events` blocks, and returns what the
    topic of events has from a time (epoch seconds) on. `options` are added to the commands that the pages show.
    """

    tail: Callable[[], Tail]
    fetch: Callable[[Sequence[tuple[int, int]]], Sequence[Record]]
    dead_letters: Callable[[Filter, bool, Progress], Iterator[DeadLetterEntry]]
    inspect: Callable[[DeadLetterEntry], Awaitable[Inspection]]
    decode: Callable[[DeadLetterEntry], Awaitable[Inspection]]
    search: SearchPorts
    replays: ReplayService
    backlog: Backlog
    audit: AuditTopic | None
    clock: Clock
    own_events: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    past_events: Callable[[float], Sequence[Mapping[str, Any]]] | None = None
    options: CommandOptions = NO_OPTIONS


class ConsoleState:
    """One console's memory; created once, before it listens."""

    def __init__(
        self, settings: Settings, members: Sequence[str], ports: ConsolePorts, *, sparse: bool = False
    ) -> None:
        own = settings.console
        proxy = None
        if own.proxy is not None:
            proxy = ProxySignIn(own.proxy.addresses, own.proxy.user_header, own.proxy.act)
        self.settings = settings
        self.ports = ports
        self.clock = ports.clock
        self.mask = Mask([*own.mask, *settings.hashed_paths])
        self.links = Links(own.links)
        self.guard = SignInGuard(roles=own.roles, names=own.hosts, clock=ports.clock, proxy=proxy)
        self.index = DeadLetterIndex(own.letters)
        self.feed = Feed(self.index, ports.tail)
        self.searches = Searches(self.index, ports.search)
        self.chronicle = Chronicle()
        self.sampler = Sampler(
            members,
            list(settings.destinations),
            ports.backlog,
            interval=own.interval,
            clock=ports.clock,
            chronicle=self.chronicle,
            sparse=sparse,
        )
        self.jobs = Jobs(ports.replays, ports.clock)
        self.audit = Audit(ports.audit, ports.clock)

    def happenings(self) -> list[Happening]:
        """Return the events of the last day, newest first."""
        self.chronicle.add(read_events(list(self.ports.own_events())), self.clock.wall())
        return self.chronicle.happenings()

    def session(self) -> Session:
        """Return the session of a request that passed the checks. Raises `LookupError` for any other."""
        found = caller()
        if found is None:
            raise LookupError("the request has not passed the checks")
        return found.session

    @property
    def _by_token(self) -> bool:
        found = caller()
        return found is not None and found.by_token

    @property
    def may_act(self) -> bool:
        """Whether the caller of this request may start actions."""
        found = caller()
        return found is not None and found.role == "act"

    def who(self, request: web.Request) -> str:
        """Return who asks, for the audit log: the name of the session, and the address."""
        return f"{self.session().name or 'anonymous'} ({self.guard.source(request)})"

    def page(self, title: str, section: str, live: int | None = None) -> Page:
        """Return what a page shows around its content (`Page`)."""
        session = self.session()
        signed_in = self.guard.needs_token and not self._by_token
        return Page(
            group=self.settings.kafka.group_id,
            now=self.clock.wall(),
            csrf=self.guard.csrf(session),
            who=session.name if signed_in else None,
            held=sum(destination.held for destination in self.sampler.destinations),
            unresolved=len(self.index.rows(Query())),
            unready=sum(each.trouble is not None or each.ready is False for each in self.sampler.responses),
            running=sum(job.state == "running" for job in self.jobs.all()),
            title=title,
            section=section,
            options=self.ports.options,
            live=live,
            may_act=self.may_act,
        )

    def form_fault(self, request: web.Request, given: object) -> str | None:
        """Return why a POST is refused, None if it is fine; `given` is the form's CSRF token."""
        if self._by_token:
            # No browser sends this header by itself, so no other site can have made the request.
            return None
        return self.guard.form_fault(request, self.session(), given if isinstance(given, str) else "")
