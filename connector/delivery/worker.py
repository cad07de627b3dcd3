"""One destination's worker: sends a batch when a slot, a rate token and the holds allow it.

Every delivery eventually gets an outcome.

The loop sleeps until something may have changed: a delivery or an answer came, or a batch, a token or a probe is due.
Everything runs in one event loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Iterable, Sequence
from typing import Any

import structlog

from connector.config.loader import DestinationSettings
from connector.delivery.destination import Destination
from connector.delivery.lane import Lane
from connector.delivery.outcome import Outcomes
from connector.delivery.request import Requests, Tracer, Transport
from connector.delivery.states import Kind, Probe, StateReport
from connector.errors import Refusal
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.pipeline.skips import CAUSE, CODE, MESSAGE, Skip, Skips
from connector.pipeline.storms import Place
from connector.tasks import trouble_of
from connector.vendors.base import Accepted, Vendor

log = structlog.get_logger()


class Worker:
    """Delivers one destination's records, with at most `max_in_flight` requests at a time."""

    def __init__(
        self,
        destination: Destination,
        transport: Transport,
        *,
        timeout: float,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = destination.name
        self.destination = self._destination = destination
        """The destination's state."""
        self._clock = destination.ports.clock
        self._transport = transport
        self._requests = Requests(destination, transport, timeout=timeout, tracer=tracer)
        self._time = destination.ports.metrics.time_seconds
        self._outcomes = Outcomes(destination, _together)
        self._tasks: dict[asyncio.Task[None], Batch] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._turn = 0
        self._newest = False
        """Whether the next probe takes the newest record, and not the oldest."""
        self._waits_since: float | None = None
        self._error: BaseException | None = None
        self._skips = Skips()
        self.in_flight = 0
        self._writing_answers = 0
        """How many batches wait until Kafka has the vendor's answers."""
        self.answered = 0
        """How many requests have ended, whatever their result."""
        destination.ports.metrics.destination_in_flight.labels(self.name).set_function(lambda: self.in_flight)

    @property
    def vendor(self) -> Vendor:
        """The vendor, built from the current settings."""
        return self._destination.vendor

    @property
    def settling(self) -> int:
        """How many batches are being worked on without a request; mostly they wait for Kafka to accept dead letters."""
        return len(self._tasks) - self.in_flight

    def offer(self, offer: Offer) -> None:
        """Accept deliveries. Non-blocking; the caller has checked the budget."""
        self._destination.add(offer)
        if self._skips.any and [None for delivery in offer.deliveries if self._skips.came(delivery)]:
            self._take_skipped()
        self._changed.set()

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Accept a record that breaks a local rule of the vendor: it becomes a dead letter without being sent."""
        self._destination.buffer.bytes += delivery.charge
        if self._skips.came(delivery):
            self._write_skipped(self._skips.take_from(Batch(None, [delivery])))
        elif self._outcomes.sets_aside_invalid(delivery, refusal):
            self._changed.set()
        else:
            self._start(self._outcomes.refuse_locally(delivery, refusal), Batch(None, [delivery]))

    async def run(self) -> None:
        """Send until cancelled. Raises the unexpected exception of a delivery; its records stay uncommitted."""
        loop = asyncio.get_running_loop()
        while True:
            # Cleared before the checks below, not after: a change during them must wake the loop again.
            self._changed.clear()
            if self._error is not None:
                raise self._error
            started = self._clock.now()
            self._recall_probes(started)
            delay = self._dispatch()
            unsettled = self._destination.note()
            if unsettled is not None:
                delay = unsettled + 0.001 if delay is None else min(delay, unsettled + 0.001)
            self._time.add("deliver", self._clock.now() - started)
            if delay is None:
                await self._changed.wait()
            else:
                timer = loop.call_later(delay, self._changed.set)
                try:
                    await self._changed.wait()
                finally:
                    timer.cancel()

    def hold(self, message: str) -> None:
        """Hold the destination until an operator releases it."""
        self._destination.hold(Kind.OPERATOR, None, message)
        self._changed.set()

    def release(self) -> int:
        """End every hold and storm for an operator; return how many records a storm had set aside."""
        released = self._destination.release()
        self._changed.set()
        return released

    def probe_now(self) -> bool:
        """Probe the destination's holds as soon as a record can be sent; return whether there is any hold to probe."""
        probed = self._destination.probe_now()
        self._changed.set()
        return probed

    def use(self, settings: DestinationSettings, vendor: Vendor) -> None:
        """Use other settings of the same account from now on. Requests in flight keep the old ones."""
        self._destination.use(settings, vendor)
        self._requests.timeout = settings.timeout
        self._changed.set()

    def skip(self, tracker: PartitionTracker, offset: int) -> Skip | None:
        """Dead-letter a record for an operator: at once, or, if it is in a request, once that did not accept it.

        None if the destination does not have the record.
        """
        under_way = (delivery for batch in self._tasks.values() for delivery in batch.deliveries)
        delivery = _find((*self._destination.lanes.deliveries(), *under_way), tracker, offset)
        if delivery is not None:
            skip = self._skips.want(delivery)
            self._take_skipped()
            self._changed.set()
            return skip
        place = Place(tracker, offset, destination_bit(tracker.destinations.index(self.name)))
        storms = self._destination.storms
        return self._skips.want_later(place) if storms.take_out(place) or storms.is_read_again(place) else None

    def set_share(self, share: float) -> None:
        """Change this member's share of the group's rate limit."""
        self._destination.bucket.set_share(share, self._clock.now())
        self._changed.set()

    def condition(self) -> StateReport:
        """Return the destination's state."""
        return self._destination.condition()

    def stop(self) -> None:
        """Start no further request; requests in flight continue."""
        self._stopping = True
        self._changed.set()

    def drop(self) -> None:
        """Drop all unsent deliveries whose partition is being revoked: they stay uncommitted."""
        self._destination.drop()
        self._destination.storms.forget()

    async def drain(self, timeout: float) -> bool:
        """Drop the unsent deliveries of revoked partitions, and wait for their requests and dead letters in flight.

        Returns whether all of them ended within `timeout` seconds. Deliveries of other partitions continue.
        """
        self.drop()
        # A batch may have records of several partitions. If one of them is revoked, wait for the whole request: it
        # cannot be cancelled in part.
        leaving = {task for task, batch in self._tasks.items() if any(not d.tracker.open for d in batch.deliveries)}
        if not leaving:
            return True
        _, late = await asyncio.wait(leaving, timeout=max(0.0, timeout))
        return not late

    async def close(self) -> None:
        """Cancel requests in flight and close the connections."""
        self.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    def _take_skipped(self) -> None:
        """Dead-letter the waiting records that an operator skips."""
        for delivery in self._skips:
            if (batch := self._destination.lanes.take_out(delivery)) is not None:
                self._write_skipped([self._skips.take(batch)])
            elif self._destination.storms.take_out(Place(delivery.tracker, delivery.record.offset, delivery.bit)):
                self._skips.put_off(delivery)

    def _write_skipped(self, batches: Iterable[Batch]) -> None:
        """Write the dead letters of skipped records, in a task of their own that a drain waits for."""
        for batch in batches:
            message = f"{MESSAGE}; before that: {batch.reason}" if batch.reason else MESSAGE
            self._start(self._outcomes.dead_letter(batch, CAUSE, CODE, message), batch)

    def _recall_probes(self, now: float) -> None:
        """Set a storm's probe aside again if it waits here for too long: the next probe takes another record."""
        destination = self._destination
        for place in destination.storms.overdue(now) if destination.storms else ():
            delivery = _find(destination.lanes.deliveries(), place.tracker, place.offset)
            if delivery is not None and destination.lanes.take_out(delivery) is not None:
                destination.lanes.let_pass(delivery)
                destination.buffer.forget([delivery])
                destination.storms.put_back([place])

    def _dispatch(self) -> float | None:
        """Send every batch that may be sent now; return the seconds until time alone allows more, or None."""
        while not self._stopping:
            now = self._clock.now()
            # The rate limit is applied here, for every request: first attempts, retries, halves and probes alike.
            wait = self._destination.bucket.delay(now)
            if wait > 0:
                return self._wait_for_token(now, wait)
            stuck = self._destination.throttle.stuck
            # Answers keep their request's place until Kafka has them: a slow Kafka then slows the requests, and answers
            # do not pile up in memory.
            if self.in_flight + self._writing_answers >= (1 if stuck else self._destination.settings.max_in_flight):
                return None
            batch, lane, probe = self._next(now)
            if batch is None:
                return self._idle_for(now)
            if stuck and len(batch.deliveries) > 1:
                # The rest takes turns with other batches: one of those may be accepted.
                lane.put_waiting(batch.part(batch.deliveries[1:]), now)
                batch = batch.part(batch.deliveries[:1])
            # The batch was closed before smaller limits were learned.
            if self._destination.limits.taught:
                batch = self._fit(batch)
            self._destination.bucket.take(now)
            if self._waits_since is not None:
                self._destination.ports.metrics.rate_limit_wait.labels(self.name).observe(now - self._waits_since)
                self._waits_since = None
            lane.in_flight += 1
            self.in_flight += 1
            self._start(self._deliver(batch, lane, probe), batch)
        return None

    def _wait_for_token(self, now: float, wait: float) -> float | None:
        if not any(self._destination.lanes):
            return None
        if self._waits_since is None:
            self._waits_since = now
        return wait if wait != float("inf") else None

    def _next(self, now: float) -> tuple[Batch | None, Lane, Probe]:
        """Return the next batch to send, its lane, and the holds that it probes."""
        lanes, holds = self._destination.lanes.all, self._destination.holds
        held = holds.active
        # Probes go first: otherwise a backlog of other groups would take every slot and token, and the hold would last.
        if held and holds.any_due(now) and (found := self._next_probe(now))[0] is not None:
            return found
        count = len(lanes)
        due = min([lane.due for lane in lanes]) <= now
        for step in range(count) if due else ():
            index = (self._turn + step) % count
            lane = lanes[index]
            if lane.due <= now and (batch := lane.take(now, self._may_send if held else None)) is not None:
                self._turn = index + 1
                return batch, lane, ()
        return None, lanes[0], ()

    def _next_probe(self, now: float) -> tuple[Batch | None, Lane, Probe]:
        """Return the next record to probe with, its lane, and the holds that it probes."""
        lanes, holds = self._destination.lanes.all, self._destination.holds
        count = len(lanes)
        # Parked records come last: a record that is known to fail proves nothing.
        order = sorted(range(count), key=lambda index: (index == count - 1, (index - self._turn) % count))
        for index in order:
            lane = lanes[index]
            batch = lane.take_probe(lambda group: holds.probe_is_due(group, now), newest=self._newest)
            if batch is None:
                batch = lane.take_new(lambda group: holds.probe_is_due(group, now, fresh=True))
            if batch is not None:
                self._turn = index + 1
                self._newest = not self._newest
                return self._as_probe(batch, lane)
        return None, lanes[0], ()

    def _fit(self, batch: Batch) -> Batch:
        """Return the part of a batch that fits the limits now; the rest stays in front."""
        first, *rest = self._destination.limits.fit(batch)
        if rest:
            self._destination.lanes.of(batch).put_parts(rest)
        return first

    def _may_send(self, group: Hashable) -> bool:
        return not self._destination.holds.blocking(group)

    def _as_probe(self, batch: Batch, lane: Lane) -> tuple[Batch, Lane, Probe]:
        """Take one record for a probe. If the secrets may be the cause of the hold, read them again first."""
        destination = self._destination
        probe = destination.holds.start_probe(batch.group, fresh=not batch.attempts)
        if len(batch.deliveries) > 1:
            lane.put_parts([batch.part(batch.deliveries[1:])])
            batch = batch.part(batch.deliveries[:1])
        if any(hold.kind in (Kind.DENIED, Kind.DOUBT) for hold in probe):
            try:
                destination.reload()
            except Exception as error:  # noqa: BLE001 - whatever a vendor's module makes of them, the old ones stay
                message = str(error) if isinstance(error, ValueError) else trouble_of(error)
                log.warning("destination.secrets_unreadable", destination=self.name, message=message)
        return batch, lane, probe

    def _idle_for(self, now: float) -> float | None:
        holds, lanes = self._destination.holds, self._destination.lanes.all
        if not holds.active:
            # Each lane was asked just now, so it knows its due time.
            due = min([lane.due for lane in lanes if lane.in_flight < lane.concurrency], default=float("inf"))
            return None if due == float("inf") else max(0.001, due - now)
        times = [] if holds.get() is not None else [lane.wake_at(self._may_send) for lane in lanes]
        if any(lanes):
            times.append(holds.next_probe(now))
        found = min((time for time in times if time is not None), default=None)
        return None if found is None else max(0.001, found - now)

    def _start(self, work: Coroutine[Any, Any, None], batch: Batch) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = batch
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not raised here: an exception in a callback would only be logged by the loop. `run` raises it and ends the
            # run.
            self._error = error
            self._changed.set()
        if self._destination.lanes.apart and self._destination.lanes.unpark():
            self._changed.set()
        if self._skips.any and not self._stopping:
            self._skips.tidy()
            self._take_skipped()

    async def _deliver(self, batch: Batch, lane: Lane, probe: Probe) -> None:
        destination = self._destination
        again = batch.troubled
        if again:
            destination.waiting.sent_again(batch)
        try:
            try:
                self._end_expired(batch)
                if self._skips.any:
                    self._write_skipped(self._skips.take_from(batch))
                verdict, response = await self._requests.send(batch) if batch.deliveries else (None, None)
            finally:
                # Before the outcome: writing dead letters may wait for Kafka, and the vendor can take another request.
                lane.in_flight -= 1
                self.in_flight -= 1
                self.answered += 1
                # At once, so that other batches need not wait until this one's dead letters are written.
                self._changed.set()
            if verdict is not None:
                started = self._clock.now()
                answers = isinstance(verdict, Accepted) and bool(verdict.answers)
                self._writing_answers += answers
                try:
                    await self._outcomes.settle(batch, verdict, response, probe)
                finally:
                    self._writing_answers -= answers
                if isinstance(verdict, Accepted) and not answers:
                    # Other outcomes wait for Kafka, which costs this process no work.
                    self._time.add("deliver", self._clock.now() - started)
            # Even if the verdict says nothing about the hold: the probe is over, and the next one needs a time.
            if probe:
                destination.holds.end_probe(probe, self._clock.now())
        finally:
            if again:
                destination.waiting.answered(batch)
            self._changed.set()

    def _end_expired(self, batch: Batch) -> None:
        """Dead-letter records that have become too old to send, in a task of their own that a drain waits for."""
        # Whole milliseconds, as the items': comparing whole numbers takes half of the time.
        wall = int(self._clock.wall() * 1000)
        expired = [d for d in batch.deliveries if (end := d.item.expires_at) is not None and end <= wall]
        if not expired:
            return
        batch.deliveries = [d for d in batch.deliveries if d not in expired]
        part = batch.part(expired)
        work = self._outcomes.dead_letter(
            part,
            "expired",
            f"{self._destination.settings.vendor}.expired",
            "the record is too old to be sent now: it broke no rule of the vendor when it was read, but does now",
        )
        self._start(work, part)


def _find(deliveries: Iterable[Delivery], tracker: PartitionTracker, offset: int) -> Delivery | None:
    return next((each for each in deliveries if each.tracker is tracker and each.record.offset == offset), None)


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await all coroutines. If one raises, or this is cancelled, the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
