"""The deliveries of one run of records: prepared for each destination, and offered to it at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from connector.clock import Clock
from connector.errors import Refusal
from connector.pipeline.batching import ANSWER_CHARGE, Delivery, Offer, charge_of, too_large
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import WHOLE, PartitionTracker
from connector.records import Item, Record
from connector.routing.table import Routed
from connector.tasks import internal_refusal
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Answering, Shaped, Vendor

NO_ITEM: Final = Item(b"")
"""The item of a delivery that breaks a local rule."""


class Deliverer(Protocol):
    """One destination, as intake sees it. Neither method blocks, and every delivery eventually gets an outcome."""

    @property
    def vendor(self) -> Vendor:
        """The vendor that prepares its items."""
        ...

    def offer(self, offer: Offer) -> None:
        """Take deliveries over."""
        ...

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Accept a delivery that breaks a local rule."""
        ...


class RunDestination:
    """One destination in a run: its bit in the trackers, and the deliveries prepared for it."""

    __slots__ = ("answer_charge", "bit", "deliverer", "offers", "shaped", "vendor")

    def __init__(self, bit: int, deliverer: Deliverer) -> None:
        self.bit = bit
        self.deliverer = deliverer
        self.offers: list[Offer] = []
        self.take_vendor(deliverer.vendor)

    def take_vendor(self, vendor: Vendor) -> None:
        """Use the current vendor: it is rebuilt when its settings or secrets are read again."""
        self.vendor = vendor
        self.shaped = vendor if isinstance(vendor, Shaped) else None
        self.answer_charge = ANSWER_CHARGE if isinstance(vendor, Answering) else 0

    def add(self, offer: Offer) -> None:
        """Add an offer that compiled code has made."""
        last = self.offer_of(offer.group)
        last.deliveries += offer.deliveries
        last.charge += offer.charge

    def offer_of(self, group: Hashable) -> Offer:
        """Return the offer for the next delivery of a group: the last one, or a new one if that is another group's."""
        if not self.offers or self.offers[-1].group != group:
            self.offers.append(Offer(group, [], 0))
        return self.offers[-1]


class Run:
    """The deliveries of one run of records, offered to each destination at once."""

    __slots__ = ("_budget", "_legs", "_metrics", "now")

    def __init__(self, budget: Budget, metrics: Metrics, clock: Clock, legs: Mapping[str, RunDestination]) -> None:
        self._budget = budget
        self._metrics = metrics
        self._legs = legs
        self.now = int(clock.wall() * 1000)
        """Epoch milliseconds, for the vendors' rules about time."""
        for leg in legs.values():
            if leg.deliverer.vendor is not leg.vendor:
                leg.take_vendor(leg.deliverer.vendor)

    def prepare(
        self, tracker: PartitionTracker, records: Sequence[Record], routed: Mapping[str, Sequence[Routed]]
    ) -> None:
        """Prepare records of one partition that all go to the same destinations, except for finished deliveries.

        `routed` has, by destination, one delivery for each record.
        """
        offsets = [record.offset for record in records]
        legs = [(self._legs[name], theirs) for name, theirs in routed.items() if name in self._legs]
        if not legs:
            tracker.finish(offsets, WHOLE)
            self._metrics.records_skipped.labels("other_destination").inc(len(records))
            return
        left = tracker.route(offsets, sum([leg.bit for leg, _ in legs]))
        for leg, theirs in legs:
            self._add(leg, tracker, zip(records, theirs, left, strict=True))

    def skip(self, tracker: PartitionTracker, record: Record, reason: str) -> None:
        """Finish a record that the user's rules send nowhere."""
        tracker.finish((record.offset,), WHOLE)
        self._metrics.records_skipped.labels(reason).inc()

    def prepare_again(
        self, tracker: PartitionTracker, destination: str, routed: Sequence[tuple[Record, Routed]]
    ) -> None:
        """Prepare records for one destination that were routed to it before and still need their outcome there."""
        leg = self._legs[destination]
        self._add(leg, tracker, [(record, delivery, tracker.left(record.offset) or 0) for record, delivery in routed])

    def reroute(self, tracker: PartitionTracker, destination: str, record: Record, routed: Sequence[Routed]) -> None:
        """Prepare a record for its new destinations: by new routes it no longer goes to the one that it waited for."""
        legs = {delivery.destination: delivery for delivery in routed if delivery.destination in self._legs}
        mask = sum([self._legs[name].bit for name in legs])
        new = tracker.reroute(record.offset, self._legs[destination].bit, mask)
        if not new:
            self._metrics.records_skipped.labels("unrouted").inc()
        for name, delivery in legs.items():
            self._add(self._legs[name], tracker, [(record, delivery, new)])

    def _add(self, leg: RunDestination, tracker: PartitionTracker, run: Iterable[tuple[Record, Routed, int]]) -> None:
        """Prepare one partition's deliveries for one destination."""
        vendor, now, bit = leg.vendor, self.now, leg.bit
        offer: Offer | None = None
        room = 0
        for record, routed, left in run:
            # The committed map says that the record is done for this destination, though not for all.
            if not left & bit:
                continue  # finished for this destination before
            if isinstance(routed.event, Refusal):
                self._refuse(leg, record, tracker, routed, routed.event)
                continue
            try:
                group = vendor.group(routed.event)
                item = vendor.encode(routed.event, now)
            except Refusal as refusal:
                self._refuse(leg, record, tracker, routed, refusal)
                continue
            except Exception as error:  # noqa: BLE001 - no content of a record may end a run
                self._refuse(leg, record, tracker, routed, internal_refusal(error, "prepared"))
                continue
            # Comparing by identity is enough: for an equal group in another object it only makes one more offer.
            if offer is None or group is not offer.group:
                offer, limits = leg.offer_of(group), vendor.limits(group)
                room = limits.bytes - limits.overhead
            if len(item.body) > room:
                self._refuse(leg, record, tracker, routed, too_large(item, limits))
                continue
            charge = charge_of(record, item.body) + leg.answer_charge
            offer.charge += charge
            offer.deliveries.append(
                Delivery(record, tracker, bit, item, routed.identity, charge, routed.first_dedup_id)
            )

    def _refuse(
        self, leg: RunDestination, record: Record, tracker: PartitionTracker, routed: Routed, refusal: Refusal
    ) -> None:
        """Pass on a delivery that breaks a local rule."""
        charge = charge_of(record)
        self._budget.add(charge)
        delivery = Delivery(record, tracker, leg.bit, NO_ITEM, routed.identity, charge, routed.first_dedup_id)
        leg.deliverer.refuse(delivery, refusal.bare())

    def offer(self) -> None:
        """Offer the prepared deliveries to the destination."""
        for leg in self._legs.values():
            offers, leg.offers = leg.offers, []
            for offer in offers:
                if offer.deliveries:
                    self._budget.add(offer.charge)
                    leg.deliverer.offer(offer)
