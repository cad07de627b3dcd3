"""What all Kafka clients share: properties, log, errors, and turning messages into records.

The user's `kafka.client` applies to all clients. A property that only one kind of client knows is passed to that kind
only, because librdkafka warns about unknown ones. The properties that the promises rely on are set here and override
the user's (`connector.config.loader` refuses them by name).

A refused credential or certificate stays refused until someone changes the configuration, which Kafka clients get at
start only. So the start fails with a message. If the network or a token endpoint is down, the clients wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AdminClient,
    ClusterMetadata,
)

from connector.config.checks import START_ALIASES
from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.records import NO_TIMESTAMP, UNREADABLE_HEADERS, Headers, Record

Property = str | int | float | bool
T = TypeVar("T")

# librdkafka's local errors. confluent-kafka keeps the underscore in their names.
FAIL: Final = KafkaError._FAIL  # noqa: SLF001 - public by librdkafka's convention
FATAL: Final = KafkaError._FATAL  # noqa: SLF001 - as FAIL
QUEUE_FULL: Final = KafkaError._QUEUE_FULL  # noqa: SLF001 - as FAIL
AUTO_OFFSET_RESET: Final = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - as FAIL
AUTHENTICATION: Final = KafkaError._AUTHENTICATION  # noqa: SLF001 - as FAIL
ALL_BROKERS_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - as FAIL
SSL: Final = KafkaError._SSL  # noqa: SLF001 - as FAIL
PARTITION_EOF: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - as FAIL
TRANSPORT: Final = KafkaError._TRANSPORT  # noqa: SLF001 - as FAIL

_TRANSIENT: Final = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""Errors of a cluster that is still starting or is moving leaders: the same request succeeds a moment later."""
_REPEAT_SECONDS: Final = 15.0
_REPEAT_PAUSE: Final = 0.2
_LEAST_FETCH: Final = 16 << 10
_FETCH_SHARE: Final = 24
"""A fetch requests this fraction of the queue: 64 KiB of 1.5 MiB (measured, see docs/delivery.md)."""
_LEAST_MESSAGE: Final = 1000
_QUEUED_RECORDS: Final = 5000
"""Records that librdkafka fetches ahead, plus one fetch. A poll takes up to 1,000, and a fetch takes milliseconds."""
LEAST_BATCH: Final = 16 << 10
"""Bytes of a producer's batch that are below any sensible limit of a topic."""
MOST_BATCH: Final = 64 << 10
"""Bytes of a producer's batch where the topics take that much.

While a partition has more records than a batch takes, librdkafka's thread hardly sleeps. With batches of 16 KiB it so
took 5 to 9 µs of CPU for each result of 160 bytes, with 64 KiB 1.5 to 1.8.
"""
_RESET: Final = "auto.offset.reset"
_SESSION_MS: Final = 45_000
"""The session time-out of Kafka's clients and, under KIP-848, of its brokers."""

_CONSUMER_ONLY: Final = frozenset(
    {
        *("group.instance.id", "group.protocol", "group.remote.assignor", "group.protocol.type"),
        *("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms"),
        *("coordinator.query.interval.ms", "isolation.level", "check.crcs", "consume.callback.max.messages"),
        *("fetch.wait.max.ms", "fetch.queue.backoff.ms", "fetch.message.max.bytes", "max.partition.fetch.bytes"),
        *("fetch.max.bytes", "fetch.min.bytes", "fetch.error.backoff.ms", "allow.auto.create.topics"),
        "queued.min.messages",
        *("offset.store.method", "offset.store.path", "offset.store.sync.interval.ms"),
    }
)
_PRODUCER_ONLY: Final = frozenset(
    {
        *("transaction.timeout.ms", "enable.gapless.guarantee", "queue.buffering.max.messages"),
        *("queue.buffering.max.kbytes", "queue.buffering.max.ms", "linger.ms", "message.send.max.retries", "retries"),
        *("queue.buffering.backpressure.threshold", "compression.codec", "compression.type", "compression.level"),
        *("batch.num.messages", "batch.size", "sticky.partitioning.linger.ms", "request.timeout.ms"),
        *("message.timeout.ms", "delivery.timeout.ms", "queuing.strategy", "partitioner"),
    }
)

