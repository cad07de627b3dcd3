"""Records of the replay topic on virtual time: where they go, what a second failure is, and what they stay out of."""

from __future__ import annotations

from typing import Any, cast

import pytest

from connector.dead_letters.headers import parse, replayed, to_headers
from connector.errors import FatalError, Refusal
from connector.pipeline.batching import Delivery
from connector.pipeline.offsets import PartitionTracker
from connector.records import DeadLetter, Event, Position, Record
from connector.routing.table import Routed, RouteTable, reroute
from connector.vendors.base import VendorEvent
from tests.unit.delivery.delivery_rig import OK, Call, Reply, Rig, played
from tests.unit.pipeline.pipeline_rig import ModelRoutes, ModelSource, PipelineRig

ORIGIN = Position("events", 2, 77)


def replay(offset: int, value: bytes, destination: str | None, *, topic: str = "t") -> Record:
    """Return the record of the replay topic that a dead letter for a destination has become."""
    dead_letter = DeadLetter(
        record=Record(*ORIGIN, 5, b"k", value, (("trace", b"\xff"),)),
        cause="refused",
        code="1",
        message="m",
        failed_at=0.0,
        dedup_id="always",
        vendor="model" if destination else None,
        destination=destination,
    )
    headers = replayed(to_headers(dead_letter, group="group"))
    return Record(topic, 0, offset, 9, b"k", value, tuple(headers))


def rig_of(*records: Record, storm: int = 10**6, only: str | None = None) -> PipelineRig:
    """Return a pipeline with destinations d and e, whose only topic is the replay topic, with these records."""
    source = ModelSource()
    source.log["t", 0].extend(records)
    rig = PipelineRig(source, names="de" if only is None else only, storm=storm)
    routes = cast("RouteTable", _Routes())
    services = rig.intake._services
    object.__setattr__(services, "routes", routes)
    rig.intake._only = only
    rig.intake._replay_topic = "t"
    return rig


class _Routes(ModelRoutes):
    """Knows its destinations, as the real table does."""

    destinations: dict[str, Any] = {"d": None, "e": None}  # noqa: RUF012 - never changed

    def may_reach(self, _destination: str, _topic: str, _schema: str) -> bool:
        """Know nothing beforehand."""
        return True


@played
async def test_a_replayed_record_goes_to_its_dead_letters_destination_alone() -> None:
    """Of an event for two destinations only the one that failed is served; a dead letter of none goes to both.

    Kills: a replay that is routed as if it were new.
    """
    rig = rig_of(replay(0, b"de", "d"), replay(1, b"de", None), replay(2, b"e", "e"))
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (3, ""))
    assert sorted(offset for _, offset in rig.to["d"].done) == [0, 1]
    assert sorted(offset for _, offset in rig.to["e"].done) == [1, 2]
    assert rig.written == []


@played
async def test_a_second_failure_keeps_the_destination() -> None:
    """A replay that cannot be decoded, or is no longer routed there, is a dead letter for the same destination."""
    rig = rig_of(replay(0, b"broken", "d"), replay(1, b"e", "d"), replay(2, b"de", "gone"), replay(3, b"broken", None))
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (4, ""))
    assert sorted((one.record.offset, one.code or "", one.destination, one.vendor) for one in rig.written) == [
        (0, "decode.model", "d", "model"),
        (1, "route.unrouted", "d", "model"),
        (2, "route.destination", "gone", "model"),
        (3, "decode.model", None, None),
    ]
    assert rig.to["d"].done == rig.to["e"].done == []


@played
async def test_replayed_records_make_no_storm() -> None:
    """However many replays of a topic are refused, none is held back, and live records' window does not see them.

    Kills: counting replays in the storm window of their topic.
    """
    rig = rig_of(*(replay(number, b"broken", None) for number in range(50)), storm=5)
    async with rig.running():
        await rig.until(lambda: len(rig.written) == 50)
    assert rig.storm_changes == []


@played
async def test_a_destination_alone_leaves_others_replays_out() -> None:
    """A run of d skips replays for e undecoded. It takes its own, unrouted ones, and those of removed destinations."""
    rig = rig_of(
        replay(0, b"broken", "e"), replay(1, b"de", "d"), replay(2, b"de", None), replay(3, b"d", "gone"), only="d"
    )
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (4, ""))
    assert sorted(offset for _, offset in rig.to["d"].done) == [1, 2]
    assert [one.destination for one in rig.written] == ["gone"]


class _Table:
    """Routes every event as it is told."""

    destinations: dict[str, Any] = {"d": None}  # noqa: RUF012 - never changed

    def __init__(self, routed: list[Routed] | Exception) -> None:
        self._routed = routed
        self.asked: list[Record] = []

    def route(self, _event: Event, record: Record, _cluster_id: str) -> list[Routed]:
        """Return or raise what it was given."""
        self.asked.append(record)
        if isinstance(self._routed, Exception):
            raise self._routed
        return self._routed


