"""Background tasks whose failures are never silent.

asyncio keeps the exception of a task for the code that awaits it. If a task is only started, no code sees it: its
work stops and nothing shows why. So a task that is not awaited at once has a `Supervisor`, which ends the run, or is
`restarted`, where the run can do without it for a moment. A blocking call is made `in_thread`; it never outlives its
caller.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import structlog

from connector.clock import Clock
from connector.errors import ConnectorError, Refusal

T = TypeVar("T")

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0

log = structlog.get_logger()


class Supervisor(Generic[T]):
    """The background tasks of one owner, each with what it is `about`.

    A task that raises is logged, and `on_failure` is called, which wakes the owner. The owner calls `check` in its own
    loop: that raises the first of these exceptions there, and so ends the run. A cancelled task is not a failure.
    """

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        self._on_failure = on_failure
        self._error: BaseException | None = None
        self._about: dict[asyncio.Task[None], T] = {}

    def start(self, work: Coroutine[Any, Any, None], name: str, about: T) -> asyncio.Task[None]:
        """Run `work` in the background; `name` is what a log line calls it."""
        task = asyncio.create_task(work, name=name)
        self._about[task] = about
        task.add_done_callback(self._ended)
        return task

    @property
    def running(self) -> dict[asyncio.Task[None], T]:
        """The tasks that have not ended, with what each is about."""
        return self._about

    def check(self) -> None:
        """Raise the exception of the first task that failed, if any did."""
        if self._error is not None:
            raise self._error

    async def wait(self, concerns: Callable[[T], bool], timeout: float) -> bool:
        """Wait at most `timeout` seconds for the tasks with this `about`; return whether all of them ended."""
        tasks = [task for task, about in self._about.items() if concerns(about)]
        if not tasks:
            return True
        _, late = await asyncio.wait(tasks, timeout=max(0.0, timeout))
        return not late

    async def close(self) -> None:
        """Cancel all tasks and return once they have ended."""
        tasks = list(self._about)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._about[task]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("task.failed", task=task.get_name(), message=place_of(error))
            self._error = self._error or error
            self._on_failure()


async def restarted(work: Callable[[], Coroutine[Any, Any, None]], name: str, clock: Clock) -> None:
    """Run `work`, and again whenever it raises, after longer and longer pauses. Returns when `work` returns."""
    pause = FIRST_PAUSE
    while True:
        began = clock.now()
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the task has to go on
            # Work that ran well for a while restarts with the shortest pause.
            pause = FIRST_PAUSE if clock.now() - began > LONGEST_PAUSE else pause
            log.warning("task.restarted", task=name, message=place_of(error), seconds=pause)
            await clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            return


async def in_thread(work: Callable[[], T], on_cancel: Callable[[], None] = lambda: None) -> T:
    """Return what a blocking call returns, made in a thread. A cancelled caller waits for the end of the call.

    A thread cannot be cancelled: abandoned, it would go on after its caller has reported a failure. `on_cancel` may
    make the call end soon.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            # Fetched, because asyncio reports an exception that no one asks for.
            running.exception()
        raise


def place_of(error: BaseException) -> str:
    """Return an exception's type and where it was raised, without its message, which may contain a record's values."""
    frames = list(traceback.walk_tb(error.__traceback__))
    ours = [frame for frame in frames if str(frame[0].f_globals.get("__name__", "")).startswith("connector.")]
    if not frames:
        return type(error).__name__
    frame, line = (ours or frames)[-1]
    return f"{type(error).__name__} at line {line} of {frame.f_globals.get('__name__')}"


def trouble_of(error: Exception) -> str:
    """Return what to show of an exception: the message of one of ours or the system's, an unexpected one's place."""
    return str(error) if isinstance(error, ConnectorError | OSError) else f"unexpected {place_of(error)}"


@contextmanager
def refusing(step: str) -> Iterator[None]:
    """Raise an unexpected exception as the refusal `internal`, as a run does; for tools that look at one record."""
    try:
        yield
    except ConnectorError:
        raise
    except Exception as error:  # noqa: BLE001 - no content of a record may break a tool
        raise internal_refusal(error, step) from None


def internal_refusal(error: Exception, step: str) -> Refusal:
    """Return the refusal for a record that revealed a bug: it blocks nothing, and can be replayed later."""
    message = f"unexpected {place_of(error)} while the record was {step}: a fault of the connector, please report it"
    return Refusal("internal", f"internal.{type(error).__name__}", message)
