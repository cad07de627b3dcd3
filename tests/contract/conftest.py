"""A vendor module and the simulator of the same vendor, connected by the real transport on a clock that stands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.config.loader import HttpSettings
from connector.delivery.codes import apply_codes
from connector.delivery.transport import HttpTransport
from connector.records import Item
from connector.testing import ManualClock, Simulator
from connector.vendors.base import Request, Vendor, VendorEvent, Verdict
from tests.contract.examples import APIS, KINDS

SAMPLES = Path(__file__).parent / "samples"
WALL = 1_700_000_000.0


class Wire:
    """One vendor module, one simulated account, and a transport between them."""

    def __init__(self, name: str, simulator: Simulator, settings: Mapping[str, Any], clock: ManualClock) -> None:
        kind = KINDS[name]
        self.simulator = simulator
        self.clock = clock
        self.settings = kind.settings.model_validate({**simulator.api.destination(simulator.url), **settings})
        self.vendor: Vendor = kind.build(self.settings)
        self.transport = HttpTransport("contract", HttpSettings(), 4)

    @property
    def now(self) -> int:
        """The time of day of both sides, in epoch milliseconds."""
        return int(self.clock.wall() * 1000)

    def event(self, fields: Mapping[str, Any], number: int = 0) -> VendorEvent:
        """Return an event of these fields, whose identity is its number."""
        return VendorEvent(fields, f"event {number}", self.now)

    def items(self, events: Sequence[Mapping[str, Any]]) -> tuple[Any, list[Item]]:
        """Return the group of the first event, and all events as items."""
        made = [self.event(fields, number) for number, fields in enumerate(events)]
        return self.vendor.group(made[0]), [self.vendor.encode(each, self.now) for each in made]

    def request(self, events: Sequence[Mapping[str, Any]]) -> Request:
        """Return the request that holds these events."""
        group, items = self.items(events)
        return self.vendor.request(group, items, self.now)

    async def send(self, group: Any, items: Sequence[Item], *, asked: int = 0, timeout: float = 10.0) -> Verdict:
        """Return the verdict on one request of these items. Raises `TransportError`."""
        request = self.vendor.request(group, items, self.now)
        response = await self.transport.send(request, timeout)
        return apply_codes(self.settings.codes, self.vendor.read(response, group, items, asked), response)

    async def deliver(self, *events: Mapping[str, Any]) -> Verdict:
        """Return the verdict on one request of these events."""
        return await self.send(*self.items(events))


Connect = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return what connects a vendor's module, with more settings, to an account with these options at this time."""
    open_wires: list[Wire] = []

    async def connected(
        name: str, *, account: Mapping[str, Any] | None = None, wall: float = WALL, **settings: Any
    ) -> Wire:
        clock = ManualClock(wall=wall)
        simulator = Simulator(APIS[name](**(account or {})), clock=clock)
        await simulator.start()
        wire = Wire(name, simulator, settings, clock)
        open_wires.append(wire)
        return wire

    yield connected
    for wire in open_wires:
        await wire.transport.close()
        await wire.simulator.stop()


@pytest.fixture
def sample() -> Callable[[str], Any]:
    """Return a function that reads a sample of a vendor's document by its file name."""
    return lambda name: json.loads((SAMPLES / name).read_text())
