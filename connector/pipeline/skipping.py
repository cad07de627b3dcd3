"""Records that an operator skips: what intake and the destinations show of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from connector.pipeline.batching import Batch, Delivery

CAUSE: Final = "operator"
CODE: Final = "operator.skip"
MESSAGE: Final = "an operator skipped the record"


class Skip:
    """One request to skip a record, for one destination or before it was routed.

    `taken` turns true when the record is set aside: from then on nothing of it is sent, and its dead letter is written
    until Kafka has it. A record that has its outcome while `taken` is false was delivered, or refused, before.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False


class Skips:
    """The deliveries of one destination that are to be skipped. Whoever takes one out writes its dead letter."""

    def __init__(self) -> None:
        self._wanted: dict[Delivery, Skip] = {}

    def __bool__(self) -> bool:
        """Whether something is to be skipped."""
        return bool(self._wanted)

    def __iter__(self) -> Iterator[Delivery]:
        """Iterate over the deliveries to skip."""
        return iter(list(self._wanted))

    def want(self, delivery: Delivery) -> Skip:
        """Note that a delivery is to be skipped. Idempotent."""
        return self._wanted.setdefault(delivery, Skip())

    def take(self, batch: Batch) -> Batch:
        """Note that this batch of one was taken out of where it waited, and return it."""
        self._wanted[batch.deliveries[0]].taken = True
        return batch

    def take_from(self, batch: Batch) -> list[Batch]:
        """Take what is to be skipped out of a batch that is not sent yet."""
        wanted = [delivery for delivery in batch.deliveries if delivery in self._wanted]
        batch.deliveries = [delivery for delivery in batch.deliveries if delivery not in self._wanted]
        return [self.take(batch.part([delivery])) for delivery in wanted]

    def tidy(self) -> None:
        """Forget what has its outcome, or whose partition left."""
        self._wanted = {
            delivery: skip
            for delivery, skip in self._wanted.items()
            if delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit)
        }
