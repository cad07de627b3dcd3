"""One destination: its lanes, and the objects that each own one piece of its state.

The worker decides from them what to send, and `outcome` reports to them what an answer meant.

    piece of state                    owner
    --------------------------------  -------------------------
    what holds it, and its probes     `holds`: `Holds`
    what answers have proved          `evidence`: `Evidence`
    the rate limit                    `bucket`: `TokenBucket`
    a 429's pause                     `throttle`: `Throttle`
    smaller limits than documented    `limits`: `LearnedLimits`
    bytes held, and outcomes          `buffer`: `Buffer`
    what waits to be sent, in order   `lanes`: `Lanes`
    what waits to be sent again       `waiting`: `Waiting`
    refusals, and what is set aside   `storms`: `Storms`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.config.loader import DestinationSettings
from connector.delivery.isolation import Evidence
from connector.delivery.lane import Lanes, Waiting
from connector.delivery.pacing import Backoff, LearnedLimits, Throttle, TokenBucket
from connector.delivery.states import (
    Cause,
    ConditionLog,
    DestinationState,
    Hold,
    HoldEvent,
    Holds,
    Kind,
    Probe,
    StateReport,
)
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.pipeline.flow import Budget
from connector.pipeline.intake import DeadLetterSink
from connector.pipeline.offsets import PartitionTracker
from connector.pipeline.storms import Storms, StormStatus
from connector.records import Answer, Receipt
from connector.telemetry.metrics import Metrics
from connector.vendors.base import DESTINATION, Vendor

log = structlog.get_logger()

HELD_BY_CONFIGURATION: Final = "held by the configuration (hold: true)"


class Buffer:
    """The bytes that a destination holds of the shared `budget`; they were charged during preparation."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0
        """Bytes charged for the deliveries that this destination has."""

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note the outcome of deliveries: tell their trackers, and release their bytes."""
        done: defaultdict[PartitionTracker, list[int]] = defaultdict(list)
        for delivery in deliveries:
            done[delivery.tracker].append(delivery.record.offset)
        # Grouped by partition: a batch has records of several, and a tracker finishes a whole list at once.
        for tracker, offsets in done.items():
            # A destination has the same bit in every partition.
            tracker.finish(offsets, deliveries[0].bit)
        self.forget(deliveries)

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Release deliveries whose partition was revoked; they get no outcome here."""
        charge = sum([delivery.charge for delivery in deliveries])
        self.bytes -= charge
        self._budget.release(charge)

    def kept(self, batch: Batch) -> Batch | None:
        """Return the part of a batch whose partitions are still ours, and release the rest.

        Everything that puts a batch back must call this first. Why does the drain not suffice? A drain drops what the
        lanes hold, but a batch in flight is in no lane. Put back after the drain, it would be sent although another
        member has the partition.
        """
        left = [delivery for delivery in batch.deliveries if delivery.tracker.open]
        if len(left) != len(batch.deliveries):
            self.forget(delivery for delivery in batch.deliveries if not delivery.tracker.open)
            batch.deliveries = left
        return batch if left else None


class AnswerSink(Protocol):
    """Where a query vendor's answers go."""

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> Collection[int]:
        """Return once Kafka has acknowledged all answers, each under its question's key. Raises only if cancelled.

        Returns the indexes of answers that the topic can never take, because they are too large.
        """
        ...


class ReceiptSink(Protocol):
    """Where receipts of deliveries are written."""

    def note(self, receipt: Receipt) -> None:
        """Accept a receipt. Neither blocks nor raises: no delivery depends on it."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a destination gets from outside: time, randomness, and the sinks for outcomes."""

    clock: Clock
    random: Random
    dead_letters: DeadLetterSink
    answers: AnswerSink | None
    metrics: Metrics
    budget: Budget
    receipts: ReceiptSink | None = None


