"""The floor: the connector's own compiled items and transport, and nothing else around them.

It consumes, writes items, cuts batches, posts them and commits, without routing, trackers, dead letters, pacing,
isolation, metrics or a buffer. What the connector takes beyond it is the price of its promise. For Jiguang only.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from functools import partial
from operator import attrgetter

import uvloop
from confluent_kafka import Message

from benchmarks.plain_script import Offsets, deliver, schema_of, subscribed
from benchmarks.workloads import WORKLOADS
from connector import vendors
from connector.codec.frames import WIRE_MAGIC
from connector.codec.reader import items_of, reader_of
from connector.config.models import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.kafka.client import records_of
from connector.pipeline.batching import Delivery, Offer
from connector.records import Item
from connector.vendors.base import Accepted, Shaped


async def main(bootstrap: str, topic: str, registry: str, sink: str, window: str, group: str) -> None:
    """Deliver until SIGTERM, then commit and leave."""
    tree = schema_of(registry)
    kind, account = vendors.kinds()["jiguang"], WORKLOADS["jiguang"].account
    vendor = kind.build(kind.settings(vendor="jiguang", base_url=sink.rpartition("/smartop")[0], **account))
    assert isinstance(vendor, Shaped)
    read = reader_of(tree, tagged=True, as_json={(kind.schema, name) for name in kind.as_json}, logical=False)
    maker = items_of(read, vendor.shape)
    assert maker is not None
    transport = HttpTransport("sink", HttpSettings(), int(window))

    async def post(deliveries: list[Delivery]) -> Offsets:
        items = [delivery.item for delivery in deliveries]
        while True:
            request = vendor.request(None, items, int(time.time() * 1000))
            verdict = vendor.read(await transport.send(request, 10), None, items, 0)
            if isinstance(verdict, Accepted):
                return {(d.record.topic, d.record.partition): d.record.offset + 1 for d in deliveries}
            await asyncio.sleep(1)

    def made(messages: list[Message]) -> list[Delivery]:
        now, prefix, found = int(time.time() * 1000), WIRE_MAGIC + (1).to_bytes(4), []
        for _, run in itertools.groupby(records_of(messages), attrgetter("partition")):
            make = partial(maker, list(run), prefix, b"cluster/topic/3/", now, 0, 1 << 20, 0)
            found += [delivery for offer in make(Item, Delivery, Offer, None, 1) for delivery in offer.deliveries]
        if len(found) != len(messages):
            raise SystemExit("a record is not plain")
        return found

    await deliver(subscribed(bootstrap, topic, group), int(window), post, records=1000, seconds=0.01, prepared=made)
    await transport.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
