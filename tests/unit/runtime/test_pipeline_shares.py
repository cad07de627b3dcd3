"""Members that share one limit as the wiring computes it: real workers on virtual time, partitions that move."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from connector import vendors
from connector.config.loader import Settings, load
from connector.records import TopicPartition
from connector.routing.table import RouteTable
from connector.runtime.pipeline import REPLAY_SHARE, Shares
from connector.testing.loop import run_virtual
from tests.unit.delivery.delivery_rig import Rig

LIMIT: Final = 25
PARTITIONS: Final = 12
FILE: Final = """\
kafka: {topics: [t], group_id: g, client: {bootstrap.servers: "localhost:9092"}}
destinations:
  d: {vendor: jiguang, project_id: "1", project_secret: s, app_key: k}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A configuration with one destination that every topic reaches."""
    path = tmp_path / "connector.yaml"
    path.write_text(FILE, encoding="utf-8")
    return load(path, {name: kind.settings for name, kind in vendors.kinds().items()}, {}).settings


def shares(settings: Settings, rig: Rig, partitions: Mapping[str, int]) -> Shares:
    """Return what gives one member its share."""
    routes = RouteTable.compile(settings, vendors.kinds())
    return Shares(settings, routes, {"d": rig.worker}, partitions, rig.clock)


def owned(*numbers: int, topic: str = "t") -> frozenset[TopicPartition]:
    """Return partitions of one topic."""
    return frozenset((topic, number) for number in numbers)


def fullest(times: list[float]) -> int:
    """Return how many of these times the fullest half-open second holds."""
    ordered, most, first = sorted(times), 0, 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.promise("P8")
@pytest.mark.parametrize(("members", "used"), [(1, 0.98), (3, 0.95)])
def test_a_group_uses_its_limit_and_no_second_holds_more(members: int, used: float, settings: Settings) -> None:
    """Members come and go on twelve partitions: a second holds the limit and one request a member, 95 % of it is used.

    Lost partitions are given up first, gained ones come half a second later, as a rebalance does. One member: 98 %.
    Kills: a share of the limit for each process, a gained share that starts full, a lost one that is kept.
    """

    async def play() -> None:
        rigs = [
            Rig(requests_per_second=LIMIT, batch={"records": 1}, max_in_flight=50, latency=0.1) for _ in range(members)
        ]
        parts = [shares(settings, rig, {"t": PARTITIONS}) for rig in rigs]
        for part in parts:
            part.apply(frozenset())
        tasks = [asyncio.create_task(rig.worker.run()) for rig in rigs]
        for rig in rigs:
            rig.offer(range(3000))
        random, lost = Random(5), 0.0
        holding: list[set[int]] = [set() for _ in rigs]
        clock = rigs[0].clock
        began = clock.now()
        for _ in range(8):
            live = sorted(random.sample(range(members), random.randint(1, members)))
            wanted = [{n for n in range(PARTITIONS) if live[n % len(live)] == m} for m in range(members)]
            moving = PARTITIONS - sum(len(have & want) for have, want in zip(holding, wanted, strict=True))
            for part, have, want in zip(parts, holding, wanted, strict=True):
                part.apply(owned(*(have & want)))
            lost += 0.2 * moving / PARTITIONS
            await clock.sleep(0.2)
            for part, want in zip(parts, wanted, strict=True):
                part.apply(owned(*want))
            holding = wanted
            await clock.sleep(7.0)
        took = clock.now() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for rig in rigs:
            await rig.worker.close()
        times = [call.at for rig in rigs for call in rig.transport.calls]
        assert fullest(times) <= LIMIT + members
        assert members > 1 or fullest(times) <= LIMIT
        assert len(times) >= used * LIMIT * (took - lost)

    run_virtual(play())


def share_of(
    settings: Settings, partitions: Mapping[str, int], assigned: frozenset[TopicPartition], **more: Any
) -> float:
    """Return which part of the limit an assignment gives."""
    rate: list[float] = []

    async def play() -> None:
        rig = Rig(requests_per_second=100)
        given = settings
        if more:
            one = settings.destinations["d"].model_copy(update=more)
            given = settings.model_copy(update={"destinations": {"d": one}})
        shares(given, rig, partitions).apply(assigned)
        rate.append(rig.destination.bucket.rate or 0.0)
        await rig.worker.close()

    run_virtual(play())
    return rate[0] / 100


@pytest.mark.promise("P8")
def test_a_share_is_the_part_of_the_partitions_that_is_owned(settings: Settings) -> None:
    """A third of the partitions is a third of the limit, none is nothing, `fixed` is all of it always.

    Kills: the other topics' partitions counted in, a fixed share that shrinks.
    """
    assert share_of(settings, {"t": 12}, owned(0, 1, 2, 3)) == pytest.approx(1 / 3)
    assert share_of(settings, {"t": 12}, frozenset()) == 0.0
    assert share_of(settings, {"t": 12}, frozenset(), rate_limit_share="fixed") == 1.0
    assert share_of(settings, {"t": 4, "u": 4}, owned(0, 1) | owned(0, topic="u")) == pytest.approx(3 / 8)


@pytest.mark.promise("P8")
def test_a_topic_that_came_later_counts_by_what_is_known_of_it(settings: Settings) -> None:
    """Partitions of a topic unknown at the start widen the whole; they never make a share larger than one.

    Kills: owned partitions that the whole does not count.
    """
    assert share_of(settings, {"t": 4}, owned(0, 1) | owned(3, topic="new")) == pytest.approx(3 / 8)
    assert share_of(settings, {}, owned(0, topic="new")) == 1.0


@pytest.mark.promise("P8")
def test_replayed_records_take_a_fiftieth_of_the_limit(settings: Settings) -> None:
    """Where the replay topic is read, all its partitions together weigh 2 %; all members together have the limit.

    Kills: a replay topic that counts as another source.
    """
    known = {"t": 2, "g.replay": 2}
    one = share_of(settings, known, owned(0) | owned(0, 1, topic="g.replay"))
    other = share_of(settings, known, owned(1))
    assert one + other == pytest.approx(1.0)
    assert one - other == pytest.approx(REPLAY_SHARE)


@pytest.mark.promise("P8")
def test_added_partitions_pass_no_limit_while_a_member_has_not_seen_them(settings: Settings) -> None:
    """Two members, one partition, then eight: who gets new ones sees it at once, the other one a commit later.

    With KIP-848 a member whose partitions stay is told nothing.
    Kills: a new partition that counts for its owner while another member still divides by the old number.
    """

    async def play() -> None:
        rigs = [Rig(requests_per_second=100) for _ in range(2)]
        first, second = ({"t": 1}, {"t": 1})
        keeps, gains = shares(settings, rigs[0], first), shares(settings, rigs[1], second)
        keeps.apply(owned(0))
        gains.apply(owned())
        clock = rigs[0].clock

        def rates() -> list[float]:
            return [rig.destination.bucket.rate or 0.0 for rig in rigs]

        await clock.sleep(60)
        assert rates() == [100, 0]
        second["t"] = 8
        gains.apply(owned(4, 5, 6, 7))
        seen = [sum(rates())]
        await clock.sleep(1)
        first["t"] = 8
        for _ in range(10):
            keeps.apply(owned(0, 1, 2, 3))
            gains.apply(owned(4, 5, 6, 7))
            seen.append(sum(rates()))
            await clock.sleep(1)
        assert max(seen) <= 100
        assert rates() == [50, 50]
        for rig in rigs:
            await rig.worker.close()

    run_virtual(play())
