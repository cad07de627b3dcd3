"""The writer retries until Kafka has the dead letter, and often enough within a drain."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from confluent_kafka import KafkaError

from connector.dead_letters.headers import parse
from connector.dead_letters.writer import DeadLetterWriter
from connector.errors import ConnectorError
from connector.kafka.producer import DeliveryFailed
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

    Kills: a wait that grows past the drain, so that a dead letter misses it although Kafka is back.
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

    Kills: dead letters of assignments that are over, tried for ever: one more of each for every rebalance meanwhile.
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


class Narrow:
    """A producer whose topic takes records up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken: list[tuple[bytes | None, bytes | None, Headers]] = []

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> object:
        """Refuse what is too large."""
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(content or b"") for name, content in headers)
        if size > self._limit:
            raise DeliveryFailed(topic, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.taken.append((key, value, headers))
        return None


@pytest.mark.promise("P1")
@pytest.mark.parametrize(
    ("sizes", "left_out"),
    [((10, 1000, 10), None), ((10, 9000, 10), "value"), ((9000, 10, 10), "value key headers"), ((10, 10, 9000), "…")],
)
def test_a_dead_letter_that_does_not_fit_is_written_without_its_value(
    sizes: tuple[int, int, int], left_out: str | None
) -> None:
    """Position, size and hash remain, and the dead letter says what is missing. Kills: a partition blocked for ever."""

    async def play() -> None:
        producer = Narrow(4000)
        writer = DeadLetterWriter(
            producer,
            "dlq",
            "g",
            metrics=Metrics(),
            clock=LoopClock(),
            drain_timeout=22.0,
        )
        key, value, header = (bytes(size) for size in sizes)
        record = Record("t", 3, 12, -1, key, value, (("h", header),))
        dead_letter = DeadLetter(record=record, cause="refused", code="c", message="m", failed_at=0.0, dedup_id="d")
        await asyncio.wait_for(writer.write(dead_letter, lambda: True), 1.0)
        ((written_key, written, headers),) = producer.taken
        facts = parse(headers)
        assert facts is not None
        assert (facts.cause, facts.origin) == ("refused", ("t", 3, 12))
        block = dict(headers)
        if left_out is None:
            assert (written_key, written, facts.original, facts.message) == (key, value, record.headers, "m")
            assert "dlq-left-out" not in block
            return
        assert written == b""
        assert block["dlq-left-out"] == (b"value" if left_out == "value" else b"value key headers")
        assert block["dlq-value-bytes"] == str(len(value)).encode()
        assert block["dlq-value-sha256"] == sha256(value).hexdigest().encode()
        assert facts.message.startswith("too large for the dead-letter topic, so without its value")
        assert (written_key == key) is (left_out == "value")
        assert facts.original == (record.headers if left_out == "value" else ())

    run_virtual(play())


def test_thousands_of_codes_and_destinations_leave_nothing_behind() -> None:
    """Codes are the vendor's, and a replayed record's headers can name any destination: neither grows memory or series.

    Kills: a time kept for every code that was ever logged; a series for every destination that a header names.
    """

    async def play() -> None:
        clock, metrics = LoopClock(), Metrics()
        metrics.begin(["known"], ["t"])
        producer = Broken(clock)
        producer.fixed = 0.0
        writer = DeadLetterWriter(producer, "letters", "g", metrics=metrics, clock=clock, drain_timeout=22.0)
        series = metrics.render().count(b"\n")
        for number in range(5000):
            await writer.write(
                DeadLetter(
                    record=Record("t", 0, number, -1, b"k", b"v", ()),
                    cause="operator",
                    code=f"code {number}",
                    message="m",
                    failed_at=0.0,
                    dedup_id="d",
                    destination="known" if number % 2 else f"name {number}",
                ),
                lambda: True,
            )
        assert len(writer._logged) <= 2000
        assert metrics.render().count(b"\n") == series
        written = metrics.records_dead_lettered
        assert written.labels("known", "operator")._value.get() == 2500
        assert written.labels("", "operator")._value.get() == 2500

    run_virtual(play())
