"""Detects a stuck member, from a thread of its own, and logs once where every thread and task is.

It looks for two faults: an event loop that does not run, and a pipeline whose work does not move although it has no
reason to wait. Reasons to wait are a hold, a throttle, a broker or registry that does not answer, or answers that Kafka
does not take: a restart fixes none of them. What remains is a fault of the connector itself or of a vendor's module.

A blocked loop cannot answer, so `/healthz` fails by not answering, and the log line has the reason. The thread wakes
once a second and asks the loop to run one callback, which costs almost nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog

from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.states import DestinationState
from connector.delivery.worker import Worker
from connector.runtime.pipeline import Pipeline

log = structlog.get_logger()

INTERVAL: Final = 1.0
LOOP_LIMIT: Final = 10.0
"""Seconds after which a loop that does not run counts as stuck; a slice of records takes milliseconds."""
POLL_MARGIN: Final = 30.0
"""Seconds beyond `limits.drain_timeout` after which a consumer that was not polled counts as stuck."""
STILL_SECONDS: Final = 60.0
"""Work that does not move counts as stuck this many seconds after every wait that the settings allow."""
KAFKA_SECONDS: Final = 330.0
"""Seconds that a dead letter or a result may wait for Kafka: librdkafka gives up after 5 min, plus a margin."""
# States in which work need not move: a person or the vendor decides how long they last.
_WAITING: Final = frozenset({DestinationState.HELD, DestinationState.PROBING, DestinationState.THROTTLED})
_MOST_LINES: Final = 60
_MOST_FRAMES: Final = 25


class Watchdog:
    """Calls `judge` in the loop once an interval; it returns why the member is stuck, or None.

    A reason counts only if it is given twice in a row: after a laptop's sleep or a SIGSTOP all clocks have jumped, and
    at the first check the suspended process would look stuck.
    """

    def __init__(
        self, judge: Callable[[], str | None], *, interval: float = INTERVAL, loop_limit: float = LOOP_LIMIT
    ) -> None:
        self._judge = judge
        self._interval = interval
        self._limit = max(2, round(loop_limit / interval))
        self._ended = threading.Event()
        self._answered = True
        self._judged: str | None = None
        self._previous: str | None = None
        self._since = 0
        self.reason: str | None = None
        """Why the member is stuck now, or None."""

    def start(self) -> None:
        """Start the thread that watches the running loop."""
        self._loop = asyncio.get_running_loop()
        # A task in the loop could not report that the loop does not run.
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _watch(self) -> None:
        silent = 0
        while not self._ended.wait(self._interval):
            self._since += 1
            silent = 0 if self._answered else silent + 1
            if self._answered:
                confirmed = self._judged if self._previous is not None else None
                self._report(confirmed)
                self._previous, self._answered = self._judged, False
                try:
                    self._loop.call_soon_threadsafe(self._turn)
                except RuntimeError:
                    # The loop is closed, so nothing is left to watch.
                    return
            elif silent >= self._limit:
                self._report(f"the event loop did not run for {silent * self._interval:.0f} s")

    def _turn(self) -> None:
        """Judge the member. Runs in the loop, so that a result proves that the loop runs."""
        self._judged = self._judge()
        self._answered = True

    def _report(self, reason: str | None) -> None:
        """Log the start and the end of each episode once."""
        was, self.reason = self.reason, reason
        if reason is not None and was is None:
            self._since = 0
            log.error(
                "member.stuck",
                reason=reason,
                threads=list(threads()),
                tasks=list(tasks(self._loop)),
                message="the member is stuck; /healthz fails until it moves again",
            )
        elif reason is None and was is not None:
            log.info("member.moving", reason=was, seconds=round(self._since * self._interval, 1))


def threads() -> Iterator[str]:
    """Yield each thread of the process by name with its stack, innermost frame first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 -- documented API in spite of its name
        yield f"{names.get(ident, ident)}: {_places(_outwards(frame))}"


def tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """Yield each place where tasks wait: the first task's name, how many more wait there, the stack from inside out."""
    found: dict[str, list[str]] = {}
    for task in asyncio.all_tasks(loop):
        found.setdefault(_places(_awaited(task.get_coro())), []).append(task.get_name())
    counts = Counter({place: len(names) for place, names in found.items()})
    for place, count in counts.most_common(_MOST_LINES):
        others = f" and {count - 1} more" if count > 1 else ""
        yield f"{min(found[place])}{others}: {place}"


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of everything it awaits, innermost first."""
    frames: list[FrameType] = []
    while coroutine is not None and len(frames) < _MOST_FRAMES:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return reversed(frames)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _places(frames: Iterator[FrameType]) -> str:
    """Return frames as `file.py:line function`, without values, which may be personal."""
    places = []
    for _, frame in zip(range(_MOST_FRAMES), frames, strict=False):
        path = Path(frame.f_code.co_filename)
        places.append(f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}")
    return " < ".join(places) or "ended"


class Stillness:
    """Measures for how long each of several things has not changed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def seconds(self, name: str, state: Hashable, now: float) -> float:
        """Return how many seconds `name` has had this state; 0 for None, which means no work."""
        seen = self._seen.get(name)
        if state is None or seen is None or seen[0] != state:
            self._seen[name] = (state, now)
            return 0.0
        return now - seen[1]


class StuckJudge:
    """Judges whether one pipeline is stuck. `troubles` gives what keeps its source from Kafka, under the key None."""

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
        """Return why the pipeline is stuck now, or None. It only reads, and is quick."""
        # Kafka is unreachable. A restart would not help, and would stop the destinations' remaining work.
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
                return f"destination {name} has work and no reason to wait, but sent nothing for {still:.0f} s"
        # Bytes, because the budget counts bytes. They change with every record that moves on.
        still = self._still.seconds("", self._intake_work(), now)
        if still > STILL_SECONDS + KAFKA_SECONDS:
            return f"records have waited {still:.0f} s to be prepared, without a known reason"
        return None

    def _intake_work(self) -> Hashable:
        """Return the bytes between the consumer and the destinations; None if there are none, or they have to wait."""
        pipeline = self._pipeline
        buffered = sum(worker.destination.buffer.bytes for worker in pipeline.workers.values())
        # Bytes that are charged but not at a destination: parked records, and dead letters that are being written.
        left = pipeline.budget.used - buffered
        waits = pipeline.holds.registry is not None
        return None if left <= 0 or waits else left


def _work(worker: Worker, now: float) -> Hashable:
    """Return a destination's progress and remaining work; None if it has no work, or a reason to wait."""
    destination = worker.destination
    if not destination.buffer.bytes or worker.condition().state in _WAITING or destination.bucket.delay(now) > 0:
        return None
    if destination.answers_trouble is not None:
        return None
    # Each of them alone may stay unchanged without a fault: a slow vendor frees no bytes, and a refused batch is put
    # back.
    return worker.answered, destination.buffer.bytes


def _patience(worker: Worker) -> float:
    """Return how many seconds a destination may make no visible progress, by its settings."""
    settings = worker.destination.settings
    allowed = settings.timeout + settings.retry.max + settings.batch.linger + STILL_SECONDS
    # A batch that waits for Kafka to accept its dead letters has no request, and the destination is not at fault.
    return allowed + KAFKA_SECONDS if worker.settling else allowed