class Destination:
    """One named account at one vendor, and everything that waits for it.

    `reload` reads the secrets again and returns the vendor with them; None if they are the same.
    """

    def __init__(
        self,
        name: str,
        settings: DestinationSettings,
        vendor: Vendor,
        ports: Ports,
        *,
        reload: Callable[[], Vendor | None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.vendor = vendor
        self.ports = ports
        self.backoff = Backoff(settings.retry, ports.random)
        self.holds = Holds(self.backoff)
        self.evidence = Evidence()
        self.bucket = TokenBucket(settings.rate)
        self.throttle = Throttle(self.backoff)
        self.limits = LearnedLimits(
            lambda group: self.vendor.limits(group),  # noqa: PLW0108 -- not its own method: it is built again
            ports.clock.now,
        )
        self.buffer = Buffer(ports.budget)
        self._unnoted = True
        """Whether the state may differ from the noted one. Saves computing it for plain successes, which are most
        answers."""
        self.storms = Storms(
            settings.storm,
            ports.clock,
            scope={"destination": name},
            wait=self.backoff.probe,
            on_change=self.may_differ,
        )
        self.topic_storms: Callable[[], Iterable[StormStatus]] = tuple
        """Returns the storms of the topics whose records come here."""
        self.lanes = Lanes(
            self.limits.of,
            settings.batch.linger,
            max_in_flight=settings.max_in_flight,
            ordered=settings.order == "key",
        )
        self.waiting = Waiting(self.lanes)
        self.answers_trouble: str | None = None
        """Why the vendor's answers cannot be written now, or None."""
        self._reload = reload
        self._log = ConditionLog(ports.clock.wall())
        if settings.hold:
            self.hold(Kind.OPERATOR, None, HELD_BY_CONFIGURATION)
        ports.metrics.set_state(name, self._log.seen.state)
        ports.metrics.record_waiting.labels(name).set_function(lambda: self.waiting.longest(ports.clock.now()))

    def add(self, offer: Offer) -> None:
        """Take deliveries in."""
        self.buffer.bytes += offer.charge
        self.lanes.offer(offer, self.ports.clock.now())

    def drop(self) -> None:
        """Drop all unsent deliveries whose partition is being revoked: they stay uncommitted."""
        # By the tracker, not by topic and partition: a partition that comes back has a new tracker, and what was left
        # from its first assignment must go.
        self.buffer.forget(self.lanes.drop(lambda delivery: not delivery.tracker.open))
        self.lanes.unpark()

    def hold(self, kind: Kind, code: str | None, message: str, *, scope: Hashable = DESTINATION) -> None:
        """Hold the destination, or one group of it."""
        clock = self.ports.clock
        self.may_differ()
        self.holds.begin(kind, code, message, now=clock.now(), wall=clock.wall(), scope=scope)

    def apply(
        self,
        event: HoldEvent,
        group: Hashable,
        probe: Probe,
        *,
        scope: Hashable = DESTINATION,
        message: str | None = None,
        wish: float | None = None,
    ) -> None:
        """Apply an answer to the holds. If it ends one, the batches that it kept back become due at once."""
        now = self.ports.clock.now()
        self.may_differ()
        self._ended(self.holds.apply(event, group, probe, now=now, scope=scope, message=message, wish=wish))

    def release(self) -> int:
        """End every hold and storm for an operator; return how many records a storm had set aside."""
        self.may_differ()
        self._ended(self.holds.release())
        return self.storms.release()

    def hold_intake(self, cause: Cause | None, message: str = "") -> None:
        """Show that records wait for their schemas before they can reach this destination."""
        self.holds.set_intake(cause, message, self.ports.clock.wall())
        self.may_differ()
        self.note()

    def note_answers(self, trouble: str | None) -> None:
        """Show why the vendor's answers wait for Kafka, or that they no longer do."""
        if trouble != self.answers_trouble:
            self.answers_trouble = trouble
            self.may_differ()
            self.note()

    def reload(self) -> None:
        """Read the destination's secrets again, so that a probe uses a rotated one."""
        vendor = self._reload()
        # Only a change counts. Otherwise each probe would erase the evidence about denied records.
        if vendor is not None:
            self.vendor = vendor
            self.evidence.renewed(self.ports.clock.now())

    def use(self, settings: DestinationSettings, vendor: Vendor) -> None:
        """Use other settings of the same account. Holds are probed at once, because the settings may fix the cause."""
        now, before = self.ports.clock.now(), self.settings
        self.settings, self.vendor = settings, vendor
        self.evidence.renewed(now)
        self.backoff.use(settings.retry)
        self.bucket.set_limit(settings.rate, now)
        self.lanes.set_linger(settings.batch.linger)
        if settings.storm != before.storm:
            self.storms.use(settings.storm)
        if settings.hold and not before.hold:
            self.hold(Kind.OPERATOR, None, HELD_BY_CONFIGURATION)
        elif before.hold and not settings.hold:
            self._ended(self.holds.release(Kind.OPERATOR))
        self.probe_now()

    def probe_now(self) -> bool:
        """Probe every hold and storm as soon as a record can go out; return whether there is anything to probe."""
        probed = self.holds.probe_now(self.ports.clock.now())
        return self.storms.probe_now() or probed

    def shown_holds(self) -> list[StateReport]:
        """Return every hold in the form shown to a person, the worst first."""
        clock = self.ports.clock
        storms = [
            StateReport(
                DestinationState.HELD,
                Cause.STORM,
                storm.code,
                storm.message,
                storm.since,
                storm.next_probe,
                storm.set_aside,
            )
            for storm in (*self.storms.status(), *self.topic_storms())
        ]
        return [*self.holds.shown(now=clock.now(), wall=clock.wall()), *storms]

    def condition(self) -> StateReport:
        """Return the state in the form shown to a person."""
        condition = self._condition()
        since, seen = condition.since, self._log.seen
        if since is None and condition.state is seen.state:
            since = seen.since
        return replace(condition, since=since if since is not None else self.ports.clock.wall())

    def may_differ(self) -> None:
        """Note that the state may have changed: the next `note` computes it again."""
        self._unnoted = True

    def note(self) -> float | None:
        """Publish a change of state, and log it once it lasts. Return the seconds until then; None if nothing waits."""
        if not self._unnoted:
            return None
        now = self.ports.clock.now()
        if self._log.see(self._condition(), now, self.ports.clock.wall()):
            self.ports.metrics.set_state(self.name, self._log.seen.state)
        if (change := self._log.to_log(now)) is not None:
            self._log_change(*change)
        due = self._log.due(now)
        # Any other state may end by time alone.
        self._unnoted = due is not None or self._log.seen.state is not DestinationState.FLOWING
        return due

    def _log_change(self, before: StateReport, after: StateReport, left_out: int) -> None:
        method = log.info if after.cause is None else log.warning
        method(
            "destination.state",
            destination=self.name,
            state=after.state.value,
            was=before.state.value,
            cause=after.cause,
            code=after.code,
            message=after.message,
            changes_left_out=left_out,
        )

    def _condition(self) -> StateReport:
        """Return the state; `since` is set only if a hold knows it."""
        if holds := self.shown_holds():
            return holds[0]
        # Before a throttle and failed batches: they end by themselves, while this may need a person.
        if self.answers_trouble is not None:
            return StateReport(DestinationState.RETRYING, message=f"the vendor's answers wait: {self.answers_trouble}")
        now, wall = self.ports.clock.now(), self.ports.clock.wall()
        # After the holds: a vendor that is both denied and throttled has to be shown as denied, because only that
        # needs a person.
        left = self.throttle.until - now
        if left > 0:
            return StateReport(
                DestinationState.THROTTLED, message="the vendor asked the connector to wait", next_probe=wall + left
            )
        waits = self.waiting.message()
        return StateReport(DestinationState.FLOWING if waits is None else DestinationState.RETRYING, message=waits)

    def _ended(self, holds: list[Hold]) -> None:
        if not holds:
            return
        # Failures from before the hold's end would otherwise count towards the next outage.
        self.evidence.hold_ended()
        self.lanes.hurry(self.ports.clock.now())
