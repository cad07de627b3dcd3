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


def charge_of(record: Record, body: bytes = b"") -> int:
    """Return the bytes that holding a record is charged with, and the body of its item where it has one."""
    # The value is kept too, in addition to the bytes that are sent: it may become a dead letter.
    charge = FIXED_CHARGE + len(record.value or b"") + len(record.key or b"") + len(body)
    return charge + headers_charge(record.headers) if record.headers else charge


def headers_charge(headers: Headers) -> int:
    """Return the bytes that holding a record's headers is charged with."""
    return sum([HEADER_CHARGE + getsizeof(name) + len(value or b"") for name, value in headers])


class Delivery(Struct, eq=False, gc=False):
    """One record for one destination: what is sent, and what is needed to end it in any way.

    `charge` is what holding it costs of the buffer (`charge_of`). `first_dedup_id` is set where the record is replayed:
    the id it always had. `refused` is the undocumented code by which the vendor refused it last, and when that one did
    so first (monotonic); `refused_alone` how often the vendor has refused it alone by that code, and was not believed.
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
        topic, partition, offset = self.record.position
        return f"<Delivery of {topic}[{partition}]@{offset}>"

    @property
    def replayed(self) -> bool:
        """Whether the record was replayed: it is outside storm windows and key order then."""
        return self.first_dedup_id is not None

    @property
    def dedup_id(self) -> str:
        """The id that stays the same for every attempt, restart and replay of this event."""
        return uuid5_text(self.identity) if self.first_dedup_id is None else self.first_dedup_id


class Offer(Struct, eq=False, gc=False):
    """Deliveries of one group for one destination, in their order, and what they are charged together."""

    group: Hashable
    deliveries: list[Delivery]
    charge: int


class Batch:
    """Deliveries that go out in one request, and how often they did.

    `failures` counts answers that said nothing about the records, the last of them because of `reason`; `attempts`
    counts all requests, `asked` those whose answer was not final. `accepted_before` is how many records the vendor had
    accepted when the batch first failed or was throttled, `denials` how often access was denied for it. `due`,
    `sent_at`, `first_sent_at`, `denied_at` (the first time) and `vouched_at` (when the latest request of the group that
    was known to be accepted at the last attempt had been sent) are of the monotonic clock, `first_attempt` is epoch
    seconds.
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
        self.denials = 0
        self.denied_at: float | None = None
        self.accepted_before: int | None = None
        self.isolating = False
        self.levels: int | None = None
        """How often it may still be halved (`isolation`); None where it was not taken apart yet."""
        self.reason = ""
        self.said = ""
        """The vendor's last message in full, values included: for dead letters only."""

    @property
    def items(self) -> list[Item]:
        """The batch's items, in order."""
        return [delivery.item for delivery in self.deliveries]

    @property
    def troubled(self) -> bool:
        """Whether something is wrong: it failed, was denied, its answer was not final, or its record is in doubt."""
        in_doubt = any(delivery.refused_alone for delivery in self.deliveries[:1])
        return self.failures > 0 or self.asked > 0 or self.denials > 0 or in_doubt

    def part(self, deliveries: Sequence[Delivery]) -> Batch:
        """Return a batch of some of the deliveries, with the history of this one."""
        # `due` is not among them: a part is a new question to the vendor, and goes as soon as there is a slot.
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
    """A batch that still fills: its size is that of the real body, at every moment."""

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
        """Add deliveries up to the first that would pass a limit, and return how many that were.

        The very first is always taken: an item too large alone is the sender's to refuse.
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
                    # Tested before it is added: a body over the limit is never made, not even for a moment.
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
        """Which of its limits is used more: `records` or `bytes`."""
        limits = self.limits
        return "records" if self.weight * limits.bytes >= self.size * limits.records else "bytes"

    def close(self, by: str) -> Batch:
        """Return what it holds as a batch; `by` is `records`, `bytes`, `linger` or `group`."""
        return Batch(self.group, self.deliveries, by)


def size_alone(item: Item, limits: Limits) -> int:
    """Return the size of a body that holds this item only."""
    return limits.overhead + len(item.body)


def too_large(item: Item, limits: Limits) -> Refusal:
    """Return the refusal of an item that no request can hold."""
    size = size_alone(item, limits)
    message = f"the event alone makes a request body of {size} bytes, the limit is {limits.bytes}"
    return Refusal("too_large", "batch.bytes", message)
