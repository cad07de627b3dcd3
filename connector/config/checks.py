"""Checks across several keys, after each key was found valid alone. They yield faults and change nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from connector.config.base import Model
from connector.config.errors import suggest
from connector.config.models import (
    BatchSettings,
    DestinationSettings,
    DocumentedLimits,
    KafkaSettings,
    Settings,
)
from connector.config.routes import RouteSettings
from connector.config.yaml import join
from connector.errors import ConfigFault

_POLL_INTERVAL: Final = 300_000
"""librdkafka's default of max.poll.interval.ms."""
_COMMIT_MARGIN: Final = 5.0
"""Seconds reserved for the last commit after a drain."""

DRAIN_MARGIN: Final = 2.0
"""Seconds of `drain_timeout` that remain for dead letters and the last commit after a request timed out."""

START_ALIASES: Final = {
    "earliest": "earliest",
    "smallest": "earliest",
    "beginning": "earliest",
    "latest": "latest",
    "largest": "latest",
    "end": "latest",
}
"""librdkafka's values of auto.offset.reset, and the same in `kafka.start`."""

_COMMITS: Final = "it commits after delivery, as often as limits.commit_interval says"
_PRODUCER: Final = "its producer is idempotent and waits for all replicas"

OWNED_PROPERTIES: Final[Mapping[str, str]] = {
    "group.id": "use kafka.group_id",
    "metadata.broker.list": "use bootstrap.servers",
    "enable.auto.commit": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "offset.store.method": _COMMITS,
    "enable.partition.eof": "it relies on it",
    "isolation.level": "it reads committed records only, which replay relies on",
    "queued.max.messages.kbytes": "use limits.buffer",
    "enable.idempotence": _PRODUCER,
    "acks": _PRODUCER,
    "request.required.acks": _PRODUCER,
    "transactional.id": "each replay sets its own",
    "test.mock.num.brokers": "use `connector demo` for a broker in memory",
}
"""librdkafka's properties that the connector sets itself, with the reason or with what to use instead."""

_KIP_848_REFUSES: Final = (
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "group.protocol.type",
)
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
# The name becomes part of a group id, of a metric's label and of URLs, so it may have only characters that are plain in
# all of them.
_DESTINATION: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TOPIC_ALLOWED: Final = "a topic name has 1 to 249 characters of A-Z a-z 0-9 . _ - and is not . or .."


def name_fault(name: str) -> ConfigFault | None:
    """Return the fault of a destination's name, which becomes part of a consumer group's name and of metrics."""
    if _DESTINATION.fullmatch(name):
        return None
    return ConfigFault(
        join("destinations", name),
        "invalid name: it must begin with a-z or 0-9, may go on with . _ - too, and has no capital letters",
    )


def check_destination(
    name: str, settings: DestinationSettings, rules: frozenset[str] | None, folder: Path
) -> Iterator[ConfigFault]:
    """Yield the faults of one destination: limits, rules, files, empty secrets."""
    path = join("destinations", name)
    yield from _limits(path, settings.vendor, settings, settings.documented)
    if settings.retry.initial > settings.retry.max:
        yield ConfigFault(
            f"{path}.retry.initial",
            f"must be at most retry.max ({settings.retry.max:g}s), not {settings.retry.initial:g}s",
        )
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, SecretStr) and not value.get_secret_value():
            yield ConfigFault(join(path, field), "must not be empty")
        # A secret file made by `echo` ends in a line break, which no header may hold.
        elif isinstance(value, SecretStr) and not value.get_secret_value().isprintable():
            message = "contains a line break or another control character; a secret has printable characters only"
            yield ConfigFault(join(path, field), message)
    for rule in settings.rules:
        if rules is not None and rule not in rules:
            yield ConfigFault(
                f"{path}.rules.{rule}", f"{settings.vendor} has no rule {rule!r}; {suggest(rule, rules, 'rules')}"
            )
    http = settings.http
    if (http.cert_file is None) != (http.key_file is None):
        yield ConfigFault(f"{path}.http", "cert_file and key_file must be set together")
    for key in ("ca_file", "cert_file", "key_file"):
        file = getattr(http, key)
        if file is not None and not (folder / file).is_file():
            yield ConfigFault(
                f"{path}.http.{key}", f"no such file: {file}; the path is relative to the configuration's folder"
            )


