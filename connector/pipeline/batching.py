"""Deliveries and the batches they fill, exact to the byte. Pure.

A limit is tested before an item is added, never after, and a body's size is computed from its parts, never estimated.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from sys import getsizeof
from typing import Final

from msgspec import Struct

from connector.errors import Refusal
from connector.pipeline.offsets import PartitionTracker
from connector.records import HEADER_CHARGE, Headers, Item, Record, uuid5_text
from connector.vendors.base import Limits

FIXED_CHARGE: Final = 768
"""Bytes charged for each buffered delivery in addition to its payload: its objects' own size, measured."""

ANSWER_CHARGE: Final = 1536
"""Bytes charged in addition for each question: its answer waits in memory until Kafka has its result, measured."""


def charge_of(record: Record, body: bytes = b"") -> int:
    """Return the bytes charged for holding a record and, if it has one, its item's body."""
    # The value is kept in addition to the bytes to send, because the record may become a dead letter.
    charge = FIXED_CHARGE + len(record.value or b"") + len(record.key or b"") + len(body)
    return charge + headers_charge(record.headers) if record.headers else charge


def headers_charge(headers: Headers) -> int:
    """Return the bytes charged for holding a record's headers."""
    return sum([HEADER_CHARGE + getsizeof(name) + len(value or b"") for name, value in headers])


class Delivery(Struct, eq=False, gc=False):
    """One record for one destination: the item to send, and what any outcome needs.

    `charge` is how many bytes of the buffer it takes (`charge_of`). `first_dedup_id` is set for a replayed record: the
    id it always had. `refused` is the undocumented code of its last refusal, and when that code first refused it
    (monotonic). `refused_alone` is how often it was refused alone with that code without that being believed.
    """

    record: Record
    tracker: PartitionTracker
    bit: int
    item: Item
    identity: str
    charge: int
    first_dedup_id: str | None = None
    refused: tuple[str, float] | None = None
    refused_alone: int = 0

    def __repr__(self) -> str:
        """Return where the record stands, and none of its values: a struct's own text would hold them all."""
        return f"<Delivery of {self.record.position}>"

    @property
    def replayed(self) -> bool:
        """Whether the record was replayed. Replayed records are outside storm windows and key order."""
        return self.first_dedup_id is not None

    @property
    def dedup_id(self) -> str:
        """The id that stays the same for every attempt, restart and replay of this event."""
        return uuid5_text(self.identity) if self.first_dedup_id is None else self.first_dedup_id


class Offer(Struct, eq=False, gc=False):
    """Deliveries of one group for one destination, in order, and the sum of their charges."""

    group: Hashable
    deliveries: list[Delivery]
    charge: int


