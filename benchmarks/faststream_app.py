"""A peer: the plain script's job with FastStream on confluent-kafka, in batches of 100 and a window of requests.

FastStream is no dependency of this project. Run `pip install 'faststream[confluent]'` first. Kafka's client commits by
itself: FastStream can commit only the position that it has read to, and that is no proof of a delivery.
"""

import asyncio
import importlib
import signal
import sys
from typing import Any

import aiohttp
import uvloop
from fastavro import parse_schema

from benchmarks.plain_script import BATCH, post, schema_of


async def main(bootstrap: str, topic: str, registry: str, sink: str, window: str, group: str) -> None:
    """Deliver until SIGTERM, then wait for the requests in flight and leave."""
    faststream, confluent = importlib.import_module("faststream"), importlib.import_module("faststream.confluent")
    stop, schema, free = asyncio.Event(), parse_schema(schema_of(registry)), asyncio.Semaphore(int(window))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    broker = confluent.KafkaBroker(bootstrap, logger=None)
    flying: set[asyncio.Task[Any]] = set()
    headers = {"content-type": "application/json", "authorization": "Basic MTpzZWNyZXQ="}

    def landed(task: asyncio.Task[Any]) -> None:
        flying.discard(task)
        free.release()

    async with aiohttp.ClientSession(headers=headers) as http:

        async def deliver(batch: Any) -> None:
            await free.acquire()
            task = asyncio.create_task(post(http, sink, schema, batch.raw_message))
            flying.add(task)
            task.add_done_callback(landed)

        # Its way of injecting the whole message reads the annotation.
        deliver.__annotations__["batch"] = confluent.KafkaMessage
        broker.subscriber(
            topic,
            group_id=group,
            auto_offset_reset="earliest",
            batch=True,
            max_records=BATCH,
            ack_policy=faststream.AckPolicy.ACK_FIRST,
            decoder=lambda message: message.body,
        )(deliver)
        await broker.start()
        await stop.wait()
        await asyncio.gather(*flying)
        await broker.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
