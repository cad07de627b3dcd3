"""Writes records in Kafka transactions: all of a set or none, even if the process is killed in between.

A group's replays and discards share one transactional id. Opening it aborts another writer's transaction and fences
that writer for good (KIP-98), so two writers never process the same dead letters.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connector.config.loader import KafkaSettings
from connector.errors import ConnectorError, StartupError
from connector.kafka.client import LibrdkafkaLog, construct, error_text, kafka_error, producer_config
from connector.kafka.producer import OVER_QUEUE
from connector.records import Headers
from connector.tasks import in_thread

TIMEOUT_MILLIS: Final = 30_000
"""After this time Kafka aborts the transaction of a killed writer. Until then readers see nothing after it."""
_OPEN_SECONDS: Final = 60.0
_COMMIT_SECONDS: Final = 60.0
_ABORT_SECONDS: Final = 20.0
_RETRIES: Final = 2
_ANY_PARTITION: Final = -1

_FENCED: Final = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - public by librdkafka's convention
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
    }
)
_OF_THE_RECORD: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG}
)


class Fenced(ConnectorError):
    """Another writer with the same transactional id has started, so this one can no longer write."""


class RecordTooLarge(ConnectorError):
    """Kafka permanently refuses one of the records. Nothing of the transaction was written."""


class _Aborted(ConnectorError):
    """A transaction failed and was aborted: nothing of it was written."""


class Outgoing(NamedTuple):
    """A record to write. Without a `partition` its key decides the partition."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


class TransactionalProducer:
    """A writer with a transactional id; an asynchronous context manager, whose entry fences the previous writer.

    Entering raises `StartupError` if Kafka does not allow it, for example without rights to the transactional id.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        config = producer_config(settings)
        # It must not exceed the transaction's time-out; if it is absent, librdkafka makes both equal.
        for name in ("message.timeout.ms", "delivery.timeout.ms"):
            config.pop(name, None)
        self._id = transactional_id
        self._config = {"transaction.timeout.ms": TIMEOUT_MILLIS, **config, "transactional.id": transactional_id}

    async def __aenter__(self) -> Self:
        """Take over the transactional id. Once this returns, everything that another writer committed can be read."""
        self._producer = construct(Producer, self._config, logger=LibrdkafkaLog("transactions"))
        try:
            await asyncio.to_thread(self._until, "init_transactions", _OPEN_SECONDS)
        except KafkaException as error:
            del self._producer
            raise StartupError(
                f"cannot begin a transaction as {self._id}: {error_text(error)}; Kafka must be reachable, and if it "
                "checks rights, this client needs Describe and Write for the transactional id"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the client (see `Admin` for why now); `commit` itself aborts an open transaction.

        It ends with its last reference, because the binding's `close` warns about a fenced producer.
        """
        del self._producer

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Write the records in one transaction. Raises `Fenced`, `RecordTooLarge`, or another `ConnectorError`.

        If cancelled, it still waits for the end of the running transaction.
        """
        await in_thread(lambda: self._commit_again(records))

    def _commit_again(self, records: Sequence[Outgoing]) -> None:
        """Write and commit; retry after an abort whose cause may be over.

        librdkafka fails the first transaction after an aborted one (OUT_OF_ORDER_SEQUENCE_NUMBER), and then recovers.
        """
        for _ in range(_RETRIES):
            with suppress(_Aborted):
                return self._commit(records)
        return self._commit(records)

    def _commit(self, records: Sequence[Outgoing]) -> None:
        """Write and commit, blocking; abort if that fails."""
        faults: list[KafkaError] = []

        def note(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                faults.append(error)

        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record, note)
            self._until("commit_transaction", _COMMIT_SECONDS)
        except KafkaException as error:
            raise self._failed(kafka_error(error), faults) from None

    def _produce(self, record: Outgoing, note: Callable[[KafkaError | None, Message], None]) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    partition=_ANY_PARTITION if record.partition is None else record.partition,
                    on_delivery=note,
                )
            except BufferError:
                # Larger than the whole queue: nothing can make room for it.
                if not len(self._producer):
                    raise KafkaException(OVER_QUEUE) from None
                # The queue is full: serving delivery reports makes room.
                self._producer.poll(0.1)
            else:
                return

    def _failed(self, error: KafkaError, faults: Sequence[KafkaError]) -> ConnectorError:
        """Abort, and return the error to raise."""
        if error.code() in _FENCED or any(fault.code() in _FENCED for fault in faults):
            return Fenced(f"another client has taken over the transactional id {self._id}")
        # The records' faults come in their delivery reports. The commit's error only says that it failed.
        cause = next((fault for fault in (error, *faults) if fault.code() in _OF_THE_RECORD), None)
        if not error.fatal():
            try:
                self._until("abort_transaction", _ABORT_SECONDS)
            except KafkaException as second:
                if kafka_error(second).code() in _FENCED:
                    return Fenced(f"another client has taken over the transactional id {self._id}")
                return ConnectorError(f"a transaction failed and cannot be aborted: {error_text(error)}")
        if cause is not None:
            return RecordTooLarge(error_text(cause))
        first = faults[0] if faults else error
        # Nothing was written, so the same records may be retried, unless the error is fatal for this client.
        return (ConnectorError if error.fatal() else _Aborted)(f"a transaction failed: {error_text(first)}")

    def _until(self, method: str, seconds: float) -> None:
        """Call a method of the client, and retry while its error is retriable. Raises `KafkaException`.

        The method is given by name: a traceback would keep a bound method, and with it the client, alive.
        """
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                getattr(self._producer, method)(max(1.0, left))
            except KafkaException as error:
                if not kafka_error(error).retriable() or left <= 0:
                    raise
                time.sleep(0.1)
            else:
                return
