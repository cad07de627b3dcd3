"""Writes a query vendor's answers to its results topic until Kafka has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.errors import ConnectorError, FatalError
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.records import Answer

_log = structlog.get_logger()
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 30.0


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

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> None:
        """Return once Kafka has acknowledged every answer; one that fails is tried again, its question uncommitted."""
        await asyncio.gather(*(self._write(key, answer) for key, answer in answers))

    async def _write(self, key: bytes | None, answer: Answer) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                value = await self._encoder.encode(self._topic, answer.schema, answer.datum)
                await self._producer.send(self._topic, key=key, value=value)
            except ConnectorError as error:
                if isinstance(error, FatalError) or (isinstance(error, DeliveryFailed) and error.fatal):
                    raise
                _log.error("results.failed", topic=self._topic, message=f"{error}; the answer is tried again")
                await self._clock.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                return
