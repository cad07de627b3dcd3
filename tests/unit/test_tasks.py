"""Background tasks: one that fails is seen, and either ends the run or is started again."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest
import structlog

from connector.tasks import FIRST_PAUSE, LONGEST_PAUSE, Supervisor, in_thread, place_of, restarted
from connector.testing.loop import LoopClock, run_virtual


async def fail(text: str = "a record's value") -> None:
    """Raise."""
    raise KeyError(text)


def test_failed_task_ends_its_owner_and_is_logged_without_its_text() -> None:
    """The owner is woken, `check` raises the exception, and the log line has its type and place, but no value.

    Kills: dropping the exception of a task that is not awaited.
    """

    async def play() -> None:
        woken = asyncio.Event()
        tasks: Supervisor[int] = Supervisor(woken.set)
        tasks.check()
        tasks.start(fail(), "letter", 1)
        await woken.wait()
        assert tasks.running == {}
        with pytest.raises(KeyError):
            tasks.check()

    with structlog.testing.capture_logs() as lines:
        run_virtual(play())
    (line,) = lines
    assert (line["event"], line["task"]) == ("task.failed", "letter")
    assert line["message"].startswith("KeyError at line ")
    assert "value" not in str(line)


def test_the_first_failure_is_kept() -> None:
    """A later exception does not hide the one that came first."""

    async def play() -> None:
        tasks: Supervisor[None] = Supervisor()
        for text in ("first", "second"):
            tasks.start(fail(text), text, None)
        await tasks.wait(lambda _about: True, 1.0)
        await asyncio.sleep(0)
        with pytest.raises(KeyError, match="first"):
            tasks.check()

    run_virtual(play())


def test_cancelled_task_is_no_failure() -> None:
    """Closing cancels what runs, waits for it, and leaves nothing to raise."""

    async def play() -> None:
        tasks: Supervisor[None] = Supervisor()
        tasks.start(asyncio.sleep(1000), "long", None)
        await asyncio.sleep(0)
        await tasks.close()
        assert tasks.running == {}
        tasks.check()

    run_virtual(play())


def test_waiting_is_for_what_is_concerned_and_no_longer_than_asked() -> None:
    """A task about something else is not waited for; one that is late is reported."""

    async def play() -> None:
        clock = LoopClock()
        tasks: Supervisor[str] = Supervisor()
        tasks.start(clock.sleep(1), "short", "a")
        tasks.start(clock.sleep(50), "long", "b")
        began = clock.now()
        assert await tasks.wait("c".__eq__, 10)
        assert await tasks.wait("a".__eq__, 10)
        assert clock.now() - began == pytest.approx(1)
        assert not await tasks.wait("b".__eq__, 10)
        assert clock.now() - began == pytest.approx(11)
        await tasks.close()

    run_virtual(play())


def test_restarted_task_goes_on_after_longer_and_longer_pauses() -> None:
    """Each failure is logged, the pause doubles up to a limit, and a long good run resets it.

    Kills: a feed that stops for ever at its first exception; one that fails in a tight loop.
    """
    clock = LoopClock()
    began: list[float] = []

    async def work() -> None:
        began.append(clock.now())
        if len(began) == 10:
            await clock.sleep(2 * LONGEST_PAUSE)
        if len(began) < 12:
            raise ValueError

    with structlog.testing.capture_logs() as lines:
        run_virtual(restarted(work, "feed", clock))
    assert [line["event"] for line in lines] == ["task.restarted"] * 11
    pauses = [line["seconds"] for line in lines]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pauses[9:] == [FIRST_PAUSE, 2 * FIRST_PAUSE]
    assert [after - before for before, after in pairwise(began[:10])] == pytest.approx(pauses[:9])


def test_place_is_the_innermost_of_ours() -> None:
    """The module and line of the connector that led to the exception, not the library's own."""
    with pytest.raises(AttributeError) as caught:
        asyncio.run(restarted(None, "x", None))  # type: ignore[arg-type]
    assert place_of(caught.value).startswith("AttributeError at line ")
    assert place_of(caught.value).endswith(" of connector.tasks")
    assert place_of(KeyError()) == "KeyError"


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    """The call in the thread ends before its caller does, and its exception hides in no log of asyncio.

    Kills: leaving a thread behind that commits after its caller was told that nothing is.
    """
    began, may_end, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        may_end.wait()
        ended.append(True)
        raise KeyError("of no one")

    task = asyncio.create_task(in_thread(work, may_end.set))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
