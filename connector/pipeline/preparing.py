"""What intake works with, and the deliveries of one chunk of records, prepared for each destination. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from connector.clock import Clock
from connector.errors import Refusal
from connector.metrics import Metrics
from connector.pipeline.batching import Delivery, size_alone
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import WHOLE, PartitionTracker
from connector.pipeline.replays import ReplayedDelivery
from connector.pipeline.routing import Routed, RouteTable
from connector.pipeline.storms import Storms
from connector.records import DeadLetter, Event, Item, Record
from connector.vendors.base import Vendor

NO_ITEM: Final = Item(b"")
"""The item of a delivery that is refused before it is sent."""


class Decoder(Protocol):
    """What turns a record's bytes into an event."""

    def decode(self, record: Record) -> Event:
        """Return the event. Raises `Refusal` for a broken record, `SchemaUnavailable` for a schema to resolve first."""
        ...

    def peek(self, record: Record) -> str | None:
        """Return the full name of the record's schema without decoding it, or None where that is not known."""
        ...

    async def resolve(self, key: object) -> None:
        """Return once `decode` has an answer for the schema; asks again for as long as the registry is in trouble."""
        ...

    def abandon(self, key: object) -> None:
        """Ask no more for a schema that no record waits for: who awaits its `resolve` is cancelled."""
        ...


class Deliverer(Protocol):
    """One destination, as intake sees it."""

    @property
    def name(self) -> str:
        """The destination's name."""
        ...

    @property
    def vendor(self) -> Vendor:
        """What prepares its items."""
        ...

    def offer(self, deliveries: Sequence[tuple[Delivery, Hashable]]) -> None:
        """Take deliveries over, each with its group. Does not block; it ends every one of them, some day."""
        ...

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Take over a delivery that breaks a rule before it is sent. Does not block."""
        ...


class DeadLetters(Protocol):
    """Where refused records go."""

    async def write(self, letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the letter, or its partition is ours no longer.

        Never raises but by cancellation.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What intake works with."""

    decoder: Decoder
    routes: RouteTable
    deliverers: Mapping[str, Deliverer]
    dead_letters: DeadLetters
    budget: Budget
    metrics: Metrics
    clock: Clock
    storms: Storms
    cluster_id: str


class Chunk:
    """The deliveries of one chunk of records, prepared one by one and offered at once to each destination."""

    __slots__ = ("_bits", "_charge", "_now", "_offers", "_to", "_vendors")

    def __init__(self, services: Services, bits: Mapping[str, int]) -> None:
        self._to = services
        self._bits = bits
        self._now = int(services.clock.wall() * 1000)
        self._charge = 0
        self._vendors = {name: deliverer.vendor for name, deliverer in services.deliverers.items()}
        self._offers: dict[str, list[tuple[Delivery, Hashable]]] = {name: [] for name in services.deliverers}

    def prepare(
        self, record: Record, tracker: PartitionTracker, routed: Sequence[Routed], dedup_id: str | None = None
    ) -> None:
        """Prepare what a record is routed to, but for what is finished; one that goes nowhere is skipped.

        `dedup_id` is given for a replayed record: the id that it always had.
        """
        bits = self._bits
        mask = 0
        for one in routed:
            mask |= bits.get(one[0], 0)
        if not mask:
            tracker.finish(record.offset, WHOLE)
            self._to.metrics.records_skipped.labels("other_destination" if routed else "unrouted").inc()
            return
        left = tracker.route(record.offset, mask)
        make = Delivery if dedup_id is None else partial(ReplayedDelivery, dedup_id=dedup_id)
        for destination, event, identity, _ in routed:
            bit = bits.get(destination, 0)
            if not left & bit:
                continue
            try:
                if isinstance(event, Refusal):
                    raise event
                vendor = self._vendors[destination]
                group = vendor.group(event)
                item = vendor.encode(event, self._now)
                limits = vendor.limits(group)
                if limits.overhead + len(item.body) > limits.bytes:
                    raise _too_large(size_alone(item, limits), limits.bytes)
            except Refusal as refusal:
                self._refuse(destination, make(record, tracker, bit, NO_ITEM, identity), refusal)
                continue
            delivery = make(record, tracker, bit, item, identity)
            self._charge += delivery.charge
            self._offers[destination].append((delivery, group))

    def offer(self) -> None:
        """Hand over what was prepared."""
        self._to.budget.add(self._charge)
        for name, deliveries in self._offers.items():
            if deliveries:
                self._to.deliverers[name].offer(deliveries)

    def _refuse(self, destination: str, delivery: Delivery, refusal: Refusal) -> None:
        """Hand over a delivery that breaks a rule before it is sent."""
        self._to.budget.add(delivery.charge)
        self._to.deliverers[destination].refuse(delivery, refusal)


def _too_large(size: int, limit: int) -> Refusal:
    return Refusal(
        "too_large", "batch.bytes", f"the event alone makes a request body of {size} bytes, the limit is {limit}"
    )
