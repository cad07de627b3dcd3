"""When a member is ready: with partitions or a stated reason to have none, and Kafka within reach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from connector.dead_letters.writer import DeadLetterWriter
from connector.errors import StartupError
from connector.runtime.member import (
    ASK_SECONDS,
    IDLE,
    JOINING,
    REBALANCE_SECONDS,
    SESSION_MARGIN,
    SILENT_SECONDS,
    Member,
)
from connector.runtime.pipeline import Pipeline
from connector.testing import ManualClock

PARTITIONS = frozenset({("events", 0)})
REFUSED = "cannot read group g: GROUP_AUTHORIZATION_FAILED"


def _member(clock: ManualClock) -> tuple[Member, SimpleNamespace, dict[str | None, str]]:
    """Return a member that runs, its runner and its source's troubles."""
    runner = SimpleNamespace(assigned=frozenset(), lost_at=float("-inf"))
    pipeline = SimpleNamespace(runner=runner, workers={}, holds=SimpleNamespace(registry=None))
    troubles: dict[str | None, str] = {}
    member = Member("g", clock, 22.0, session_timeout=6.0)
    assert not member.readiness().ok
    dead_letters = cast("DeadLetterWriter", SimpleNamespace(trouble=None))
    member.running(cast("Pipeline", pipeline), dead_letters, lambda: troubles)
    return member, runner, troubles


async def _none_left() -> str | None:
    return None


async def _watched(
    member: Member, clock: ManualClock, why: Callable[[], Awaitable[str | None]], seconds: float
) -> None:
    """Let a member watch its membership for so long."""
    watching = asyncio.create_task(member.watch_membership(why))
    for _ in range(round(seconds)):
        for _ in range(3):
            await asyncio.sleep(0)
        clock.advance(1.0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


def test_a_member_is_ready_once_it_has_partitions() -> None:
    """Joining is not enough, however long it takes. Kills: a member that is called ready after 15 s of silence."""
    clock = ManualClock()
    member, runner, _ = _member(clock)
    assert member.readiness() == (False, ["joining the group"])
    runner.assigned = PARTITIONS
    assert member.readiness() == (True, [])


def test_since_when_a_member_is_not_ready_is_reported() -> None:
    """From its start on, or since the last look at which it was ready. Kills: the time of the question; no own look."""
    clock = ManualClock()
    member, runner, troubles = _member(clock)
    member._judge = None  # what it judges is not here
    began = clock.wall()
    clock.advance(60)
    assert (member.readiness().ok, member.unready_since) == (False, began)
    runner.assigned = PARTITIONS
    member.stuck()
    ready: list[float | None] = [member.unready_since]
    troubles[None] = "all brokers are down"
    clock.advance(60)
    lost = clock.wall()
    member.stuck()
    clock.advance(60)
    member.readiness()
    assert (ready, member.unready_since) == ([None], lost)


@pytest.mark.parametrize("refusal", [REFUSED, "cannot read group g: _TIMED_OUT"])
async def test_a_group_that_cannot_be_joined_is_never_ready(refusal: str) -> None:
    """Without READ on the group, or with a coordinator that cannot be reached, the reason stays until it is over.

    Kills: green readiness while nothing is ever read; a refusal that an answered metadata request ends.
    """
    clock = ManualClock()
    member, runner, _ = _member(clock)

    async def refused() -> str | None:
        raise StartupError(refusal)

    with capture_logs() as logged:
        await _watched(member, clock, refused, 600)
    assert member.readiness() == (False, [refusal])
    assert [line["reason"] for line in logged if line["event"] == "member.without_partitions"] == [refusal]
    runner.assigned = PARTITIONS
    assert member.readiness() == (True, [])


async def test_a_member_of_a_group_with_enough_members_is_ready() -> None:
    """If other members have all partitions, the member has nothing to do, and reports that."""
    clock = ManualClock()
    member, _, _ = _member(clock)
    answers = iter(["joining the group: 2 of its partitions have no member", None])

    async def why() -> str | None:
        return next(answers, None)

    await _watched(member, clock, why, 1)
    assert member.readiness() == (False, ["joining the group: 2 of its partitions have no member"])
    await _watched(member, clock, why, 1)
    assert member.readiness() == (True, [IDLE])


async def test_a_member_that_lost_its_partitions_is_reported() -> None:
    """A rebalance keeps it ready for a moment; then it is not, though its own old session still has the partitions.

    Kills: a member without partitions, green and silent, after a broker came back; a log line each time it looks.
    """
    clock = ManualClock()
    member, runner, _ = _member(clock)
    runner.assigned = PARTITIONS
    assert member.readiness().ok
    runner.assigned, runner.lost_at = frozenset(), clock.now()
    assert member.readiness().ok

    with capture_logs() as logged:
        await _watched(member, clock, _none_left, REBALANCE_SECONDS + 0.5)
        assert member.readiness() == (False, [JOINING])
        await _watched(member, clock, _none_left, 6.0 + SESSION_MARGIN + ASK_SECONDS - REBALANCE_SECONDS)
        assert member.readiness() == (True, [IDLE])
        await _watched(member, clock, _none_left, SILENT_SECONDS + 2 * ASK_SECONDS)
    assert [line["event"] for line in logged] == ["member.without_partitions"]


async def test_a_member_whose_partitions_were_revoked_stays_ready() -> None:
    """The group gave them to others and says so: the member is idle for a good reason, from the first moment on.

    Kills: a member that is not ready for a minute after each rebalance that leaves it without partitions.
    """
    clock = ManualClock()
    member, runner, _ = _member(clock)
    runner.assigned = PARTITIONS
    assert member.readiness().ok
    await _watched(member, clock, _none_left, 60)
    runner.assigned = frozenset()
    for _ in range(30):
        await _watched(member, clock, _none_left, 1)
        assert member.readiness().ok


def test_a_trouble_of_one_topic_is_reported_and_fails_nothing() -> None:
    """A missing topic is reported without failing readiness; trouble with Kafka as a whole fails it."""
    clock = ManualClock()
    member, runner, troubles = _member(clock)
    runner.assigned = PARTITIONS
    troubles["events"] = "unknown topic"
    assert member.readiness() == (True, ["topic events: unknown topic"])
    troubles[None] = "_TRANSPORT: 127.0.0.1:9092/1: connection refused"
    ready, reasons = member.readiness()
    assert not ready
    assert reasons == ["topic events: unknown topic", "broker: _TRANSPORT: 127.0.0.1:9092/1: connection refused"]
