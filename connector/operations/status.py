"""What all running members report now: destinations with their holds, rates, and backlog. Kafka is not asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from connector.clock import SystemClock
from connector.console.members import DestinationView, MemberResponse
from connector.console.sampling import PartitionBacklog, RateSample, Sampler

FIRST: Final = 1.0
"""Seconds between the first two samples, from which the first rates are computed."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=3.0)


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """The state of all members at one time. `sample` has the rates and the backlog by topic; `at` is epoch seconds."""

    at: float
    members: Sequence[MemberResponse]
    destinations: Sequence[DestinationView]
    sample: RateSample
    rates: Mapping[str, float]

    @property
    def is_reachable(self) -> bool:
        """Whether any member answered."""
        return any(member.trouble is None for member in self.members)


async def follow_status(
    names: Sequence[str], addresses: Sequence[str], interval: float
) -> AsyncGenerator[GroupStatus, None]:
    """Yield the members' state, first after a second, then every `interval` seconds."""
    sampler = Sampler(addresses, names, _unknown, interval=interval, clock=SystemClock())
    async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session:
        await sampler.sample(session)
        wait = FIRST
        while True:
            await asyncio.sleep(wait)
            await sampler.sample(session)
            sample = sampler.history.last or RateSample(0.0)
            yield GroupStatus(sample.at, sampler.responses, sampler.destinations, sample, sampler.rates)
            wait = interval


async def _unknown() -> Mapping[tuple[str, int], PartitionBacklog]:
    """Return nothing, so that the members' own lag is used as backlog: they answer even while Kafka does not."""
    return {}
