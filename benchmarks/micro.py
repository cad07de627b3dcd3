"""Measures each step of a record alone, in tight loops: the lowest of many rounds, in CPU microseconds per record.

No Kafka and no sockets. The last line is the whole pipeline in memory (`benchmarks.job`), including everything between
the steps.

    python -m benchmarks.micro --seconds 1
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final

import orjson
import prometheus_client
import structlog
import uvloop
from fastavro import parse_schema, schemaless_reader
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from benchmarks import job
from benchmarks.report import keep, table
from benchmarks.workloads import WORKLOADS
from connector import vendors
from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.frames import SINGLE_LENGTH
from connector.codec.reader import reader_of
from connector.codec.schemas import Contracts, load_contracts, without_logical_types
from connector.config.models import KafkaSettings, Settings
from connector.config.routes import RouteSettings
from connector.pipeline.batching import FIXED_CHARGE, Delivery, Offer, OpenBatch
from connector.pipeline.offset_map import FinishedMap, Runs, decode, encode
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.records import Event, Item, Record, uuid5_text
from connector.routing.compiler import passed_on
from connector.routing.table import RouteTable, position_identity
from connector.telemetry.metrics import DEFINITIONS, Histogram
from connector.vendors.base import Shaped, VendorEvent

RECORDS: Final = 200
HOLES: Final = 500
ROUND_SECONDS: Final = 0.01
JOB_RECORDS: Final = 10_000
BIT: Final = destination_bit(0)
Step = tuple[str, int, Callable[[], object]]
"""Name, number of records per call, and the call."""


def lowest(count: int, work: Callable[[], object], seconds: float) -> tuple[float, int]:
    """Return the lowest CPU microseconds per item, and the number of rounds, at least ten.

    A round repeats the call for `ROUND_SECONDS`, because a virtual machine's CPU clock may stand still for less.
    """
    begun = time.perf_counter()
    work()
    calls = max(1, round(ROUND_SECONDS / max(time.perf_counter() - begun, 1e-9)))
    best, rounds, ended = float("inf"), 0, time.perf_counter() + seconds
    gc.collect()
    gc.freeze()
    while rounds < 10 or time.perf_counter() < ended:
        begun = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, (time.process_time() - begun) / calls)
        rounds += 1
    gc.unfreeze()
    return best / count * 1e6, rounds


def decoding(contracts: Contracts, made: Sequence[Record]) -> list[Step]:
    """Return decoding by our reader, by fastavro, and by the whole decoder."""
    schema = contracts.schemas[job.SCHEMA].tree
    as_json = {(job.SCHEMA, name) for name in vendors.kinds()["jiguang"].as_json}
    decoder = Decoder(contracts, clock=SystemClock(), as_json=as_json)
    ours = reader_of(schema, tagged=True, as_json=as_json, logical=False)
    parsed = parse_schema(without_logical_types(schema))
    values = [record.value or b"" for record in made]

    bare = [value[SINGLE_LENGTH:] for value in values]
    return [
        ("decode: our reader", len(made), lambda: [ours(value, SINGLE_LENGTH) for value in values]),
        ("decode: fastavro", len(made), lambda: [schemaless_reader(BytesIO(value), parsed, None) for value in bare]),
        ("decode: Decoder.event", len(made), lambda: [decoder.event(record) for record in made]),
    ]


def preparing(contracts: Contracts, made: Sequence[Record]) -> list[Step]:
    """Return routing, and encoding for each vendor, as intake does them."""
    kinds = vendors.kinds()
    now = int(time.time() * 1000)
    steps: list[Step] = []
    for vendor, workload in WORKLOADS.items():
        account: Mapping[str, Any] = {"vendor": vendor, "base_url": "http://sink", **workload.account}
        settings = Settings(
            kafka=KafkaSettings(topics=(job.TOPIC,), group_id="micro", client={"bootstrap.servers": "none"}),
            destinations={job.NAME: kinds[vendor].settings(**account)},
        )
        routes = RouteTable.compile(settings, kinds)
        encoded = Encoder(contracts, clock=SystemClock())
        decoder = Decoder(contracts, clock=SystemClock(), as_json=passed_on(settings, kinds))
        name = kinds[vendor].schema
        events = [
            decoder.event(replace(record, value=encoded.single_object(name, workload.event(number, now))))
            for number, record in enumerate(made)
        ]
        built = kinds[vendor].build(settings.destinations[job.NAME])
        plan = routes.plan(job.TOPIC, name)
        if vendor == "jiguang":
            steps.append(("route", len(made), _routing(plan, events, made)))
        routed = [plan(event, record, "cluster")[0].event for event, record in zip(events, made, strict=True)]
        ready = [event for event in routed if isinstance(event, VendorEvent)]
        assert len(ready) == len(made)
        steps.append((f"encode: {vendor}", len(made), _encoding(built.group, built.encode, ready, now)))
    return steps


def mapping(made: Sequence[Record]) -> list[Step]:
    """Return routing and mapping events of a foreign schema: plain paths, values that are changed, and expressions."""
    kinds = vendors.kinds()
    account: Mapping[str, Any] = {"vendor": "jiguang", "base_url": "http://sink", **WORKLOADS["jiguang"].account}
    plain = {"cuid": "user.id", "eventName": "name", "itime": "at", "properties": "attributes"}
    skus = {"map": {"skus": "items[].sku", "platform": "platform"}}
    forms: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "plain paths": (plain, {"platform": ["ios", "android"]}),
        "a map of parts": ({**plain, "properties": skus}, {"platform": {"in": ["ios"]}}),
        "a hash": ({**plain, "randomId": {"path": "user.email", "hash": "sha256"}}, {"at": {"gt": 0}}),
        "an expression": ({**plain, "randomId": {"cel": "event.name + ':' + event.platform"}}, {}),
        "a second expression": (
            {**plain, "randomId": {"cel": "event.name + ':' + event.platform"}},
            {"cel": "event.platform in ['ios', 'android']"},
        ),
        "a sum over a list": ({**plain, "properties": {"map": {"n": {"cel": "sum(event.items.map(i, i.qty))"}}}}, {}),
    }
    events = [
        Event(
            "com.acme.Order",
            {
                "user": {"id": number, "email": f"user-{number}@example.com"},
                "name": "see",
                "at": 1_700_000_000_000 + number,
                "platform": "ios",
                "attributes": {"page": "home", "n": number, "new": True},
                "items": [{"sku": "tea", "qty": number}, {"sku": "cup", "qty": 1}],
            },
        )
        for number, _ in enumerate(made)
    ]
    steps: list[Step] = []
    for name, (fields, where) in forms.items():
        route = {"schema": "com.acme.Order", "where": where, "to": [job.NAME], "fields": {"jiguang": fields}}
        settings = Settings(
            kafka=KafkaSettings(topics=(job.TOPIC,), group_id="micro", client={"bootstrap.servers": "none"}),
            destinations={job.NAME: kinds["jiguang"].settings(**account)},
            routes=[RouteSettings.model_validate(route)],
        )
        plan = RouteTable.compile(settings, kinds).plan(job.TOPIC, "com.acme.Order")
        steps.append((f"map: {name}", len(made), _routing(plan, events, made)))
    return steps


def _routing(plan: Callable[..., object], events: Sequence[Event], made: Sequence[Record]) -> Callable[[], object]:
    return lambda: [plan(event, record, "cluster") for event, record in zip(events, made, strict=True)]


def _encoding(
    group: Callable[[VendorEvent], object],
    encode_one: Callable[[VendorEvent, int], Item],
    ready: Sequence[VendorEvent],
    now: int,
) -> Callable[[], object]:
    def work() -> None:
        for event in ready:
            group(event)
            encode_one(event, now)

    return work


def at_once(contracts: Contracts) -> list[Step]:
    """Return making deliveries of plain records in compiled code, for each vendor that has a shape."""
    steps: list[Step] = []
    clock, kinds = SystemClock(), vendors.kinds()
    for name, kind in kinds.items():
        vendor = kind.build(kind.settings(vendor=name, base_url="http://sink", **WORKLOADS[name].account))
        if not isinstance(vendor, Shaped):
            continue
        made = job.records(RECORDS, clock, contracts, partitions=1, name=name)
        decoder = Decoder(contracts, clock=clock, as_json={(kind.schema, field) for field in kind.as_json})
        found = decoder.plain(made[0])
        maker = None if found is None else found[1].maker(vendor.shape)
        assert found is not None
        assert maker is not None
        tracker, now = PartitionTracker(job.TOPIC, 0, 0, [job.NAME]), int(clock.wall() * 1000)
        fixed = (found[0], b"cluster/events/0/", now, 0, vendor.limits(None).bytes, FIXED_CHARGE)
        work = partial(maker, made, *fixed, Item, Delivery, Offer, tracker, BIT)
        assert sum(len(offer.deliveries) for offer in work()) == RECORDS
        steps.append((f"value to delivery, at once: {name}", RECORDS, work))
    return steps


def batching(made: Sequence[Record]) -> list[Step]:
    """Return filling batches of 100, and building their requests."""
    kinds = vendors.kinds()
    settings = kinds["jiguang"].settings(vendor="jiguang", **WORKLOADS["jiguang"].account)
    vendor = kinds["jiguang"].build(settings)
    limits, item = vendor.limits(None), Item(b"x" * 360)
    tracker = PartitionTracker(job.TOPIC, 0, 0, [job.NAME])
    deliveries = [Delivery(record, tracker, BIT, item, "identity", 768) for record in made]

    def fill() -> None:
        added = 0
        while added < len(deliveries):
            batch = OpenBatch(None, limits, 0.0)
            added += batch.fill(deliveries[added:])
            batch.close("records")

    def build() -> None:
        for _ in range(len(made) // 100):
            vendor.request(None, [item] * 100, 0)

    return [
        ("delivery object", len(made), lambda: [Delivery(one, tracker, BIT, item, "identity", 768) for one in made]),
        ("batch: fill and close", len(made), fill),
        ("batch: request", len(made), build),
    ]


def tracking() -> list[Step]:
    """Return the tracking of a partition, in order and backwards, and its offset map."""

    def work(offsets: Sequence[int]) -> Callable[[], object]:
        def run() -> None:
            tracker = PartitionTracker(job.TOPIC, 0, 0, [job.NAME])
            for offset in range(RECORDS):
                tracker.begin((offset,))
                tracker.route((offset,), BIT)
            for offset in offsets:
                tracker.finish((offset,), BIT)
            tracker.snapshot()

        return run

    finished = FinishedMap(Runs(tuple(bound for hole in range(HOLES) for bound in (hole * 20 + 3, hole * 20 + 20))))
    text = encode(0, finished).text
    return [
        ("tracker: in order", RECORDS, work(range(RECORDS))),
        ("tracker: backwards", RECORDS, work(range(RECORDS)[::-1])),
        (f"offset map of {HOLES} holes: encode, each commit", 1, lambda: encode(0, finished)),
        (f"offset map of {HOLES} holes: decode, each assignment", 1, lambda: decode(0, text)),
    ]


def small(made: Sequence[Record]) -> list[Step]:
    """Return the dedup id and the JSON of an event, and the standard library's dedup id."""
    names = [position_identity("cluster", record) for record in made]
    namespace = uuid.uuid4()
    datum = WORKLOADS["jiguang"].event(1, int(time.time() * 1000))
    return [
        ("dedup id", len(made), lambda: [uuid5_text(name) for name in names]),
        ("dedup id: uuid.uuid5", len(made), lambda: [str(uuid.uuid5(namespace, name)) for name in names]),
        ("JSON: orjson", len(made), lambda: [orjson.dumps(datum) for _ in made]),
    ]


