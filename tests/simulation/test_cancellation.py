"""A run that is cancelled at any of its awaits loses nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

import connector
from tests.simulation.facts import Report
from tests.simulation.scenario import Scenario, Weather, draw
from tests.simulation.world import World, run

CORE: Final = str(Path(connector.__file__).parent)
EACH: Final = 30
"""The first so many awaits are all cancelled; behind them one in `STRIDE`."""
STRIDE: Final = 31
SECOND: Final = (1, 5, 30)
"""How many awaits after the first cancellation the second one comes."""


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells before each of its steps: what lies between two of them is an await."""

    def __init__(self, inner: Coroutine[Any, Any, Any], before: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self.__qualname__ = self.__name__ = getattr(inner, "__qualname__", "coroutine")
        self._inner = inner
        self._before = before

    def send(self, value: Any) -> Any:
        """Go on."""
        self._before(self._inner)
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        self._before(self._inner)
        return self._inner.throw(*error)

    def close(self) -> None:
        """End."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Wait for it elsewhere."""
        return self._inner.__await__()


class Cutter:
    """Counts the awaits of a world, and at the `nth` cancels its first member: by a stop, or what runs just then.

    `second` awaits later it cancels once more, which lets the drain go.
    """

    def __init__(self, nth: int | None = None, *, second: int | None = None, own: bool = False) -> None:
        self.awaits = 0
        self._nth = nth
        self._second = None if nth is None or second is None else nth + second
        self._own = own
        self.world: World | None = None

    def install(self, world: World) -> None:
        """Count from now on."""
        self.world = world
        asyncio.get_running_loop().set_task_factory(self._task)

    def _task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Counted(coroutine, self._step), loop=loop, **keywords)

    def _step(self, coroutine: Any) -> None:
        if not coroutine.cr_code.co_filename.startswith(CORE) or "testing" in coroutine.cr_code.co_filename:
            return
        self.awaits += 1
        if self.awaits == self._nth:
            task = asyncio.current_task()
            # No one cancels what ends everything else.
            if self._own and task is not None and coroutine.cr_code.co_name != "_close":
                asyncio.get_running_loop().call_soon(task.cancel)
            self._stop()
        elif self.awaits == self._second:
            self._stop()

    def _stop(self) -> None:
        assert self.world is not None
        if self.world.members:
            self.world.cancel(self.world.members[0])


def rough(seed: int) -> Scenario:
    """Return a short world of one member in which everything fails now and then."""
    weather = Weather(request=0.3, commit=0.2, dead_letter=0.9, registry=0.5, slow=0.05, windows=())
    base = draw(seed)
    return replace(
        base,
        members=1,
        partitions=2,
        records=12,
        pace=0.05,
        faults_end=2.0,
        map_limit=4095,
        bad=0.5,
        weather=weather,
        crashes=(),
        events=(),
        foreign=None,
    )


def played(seed: int, cutter: Cutter) -> Report:
    """Run a world and report; whatever a task left unread is told too."""
    report = run(seed, rough(seed), cutter.install)
    gc.collect(0)
    return report


def moments(seed: int) -> list[int]:
    """Return the awaits to cancel at: each of the first, then one in `STRIDE`, up to the last."""
    cutter = Cutter()
    assert played(seed, cutter).broken is None
    return [*range(1, EACH), *range(EACH, cutter.awaits, STRIDE)]


@pytest.mark.promise("P1")
@pytest.mark.promise("P3")
@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("kind", ["stop", "stop twice", "stop and the task"])
def test_a_run_may_be_cancelled_at_each_await(seed: int, kind: str) -> None:
    """Cancelled at any await, once, again in its drain, or in the middle of any of its tasks, a run loses nothing.

    The next member finishes everything; no task is left, and no error that no one read.
    Kills: ending the drain at the first cancellation, and leaving a worker's requests to themselves at the second.
    """
    cutters = []
    for index, nth in enumerate(moments(seed)):
        second = SECOND[index % len(SECOND)] if kind == "stop twice" else None
        cutter = Cutter(nth, second=second, own=kind == "stop and the task")
        report = played(seed, cutter)
        assert report.broken is None, f"seed {seed}, await {nth}, {kind}, second {second}: {report.broken}"
        cutters.append(cutter)
    gc.collect()
    assert [cutter.world.oracle.broken for cutter in cutters if cutter.world and cutter.world.oracle.broken] == []


@pytest.mark.promise("P10")
def test_a_drain_that_is_cut_short_leaves_no_dead_letter_behind() -> None:
    """Cancelled again while dead letters wait for Kafka, a run ends at once, and nothing of it goes on.

    Kills: closing intake at the end of the drain only.
    """
    dead_letters: set[asyncio.Task[Any]] = set()
    going_on: list[asyncio.Task[Any]] = []

    def note() -> None:
        dead_letters.update(task for task in asyncio.all_tasks() if "_dead_letter" in repr(task.get_coro()))

    def begun(world: World) -> None:
        loop = asyncio.get_running_loop()
        for at in (0.5, 0.6):
            loop.call_later(at, lambda: world.cancel(world.members[0]))
        loop.call_later(0.55, note)
        loop.call_later(0.65, lambda: going_on.extend(task for task in dead_letters if not task.done()))

    base = rough(0)
    scenario = replace(base, bad=1.0, weather=replace(base.weather, dead_letter=1.0, registry=0.0))
    assert run(0, scenario, begun).broken is None
    assert dead_letters
    assert going_on == []
