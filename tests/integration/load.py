"""Events that keep coming, members that come and go, and whether in the end everything adds up.

The long form (`make faults`) runs as long as an operator would watch; the short one is part of every run of the tests.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.cimpl import Message as KafkaMessage

from connector.pipeline import offset_map as metadata
from tests.integration.events import FIRST_CUID, good
from tests.integration.job import DESTINATION, Job, Member, Vendor, wait_for

LONG: Final = os.environ.get("FAULTS") == "long"
"""Whether the long form was asked for."""

PROTOCOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cooperative": {},
    "kip-848": {"group.protocol": "consumer"},
    "static": {"group.instance.id": "member"},
}
"""The ways in which a group shares its partitions, as `kafka.client` properties; static members need a name each."""

_REFUSED_BY_KIP_848: Final = ("session.timeout.ms", "heartbeat.interval.ms")
_TICK_SECONDS: Final = 0.05

T = TypeVar("T")


def long_or(long: T, short: T) -> T:
    """Return what the form of this run wants."""
    return long if LONG else short


def settings_of(job: Job, vendor: Vendor, protocol: str = "cooperative", name: str = "", **more: Any) -> dict[str, Any]:
    """Return a member's settings; `name` tells static members apart, `more` are sections of the file."""
    settings = job.settings(vendor.destination, **more)
    client: dict[str, Any] = settings["kafka"]["client"]
    client |= PROTOCOLS[protocol]
    if client.get("group.protocol") == "consumer":
        for refused in _REFUSED_BY_KIP_848:
            del client[refused]
    if "group.instance.id" in client:
        client["group.instance.id"] += name
    return settings


class Load:
    """Writes good events, `rate` a second, from entering the context until `stop` or its end.

    It waits out a broker that is away, and writes each event once however often it is cut off.
    """

    def __init__(self, job: Job, rate: int, limit: int | None = None) -> None:
        self._job = job
        self._rate = rate
        self._limit = limit
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._failed: list[str] = []
        self.places: dict[int, tuple[int, int]] = {}
        """Partition and offset of each event, by its number."""

    @property
    def written(self) -> int:
        """How many events Kafka has."""
        return len(self.places)

    @property
    def cuids(self) -> set[int]:
        """The users whose events Kafka has, one each."""
        return {FIRST_CUID + number for number in self.places}

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, if it was not stopped."""
        self._enough.set()
        self._thread.join(60)

    def stop(self) -> None:
        """Write no more; returns when Kafka has all that was begun, and fails where it has not."""
        self._enough.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "Kafka does not take the last events"
        assert not self._failed, self._failed[0]

    def until_written(self, count: int) -> None:
        """Wait until Kafka has so many events."""
        wait_for(lambda: self.written >= count or self._failed, f"{count} events in Kafka")

    def _run(self) -> None:
        # A retry of the producer's own would be a second record with an id of its own, so it has to be idempotent.
        producer = Producer(
            {
                "bootstrap.servers": self._job.kafka.bootstrap,
                "enable.idempotence": True,
                "topic.metadata.refresh.interval.ms": 1000,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        began, number = time.monotonic(), 0
        while not self._enough.wait(_TICK_SECONDS):
            due = int((time.monotonic() - began) * self._rate)
            until = min(due, self._limit or due)
            for message, one in zip(good(range(number, until)), range(number, until), strict=True):
                producer.produce(self._job.topic, message.value, message.key, on_delivery=self._note(one))
            number = until
            producer.poll(0)
            if number == self._limit:
                break
        producer.flush(50)

    def _note(self, number: int) -> Callable[[object, KafkaMessage], None]:
        def note(error: object, written: KafkaMessage) -> None:
            place = written.partition(), written.offset()
            if error is not None or place[0] is None or place[1] is None:
                self._failed.append(f"event {number} is not written: {error}")
            else:
                self.places[number] = (place[0], place[1])

        return note


def each_once(vendor: Vendor, load: Load) -> None:
    """Assert that the vendor accepted every event, and none of them twice."""
    assert load.cuids - vendor.cuids.keys() == set(), "lost"
    assert vendor.cuids.keys() - load.cuids == set(), "never written"
    assert repeated(vendor) == {}


def each_at_least_once(vendor: Vendor, load: Load) -> None:
    """Assert that the vendor accepted every event, and each under one dedup id however often it came."""
    assert load.cuids - vendor.cuids.keys() == set(), "lost"
    assert vendor.cuids.keys() - load.cuids == set(), "never written"
    ids: dict[int, set[str]] = defaultdict(set)
    for each in vendor.accepted:
        ids[each["cuid"]].add(each["randomId"])
    assert {cuid: found for cuid, found in ids.items() if len(found) != 1} == {}
    assert len({each["randomId"] for each in vendor.accepted}) == load.written


def repeated(vendor: Vendor) -> dict[int, int]:
    """Return the events that were accepted more than once, and how often."""
    return {cuid: times for cuid, times in vendor.cuids.items() if times > 1}


def owned(job: Job, *members: Member) -> list[int]:
    """Return how many partitions of the source each member has; the replay topic's are left out."""
    return [sum(one["topic"] == job.topic for one in member.status()["partitions"]) for member in members]


@contextmanager
def frozen(member: Member) -> Iterator[None]:
    """Stop a member's time, as a machine that is suspended does; it goes on when the context ends."""
    member._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        member._process.send_signal(signal.SIGCONT)


def runs(member: Member) -> bool:
    """Tell whether a member's process lives."""
    return member._process.poll() is None


def show(test: str, **figures: object) -> None:
    """Print what was measured: `make faults` shows it, other runs keep it for a failure."""
    print(f"{test}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))


class Done:
    """What the group's commits say is finished, read while no member runs; the vendor has to have all of it."""

    def __init__(self, job: Job, load: Load, vendor: Vendor) -> None:
        committed = _committed(job)
        self._cuids = {
            FIRST_CUID + number
            for number, (partition, offset) in load.places.copy().items()
            if committed[partition](offset)
        }
        self._accepted = vendor.cuids
        assert self._cuids <= self._accepted.keys(), "committed and not accepted"

    def check(self, vendor: Vendor) -> None:
        """Assert that none of it has come again since."""
        now = vendor.cuids
        again = {cuid: now[cuid] for cuid in self._cuids if now[cuid] != self._accepted[cuid]}
        assert again == {}, "sent again although a commit says that it is finished"

    def __len__(self) -> int:
        """Return how many events are finished."""
        return len(self._cuids)


def _committed(job: Job) -> dict[int, Callable[[int], bool]]:
    """Return for each partition which offsets are finished, by watermark and map."""
    places = [TopicPartition(job.topic, number) for number in range(job.partitions)]
    found = wait_for(lambda: job.asked_committed(places), "an answer of the group's coordinator")
    return {one.partition: _finished(max(0, one.offset), (one.metadata or "").rstrip("\0")) for one in found}


def _finished(watermark: int, text: str) -> Callable[[int], bool]:
    above = metadata.decode(watermark, text).done(DESTINATION)
    return lambda offset: offset < watermark or above.contains(offset)
