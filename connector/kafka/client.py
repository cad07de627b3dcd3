"""What every Kafka client of the connector has in common: its properties, its log, its errors.

The user's `kafka.client` reaches all of them; properties that only one kind of client knows go to that kind, because
librdkafka warns of the others, and those that the promises rest on are set here, whatever the user's say
(`connector.config.loader` refuses them by name).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from connector.config.loader import KafkaSettings
from connector.errors import StartupError

Property = str | int | float | bool
T = TypeVar("T")

# librdkafka's local errors; confluent-kafka spells their names with the underscore that librdkafka has.
FAIL: Final = KafkaError._FAIL  # noqa: SLF001 - public by librdkafka's convention
FATAL: Final = KafkaError._FATAL  # noqa: SLF001 - as FAIL
AUTO_OFFSET_RESET: Final = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001 - as FAIL
AUTHENTICATION: Final = KafkaError._AUTHENTICATION  # noqa: SLF001 - as FAIL
ALL_BROKERS_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - as FAIL
SSL: Final = KafkaError._SSL  # noqa: SLF001 - as FAIL
TRANSPORT: Final = KafkaError._TRANSPORT  # noqa: SLF001 - as FAIL

_RESET: Final = "auto.offset.reset"
_ALIASES: Final = {
    "earliest": "earliest",
    "smallest": "earliest",
    "beginning": "earliest",
    "latest": "latest",
    "largest": "latest",
    "end": "latest",
}

_CONSUMER_ONLY: Final = frozenset(
    {
        *("group.instance.id", "group.protocol", "group.remote.assignor", "group.protocol.type"),
        *("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms"),
        *("coordinator.query.interval.ms", "isolation.level", "check.crcs", "consume.callback.max.messages"),
        *("fetch.wait.max.ms", "fetch.queue.backoff.ms", "fetch.message.max.bytes", "max.partition.fetch.bytes"),
        *("fetch.max.bytes", "fetch.min.bytes", "fetch.error.backoff.ms", "allow.auto.create.topics"),
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

_QUIET_SECONDS: Final = 30.0

_log = structlog.get_logger()

# syslog's levels 0 to 2 mean that the client can no longer work, 3 an error; confluent-kafka gives them as logging's.
_LEVELS: Final = (
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
    (logging.NOTSET, "debug"),
)


class LibrdkafkaLog:
    """Takes librdkafka's log lines as confluent-kafka gives them to a logger, and logs them as `kafka.client`.

    A line of one kind (librdkafka's first word, such as FAIL) is logged once in 30 s: a broker that refuses a
    connection makes dozens a second.
    """

    def __init__(self, client: str, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._next: dict[str, float] = {}

    def log(self, level: int, text: str, *args: object) -> None:
        """Log one line; `level` is one of `logging`'s."""
        line = (text % args) if args else text
        kind, now = line.partition(" ")[0], self._now()
        if now < self._next.get(kind, now):
            return
        self._next[kind] = now + _QUIET_SECONDS
        name = next(name for least, name in _LEVELS if level >= least)
        getattr(_log, name)("kafka.client", client=self._client, text=line)


def _telling(code: int) -> int:
    """Return how much an error explains: a refusal most; that all brokers are down is what other causes end in."""
    return {AUTHENTICATION: 2, SSL: 2, ALL_BROKERS_DOWN: 0}.get(code, 1)


class ErrorStates:
    """Says each lasting trouble of a client, or of one topic, once, and once that it is over.

    librdkafka repeats `_ALL_BROKERS_DOWN` and its like for as long as they last; a log needs the change only.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._current: dict[tuple[str | None, int], str] = {}

    def report(self, error: KafkaError, topic: str | None = None) -> None:
        """Log the error unless it is lasting already; `topic` is whose trouble it is, None for the whole client's."""
        state = topic, error.code()
        if state not in self._current:
            self._current[state] = error_text(error)
            _log.warning("kafka.trouble", client=self._client, topic=topic, code=error.name(), message=error.str())

    def over(self, topic: str | None = None) -> None:
        """Say that the client, or the topic, works again; nothing where it did all the time."""
        ended = [state for state in self._current if state[0] == topic]
        if ended:
            for state in ended:
                del self._current[state]
            _log.info("kafka.recovered", client=self._client, topic=topic)

    @property
    def texts(self) -> dict[str | None, str]:
        """What lasts, by topic, None for the whole client; of several the one that says most."""
        return {topic: text for (topic, _), text in sorted(self._current.items(), key=lambda one: _telling(one[0][1]))}

    @property
    def of_client(self) -> bool:
        """Whether the client as a whole is in trouble."""
        return any(topic is None for topic, _ in self._current)

    @property
    def all_down(self) -> bool:
        """Whether the client knows of no broker that answers."""
        return (None, ALL_BROKERS_DOWN) in self._current

    def __bool__(self) -> bool:
        """Tell whether there is any trouble."""
        return bool(self._current)


def start_of(settings: KafkaSettings) -> str | int:
    """Return where reading starts without a committed offset: `earliest`, `latest` or epoch milliseconds.

    `kafka.start` decides, else its alias `auto.offset.reset` under `kafka.client`, else `earliest`. Raises
    `StartupError` for a value of the alias that is none of Kafka's.
    """
    if settings.start is not None:
        return settings.start
    reset = str(settings.client.get(_RESET, "earliest"))
    if reset not in _ALIASES:
        allowed = ", ".join(sorted(_ALIASES))
        raise StartupError(f"kafka.client.{_RESET}: {reset!r} is not allowed, only {allowed}; or set kafka.start")
    return _ALIASES[reset]


def is_incremental(client: Mapping[str, Any]) -> bool:
    """Tell whether partitions are assigned and revoked in increments: KIP-848 and cooperative assignors."""
    if client.get("group.protocol") == "consumer":
        return True
    return "cooperative" in str(client.get("partition.assignment.strategy", "cooperative-sticky"))


def consumer_config(settings: KafkaSettings, group_id: str, queue_bytes: int) -> dict[str, Any]:
    """Return the consumer's properties.

    librdkafka's own queue holds at most about `queue_bytes`, and one fetch (1 MiB, or one larger record) more.
    """
    client = _common(settings, _PRODUCER_ONLY)
    client.pop(_RESET, None)
    kbytes = max(64, queue_bytes // 1024)
    kip_848 = client.get("group.protocol") == "consumer"
    return {
        # KIP-848's assignor is the broker's, and librdkafka refuses a strategy beside it.
        **({} if kip_848 else {"partition.assignment.strategy": "cooperative-sticky"}),
        # With a small queue the fetcher would otherwise rest for a second each time the queue is full.
        "fetch.queue.backoff.ms": 10,
        # The queue is overshot by what one answer holds; a record larger than these comes alone (KIP-74).
        "fetch.max.bytes": 1 << 20,
        "fetch.message.max.bytes": 256 << 10,
        **client,
        "queued.max.messages.kbytes": kbytes,
        # A replay that was killed half-way leaves records that were never committed: read, they would be sent twice.
        "isolation.level": "read_committed",
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # That a transaction's last marker was passed is told by nothing else.
        "enable.partition.eof": True,
        # A jump over records, or back, must be a person's decision: an offset out of range stops the run.
        _RESET: "error",
    }


def producer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the properties of an idempotent producer."""
    return {
        # A dead letter of a topic with larger records has to pass; the topic's own limit is the broker's to check.
        "message.max.bytes": 64 << 20,
        # A batch over the topic's max.message.bytes is refused whole, with the innocent records in it. So a batch of
        # several records stays as small as the least limit of a topic that makes sense.
        "batch.size": 16_384,
        # As Java clients do it, so that a key has the same partition whoever writes.
        "partitioner": "murmur2_random",
        **_common(settings, _CONSUMER_ONLY | {_RESET}),
        "enable.idempotence": True,
    }


def admin_config(settings: KafkaSettings) -> dict[str, Any]:
    """Return the properties of a client that only asks."""
    return _common(settings, _CONSUMER_ONLY | _PRODUCER_ONLY | {_RESET})


def construct(kind: Callable[..., T], config: Mapping[str, Any], **arguments: Any) -> T:
    """Return `kind(config)`. Raises `StartupError` with librdkafka's words where it does not take the properties."""
    try:
        return kind(dict(config), **arguments)
    except KafkaException as error:
        raise StartupError(f"kafka.client: {error_text(error)}") from None
    except (TypeError, ValueError) as error:
        raise StartupError(f"kafka.client: {error}") from None


def kafka_error(error: KafkaException) -> KafkaError:
    """Return the error inside an exception of confluent-kafka."""
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(FAIL, str(error))


def error_text(error: KafkaException | KafkaError) -> str:
    """Return an error as `NAME: what librdkafka says`."""
    inner = kafka_error(error) if isinstance(error, KafkaException) else error
    return f"{inner.name()}: {inner.str()}"


def _common(settings: KafkaSettings, others: frozenset[str]) -> dict[str, Any]:
    """Return the user's properties without those of other kinds of client, in librdkafka's spelling."""
    return {name: _spelt(value) for name, value in settings.client.items() if name not in others}


def _spelt(value: Property) -> Property:
    return str(value).lower() if isinstance(value, bool) else value
