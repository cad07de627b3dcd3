"""The benchmarks' job without Kafka and sockets: the real pipeline, fed from memory, with a vendor that accepts all.

`benchmarks.micro` measures its time, and the cost test counts its calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

from benchmarks.workloads import event
from connector import vendors
from connector.clock import Clock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.schemas import Contracts
from connector.config.models import KafkaSettings, Settings
from connector.pipeline.runner import AssignmentListener
from connector.records import Assigned, Commit, DeadLetter, Position, Record, TopicPartition
from connector.routing.compiler import passed_on
from connector.runtime.pipeline import Edges, build
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Request, Response, Vendor
from connector.vendors.jiguang import JiguangSettings

TOPIC: Final = "events"
NAME: Final = "sink"
CHUNK: Final = 500
SCHEMA: Final = "connector.events.JiguangUserEvent"
ACCEPTED: Final = Response(200, {}, b'{"code":0,"message":"success"}')


def records(count: int, clock: Clock, contracts: Contracts, partitions: int = 4) -> list[Record]:
    """Return the records as Kafka would deliver them: each poll contains a run of each partition."""
    encoder, now = Encoder(contracts, clock=clock), int(clock.wall() * 1000)
    offsets = [0] * partitions
    made = []
    for number in range(count):
        partition = number // (CHUNK // partitions) % partitions
        value = encoder.single_object(SCHEMA, event(number, now))
        made.append(Record(TOPIC, partition, offsets[partition], now, b"%d" % number, value, ()))
        offsets[partition] += 1
    return made


class MemorySource:
    """Returns the records in polls, and stores the last commit of each partition."""

    def __init__(self, made: Sequence[Record], partitions: int = 4, chunk: int = CHUNK) -> None:
        self._chunks = [list(made[start : start + chunk]) for start in range(0, len(made), chunk)][::-1]
        self._partitions, self.records = partitions, len(made)
        self._listener: AssignmentListener | None = None
        self.committed: dict[TopicPartition, int] = {}
        self.done = asyncio.Event()
        """Set when every record is committed."""

    async def start(self, listener: AssignmentListener) -> None:
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
    """A vendor that accepts every request at once."""

    async def send(self, request: Request, timeout: float) -> Response:
        """Accept."""
        return ACCEPTED

    async def close(self) -> None:
        """Do nothing."""


class NoDeadLetters:
    """Fails if a record is refused."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Fail."""
        raise AssertionError(dead_letter.message)


def _settings() -> Settings:
    account: Mapping[str, Any] = {"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "key"}
    lifted = {"agreed_limits": True, "requests_per_second": 1_000_000, "max_in_flight": 64}
    return Settings(
        kafka=KafkaSettings(topics=(TOPIC,), group_id="job", client={"bootstrap.servers": "none"}),
        destinations={NAME: JiguangSettings(**account, **lifted)},
    )


async def play(source: MemorySource, clock: Clock, contracts: Contracts) -> Mapping[TopicPartition, int]:
    """Run all records of the source through the pipeline and return what was committed."""
    settings, kinds = _settings(), vendors.kinds()

    def reload(name: str) -> Vendor:
        return kinds["jiguang"].build(settings.destinations[name])

    edges = Edges(
        source=source,
        decoder=Decoder(contracts, clock=clock, as_json=passed_on(settings, kinds)),
        dead_letters=NoDeadLetters(),
        answers={},
        transport=lambda _name, _settings: AcceptingTransport(),
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
