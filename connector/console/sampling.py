"""Asks the members and Kafka for their state at an interval, and keeps the answers and their history for the pages."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import aiohttp
import structlog
from yarl import URL

from connector.clock import Clock
from connector.console.members import (
    CONSUMED,
    DEAD_LETTERED,
    DELIVERED,
    LAG,
    Counts,
    DestinationView,
    MemberResponse,
    destinations,
    growth,
    read_response,
)
from connector.console.timeline import Chronicle, TimelineEvent, read_events
from connector.errors import ConnectorError

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
MINUTE: Final = 60.0

_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)
GONE_SECONDS: Final = 600.0
"""How long a port of a range that answered before is shown as unreachable."""
_MEMBERS: Final = 64
"""Members that are asked, at most."""
_BODY: Final = 8 << 20
"""Bytes of one answer that are read, at most."""
_log = structlog.get_logger()

_OVERLAP: Final = 60.0
"""The overlap in seconds when asking a member for events, because its clock may differ from ours."""
_KAFKA_PATIENCE: Final = 2.0
"""Seconds that a sample waits for Kafka. Then it continues without, so that the page stays current."""
_KAFKA_SILENT: Final = 6.0
"""Seconds after which Kafka's silence is reported as a problem."""


class PartitionBacklog(NamedTuple):
    """What is unfinished in one partition, computed from the group's commit; None for what is unknown."""

    committed: int | None
    end: int | None
    records: float


Backlog = Callable[[], Awaitable[Mapping[tuple[str, int], PartitionBacklog]]]
"""Returns what Kafka knows of each partition. Raises `ConnectorError`."""


@dataclass(frozen=True, slots=True)
class RateSample:
    """Backlog and rates at one time (`at`, epoch seconds). Unknown values are left out.

    `backlog` is unfinished records by topic. `accepted` and `dead` are records a second by destination (dead letters
    without a destination under an empty name), `consumed` records a second in all.
    """

    at: float
    backlog: Mapping[str, float] = field(default_factory=dict)
    accepted: Mapping[str, float] = field(default_factory=dict)
    dead: Mapping[str, float] = field(default_factory=dict)
    consumed: float | None = None


class SampleHistory:
    """The samples of a day in bounded memory: every sample of the last hour, and one mean a minute before it."""

    def __init__(self, interval: float) -> None:
        self._fine: deque[RateSample] = deque(maxlen=int(HOUR / interval) + 2)
        self._coarse: deque[RateSample] = deque(maxlen=int(DAY / MINUTE) + 2)
        self._minute: list[RateSample] = []

    def add(self, sample: RateSample) -> None:
        """Add a sample; samples come in the order of time."""
        self._fine.append(sample)
        # The first sample of the next minute closes a minute, so that a gap leaves no minute unfinished.
        if self._minute and sample.at // MINUTE != self._minute[0].at // MINUTE:
            self._coarse.append(mean(self._minute))
            self._minute = []
        self._minute.append(sample)

    @property
    def last(self) -> RateSample | None:
        """The newest sample."""
        return self._fine[-1] if self._fine else None

    def since(self, at: float) -> list[RateSample]:
        """Return the samples from a time (epoch seconds) on: all of the last hour, means of minutes before it."""
        begin = self._fine[0].at if self._fine else float("inf")
        older = (sample for sample in self._coarse if sample.at < begin)
        return [sample for sample in (*older, *self._fine) if sample.at >= at]


def mean(samples: Iterable[RateSample]) -> RateSample:
    """Return the mean of some samples, at the time of the first."""
    samples = list(samples)
    consumed = [sample.consumed for sample in samples if sample.consumed is not None]
    return RateSample(
        samples[0].at,
        _mean_by_name([sample.backlog for sample in samples]),
        _mean_by_name([sample.accepted for sample in samples]),
        _mean_by_name([sample.dead for sample in samples]),
        sum(consumed) / len(consumed) if consumed else None,
    )


