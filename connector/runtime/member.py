"""One running member of the group, as its port shows it: health, readiness, status and the operator's actions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import structlog

from connector import __version__
from connector.clock import Clock
from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.lane import skip_command
from connector.delivery.worker import Worker
from connector.errors import ConnectorError
from connector.pipeline.skips import Skipper, SkipResult
from connector.records import Position
from connector.runtime.pipeline import Pipeline
from connector.runtime.reload import ConfigFailure, Reloaded
from connector.runtime.watchdog import StuckJudge, Watchdog
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics
from connector.telemetry.timeline import Timeline

log = structlog.get_logger()

SUMMARY_INTERVAL: Final = 30.0
ASK_SECONDS: Final = 5.0
"""How often the group is asked whether it has this member, while the member has no partitions."""
REBALANCE_SECONDS: Final = 10.0
"""How long a member that had partitions may have none before it is no longer ready: rebalances take seconds."""
SESSION_MARGIN: Final = 5.0
"""Seconds beyond the session time-out within which a group may still count a member that is gone."""
SILENT_SECONDS: Final = 15.0
"""How long a member may have no partitions before that is logged, with the reason."""


JOINING: Final = "joining the group"
IDLE: Final = "no partitions: other members of the group have all of them"


class Check(NamedTuple):
    """The result of a check, with reasons. A passing check may have reasons too: they are shown and do not fail it."""

    ok: bool
    reasons: Sequence[str] = ()


class Member:
    """The state of a running member, from before it has reached a broker until it ends.

    Everything except the actions is quick, so that the port can answer while the loop is busy.
    """

    def __init__(
        self,
        group: str,
        clock: Clock,
        drain_timeout: float,
        *,
        session_timeout: float = 45.0,
        writes_events: bool = False,
    ) -> None:
        self._group = group
        self._session_timeout = session_timeout
        self._clock = clock
        self._drain_timeout = drain_timeout
        self._judge: StuckJudge | None = None
        self.watchdog = Watchdog(self.stuck)
        self.timeline = Timeline(written=writes_events)
        """What happened lately."""
        self._waiting: str | None = "starting"
        self._pipeline: Pipeline | None = None
        self._workers: Mapping[str, Worker] = {}
        self._dead_letters: DeadLetterWriter | None = None
        self._troubles: Callable[[], Mapping[str | None, str]] = dict
        self._is_refused: Callable[[], bool] = lambda: False
        self._assigned_at: float | None = None
        self.unready_since: float | None = clock.wall()
        """Since when (epoch seconds) the member is not ready; None while it is."""
        self.reload: Callable[[str], Awaitable[Reloaded]] = _no_reload
        """Reads the configuration again; its argument says what asked for it."""
        self.config_fault: Callable[[], ConfigFailure | None] = lambda: None
        """Returns why the configuration could not be read again, None if it could."""
        self._unassigned: str | None = JOINING
        """Why the group has given this member no partitions; None: it is a member, and there are none left for it."""

    def waiting(self, reason: str | None) -> None:
        """Set the reason why the pipeline cannot start yet; None if there is none any more."""
        self._waiting = reason

    def running(
        self,
        pipeline: Pipeline,
        dead_letters: DeadLetterWriter,
        troubles: Callable[[], Mapping[str | None, str]],
        is_refused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Note that the pipeline is running. `troubles` gives its source's lasting errors, by topic or under None.

        `is_refused` returns whether one of them is a refusal, which a person has to fix.
        """
        self._troubles, self._is_refused = troubles, is_refused
        self._pipeline, self._dead_letters = pipeline, dead_letters
        self._workers = pipeline.workers
        self._judge = StuckJudge(pipeline, dead_letters, troubles, self._drain_timeout, self._clock.now())
        self._waiting = None

    def stuck(self) -> str | None:
        """Return why the member is stuck, or None; the watchdog asks once a second."""
        self.readiness()  # notes since when it is not ready, also while its port is not asked
        return None if self._judge is None else self._judge.look(self._clock.now())

    def health(self) -> Check:
        """Whether the process works; a failing check asks for a restart. An answer at all proves that the loop runs."""
        reason = self.watchdog.reason
        return Check(ok=reason is None, reasons=[] if reason is None else [reason])

    def readiness(self) -> Check:
        """Whether the member consumes, or has a valid reason not to; holds are reported and do not fail it."""
        pipeline = self._pipeline
        # Include reasons that do not fail the check: a person who reads `/readyz` wants to know why nothing is
        # delivered.
        reasons = [reason for reason in (self._waiting, pipeline and pipeline.holds.registry) if reason]
        if self._dead_letters is not None and self._dead_letters.trouble:
            reasons.append(self._dead_letters.trouble)
        troubles = self._troubles()
        reasons.extend(f"{'broker' if topic is None else f'topic {topic}'}: {text}" for topic, text in troubles.items())
        is_joined = self._has_partitions() or self._unassigned is None
        if not self._has_partitions() and self._waiting is None:
            reasons.append(self._unassigned or IDLE)
        for name, worker in self._workers.items():
            condition = worker.condition()
            if condition.cause is not None:
                reasons.append(f"destination {name} is {condition.state}: {condition.cause}")
        # A hold does not fail the check. Kubernetes takes a member that is not ready out of its Service, so a vendor's
        # outage would hide every member from the console.
        is_ready = self._waiting is None and None not in troubles and is_joined
        self.unready_since = None if is_ready else self.unready_since or self._clock.wall()
        return Check(ok=is_ready, reasons=reasons)

    def _has_partitions(self) -> bool:
        """Whether the member has partitions, or had some a moment ago: a rebalance moves them."""
        if self._pipeline is not None and self._pipeline.runner.assigned:
            # Noted only here, because nothing else needs to know when it last had partitions.
            self._assigned_at = self._clock.now()
        return self._assigned_at is not None and self._clock.now() - self._assigned_at < REBALANCE_SECONDS

    async def watch_membership(self, why_unassigned: Callable[[], Awaitable[str | None]]) -> None:
        """Find out, while this member has no partitions, whether the group has any left. Runs until cancelled.

        If other members have all of them, having none is fine. Otherwise this member has not joined: it may not read
        the group, or cannot reach the broker that leads it. KIP-848 reports neither, and the classic protocol silently
        keeps trying. So this asks the group's coordinator.
        """
        since, is_logged = self._clock.now(), False
        while True:
            if self._pipeline is not None and self._pipeline.runner.assigned:
                self._unassigned, since, is_logged = JOINING, self._clock.now(), False
            else:
                self._unassigned = await self._ask(why_unassigned)
                if not is_logged and self._clock.now() - since >= SILENT_SECONDS:
                    log.warning("member.without_partitions", reason=self._unassigned or IDLE)
                    is_logged = True
            await self._clock.sleep(ASK_SECONDS)

    async def _ask(self, why_unassigned: Callable[[], Awaitable[str | None]]) -> str | None:
        """Return why the member has no partitions; None if there are none left for it."""
        try:
            reason = await why_unassigned()
        except ConnectorError as error:
            return str(error)
        if reason is None and self._pipeline is not None:
            # This member's previous session may still count as a member, so it may be waiting for itself. Not if its
            # partitions were revoked: then others have them.
            lost_since = self._clock.now() - self._pipeline.runner.lost_at
            return JOINING if lost_since < self._session_timeout + SESSION_MARGIN else None
        return reason

    def status(self) -> Mapping[str, Any]:
        """Return plain data for /status; `destinations` is keyed by name. Unset values are None."""
        partitions = [] if self._pipeline is None else self._pipeline.runner.status()
        fault = self.config_fault()
        return {
            "destinations": {name: self._destination(worker) for name, worker in self._workers.items()},
            "partitions": [
                {
                    "topic": partition.topic,
                    "partition": partition.partition,
                    "watermark": partition.watermark,
                    "position": partition.position,
                    "map_used": round(partition.map_used, 4),
                }
                for partition in partitions
            ],
            "buffer": self._buffer(),
            "waiting": self._waiting or self._troubles().get(None),
            "unready_since": _iso_time(self.unready_since),
            "config_fault": None if fault is None else {"message": fault.message, "since": _iso_time(fault.since)},
            "dead_letters": None if self._dead_letters is None else self._dead_letters.trouble,
            "log": {"level": logs.level(), "sample": logs.sample.every},
            "group": self._group,
            "version": __version__,
        }

    async def hold(self, name: str) -> None:
        """Hold a destination until it is released. Raises `KeyError` for an unknown name."""
        self._workers[name].hold("held by an operator")

    async def release(self, name: str) -> int:
        """End a destination's holds and storms, and its topics' storms. Raises KeyError for an unknown name.

        Returns how many records a storm had set aside. They are processed again, and become dead letters if they are
        refused again.
        """
        released = self._workers[name].release()
        if self._pipeline is not None:
            # Those of every topic: a record that cannot be decoded or routed has no destination.
            released += sum(storms.release() for storms in self._pipeline.holds.topics.values())
        return released

    async def probe(self, name: str) -> None:
        """Probe a destination's holds as soon as a record can be sent. Raises `KeyError` for an unknown name."""
        self._workers[name].probe_now()
        if self._pipeline is not None:
            for storms in self._pipeline.holds.topics.values():
                storms.probe_now()

    async def skip(self, position: Position, destination: str | None) -> SkipResult:
        """Make a record a dead letter, for one destination or for all. Raises `KeyError` for an unknown destination."""
        if destination is not None:
            # Raises `KeyError` for an unknown name before anything is skipped.
            _ = self._workers[destination]
        pipeline = self._pipeline
        if pipeline is None:
            return SkipResult("refused", f"this member does not consume yet: {self._waiting}")
        return await Skipper(pipeline.runner, pipeline.intake, self._workers, self._clock).skip(position, destination)

    def update_gauges(self, metrics: Metrics) -> None:
        """Update every gauge before a scrape."""
        metrics.member_ready.set(self.readiness().ok)
        metrics.kafka_refused.set(self._is_refused())
        if self._pipeline is not None:
            metrics.assigned_partitions.set(len(self._pipeline.runner.assigned))
            self._pipeline.runner.update_gauges()

    async def summarize(self, metrics: Metrics, replay_topic: str) -> None:
        """Log one summary line per interval, and how many replayed records were read. Runs until cancelled."""
        replayed = 0.0
        counters = {
            "consumed": metrics.records_consumed,
            "delivered": metrics.records_delivered,
            "dead_lettered": metrics.records_dead_lettered,
            "skipped": metrics.records_skipped,
        }
        before = dict.fromkeys(counters, 0.0)
        while True:
            await asyncio.sleep(SUMMARY_INTERVAL)
            totals = {name: metrics.total(counter) for name, counter in counters.items()}
            log.info(
                "summary",
                **{name: int(total - before[name]) for name, total in totals.items()},
                seconds=SUMMARY_INTERVAL,
                backlog=0 if self._pipeline is None else sum(self._pipeline.runner.backlog().values()),
                destinations={name: str(worker.condition().state) for name, worker in self._workers.items()},
            )
            before = totals
            read = metrics.consumed_from(replay_topic)
            if read > replayed:
                log.info("replay.read", records=int(read - replayed), seconds=SUMMARY_INTERVAL)
            replayed = read

    @staticmethod
    def _destination(worker: Worker) -> dict[str, Any]:
        condition, destination = worker.condition(), worker.destination
        return {
            "state": condition.state,
            "cause": condition.cause,
            "code": condition.code,
            "message": condition.message,
            "since": _iso_time(condition.since),
            "next_probe": _iso_time(condition.next_probe),
            "in_flight": worker.in_flight,
            "buffered_bytes": destination.buffer.bytes,
            "requests_per_second": destination.bucket.rate,
            "holds": [
                {
                    "cause": hold.cause,
                    "code": hold.code,
                    "message": hold.message,
                    "since": _iso_time(hold.since),
                    "next_probe": _iso_time(hold.next_probe),
                    "set_aside": hold.set_aside,
                }
                for hold in destination.shown_holds()
            ],
            "waiting": [
                {
                    "topic": record.position.topic,
                    "partition": record.position.partition,
                    "offset": record.position.offset,
                    "since": _iso_time(record.since),
                    "attempts": record.attempts,
                    "reason": record.reason,
                    "command": skip_command(record.position, destination.name),
                }
                for record in destination.waiting.records()
            ],
        }

    def _buffer(self) -> dict[str, Any] | None:
        if self._pipeline is None:
            return None
        budget = self._pipeline.budget
        fullest = max(self._workers.items(), key=lambda entry: entry[1].destination.buffer.bytes, default=None)
        return {
            "used": budget.used,
            "limit": budget.limit,
            "filled_by": fullest[0] if fullest is not None and budget.full else None,
        }


async def _no_reload(_by: str) -> Reloaded:
    return Reloaded(error="this member cannot read its configuration again")


def _iso_time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
