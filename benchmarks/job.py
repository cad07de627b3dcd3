"""The benchmarks' jobs without Kafka and sockets: the real pipeline, fed from memory, with a vendor that accepts all.

`benchmarks.micro` measures their time, the cost test counts their calls, and `tools.way` lists what a record crosses.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from random import Random
from typing import Any, Final

from fastavro import parse_schema, schemaless_writer

from benchmarks.sink import ANSWERS, FIGURES
from benchmarks.workloads import EVERY, MAPPED, WORKLOADS
from connector import vendors
from connector.clock import Clock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.frames import SINGLE_OBJECT
from connector.codec.schemas import Contracts, Schema, read_schema, without_logical_types
from connector.config.models import KafkaSettings, Settings
from connector.records import Answer, Assigned, Commit, DeadLetter, Position, RebalanceListener, Record, TopicPartition
from connector.routing.compiler import passed_on
from connector.runtime.pipeline import Edges, build
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Request, Response, Vendor

JOBS: Final = tuple(EVERY)
TOPIC: Final = "events"
NAME: Final = "sink"
CHUNK: Final = 500
SCHEMA: Final = "connector.events.JiguangUserEvent"


def foreign() -> Schema:
    """Return the schema of the mapped job."""
    return read_schema(EVERY[MAPPED].text)


def _values(name: str, clock: Clock, contracts: Contracts) -> Callable[[int], bytes]:
    """Return what makes the value of a job's record from its number."""
    now = int(clock.wall() * 1000)
    if name != MAPPED:
        encoder, schema = Encoder(contracts, clock=clock), vendors.kinds()[name].schema
        return lambda number: encoder.single_object(schema, WORKLOADS[name].event(number, now))
    mapped = foreign()
    tree, head = parse_schema(without_logical_types(mapped.tree)), SINGLE_OBJECT + mapped.fingerprint

    def value(number: int) -> bytes:
        out = BytesIO()
        schemaless_writer(out, tree, EVERY[MAPPED].event(number, now))
        return head + out.getvalue()

    return value


def records(count: int, clock: Clock, contracts: Contracts, partitions: int = 4, name: str = "jiguang") -> list[Record]:
    """Return a job's records as Kafka would deliver them: each poll contains a run of each partition."""
    value_of, now = _values(name, clock, contracts), int(clock.wall() * 1000)
    offsets = [0] * partitions
    made = []
    for number in range(count):
        partition = number // (CHUNK // partitions) % partitions
        value = value_of(number)
        made.append(Record(TOPIC, partition, offsets[partition], now, b"%d" % number, value, ()))
        offsets[partition] += 1
    return made


class MemorySource:
    """Returns the records in polls, and stores the last commit of each partition."""

    def __init__(self, made: Sequence[Record], partitions: int = 4, chunk: int = CHUNK) -> None:
        self._chunks = [list(made[start : start + chunk]) for start in range(0, len(made), chunk)][::-1]
        self._partitions, self.records = partitions, len(made)
        self._listener: RebalanceListener | None = None
        self.committed: dict[TopicPartition, int] = {}
        self.done = asyncio.Event()
        """Set when every record is committed."""

    async def start(self, listener: RebalanceListener) -> None:
        """Assign every partition at the first poll."""
        self._listener = listener

    async def poll(self) -> list[Record]:
        """Return the next records."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.on_assign([Assigned(TOPIC, number, 0, None, "") for number in range(self._partitions)])
        return self._chunks.pop() if self._chunks else await self.nothing()

    async def nothing(self) -> list[Record]:
        """Return no records, after a moment."""
        await asyncio.sleep(0.01)
        return []

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Store the commits."""
        self.committed.update({(commit.topic, commit.partition): commit.offset for commit in commits})
        if sum(self.committed.values()) == self.records:
            self.done.set()
        return {}

    async def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Fail: nothing here is slow enough to pause."""
        raise AssertionError("the job fits into the buffer")

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Fail: nothing here is refused."""
        raise AssertionError(positions)

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Do nothing."""

    def ends(self) -> dict[TopicPartition, int]:
        """Return no ends."""
        return {}

    def reached(self) -> dict[TopicPartition, int]:
        """Return no positions: there are no gaps."""
        return {}

    async def close(self) -> None:
        """Do nothing."""


class AcceptingTransport:
    """A vendor that accepts every request at once, and has figures of every push."""

    def __init__(self, vendor: str) -> None:
        self._accepted = Response(200, {}, ANSWERS[vendor][1])

    async def send(self, request: Request, timeout: float) -> Response:
        """Accept."""
        if request.body is not None:
            return self._accepted
        pushes = request.url.partition("msg_ids=")[2].split(",")
        return Response(200, {}, b"[%b]" % b",".join([FIGURES % push.encode() for push in pushes]))

    async def close(self) -> None:
        """Do nothing."""


class NoDeadLetters:
    """Fails if a record is refused."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Fail."""
        raise AssertionError(dead_letter.message)


class _Results:
    """Takes the answers of a query vendor."""

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> tuple[int, ...]:
        """Acknowledge all answers."""
        deque(answers, maxlen=0)
        return ()


def _settings(name: str) -> Settings:
    workload = EVERY[name]
    vendor = workload.vendor
    account: Mapping[str, Any] = {"vendor": vendor, "base_url": "http://sink", **workload.account}
    lifted = {"agreed_limits": True, "requests_per_second": 1_000_000, "max_in_flight": 64}
    return Settings.model_validate(
        {
            "kafka": KafkaSettings(topics=(TOPIC,), group_id="job", client={"bootstrap.servers": "none"}),
            "destinations": {NAME: vendors.kinds()[vendor].settings(**account, **lifted)},
            "routes": workload.routes(NAME),
            # All records at once: a pause would need a source that can.
            "limits": {"buffer": "256MiB"},
        }
    )


async def play(
    source: MemorySource, clock: Clock, contracts: Contracts, name: str = "jiguang"
) -> Mapping[TopicPartition, int]:
    """Run all records of a job through the pipeline and return what was committed."""
    settings, kinds = _settings(name), vendors.kinds()
    vendor = settings.destinations[NAME].vendor

    def reload(destination: str) -> Vendor:
        return kinds[vendor].build(settings.destinations[destination])

    edges = Edges(
        source=source,
        decoder=Decoder(contracts, clock=clock, schemas=[foreign()], as_json=passed_on(settings, kinds)),
        dead_letters=NoDeadLetters(),
        answers={NAME: _Results()},
        transport=lambda _name, _settings: AcceptingTransport(vendor),
        reload=reload,
        clock=clock,
        random=Random(0),
        cluster_id="cluster",
        partitions={TOPIC: 4},
    )
    pipeline = build(settings, kinds, Metrics(), edges)
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    await asyncio.wait({running, asyncio.create_task(source.done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await running
    return source.committed
