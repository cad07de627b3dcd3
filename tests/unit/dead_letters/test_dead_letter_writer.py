"""The writer retries until Kafka has the dead letter, and often enough within a drain."""

from __future__ import annotations

import asyncio

import pytest

from connector.dead_letters.writer import DeadLetterWriter
from connector.errors import ConnectorError
from connector.records import DeadLetter, Headers, Record
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock, run_virtual


class Broken:
    """A producer that fails until `fixed`, and notes when it was called."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self.asked: list[float] = []
        self.fixed = float("inf")

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> object:
        """Fail until fixed."""
        self.asked.append(self._clock.now())
        if self._clock.now() < self.fixed:
            raise ConnectorError("no broker")
        return None


@pytest.mark.promise("P3")
@pytest.mark.parametrize("drain", [0.4, 3.0, 22.0, 600.0])
def test_a_drain_sees_a_dead_letter_tried_again(drain: float) -> None:
    """However long Kafka was away, a failing write is retried several times within one drain.

    Kills: a wait that grows past the drain, so that a letter misses it although Kafka is back.
    """

    async def play() -> None:
        clock = LoopClock()
        producer = Broken(clock)
        writer = DeadLetterWriter(producer, "letters", "g", metrics=Metrics(), clock=clock, drain_timeout=drain)
        record = Record("t", 0, 1, -1, b"k", b"v", ())
        dead_letter = DeadLetter(record=record, cause="decode", code="c", message="m", failed_at=0.0, dedup_id="d")
        writing = asyncio.create_task(writer.write(dead_letter, lambda: True))
        await asyncio.sleep(max(600.0, 3 * drain))
        gaps = [later - earlier for earlier, later in zip(producer.asked, producer.asked[1:], strict=False)]
        assert max(gaps) <= min(30.0, drain / 4) + 1e-6
        assert writer.trouble is not None
        producer.fixed = clock.now()
        await asyncio.wait_for(writing, min(30.0, drain / 4) + 0.01)
        assert writer.trouble is None

    run_virtual(play())


def test_a_dead_letter_of_a_partition_that_left_is_not_tried_again() -> None:
    """Once another member owns the record, a failing write is dropped, and no trouble is reported.

    Kills: letters of assignments that are over, tried for ever: one more of each for every rebalance meanwhile.
    """

    async def play() -> None:
        clock = LoopClock()
        producer = Broken(clock)
        writer = DeadLetterWriter(producer, "letters", "g", metrics=Metrics(), clock=clock, drain_timeout=22.0)
        record = Record("t", 0, 1, -1, b"k", b"v", ())
        dead_letter = DeadLetter(record=record, cause="decode", code="c", message="m", failed_at=0.0, dedup_id="d")
        left = asyncio.Event()
        writing = asyncio.create_task(writer.write(dead_letter, lambda: not left.is_set()))
        await asyncio.sleep(60.0)
        left.set()
        asked = len(producer.asked)
        await asyncio.wait_for(writing, 22.0)
        assert asked > 1
        assert len(producer.asked) == asked
        assert writer.trouble is None

    run_virtual(play())
