"""The mutable state of one destination: what waits, what holds it, what was learnt about it.

The worker decides from it what to send, settlement writes into it what an answer meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import structlog

from connector.clock import Clock
from connector.config.loader import DestinationSettings
from connector.delivery.holds import Cause, Condition, Holds, State
from connector.delivery.lane import Lane
from connector.delivery.pacing import TokenBucket
from connector.delivery.retry import Backoff
from connector.delivery.storms import StormGuard
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import PartitionTracker
from connector.pipeline.ordering import lane_of
from connector.records import Answer, DeadLetter, Receipt
from connector.telemetry.metrics import Metrics
from connector.vendors.base import DESTINATION, Limits, Vendor

log = structlog.get_logger()


class DeadLetterSink(Protocol):
    """Where refused records go."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the letter, or its partition is ours no longer.

        Tries again by itself; may be cancelled, never raises else.
        """
        ...


class AnswerSink(Protocol):
    """Where a query vendor's answers go."""

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> None:
        """Return once Kafka has acknowledged all answers, each under its question's key. Raises only if cancelled."""
        ...


class ReceiptSink(Protocol):
    """Where it is written down what was delivered."""

    def note(self, receipt: Receipt) -> None:
        """Take a receipt over. Neither blocks nor raises: no delivery depends on it."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a destination is given from outside: time, randomness and where outcomes go."""

    clock: Clock
    random: Random
    dead_letters: DeadLetterSink
    answers: AnswerSink | None
    metrics: Metrics
    budget: Budget
    receipts: ReceiptSink | None = None


