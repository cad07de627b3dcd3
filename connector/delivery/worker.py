"""One destination's worker: takes deliveries in, sends batches when everything says so, and ends every one of them.

The loop sleeps until something may have changed: a delivery came, an answer came, a due time, a token, a probe. All of
it runs in one event loop, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Iterable, Sequence
from typing import Any

import structlog

from connector.delivery.codes import Codes
from connector.delivery.destination import Destination
from connector.delivery.holds import Cause, Condition, Hold
from connector.delivery.outcome import Settlement
from connector.delivery.request import Asker, Tracer, Transport
from connector.delivery.skips import Skips
from connector.errors import ConnectorError, Refusal
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.pipeline.offsets import PartitionTracker
from connector.pipeline.skipping import CAUSE, CODE, MESSAGE, Skip
from connector.vendors.base import VERDICTS, Accepted, Vendor

log = structlog.get_logger()


class Worker:
    """Delivers one destination's records, with at most `max_in_flight` requests at a time.

    `codes` is the destination's `codes:` where its vendor leaves heeding them to delivery.
    """

    def __init__(
        self,
        destination: Destination,
        transport: Transport,
        *,
        timeout: float,
        codes: Codes | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._at = destination
        self._clock = destination.ports.clock
        self._transport = transport
        self._asker = Asker(destination, transport, timeout=timeout, codes=codes or {}, tracer=tracer)
        self._time = destination.ports.metrics.time_seconds
        self._settlement = Settlement(destination, destination.settings.vendor, _together)
        self._tasks: dict[asyncio.Task[None], Batch] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._turn = 0
        self._waits_since: float | None = None
        self._error: BaseException | None = None
        self._skips = Skips(destination.lanes)
        self._suspended: list[tuple[Delivery, Refusal]] = []
        """Records that break a rule while too many do: neither sent nor dead-lettered until the storm is over."""
        self.in_flight = 0
        self.answered = 0
        """How many requests have ended, in any way."""
        destination.ports.metrics.destination_in_flight.labels(self.name).set_function(lambda: self.in_flight)

    @property
    def name(self) -> str:
        """The destination's name."""
        return self._at.name

    @property
    def destination(self) -> Destination:
        """The destination's state."""
        return self._at

    @property
    def vendor(self) -> Vendor:
        """The vendor as its settings are now."""
        return self._at.vendor

    @property
    def settling(self) -> int:
        """How many batches are under way without a request: mostly those whose dead letters Kafka has not taken yet."""
        return len(self._tasks) - self.in_flight

    def offer(self, offer: Offer) -> None:
        """Take deliveries in. Never blocks: the budget is the caller's to mind."""
        self._at.add(offer)
        self._changed.set()

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Take in a record that breaks a rule of the vendor before it is sent: it becomes a dead letter."""
        self._at.buffered += delivery.charge
        if self._settlement.storm_of_invalid(delivery, refusal):
            self._suspended.append((delivery, refusal))
            self._changed.set()
        else:
            self._start(self._settlement.refuse_locally(delivery, refusal), Batch(None, [delivery]))

    async def run(self) -> None:
        """Send until cancelled. Raises what a delivery raised unexpectedly: its records stay uncommitted."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            if self._error is not None:
                raise self._error
            started = self._clock.now()
            self._resume_suspended()
            delay = self._dispatch()
            self._at.note()
            self._time.add("deliver", self._clock.now() - started)
            if delay is None:
                await self._changed.wait()
            elif delay <= 0:
                await asyncio.sleep(0)
            else:
                timer = loop.call_later(delay, self._changed.set)
                try:
                    await self._changed.wait()
                finally:
                    timer.cancel()

    def hold(self, message: str) -> None:
        """Hold the destination until an operator releases it."""
        self._at.hold(Cause.OPERATOR, None, message)
        self._changed.set()

    def release(self) -> None:
        """End every hold: the operator says that it can go on."""
        for scope in self._at.holds.scopes():
            self._at.release(scope)
        self._at.storm.reset()
        self._changed.set()

    def skip(self, tracker: PartitionTracker, offset: int) -> Skip | None:
        """Dead-letter a record by hand: where it waits at once, else when its answer says that it was not accepted.

        None where the destination does not have the record.
        """
        waiting = [delivery for lane in self._at.lanes for batch in lane.batches() for delivery in batch.deliveries]
        suspended = [delivery for delivery, _ in self._suspended]
        under_way = [delivery for batch in self._tasks.values() for delivery in batch.deliveries]
        for delivery in (*waiting, *suspended, *under_way):
            if delivery.tracker is tracker and delivery.record.offset == offset:
                skip = self._skips.want(delivery)
                self._take_skipped()
                self._changed.set()
                return skip
        return None

    def set_share(self, share: float) -> None:
        """Change which part of the group's rate limit is this member's."""
        self._at.bucket.set_share(share, self._clock.now())
        self._changed.set()

    def condition(self) -> Condition:
        """Return the destination's state."""
        return self._at.condition()

    def stop(self) -> None:
        """Start no further request; what is in flight goes on."""
        self._stopping = True
        self._changed.set()

    def drop(self) -> None:
        """Let go of everything unsent whose partition is leaving: it stays uncommitted."""
        for lane in self._at.lanes:
            self._at.forget(lane.drop(lambda delivery: not delivery.tracker.open))
        self._at.forget(delivery for delivery, _ in self._suspended if not delivery.tracker.open)
        self._suspended = [entry for entry in self._suspended if entry[0].tracker.open]

    async def drain(self, timeout: float) -> bool:
        """Let go of what leaving partitions have unsent and wait for their requests and dead letters in flight.

        Returns whether all of them ended within `timeout` seconds. Others go on meanwhile.
        """
        self.drop()
        leaving = {task for task, batch in self._tasks.items() if any(not d.tracker.open for d in batch.deliveries)}
        if not leaving:
            return True
        _, late = await asyncio.wait(leaving, timeout=max(0.0, timeout))
        return not late

    async def close(self) -> None:
        """Cancel what is still in flight and close the connections."""
        self.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    def _take_skipped(self) -> None:
        """Dead-letter what an operator skips and what waits here."""
        suspended = Batch(None, [delivery for delivery, _ in self._suspended])
        self._write_skipped([*self._skips.from_lanes(), *self._skips.from_batch(suspended)])
        self._suspended = [entry for entry in self._suspended if entry[0] in suspended.deliveries]

    def _write_skipped(self, batches: Iterable[Batch]) -> None:
        """Write the dead letters of what an operator skips; apart, so that a drain waits for them."""
        for batch in batches:
            message = f"{MESSAGE}; before that: {batch.reason}" if batch.reason else MESSAGE
            self._start(self._settlement.dead_letter(batch, CAUSE, CODE, message), batch)

    def _resume_suspended(self) -> None:
        if not self._suspended or self._stopping or self._at.holds.get() is not None:
            return
        waiting, self._suspended = self._suspended, []
        for delivery, refusal in waiting:
            self._at.buffered -= delivery.charge
            self.refuse(delivery, refusal)

    def _dispatch(self) -> float | None:
        """Send all that may go now; return the seconds until time alone changes that, or None."""
        while not self._stopping:
            now = self._clock.now()
            wait = self._at.bucket.delay(now)
            if wait > 0:
                return self._wait_for_token(now, wait)
            if self.in_flight >= self._at.settings.max_in_flight:
                return None
            batch, probe = self._next(now)
            if batch is None:
                return self._idle_for(now)
            self._at.bucket.take(now)
            self._send(batch, now, probe)
        return None

    def _wait_for_token(self, now: float, wait: float) -> float | None:
        if not any(self._at.lanes):
            return None
        if self._waits_since is None:
            self._waits_since = now
        return wait if wait != float("inf") else None

    def _next(self, now: float) -> tuple[Batch | None, Hold | None]:
        """Return the next batch to send, and the hold that it probes."""
        lanes, holds = self._at.lanes, self._at.holds
        count = len(lanes)
        due = min([lane.due for lane in lanes]) <= now
        for step in range(count) if due else ():
            index = (self._turn + step) % count
            lane = lanes[index]
            if lane.due <= now and (batch := lane.take(now, self._may_send)) is not None:
                self._turn = index + 1
                return batch, None
        if holds:
            for step in range(count):
                index = (self._turn + step) % count
                batch = lanes[index].take_probe(lambda group: holds.probe_due(group, now) is not None)
                if batch is not None:
                    self._turn = index + 1
                    return self._as_probe(batch)
        return None, None

    def _may_send(self, group: Hashable) -> bool:
        holds = self._at.holds
        return not holds or holds.blocking(group) is None

    def _as_probe(self, batch: Batch) -> tuple[Batch, Hold | None]:
        """Take one record where records are in doubt, else the whole batch; read the secrets again first."""
        held = self._at.holds.blocking(batch.group)
        if held is not None and held.single and len(batch.deliveries) > 1:
            self._at.lane(batch).put_parts([batch.part(batch.deliveries[1:])])
            batch = batch.part(batch.deliveries[:1])
        if held is not None and held.cause is Cause.MISCONFIGURED:
            try:
                self._at.reload()
            except (ConnectorError, OSError, ValueError) as error:
                log.warning("destination.secrets_unreadable", destination=self.name, message=str(error))
        return batch, self._at.holds.probe_started(batch.group)

    def _idle_for(self, now: float) -> float | None:
        holds = self._at.holds
        if self.in_flight >= self._at.settings.max_in_flight:
            return None
        lanes = self._at.lanes
        if not holds:
            # Each was asked just now, so it knows.
            due = min([lane.due for lane in lanes if lane.in_flight < lane.concurrency], default=float("inf"))
            return None if due == float("inf") else max(0.001, due - now)
        times = [] if holds.get() is not None else [lane.wake_at(self._may_send) for lane in lanes]
        if any(lanes):
            times.append(holds.next_probe(now))
        found = min((time for time in times if time is not None), default=None)
        return None if found is None else max(0.001, found - now)

    def _send(self, batch: Batch, now: float, probe: Hold | None) -> None:
        if self._waits_since is not None:
            self._at.ports.metrics.rate_limit_wait.labels(self.name).observe(now - self._waits_since)
            self._waits_since = None
        self._at.lane(batch).in_flight += 1
        self.in_flight += 1
        self._start(self._deliver(batch, probe), batch)

    def _start(self, work: Coroutine[Any, Any, None], batch: Batch) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = batch
        task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._changed.set()
        if self._skips and not self._stopping:
            self._skips.tidy()
            self._take_skipped()

    async def _deliver(self, batch: Batch, probe: Hold | None) -> None:
        at = self._at
        failed = batch.failures > 0
        if failed:
            at.tried_again.append(batch)
        try:
            await self._attempt(batch, probe)
        finally:
            if failed:
                at.tried_again.remove(batch)
            self._changed.set()

    async def _attempt(self, batch: Batch, probe: Hold | None) -> None:
        at, lane = self._at, self._at.lane(batch)
        try:
            self._end_expired(batch)
            if self._skips:
                self._write_skipped(self._skips.from_batch(batch))
            verdict, response = await self._asker.ask(batch) if batch.deliveries else (None, None)
        finally:
            lane.in_flight -= 1
            self.in_flight -= 1
            self.answered += 1
            # At once: others need not wait until what follows has written its dead letters.
            self._changed.set()
        if verdict is not None:
            at.ports.metrics.requests.labels(self.name, VERDICTS[type(verdict)]).inc()
            started = self._clock.now()
            await self._settlement.settle(batch, verdict, response, probe=probe is not None)
            if isinstance(verdict, Accepted) and not verdict.answers:
                # Other settlements wait for Kafka now and then, which is no work of this process.
                self._time.add("deliver", self._clock.now() - started)
        if probe is not None:
            at.holds.probe_ended(probe, self._clock.now())

    def _end_expired(self, batch: Batch) -> None:
        """Dead-letter what a late attempt would send against a rule; apart, so that a drain waits for the letters."""
        expired = self._take_expired(batch)
        if expired is not None:
            work = self._settlement.dead_letter(
                expired,
                "expired",
                f"{self._at.settings.vendor}.expired",
                "a rule of the vendor that held when the record was read holds no longer: it is too old to be sent now",
            )
            self._start(work, expired)

    def _take_expired(self, batch: Batch) -> Batch | None:
        """Take out what a late attempt would send against a rule that depends on the time."""
        wall = self._clock.wall() * 1000
        expired = [d for d in batch.deliveries if (end := d.item.expires_at) is not None and end <= wall]
        if not expired:
            return None
        batch.deliveries = [d for d in batch.deliveries if d not in expired]
        return batch.part(expired)


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Return once all have; where one raises, or this is cancelled, the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
