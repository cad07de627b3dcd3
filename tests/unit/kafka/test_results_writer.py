"""The writer of the results topic: every answer until Kafka has it, and none given up for another one's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from connector.errors import FatalError
from connector.kafka.client import FATAL
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.kafka.receipts import ResultsWriter
from connector.records import Answer
from connector.testing.loop import LoopClock, run_virtual

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
ANSWERS = [(b"k%d" % number, Answer("s", {"number": number})) for number in range(6)]


class Numbers:
    """Encodes an answer as its number."""

    async def writer(self, topic: str, schema: str) -> Callable[[dict[str, Any]], bytes]:
        """Return what takes the number out of a datum."""
        return lambda datum: str(datum["number"]).encode()


class Rejected(Numbers):
    """The registry rejects the schema of every answer."""

    async def writer(self, topic: str, schema: str) -> Callable[[dict[str, Any]], bytes]:
        """Raise what an encoder raises then."""
        raise FatalError("the registry rejects the schema")


class Moody:
    """Takes records or refuses them, as `moods` say by value; each mood counts once."""

    def __init__(self, moods: dict[bytes, list[DeliveryFailed]]) -> None:
        self.moods = moods
        self.taken: list[tuple[bytes | None, bytes]] = []
        self.tried = 0

    async def send_all(self, topic: str, records: Sequence[tuple[bytes | None, bytes]]) -> dict[int, DeliveryFailed]:
        """Return what failed."""
        self.tried += len(records)
        assert {key for key, _ in records} <= {*dict(ANSWERS), None}
        faults = {index: moods.pop(0) for index, (_, value) in enumerate(records) if (moods := self.moods.get(value))}
        self.taken += [record for index, record in enumerate(records) if index not in faults]
        return faults


def writer_to(producer: Moody, encoder: Numbers | None = None) -> ResultsWriter:
    """Return a writer on virtual time."""
    return ResultsWriter(encoder or Numbers(), cast("KafkaProducer", producer), "results", LoopClock())


@pytest.mark.promise("P1")
def test_only_what_failed_is_written_again() -> None:
    """Kafka has every answer once at the end, whichever of them failed, how often, and when.

    Kills: an answer that is dropped with its error; all answers written again for one that failed.
    """

    async def play() -> None:
        late = DeliveryFailed("results", KafkaError(KafkaError._MSG_TIMED_OUT))
        producer = Moody({b"1": [late], b"4": [late, late]})
        await writer_to(producer).write(ANSWERS)
        assert sorted(producer.taken) == [(key, b"%d" % number) for number, (key, _) in enumerate(ANSWERS)]
        assert producer.tried == len(ANSWERS) + 3

    run_virtual(play())


def test_it_says_why_answers_wait_and_when_they_no_longer_do() -> None:
    """Kills: a results topic that is missing, which only the log names."""

    async def play() -> list[str | None]:
        late = DeliveryFailed("results", KafkaError(KafkaError._MSG_TIMED_OUT))
        large = DeliveryFailed("results", KafkaError(TOO_LARGE))
        writer, said = writer_to(Moody({b"1": [late, late], b"2": [large]})), list[str | None]()
        writer.on_trouble = said.append
        await writer.write(ANSWERS)
        return said

    *troubles, last = run_virtual(play())
    assert last is None
    assert ["cannot write to topic results: " in str(trouble) for trouble in troubles] == [True, True]


def test_one_batch_that_is_written_does_not_hide_that_another_waits() -> None:
    """While any answer waits, that is what is shown. Kills: a state that ends with the first success."""

    async def play() -> list[str | None]:
        late = DeliveryFailed("results", KafkaError(KafkaError._MSG_TIMED_OUT))
        writer, said = writer_to(Moody({b"1": [late] * 3})), list[str | None]()
        writer.on_trouble = said.append
        waiting = asyncio.create_task(writer.write(ANSWERS[1:2]))
        await asyncio.sleep(0.1)
        await writer.write(ANSWERS[2:])
        assert None not in said
        await waiting
        return said

    assert run_virtual(play())[-1] is None


def test_a_producer_that_is_of_no_use_any_more_ends_the_writing() -> None:
    """A fatal error is raised, not tried again for ever: the question stays uncommitted and the process ends."""

    async def play() -> None:
        dead = DeliveryFailed("results", KafkaError(FATAL))
        producer = Moody({b"2": [dead] * 100})
        with pytest.raises(DeliveryFailed):
            await writer_to(producer).write(ANSWERS)
        assert producer.tried == len(ANSWERS)

    run_virtual(play())


def test_a_schema_that_the_registry_rejects_ends_the_writing() -> None:
    """Kills: answers without a schema that are counted as written; a rejected schema that is tried for ever."""

    async def play() -> None:
        producer = Moody({})
        with pytest.raises(FatalError, match="rejects"):
            await writer_to(producer, Rejected()).write(ANSWERS)
        assert producer.tried == 0

    run_virtual(play())


@pytest.mark.promise("P14")
def test_an_answer_that_is_too_large_is_written_without_its_key_or_reported() -> None:
    """It is not tried for ever, and holds up no other answer. A key may be as large as a whole record.

    Kills: a question whose partition stands still for ever, because the results topic takes less than the source topic.
    """

    async def play() -> None:
        large, late = (DeliveryFailed("results", KafkaError(code)) for code in (TOO_LARGE, KafkaError._MSG_TIMED_OUT))
        producer = Moody({b"1": [large], b"2": [large] * 100, b"4": [late, large]})
        assert list(await writer_to(producer).write(ANSWERS)) == [2]
        keys = {value: key for key, value in producer.taken}
        assert keys == {b"0": b"k0", b"1": None, b"3": b"k3", b"4": None, b"5": b"k5"}
        assert len(producer.taken) == 5

    run_virtual(play())


def test_a_keyless_answer_that_is_too_large_is_tried_once() -> None:
    """Without a key there is nothing to leave out."""

    async def play() -> None:
        producer = Moody({b"0": [DeliveryFailed("results", KafkaError(TOO_LARGE))] * 100})
        assert list(await writer_to(producer).write([(None, ANSWERS[0][1]), ANSWERS[1]])) == [0]
        assert producer.tried == 2

    run_virtual(play())
