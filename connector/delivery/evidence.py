"""What a vendor's answers prove: which refusals can be believed, and whether it is up. Pure.

A code that the vendor documents as the record's fault is believed once the record was refused alone. Any other code may
mean anything: a wrong setting, an outage with a strange face. It is believed only with evidence, which is this order of
events (monotonic times):

    1. the record is refused alone
    2. a request that was sent after 1 is accepted: the vendor works, and takes records of this destination
    3. the record is sent after that acceptance was known, and refused alone again by the same code

Why not simply "others were accepted meanwhile"? Requests overlap: an acceptance may be of a request from before the
trouble began, and a second refusal may be of one sent before the acceptance. Neither says anything. So a misunderstood
answer can never drain a topic: while nothing is accepted, nothing is believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connector.pipeline.batching import Batch, Delivery

OUTAGE_AFTER: Final = 5
"""Failures in a row, no batch accepted between them, after which a destination is held as an outage."""
DOUBT_AFTER: Final = 10
"""Records refused alone by an undocumented code, nothing accepted between them, after which the destination is held."""


class Evidence:
    """What the answers to one destination's requests have shown so far."""

    def __init__(self) -> None:
        self._accepted = 0
        self._accepted_sent_at = float("-inf")
        self._doubted = 0
        self._failures = 0

    def sending(self, batch: Batch, now: float) -> None:
        """Note that a batch is sent at `now` (monotonic seconds), and what was known by then."""
        batch.sent_at = now
        batch.vouched_at = self._accepted_sent_at

    def accepted(self, batch: Batch, count: int) -> None:
        """Note that `count` records of a batch were accepted."""
        self._accepted += count
        self._accepted_sent_at = max(self._accepted_sent_at, batch.sent_at)
        self._doubted = self._failures = 0

    def answered(self) -> None:
        """Note that the vendor judged a request: it is up."""
        self._failures = 0

    def failed(self, batch: Batch) -> None:
        """Note an answer that shows nothing about the records of a batch, or none."""
        if batch.failures == 1:
            batch.accepted_before = self._accepted
        self._failures += 1

    def others_pass(self, batch: Batch) -> bool:
        """Whether records were accepted since the batch first failed."""
        return self._accepted > batch.accepted_before

    @property
    def is_outage(self) -> bool:
        """Whether so much failed in a row that the vendor, not a record, is the reason."""
        return self._failures >= OUTAGE_AFTER

    def refused(self, deliveries: Iterable[Delivery], code: str, now: float) -> None:
        """Note when this code refused records first; what another code showed before is no evidence."""
        for delivery in deliveries:
            if delivery.refused is None or delivery.refused[0] != code:
                delivery.refused = (code, now)
                delivery.refused_alone = False

    def believes(self, batch: Batch) -> bool:
        """Whether the refusal of a lone record by an undocumented code, already noted, can be believed."""
        delivery = batch.deliveries[0]
        refused = delivery.refused
        return delivery.refused_alone and refused is not None and batch.vouched_at > refused[1]

    def refused_alone(self, delivery: Delivery) -> bool:
        """Note that a record was refused alone by such a code; return whether that is the first time."""
        first = not delivery.refused_alone
        delivery.refused_alone = True
        return first

    def doubt(self) -> bool:
        """Count a lone refusal that is not believed; return whether the destination itself is in doubt now."""
        self._doubted += 1
        return self._doubted >= DOUBT_AFTER
