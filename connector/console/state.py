"""What all addresses of the console share: the edges it was given, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from connector.clock import Clock
from connector.config.loader import Settings
from connector.console.audit import Audit, AuditTopic
from connector.console.feed import Feed, Tail
from connector.console.frame import Frame
from connector.console.index import DeadLetterIndex, Query
from connector.console.jobs import Jobs
from connector.console.masking import Mask
from connector.console.sampler import Backlog, Sampler
from connector.console.security import Guard, Session, caller
from connector.dead_letters.filters import Filter
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry
from connector.dead_letters.replay import ReplayService
from connector.records import Record

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Edges:
    """What the console is given: everything of Kafka and of the configured vendors. The first three block.

    `tail` follows the dead-letter topic, `fetch` returns its records at some partitions and offsets, and `letters`
    reads those that a filter wants (with True the resolved ones too), telling its progress. `inspect` decodes and
    prepares a letter by today's rules. All raise `ConnectorError` where they cannot.
    """

    tail: Callable[[], Tail]
    fetch: Callable[[Sequence[tuple[int, int]]], Sequence[Record]]
    dead_letters: Callable[[Filter, bool, Progress], Iterator[DeadLetterEntry]]
    inspect: Callable[[DeadLetterEntry], Awaitable[Inspection]]
    desk: ReplayService
    backlog: Backlog
    audit: AuditTopic | None
    clock: Clock


class State:
    """One console's memory; made once, before it listens."""

    def __init__(self, settings: Settings, members: Sequence[str], edges: Edges) -> None:
        own = settings.console
        token = own.token.get_secret_value() if own.token is not None else None
        self.settings = settings
        self.edges = edges
        self.clock = edges.clock
        self.mask = Mask(own.mask)
        self.guard = Guard(token=token, names=own.hosts, clock=edges.clock)
        self.index = DeadLetterIndex(own.letters)
        self.feed = Feed(self.index, edges.tail)
        self.sampler = Sampler(
            members, list(settings.destinations), edges.backlog, interval=own.interval, clock=edges.clock
        )
        self.jobs = Jobs(edges.desk, edges.clock)
        self.audit = Audit(edges.audit, edges.clock)

    def session(self) -> Session:
        """Return the session of a request that passed the gates. Raises `LookupError` for any other."""
        found = caller()
        if found is None:
            raise LookupError("the request has not passed the gates")
        return found.session

    @property
    def _by_token(self) -> bool:
        found = caller()
        return found is not None and found.by_token

    def who(self, request: web.Request) -> str:
        """Return who asks, for the audit log: a name where somebody signed in, and from where."""
        return f"{self.session().name or 'somebody'} ({request.remote or 'unknown'})"

    def frame(self) -> Frame:
        """Return what every page shows around its content."""
        session = self.session()
        signed_in = self.guard.needs_token and not self._by_token
        return Frame(
            group=self.settings.kafka.group_id,
            now=self.clock.wall(),
            csrf=self.guard.csrf(session),
            who=session.name if signed_in else None,
            ill=sum(one.state in ("held", "probing") for one in self.sampler.destinations),
            open_dead_letters=len(self.index.rows(Query())),
            running=sum(job.state == "running" for job in self.jobs.all()),
        )

    def fault(self, request: web.Request, given: object) -> str | None:
        """Return why a POST is not taken, None where it is; `given` is the form's CSRF token."""
        if self._by_token:
            # No browser sends this header by itself, so no other site can have made the request.
            return None
        return self.guard.form_fault(request, self.session(), given if isinstance(given, str) else "")


def html(text: str, status: int = 200) -> web.Response:
    """Answer with a page."""
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")
