"""Actions on dead letters: re-check, replay, discard, export. Each can be watched and stopped."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import structlog

from connector.clock import Clock
from connector.console.dead_letter_list import ACTIONS
from connector.console.formatting import duration
from connector.console.index import Query
from connector.console.masking import Mask
from connector.console.queries import LIST, address
from connector.dead_letters.export import Format
from connector.dead_letters.replay import Kept, Order, ReplayService, Step
from connector.errors import ConnectorError, counted
from connector.tasks import place_of

Action = Literal["recheck", "replay", "discard", "export"]
State = Literal["running", "done", "failed", "stopped"]

EXAMPLES: Final = 5
"""How many dead letters are named for each reason to keep some back."""
_REMEMBERED: Final = 50
_COLOUR: Final = {"running": "warn", "done": "good", "failed": "bad", "stopped": "calm"}
_DONE: Final = {"recheck": "would be accepted", "replay": "replayed", "discard": "discarded", "export": "exported"}
_log = structlog.get_logger()


@dataclass(slots=True)
class Reason:
    """Why dead letters were kept back, how many, and the ids of some."""

    code: str
    reason: str
    dead_letters: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Job:
    """One action on some dead letters and its progress. Times are epoch seconds; `expected` is how many matched.

    `form` is the format of an export.
    """

    number: int
    action: Action
    who: str
    query: Query
    order: Order
    expected: int
    started: float
    form: Format = "jsonl"
    state: State = "running"
    ended: float | None = None
    done: int = 0
    kept: dict[str, Reason] = field(default_factory=dict)
    read: int = 0
    total: int = 0
    trouble: str | None = None

    @property
    def name(self) -> str:
        """Its name for people: `Replay 3`."""
        return f"{ACTIONS[self.action]} {self.number}"

    @property
    def colour(self) -> str:
        """The class of its state's colour."""
        return _COLOUR[self.state]

    @property
    def kept_back(self) -> int:
        """How many dead letters were kept back."""
        return sum(reason.dead_letters for reason in self.kept.values())

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None while it is unknown."""
        if self.state != "running":
            return 1.0
        return self.read / self.total if self.total else None

    def take(self, step: Step) -> None:
        """Count the outcomes of a step."""
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
    """A replay or discard is already running."""


class Jobs:
    """The jobs of this process; the newest fifty are kept."""

    def __init__(self, replays: ReplayService, clock: Clock) -> None:
        self._replays = replays
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

    def begin(self, action: Action, who: str, query: Query, order: Order, expected: int, form: Format = "jsonl") -> Job:
        """Create a job, which `run` starts. Raises `Busy` if another job that writes is running.

        Otherwise Kafka would let the new one take over, and the running one would fail half-way.
        """
        writes = ("replay", "discard")
        other = next((job for job in self._jobs.values() if job.state == "running" and job.action in writes), None)
        if action in writes and other is not None:
            raise Busy(f"{other.action} {other.number} is running; wait until it is done, or stop it")
        job = Job(next(self._numbers), action, who, query, order, expected, self._clock.wall(), form)
        self._jobs[job.number] = job
        for number, old in list(self._jobs.items()):
            # An export that is never downloaded would run for ever, so it may be dropped.
            waits = old.action == "export" and number not in self._written
            # Never drop a running job: its page is the only place where it can be stopped.
            if len(self._jobs) > _REMEMBERED and (old.state != "running" or waits):
                del self._jobs[number]
                self._written.discard(number)
        return job

    def run(self, job: Job) -> None:
        """Start a job."""
        steps: dict[Action, Callable[[Order], AsyncIterator[Step]]] = {
            "recheck": self._replays.plan,
            "replay": self._replays.replay,
            "discard": self._replays.discard,
        }
        task = asyncio.create_task(self._carry_out(job, steps[job.action](job.order)), name=f"job-{job.number}")
        self._tasks[job.number] = task
        task.add_done_callback(lambda _task: self._tasks.pop(job.number, None))

    def take_up(self, job: Job) -> bool:
        """Return whether an export may be written now; that is true only once."""
        if job.number in self._written:
            return False
        self._written.add(job.number)
        return True

    def end(self, job: Job, state: State, trouble: str | None = None) -> None:
        """Record that a job has ended."""
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
        """End a job early. What is committed stays committed."""
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
            async with aclosing(steps) as each:  # type: ignore[type-var]  # a replay service's iterators are generators
                async for step in each:
                    job.take(step)
        except asyncio.CancelledError:
            self.end(job, "stopped", "stopped by hand; what was committed before stays committed")
        except ConnectorError as error:
            self.end(job, "failed", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the page must not show a job that runs for ever
            self.end(job, "failed", f"unexpected {place_of(error)}: a fault of the connector, please report it")
        else:
            self.end(job, "done")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job for its page: progress, result, and how many dead letters were kept back and why."""

    job: Job
    share: str | None
    result: str
    took: str
    download: bool
    kept_title: str
    kept: list[Reason]
    back: str


def job_view(job: Job, now: float, mask: Mask) -> JobView:
    """Return the view of one job."""
    kept = f", {job.kept_back:,} kept back" if job.kept_back else ""
    return JobView(
        job=job,
        share=None if job.share is None else f"{job.share:.3f}",
        result=f"{job.done:,} of {counted(job.expected, 'dead letter')} {_DONE[job.action]}{kept}.",
        took=duration((job.ended or now) - job.started),
        download=job.action == "export" and job.state == "running" and not job.done,
        kept_title="Would fail again" if job.action == "recheck" else "Kept back",
        kept=[
            replace(reason, reason=mask.kept_reason(reason.code, reason.reason))
            for reason in sorted(job.kept.values(), key=lambda reason: -reason.dead_letters)
        ],
        back=address(LIST, job.query),
    )
