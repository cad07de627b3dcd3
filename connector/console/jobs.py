"""What people have the console do with letters: re-check, replay, discard, export; each can be watched and stopped."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

from connector.clock import Clock
from connector.console.index import Query
from connector.dead_letters.replay import Kept, Order, ReplayService, Step
from connector.errors import ConnectorError

Action = Literal["recheck", "replay", "discard", "export"]
State = Literal["running", "done", "failed", "stopped"]

EXAMPLES: Final = 5
"""Letters that are named for each reason for which some were kept back."""
_REMEMBERED: Final = 50
_log = structlog.get_logger()


@dataclass(slots=True)
class Reason:
    """Why letters were kept back, how many, and the ids of some."""

    code: str
    reason: str
    dead_letters: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Job:
    """One action on some letters, and how far it is. Times are epoch seconds; `expected` is how many there were."""

    number: int
    action: Action
    who: str
    query: Query
    order: Order
    expected: int
    started: float
    state: State = "running"
    ended: float | None = None
    done: int = 0
    kept: dict[str, Reason] = field(default_factory=dict)
    read: int = 0
    total: int = 0
    trouble: str | None = None

    @property
    def kept_back(self) -> int:
        """How many letters were kept back."""
        return sum(reason.dead_letters for reason in self.kept.values())

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None where nobody can say yet."""
        if self.state != "running":
            return 1.0
        return self.read / self.total if self.total else None

    def take(self, step: Step) -> None:
        """Count what a step says."""
        self.read, self.total = step.read, step.total
        for outcome in step.outcomes:
            if outcome.kept is None:
                self.done += 1
            else:
                self._keep(outcome.kept, outcome.dead_letter.facts.id)

    def _keep(self, kept: Kept, identity: str) -> None:
        reason = self.kept.setdefault(kept.code, Reason(kept.code, kept.reason))
        reason.dead_letters += 1
        if len(reason.examples) < EXAMPLES:
            reason.examples.append(identity)


class Busy(ConnectorError):
    """A replay or discard is under way already."""


class Jobs:
    """Every job of this process; the newest fifty are remembered."""

    def __init__(self, desk: ReplayService, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._numbers = itertools.count(1)
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._written: set[int] = set()

    def all(self) -> list[Job]:
        """Return the jobs, the newest first."""
        return list(reversed(self._jobs.values()))

    def get(self, number: int) -> Job | None:
        """Return a job."""
        return self._jobs.get(number)

    def begin(self, action: Action, who: str, query: Query, order: Order, expected: int) -> Job:
        """Make a job, which `run` starts. Raises `Busy` where it would take over from another one that writes."""
        writes = ("replay", "discard")
        other = next((job for job in self._jobs.values() if job.state == "running" and job.action in writes), None)
        if action in writes and other is not None:
            raise Busy(f"{other.action} {other.number} is under way; wait until it is done, or stop it")
        job = Job(next(self._numbers), action, who, query, order, expected, self._clock.wall())
        self._jobs[job.number] = job
        for number, old in list(self._jobs.items()):
            # An export that nobody has fetched is under way for ever, and not worth remembering.
            waits = old.action == "export" and number not in self._written
            if len(self._jobs) > _REMEMBERED and (old.state != "running" or waits):
                del self._jobs[number]
                self._written.discard(number)
        return job

    def run(self, job: Job) -> None:
        """Start a job."""
        steps: dict[Action, Callable[[Order], AsyncIterator[Step]]] = {
            "recheck": self._desk.plan,
            "replay": self._desk.replay,
            "discard": self._desk.discard,
        }
        task = asyncio.create_task(self._carry_out(job, steps[job.action](job.order)), name=f"job-{job.number}")
        self._tasks[job.number] = task
        task.add_done_callback(lambda _task: self._tasks.pop(job.number, None))

    def take_up(self, job: Job) -> bool:
        """Return whether an export may be written now: once."""
        if job.number in self._written:
            return False
        self._written.add(job.number)
        return True

    def end(self, job: Job, state: State, trouble: str | None = None) -> None:
        """Note that a job is over."""
        job.state, job.trouble, job.ended = state, trouble, self._clock.wall()
        _log.info(
            "console.action_ended",
            action=job.action,
            who=job.who,
            job=job.number,
            state=state,
            done=job.done,
            kept_back={reason.code: reason.dead_letters for reason in job.kept.values()},
            message=trouble,
        )

    def stop(self, job: Job) -> None:
        """End a job early: what is committed stays so."""
        task = self._tasks.get(job.number)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop everything."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, job: Job, steps: AsyncIterator[Step]) -> None:
        try:
            async with aclosing(steps) as each:  # type: ignore[type-var]  # a desk's iterators are generators
                async for step in each:
                    job.take(step)
        except asyncio.CancelledError:
            self.end(job, "stopped", "stopped by hand; what was committed before stays so")
        except ConnectorError as error:
            self.end(job, "failed", str(error))
        else:
            self.end(job, "done")
