"""Connections that are cut, delayed, or say nothing at all: to Kafka, to the registry, to the vendor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from confluent_kafka.admin import AdminClient

from connector.testing.faults import Fault
from tests.integration.events import SCHEMA, good, register
from tests.integration.job import DESTINATION, Job, Member, Vendor
from tests.integration.load import Load, each_at_least_once, each_once, long_or, repeated, settings_of, show
from tools.servers import Kafka, Registry
from tools.toxiproxy import Proxy, Toxiproxy, missing_toxiproxy

ROUNDS: Final = long_or(5, 1)
RATE: Final = 400

Harm = Callable[[Proxy], None]

CUTS: Final[dict[str, Harm]] = {
    "cut": lambda proxy: proxy.cut(),
    "silent": lambda proxy: proxy.poison("timeout", timeout=0),
}
DELAYS: Final[dict[str, Harm]] = {
    "delayed": lambda proxy: proxy.poison("latency", latency=300, jitter=100),
    "sliced": lambda proxy: proxy.poison("slicer", average_size=500, size_variation=300, delay=200),
}


@pytest.fixture(scope="module")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    """A running Toxiproxy."""
    fault = missing_toxiproxy()
    if fault is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(fault, pytrace=False)
        pytest.skip(fault)
    with Toxiproxy(tmp_path_factory.mktemp("toxiproxy")) as server:
        yield server


@pytest.fixture
def way_to_kafka(toxiproxy: Toxiproxy, kafka: Kafka) -> Iterator[Proxy]:
    """A proxy through which clients of `kafka.proxied` reach the broker, well."""
    proxy = toxiproxy.proxy(kafka.behind_proxy, kafka.proxied)
    yield proxy
    proxy.remove()


def _through(kafka: Kafka, settings: dict[str, Any], **client: Any) -> dict[str, Any]:
    settings["kafka"]["client"] |= {"bootstrap.servers": kafka.proxied, **client}
    return settings


def _until_more(member: Member, vendor: Vendor, count: int) -> None:
    before = len(vendor.cuids)
    member.wait(lambda: len(vendor.cuids) >= before + count, f"{count} more events at the vendor")


@pytest.mark.promise("P1")
@pytest.mark.timeout(long_or(300, 120))
@pytest.mark.parametrize("harm", CUTS)
def test_a_way_to_kafka_that_is_gone_for_a_while_loses_nothing(
    harm: str, way_to_kafka: Proxy, kafka: Kafka, job: Job, vendor: Vendor
) -> None:
    """Connections to Kafka break, or nothing passes, longer than a session: the member lives and delivers everything.

    Kills: a lost assignment's work that is committed all the same, a lost connection that ends the process.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.1))
    settings = _through(kafka, settings_of(job, vendor), **{"session.timeout.ms": 2500, "socket.timeout.ms": 3000})
    with Load(job, RATE) as load:
        member = job.start(settings)
        for _ in range(ROUNDS):
            _until_more(member, vendor, 300)
            CUTS[harm](way_to_kafka)
            member.wait(lambda: not _members(job), "the end of its session")
            way_to_kafka.heal()
            _until_more(member, vendor, 300)
        load.stop()
        job.until_done(member)
    assert member.stop() == 0
    each_at_least_once(vendor, load)
    assert job.dead_letters() == []
    show("no way to Kafka", harm=harm, rounds=ROUNDS, events=load.written, came_again=len(repeated(vendor)))


def _members(job: Job) -> int:
    """Return how many members the group has, as the broker sees it."""
    admin = AdminClient({"bootstrap.servers": job.kafka.bootstrap})
    return len(admin.describe_consumer_groups([job.group], request_timeout=10)[job.group].result(15).members)


@pytest.mark.promise("P3")
@pytest.mark.parametrize("harm", long_or(list(DELAYS), ["delayed"]))
def test_a_slow_way_to_kafka_costs_time_only(
    harm: str, way_to_kafka: Proxy, kafka: Kafka, job: Job, vendor: Vendor
) -> None:
    """With every answer of Kafka late, a stop and a start under load still repeat nothing.

    Kills: a commit at the stop that is not awaited, a closing that gives a slow coordinator up.
    """
    DELAYS[harm](way_to_kafka)
    settings = _through(kafka, settings_of(job, vendor))
    with Load(job, RATE) as load:
        member = job.start(settings)
        _until_more(member, vendor, 500)
        assert member.stop() == 0
        member = job.start(settings)
        _until_more(member, vendor, 500)
        load.stop()
        job.until_done(member)
        assert member.stop() == 0
    each_once(vendor, load)
    assert job.dead_letters() == []


@pytest.mark.promise("P6")
@pytest.mark.parametrize("harm", long_or([*CUTS, *DELAYS], ["cut", "silent"]))
def test_records_wait_for_a_registry_that_cannot_be_reached(
    harm: str, toxiproxy: Toxiproxy, registry: Registry, job: Job, vendor: Vendor
) -> None:
    """The way to the registry is cut, silent or slow: no record is a dead letter, and all arrive once it is well.

    Kills: a connection error or a time-out of the registry that is taken for an unknown schema.
    """
    url = urlsplit(registry.url)
    way = toxiproxy.proxy(f"{url.hostname}:{url.port}")
    schema_id = register(registry, f"{job.topic}-value", SCHEMA)
    count = 200
    job.produce(good(range(count), schema_id))
    (CUTS | DELAYS)[harm](way)
    settings = settings_of(job, vendor, schema_registry={"url": url._replace(netloc=way.address).geturl()})
    member = job.start(settings)
    if harm in CUTS:
        member.until_held("registry")
        assert vendor.accepted == []
        assert member.get("/readyz")[0] == 200
        way.heal()
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == count
    assert job.dead_letters() == []


VENDOR_HARMS: Final[dict[str, Harm]] = {
    **CUTS,
    "reset": lambda proxy: proxy.poison("reset_peer", timeout=20),
    "half an answer": lambda proxy: proxy.poison("limit_data", bytes=40),
    "half a request": lambda proxy: proxy.poison("limit_data", "upstream", bytes=3000),
}


@pytest.mark.promise("P1")
@pytest.mark.promise("P6")
@pytest.mark.timeout(long_or(300, 120))
@pytest.mark.parametrize("harm", long_or(list(VENDOR_HARMS), ["silent", "reset", "half an answer"]))
def test_a_way_to_the_vendor_that_breaks_loses_nothing(
    harm: str, toxiproxy: Toxiproxy, job: Job, vendor: Vendor
) -> None:
    """Connections to the vendor break, in a request or in an answer: everything arrives, repeats with the same id.

    Kills: half an answer that is taken for success, a broken connection that is the fault of the records in it.
    """
    url = urlsplit(vendor.destination["base_url"])
    way = toxiproxy.proxy(f"{url.hostname}:{url.port}")
    settings = settings_of(job, vendor)
    settings["destinations"][DESTINATION] |= {"base_url": f"http://{way.address}{url.path}", "timeout": "1s"}
    with Load(job, RATE) as load:
        member = job.start(settings)
        for _ in range(ROUNDS):
            _until_more(member, vendor, 200)
            VENDOR_HARMS[harm](way)
            member.wait(lambda: member.destination()["state"] != "flowing", "a state that shows the trouble")
            way.heal()
            _until_more(member, vendor, 200)
        load.stop()
        job.until_done(member)
    assert member.stop() == 0
    each_at_least_once(vendor, load)
    assert job.dead_letters() == []
    show("no way to the vendor", harm=harm, events=load.written, came_again=len(repeated(vendor)))