class _Limits(Model):
    """The keys of a destination that a vendor's documented limits bound."""

    batch: BatchSettings = BatchSettings()
    agreed_limits: bool = False
    requests_per_second: float | None = None


def check_limits(path: str, model: type[DestinationSettings], body: Mapping[str, object]) -> Iterator[ConfigFault]:
    """Yield the limits above the vendor's in a destination that has other faults too, so that all are reported."""
    try:
        limits = _Limits.model_validate({key: body[key] for key in _Limits.model_fields if key in body})
    except ValidationError:
        return
    yield from _limits(path, str(body["vendor"]), limits, model.documented)


def _limits(
    path: str, vendor: str, settings: DestinationSettings | _Limits, documented: DocumentedLimits
) -> Iterator[ConfigFault]:
    """Yield the limits that are above what the vendor documents."""
    if settings.agreed_limits:
        return
    for key, value, limit in (
        ("batch.records", settings.batch.records, documented.records),
        ("batch.bytes", settings.batch.bytes, documented.bytes),
        ("requests_per_second", settings.requests_per_second, documented.requests_per_second),
    ):
        if value is not None and limit is not None and value > limit:
            yield ConfigFault(
                f"{path}.{key}",
                f"must be at most {limit:.12g}, the limit of {vendor}, not {value:.12g}; lower it, or set "
                "agreed_limits: true if the vendor granted this account more",
            )


def longest_timeout(settings: Settings) -> float:
    """Return the longest time-out of a request, in seconds, that still ends within a drain."""
    return settings.limits.drain_timeout - DRAIN_MARGIN


def check_timeout(name: str, settings: DestinationSettings, longest: float) -> Iterator[ConfigFault]:
    """Yield the fault of a time-out that is longer than a drain."""
    if settings.timeout > longest:
        yield ConfigFault(
            f"destinations.{name}.timeout",
            f"must be at most {longest:g}s (limits.drain_timeout - {DRAIN_MARGIN:g}s), not {settings.timeout:g}s",
        )


def check_poll_interval(settings: Settings) -> Iterator[ConfigFault]:
    """Yield the fault of a poll interval that a drain inside a rebalance would exceed.

    Nothing is polled while a drain waits for requests. If `max.poll.interval.ms` ends first, librdkafka leaves the
    group, the last commit is refused, and everything that the drain delivered is delivered again.
    """
    interval = str(settings.kafka.client.get("max.poll.interval.ms", _POLL_INTERVAL))
    least = settings.limits.drain_timeout + _COMMIT_MARGIN
    # librdkafka itself refuses any other text.
    if interval.isdecimal() and int(interval) < least * 1000:
        yield ConfigFault(
            "kafka.client.max.poll.interval.ms",
            f"must be at least {least * 1000:.0f}, not {interval}: limits.drain_timeout + {_COMMIT_MARGIN:g}s",
        )


def check_kafka(settings: KafkaSettings) -> Iterator[ConfigFault]:
    """Yield the faults of the topics and of librdkafka's properties."""
    for index, topic in enumerate(settings.topics):
        yield from _source_topic(f"kafka.topics[{index}]", topic)
    yield from check_client(settings.client, has_start=settings.start is not None)


def check_client(client: Mapping[str, object], *, has_start: bool) -> Iterator[ConfigFault]:
    """Yield the faults of librdkafka's properties. `has_start`: `kafka.start` is set."""
    for name, advice in OWNED_PROPERTIES.items():
        if name in client:
            yield ConfigFault(f"kafka.client.{name}", f"must not be set: the connector sets it; {advice}")
    if "bootstrap.servers" not in client:
        yield ConfigFault("kafka.client.bootstrap.servers", "is required; for example localhost:9092")
    elif not str(client["bootstrap.servers"]).strip():
        yield ConfigFault("kafka.client.bootstrap.servers", "must not be empty; write host:port, separated by commas")
    reset = client.get("auto.offset.reset")
    if reset is not None and has_start:
        yield ConfigFault("kafka.client.auto.offset.reset", "has the same meaning as kafka.start; keep one of the two")
    elif reset is not None and reset not in START_ALIASES:
        yield ConfigFault(
            "kafka.client.auto.offset.reset", f"must be earliest or latest, not {reset!r}; better use kafka.start"
        )
    if client.get("group.protocol") == "consumer":
        for name in _KIP_848_REFUSES:
            if name in client:
                yield ConfigFault(
                    f"kafka.client.{name}", "must not be set with group.protocol: consumer; the broker sets it"
                )


