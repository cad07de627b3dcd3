"""Memory stays bounded whatever a vendor does; `benchmarks/memory.py` measures the same with a million records."""

from __future__ import annotations

import sys
from random import Random
from typing import Final

import pytest

from connector.testing.faults import Fault
from tests.integration.events import Message, datum_bytes, event, single_object
from tests.integration.job import Job, Vendor

BUFFER: Final = 24 * 2**20
BOUND: Final = 1.5
COMPRESSED: Final = 60_000
WAITING: Final = {200: 40_000, 100_000: 600}
"""By their size, so many records as are more than memory may hold."""


@pytest.mark.promise("P12")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to read a process's peak of memory")
@pytest.mark.parametrize("size", WAITING)
def test_a_vendor_that_hangs_fills_the_buffer_and_no_more(size: int, job: Job, vendor: Vendor) -> None:
    """With far more records waiting than fit, the process stays below its idle size and 1.5 times `limits.buffer`.

    Kills: intake that goes on above the budget, an unbounded client queue or poll.
    """
    vendor.arm(Fault("hang"))
    given = job.settings({**vendor.destination, "timeout": "1s"}, limits={"buffer": BUFFER})
    idle = job.start(given)
    idle.wait(lambda: idle.lines("partitions.assigned"), "its partitions")
    base = idle.peak_bytes
    assert idle.stop() == 0

    value = single_object(datum_bytes(event(1, properties={"filling": "x" * (size - 60)})))
    job.produce(Message(value, b"%d" % number) for number in range(WAITING[size]))
    member = job.start(given)
    limit = member.wait(lambda: member.metric("connector_buffer_limit_bytes"), "the limit")
    member.wait(lambda: member.metric("connector_buffer_bytes") >= limit, "a full buffer")
    member.until_held("outage")
    asked = len(vendor.served)
    member.wait(lambda: len(vendor.served) >= asked + 2, "two probes")
    assert member.status()["buffer"]["filled_by"] == "jg"
    assert member.peak_bytes <= base + BOUND * BUFFER
    member.kill()


@pytest.mark.promise("P12")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to read a process's peak of memory")
def test_a_topic_that_compresses_168_times_takes_no_more_memory(job: Job, vendor: Vendor) -> None:
    """Kafka's limits of a fetch count compressed bytes; what a fetch unpacks to stays within the same bound.

    Kills: fetches of 1 MiB, which unpack to 170 MiB and more.
    """
    vendor.arm(Fault("hang"))
    given = job.settings({**vendor.destination, "timeout": "1s"}, limits={"buffer": BUFFER})
    idle = job.start(given)
    idle.wait(lambda: idle.lines("partitions.assigned"), "its partitions")
    base = idle.peak_bytes
    assert idle.stop() == 0

    random = Random(1)
    messages = (
        Message(
            single_object(datum_bytes(event(number, properties={"filling": random.randbytes(8).hex() + "x" * 4000}))),
            partition=number // 250 % job.partitions,
        )
        for number in range(COMPRESSED)
    )
    job.produce(messages, compression_type="zstd", linger_ms=200, batch_size=2**20)
    member = job.start(given)
    limit = member.wait(lambda: member.metric("connector_buffer_limit_bytes"), "the limit")
    member.wait(lambda: member.metric("connector_buffer_bytes") >= limit, "a full buffer")
    member.until_held("outage")
    asked = len(vendor.served)
    member.wait(lambda: len(vendor.served) >= asked + 2, "two probes")
    assert member.peak_bytes <= base + BOUND * BUFFER, (member.peak_bytes - base) / BUFFER
    member.kill()
