"""What waits to be sent to one destination, and in which order it is sent. Pure.

Without order there is one lane with many requests in flight. Due retries take turns with the rest: first parts of a
refused batch, then full batches, then a filling batch whose linger is over. With `order: key` there are many lanes with
one request in flight each, and a failed batch stays in front of what came later.

Why not one queue per key? Keys are unbounded and mostly seen once, so a queue per key would send batches of one record.
A lane has a fixed share of all keys, so its batches fill, and one request in flight keeps the order of every key in it.

With `order: key` each key has one of `max_in_flight` lanes. Two more lanes, without order, hold what must not keep a
lane back: replayed records, and parked ones. A record is parked if it cannot be sent for a reason of its own (the
vendor fails on it, or its refusal is not believed yet). It then waits in the lane for parked records. Later records of
its key wait in the key's lane, and all other keys pass. Without order, a lone record that fails is parked too.

A request for a parked record may take as long as its time-out. So the lane for parked records has half of the slots.
"""

from __future__ import annotations

import shlex
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import chain, count
from operator import is_
from typing import Final
from zlib import crc32

from connector.delivery.pacing import cut
from connector.pipeline.batching import Batch, Delivery, Offer, OpenBatch
from connector.records import Position, Record
from connector.vendors.base import Limits

Allowed = Callable[[Hashable], bool] | None
"""Tells whether a group may be sent now; None if all may."""
_AT_ONCE: Final = float("-inf")
_NEVER: Final = float("inf")


def lane_of(record: Record, lanes: int) -> int:
    """Return the lane of a record: that of its key, or that of its partition for a record without a key."""
    key = record.key
    return (record.partition if key is None else crc32(key)) % lanes


def order_key(record: Record) -> Hashable:
    """Return what a record is ordered by: its key, or its partition if it has no key."""
    return record.key if record.key is not None else record.partition