_REFUSALS: Final = (AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_FORBIDDEN: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_TOKEN: Final = "failed to acquire sasl oauthbearer token"  # noqa: S105 - librdkafka's message
# What a token endpoint answers if it refuses the client: RFC 6749, section 5.2.
_NO_TOKEN: Final = ("invalid_client", "invalid_grant", "invalid_scope", "unauthorized_client", "unsupported_grant_type")
# A broker refuses a client's certificate with an alert; under TLS 1.3 it comes after the handshake, as an error of the
# transport.
_CERTIFICATE_ALERTS: Final = ("alert certificate", "alert unknown ca", "alert bad certificate", "certificate required")

_HEADERS_OF: Final = Message.headers
"""Called by `map`, which notices an error.

`headers()` of confluent-kafka 2.16 sets an error for a name that is not UTF-8, and returns a result all the same. A
plain call raises `SystemError` for that only until CPython has specialised it (after some 100 calls); then the result
is used, and the error appears at an unrelated place.
"""

_QUIET_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 60.0
"""An error that returns soon after its end is not logged again for this many seconds, unless it lasts."""
_SETTLED_SECONDS: Final = 5.0

_log = structlog.get_logger()

# syslog's levels 0 to 2 mean that the client no longer works, 3 an error; confluent-kafka maps them to logging's.
_LEVELS: Final = (
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
    (logging.NOTSET, "debug"),
)


class LibrdkafkaLog:
    """A logger for confluent-kafka: logs librdkafka's lines as the event `kafka.client`.

    Lines of one kind (librdkafka's first word, such as FAIL) are logged once in 30 s: a broker that refuses connections
    causes dozens a second.
    """

    def __init__(self, client: str, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._next: dict[str, float] = {}

    def log(self, level: int, text: str, *args: object) -> None:
        """Log one line; `level` is one of `logging`'s."""
        line = (text % args) if args else text
        kind, now = line.partition(" ")[0], self._now()
        # By its first word only, because the rest of the line names a broker and a count, and differs each time.
        if now < self._next.get(kind, now):
            return
        self._next[kind] = now + _QUIET_SECONDS
        name = next(name for least, name in _LEVELS if level >= least)
        getattr(_log, name)("kafka.client", client=self._client, text=line)


class ErrorStates:
    """Logs each lasting error of a client or a topic once when it begins and once when it ends.

    librdkafka repeats errors such as `_ALL_BROKERS_DOWN` for as long as they last. An error that comes and goes is
    logged once in `_AGAIN_SECONDS`, and in between only if it has lasted `_SETTLED_SECONDS`. The line says how many
    were left out.
    """

    def __init__(self, client: str, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._current: dict[tuple[str | None, int], KafkaError] = {}
        self._unlogged: dict[tuple[str | None, int], float] = {}
        """The errors that are not logged yet, and since when each lasts."""
        self._logged_at: dict[tuple[str | None, int], float] = {}
        self._left_out: Counter[str | None] = Counter()

    def report(self, error: KafkaError, topic: str | None = None) -> None:
        """Note an error, perhaps one that already lasts; `topic` is the topic concerned, None for the whole client."""
        state, now = (topic, error.code()), self._now()
        if state not in self._current:
            self._current[state] = error
            self._unlogged[state] = now
            if now - self._logged_at.get(state, float("-inf")) >= _AGAIN_SECONDS:
                self._log(state, now)
        self.settle()

    def settle(self) -> None:
        """Log the errors that have lasted long enough. Cheap if there are none."""
        now = self._now()
        for state in [state for state, since in self._unlogged.items() if now - since >= _SETTLED_SECONDS]:
            self._log(state, now)

    def over(self, topic: str | None = None) -> None:
        """Note that the client, or the topic, works again. No effect if there was no error."""
        ended = [state for state in self._current if state[0] == topic]
        was_logged = any(state not in self._unlogged for state in ended)
        for state in ended:
            del self._current[state]
            self._left_out[topic] += self._unlogged.pop(state, None) is not None
        if was_logged:
            _log.info("kafka.recovered", client=self._client, topic=topic)

    def _log(self, state: tuple[str | None, int], now: float) -> None:
        topic, error = state[0], self._current[state]
        del self._unlogged[state]
        self._logged_at[state] = now
        _log.warning(
            "kafka.trouble",
            client=self._client,
            topic=topic,
            code=error.name(),
            message=error.str(),
            changes_left_out=self._left_out.pop(topic, 0),
        )

    @property
    def texts(self) -> dict[str | None, str]:
        """The lasting errors by topic, None for the whole client; of several, the one that explains most."""
        ranked = sorted(self._current.items(), key=lambda item: _rank(item[1]))
        return {topic: error_text(error) for (topic, _), error in ranked}

    @property
    def is_refused(self) -> bool:
        """Whether any error is a refusal of the credential, the certificate, or a permission."""
        return any(is_final(error) or code in _FORBIDDEN for (_, code), error in self._current.items())

    @property
    def of_client(self) -> bool:
        """Whether an error concerns the client as a whole."""
        return any(topic is None for topic, _ in self._current)

    @property
    def all_down(self) -> bool:
        """Whether the client knows of no broker that answers."""
        return (None, ALL_BROKERS_DOWN) in self._current

    def __bool__(self) -> bool:
        """Whether any error lasts."""
        return bool(self._current)


def until_answered(call: Callable[[], T], sleep: Callable[[float], object] = time.sleep) -> T:
    """Run a blocking call and return its result. Repeat it while its error is transient, for at most `_REPEAT_SECONDS`.

    `run` waits for such a cluster as long as it takes. A command has a deadline, because a person waits for it.
    """
    deadline = time.monotonic() + _REPEAT_SECONDS
    while True:
        try:
            return call()
        except KafkaException as error:
            if not _is_transient(error) or time.monotonic() > deadline:
                raise
        sleep(_REPEAT_PAUSE)


async def until_resolved(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the admin client's answer; repeat the request as `until_answered` does."""
    deadline = time.monotonic() + _REPEAT_SECONDS
    while True:
        try:
            return await ask()
        except KafkaException as error:
            if not _is_transient(error) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_REPEAT_PAUSE)


def _is_transient(error: KafkaException) -> bool:
    fault = kafka_error(error)
    return fault.code() in _TRANSIENT or fault.retriable()


def start_of(settings: KafkaSettings) -> str | int:
    """Return where reading starts without a committed offset: `earliest`, `latest` or epoch milliseconds.

    Taken from `kafka.start`, else its alias `auto.offset.reset` under `kafka.client`, else `earliest`. Raises
    `StartupError` if Kafka does not know the alias's value.
    """
    if settings.start is not None:
        return settings.start
    reset = str(settings.client.get(_RESET, "earliest"))
    if reset not in START_ALIASES:
        allowed = ", ".join(sorted(START_ALIASES))
        raise StartupError(f"kafka.client.{_RESET}: {reset!r} is not allowed; use {allowed}, or set kafka.start")
    return START_ALIASES[reset]


def session_seconds(settings: KafkaSettings) -> float:
    """Return how long a group still counts a member that was killed, or a static one that has stopped."""
    return float(settings.client.get("session.timeout.ms", _SESSION_MS)) / 1000


def is_incremental(client: Mapping[str, Any]) -> bool:
    """Whether partitions are assigned and revoked in increments: KIP-848 and cooperative assignors."""
    if client.get("group.protocol") == "consumer":
        return True
    return "cooperative" in str(client.get("partition.assignment.strategy", "cooperative-sticky"))


def consumer_config(settings: KafkaSettings, group_id: str, queue_bytes: int) -> dict[str, Any]:
    """Return the consumer's properties.

    librdkafka's own queue holds at most about `queue_bytes`, plus one fetch (a 24th of it, or one larger record).
    """
    client = _common(settings, _PRODUCER_ONLY)
    client.pop(_RESET, None)
    kbytes = max(64, queue_bytes // 1024)
    fetch = max(_LEAST_FETCH, queue_bytes // _FETCH_SHARE)
    kip_848 = client.get("group.protocol") == "consumer"
    return {
        # With KIP-848 the broker assigns, and librdkafka refuses a strategy in addition.
        **({} if kip_848 else {"partition.assignment.strategy": "cooperative-sticky"}),
        # How long a classic group may not know of added partitions or a recreated topic; librdkafka's default is 5 min.
        "topic.metadata.refresh.interval.ms": 30_000,
        # With a small queue the fetcher would otherwise back off for a second each time the queue is full.
        "fetch.queue.backoff.ms": 10,
        # The queue may exceed its limit by one fetch; a record larger than these limits comes alone (KIP-74).
        # Both count compressed bytes, which unpack to a hundred times as many, so they are far below the queue's.
        "fetch.max.bytes": fetch,
        "fetch.message.max.bytes": fetch // 2,
        # The limit in bytes does not count librdkafka's own objects, which are larger than a small record.
        "queued.min.messages": _QUEUED_RECORDS,
        **client,
        # librdkafka's minimum for a fetch; a consumer uses the property for nothing else.
        "message.max.bytes": _LEAST_MESSAGE,
        "queued.max.messages.kbytes": kbytes,
        # A killed replay leaves uncommitted records. If they were read, they would be sent twice.
        "isolation.level": "read_committed",
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Only this event reports that a transaction's last marker was passed.
        "enable.partition.eof": True,
        # Only a person may decide to skip or repeat records, so an offset out of range stops the run.
        _RESET: "error",
    }


def reader_config(settings: KafkaSettings, group_id: str, queue_bytes: int) -> dict[str, Any]:
    """Return the properties of a consumer that never joins its group."""
    config = consumer_config(settings, group_id, queue_bytes)
    # It would only take a static member's identity from a running member.
    config.pop("group.instance.id", None)
    return config


def producer_config(settings: KafkaSettings, batch_bytes: int = LEAST_BATCH) -> dict[str, Any]:
    """Return the properties of an idempotent producer. A batch of several records has at most `batch_bytes`."""
    return {
        # No limit in the client, so that dead letters of large records pass; the broker checks the topic's own limit.
        "message.max.bytes": 64 << 20,
        # The broker refuses a whole batch that is larger than the topic's max.message.bytes, with the innocent records
        # in it. So a batch of several records stays below any sensible limit of a topic.
        "batch.size": batch_bytes,
        # The Java clients' default, so that all producers write a key to the same partition.
        "partitioner": "murmur2_random",
        # A record that fits into its topic only when compressed must also fit into the dead-letter topic.
        **({} if "compression.codec" in settings.client else {"compression.type": "zstd"}),
        **_common(settings, _CONSUMER_ONLY | {_RESET}),
        "enable.idempotence": True,
    }


def admin_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the properties of an admin client."""
    return _common(settings, _CONSUMER_ONLY | _PRODUCER_ONLY | {_RESET})


def construct(kind: Callable[..., T], config: Mapping[str, Any], **arguments: Any) -> T:
    """Return `kind(config)`. Raises `StartupError` with librdkafka's message if it refuses the properties."""
    try:
        return kind(dict(config), **arguments)
    except KafkaException as error:
        raise StartupError(f"kafka.client: {error_text(error)}") from None
    except (TypeError, ValueError) as error:
        raise StartupError(f"kafka.client: {error}") from None


def property_faults(settings: KafkaSettings) -> Iterator[tuple[str, str]]:
    """Yield each property that librdkafka rejects, and why; the name is empty if librdkafka gives none.

    It creates a consumer without brokers, so nothing connects.
    """
    left = {**_common(settings, frozenset()), **consumer_config(settings, settings.group_id, 1 << 20)}
    left.pop("bootstrap.servers", None)
    for _ in range(1 + len(settings.client)):
        try:
            Consumer({**left, "log_level": 0}).close()
        except KafkaException as error:
            text = kafka_error(error).str().strip().removeprefix("Failed to create consumer: ")
        except (TypeError, ValueError) as error:
            text = str(error)
        else:
            return
        name = max((each for each in settings.client if each in left and each in text), key=len, default="")
        if name.endswith(".location") and not Path(str(settings.client[name])).exists():
            text = f"no such file: {settings.client[name]}"
        yield name, text
        if not name:
            return
        del left[name]


def kafka_error(error: KafkaException) -> KafkaError:
    """Return the error inside an exception of confluent-kafka."""
    # The binding raises some errors of its own with plain text instead of a `KafkaError`.
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(FAIL, str(error))


def error_text(error: KafkaException | KafkaError) -> str:
    """Return an error as `NAME: librdkafka's message`."""
    inner = kafka_error(error) if isinstance(error, KafkaException) else error
    return f"{inner.name()}: {inner.str()}"


def record_of(message: Message) -> Record:
    """Return a consumed message that is not an error as a record."""
    (record,) = records_of((message,))
    return record


def records_of(messages: Sequence[Message]) -> list[Record]:
    """Return consumed messages, none of which is an error, as records.

    Column by column, so that the loops run in C: this is a tenth of what a record costs.
    """
    # The type stub allows all of these to be missing, but a message without an error has them.
    record: Callable[..., Record] = Record
    timestamps = [
        timestamp if kind != TIMESTAMP_NOT_AVAILABLE else NO_TIMESTAMP
        for kind, timestamp in map(Message.timestamp, messages)
    ]
    return list(
        map(
            record,
            map(Message.topic, messages),
            map(Message.partition, messages),
            map(Message.offset, messages),
            timestamps,
            map(Message.key, messages),
            map(Message.value, messages),
            _headers_of(messages),
        )
    )


def _headers_of(messages: Sequence[Message]) -> list[Headers]:
    found: list[Any] = []
    rest = map(_HEADERS_OF, messages)
    while len(found) < len(messages):
        try:
            # If one fails, the list keeps those before it, and `rest` continues behind it.
            found.extend(rest)
        except SystemError:
            # confluent-kafka 2.16 fails like this for a name that is not UTF-8. A second call returns tuples with a
            # null pointer as the name, which must not be touched. The decoder refuses the record, so that it is neither
            # lost nor sent without headers that a route may need.
            found.append(UNREADABLE_HEADERS)
    return [headers or () for headers in found]


def _common(settings: KafkaSettings, others: frozenset[str]) -> dict[str, Any]:
    """Return the user's properties without those that only other kinds of client know."""
    return {name: _as_librdkafka(value) for name, value in settings.client.items() if name not in others}


def _as_librdkafka(value: Property) -> Property:
    # librdkafka takes "true", not Python's "True".
    return str(value).lower() if isinstance(value, bool) else value


def is_final(error: KafkaError) -> bool:
    """Whether waiting cannot help: a refused credential, or a certificate that does not verify."""
    text = error.str().lower()
    if error.code() in _REFUSALS:
        # A token endpoint that is down and one that refuses have the same error code. Only the answers of RFC 6749 are
        # final.
        return _TOKEN not in text or any(code in text for code in _NO_TOKEN)
    if error.code() == SSL:
        return "certificate" in text or "alert" in text
    return error.code() == TRANSPORT and any(alert in text for alert in _CERTIFICATE_ALERTS)


def says_more(error: KafkaError, than: KafkaError | None) -> bool:
    """Return a number for how much an error explains: most for a refusal, least for "all brokers down"."""
    return than is None or _rank(error) >= _rank(than)


def explained(error: KafkaError, client: Mapping[str, Any]) -> str:
    """Return the error as text, with the property of `kafka.client` to check if one is likely."""
    text, advice = error_text(error), _advice(error, client)
    return f"{text}; {advice}" if advice else text


def _rank(error: KafkaError) -> int:
    if is_final(error):
        return 2
    return 0 if error.code() == ALL_BROKERS_DOWN else 1


def _advice(error: KafkaError, client: Mapping[str, Any]) -> str | None:
    text = error.str().lower()
    if any(alert in text for alert in _CERTIFICATE_ALERTS):
        return "the broker refuses this client's certificate; check ssl.certificate.location and ssl.key.location"
    if error.code() in _REFUSALS:
        if _TOKEN in text:
            return "check the sasl.oauthbearer properties"
        return "check sasl.mechanism, sasl.username and sasl.password"
    plain = str(client.get("security.protocol", "plaintext")).lower() in ("plaintext", "sasl_plaintext")
    if plain and error.code() in (ALL_BROKERS_DOWN, TRANSPORT) and "refused" not in text:
        return "if the listener uses TLS, set security.protocol to SSL or SASL_SSL"
    return None


class Admin:
    """Admin client that can be closed, as an asynchronous context manager. `name` is its name in the log.

    The binding leaves closing to the garbage collector, and an object that a traceback refers to may live until the
    process ends. Then the client's threads still run while the process's libraries are cleaned up, and one that
    connects by TLS at that moment ends the process with SIGSEGV. Raises `StartupError` for properties unknown to
    librdkafka.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.client = construct(AdminClient, config, logger=LibrdkafkaLog(name))
        self._requesting = threading.Lock()

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def topics(self, timeout: float) -> ClusterMetadata:
        """Return the metadata of all topics. Raises `KafkaException`, also after `timeout` seconds."""
        return await asyncio.to_thread(self._topics, timeout)

    async def serve(self) -> None:
        """Run the callbacks that librdkafka has pending."""
        await asyncio.to_thread(self._serve)

    async def close(self) -> None:
        """End the client's threads, after a pending request has its answer. The client cannot be used any more."""
        await asyncio.to_thread(self._close)

    def _topics(self, timeout: float) -> ClusterMetadata:
        with self._requesting:
            return self.client.list_topics(timeout=timeout)

    def _serve(self) -> None:
        with self._requesting:
            self.client.poll(0)

    def _close(self) -> None:
        # Under the lock: a request still running in another thread would use the freed client.
        with self._requesting:
            self.client.__exit__(None, None, None)
