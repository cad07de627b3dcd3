"""When intake makes deliveries at once in compiled code, and when it goes step by step."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from benchmarks import job
from connector import vendors
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts, read_schema
from connector.config.models import KafkaSettings, Settings
from connector.errors import Refusal
from connector.pipeline.batching import Delivery, Offer
from connector.pipeline.flow import Budget
from connector.pipeline.intake import Intake, Services
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.pipeline.storms import Storms, TopicStorms
from connector.records import DeadLetter, Record
from connector.routing.table import RouteTable
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock, run_virtual
from connector.vendors.base import Vendor

TOPIC, NAME = "events", "sink"
CONTRACTS = load_contracts()
ACCOUNT: dict[str, Any] = {"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "k"}


class _Destination:
    """Keeps what it is offered and what is refused for it."""

    def __init__(self, vendor: Vendor) -> None:
        self.vendor = vendor
        self.offered: list[Delivery] = []
        self.refused: list[tuple[int, str]] = []

    def offer(self, offer: Offer) -> None:
        """Keep the deliveries."""
        assert offer.charge == sum(delivery.charge for delivery in offer.deliveries)
        self.offered += offer.deliveries

    def refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        """Keep the refusal's code."""
        self.refused.append((delivery.record.offset, refusal.code))


class _NoDeadLetters:
    """Fails: nothing here is refused before it is routed."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Fail."""
        raise AssertionError(dead_letter.message)


class _Counting(Decoder):
    """Counts what is decoded step by step."""

    steps = 0

    def decode(self, records: list[Record]) -> Any:
        """Decode, and count."""
        self.steps += len(records)
        return super().decode(records)


class _Rig:
    """Intake over the real decoder, routes and vendor, with one destination."""

    def __init__(self, clock: LoopClock) -> None:
        kinds = vendors.kinds()
        settings = Settings(
            kafka=KafkaSettings(topics=(TOPIC,), group_id="g", client={"bootstrap.servers": "none"}),
            destinations={NAME: kinds["jiguang"].settings(**ACCOUNT)},
        )
        self.clock = clock
        self.to = _Destination(kinds["jiguang"].build(settings.destinations[NAME]))
        self.decoder = _Counting(CONTRACTS, clock=clock, as_json={(job.SCHEMA, "properties")})
        self.storms = TopicStorms(lambda topic: Storms("off", clock, scope={"topic": topic}))
        self.budget = Budget(10_000_000)
        self.routes = RouteTable.compile(settings, kinds)
        services = Services(
            decoder=self.decoder,
            routes=self.routes,
            deliverers={NAME: self.to},
            dead_letters=_NoDeadLetters(),
            budget=self.budget,
            metrics=Metrics(),
            clock=clock,
            storms=self.storms,
            cluster_id="cluster",
        )
        self.intake = Intake(services, [NAME])
        self.tracker = PartitionTracker(TOPIC, 0, 0, [NAME])

    def take(self, records: list[Record]) -> None:
        """Take records of the partition."""
        self.intake.take(records, lambda _partition: self.tracker)

    def records(self, count: int, **changed: Any) -> list[Record]:
        """Return plain records, from the tracker's position on."""
        encoder, now = Encoder(CONTRACTS, clock=self.clock), int(self.clock.wall() * 1000)
        datum = {"cuid": 1, "eventName": "e", "itime": now, "randomId": None, "properties": {"a": 1}} | changed
        first = self.tracker.position
        value = encoder.single_object(job.SCHEMA, datum)
        return [Record(TOPIC, 0, first + number, now, b"k", value, ()) for number in range(count)]

    def mixed(self, count: int, *, bad: int, odd: int) -> list[Record]:
        """Return plain records, but for one that breaks a rule and one that only `encode` can write."""
        broken = self.records(1, eventName="")[0].value
        unusual = self.records(1, properties={"a": None})[0].value
        return [
            Record(TOPIC, 0, plain.offset, plain.timestamp, plain.key, value, ())
            for plain in self.records(count)
            for value in [{bad: broken, odd: unusual}.get(plain.offset, plain.value)]
        ]

    @property
    def taken(self) -> list[int]:
        """The offsets of what was offered."""
        return [delivery.record.offset for delivery in self.to.offered]


def at_once(test: Callable[[_Rig], None]) -> Callable[[], None]:
    """Run a test with a rig, inside of a loop."""

    def run() -> None:
        async def play() -> None:
            test(_Rig(LoopClock()))

        run_virtual(play())

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