class Destination:
    """One named account at one vendor, and everything that waits for it."""

    def __init__(
        self, name: str, settings: DestinationSettings, vendor: Vendor, ports: Ports, *, reload: Callable[[], Vendor]
    ) -> None:
        self.name = name
        self.settings = settings
        self.vendor = vendor
        self.ports = ports
        self.backoff = Backoff(settings.retry, ports.random)
        self.holds = Holds(self.backoff)
        self.bucket = TokenBucket(settings.rate)
        self.storm = StormGuard(settings.storm)
        self.throttled_until = float("-inf")
        self.throttles = 0
        self.accepted = 0
        self.vouched_at = float("-inf")
        """When the latest request was sent of those that the vendor accepted (monotonic seconds)."""
        self.doubted = 0
        """Records refused alone by an undocumented code since the vendor last accepted anything."""
        self.buffered = 0
        self.tried_again: list[Batch] = []
        """Batches under way that had failed before: until they are accepted the destination is still retrying."""
        self._reload = reload
        self._smaller: dict[Hashable, Limits] = {}
        self._intake_hold: tuple[Cause, str] | None = None
        self._shown = Condition(State.FLOWING)
        self._shown_since = ports.clock.wall()
        ordered = settings.order == "key"
        count = settings.max_in_flight if ordered else 1
        self.lanes = [
            Lane(
                self.limits,
                settings.batch.linger,
                concurrency=1 if ordered else settings.max_in_flight,
                ordered=ordered,
            )
            for _ in range(count)
        ]
        self._ordered_lanes = count
        if ordered:
            # Replayed records are outside key order: none of them may keep back what came later.
            self.lanes.append(Lane(self.limits, settings.batch.linger, concurrency=1))
        if settings.hold:
            self.hold(Cause.OPERATOR, None, "held by the configuration (hold: true)")
        ports.metrics.set_state(name, self._shown.state)

    def limits(self, group: Hashable) -> Limits:
        """Return the vendor's limits, or the smaller ones that its answers have taught."""
        limits = self._smaller.get(group)
        return self.vendor.limits(group) if limits is None else limits

    def shrink(self, group: Hashable, *, records: int | None = None, size: int | None = None) -> None:
        """Remember that the vendor takes less than was sent."""
        limits = self.limits(group)
        self._smaller[group] = replace(
            limits,
            records=limits.records if records is None else max(1, min(limits.records, records)),
            bytes=limits.bytes if size is None else max(limits.overhead + 1, min(limits.bytes, size)),
        )

    def add(self, offer: Offer) -> None:
        """Take deliveries in."""
        now = self.ports.clock.now()
        self.buffered += offer.charge
        if len(self.lanes) == 1:
            self.lanes[0].offer(offer.deliveries, offer.group, now)
            return
        by_lane: defaultdict[int, list[Delivery]] = defaultdict(list)
        for delivery in offer.deliveries:
            by_lane[self._lane_of(delivery)].append(delivery)
        for index, theirs in by_lane.items():
            self.lanes[index].offer(theirs, offer.group, now)

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note the outcome of deliveries: their trackers know, their bytes are free."""
        done: defaultdict[PartitionTracker, list[int]] = defaultdict(list)
        for delivery in deliveries:
            done[delivery.tracker].append(delivery.record.offset)
        for tracker, offsets in done.items():
            # A destination has the same bit in every partition.
            tracker.finish_all(offsets, deliveries[0].bit)
        self._free(sum([delivery.charge for delivery in deliveries]))

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Let go of deliveries whose partition has left; they have no outcome here."""
        self._free(sum(delivery.charge for delivery in deliveries))

    def kept(self, batch: Batch) -> Batch | None:
        """Return what of a batch may still be worked on: the part whose partitions are ours. The rest is let go."""
        left = [delivery for delivery in batch.deliveries if delivery.tracker.open]
        if len(left) != len(batch.deliveries):
            self.forget(delivery for delivery in batch.deliveries if not delivery.tracker.open)
            batch.deliveries = left
        return batch if left else None

    def lane(self, batch: Batch) -> Lane:
        """Return the lane of a batch."""
        lanes = self.lanes
        return lanes[0] if len(lanes) == 1 else lanes[self._lane_of(batch.deliveries[0])]

    def hold(
        self, cause: Cause, code: str | None, message: str, *, scope: Hashable = DESTINATION, single: bool = False
    ) -> None:
        """Hold the destination, or one group of it; `single` probes with one record at a time."""
        clock = self.ports.clock
        self.holds.hold(cause, code, message, now=clock.now(), wall=clock.wall(), scope=scope, single=single)

    def release(self, scope: Hashable) -> None:
        """End a hold; whatever waited goes on at once."""
        held = self.holds.release(scope)
        if held is None:
            return
        self.holds.failures = 0
        if held.cause is Cause.STORM:
            self.storm.reset()
        now = self.ports.clock.now()
        for lane in self.lanes:
            lane.hurry(now)

    def hold_intake(self, cause: Cause | None, message: str = "") -> None:
        """Say that records for this destination wait before they reach it (registry, storm of a topic)."""
        self._intake_hold = None if cause is None else (cause, message)
        self.note()

    def reload(self) -> None:
        """Read the destination's secrets again, so that a rotated one mends a hold."""
        self.vendor = self._reload()

    def condition(self) -> Condition:
        """Return the state as a person sees it."""
        condition = self._condition()
        since = condition.since
        if since is None and condition.state is self._shown.state:
            since = self._shown_since
        return replace(condition, since=since if since is not None else self.ports.clock.wall())

    def _condition(self) -> Condition:
        """Return the state; `since` is set only where a hold knows it."""
        clock = self.ports.clock
        retrying = None
        for batch in (*self.tried_again, *[lane.retrying for lane in self.lanes if lane.tried]):
            if batch is not None and batch.deliveries:
                retrying = _waits(batch)
                break
        condition = self.holds.condition(
            now=clock.now(), wall=clock.wall(), throttled_until=self.throttled_until, retrying=retrying
        )
        if self._intake_hold is not None and condition.state not in (State.HELD, State.PROBING):
            cause, message = self._intake_hold
            condition = Condition(State.HELD, cause, None, message)
        return condition

    def note(self) -> None:
        """Log and count a change of state, once for each."""
        condition = self._condition()
        shown = self._shown
        if (condition.state, condition.cause, condition.code) == (shown.state, shown.cause, shown.code):
            return
        self._shown, self._shown_since = self.condition(), self.ports.clock.wall()
        self.ports.metrics.set_state(self.name, condition.state)
        held = condition.state is State.HELD
        quiet = {condition.state, shown.state} <= {State.HELD, State.PROBING} and condition.cause == shown.cause
        method = log.debug if quiet else log.warning if held else log.info
        method(
            "destination.state",
            destination=self.name,
            state=condition.state.value,
            was=shown.state.value,
            cause=condition.cause,
            code=condition.code,
            message=condition.message,
        )

    def _lane_of(self, delivery: Delivery) -> int:
        """Return the index of a delivery's lane where there is order."""
        return -1 if delivery.first_dedup_id is not None else lane_of(delivery.record, self._ordered_lanes)

    def _free(self, charge: int) -> None:
        self.buffered -= charge
        self.ports.budget.release(charge)


def _waits(batch: Batch) -> str:
    """Say what waits to be tried again; a lone record by its place, so that a person can look at it."""
    count = len(batch.deliveries)
    times = f"failed {batch.failures} time(s): {batch.reason}" if batch.failures else batch.reason
    if count != 1:
        return f"{count} records {times}"
    topic, partition, offset = batch.deliveries[0].record.position
    return f"the record {topic}[{partition}]@{offset} waits alone, {times}"
