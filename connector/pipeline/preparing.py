"""What intake works with, and the deliveries of one chunk of records, prepared for each destination. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from connector.clock import Clock
from connector.errors import Refusal
from connector.pipeline.batching import FIXED_CHARGE, Delivery, Offer, charge_of, headers_charge, size_alone
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import WHOLE, PartitionTracker
from connector.pipeline.storms import Storms
from connector.records import DeadLetter, Event, Item, Record
from connector.routing.table import Routed, RouteTable
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Vendor, VendorEvent

NO_ITEM: Final = Item(b"")
"""The item of a delivery that is refused before it is sent."""


class Decoder(Protocol):
    """What turns a record's bytes into an event."""

    def decode(self, record: Record) -> Event:
        """Return the event. Raises `Refusal` for a broken record, `SchemaUnavailable` for a schema to resolve first."""
        ...

    def decode_run(self, records: list[Record]) -> list[Event]:
        """Return the events of the first records, all, some or none; the next is `decode`'s to judge."""
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

    def offer(self, offer: Offer) -> None:
        """Take deliveries over. Does not block; it ends every one of them, some day."""
        ...

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Take over a delivery that breaks a rule before it is sent. Does not block."""
        ...


class DeadLetters(Protocol):
    """Where refused records go."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
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


@dataclass(slots=True)
class _Leg:
    """One destination of a chunk: the bit of its deliveries, and those that are prepared."""

    bit: int
    deliverer: Deliverer
    vendor: Vendor
    offers: list[Offer] = field(default_factory=list)

    def offer_of(self, group: Hashable) -> Offer:
        """Return what the group's next delivery is added to: the last offer, or a new one where that is another's."""
        if not self.offers or self.offers[-1].group != group:
            self.offers.append(Offer(group, [], 0))
        return self.offers[-1]


class Chunk:
    """The deliveries of one chunk of records, prepared as they come and offered at once to each destination."""

    __slots__ = ("_legs", "_now", "_to")

    def __init__(self, services: Services, bits: Mapping[str, int]) -> None:
        self._to = services
        self._now = int(services.clock.wall() * 1000)
        self._legs = {name: _Leg(bits[name], one, one.vendor) for name, one in services.deliverers.items()}

    def prepare(
        self, record: Record, tracker: PartitionTracker, routed: Sequence[Routed], dedup_id: str | None = None
    ) -> None:
        """Prepare what a record is routed to, but for what is finished; one that goes nowhere is skipped.

        `dedup_id` is given for a replayed record: the id that it always had.
        """
        legs = self._legs
        mask = 0
        for one in routed:
            if one.destination in legs:
                mask |= legs[one.destination].bit
        if not mask:
            tracker.finish(record.offset, WHOLE)
            self._to.metrics.records_skipped.labels("other_destination" if routed else "unrouted").inc()
            return
        left = tracker.route(record.offset, mask)
        for one in routed:
            leg = legs.get(one.destination)
            if leg is None or not left & leg.bit:
                continue
            if isinstance(one.event, Refusal):
                self._refuse(leg, record, tracker, one.identity, dedup_id, one.event)
            else:
                self._add(leg, tracker, ((record, one.event),))

    def prepare_all(
        self, events: Sequence[tuple[Record, Event]], tracker: PartitionTracker, destination: str, cluster_id: str
    ) -> bool:
        """Prepare one partition's events that all go to one destination as they are, as `prepare` does for each.

        Returns False, nothing prepared, where that has to look at each.
        """
        leg = self._legs.get(destination)
        if leg is None or not tracker.route_all([record.offset for record, _ in events], leg.bit):
            return False
        # `position_identity` written out.
        origin = f"{cluster_id}/{tracker.topic}/{tracker.partition}/"
        self._add(
            leg,
            tracker,
            [
                (record, VendorEvent(event.datum, f"{origin}{record.offset}", record.timestamp))
                for record, event in events
            ],
        )
        return True

    def _add(self, leg: _Leg, tracker: PartitionTracker, events: Sequence[tuple[Record, VendorEvent]]) -> None:
        """Prepare one partition's deliveries for one destination."""
        vendor, now, bit = leg.vendor, self._now, leg.bit
        offer: Offer | None = None
        room = 0
        for record, event in events:
            try:
                group = vendor.group(event)
                item = vendor.encode(event, now)
                size = len(item.body)
                if offer is None or group is not offer.group:
                    offer, limits = leg.offer_of(group), vendor.limits(group)
                    room = limits.bytes - limits.overhead
                if size > room:
                    raise _too_large(size_alone(item, limits), limits.bytes)
            except Refusal as refusal:
                self._refuse(leg, record, tracker, event.identity, event.first_dedup_id, refusal)
                continue
            # `charge_of` written out: every delivery is charged.
            charge = FIXED_CHARGE + len(record.value or b"") + len(record.key or b"") + size
            if record.headers:
                charge += headers_charge(record.headers)
            offer.charge += charge
            offer.deliveries.append(Delivery(record, tracker, bit, item, event.identity, charge, event.first_dedup_id))

    def _refuse(
        self,
        leg: _Leg,
        record: Record,
        tracker: PartitionTracker,
        identity: str,
        dedup_id: str | None,
        refusal: Refusal,
    ) -> None:
        """Hand over a delivery that breaks a rule before it is sent."""
        charge = charge_of(record)
        self._to.budget.add(charge)
        leg.deliverer.refuse(
            Delivery(record, tracker, leg.bit, NO_ITEM, identity, charge, first_dedup_id=dedup_id), refusal
        )

    def offer(self) -> None:
        """Hand over what was prepared."""
        for leg in self._legs.values():
            for offer in leg.offers:
                if offer.deliveries:
                    self._to.budget.add(offer.charge)
                    leg.deliverer.offer(offer)


def _too_large(size: int, limit: int) -> Refusal:
    return Refusal(
        "too_large", "batch.bytes", f"the event alone makes a request body of {size} bytes, the limit is {limit}"
    )