def _mean_by_name(values: list[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in values for name in each)
    found = {name: [each[name] for each in values if name in each] for name in names}
    return {name: sum(each) / len(each) for name, each in found.items()}


class Sampler:
    """The current state of members, destinations and backlog, and its history. `run` until it is cancelled."""

    def __init__(
        self,
        members: Sequence[str],
        names: Sequence[str],
        backlog: Backlog,
        *,
        interval: float,
        clock: Clock,
        chronicle: Chronicle | None = None,
        sparse: bool = False,
    ) -> None:
        self._members = [URL(member) for member in members]
        self._names = names
        self._backlog = backlog
        self._interval = interval
        self._clock = clock
        self._chronicle = Chronicle() if chronicle is None else chronicle
        self._events_since: dict[str, float] = {}
        self._sparse = sparse
        self._answered_at: dict[str, float] = {}
        self._before: dict[str, tuple[float, Counts]] = {}
        self._ill_since: dict[str, tuple[float, bool]] = {}
        self.history = SampleHistory(interval)
        """The charts' data."""
        self.responses: list[MemberResponse] = []
        """What each member reported last."""
        self.destinations: list[DestinationView] = destinations(names, [])
        """Every destination, those in the worst state first."""
        self.sampled_at: float | None = None
        """When this was sampled, epoch seconds; None before the first time."""
        self.partitions: Mapping[tuple[str, int], PartitionBacklog] = {}
        """What Kafka reported last of each partition."""
        self.targets: dict[str, tuple[URL, str | None]] = {}
        """Each member's port by its address, with the Host header to send."""
        self.rates: dict[str, float] = {}
        """Records a second that each member delivered, by its address."""
        self._asking: asyncio.Task[Mapping[tuple[str, int], PartitionBacklog]] | None = None
        self._asked_at = 0.0
        self.kafka_trouble: str | None = None
        """Why the backlog cannot be read from Kafka."""

    async def run(self) -> None:
        """Sample at every interval."""
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
                while True:
                    began = self._clock.now()
                    await self.sample(session)
                    await self._clock.sleep(self._interval - (self._clock.now() - began))
        finally:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)

    async def sample(self, session: aiohttp.ClientSession) -> None:
        """Ask every member and Kafka once."""
        addresses = [each for member in self._members for each in await _addresses(member)][:_MEMBERS]
        asking = asyncio.gather(*(self._ask(session, member, host) for member, host in addresses))
        known, responses = await asyncio.gather(self._ask_kafka(), asking)
        self.targets = {str(member.origin()): (member, host) for member, host in addresses}
        total = self._rates(responses)
        lag: dict[str, float] = {}
        for response in responses:
            for (metric, topic), value in response.counts.items():
                if metric == LAG:
                    lag[topic] = lag.get(topic, 0.0) + value
        answered = any(response.trouble is None for response in responses)
        responses = self.responses = self._since(self._there(responses))
        self.destinations = destinations(self._names, responses)
        self.sampled_at = self._clock.wall()
        self.history.add(
            RateSample(
                self.sampled_at,
                self._backlog_by_topic() if known else lag,
                _of_metric(total, DELIVERED),
                _of_metric(total, DEAD_LETTERED),
                sum(_of_metric(total, CONSUMED).values()) if answered else None,
            )
        )

    async def _ask(self, session: aiohttp.ClientSession, member: URL, host: str | None) -> MemberResponse:
        """Return a member's report of itself, and note its events."""
        response = await _ask(session, member, host)
        if response.trouble is None:
            since, now = self._events_since.get(response.address, 0.0), self._clock.wall()
            events = await _events(session, member, host, since)
            if events is not None:
                # Ask with an overlap. Events have ids, so duplicates are dropped.
                self._events_since[response.address] = now - _OVERLAP
                self._chronicle.add(events, now)
        return response

    def _since(self, responses: list[MemberResponse]) -> list[MemberResponse]:
        """Note since when members are unreachable or not ready, unless they report it themselves."""
        known, now, is_first = self._ill_since, self._clock.wall(), self.sampled_at is None
        self._ill_since = {each.address: known.get(each.address, (now, is_first)) for each in responses if each.ill}
        return [
            replace(each, ill_since=self._ill_since[each.address][0], ill_before=self._ill_since[each.address][1])
            if each.ill and each.ill_since is None
            else each
            for each in responses
        ]

    def _there(self, responses: list[MemberResponse]) -> list[MemberResponse]:
        """Return the actual members. In a range of ports most may be unused, and those are not members.

        A port that answered recently and no longer does is a missing member.
        """
        now = self._clock.now()
        self._answered_at.update({each.address: now for each in responses if each.trouble is None})
        if not self._sparse:
            return responses
        gone = now - GONE_SECONDS
        return [each for each in responses if self._answered_at.get(each.address, gone) > gone] or responses[:1]

    def _rates(self, responses: Sequence[MemberResponse]) -> dict[tuple[str, str], float]:
        """Return the growth of each counter per second over all members, since each one's last sample."""
        now = self._clock.now()
        asked = {response.address for response in responses}
        self._before = {address: seen for address, seen in self._before.items() if address in asked}
        total: dict[tuple[str, str], float] = {}
        self.rates = {}
        for response in responses:
            if response.trouble is None:
                then, before = self._before.get(response.address, (now, {}))
                self._before[response.address] = (now, response.counts)
                seconds = max(now - then, 0.001)
                grown = growth(before, response.counts)
                for key, count in grown.items():
                    total[key] = total.get(key, 0.0) + count / seconds
                self.rates[response.address] = sum(_of_metric(grown, DELIVERED).values()) / seconds
        return total

    def _backlog_by_topic(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for (topic, _), backlog in self.partitions.items():
            found[topic] = found.get(topic, 0.0) + backlog.records
        return found

    async def _ask_kafka(self) -> bool:
        """Ask Kafka for the backlog, and wait a little; return whether it is known now.

        It is unknown in a group that never committed. Then only the members' own lag is available.
        """
        if self._asking is None:
            self._asking, self._asked_at = asyncio.ensure_future(self._backlog()), self._clock.now()
        # Not cancelled: its thread cannot be cancelled, and the next sample uses its answer.
        await asyncio.wait({self._asking}, timeout=_KAFKA_PATIENCE)
        if not self._asking.done():
            silent = self._clock.now() - self._asked_at
            if silent >= _KAFKA_SILENT:
                self._kafka_fails(f"Kafka has not answered for {silent:.0f} s")
            return self._committed() and self.kafka_trouble is None
        asking, self._asking = self._asking, None
        try:
            self.partitions = asking.result()
        except ConnectorError as error:
            self._kafka_fails(str(error))
            return False
        self.kafka_trouble = None
        return self._committed()

    def _committed(self) -> bool:
        return any(each.committed is not None for each in self.partitions.values())

    def _kafka_fails(self, why: str) -> None:
        if self.kafka_trouble is None:
            _log.warning("console.backlog_unknown", message=why)
        self.kafka_trouble = why


def _of_metric(total: Counts, metric: str) -> dict[str, float]:
    return {label: value for (name, label), value in total.items() if name == metric}


async def _addresses(member: URL) -> list[tuple[URL, str | None]]:
    """Return the member's URL for each address of its name: a headless service names every member at once."""
    host = member.host or ""
    if member.scheme != "http":
        # A certificate is issued for the name, so use the name itself.
        return [(member, None)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, member.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        return [(member, None)]
    # A member that listens on both kinds of address is one member.
    first = [info for info in found if info[0] == socket.AF_INET] or found
    addresses = sorted({str(info[4][0]) for info in first})
    if len(addresses) <= 1:
        return [(member, None)]
    return [(member.with_host(address), host) for address in addresses]


async def _ask(session: aiohttp.ClientSession, member: URL, host: str | None) -> MemberResponse:
    """Return what a member reports of itself."""
    address = str(member.origin())
    headers = {} if host is None else {"Host": host}
    try:
        status = await _json(session, member / "status", headers)
        ready = await _readiness(session, member / "readyz", headers)
        async with session.get(member / "metrics", headers=headers, allow_redirects=False) as response:
            metrics = (await _body(response)).decode(errors="replace")
    except TimeoutError:
        return MemberResponse(address, trouble=f"no answer within {_TIMEOUT.total:g} s")
    except (aiohttp.ClientError, ValueError, RecursionError, OSError) as error:
        return MemberResponse(address, trouble=str(error)[:300] or type(error).__name__)
    if not isinstance(status, dict):
        return MemberResponse(address, trouble="/status is not a JSON object; is this a connector's port?")
    return read_response(address, status, metrics, ready)


async def _events(
    session: aiohttp.ClientSession, member: URL, host: str | None, since: float
) -> list[TimelineEvent] | None:
    """Return a member's events since a time (epoch seconds); None if it does not report them, like an older version."""
    headers = {} if host is None else {"Host": host}
    try:
        found = await _json(session, (member / "events").with_query(since=f"{max(0.0, since):.3f}"), headers)
    except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, OSError):
        return None
    return read_events(found)


async def _readiness(session: aiohttp.ClientSession, address: URL, headers: Mapping[str, str]) -> Any:
    """Return the JSON of /readyz; None for any other answer, because the rest of the report is still useful."""
    try:
        return await _json(session, address, headers, allowed=(200, 503))
    except ValueError:
        return None


async def _json(
    session: aiohttp.ClientSession, address: URL, headers: Mapping[str, str], allowed: Collection[int] = (200,)
) -> Any:
    """Return the JSON of an answer. Raises `ValueError` for any other answer."""
    async with session.get(address, headers=headers, allow_redirects=False) as response:
        if response.status not in allowed:
            raise ValueError(f"{address.path} answered HTTP {response.status}; is this a connector's port?")
        body = await _body(response)
        try:
            found = json.loads(body)
            if b"\\ud" in body.lower():
                # A lone surrogate can be written in JSON only. No page and no URL can contain it.
                found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
        except RecursionError:
            raise ValueError(f"{address.path} answered JSON without end; is this a connector's port?") from None
        return found


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body. Raises `ValueError` if it is larger than any member's."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _BODY:
            raise ValueError(f"an answer of more than {_BODY >> 20} MiB; is this a connector's port?")
    return bytes(body)
