"""A raw HTTP sink that accepts everything at once, so that it is never the bottleneck.

`python -m benchmarks.sink --delay 0.05` prints its port, answers every request as the vendor does after the delay, and
counts requests and events. `GET /` returns the counts as JSON. With `--latency` it also counts, for each second, how
many milliseconds passed from an event's `itime` to its acceptance.

`python -m benchmarks.sink --measure` measures the sink alone, with a client that writes prepared requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, cast

import psutil
import uvloop

from benchmarks.report import keep, table

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
_QUICK_AUDIENCE: Final = b'{"data":true,"errorCode":null,"errorDesc":null,"success":true,"traceId":"0"}'
ANSWERS: Final = {
    "jiguang": (b'"cuid":', b'{"code":0,"msg":"ok"}'),
    "quick_audience": (b'"eventCode":', _QUICK_AUDIENCE),
    "mytracker": (b'"customEventName":', b'{"message":"OK"}'),
    "jpush_report": (b"", b""),
}
"""By vendor, what stands once in each event of a body, and the answer of acceptance."""

_ITIME: Final = re.compile(rb'"itime":(\d+)')
FIGURES: Final = b'{"msg_id":%b,"android_received":1,"ios_apns_sent":1}'
CONNECTIONS: Final = 4
PIPELINED: Final = 8
BATCH: Final = 100


@dataclass(slots=True)
class Counts:
    """What has arrived; `latency` is by second and milliseconds."""

    requests: int = 0
    events: int = 0
    latency: dict[int, Counter[int]] = field(default_factory=dict)

    def told(self) -> bytes:
        """Return the counts as an HTTP answer."""
        body = {"requests": self.requests, "events": self.events, "latency": self.latency}
        text = json.dumps(body).encode()
        return HEAD % (len(text), text)


class Sink(asyncio.Protocol):
    """One connection: splits the stream into requests and answers each in order."""

    def __init__(self, counts: Counts, vendor: str, delay: float, *, latency: bool) -> None:
        self._counts = counts
        self._delay = delay
        self._latency = latency
        self._marker, accepted = ANSWERS[vendor]
        self._accepted = HEAD % (len(accepted), accepted)
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport for the answers."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is not a subclass

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            _, found, rest = head.partition(b"content-length:")
            size = end + 4 + (int(rest.partition(b"\r\n")[0]) if found else 0)
            if len(self._buffer) < size:
                return
            if head.startswith(b"get / "):
                self._write(self._counts.told(), ())
            elif head.startswith(b"get "):
                self._figures(head)
            else:
                self._counts.requests += 1
                self._counts.events += self._buffer.count(self._marker, end, size)
                times = _ITIME.findall(self._buffer, end, size) if self._latency else ()
                self._answer(self._accepted, times)
            del self._buffer[:size]

    def _figures(self, head: bytes) -> None:
        """Answer a JPush query with figures of every push that it names."""
        ids = head.partition(b"msg_ids=")[2].partition(b" ")[0].split(b",")
        body = b"[%b]" % b",".join([FIGURES % each for each in ids])
        self._counts.requests += 1
        self._counts.events += len(ids)
        self._answer(HEAD % (len(body), body), ())

    def _answer(self, answer: bytes, times: list[bytes] | tuple[()]) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write, answer, times)
        else:
            self._write(answer, times)

    def _write(self, answer: bytes, times: list[bytes] | tuple[()]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)
        if times:
            now = int(time.time() * 1000)
            for text, count in Counter(times).items():
                itime = int(text)
                self._counts.latency.setdefault(itime // 1000, Counter())[now - itime] += count


async def serve(vendor: str, delay: float, *, latency: bool) -> None:
    """Listen on a free port, print it, and answer until the process ends."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(counts, vendor, delay, latency=latency), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _ready_request() -> bytes:
    """Return a request of 100 events of the size that the connector sends."""
    one = b'{"cuid":10000001,"eventName":"order_submitted","properties":"%b"}' % (b"x" * 300)
    body = b"[%b]" % b",".join([one] * BATCH)
    head = b"POST /smartop/api/v1/events/report HTTP/1.1\r\nhost: sink\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + body


def measure(seconds: float) -> dict[str, float]:
    """Return how much the sink accepts from a client that only writes, and its CPU cost."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            address = ("127.0.0.1", int(child.stdout.readline()))
            connections = [socket.create_connection(address) for _ in range(CONNECTIONS)]
            block, answer = _ready_request() * PIPELINED, len(HEAD % (21, b"x" * 21))
            process, requests = psutil.Process(child.pid), 0
            begun, before = time.monotonic(), sum(process.cpu_times()[:2])
            while time.monotonic() < begun + seconds:
                for connection in connections:
                    connection.sendall(block)
                for connection in connections:
                    left = answer * PIPELINED
                    while left:
                        left -= len(connection.recv(left))
                    requests += PIPELINED
            took, cpu = time.monotonic() - begun, sum(process.cpu_times()[:2]) - before
            for connection in connections:
                connection.close()
        finally:
            child.kill()
    events = requests * BATCH
    return {
        "requests_per_second": requests / took,
        "records_per_second": events / took,
        "cpu_seconds_per_million": cpu / events * 1e6,
    }


def main() -> None:
    """Read the arguments and serve, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--vendor", choices=ANSWERS, default="jiguang", help="the vendor whose acceptance is returned")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a request is answered")
    parser.add_argument("--latency", action="store_true", help="count milliseconds since the events' itime")
    parser.add_argument("--measure", action="store_true", help="measure only the sink")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for --measure")
    arguments = parser.parse_args()
    if arguments.measure:
        found = measure(arguments.seconds)
        print(table(["", "requests/s", "records/s", "CPU s/million"], [["sink alone", *found.values()]]))
        keep("sink", {"seconds": arguments.seconds}, [found])
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.vendor, arguments.delay, latency=arguments.latency))


if __name__ == "__main__":
    main()
