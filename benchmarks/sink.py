"""A vendor that says yes at once: a raw HTTP sink that must not be the limit of what is measured.

`python -m benchmarks.sink --delay 0.05` prints its port, answers every POST as Jiguang does after the delay, and counts
requests and events; a GET tells the counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import Final, cast

import uvloop

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
ACCEPTED: Final = HEAD % (21, b'{"code":0,"msg":"ok"}')


@dataclass(slots=True)
class Counts:
    """What arrived so far."""

    requests: int = 0
    events: int = 0


class Sink(asyncio.Protocol):
    """One connection: cuts the stream into requests and answers each, in order."""

    def __init__(self, counts: Counts, delay: float) -> None:
        self._counts = counts
        self._delay = delay
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without being its subclass

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            _, found, rest = head.partition(b"content-length:")
            size = end + 4 + (int(rest.partition(b"\r\n")[0]) if found else 0)
            if len(self._buffer) < size:
                return
            if head.startswith(b"get "):
                body = json.dumps({"requests": self._counts.requests, "events": self._counts.events}).encode()
                self._write(HEAD % (len(body), body))
            else:
                self._counts.requests += 1
                self._counts.events += self._buffer.count(b'"cuid":', end, size)
                if self._delay:
                    asyncio.get_running_loop().call_later(self._delay, self._write, ACCEPTED)
                else:
                    self._write(ACCEPTED)
            del self._buffer[:size]

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(delay: float) -> None:
    """Listen on a free port, say which, and answer until the process is ended."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: Sink(counts, delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the delay and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until a request is answered")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.delay))


if __name__ == "__main__":
    main()
