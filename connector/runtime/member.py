"""One running member of the group, as its port shows it: health, readiness, status, and actions by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter

from connector import __version__
from connector.clock import Clock
from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.worker import Worker
from connector.pipeline.skips import Skipped, Skipper
from connector.records import Position
from connector.runtime.http import Check
from connector.runtime.pipeline import Pipeline
from connector.runtime.stuck import StuckJudge
from connector.runtime.watchdog import Watchdog
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics

log = structlog.get_logger()

SUMMARY_INTERVAL: Final = 30.0
JOIN_SECONDS: Final = 15.0
"""After so long in a group a member that was told nothing has no partitions: KIP-848 does not say so, others do."""


class Member:
    """What `run` shows of itself, from before it has reached a broker until it ends."""

    def __init__(self, group: str, clock: Clock, drain_timeout: float) -> None:
        self._group = group
        self._clock = clock
        self._drain_timeout = drain_timeout
        self._judge: StuckJudge | None = None
        self.watchdog = Watchdog(self.stuck)
        self._waiting: str | None = "starting"
        self._pipeline: Pipeline | None = None
        self._workers: Mapping[str, Worker] = {}
        self._dead_letters: DeadLetterWriter | None = None
        self._troubles: Callable[[], Mapping[str | None, str]] = dict

    def waiting(self, reason: str | None) -> None:
        """Note why the pipeline cannot start yet; None where nothing is in its way any more."""
        self._waiting = reason

    def running(
        self, pipeline: Pipeline, dead_letters: DeadLetterWriter, troubles: Callable[[], Mapping[str | None, str]]
    ) -> None:
        """Note that the pipeline runs; `troubles` tells what keeps its source from Kafka, by topic or under None."""
        self._troubles = troubles
        self._pipeline, self._dead_letters = pipeline, dead_letters
        self._workers = pipeline.workers
        self._judge = StuckJudge(pipeline, dead_letters, troubles, self._drain_timeout, self._clock.now())
        self._waiting = None

    def stuck(self) -> str | None:
        """Return why nothing moves, or None; to be asked from time to time, as the watchdog does."""
        return None if self._judge is None else self._judge.look(self._clock.now())

    def health(self) -> Check:
        """Whether the member is not stuck; that this is answered at all says that the loop turns."""
        reason = self.watchdog.reason
        return Check(ok=reason is None, reasons=[] if reason is None else [reason])

    def readiness(self) -> Check:
        """Whether the member consumes, or has validly nothing to consume."""
        pipeline = self._pipeline
        reasons = [reason for reason in (self._waiting, pipeline and pipeline.holds.registry) if reason]
        if self._dead_letters is not None and self._dead_letters.trouble:
            reasons.append(self._dead_letters.trouble)
        troubles = self._troubles()
        reasons.extend(f"{'broker' if topic is None else f'topic {topic}'}: {text}" for topic, text in troubles.items())
        ready = self._waiting is None and self._joined() and None not in troubles
        if not ready and not reasons:
            reasons.append("joining the group")
        for name, worker in self._workers.items():
            condition = worker.condition()
            if condition.cause is not None:
                reasons.append(f"destination {name} is {condition.state}: {condition.cause}")
        return Check(ok=ready, reasons=reasons)

    def _joined(self) -> bool:
        """Whether the group has given partitions to this member, or none."""
        runner = None if self._pipeline is None else self._pipeline.runner
        if runner is None or runner.polled_at is None:
            return False
        return runner.joining_since is None or runner.polled_at - runner.joining_since > JOIN_SECONDS

    def status(self) -> Mapping[str, Any]:
        """Return the content of `/status`."""
        partitions = [] if self._pipeline is None else self._pipeline.runner.status()
        return {
            "destinations": {name: self._destination(worker) for name, worker in self._workers.items()},
            "partitions": [
                {
                    "topic": one.topic,
                    "partition": one.partition,
                    "watermark": one.watermark,
                    "position": one.position,
                    "map_used": round(one.map_used, 4),
                }
                for one in partitions
            ],
            "buffer": self._buffer(),
            "waiting": self._waiting or self._troubles().get(None),
            "dead_letters": None if self._dead_letters is None else self._dead_letters.trouble,
            "log": {"level": logs.level(), "sample": logs.sample.every},
            "group": self._group,
            "version": __version__,
        }

    async def hold(self, name: str) -> None:
        """Hold a destination until it is released. Raises KeyError for an unknown name."""
        self._workers[name].hold("held by hand")

    async def release(self, name: str) -> None:
        """End a destination's holds, and every topic's storm. Raises KeyError for an unknown name."""
        self._workers[name].release()
        if self._pipeline is not None:
            self._pipeline.intake.release()

    async def skip(self, position: Position, destination: str | None) -> Skipped:
        """Make a record a dead letter. Raises KeyError for an unknown destination."""
        if destination is not None:
            _ = self._workers[destination]
        pipeline = self._pipeline
        if pipeline is None:
            return Skipped("refused", f"this member has no records yet: {self._waiting}")
        return await Skipper(pipeline.runner, pipeline.intake, self._workers, self._clock).skip(position, destination)

    def update_gauges(self) -> None:
        """Bring every gauge up to date before a scrape."""
        if self._pipeline is not None:
            self._pipeline.runner.update_gauges()

    async def summarize(self, metrics: Metrics) -> None:
        """Log one line an interval about what was done in it. Runs until cancelled."""
        counters = {
            "consumed": metrics.records_consumed,
            "delivered": metrics.records_delivered,
            "dead_lettered": metrics.records_dead_lettered,
            "skipped": metrics.records_skipped,
        }
        before = dict.fromkeys(counters, 0.0)
        while True:
            await asyncio.sleep(SUMMARY_INTERVAL)
            totals = {name: _total(counter) for name, counter in counters.items()}
            log.info(
                "summary",
                **{name: int(total - before[name]) for name, total in totals.items()},
                seconds=SUMMARY_INTERVAL,
                backlog=0 if self._pipeline is None else sum(self._pipeline.runner.backlog().values()),
                destinations={name: str(worker.condition().state) for name, worker in self._workers.items()},
            )
            before = totals

    def _destination(self, worker: Worker) -> dict[str, Any]:
        condition = worker.condition()
        at = worker.destination
        return {
            "state": condition.state,
            "cause": condition.cause,
            "code": condition.code,
            "message": condition.message,
            "since": _text(condition.since),
            "next_probe": _text(condition.next_probe),
            "in_flight": worker.in_flight,
            "buffered_bytes": at.buffer.bytes,
            "requests_per_second": at.bucket.rate,
            "holds": [
                {
                    "cause": hold.cause,
                    "code": hold.code,
                    "message": hold.message,
                    "since": _text(hold.since),
                    "next_probe": _text(hold.next_probe),
                    "set_aside": hold.set_aside,
                }
                for hold in at.shown_holds()
            ],
            "waiting": [
                {
                    "topic": record.position.topic,
                    "partition": record.position.partition,
                    "offset": record.position.offset,
                    "since": _text(record.since),
                    "attempts": record.attempts,
                    "reason": record.reason,
                }
                for record in at.waiting.records()
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


def _total(counter: Counter) -> float:
    samples = [sample for family in counter.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


def _text(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
