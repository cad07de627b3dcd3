"""All lanes of one destination: which one a delivery takes, and which records wait apart from theirs. Pure.

Without order there is one lane. With `order: key` each key has one of `max_in_flight` lanes; two more lanes without
order hold what must not keep a lane back: replayed records, and parked ones. A record is parked when it cannot be sent
for a reason of its own (the vendor fails on it, or its refusal is not believed yet): it waits in the lane for parked
records, what follows it in its key waits in its own lane, and every other key passes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

from connector.delivery.lane import Lane, lane_of
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.vendors.base import Limits


class Lanes:
    """The lanes of one destination. `limits` gives those of a group, `linger` is in seconds."""

    def __init__(
        self, limits: Callable[[Hashable], Limits], linger: float, *, max_in_flight: int, ordered: bool
    ) -> None:
        def lane(concurrency: int, *, ordered: bool = False) -> Lane:
            return Lane(limits, linger, concurrency=concurrency, ordered=ordered)

        self.ordered = ordered
        self._keyed = [lane(1, ordered=True) for _ in range(max_in_flight)] if ordered else [lane(max_in_flight)]
        self._replayed = lane(1) if ordered else self._keyed[0]
        self._parked = lane(1) if ordered else self._keyed[0]
        self._apart: dict[Delivery, Lane] = {}
        """Parked records, each with the lane of its key."""
        self.all = [*self._keyed, self._replayed, self._parked] if ordered else self._keyed
        """Every lane; the one for parked records is the last."""

    def set_linger(self, linger: float) -> None:
        """Change how long the first record of a batch waits for more (seconds)."""
        for lane in self.all:
            lane.linger = linger

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes."""
        return iter(self.all)

    def offer(self, offer: Offer, now: float) -> None:
        """Add deliveries, each to its lane."""
        if not self.ordered:
            self._keyed[0].offer(offer.deliveries, offer.group, now)
            return
        by_lane: defaultdict[Lane, list[Delivery]] = defaultdict(list)
        for delivery in offer.deliveries:
            by_lane[self._lane(delivery)].append(delivery)
        for lane, deliveries in by_lane.items():
            lane.offer(deliveries, offer.group, now)

    def of(self, batch: Batch) -> Lane:
        """Return the lane of a batch."""
        return self._lane(batch.deliveries[0]) if self.ordered else self._keyed[0]

    def put_alone(self, batch: Batch, due: float) -> None:
        """Put a lone record back to be sent again at `due`; with order it is parked, so that only its key waits."""
        (delivery,) = batch.deliveries
        if self.ordered and not delivery.replayed and delivery not in self._apart:
            lane = self._lane(delivery)
            lane.park(delivery)
            self._apart[delivery] = lane
        self.of(batch).put_waiting(batch, due)

    def unpark(self) -> bool:
        """Let what follows in its key go on, for each parked record that has its outcome or whose partition left.

        Returns whether there was one.
        """
        over = [
            delivery
            for delivery in self._apart
            if not (delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit))
        ]
        for delivery in over:
            self._apart.pop(delivery).unpark(delivery)
        return bool(over)

    def let_pass(self, delivery: Delivery) -> None:
        """Let what follows a record in its key go on, because a storm sets the record aside."""
        if (lane := self._apart.pop(delivery, None)) is not None:
            lane.unpark(delivery)

    def take_out(self, delivery: Delivery) -> Batch | None:
        """Take one delivery out, as a batch of one that knows how often it was sent; None where it is in no lane."""
        for lane in self.all:
            if (batch := lane.take_out(delivery)) is not None:
                return batch
        return None

    def drop(self, gone: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out every delivery that is `gone`, and return them."""
        return [delivery for lane in self.all for delivery in lane.drop(gone)]

    def hurry(self, now: float) -> None:
        """Make every waiting batch due now, because what they waited for is over."""
        for lane in self.all:
            lane.hurry(now)

    def _lane(self, delivery: Delivery) -> Lane:
        if delivery.replayed:
            # Replayed records are outside key order: none of them may keep back what came later.
            return self._replayed
        if delivery in self._apart:
            return self._parked
        return self._keyed[lane_of(delivery.record, len(self._keyed))]