def _source_topic(path: str, topic: str) -> Iterator[ConfigFault]:
    """Yield the fault of a topic's name or pattern."""
    if topic.startswith("^"):
        try:
            re.compile(topic)
        except re.error as error:
            yield ConfigFault(path, f"invalid pattern {topic!r}: {error.msg} at position {error.pos}")
    elif not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        yield ConfigFault(path, f"invalid topic {topic!r}: {_TOPIC_ALLOWED}; a pattern begins with ^")


def check_topics(settings: Settings) -> Iterator[ConfigFault]:
    """Yield faults of the connector's own topics: an invalid name, also consumed, or used twice.

    Two destinations may share a results topic, because its records name their destination.
    """
    receipts = settings.receipts.topic
    own = [("dead_letters.topic", settings.dead_letter_topic), ("dead_letters.replay_topic", settings.replay_topic)]
    own += [(f"destinations.{name}.results_topic", topic) for name, topic in settings.results_topics.items()]
    own += [("receipts.topic", receipts)] if receipts is not None else []
    console = {
        "console.audit_topic": settings.console.audit_topic,
        "console.events_topic": settings.console.events_topic,
    }
    own += [(path, topic) for path, topic in console.items() if topic is not None]
    first: dict[str, str] = {}
    for path, topic in own:
        if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
            yield ConfigFault(path, f"invalid topic {topic!r}: {_TOPIC_ALLOWED}")
        elif topic in settings.kafka.topics:
            yield ConfigFault(
                path, f"must not be a topic of kafka.topics: the connector would consume {topic}, which it writes to"
            )
        elif topic in first and not (path.endswith(".results_topic") and first[topic].endswith(".results_topic")):
            yield ConfigFault(path, f"must not be {topic}, which is also {first[topic]}; each needs its own topic")
        # Keep the first key, so that every later one is reported against it.
        first.setdefault(topic, path)


def check_routes(settings: Settings, names: Iterable[str], vendors: Mapping[str, str]) -> Iterator[ConfigFault]:
    """Yield the faults between routes, topics and destinations.

    `names` are all destinations of the file and `vendors` the vendors of the valid ones, so that a fault inside a
    destination is not reported again for each of its routes.
    """
    known = set(names)
    for index, route in enumerate(settings.routes):
        path = f"routes[{index}]"
        for place, name in enumerate(route.to):
            if name not in known and known:
                yield ConfigFault(
                    f"{path}.to[{place}]", f"unknown destination {name!r}; {suggest(name, known, 'destinations')}"
                )
            elif name in route.to[:place]:
                yield ConfigFault(f"{path}.to[{place}]", f"{name} is listed twice; keep one")
        yield from _route_fields(path, route, vendors)
        for place, topic in enumerate(route.topics or ()):
            yield from _read_topic(f"{path}.topics[{place}]", topic, settings.kafka.topics)
    for topic in settings.schemas.plain:
        yield from _read_topic(f"schemas.plain.{topic}", topic, settings.kafka.topics)


def _route_fields(path: str, route: RouteSettings, vendors: Mapping[str, str]) -> Iterator[ConfigFault]:
    """Yield faults of mappings for vendors that the route does not deliver to."""
    if not all(name in vendors for name in route.to):
        return  # a name is unknown, or its destination faulty, which is reported there
    reached = {vendors[name] for name in route.to if name in vendors}
    for vendor in route.fields:
        if vendor not in reached:
            why = f"no destination of this route has the vendor {vendor}; {suggest(vendor, reached, 'vendors')}"
            if not route.to:
                why = (
                    "the route drops what it matches (to: []), so it maps nothing; remove fields, or name destinations"
                )
            yield ConfigFault(f"{path}.fields.{vendor}", why)


def _read_topic(path: str, topic: str, topics: Sequence[str]) -> Iterator[ConfigFault]:
    """Yield the fault of a topic that `kafka.topics` does not contain.

    A pattern matches as in librdkafka: from the first character, open at the end.
    """
    faults = list(_source_topic(path, topic))
    yield from faults
    patterns = [each for each in topics if each.startswith("^")]
    if faults or topic.startswith("^") or topic in topics:
        return
    try:
        if any(re.match(pattern, topic) for pattern in patterns):
            return
    except re.error:
        return
    yield ConfigFault(path, f"{topic} is not in kafka.topics; {suggest(topic, topics, 'topics')}")
