"""The writer of the results topic: every answer until Kafka has it, and none given up for another one's failure."""

from __future__ import annotations

import asyncio
import gc
from typing import cast

import pytest
from confluent_kafka import KafkaError

from connector.errors import ConnectorError
from connector.kafka.client import FATAL
from connector.kafka.producer import Acknowledged, DeliveryFailed, KafkaProducer
from connector.kafka.receipts import ResultsWriter
from connector.records import Answer
from connector.testing.loop import LoopClock, run_virtual

ANSWERS = [(b"k%d" % number, Answer("s", {"number": number})) for number in range(6)]


class Numbers:
    """Encodes an answer as its number."""

    async def encode(self, topic: str, schema: str, datum: dict[str, object]) -> bytes:
        """Return the number in it."""
        return str(datum["number"]).encode()


class Moody:
    """Takes a record, refuses it at once or later, as `moods` say by value; each mood counts once."""

    def __init__(self, moods: dict[bytes, list[ConnectorError]], *, at_once: bool) -> None:
        self.moods = moods
        self.at_once = at_once
        self.taken: list[tuple[bytes | None, bytes]] = []
        self.tried = 0

    async def enqueue(self, topic: str, *, key: bytes | None, value: bytes) -> asyncio.Future[Acknowledged]:
        """Return what becomes of the record."""
        self.tried += 1
        future: asyncio.Future[Acknowledged] = asyncio.get_running_loop().create_future()
        moods = self.moods.get(value)
        if not moods:
            self.taken.append((key, value))
            future.set_result((0, len(self.taken)))
        elif self.at_once:
            raise moods.pop(0)
        else:
            future.set_exception(moods.pop(0))
        return future


def writer_to(producer: Moody) -> ResultsWriter:
    """Return a writer on virtual time."""
    return ResultsWriter(Numbers(), cast("KafkaProducer", producer), "results", LoopClock())


@pytest.mark.promise("P1")
@pytest.mark.parametrize("at_once", [True, False])
def test_only_what_failed_is_written_again(at_once: bool) -> None:
    """Kafka has every answer once at the end, whichever of them failed, how often, and when.

    Kills: an answer that is dropped with its error; all answers written again for one that failed.
    """

    async def play() -> None:
        late = DeliveryFailed("results", KafkaError(KafkaError._MSG_TIMED_OUT))
        producer = Moody({b"1": [late], b"4": [late, late]}, at_once=at_once)
        await writer_to(producer).write(ANSWERS)
        assert sorted(producer.taken) == [(key, b"%d" % number) for number, (key, _) in enumerate(ANSWERS)]
        assert producer.tried == len(ANSWERS) + 3

    run_virtual(play())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_producer_that_is_of_no_use_any_more_ends_the_writing(at_once: bool) -> None:
    """A fatal error is raised, not tried again for ever: the question stays uncommitted and the process ends."""

    async def play() -> None:
        dead = DeliveryFailed("results", KafkaError(FATAL))
        producer = Moody({b"2": [dead] * 100}, at_once=at_once)
        with pytest.raises(DeliveryFailed):
            await writer_to(producer).write(ANSWERS)
        assert producer.tried == len(ANSWERS)

    run_virtual(play())


def test_a_writing_that_is_broken_off_leaves_no_error_behind() -> None:
    """Cancelled while it waits for room, with answers under way of which one fails, it says nothing of them later.

    Kills: futures that no one awaits any more, each a warning that its error was never retrieved.
    """
    unseen: list[object] = []

    class Full(Moody):
        """Has no room for the last answer."""

        async def enqueue(self, topic: str, *, key: bytes | None, value: bytes) -> asyncio.Future[Acknowledged]:
            if value == b"5":
                await asyncio.Event().wait()
            return await super().enqueue(topic, key=key, value=value)

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
        late = DeliveryFailed("results", KafkaError(KafkaError._MSG_TIMED_OUT))
        writing = asyncio.create_task(writer_to(Full({b"1": [late]}, at_once=False)).write(ANSWERS))
        await asyncio.sleep(1.0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        del writing
        gc.collect()

    run_virtual(play())
    assert unseen == []
