"""One destination as a run builds it (worker, transport, sockets) before a vendor's simulator, without Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

from connector.clock import SystemClock
from connector.delivery.destination import Destination, Ports
from connector.delivery.transport import HttpTransport
from connector.delivery.worker import Worker
from connector.pipeline.batching import Delivery, Offer, charge_of
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.records import DeadLetter, Record
from connector.telemetry.metrics import Metrics
from connector.testing.jiguang import JiguangApi
from connector.testing.simulator import Api, Simulator
from connector.vendors import kinds
from connector.vendors.base import VendorEvent

WAIT_SECONDS: Final = 60.0
"""After so long what a test waits for will not come; no test passes or fails by anything shorter."""
FIRST_CUID: Final = 10_000_000
KNOWN_EVENT: Final = "page_view"
QUICK: Final = {"retry": {"initial": "20ms", "max": "200ms"}}


def jiguang_fields(number: int, event: str = KNOWN_EVENT) -> dict[str, Any]:
    """Return an event of a user whose cuid names it at the vendor."""
    now = int(time.time() * 1000)
    return {"cuid": FIRST_CUID + number, "eventName": event, "itime": now, "randomId": None, "properties": {}}


class DeadLetters:
    """A dead-letter topic that acknowledges at once."""

    def __init__(self) -> None:
        self.dead_letters: list[DeadLetter] = []

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Take one dead letter."""
        self.dead_letters.append(dead_letter)

    @property
    def numbers(self) -> list[int]:
        """The offsets of the records in it, ascending."""
        return sorted(dead_letter.record.offset for dead_letter in self.dead_letters)


class Site:
    """A simulator and a destination that speaks to it."""

    def __init__(self, simulator: Simulator, name: str = "d", **settings: Any) -> None:
        given = {**QUICK, **simulator.api.destination(simulator.url), **settings}
        kind = kinds()[given["vendor"]]
        self.simulator = simulator
        self.dead_letters = DeadLetters()
        self.budget = Budget(10**9)
        self.metrics = Metrics()
        self.tracker = PartitionTracker("t", 0, 0, [name])
        ports = Ports(SystemClock(), Random(7), self.dead_letters, None, self.metrics, self.budget)
        model = kind.settings.model_validate(given)
        self.reload: Callable[[], Mapping[str, Any]] = lambda: given
        self.at = Destination(
            name,
            model,
            kind.build(model),
            ports,
            reload=lambda: kind.build(kind.settings.model_validate(self.reload())),
        )
        self.worker = Worker(self.at, HttpTransport(name, model.http, model.max_in_flight), timeout=model.timeout)

    def offer(self, events: Iterable[tuple[int, Mapping[str, Any]]], key: bytes | None = None) -> None:
        """Offer events, each as the record at the offset that is its number."""
        vendor, bit, now = self.at.vendor, destination_bit(0), int(time.time() * 1000)
        offers: list[Offer] = []
        for number, fields in events:
            assert self.tracker.begin((number,))
            self.tracker.route((number,), bit)
            event = VendorEvent(fields, f"id-{number}", now)
            record = Record("t", 0, number, now, key, b"v", ())
            item = vendor.encode(event, now)
            charge = charge_of(record, item.body)
            self.budget.add(charge)
            delivery = Delivery(record, self.tracker, bit, item, event.identity, charge)
            offers.append(Offer(vendor.group(event), [delivery], charge))
        for offer in offers:
            self.worker.offer(offer)

    @property
    def accepted(self) -> list[int]:
        """The numbers of the events that the vendor took, ascending."""
        return sorted(event["cuid"] - FIRST_CUID for event in self.simulator.accepted)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < end, f"not within {WAIT_SECONDS:g} s: {self.worker.condition()}"
            await asyncio.sleep(0.01)

    async def done(self) -> None:
        """Wait until every record has its outcome."""
        await self.until(lambda: not self.tracker.unfinished)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker."""
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            task.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            await self.worker.close()
        assert isinstance(ended, asyncio.CancelledError), repr(ended)


@asynccontextmanager
async def site(
    api: Api | None = None, *, requests_per_second: int | None = None, **settings: Any
) -> AsyncIterator[Site]:
    """Give a running destination before a simulator, Jiguang's unless given."""
    simulator = Simulator(
        api or JiguangApi(events={KNOWN_EVENT: {}}), requests_per_second=requests_per_second, keep=True
    )
    async with simulator:
        built = Site(simulator, **settings)
        async with built.running():
            yield built