def test_a_replay_is_routed_as_it_came_first_and_keeps_its_dedup_id() -> None:
    """Routes see origin, timestamp and own headers; the vendor's event has the dead letter's id."""
    record = replay(4, b"v", "d")
    dead_letter = parse(record.headers)
    assert dead_letter is not None
    refusal = Refusal("invalid", "rule", "m")
    table = _Table([Routed("d", VendorEvent({}, "new identity"), "new identity"), Routed("e", refusal, "i")])
    first = dead_letter.first_record(record)
    (routed,) = reroute(cast("RouteTable", table), Event("s", {}), first, dead_letter, "c")
    assert isinstance(routed.event, VendorEvent)
    assert (routed.event.dedup_id, routed.identity, routed.first_dedup_id) == ("always", "new identity", "always")
    assert table.asked == [Record(*ORIGIN, 5, b"k", b"v", (("trace", b"\xff"),))]
    stopping = cast("RouteTable", _Table(FatalError("no route")))
    with pytest.raises(Refusal, match="no route"):
        reroute(stopping, Event("s", {}), first, dead_letter, "c")


def _replayed(rig: Rig, number: int, key: bytes | None = None) -> Delivery:
    return rig.delivery(number, key=key, partition=9, dedup_id="always")


@played
async def test_refused_replays_hold_no_destination() -> None:
    """Refusals of replays alone are dead letters at once; the window of live records neither fills nor empties by them.

    Kills: counting replays in a destination's storm window, refused or accepted.
    """

    def behave(call: Call) -> Reply:
        return Reply(400, {"code": "B", "named": []}) if min(call.numbers) < 1000 else OK

    rig = Rig(behave, storm={"share": 0.5, "records": 10}, batch={"records": 1})
    async with rig.running(all_done=False):
        rig.take([_replayed(rig, number) for number in range(30)])
        for number in range(30, 40):
            rig.worker.refuse(_replayed(rig, number), Refusal("invalid", "rule", "m"))
        await rig.done()
        assert rig.dead_letters.numbers == list(range(40))
        assert {dead_letter.dedup_id for dead_letter in rig.dead_letters.dead_letters} == {"always"}
        rig.take([_replayed(rig, 1000 + number) for number in range(30)])
        await rig.done()
        rig.offer(range(12))
        await rig.until(lambda: rig.worker.condition().cause == "storm")


@pytest.mark.promise("P11")
@played
async def test_a_replay_that_waits_holds_up_no_key() -> None:
    """With order by key a replay that fails for long lets its key's live records pass, inside `max_in_flight`.

    Kills: putting a replayed record into the lane of its key.
    """
    healthy = False
    most = 0

    def behave(call: Call) -> Reply:
        nonlocal most
        most = max(most, rig.worker.in_flight)
        return OK if healthy or min(call.numbers) < 1000 else Reply(500)

    rig = Rig(behave, order="key", max_in_flight=2, storm="off", batch={"records": 1}, latency=0.02)
    async with rig.running():
        rig.take([_replayed(rig, 1000 + number, b"k") for number in range(3)])
        await rig.clock.sleep(0.2)
        rig.offer(range(20), key=lambda _n: b"k")
        await rig.until(lambda: len(rig.transport.accepted) == 20, within=30)
        assert rig.transport.accepted == list(range(20))
        healthy = True
        await rig.done()
    assert most <= 2
    assert sorted(rig.transport.accepted) == [*range(20), 1000, 1001, 1002]


def test_what_is_no_record_is_passed() -> None:
    """The end that reading came to is the watermark once all below is done, and is claimed by no map before.

    Kills: a transaction's marker that leaves a lag for ever, passing a record that has no outcome.
    """
    tracker = PartitionTracker("group.replay", 0, 4, ["d"])
    tracker.reach(4)
    assert tracker.snapshot() is None
    assert tracker.begin((4,))
    tracker.reach(6)
    assert (tracker.watermark, tracker.position) == (4, 6)
    tracker.finish((4,), 1)
    snapshot = tracker.snapshot()
    assert snapshot is not None
    assert (snapshot.watermark, snapshot.finished.is_empty()) == (6, True)
    tracker.reach(5)
    assert tracker.watermark == 6


@played
async def test_a_marker_at_the_end_is_committed() -> None:
    """A partition that ends with what is no record is committed up to its end, and has no backlog."""
    rig = PipelineRig(ModelSource())
    rig.source.produce(b"d")
    rig.source.log["t", 0].append(Record("t", 0, 1, -1, None, None, ()))
    ends, rig.source.log["t", 0] = rig.source.log["t", 0], rig.source.log["t", 0][:1]
    rig.source.ends = lambda: {("t", 0): len(ends)}  # type: ignore[method-assign]
    rig.source.reached = lambda: {("t", 0): len(ends)} if rig.source.position.get(("t", 0)) == 1 else {}  # type: ignore[method-assign]
    async with rig.running():
        await rig.until(lambda: rig.source.committed.get(("t", 0)) == (2, ""))
        assert rig.runner.backlog() == {("t", 0): 0}
