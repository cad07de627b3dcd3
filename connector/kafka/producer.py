"""A producer that can be awaited: a record counts as sent once Kafka has acknowledged it.

confluent-kafka's asyncio producer does not support headers, which dead letters need. So this wraps its plain producer.
One thread serves the acknowledgements and hands them to the event loop in groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connector.config.loader import KafkaSettings
from connector.errors import ConnectorError
from connector.kafka.client import (
    FATAL,
    LEAST_BATCH,
    QUEUE_FULL,
    ErrorStates,
    LibrdkafkaLog,
    construct,
    error_text,
    kafka_error,
    producer_config,
)
from connector.records import Headers
from connector.tasks import place_of

_SERVE_SECONDS: Final = 0.2
_ANY_PARTITION: Final = -1
OVER_QUEUE: Final = KafkaError(
    KafkaError.MSG_SIZE_TOO_LARGE, "the record is larger than queue.buffering.max.kbytes under kafka.client"
)
_log = structlog.get_logger()

Acknowledged = tuple[int, int]


class DeliveryFailed(ConnectorError):
    """Kafka refused a record, or did not acknowledge it in time (`message.timeout.ms`).

    `code` is Kafka's name of the error. `fatal`: this producer cannot send anything any more. `too_large`: the record
    exceeds a limit of the topic or of the client.
    """

    def __init__(self, topic: str, error: KafkaError) -> None:
        super().__init__(f"cannot write to topic {topic}: {error_text(error)}")
        self.topic = topic
        self.code = error.name()
        self.fatal = error.fatal() or error.code() == FATAL
        self.too_large = error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


_End = Callable[[], bool]
"""Reports one record's end in the event loop; returns whether Kafka has acknowledged it."""


class _Batch:
    """Records that are awaited together: one future with the failures, by index."""

    def __init__(self, ended: asyncio.Future[Mapping[int, DeliveryFailed]], topic: str, count: int) -> None:
        self.ended = ended
        self._topic = topic
        self._left = count
        self._faults: dict[int, DeliveryFailed] = {}

    def note(self, index: int, error: KafkaError | None) -> bool:
        """Note that a record is acknowledged or has failed."""
        if error is not None:
            self._faults[index] = DeliveryFailed(self._topic, error)
        self._left -= 1
        if not self._left and not self.ended.done():
            self.ended.set_result(self._faults)
        return error is None

    def failed(self, index: int, fault: DeliveryFailed) -> None:
        """Note that librdkafka did not accept a record at all."""
        # This may complete the future first. Its result is this same dictionary, so the fault is still in it.
        self.note(index, None)
        self._faults[index] = fault


def _complete(future: asyncio.Future[Acknowledged], topic: str, error: KafkaError | None, where: Acknowledged) -> bool:
    """Complete the future of one record."""
    if not future.done():
        if error is None:
            future.set_result(where)
        else:
            future.set_exception(DeliveryFailed(topic, error))
    return error is None


