"""One destination: its lanes, and the objects that each own one piece of its state.

The worker decides from them what to send, and `outcome` tells them what an answer meant.

    piece of state                    owner
    --------------------------------  -------------------------
    what holds it, and its probes     `holds`: `holds.Holds`
    what answers have proved          `evidence`: `Evidence`
    the rate limit                    `bucket`: `TokenBucket`
    a 429's pause                     `throttle`: `Throttle`
    smaller limits than documented    `limits`: `LearnedLimits`
    bytes held, and outcomes          `buffer`: `Buffer`
    what waits to be sent, in order   `lanes`: `Lane`
    what waits to be sent again       `waiting`: `Waiting`
    refusals of the last records      `storm`: `StormGuard`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import structlog

from connector.clock import Clock
from connector.config.loader import DestinationSettings
from connector.delivery.buffer import Buffer
from connector.delivery.evidence import Evidence
from connector.delivery.holds import Condition, Hold, Holds, Probe
from connector.delivery.lane import Lane, lane_of
from connector.delivery.limits import LearnedLimits
from connector.delivery.pacing import Backoff, Throttle, TokenBucket
from connector.delivery.states import Cause, DestinationState, Event, Kind
from connector.delivery.waiting import Waiting
from connector.pipeline.batching import Batch, Delivery, Offer
from connector.pipeline.flow import Budget
from connector.pipeline.storms import StormGuard
from connector.records import Answer, DeadLetter, Receipt
from connector.telemetry.metrics import Metrics
from connector.vendors.base import DESTINATION, Limits, Vendor

log = structlog.get_logger()


class DeadLetterSink(Protocol):
    """Where refused records go."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the dead letter, or its partition is no longer ours.

        Retries by itself. May be cancelled; raises nothing else.
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
    """One named account at one vendor, and everything that waits for it. `reload` builds the vendor again."""

    def __init__(
        self, name: str, settings: DestinationSettings, vendor: Vendor, ports: Ports, *, reload: Callable[[], Vendor]
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
        self.limits = LearnedLimits(self._documented_limits)
        self.buffer = Buffer(ports.budget)
        self.storm = StormGuard(settings.storm)
        ordered = settings.order == "key"
        self._ordered_lanes = settings.max_in_flight if ordered else 1
        concurrency = 1 if ordered else settings.max_in_flight
        self.lanes = [self._lane(concurrency=concurrency, ordered=ordered) for _ in range(self._ordered_lanes)]
        if ordered:
            # Replayed records are outside key order: none of them may keep back what came later.
            self.lanes.append(self._lane(concurrency=1))
        self.waiting = Waiting(self.lanes)
        self._reload = reload
        self._shown = Condition(DestinationState.FLOWING)
        self._shown_since = ports.clock.wall()
        if settings.hold:
            self.hold(Kind.OPERATOR, None, "held by the configuration (hold: true)")
        ports.metrics.set_state(name, self._shown.state)

    def add(self, offer: Offer) -> None:
        """Take deliveries in."""
        now = self.ports.clock.now()
        self.buffer.take(offer.charge)
        if len(self.lanes) == 1:
            self.lanes[0].offer(offer.deliveries, offer.group, now)
            return
        by_lane: defaultdict[int, list[Delivery]] = defaultdict(list)
        for delivery in offer.deliveries:
            by_lane[self._lane_index(delivery)].append(delivery)
        for index, deliveries in by_lane.items():
            self.lanes[index].offer(deliveries, offer.group, now)

    def lane(self, batch: Batch) -> Lane:
        """Return the lane of a batch."""
        lanes = self.lanes
        return lanes[0] if len(lanes) == 1 else lanes[self._lane_index(batch.deliveries[0])]

    def hold(self, kind: Kind, code: str | None, message: str, *, scope: Hashable = DESTINATION) -> None:
        """Hold the destination, or one group of it."""
        clock = self.ports.clock
        self.holds.begin(kind, code, message, now=clock.now(), wall=clock.wall(), scope=scope)

    def apply(
        self,
        event: Event,
        group: Hashable,
        probe: Probe,
        *,
        scope: Hashable = DESTINATION,
        message: str | None = None,
        wish: float | None = None,
    ) -> None:
        """Apply an answer to the holds; where it ends one, what waited for that goes on at once."""
        now = self.ports.clock.now()
        self._ended(self.holds.apply(event, group, probe, now=now, scope=scope, message=message, wish=wish))

    def release(self) -> None:
        """End every hold, because a person says so."""
        self._ended(self.holds.release())
        self.storm.reset()

    def hold_intake(self, cause: Cause | None, message: str = "") -> None:
        """Show that records for this destination wait before they reach it (registry, storm of a topic)."""
        self.holds.set_intake(cause, message, self.ports.clock.wall())
        self.note()

    def reload(self) -> None:
        """Read the destination's secrets again, so that a rotated one ends a hold."""
        self.vendor = self._reload()

    def shown_holds(self) -> list[Condition]:
        """Return every hold as a person sees it, the worst first."""
        clock = self.ports.clock
        return self.holds.shown(now=clock.now(), wall=clock.wall())

    def condition(self) -> Condition:
        """Return the state as a person sees it."""
        condition = self._condition()
        since = condition.since
        if since is None and condition.state is self._shown.state:
            since = self._shown_since
        return replace(condition, since=since if since is not None else self.ports.clock.wall())

    def note(self) -> None:
        """Log and count a change of state, once for each."""
        condition = self._condition()
        shown = self._shown
        if (condition.state, condition.cause, condition.code) == (shown.state, shown.cause, shown.code):
            return
        self._shown, self._shown_since = self.condition(), self.ports.clock.wall()
        self.ports.metrics.set_state(self.name, condition.state)
        held = condition.state is DestinationState.HELD
        probed = {condition.state, shown.state} <= {DestinationState.HELD, DestinationState.PROBING}
        quiet = probed and condition.cause == shown.cause
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

    def _condition(self) -> Condition:
        """Return the state; `since` is set only where a hold knows it."""
        now, wall = self.ports.clock.now(), self.ports.clock.wall()
        holds = self.holds.shown(now=now, wall=wall)
        if holds:
            return holds[0]
        left = self.throttle.until - now
        if left > 0:
            return Condition(DestinationState.THROTTLED, message="the vendor asked us to wait", next_probe=wall + left)
        waits = self.waiting.message()
        return Condition(DestinationState.FLOWING if waits is None else DestinationState.RETRYING, message=waits)

    def _ended(self, holds: list[Hold]) -> None:
        if not holds:
            return
        self.evidence.answered()
        if any(hold.kind is Kind.STORM for hold in holds):
            self.storm.reset()
        now = self.ports.clock.now()
        for lane in self.lanes:
            lane.hurry(now)

    def _documented_limits(self, group: Hashable) -> Limits:
        # A vendor is built again when its secrets are read again, so its own method must not be kept.
        return self.vendor.limits(group)

    def _lane(self, *, concurrency: int, ordered: bool = False) -> Lane:
        return Lane(self.limits.of, self.settings.batch.linger, concurrency=concurrency, ordered=ordered)

    def _lane_index(self, delivery: Delivery) -> int:
        """Return the index of a delivery's lane where there is order."""
        return -1 if delivery.replayed else lane_of(delivery.record, self._ordered_lanes)
