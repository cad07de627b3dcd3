"""Writes a query vendor's answers to its results topic until Kafka has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.errors import ConnectorError, FatalError
from connector.kafka.producer import Acknowledged, DeliveryFailed, KafkaProducer
from connector.records import Answer

_log = structlog.get_logger()
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0

Keyed = tuple[bytes | None, Answer]


class AnswerEncoder(Protocol):
    """What turns an answer into a record's value."""

    async def encode(self, topic: str, schema: str, datum: dict[str, object]) -> bytes:
        """Return the datum as Avro, in the form that readers of the topic expect. Raises `ConnectorError`."""
        ...


class ResultsWriter:
    """The results topic of one destination."""

    def __init__(self, encoder: AnswerEncoder, producer: KafkaProducer, topic: str, clock: Clock) -> None:
        self._encoder = encoder
        self._producer = producer
        self._topic = topic
        self._clock = clock

    async def write(self, answers: Iterable[Keyed]) -> None:
        """Return once Kafka has acknowledged every answer; one that fails is tried again, its question uncommitted."""
        left, wait = list(answers), _FIRST_WAIT
        while left := await self._failed_of(left):
            await self._clock.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _failed_of(self, answers: Sequence[Keyed]) -> list[Keyed]:
        """Write answers, all of them under way at once, and return those that Kafka did not take."""
        under_way: list[tuple[Keyed, asyncio.Future[Acknowledged]]] = []
        faults: list[tuple[Keyed, BaseException]] = []
        try:
            for key, answer in answers:
                try:
                    value = await self._encoder.encode(self._topic, answer.schema, answer.datum)
                    under_way.append(((key, answer), await self._producer.enqueue(self._topic, key=key, value=value)))
                except ConnectorError as error:
                    faults.append(((key, answer), error))
            outcomes = await asyncio.gather(*(future for _, future in under_way), return_exceptions=True)
        finally:
            for _, future in under_way:
                if not future.cancel() and not future.cancelled():
                    # Looked at, so that what is broken off here leaves no error that nobody retrieves.
                    future.exception()
        faults += [
            (one, end) for (one, _), end in zip(under_way, outcomes, strict=True) if isinstance(end, BaseException)
        ]
        for _, fault in faults:
            fatal = isinstance(fault, FatalError) or (isinstance(fault, DeliveryFailed) and fault.fatal)
            if fatal or not isinstance(fault, ConnectorError):
                raise fault
        if faults:
            message = f"{faults[0][1]}; {len(faults)} answers are tried again"
            _log.error("results.failed", topic=self._topic, message=message)
        return [one for one, _ in faults]
