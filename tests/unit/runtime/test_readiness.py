"""When a member is ready: assigned or validly idle, and Kafka within reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from connector.dead_letters.writer import DeadLetterWriter
from connector.runtime.member import JOIN_SECONDS, Member
from connector.runtime.pipeline import Pipeline
from connector.testing import ManualClock


def _member(clock: ManualClock) -> tuple[Member, SimpleNamespace, dict[str | None, str]]:
    """Return a member that runs, its runner and its source's troubles."""
    runner = SimpleNamespace(polled_at=None, joining_since=clock.now())
    pipeline = SimpleNamespace(runner=runner, workers={}, holds=SimpleNamespace(registry=None))
    troubles: dict[str | None, str] = {}
    member = Member("g", clock, 22.0)
    assert not member.readiness().ok
    dead_letters = cast("DeadLetterWriter", SimpleNamespace(trouble=None))
    member.running(cast("Pipeline", pipeline), dead_letters, lambda: troubles)
    return member, runner, troubles


def test_a_member_is_ready_once_the_group_has_spoken() -> None:
    """Polling alone is not enough; an assignment is, an empty one too.

    Kills: a rolling update that goes on while the new member has not joined.
    """
    clock = ManualClock()
    member, runner, _ = _member(clock)
    assert member.readiness() == (False, ["joining the group"])
    runner.polled_at = clock.now()
    assert member.readiness() == (False, ["joining the group"])
    runner.joining_since = None
    assert member.readiness() == (True, [])


def test_a_member_that_is_told_nothing_is_idle() -> None:
    """Where a group tells a member nothing for long enough, it has validly nothing to do."""
    clock = ManualClock()
    member, runner, _ = _member(clock)
    runner.polled_at = clock.now() + JOIN_SECONDS
    assert not member.readiness().ok
    runner.polled_at += 1
    assert member.readiness().ok


def test_a_trouble_of_one_topic_is_told_and_fails_nothing() -> None:
    """A missing topic stands beside; a trouble with Kafka as a whole fails readiness."""
    clock = ManualClock()
    member, runner, troubles = _member(clock)
    runner.polled_at, runner.joining_since = clock.now(), None
    troubles["events"] = "unknown topic"
    assert member.readiness() == (True, ["topic events: unknown topic"])
    troubles[None] = "_TRANSPORT: 127.0.0.1:9092/1: connection refused"
    ready, reasons = member.readiness()
    assert not ready
    assert reasons == ["topic events: unknown topic", "broker: _TRANSPORT: 127.0.0.1:9092/1: connection refused"]
