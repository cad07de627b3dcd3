"""The reference: a script without validation, dead letters and isolation, as one would write it in an afternoon.

It keeps a window of requests in flight, and commits once a second what is delivered without a gap.
"""

import asyncio
import io
import json
import signal
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import orjson
import uvloop
from confluent_kafka import Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader

BATCH = 100
Offsets = dict[tuple[str, int], int]


def schema_of(registry: str) -> Any:
    """Read the only schema from the registry."""
    with urllib.request.urlopen(f"{registry}/schemas/ids/1") as answer:  # noqa: S310 -- the benchmark's own stub
        return json.loads(json.load(answer)["schema"])


async def post(http: aiohttp.ClientSession, sink: str, schema: Any, messages: list[Any]) -> Offsets:
    """Send one batch until it is accepted. Return the offsets that may be committed for it."""
    events: list[Any] = [schemaless_reader(io.BytesIO(message.value()[5:]), schema, None) for message in messages]
    body = orjson.dumps({"appKey": "key", "data": [{k: v for k, v in e.items() if v is not None} for e in events]})
    while True:
        async with http.post(sink, data=body) as answer:
            if answer.status == 200 and orjson.loads(await answer.read())["code"] == 0:
                return {(m.topic(), m.partition()): m.offset() + 1 for m in messages}
        await asyncio.sleep(1)


async def deliver(
    consumer: Consumer,
    window: int,
    post: Callable[[list[Any]], Coroutine[Any, Any, Offsets]],
    *,
    records: int = 500,
    seconds: float = 0.05,
    prepared: Callable[[list[Any]], list[Any]] = list,
) -> None:
    """Post what is consumed, in batches, until SIGTERM; then commit and leave. A poll takes `records` or `seconds`."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    flying: deque[asyncio.Task[Offsets]] = deque()
    waiting: list[Any] = []
    done: Offsets = {}
    committed = time.monotonic()
    while not stop.is_set():
        waiting += prepared(await loop.run_in_executor(None, consumer.consume, records, seconds))
        while waiting:
            batch, waiting = waiting[:BATCH], waiting[BATCH:]
            flying.append(asyncio.create_task(post(batch)))
        while flying and (flying[0].done() or len(flying) > window):
            done |= await flying.popleft()
        if done and time.monotonic() - committed > 1:
            consumer.commit(offsets=[TopicPartition(*where, offset) for where, offset in done.items()])
            done, committed = {}, time.monotonic()
    for task in flying:
        done |= await task
    if done:
        consumer.commit(offsets=[TopicPartition(*w, o) for w, o in done.items()], asynchronous=False)
    consumer.close()


def subscribed(bootstrap: str, topic: str, group: str) -> Consumer:
    """Return a consumer of the topic that commits only what it is told to."""
    properties = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer({**properties, "enable.auto.commit": False})
    consumer.subscribe([topic])
    return consumer


async def main(bootstrap: str, topic: str, registry: str, sink: str, window: str, group: str) -> None:
    """Deliver until SIGTERM."""
    schema = parse_schema(schema_of(registry))
    headers = {"content-type": "application/json", "authorization": "Basic MTpzZWNyZXQ="}
    async with aiohttp.ClientSession(headers=headers) as http:
        await deliver(subscribed(bootstrap, topic, group), int(window), partial(post, http, sink, schema))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