def counting() -> list[Step]:
    """Return counting the delivery delays of a batch, with our histogram and with the one of prometheus_client."""
    (definition,) = (one for one in DEFINITIONS if one.name == "delivery_delay_seconds")
    ours = Histogram(definition).labels(job.NAME)
    theirs = prometheus_client.Histogram(
        definition.name, definition.meaning, definition.labels, buckets=definition.buckets, registry=CollectorRegistry()
    ).labels(job.NAME)
    now = time.time()
    times = [int((now - 0.3) * 1000) + number for number in range(100)]

    def observe() -> None:
        for moment in times:
            theirs.observe(now - moment / 1000)

    return [
        ("delivery delay: our histogram", len(times), lambda: ours.observe_since(times, now)),
        ("delivery delay: prometheus_client", len(times), observe),
    ]


def whole(contracts: Contracts, name: str) -> Step:
    """Return a job: every record through the real pipeline, fed from memory."""
    clock = SystemClock()
    made = job.records(JOB_RECORDS, clock, contracts, name=name)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            committed = runner.run(job.play(job.MemorySource(made), clock, contracts, name))
        assert sum(committed.values()) == JOB_RECORDS

    return f"the whole pipeline in memory: {name}", JOB_RECORDS, run


def main() -> None:
    """Measure, print and store the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per step")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    contracts = load_contracts()
    made = job.records(RECORDS, SystemClock(), contracts)
    steps = [
        *decoding(contracts, made),
        *preparing(contracts, made),
        *at_once(contracts),
        *mapping(made),
        *small(made),
        *batching(made),
        *tracking(),
        *counting(),
        *(whole(contracts, name) for name in job.JOBS),
    ]
    found: list[dict[str, Any]] = []
    for name, count, work in steps:
        micros, rounds = lowest(count, work, arguments.seconds)
        found.append({"step": name, "microseconds": micros, "rounds": rounds})
    print(
        table(["step", "µs", "rounds"], [[one["step"], f"{one['microseconds']:.2f}", one["rounds"]] for one in found])
    )
    keep("micro", vars(arguments), found)


if __name__ == "__main__":
    main()
