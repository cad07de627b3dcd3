"""The deliveries of one destination that an operator skips: taken from where they wait, never from a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import is_

from connector.delivery.lane import Lane
from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.skipping import Skip


class Skips:
    """What is to be skipped. Whoever takes a batch from it writes the dead letters."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._wanted: dict[Delivery, Skip] = {}

    def __bool__(self) -> bool:
        """Whether something is to be skipped."""
        return bool(self._wanted)

    def want(self, delivery: Delivery) -> Skip:
        """Note that a delivery is to be skipped; said twice it is one wish."""
        return self._wanted.setdefault(delivery, Skip())

    def from_lanes(self) -> list[Batch]:
        """Take what waits to be sent, each as a batch of one that knows how often it was sent."""
        found = []
        for delivery in self._wanted:
            for lane in self._lanes:
                batch = next((one for one in lane.batches() if delivery in one.deliveries), None)
                if batch is not None:
                    lane.drop(partial(is_, delivery))
                    found.append(self._taken(batch, delivery))
        return found

    def from_batch(self, batch: Batch) -> list[Batch]:
        """Take what a batch holds that is not sent yet."""
        wanted = [delivery for delivery in batch.deliveries if delivery in self._wanted]
        batch.deliveries = [delivery for delivery in batch.deliveries if delivery not in self._wanted]
        return [self._taken(batch, delivery) for delivery in wanted]

    def tidy(self) -> None:
        """Forget what has its outcome, or whose partition left."""
        self._wanted = {
            delivery: skip
            for delivery, skip in self._wanted.items()
            if delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit)
        }

    def _taken(self, batch: Batch, delivery: Delivery) -> Batch:
        self._wanted[delivery].taken = True
        return batch.part([delivery])