@at_once
def test_plain_records_are_not_decoded(rig: _Rig) -> None:
    """A run of plain records is offered, charged and tracked without a step. Kills: a short way that is not taken."""
    rig.take(rig.records(3))
    assert (rig.taken, rig.decoder.steps) == ([0, 1, 2], 0)
    assert rig.budget.used == sum(delivery.charge for delivery in rig.to.offered)
    assert [rig.tracker.left(offset) for offset in (0, 1, 2)] == [destination_bit(0)] * 3


@at_once
def test_a_record_that_is_not_plain_goes_alone_and_keeps_its_place(rig: _Rig) -> None:
    """One bad record among plain ones is refused by its rule, and the order stays. Kills: the rest step by step."""
    rig.take(rig.mixed(15, bad=4, odd=9))
    assert rig.to.refused == [(4, "jiguang.eventName.required")]
    assert (rig.taken, rig.decoder.steps) == ([*range(4), *range(5, 15)], 2)


@at_once
def test_where_plain_records_are_rare_the_rest_goes_step_by_step(rig: _Rig) -> None:
    """A try for every second record would cost more than it saves. Kills: a run of one for each."""
    rig.take(rig.mixed(15, bad=1, odd=9))
    assert (rig.taken, rig.decoder.steps) == ([0, *range(2, 15)], 14)


@at_once
def test_what_was_finished_before_is_not_made_again(rig: _Rig) -> None:
    """A claim of the committed map holds for plain records too. Kills: a delivery made again after a restart."""
    claims = FinishedMap(parts={NAME: Runs.of([1, 2])})
    rig.tracker = PartitionTracker(TOPIC, 0, 0, [NAME], claims)
    rig.take(rig.records(5))
    assert rig.taken == [0, 3, 4]


@at_once
def test_plain_records_wait_behind_a_parked_one(rig: _Rig) -> None:
    """Nothing passes a record whose schema is not known yet. Kills: a later event of a key that is sent first."""
    plain = rig.records(2)
    rig.intake.parked[TOPIC, 0] = cast("Any", [])
    rig.take(plain)
    assert rig.taken == []
    assert [record.offset for record in rig.intake.parked[TOPIC, 0]] == [0, 1]


@at_once
def test_a_topic_in_a_storm_counts_its_plain_records(rig: _Rig) -> None:
    """Where refusals are counted, so are acceptances: step by step. Kills: a storm that never sees a good record."""
    _ = rig.storms[TOPIC]
    rig.take(rig.records(2))
    assert (rig.taken, rig.decoder.steps) == ([0, 1], 2)


@pytest.mark.parametrize("change", ["headers", "key schema"])
def test_where_more_has_a_say_it_goes_step_by_step(change: str) -> None:
    """Headers may name another schema. Kills: a value that is read by the wrong schema."""

    async def play() -> None:
        rig = _Rig(LoopClock())
        headers = (("h", b"v"),) if change == "headers" else (("__value_schema_id", b"\x00\x00\x00\x00\x01"),)
        records = [Record(r.topic, 0, r.offset, r.timestamp, r.key, r.value, headers) for r in rig.records(1)]
        if change == "headers":
            rig.take(records)
            assert (rig.taken, rig.decoder.steps) == ([0], 1)
        else:
            assert rig.decoder.plain(records[0]) is None

    run_virtual(play())


@at_once
def test_a_vendor_that_was_built_again_is_used(rig: _Rig) -> None:
    """Secrets that are read again may come with other rules. Kills: the shape of the vendor before."""
    kinds = vendors.kinds()
    rig.to.vendor = kinds["jiguang"].build(kinds["jiguang"].settings(**ACCOUNT, rules={"jiguang.itime.past": "off"}))
    rig.take(rig.records(1))
    assert rig.to.offered[0].item.expires_at is None


def test_a_foreign_schema_goes_step_by_step() -> None:
    """Only the vendor's own contract has its shape. Kills: fields of another schema with the same names."""
    tree = CONTRACTS.schemas[job.SCHEMA].tree
    other = read_schema(json.dumps({"type": "record", "name": "com.example.Event", "fields": tree["fields"]}))

    async def play() -> None:
        rig = _Rig(LoopClock())
        decoder = Decoder(CONTRACTS, clock=rig.clock, schemas=[other])
        value = b"\xc3\x01" + other.fingerprint + (rig.records(1)[0].value or b"")[10:]
        found = decoder.plain(Record(TOPIC, 0, 0, 0, None, value, ()))
        assert found is not None
        assert found[1].name == "com.example.Event"
        assert (
            RouteTable.compile(job._settings("jiguang"), vendors.kinds()).only_destination(TOPIC, found[1].name) is None
        )

    run_virtual(play())