class Batch:
    """Deliveries that are sent in one request, and their history of attempts.

    `attempts` counts all requests. `failures` counts the answers that said nothing about the records; `reason` is the
    last one's. `asked` counts the answers that were not final, `denials` those that denied access, `throttled_alone`
    the 429s of a batch of one while others were accepted, which its parts do not inherit. `accepted_before` is how many
    records the vendor had accepted when the batch first failed or was throttled. Times are monotonic: `due`,
    `sent_at`, `first_sent_at`, `denied_at` (of the first denial) and `vouched_at`: at the last attempt, one request of
    the endpoint was known to be accepted, and this is when it was sent. Only `first_attempt` is epoch seconds.
    """

    __slots__ = (
        "accepted_before",
        "asked",
        "attempts",
        "closed_by",
        "deliveries",
        "denials",
        "denied_at",
        "due",
        "failures",
        "first_attempt",
        "first_sent_at",
        "group",
        "isolating",
        "levels",
        "reason",
        "said",
        "sent_at",
        "throttled_alone",
        "vouched_at",
    )

    def __init__(self, group: Hashable, deliveries: list[Delivery], closed_by: str = "records") -> None:
        self.group = group
        self.deliveries = deliveries
        self.closed_by = closed_by
        self.attempts = 0
        self.failures = 0
        self.asked = 0
        self.due = 0.0
        self.sent_at = 0.0
        self.vouched_at = float("-inf")
        self.first_attempt: float | None = None
        self.first_sent_at: float | None = None
        self.throttled_alone = 0
        self.denials = 0
        self.denied_at: float | None = None
        self.accepted_before: int | None = None
        self.isolating = False
        self.levels: int | None = None
        """How often it may still be halved (`isolation`); None if it was not split yet."""
        self.reason = ""
        self.said = ""
        """The vendor's last message in full, including values. For dead letters only."""

    @property
    def items(self) -> list[Item]:
        """The batch's items, in order."""
        return [delivery.item for delivery in self.deliveries]

    @property
    def troubled(self) -> bool:
        """Whether something went wrong: a failure, a denial, an answer that was not final, or a record in doubt."""
        in_doubt = any(delivery.refused_alone for delivery in self.deliveries[:1])
        return self.failures > 0 or self.asked > 0 or self.denials > 0 or in_doubt

    def part(self, deliveries: Sequence[Delivery]) -> Batch:
        """Return a batch of some of the deliveries, with the history of this one."""
        # Without `due`: a part is a new request, and is sent as soon as there is a slot.
        part = Batch(self.group, list(deliveries), self.closed_by)
        part.attempts = self.attempts
        part.failures = self.failures
        part.first_attempt = self.first_attempt
        part.first_sent_at = self.first_sent_at
        part.denials = self.denials
        part.denied_at = self.denied_at
        part.accepted_before = self.accepted_before
        part.isolating = self.isolating
        part.levels = self.levels
        part.asked = self.asked
        part.reason = self.reason
        return part


class OpenBatch:
    """A filling batch. Its size is always the exact size of the body."""

    __slots__ = ("_keys", "deliveries", "full", "group", "limits", "opened_at", "size", "weight")

    def __init__(self, group: Hashable, limits: Limits, opened_at: float) -> None:
        self.group = group
        self.limits = limits
        self.opened_at = opened_at
        self.deliveries: list[Delivery] = []
        self.size = limits.overhead
        self.weight = 0
        self.full = False
        """Whether no further item can be added."""
        self._keys: set[Hashable] = set()

    def fill(self, deliveries: Sequence[Delivery]) -> int:
        """Add deliveries up to the first that would exceed a limit, and return how many were added.

        The first item is always added, even if it is too large alone: the sender refuses such an item.
        """
        limits, held, keys = self.limits, self.deliveries, self._keys
        before, most, largest, separator = len(held), limits.records, limits.bytes, limits.separator
        size, weight = self.size, self.weight
        for delivery in deliveries:
            item = delivery.item
            key = item.merge_key
            # Example: two JPush questions about one push are one msg_id in the URL, so the second adds nothing.
            if key is None or key not in keys:
                larger, heavier = size + len(item.body), weight + item.weight
                if held:
                    larger += separator
                    # Tested before the item is added, so that a body over the limit never exists.
                    if larger > largest or heavier > most:
                        break
                size, weight = larger, heavier
                if key is not None:
                    keys.add(key)
            held.append(delivery)
        self.size, self.weight = size, weight
        # Exactly full closes at once. Otherwise the batch would wait for an item that cannot fit.
        self.full = weight >= most or size >= largest
        return len(held) - before

    @property
    def fuller(self) -> str:
        """Which limit is used up more: `records` or `bytes`."""
        limits = self.limits
        return "records" if self.weight * limits.bytes >= self.size * limits.records else "bytes"

    def close(self, by: str) -> Batch:
        """Close it and return the batch; `by` is the reason: `records`, `bytes`, `linger` or `group`."""
        batch = Batch(self.group, self.deliveries, by)
        # It competes by its age with batches of other groups.
        batch.due = self.opened_at
        return batch


def size_alone(item: Item, limits: Limits) -> int:
    """Return the size of a body that holds this item only."""
    return limits.overhead + len(item.body)


def too_large(item: Item, limits: Limits) -> Refusal:
    """Return the refusal of an item that no request can hold."""
    size = size_alone(item, limits)
    message = f"the event alone makes a request body of {size} bytes, the limit is {limits.bytes}"
    return Refusal("too_large", "batch.bytes", message)
