"""The producer without a broker: records that are awaited together, with librdkafka in the place of a model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Producer
from structlog.testing import capture_logs

from connector.config.models import KafkaSettings
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.kafka.transactions import Outgoing, RecordTooLarge, TransactionalProducer
from connector.testing.loop import run_virtual

LATE = KafkaError(KafkaError._MSG_TIMED_OUT)
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
FULL = KafkaError(KafkaError._QUEUE_FULL)


class Queue:
    """Holds so many records, refuses values that say so, and ends each when the test asks for it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held: deque[tuple[bytes, Callable[..., None]]] = deque()
        self.sent: list[bytes] = []

    def produce_batch(self, _topic: str, messages: list[dict[str, Any]]) -> int:
        """Take records as confluent-kafka does: what is not taken has its error."""
        taken = 0
        for message in messages:
            assert "_error" not in message
            if message["value"] == b"large":
                message["_error"] = TOO_LARGE
            elif len(self.held) == self.room:
                message["_error"] = FULL
            else:
                self.held.append((message["value"], message["callback"]))
                taken += 1
        return taken

    def end(self) -> None:
        """Acknowledge what is held; what is called late fails."""
        while self.held:
            value, on_delivery = self.held.popleft()
            if value == b"late":
                on_delivery(LATE, None)
            else:
                self.sent.append(value)
                on_delivery(None, None)


def play(values: list[bytes], *, room: int = 100, in_flight: int = 100) -> tuple[dict[int, str], list[bytes], int]:
    """Send values together; return the failures' codes, what was sent, and what is in flight at the end."""

    async def run() -> tuple[dict[int, str], list[bytes], int]:
        settings = KafkaSettings(topics=("t",), group_id="g", client={"bootstrap.servers": "none"})
        producer, queue = KafkaProducer(settings, max_in_flight=in_flight), Queue(room)
        producer._loop = asyncio.get_running_loop()
        producer._producer = cast("Producer", queue)
        sending = asyncio.create_task(producer.send_all("t", [(None, value) for value in values]))
        while not sending.done():
            await asyncio.sleep(1)
            queue.end()
            producer._settle()
            await asyncio.sleep(0)
        faults = sending.result()
        assert all(isinstance(fault, DeliveryFailed) for fault in faults.values())
        return {index: fault.code for index, fault in faults.items()}, queue.sent, producer.in_flight

    return run_virtual(run())


@pytest.mark.promise("P1")
@pytest.mark.parametrize(("room", "in_flight"), [(100, 100), (2, 100), (100, 2)])
def test_each_failure_is_of_its_own_record(room: int, in_flight: int) -> None:
    """The rest is acknowledged, however little room there is. Kills: a failure that is counted and not named."""
    values = [b"a", b"late", b"large", b"b", b"late", b"c"]
    faults, sent, left = play(values, room=room, in_flight=in_flight)
    assert faults == {1: "_MSG_TIMED_OUT", 2: "MSG_SIZE_TOO_LARGE", 4: "_MSG_TIMED_OUT"}
    assert (sent, left) == ([b"a", b"b", b"c"], 0)


@pytest.mark.parametrize("values", [[], [b"large"], [b"a", b"large"]])
def test_what_is_refused_at_once_ends_the_wait_too(values: list[bytes]) -> None:
    """Nothing to wait for is no wait. Kills: a countdown that never reaches its end."""
    assert play(values) == ({values.index(b"large"): "MSG_SIZE_TOO_LARGE"} if values else {}, values[:-1], 0)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """Acknowledgements that come later end quietly. Kills: a result for a future that was cancelled."""

    async def run() -> None:
        settings = KafkaSettings(topics=("t",), group_id="g", client={"bootstrap.servers": "none"})
        producer, queue = KafkaProducer(settings), Queue(100)
        producer._loop = asyncio.get_running_loop()
        producer._producer = cast("Producer", queue)
        sending = asyncio.create_task(producer.send_all("t", [(None, b"a"), (None, b"late")]))
        await asyncio.sleep(1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        queue.end()
        producer._settle()
        assert producer.in_flight == 0

    run_virtual(run())


@pytest.mark.promise("P14")
@pytest.mark.parametrize("values", [[b"a"], [b"a", b"b", b"c"]])
def test_a_record_larger_than_the_whole_queue_is_too_large(values: list[bytes]) -> None:
    """It never has room, so it has failed, and no other one waits for it. Kills: a wait that nothing can end."""
    assert play(values, room=0) == (dict.fromkeys(range(len(values)), "MSG_SIZE_TOO_LARGE"), [], 0)


async def test_a_dead_letter_larger_than_the_queue_is_not_waited_for() -> None:
    """One record at a time, with librdkafka itself: the small ones go into the queue, the large one is too large."""
    client = {"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.kbytes": 100, "message.timeout.ms": 60_000}
    producer = KafkaProducer(KafkaSettings(topics=("t",), group_id="g", client=client))
    await producer.start()
    try:
        with pytest.raises(DeliveryFailed, match=r"queue\.buffering\.max\.kbytes") as caught:
            async with asyncio.timeout(10):
                await producer.send("t", key=None, value=b"x" * 200_000)
        assert caught.value.too_large
        (await producer.enqueue("t", key=None, value=b"x")).cancel()
    finally:
        await producer.close(0)


async def test_a_callback_that_raises_ends_no_other_acknowledgement() -> None:
    """The thread that serves acknowledgements goes on, and hands over those that came before.

    Kills: one thread less, unseen, after which no dead letter is ever acknowledged.
    """
    producer = KafkaProducer(KafkaSettings(topics=("t",), group_id="g", client={"bootstrap.servers": "127.0.0.1:1"}))
    producer._loop = asyncio.get_running_loop()
    futures = [producer._loop.create_future() for _ in range(2)]
    left = list(futures)

    def poll(_seconds: float) -> int:
        if not left:
            producer._stopping.set()
            return 0
        producer._acknowledge(left.pop(0), "t")(None, Acknowledged())
        if left:
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "a line of librdkafka's log")
        return 1

    producer._producer = cast("Producer", SimpleNamespace(poll=poll))
    with capture_logs() as lines:
        await asyncio.to_thread(producer._serve)
        async with asyncio.timeout(5):
            assert await asyncio.gather(*futures) == [(3, 7), (3, 7)]
    assert [line["task"] for line in lines] == ["kafka-producer"]


class Acknowledged:
    """A message that Kafka has taken."""

    def partition(self) -> int:
        """Return where it is."""
        return 3

    def offset(self) -> int:
        """Return where it is."""
        return 7


def test_a_replayed_record_larger_than_the_queue_fails_its_transaction() -> None:
    """The command says so and goes on with the others. Kills: a replay that tries the same record for ever."""

    class Full:
        def __len__(self) -> int:
            return 0

        def begin_transaction(self) -> None:
            """Do nothing."""

        def abort_transaction(self, _seconds: float) -> None:
            """Do nothing."""

        def produce(self, *_: object, **__: object) -> None:
            """Have no room."""
            raise BufferError

        def poll(self, _seconds: float) -> None:
            """Fail: nothing can make room."""
            raise AssertionError

    writer = TransactionalProducer(
        KafkaSettings(topics=("t",), group_id="g", client={"bootstrap.servers": "none"}), "id"
    )
    writer._producer = cast("Producer", Full())
    with pytest.raises(RecordTooLarge, match=r"queue\.buffering\.max\.kbytes"):
        writer._commit_again([Outgoing("t", None, None, b"x" * 100, ())])