class KafkaProducer:
    """An idempotent producer. All methods are called in the event loop that `start` ran in.

    At most `max_in_flight` records wait for their acknowledgement; further sends wait for room. Batches of several
    records have at most `batch_bytes`, which every topic has to take.
    """

    def __init__(self, settings: KafkaSettings, *, max_in_flight: int = 10_000, batch_bytes: int = LEAST_BATCH) -> None:
        self._config = producer_config(settings, batch_bytes)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._done: deque[_End] = deque()
        """The calls for the records whose acknowledgement or failure has arrived."""
        self._room = asyncio.Event()
        self._stopping = threading.Event()
        self._errors = ErrorStates("producer")
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Create the client. It connects in the background. Raises `StartupError` for unknown properties."""
        self._loop = asyncio.get_running_loop()
        config = self._config | {"error_cb": self._on_error}
        self._producer = construct(Producer, config, logger=LibrdkafkaLog("producer"))
        self._thread = threading.Thread(target=self._serve, name="kafka-producer", daemon=True)
        self._thread.start()

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> Acknowledged:
        """Return the record's partition and offset once Kafka has acknowledged it. Raises `DeliveryFailed`.

        A cancelled send may still arrive.
        """
        return await (await self.enqueue(topic, key=key, value=value, headers=headers, partition=partition))

    async def enqueue(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> asyncio.Future[Acknowledged]:
        """Wait for room, then return a future with the result of `send`. For sending many records at once.

        Raises `DeliveryFailed` for a record that cannot be accepted at all, for example one that is too large.
        """
        future: asyncio.Future[Acknowledged] = self._loop.create_future()
        alone = False
        while True:
            while self._in_flight >= self._max_in_flight:
                await self._wait_for_room()
            try:
                self._producer.produce(
                    topic,
                    key=key,
                    value=value,
                    headers=list(headers),
                    partition=_ANY_PARTITION if partition is None else partition,
                    on_delivery=self._acknowledge(future, topic),
                )
            except BufferError:
                if alone and not self._in_flight:
                    raise DeliveryFailed(topic, OVER_QUEUE) from None
                alone = not self._in_flight
                await self._wait_for_room()
                continue
            except KafkaException as error:
                raise DeliveryFailed(topic, kafka_error(error)) from None
            self._in_flight += 1
            return future

    async def send_all(self, topic: str, records: Sequence[tuple[bytes | None, bytes]]) -> Mapping[int, DeliveryFailed]:
        """Write keys and values. Return the failures by index, once each record is acknowledged or has failed.

        One future serves all of them: a future for each answer of a query would cost more than the answer. If
        cancelled, records may still arrive.
        """
        batch = _Batch(self._loop.create_future(), topic, len(records))
        waiting: list[tuple[int, dict[str, Any]]] = [
            (index, {"key": key, "value": value, "callback": partial(self._note_end, batch, index)})
            for index, (key, value) in enumerate(records)
        ]
        alone = False
        while waiting:
            room = max(0, self._max_in_flight - self._in_flight)
            tried, waiting = waiting[:room], waiting[room:]
            self._in_flight += self._producer.produce_batch(topic, [message for _, message in tried])
            refused = [(index, message, message.pop("_error")) for index, message in tried if "_error" in message]
            full = [(index, message) for index, message, error in refused if error.code() == QUEUE_FULL]
            if full and alone and not self._in_flight:
                (index, _), *full = full
                batch.failed(index, DeliveryFailed(topic, OVER_QUEUE))
            alone = not self._in_flight
            for index, _, error in refused:
                if error.code() != QUEUE_FULL:
                    batch.failed(index, DeliveryFailed(topic, error))
            waiting = full + waiting
            # Kafka may take long, and librdkafka has its own copies.
            del tried, refused, full
            if waiting:
                await self._wait_for_room()
        return await batch.ended if records else {}

    @property
    def in_flight(self) -> int:
        """How many records wait for their acknowledgement."""
        return self._in_flight

    async def close(self, timeout: float) -> int:
        """Wait at most `timeout` seconds for records in flight, and return how many were not acknowledged.

        Their futures fail with `DeliveryFailed`. Idempotent.
        """
        if self._thread is None:
            return 0
        left = await asyncio.to_thread(self._producer.flush, max(timeout, 0.0))
        # Without a purge librdkafka would go on sending, and a record could arrive after it was reported as failed.
        if left:
            self._producer.purge()
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        await asyncio.to_thread(self._producer.flush, _SERVE_SECONDS)
        self._settle()
        # The client's threads end with its last reference (see `Admin`). The binding's close() would wait for ever.
        del self._producer
        return left

    def _serve(self) -> None:
        """Serve the client's callbacks, in a thread of its own; the callbacks only note the result."""
        while not self._stopping.is_set():
            try:
                served = self._producer.poll(_SERVE_SECONDS)
            except Exception as error:  # noqa: BLE001 - without this thread nothing would ever be acknowledged again
                # A callback raised, for example over a line of librdkafka's log that is not UTF-8. Those before it have
                # noted their results, and the next call serves the others.
                _log.error("task.failed", task="kafka-producer", message=place_of(error))
                served = 1
            if served:
                self._in_loop(self._settle)

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        # The loop may be closed already, if close() was never called.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _acknowledge(self, future: asyncio.Future[Acknowledged], topic: str) -> Any:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            where = (_ANY_PARTITION, _ANY_PARTITION) if error else (message.partition() or 0, message.offset() or 0)
            # Runs in the serving thread, where a future of the loop must not be completed.
            self._done.append(partial(_complete, future, topic, error, where))

        return on_delivery

    def _note_end(self, batch: _Batch, index: int, error: KafkaError | None, _message: Message) -> None:
        """Note the end of a batch's record; runs in the serving thread."""
        self._done.append(partial(batch.note, index, error))

    def _settle(self) -> None:
        """Complete the futures of all acknowledgements that have arrived."""
        acknowledged = False
        while self._done:
            acknowledged |= self._done.popleft()()
            self._in_flight -= 1
        if acknowledged:
            self._errors.over()
        self._room.set()

    async def _wait_for_room(self) -> None:
        """Wait until a full queue may have room: for an acknowledgement, or a moment if no record is in flight.

        A record that is larger than the whole queue has no room in an empty one either, and nothing will make any. It
        is tried twice, because librdkafka may still hold the record whose end it has just reported.
        """
        if not self._in_flight:
            await asyncio.sleep(_SERVE_SECONDS)
            return
        self._room.clear()
        await self._room.wait()

    def _on_error(self, error: KafkaError) -> None:
        """Log a fatal error; hand any other to the event loop, which also notes its end. Runs in the serving thread."""
        if error.code() == FATAL or error.fatal():
            _log.error("kafka.producer_failed", message=error_text(error))
        else:
            self._in_loop(self._errors.report, error)
