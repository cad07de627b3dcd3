"""Records that an operator skips: where each one is, and what happens to it. Nothing here does I/O.

the record                                 what becomes of it
-----------------------------------------  ------------------------------------------------------------------
waits for its schema, or in a storm        a dead letter without destination; what waited behind it goes on
waits to be sent (retried, doubted, held)  a dead letter for each destination that it waits for
is in a request                            delivered if the answer says so, else a dead letter
was not read yet                           a dead letter without destination when it is read, and not decoded
is done, or is another member's            refused, and nothing happens
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from connector.clock import Clock
from connector.pipeline.batching import Batch, Delivery
from connector.pipeline.offsets import WHOLE, PartitionTracker, destination_bit
from connector.pipeline.storms import Place
from connector.records import Position, TopicPartition

CAUSE: Final = "operator"
CODE: Final = "operator.skip"
MESSAGE: Final = "an operator skipped the record"
# Long enough for a healthy vendor's answer and a dead letter, short enough for a person at a terminal.
PATIENCE: Final = 6.0
"""Seconds that a caller waits for the result. If it takes longer, the skip continues in the background."""
_LOOK: Final = 0.05

log = structlog.get_logger()


class Skip:
    """One request to skip a record, for one destination or before it was routed.

    `taken` becomes true when the record is taken out: from then on it is not sent, and its dead letter is written until
    Kafka has it. A record that gets its outcome while `taken` is false was delivered or refused first.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False


class SkipResult(NamedTuple):
    """The result of a request to skip a record: skipped, pending or refused; `message` says why."""

    state: Literal["skipped", "pending", "refused"]
    message: str


class Skips:
    """The deliveries to skip of one destination. The caller that takes one writes its dead letter."""

    def __init__(self) -> None:
        # Keyed by the delivery, not by position: after a rebalance the same offset is another delivery.
        self._wanted: dict[Delivery, Skip] = {}
        self._later: dict[Place, Skip] = {}
        """Records to skip that a storm has set aside: they have to be read again first."""
        self.any = False
        """Whether something is to be skipped."""

    def __iter__(self) -> Iterator[Delivery]:
        """Iterate over the deliveries to skip."""
        return iter(list(self._wanted))

    def want(self, delivery: Delivery) -> Skip:
        """Note that a delivery is to be skipped. Idempotent."""
        self.any = True
        return self._wanted.setdefault(delivery, Skip())

    def want_later(self, place: Place) -> Skip:
        """Note that a record is to be skipped once it has been read again. Idempotent."""
        self.any = True
        return self._later.setdefault(place, Skip())

    def came(self, delivery: Delivery) -> bool:
        """Return whether an incoming delivery is to be skipped."""
        # A record that a storm set aside has no delivery until it is read again, so it is kept by its position.
        skip = self._later.pop(Place(delivery.tracker, delivery.record.offset, delivery.bit), None)
        if skip is not None:
            self._wanted[delivery] = skip
        return skip is not None

    def put_off(self, delivery: Delivery) -> None:
        """Note that a storm has set aside a delivery to skip: it has to be read again first."""
        self._later[Place(delivery.tracker, delivery.record.offset, delivery.bit)] = self._wanted.pop(delivery)

    def take(self, batch: Batch) -> Batch:
        """Note that this batch of one record was taken out of its lane, and return it."""
        self._wanted[batch.deliveries[0]].taken = True
        return batch

    def take_from(self, batch: Batch) -> list[Batch]:
        """Take the deliveries to skip out of a batch that is not sent yet."""
        # Before it is sent again, so that a skipped record is not in one more request.
        wanted = [delivery for delivery in batch.deliveries if delivery in self._wanted]
        batch.deliveries = [delivery for delivery in batch.deliveries if delivery not in self._wanted]
        return [self.take(batch.part([delivery])) for delivery in wanted]

    def tidy(self) -> None:
        """Forget deliveries that have their outcome, or whose partition was revoked."""
        self._wanted = {
            delivery: skip
            for delivery, skip in self._wanted.items()
            if delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit)
        }
        self._later = {place: skip for place, skip in self._later.items() if place.pending}
        self.any = bool(self._wanted or self._later)


class PartitionOwner(Protocol):
    """Knows this member's partitions; implemented by the runner."""

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that this member has."""
        ...

    def tracker_of(self, partition: TopicPartition) -> PartitionTracker | None:
        """Return the tracker of an assigned partition."""
        ...

    def end_of(self, partition: TopicPartition) -> int | None:
        """Return an assigned partition's end offset, if it is known."""
        ...


class SkipsRecords(Protocol):
    """Has records that can be skipped: intake before they are routed, then each destination's worker."""

    def skip(self, tracker: PartitionTracker, offset: int) -> Skip | None:
        """Skip a record; return None if it is not here."""
        ...


