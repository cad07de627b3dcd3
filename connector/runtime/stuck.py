"""Whether a member's pipeline is stuck: the consumer not polled, or work that does not move without a reason to wait.

A hold, a throttle, a broker or a registry that does not answer are reasons: starting the process again mends none of
them. What is left is a fault of the connector itself, or of a vendor's module.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.states import DestinationState
from connector.delivery.worker import Worker
from connector.runtime.pipeline import Pipeline

POLL_MARGIN: Final = 30.0
"""Seconds beyond `limits.drain_timeout` after which a consumer that was not polled counts as stuck."""
STILL_SECONDS: Final = 60.0
"""Seconds beyond every wait that the settings allow after which work that does not move counts as stuck."""
KAFKA_SECONDS: Final = 330.0
"""Seconds that a dead letter or a result may wait for Kafka before that counts as its trouble: librdkafka's 5 min."""
_WAITING: Final = frozenset({DestinationState.HELD, DestinationState.PROBING, DestinationState.THROTTLED})


class Stillness:
    """For how long each of several things has not changed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def seconds(self, name: str, state: Hashable, now: float) -> float:
        """Return how long `name` has had this state by what was seen; 0 for None, which says that nothing is due."""
        seen = self._seen.get(name)
        if state is None or seen is None or seen[0] != state:
            self._seen[name] = (state, now)
            return 0.0
        return now - seen[1]


class StuckJudge:
    """Judges one pipeline from time to time. `troubles` tells what keeps its source from Kafka, under None."""

    def __init__(
        self,
        pipeline: Pipeline,
        dead_letters: DeadLetterWriter,
        troubles: Callable[[], Mapping[str | None, str]],
        drain_timeout: float,
        now: float,
    ) -> None:
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._troubles = troubles
        self._stuck_after = drain_timeout + POLL_MARGIN
        self._began = now
        self._still = Stillness()

    def look(self, now: float) -> str | None:
        """Return why the pipeline is stuck at this moment, or None. Quick: it only reads."""
        if None in self._troubles():
            return None
        polled = self._pipeline.runner.polled_at
        silent = now - (self._began if polled is None else polled)
        if silent > self._stuck_after:
            return f"the consumer was not polled for {silent:.0f} s"
        if self._dead_letters.trouble is not None:
            return None
        for name, worker in self._pipeline.workers.items():
            still = self._still.seconds(name, _work(worker, now), now)
            if still > _patience(worker):
                return f"destination {name} has work, nothing to wait for, and did nothing for {still:.0f} s"
        still = self._still.seconds("", self._intake_work(), now)
        if still > STILL_SECONDS + KAFKA_SECONDS:
            return f"records wait to be prepared, for nothing that is known, and did not move for {still:.0f} s"
        return None

    def _intake_work(self) -> Hashable:
        """Return what stands between consuming and the destinations; None where nothing does, or it has to wait."""
        pipeline = self._pipeline
        held = sum(worker.destination.buffer.bytes for worker in pipeline.workers.values())
        left = pipeline.budget.used - held
        waits = pipeline.holds.registry is not None or pipeline.holds.stormy
        return None if left <= 0 or waits else left


def _work(worker: Worker, now: float) -> Hashable:
    """Return what a destination has done and has left; None where nothing is left, or it waits for a reason."""
    at = worker.destination
    if not at.buffer.bytes or worker.condition().state in _WAITING or at.bucket.delay(now) > 0:
        return None
    return worker.answered, at.buffer.bytes


def _patience(worker: Worker) -> float:
    settings = worker.destination.settings
    allowed = settings.timeout + settings.retry.max + settings.batch.linger + STILL_SECONDS
    return allowed + KAFKA_SECONDS if worker.settling else allowed
