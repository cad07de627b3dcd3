"""A stuck member is logged once, with the place of every thread and task, and so is its recovery."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.states import Kind
from connector.runtime import watchdog
from connector.runtime.pipeline import Pipeline
from connector.runtime.watchdog import POLL_MARGIN, StuckJudge, Watchdog
from tests.unit.delivery.delivery_rig import Rig, played

SOON = 10.0


class Said:
    """A logger that keeps its lines and lets a test wait for them."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self._more = threading.Condition()

    def error(self, event: str, **fields: Any) -> None:
        """Keep a line."""
        with self._more:
            self.lines.append((event, fields))
            self._more.notify_all()

    info = error

    def wait(self, count: int) -> None:
        """Return once there are so many lines."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count, SOON), self.lines


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """What the watchdog logs."""
    log = Said()
    monkeypatch.setattr(watchdog, "log", log)
    return log


async def _waits_here(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_a_blocked_loop_is_logged_with_its_stack(said: Said) -> None:
    """One line for one episode names the blocking function and the waiting tasks; another when the loop runs again.

    Kills: asking the loop itself for the dump; a line for each second.
    """
    gate = asyncio.Event()
    waiting = [asyncio.create_task(_waits_here(gate), name=f"waiting-{n}") for n in range(3)]
    await asyncio.sleep(0)
    dog = Watchdog(lambda: None, interval=0.01, loop_limit=0.03)
    dog.start()

    def block_the_loop() -> None:
        said.wait(1)

    block_the_loop()
    assert dog.reason is not None
    await asyncio.to_thread(said.wait, 2)
    dog.stop()
    gate.set()
    await asyncio.gather(*waiting)
    (event, fields), (moving, _) = said.lines
    assert (event, moving) == ("member.stuck", "member.moving")
    assert "did not run" in fields["reason"]
    (main,) = [text for text in fields["threads"] if text.startswith("MainThread: ")]
    assert "test_watchdog.py:" in main
    assert " block_the_loop" in main
    (place,) = [text for text in fields["tasks"] if "_waits_here" in text]
    assert place.startswith("waiting-0 and 2 more: asyncio/locks.py:")


async def test_each_episode_is_logged_once(said: Said) -> None:
    """A reason that lasts is logged once, its end once, and the next one again; a reason given once does not count.

    Kills: forgetting the end of an episode; taking a process that was suspended for stuck.
    """
    answers = iter([None, "for a moment", None, "first", "first", "first", "first", None, None, "second", "second"])
    dog = Watchdog(lambda: next(answers, "second"), interval=0.005)
    dog.start()
    await asyncio.to_thread(said.wait, 3)
    dog.stop()
    assert [(event, fields["reason"]) for event, fields in said.lines] == [
        ("member.stuck", "first"),
        ("member.moving", "first"),
        ("member.stuck", "second"),
    ]
    assert dog.reason == "second"


class Scene:
    """A judge over one destination whose worker does nothing by itself."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.runner = SimpleNamespace(polled_at=None)
        self.troubles: dict[str | None, str] = {}
        self.dead_letters = SimpleNamespace(trouble=None)
        self.holds = SimpleNamespace(registry=None)
        pipeline = SimpleNamespace(
            runner=self.runner, workers={"d": self.rig.worker}, budget=self.rig.budget, holds=self.holds
        )
        self.judge = StuckJudge(
            cast("Pipeline", pipeline),
            cast("DeadLetterWriter", self.dead_letters),
            lambda: self.troubles,
            22.0,
            self.rig.clock.now(),
        )

    async def after(self, seconds: float, *, polled: bool = True) -> str | None:
        """Look once a second for so long, and return what is said last."""
        reason = None
        for _ in range(round(seconds)):
            await asyncio.sleep(1.0)
            if polled:
                self.runner.polled_at = self.rig.clock.now()
            reason = self.judge.look(self.rig.clock.now())
        return reason


@played
async def test_a_consumer_that_is_not_polled_is_stuck() -> None:
    """It is stuck after the drain time and its margin, also where it was never polled; not while Kafka is away.

    Kills: restarting a member because its broker does not answer.
    """
    scene = Scene()
    assert await scene.after(22 + POLL_MARGIN, polled=False) is None
    assert "was not polled for 5" in str(await scene.after(2, polled=False))
    scene.troubles[None] = "no broker answers"
    assert await scene.after(500, polled=False) is None
    scene.troubles.clear()
    assert await scene.after(1) is None


@played
async def test_work_that_is_not_sent_is_stuck() -> None:
    """Deliveries that are not sent are reported with their destination; each one done restarts the wait.

    Kills: taking bytes that come in for progress of what went out; no limit at all.
    """
    scene = Scene()
    scene.rig.offer(range(10))
    assert await scene.after(130) is None
    assert "destination d has work" in str(await scene.after(30))
    scene.rig.worker.answered += 1
    assert await scene.after(130) is None
    scene.rig.destination.buffer.finish([scene.rig.delivery(77)])


@played
async def test_a_reason_to_wait_is_not_stuck() -> None:
    """A hold, a storm, a registry that does not answer, dead letters or answers that wait for Kafka: none is stuck.

    Kills: a restart, and so every question asked again, because the results topic refuses the answers for long.
    """
    scene = Scene()
    scene.rig.offer(range(10))
    scene.rig.destination.hold(Kind.OPERATOR, None, "held")
    assert await scene.after(2000) is None
    scene.rig.worker.release()
    scene.dead_letters.trouble = "the topic takes no dead letters"
    assert await scene.after(2000) is None
    scene.dead_letters.trouble = None
    scene.rig.destination.note_answers("the results topic is not there")
    assert await scene.after(2000) is None
    scene.rig.destination.note_answers(None)
    scene.rig.destination.bucket.set_share(0.0, scene.rig.clock.now())
    scene.rig.destination.bucket.wait_until(scene.rig.clock.now() + 10_000)
    assert await scene.after(2000) is None


@played
async def test_records_that_never_reach_a_destination_are_stuck() -> None:
    """Bytes that no destination holds are reported after a long time, unless the registry is in trouble."""
    scene = Scene()
    scene.rig.budget.add(1000)
    assert await scene.after(380) is None
    assert "to be prepared" in str(await scene.after(20))
    scene.holds.registry = "503"
    assert await scene.after(1000) is None
