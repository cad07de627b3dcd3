"""Asks the members and Kafka how things are, again and again, and keeps the answers for the page."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import aiohttp
import structlog
from yarl import URL

from connector.clock import Clock
from connector.console.members import (
    CONSUMED,
    DEAD_LETTERED,
    DELIVERED,
    LAG,
    Answer,
    Counts,
    Destination,
    counts,
    destinations,
    grown,
)
from connector.console.series import History, Sample
from connector.errors import ConnectorError

_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)
_MOST: Final = 64
"""Members that are asked, at most."""
_log = structlog.get_logger()

Backlog = Callable[[], Awaitable[Mapping[str, float] | None]]
"""Returns the records not done yet by topic, from Kafka; None for a group that has committed nothing.

Raises `ConnectorError`.
"""


class Sampler:
    """What is known of members, destinations and backlog now, and how it was. `run` until it is cancelled."""

    def __init__(
        self, members: Sequence[str], names: Sequence[str], backlog: Backlog, *, interval: float, clock: Clock
    ) -> None:
        self._members = [URL(member) for member in members]
        self._names = names
        self._backlog = backlog
        self._interval = interval
        self._clock = clock
        self._before: dict[str, tuple[float, Counts]] = {}
        self.history = History(interval)
        """The plots' data."""
        self.answers: list[Answer] = []
        """What each member said last."""
        self.destinations: list[Destination] = destinations(names, [])
        """Every destination, those in the worst state first."""
        self.sampled_at: float | None = None
        """When all that was known, epoch seconds."""
        self.kafka_trouble: str | None = None
        """Why Kafka does not tell the backlog."""

    async def run(self) -> None:
        """Sample at every interval."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
            while True:
                began = self._clock.now()
                await self.sample(session)
                await self._clock.sleep(self._interval - (self._clock.now() - began))

    async def sample(self, session: aiohttp.ClientSession) -> None:
        """Ask everybody once."""
        addresses = [each for member in self._members for each in await _addresses(member)][:_MOST]
        asking = asyncio.gather(*(_ask(session, member, host) for member, host in addresses))
        backlog, answers = await asyncio.gather(self._ask_kafka(), asking)
        now = self._clock.now()
        asked = {answer.address for answer in answers}
        self._before = {address: seen for address, seen in self._before.items() if address in asked}
        total: dict[tuple[str, str], float] = {}
        for answer in answers:
            then, before = self._before.get(answer.address, (now, {}))
            if answer.trouble is None:
                self._before[answer.address] = (now, answer.counts)
                seconds = max(now - then, 0.001)
                for key, count in grown(before, answer.counts).items():
                    total[key] = total.get(key, 0.0) + count / seconds
        lag: dict[str, float] = {}
        for answer in answers:
            for (metric, topic), value in answer.counts.items():
                if metric == LAG:
                    lag[topic] = lag.get(topic, 0.0) + value
        told = any(answer.trouble is None for answer in answers)
        self.answers = answers
        self.destinations = destinations(self._names, self.answers)
        self.sampled_at = self._clock.wall()
        self.history.add(
            Sample(
                self.sampled_at,
                lag if backlog is None else backlog,
                _of(total, DELIVERED),
                _of(total, DEAD_LETTERED),
                sum(_of(total, CONSUMED).values()) if told else None,
            )
        )

    async def _ask_kafka(self) -> Mapping[str, float] | None:
        try:
            found = await self._backlog()
        except ConnectorError as error:
            if self.kafka_trouble is None:
                _log.warning("console.backlog_unknown", message=str(error))
            self.kafka_trouble = str(error)
            return None
        self.kafka_trouble = None
        return found


def _of(total: Counts, metric: str) -> dict[str, float]:
    return {label: value for (name, label), value in total.items() if name == metric}


async def _addresses(member: URL) -> list[tuple[URL, str | None]]:
    """Return the member's URL for each address that its name has: a headless service names every member at once."""
    host = member.host or ""
    if member.scheme != "http":
        # A certificate is the name's, so the name itself is asked.
        return [(member, None)]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, member.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        return [(member, None)]
    # A member that listens on both kinds of address is one member.
    first = [one for one in found if one[0] == socket.AF_INET] or found
    addresses = sorted({str(one[4][0]) for one in first})
    if len(addresses) <= 1:
        return [(member, None)]
    return [(member.with_host(address), host) for address in addresses]


async def _ask(session: aiohttp.ClientSession, member: URL, host: str | None) -> Answer:
    """Return what a member says of itself."""
    address = str(member.origin())
    headers = {} if host is None else {"Host": host}
    try:
        async with session.get(member / "status", headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                return Answer(address, trouble=f"/status answers {response.status}; is it a connector's port?")
            status = await response.json(content_type=None)
        async with session.get(member / "metrics", headers=headers, allow_redirects=False) as response:
            text = await response.text(errors="replace")
    except TimeoutError:
        return Answer(address, trouble=f"no answer within {_TIMEOUT.total:g} s")
    except (aiohttp.ClientError, ValueError, OSError) as error:
        return Answer(address, trouble=str(error) or type(error).__name__)
    if not isinstance(status, dict):
        return Answer(address, trouble="/status is no object; is it a connector's port?")
    return Answer(address, status, counts(text))
