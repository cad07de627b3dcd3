"""The bytes that one destination holds in the shared buffer, and the end of every delivery it holds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import PartitionTracker


class Buffer:
    """What a destination holds of the shared `budget`, which was charged when the deliveries were prepared."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0
        """Bytes charged for the deliveries that this destination holds."""

    def take(self, charge: int) -> None:
        """Note that deliveries with this charge came in."""
        self.bytes += charge

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note the outcome of deliveries: their trackers know, their bytes are free."""
        done: defaultdict[PartitionTracker, list[int]] = defaultdict(list)
        for delivery in deliveries:
            done[delivery.tracker].append(delivery.record.offset)
        for tracker, offsets in done.items():
            # A destination has the same bit in every partition.
            tracker.finish(offsets, deliveries[0].bit)
        self._free(sum([delivery.charge for delivery in deliveries]))

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Let go of deliveries whose partition has left; they have no outcome here."""
        self._free(sum(delivery.charge for delivery in deliveries))

    def kept(self, batch: Batch) -> Batch | None:
        """Return what of a batch may still be worked on: the part whose partitions are ours. The rest is let go.

        Whatever puts a batch back asks this first. Why not simply wait for the drain? It drops what the lanes hold, and
        a batch in flight is in none: put back after the drain it would be sent for a partition that another member has.
        """
        left = [delivery for delivery in batch.deliveries if delivery.tracker.open]
        if len(left) != len(batch.deliveries):
            self.forget(delivery for delivery in batch.deliveries if not delivery.tracker.open)
            batch.deliveries = left
        return batch if left else None

    def _free(self, charge: int) -> None:
        self.bytes -= charge
        self._budget.release(charge)