class Lane:
    """The batches of one lane. `concurrency` requests may be in flight; `linger` is in seconds."""

    def __init__(
        self, limits: Callable[[Hashable], Limits], linger: float, *, concurrency: int, ordered: bool = False
    ) -> None:
        self._limits = limits
        self.linger = linger
        self.concurrency = concurrency
        self._ordered = ordered
        self._front: deque[Batch] = deque()
        self._waiting: list[tuple[float, int, Batch]] = []
        self._ready: deque[Batch] = deque()
        self._open: dict[Hashable, OpenBatch] = {}
        self._behind: dict[Hashable, list[Batch]] = {}
        """By key: the records that wait behind a parked record of the key."""
        self._serial = count()
        self.in_flight = 0
        self.due = _NEVER
        """No batch is due before this moment (monotonic seconds). Cheap to check before `take`."""
        self.tried = False
        """Whether batches that were sent before may wait here. Cheap to check before `retrying`."""
        self._retried = False
        """Whether the last batch taken was a due retry."""

    def offer(self, deliveries: Sequence[Delivery], group: Hashable, now: float) -> None:
        """Add deliveries of one group to its filling batch, and to further ones whenever it is full."""
        if self._behind:
            deliveries = [delivery for delivery in deliveries if not self._wait_behind(delivery, group)]
        while deliveries:
            batch = self._open.get(group)
            if batch is None:
                # Only one batch fills at a time here. Otherwise a key with events of two groups would be in two
                # batches, and the later one could be full, and sent, first.
                if self._ordered and self._open:
                    self._close(next(iter(self._open)), "group")
                self._open[group] = batch = OpenBatch(group, self._limits(group), now)
                # `due` may be too early, never too late: an extra look costs little, but an overlooked batch waits for
                # ever.
                self.due = min(self.due, now + self.linger)
            added = batch.fill(deliveries)
            deliveries = deliveries[added:]
            if batch.full or deliveries:
                self._close(group, batch.fuller)

    def take(self, now: float, allowed: Allowed) -> Batch | None:
        """Return the next batch to send; None if it must wait for a slot, a due time, the linger or a hold."""
        if self.due > now or self.in_flight >= self.concurrency:
            return None
        # With order, the failed batch is in front, and everything behind it waits.
        take = self._take_front if self._ordered and self._front else self._take_by_turns
        batch = take(now, allowed)
        if batch is None:
            due = self.wake_at(None)
            self.due = _NEVER if due is None else due
        return batch

    def take_probe(self, allowed: Allowed, *, newest: bool) -> Batch | None:
        """Return a batch for a probe, whatever its due time and linger; batches that were never sent come first.

        The `newest` record is an alternative to the oldest, because bad records often come in a row.
        """
        if self.in_flight >= self.concurrency:
            return None
        # The rest may have waited for the batch that is taken.
        self.due = _AT_ONCE
        if newest and (delivery := self._newest(allowed)) is not None:
            return self.take_out(delivery)
        if self._ordered and self._front:
            return self._take_front(_NEVER, allowed)
        return (
            self._take_ready(allowed)
            or self._take_open(_NEVER, allowed)
            or self._take_front(_NEVER, allowed)
            or self._take_waiting(_NEVER, allowed)
        )

    def _newest(self, allowed: Allowed) -> Delivery | None:
        """Return the newest delivery that may be sent before all others; with order, only the first of a key may."""
        found = None
        keys: set[Hashable] = set()
        waiting = [(batch.group, batch.deliveries) for batch in chain(self._front, self._ready)]
        for group, deliveries in (*waiting, *((group, batch.deliveries) for group, batch in self._open.items())):
            may_be_sent = allowed is None or allowed(group)
            for delivery in deliveries if self._ordered else deliveries[-1:]:
                key = order_key(delivery.record)
                if may_be_sent and not (self._ordered and key in keys):
                    found = delivery
                keys.add(key)
        return found

    def take_new(self, allowed: Allowed) -> Batch | None:
        """Return a batch that was never sent, whatever its linger; None if an earlier batch keeps it back."""
        if self.in_flight >= self.concurrency or (self._ordered and self._front):
            return None
        self.due = _AT_ONCE
        return self._take_ready(allowed) or self._take_open(_NEVER, allowed)

    def put_parts(self, parts: Sequence[Batch]) -> None:
        """Put the parts of a batch in front, in order."""
        self.due = _AT_ONCE
        self.tried = True
        # In front of everything else: the parts were taken before it, and an early acceptance is evidence for the rest.
        self._front.extendleft(reversed(parts))

    def put_back(self, batch: Batch, now: float) -> None:
        """Put back a batch about which nothing was learned: with order in front, else as the last to be probed."""
        self.put_waiting(batch, now)

    def put_waiting(self, batch: Batch, due: float) -> None:
        """Put a batch back, to be sent again at `due`. With order, everything behind it waits too."""
        batch.due = due
        self.due = min(self.due, due)
        self.tried = True
        if self._ordered:
            self._front.appendleft(batch)
        else:
            # The number decides between equal times, so that the older batch goes first. Batches themselves cannot be
            # compared.
            heappush(self._waiting, (due, next(self._serial), batch))

    def park(self, delivery: Delivery) -> None:
        """Keep back this lane's records of the key of a parked delivery, now and later, until `unpark`.

        So the other keys of the lane pass, and no record of its own key overtakes the delivery.
        """
        key = order_key(delivery.record)
        behind = self._behind.setdefault(key, [])
        # The filling batch is searched too: its records of this key came first, and have to wait as well.
        opened = [Batch(batch.group, batch.deliveries, "group") for batch in self._open.values()]
        for batch in (*self._front, *self._ready, *opened):
            same = [other for other in batch.deliveries if order_key(other.record) == key]
            if same:
                behind.append(batch.part(same))
        self._take_away(lambda other: order_key(other.record) == key)

    def unpark(self, delivery: Delivery) -> None:
        """Release the records behind a parked delivery. They go in front: they are older than the rest of the lane."""
        behind = self._behind.pop(order_key(delivery.record), ())
        # The records behind were not batched by the limits, so they are cut now.
        self.put_parts([part for batch in behind for part in cut(batch, self._limits(batch.group))])

    def hurry(self, now: float) -> None:
        """Make every waiting batch due now, because the reason to wait is over."""
        self.due = _AT_ONCE
        for batch in self._front:
            batch.due = min(batch.due, now)
        self._waiting = [(min(due, now), serial, batch) for due, serial, batch in self._waiting]
        heapify(self._waiting)

    def wake_at(self, allowed: Allowed) -> float | None:
        """Return when the next batch becomes due by time alone (perhaps in the past); None if none will."""
        if self.in_flight >= self.concurrency:
            return None
        if self._ordered and (self._front or self._ready):
            # Only the head matters: everything behind it waits, allowed or not.
            head = self._front[0] if self._front else self._ready[0]
            return head.due if allowed is None or allowed(head.group) else None
        if self._ready and (allowed is None or any(allowed(batch.group) for batch in self._ready)):
            return _AT_ONCE
        times = [(batch.due, batch.group) for batch in self._front]
        times += [(due, batch.group) for due, _, batch in self._waiting]
        times += [(batch.opened_at + self.linger, group) for group, batch in self._open.items()]
        return min([due for due, group in times if allowed is None or allowed(group)], default=None)

    @property
    def retrying(self) -> Batch | None:
        """The batches that wait to be sent again: they failed, or their record is in doubt."""
        if not self._waiting and not self._front:
            self.tried = False
            return None
        waiting = (batch for _, _, batch in self._waiting)
        return next((batch for batch in chain(waiting, self._front) if batch.troubled), None)

    def batches(self) -> list[Batch]:
        """Return all waiting batches, closed or filling, in no particular order."""
        waiting = [entry[2] for entry in self._waiting]
        opened = [Batch(batch.group, batch.deliveries) for batch in self._open.values()]
        return [*self._front, *waiting, *self._ready, *opened, *chain.from_iterable(self._behind.values())]

    def __bool__(self) -> bool:
        """Whether anything waits to be sent here, not counting records behind a parked one."""
        return bool(self._front or self._waiting or self._ready or self._open)

    def take_out(self, delivery: Delivery) -> Batch | None:
        """Take one delivery out, as a batch of one that knows how often it was sent; None if it is not here."""
        batch = next((batch for batch in self.batches() if delivery in batch.deliveries), None)
        if batch is None:
            return None
        self.drop(partial(is_, delivery))
        return batch.part([delivery])

    def drop(self, gone: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out every delivery that is `gone`, and return them."""
        dropped = self._take_away(gone)
        for key, behind in self._behind.items():
            for batch in behind:
                dropped.extend(delivery for delivery in batch.deliveries if gone(delivery))
                batch.deliveries = [delivery for delivery in batch.deliveries if not gone(delivery)]
            self._behind[key] = [batch for batch in behind if batch.deliveries]
        return dropped

    def _take_away(self, gone: Callable[[Delivery], bool]) -> list[Delivery]:
        dropped: list[Delivery] = []
        self.due = _AT_ONCE

        def kept(batch: Batch) -> bool:
            dropped.extend(d for d in batch.deliveries if gone(d))
            batch.deliveries = [d for d in batch.deliveries if not gone(d)]
            return bool(batch.deliveries)

        self._front = deque(batch for batch in self._front if kept(batch))
        self._waiting = [entry for entry in self._waiting if kept(entry[2])]
        heapify(self._waiting)
        self._ready = deque(batch for batch in self._ready if kept(batch))
        for group, filling in list(self._open.items()):
            left = [d for d in filling.deliveries if not gone(d)]
            if len(left) == len(filling.deliveries):
                continue
            dropped.extend(d for d in filling.deliveries if gone(d))
            if left:
                self._open[group] = _refilled(filling, left)
            else:
                del self._open[group]
        return dropped

    def _close(self, group: Hashable, by: str) -> None:
        self.due = _AT_ONCE
        self._ready.append(self._open.pop(group).close(by))

    def _take_front(self, now: float, allowed: Allowed) -> Batch | None:
        for index, batch in enumerate(self._front):
            if batch.due <= now and (allowed is None or allowed(batch.group)):
                del self._front[index]
                return batch
            if self._ordered:
                return None
        return None

    def _wait_behind(self, delivery: Delivery, group: Hashable) -> bool:
        """Put a delivery behind the parked record of its key, if there is one; return whether there is."""
        behind = self._behind.get(order_key(delivery.record))
        if behind is None:
            return False
        if behind and behind[-1].group == group and not behind[-1].attempts:
            behind[-1].deliveries.append(delivery)
        else:
            behind.append(Batch(group, [delivery], "group"))
        return True

    def _take_by_turns(self, now: float, allowed: Allowed) -> Batch | None:
        """Return a due batch, or a part or a new batch; alternate if there are both.

        Without turns, a few records that always fail would take every token of a low rate limit, and no new record
        would be sent. Or new records would be refused until they put the vendor in doubt, before the records that wait
        for evidence are sent again.
        """
        if self._retried and (batch := self._take_other(now, allowed)) is not None:
            self._retried = False
            return batch
        batch = self._take_waiting(now, allowed) if self._waiting else None
        self._retried = batch is not None
        return batch or self._take_other(now, allowed)

    def _take_other(self, now: float, allowed: Allowed) -> Batch | None:
        batch = self._take_front(now, allowed) if self._front else None
        if batch is None and self._ready and not self._ordered:
            opened_at = next((batch.due for batch in self._ready if allowed is None or allowed(batch.group)), _NEVER)
            # The filling batch of a rare group goes before what a busy group has filled since.
            batch = self._take_open(now, allowed, opened_at)
        return batch or (self._take_ready(allowed) if self._ready else None) or self._take_open(now, allowed)

    def _take_waiting(self, now: float, allowed: Allowed) -> Batch | None:
        skipped = []
        found = None
        while self._waiting and self._waiting[0][0] <= now:
            entry = heappop(self._waiting)
            if allowed is None or allowed(entry[2].group):
                found = entry[2]
                break
            skipped.append(entry)
        for entry in skipped:
            heappush(self._waiting, entry)
        return found

    def _take_ready(self, allowed: Allowed) -> Batch | None:
        for index, batch in enumerate(self._ready):
            if allowed is None or allowed(batch.group):
                del self._ready[index]
                return batch
            if self._ordered:
                return None
        return None

    def _take_open(self, now: float, allowed: Allowed, before: float = _NEVER) -> Batch | None:
        """Close a filling batch whose linger is over and that was opened `before` a moment, the oldest first."""
        if self._ordered and self._ready:
            return None
        for group, batch in self._open.items():
            # The same sum as in `wake_at`: with another rounding the worker would wake too early, or never.
            if batch.opened_at + self.linger > now or batch.opened_at >= before:
                return None
            if allowed is None or allowed(group):
                del self._open[group]
                return batch.close("linger")
        return None


def _refilled(filling: OpenBatch, deliveries: list[Delivery]) -> OpenBatch:
    """Return a filling batch again with fewer deliveries, so that its size and merge keys are right."""
    refilled = OpenBatch(filling.group, filling.limits, filling.opened_at)
    refilled.fill(deliveries)
    return refilled


class Lanes:
    """The lanes of one destination. `limits` returns the limits of a group, `linger` is in seconds."""

    def __init__(
        self, limits: Callable[[Hashable], Limits], linger: float, *, max_in_flight: int, ordered: bool
    ) -> None:
        def lane(concurrency: int, *, ordered: bool = False) -> Lane:
            return Lane(limits, linger, concurrency=concurrency, ordered=ordered)

        self.ordered = ordered
        self._keyed = [lane(1, ordered=True) for _ in range(max_in_flight)] if ordered else [lane(max_in_flight)]
        self._replayed = lane(1) if ordered else self._keyed[0]
        self._parked = lane(max(1, max_in_flight // 2))
        self.apart: dict[Delivery, Lane] = {}
        """With order: the parked records, each with the lane of its key."""
        self.all = [*self._keyed, *([self._replayed] if ordered else []), self._parked]
        """Every lane; the one for parked records is the last."""

    def set_linger(self, linger: float) -> None:
        """Change how long the first record of a batch waits for more (seconds)."""
        for lane in self.all:
            # What fills now may be due earlier.
            lane.linger, lane.due = linger, _AT_ONCE

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes."""
        return iter(self.all)

    def deliveries(self) -> Iterator[Delivery]:
        """Iterate over everything that waits, in no particular order."""
        return (delivery for lane in self.all for batch in lane.batches() for delivery in batch.deliveries)

    def offer(self, offer: Offer, now: float) -> None:
        """Add deliveries, each to its lane."""
        if not self.ordered:
            self._keyed[0].offer(offer.deliveries, offer.group, now)
            return
        keyed, replayed = self._keyed, self._replayed
        lanes = len(keyed)
        by_lane: defaultdict[Lane, list[Delivery]] = defaultdict(list)
        # `_lane` written out: its calls would take half of the time. What is offered is not parked yet.
        for delivery in offer.deliveries:
            key = delivery.record.key
            if delivery.first_dedup_id is not None:
                by_lane[replayed].append(delivery)
            else:
                by_lane[keyed[(delivery.record.partition if key is None else crc32(key)) % lanes]].append(delivery)
        for lane, deliveries in by_lane.items():
            lane.offer(deliveries, offer.group, now)

    def of(self, batch: Batch) -> Lane:
        """Return the lane of a batch."""
        return self._lane(batch.deliveries[0]) if self.ordered else self._keyed[0]

    def put_alone(self, batch: Batch, due: float) -> None:
        """Park a lone record, to be sent again at `due`. With order its key waits for it, and nothing else."""
        (delivery,) = batch.deliveries
        if self.ordered and not delivery.replayed and delivery not in self.apart:
            lane = self._lane(delivery)
            lane.park(delivery)
            self.apart[delivery] = lane
        # Without order too, records that fail may take only some of the slots: each may be a time-out.
        lane = self._parked if self.ordered or batch.failures else self.of(batch)
        lane.put_waiting(batch, due)

    def unpark(self) -> bool:
        """Unpark the keys of parked records that have their outcome, or whose partition was revoked.

        Returns whether there were any.
        """
        over = [
            delivery
            for delivery in self.apart
            if not (delivery.tracker.open and delivery.tracker.is_pending(delivery.record.offset, delivery.bit))
        ]
        for delivery in over:
            self.apart.pop(delivery).unpark(delivery)
        return bool(over)

    def let_pass(self, delivery: Delivery) -> None:
        """Release the later records of a record's key, because a storm sets the record aside."""
        if (lane := self.apart.pop(delivery, None)) is not None:
            lane.unpark(delivery)

    def take_out(self, delivery: Delivery) -> Batch | None:
        """Take one delivery out, as a batch of one that knows how often it was sent; None if it is in no lane."""
        for lane in self.all:
            if (batch := lane.take_out(delivery)) is not None:
                return batch
        return None

    def drop(self, gone: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out every delivery that is `gone`, and return them."""
        return [delivery for lane in self.all for delivery in lane.drop(gone)]

    def hurry(self, now: float) -> None:
        """Make every waiting batch due now, because the reason to wait is over."""
        for lane in self.all:
            lane.hurry(now)

    def _lane(self, delivery: Delivery) -> Lane:
        if delivery.replayed:
            # Replayed records are outside key order, so none of them may keep back later records.
            return self._replayed
        if delivery in self.apart:
            return self._parked
        return self._keyed[lane_of(delivery.record, len(self._keyed))]


@dataclass(frozen=True, slots=True)
class WaitingRecord:
    """One record that waits alone. `since` is its first attempt (epoch seconds)."""

    position: Position
    since: float | None
    attempts: int
    reason: str


class Waiting:
    """The batches of one destination that failed before and have no outcome yet: in its lanes, or in flight again."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._in_flight: list[Batch] = []

    def sent_again(self, batch: Batch) -> None:
        """Note that a batch that failed before is in flight again. It counts as waiting until its answer comes."""
        self._in_flight.append(batch)

    def answered(self, batch: Batch) -> None:
        """Note that such a batch is no longer in flight."""
        self._in_flight.remove(batch)

    def message(self) -> str | None:
        """Describe one waiting batch; None if there is none."""
        for batch in (*self._in_flight, *[lane.retrying for lane in self._lanes if lane.tried]):
            if batch is not None and batch.deliveries:
                return _describe(batch)
        return None

    def records(self) -> list[WaitingRecord]:
        """Return every record that waits alone."""
        return [
            WaitingRecord(batch.deliveries[0].record.position, batch.first_attempt, batch.attempts, batch.reason)
            for batch in self._lone()
        ]

    def longest(self, now: float) -> float:
        """Return how many seconds the longest waiting of the records that wait alone has waited; 0 without one."""
        return max(
            (now - batch.first_sent_at for batch in self._lone() if batch.first_sent_at is not None), default=0.0
        )

    def _lone(self) -> list[Batch]:
        return [batch for batch in self._batches() if len(batch.deliveries) == 1 and batch.troubled]

    def _batches(self) -> Iterable[Batch]:
        yield from self._in_flight
        for lane in self._lanes:
            if lane.tried:
                yield from lane.batches()


def skip_command(position: Position, destination: str) -> str:
    """Return the command that makes a record a dead letter of one destination; other destinations still get it."""
    place = [position.topic, str(position.partition), str(position.offset)]
    return shlex.join(["connector", "skip", *place, "--destination", destination])


def _describe(batch: Batch) -> str:
    """Describe a waiting batch; a lone record by topic, partition and offset."""
    count = len(batch.deliveries)
    times = "" if not batch.failures else "failed once: " if batch.failures == 1 else f"failed {batch.failures} times: "
    if count != 1:
        return f"{count} records wait to be sent again, {times}{batch.reason}"
    return f"the record {batch.deliveries[0].record.position} waits alone, {times}{batch.reason}"