class Skipper:
    """Skips records of one running member."""

    def __init__(
        self, owner: PartitionOwner, unrouted: SkipsRecords, destinations: Mapping[str, SkipsRecords], clock: Clock
    ) -> None:
        self._owner = owner
        self._unrouted = unrouted
        self._destinations = destinations
        self._clock = clock

    async def skip(self, position: Position, destination: str | None) -> SkipResult:
        """Skip a record, for one destination or for all that it waits for; wait `PATIENCE` for its dead letters."""
        answer = await self._answer(position, destination)
        log.warning(
            "record.skip_by_operator",
            topic=position.topic,
            partition=position.partition,
            offset=position.offset,
            destination=destination,
            state=answer.state,
            message=answer.message,
        )
        return answer

    async def _answer(self, position: Position, destination: str | None) -> SkipResult:
        tracker = self._owner.tracker_of(position[:2])
        if tracker is None or not tracker.open:
            return self._not_owned(position, leaving=tracker is not None)
        left = tracker.left(position.offset)
        # Otherwise a mistyped offset would wait, and skip a record that is written years later.
        if left is None and (end := self._owner.end_of(position[:2])) is not None and position.offset >= end:
            return SkipResult("refused", f"{position} does not exist yet: the partition ends at {end}")
        if left == 0:
            message = f"{position} is already done, or there is no such record; run `connector explain`"
            return SkipResult("refused", message)
        # Until it is routed, the record has no destinations, so it cannot be skipped for a single one.
        if left is None or left & WHOLE:
            if destination is not None:
                return SkipResult("refused", f"{position} is not routed yet; skip it without --destination")
            skips: dict[str, Skip | None] = {"": self._unrouted.skip(tracker, position.offset)}
            bits = WHOLE
        else:
            waiting = [waits for waits in _waiting_for(tracker, left) if destination in (None, waits)]
            if not waiting:
                return SkipResult("refused", f"{position} is already done for {destination}, or does not go there")
            skips = {waits: self._destinations[waits].skip(tracker, position.offset) for waits in waiting}
            bits = sum(destination_bit(tracker.destinations.index(waits)) for waits in waiting)
        await self._wait(tracker, position.offset, bits)
        return _result(tracker, position, bits, skips, was_read=left is not None)

    async def _wait(self, tracker: PartitionTracker, offset: int, bits: int) -> None:
        # Polled instead of notified: outcomes come about in many ways, and skips are rare.
        end = self._clock.now() + PATIENCE
        while tracker.open and _is_left(tracker, offset, bits) and self._clock.now() < end:
            await self._clock.sleep(_LOOK)

    def _not_owned(self, position: Position, *, leaving: bool) -> SkipResult:
        where = f"{position.topic}[{position.partition}]"
        if leaving:
            return SkipResult("refused", f"{where} is leaving this member; ask its next owner in a moment")
        owned = ", ".join(f"{topic}[{number}]" for topic, number in sorted(self._owner.assigned)) or "none"
        return SkipResult(
            "refused",
            f"this member does not own {where}; it owns: {owned}. Ask the member that does (--url), or start one",
        )


def _waiting_for(tracker: PartitionTracker, left: int) -> list[str]:
    return [name for index, name in enumerate(tracker.destinations) if left & destination_bit(index)]


def _result(
    tracker: PartitionTracker, position: Position, bits: int, skips: Mapping[str, Skip | None], *, was_read: bool
) -> SkipResult:
    """Return the result for the caller."""
    taken = [destination for destination, skip in skips.items() if skip is not None and skip.taken]
    of = "" if taken in ([], [""]) else f" for {', '.join(taken)}"
    if not tracker.open:
        message = f"{position}: its partition left this member meanwhile. Nothing is lost; ask its new owner"
        return SkipResult("refused", message)
    if not _is_left(tracker, position.offset, bits):
        # Its answer came before the skip: it was delivered, or became a dead letter for another reason.
        if not taken:
            return SkipResult("refused", f"{position} was done before it could be skipped; run `connector explain`")
        others = [destination for destination in skips if destination not in taken]
        rest = f"; {', '.join(others)} was done before" if others else ""
        return SkipResult("skipped", f"{position} is skipped: a dead letter with cause operator{of}{rest}")
    if not was_read:
        message = f"{position} is not read yet; it becomes a dead letter when this member reads it"
    elif len(taken) < len(skips):
        message = f"{position} is in a request; it becomes a dead letter if the answer says that it was not accepted"
    else:
        message = f"{position} is set aside{of}; its dead letter waits for Kafka"
    message = f"{message}. A restart or a rebalance before then cancels this; in that case skip it again"
    return SkipResult("pending", message)


def _is_left(tracker: PartitionTracker, offset: int, bits: int) -> bool:
    left = tracker.left(offset)
    return left is None or bool(left & bits)
