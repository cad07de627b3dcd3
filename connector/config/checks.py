"""Checks between keys, after every key was found valid by itself. Each returns faults and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from connector.config.errors import suggest
from connector.config.models import (
    BatchSettings,
    DestinationSettings,
    DocumentedLimits,
    KafkaSettings,
    RouteSettings,
    Settings,
)
from connector.config.values import Model
from connector.config.yaml import join
from connector.errors import Fault

DRAIN_MARGIN: Final = 2.0
"""Seconds of `drain_timeout` that stay for dead letters and the last commit after a request timed out."""

START_ALIASES: Final = {
    "earliest": "earliest",
    "smallest": "earliest",
    "beginning": "earliest",
    "latest": "latest",
    "largest": "latest",
    "end": "latest",
}
"""librdkafka's values of auto.offset.reset, as `kafka.start` says them."""

_COMMITS: Final = "the connector commits by itself, after delivery; limits.commit_interval says how often"
_PRODUCER: Final = "the connector's producer is idempotent and waits for all replicas"

OWNED_PROPERTIES: Final[Mapping[str, str]] = {
    "group.id": "use kafka.group_id",
    "metadata.broker.list": "use bootstrap.servers",
    "enable.auto.commit": _COMMITS,
    "auto.commit.enable": _COMMITS,
    "auto.commit.interval.ms": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "offset.store.method": _COMMITS,
    "enable.partition.eof": "the connector needs it",
    "isolation.level": "the connector reads committed records only; a replay rests on it",
    "queued.max.messages.kbytes": "use limits.buffer",
    "enable.idempotence": _PRODUCER,
    "acks": _PRODUCER,
    "request.required.acks": _PRODUCER,
    "transactional.id": "a replay sets its own",
    "test.mock.num.brokers": "connector demo starts a broker of its own",
}
"""librdkafka's properties that the connector sets itself, each with what to use instead."""

_KIP_848_REFUSES: Final = (
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "partition.assignment.strategy",
    "group.protocol.type",
)
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_DESTINATION: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TOPIC_ALLOWED: Final = "a topic's name has 1 to 249 of A-Z a-z 0-9 . _ - and is not . or .."


def name_fault(name: str) -> Fault | None:
    """Return the fault of a destination's name; it is part of a consumer group's name and of metrics."""
    if _DESTINATION.fullmatch(name):
        return None
    return Fault(
        join("destinations", name), "a destination's name begins with a-z or 0-9, then also . _ -; no capital letters"
    )


def check_destination(
    name: str, settings: DestinationSettings, rules: frozenset[str] | None, folder: Path
) -> Iterator[Fault]:
    """Yield what is wrong inside one destination: limits, rules, files, empty secrets."""
    path = join("destinations", name)
    yield from _limits(path, settings.vendor, settings, settings.documented)
    if settings.retry.initial > settings.retry.max:
        yield Fault(f"{path}.retry.initial", "is longer than retry.max; allowed: at most retry.max")
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, SecretStr) and not value.get_secret_value():
            yield Fault(join(path, field), "is an empty text; a secret has at least one character")
    for rule in settings.rules:
        if rules is not None and rule not in rules:
            yield Fault(f"{path}.rules.{rule}", f"unknown rule of {settings.vendor}; {suggest(rule, rules)}")
    http = settings.http
    if (http.cert_file is None) != (http.key_file is None):
        yield Fault(f"{path}.http", "cert_file and key_file are given both or not at all")
    for key in ("ca_file", "cert_file", "key_file"):
        file = getattr(http, key)
        if file is not None and not (folder / file).is_file():
            yield Fault(
                f"{path}.http.{key}", "there is no such file; the path is relative to the configuration's folder"
            )


class _Limits(Model):
    """The keys of a destination that a vendor's documented limits bound."""

    batch: BatchSettings = BatchSettings()
    agreed_limits: bool = False
    requests_per_second: float | None = None


def check_limits(path: str, model: type[DestinationSettings], body: Mapping[str, object]) -> Iterator[Fault]:
    """Yield the limits above the vendor's in a destination that has other faults, so that all come at once."""
    try:
        limits = _Limits.model_validate({key: body[key] for key in _Limits.model_fields if key in body})
    except ValidationError:
        return
    yield from _limits(path, str(body["vendor"]), limits, model.documented)


def _limits(
    path: str, vendor: str, settings: DestinationSettings | _Limits, documented: DocumentedLimits
) -> Iterator[Fault]:
    """Yield the limits that are above what the vendor documents."""
    if settings.agreed_limits:
        return
    for key, value, limit in (
        ("batch.records", settings.batch.records, documented.records),
        ("batch.bytes", settings.batch.bytes, documented.bytes),
        ("requests_per_second", settings.requests_per_second, documented.requests_per_second),
    ):
        if value is not None and limit is not None and value > limit:
            yield Fault(
                f"{path}.{key}",
                f"is {value} where {vendor} allows {limit}; lower it, or set agreed_limits: true "
                "if the vendor granted this account more",
            )


def longest_timeout(settings: Settings) -> float:
    """Return how long a request may take so that a drain can still end it, in seconds."""
    return settings.limits.drain_timeout - DRAIN_MARGIN


def check_timeout(name: str, settings: DestinationSettings, longest: float) -> Iterator[Fault]:
    """Yield the fault of a time-out that a drain could not wait for."""
    if settings.timeout > longest:
        yield Fault(
            f"destinations.{name}.timeout",
            f"is {settings.timeout:g}s; allowed: at most {longest:g}s (limits.drain_timeout - {DRAIN_MARGIN:g}s)",
        )


def check_kafka(settings: KafkaSettings) -> Iterator[Fault]:
    """Yield what is wrong with the topics and with librdkafka's properties."""
    for index, topic in enumerate(settings.topics):
        yield from _source_topic(f"kafka.topics[{index}]", topic)
    yield from check_client(settings.client, has_start=settings.start is not None)


def check_client(client: Mapping[str, object], *, has_start: bool) -> Iterator[Fault]:
    """Yield what is wrong with librdkafka's properties. `has_start` tells whether `kafka.start` is given."""
    for name, advice in OWNED_PROPERTIES.items():
        if name in client:
            yield Fault(f"kafka.client.{name}", f"is set by the connector itself; {advice}")
    if "bootstrap.servers" not in client:
        yield Fault("kafka.client.bootstrap.servers", "is required, such as localhost:9092")
    elif not str(client["bootstrap.servers"]).strip():
        yield Fault("kafka.client.bootstrap.servers", "is an empty text; allowed: host:port, several with commas")
    reset = client.get("auto.offset.reset")
    if reset is not None and has_start:
        yield Fault("kafka.client.auto.offset.reset", "says the same as kafka.start; keep one of the two")
    elif reset is not None and reset not in START_ALIASES:
        yield Fault("kafka.client.auto.offset.reset", "allowed: earliest or latest; better: use kafka.start")
    if client.get("group.protocol") == "consumer":
        for name in _KIP_848_REFUSES:
            if name in client:
                yield Fault(
                    f"kafka.client.{name}", "is the broker's to say with group.protocol: consumer; leave it out"
                )


def _source_topic(path: str, topic: str) -> Iterator[Fault]:
    """Yield the fault of a topic's name or pattern."""
    if topic.startswith("^"):
        try:
            re.compile(topic)
        except re.error as error:
            yield Fault(path, f"is not a regular expression: {error.msg} at position {error.pos}")
    elif not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        yield Fault(path, f"{_TOPIC_ALLOWED}; a pattern begins with ^")


def check_topics(settings: Settings) -> Iterator[Fault]:
    """Yield the connector's own topics that are no names, are read from, or are used twice.

    Two destinations may share a results topic: its records say whose question they answer.
    """
    receipts = settings.receipts.topic
    own = [("dead_letters.topic", settings.dead_letter_topic), ("dead_letters.replay_topic", settings.replay_topic)]
    own += [(f"destinations.{name}.results_topic", topic) for name, topic in settings.results_topics.items()]
    own += [("receipts.topic", receipts)] if receipts is not None else []
    audit = settings.console.audit_topic
    own += [("console.audit_topic", audit)] if audit is not None else []
    first: dict[str, str] = {}
    for path, topic in own:
        if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
            yield Fault(path, _TOPIC_ALLOWED)
        elif topic in settings.kafka.topics:
            yield Fault(path, f"is {topic}, which kafka.topics reads; the connector must not read what it writes")
        elif topic in first and not (path.endswith(".results_topic") and first[topic].endswith(".results_topic")):
            yield Fault(path, f"is {topic} as {first[topic]} is; each needs a topic of its own")
        first.setdefault(topic, path)


def check_routes(settings: Settings, names: Iterable[str], vendors: Mapping[str, str]) -> Iterator[Fault]:
    """Yield what is wrong between routes, topics and destinations.

    `names` are the destinations that stand in the file and `vendors` the vendors of those that are valid, so that a
    fault inside a destination is not reported again for each of its routes.
    """
    known = set(names)
    for index, route in enumerate(settings.routes):
        path = f"routes[{index}]"
        for place, name in enumerate(route.to):
            if name not in known:
                yield Fault(f"{path}.to[{place}]", f"no destination has this name; {suggest(name, known)}")
            elif name in route.to[:place]:
                yield Fault(f"{path}.to[{place}]", "stands twice; keep one")
        yield from _route_fields(path, route, known, vendors)
        for place, topic in enumerate(route.topics or ()):
            yield from _read_topic(f"{path}.topics[{place}]", topic, settings.kafka.topics)
    for topic in settings.schemas.plain:
        yield from _read_topic(f"schemas.plain.{topic}", topic, settings.kafka.topics)


def _route_fields(path: str, route: RouteSettings, known: set[str], vendors: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the mappings of vendors to which the route does not lead."""
    if not all(name in vendors for name in route.to if name in known):
        return
    reached = {vendors[name] for name in route.to if name in vendors}
    for vendor in route.fields:
        if vendor not in reached:
            yield Fault(
                f"{path}.fields.{vendor}", f"no destination of this route has this vendor; {suggest(vendor, reached)}"
            )


def _read_topic(path: str, topic: str, topics: Sequence[str]) -> Iterator[Fault]:
    """Yield the fault of a topic that is not among those that are read.

    Whether a pattern of librdkafka matches is decided as it does: from the first character, open at the end.
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
    yield Fault(path, f"kafka.topics does not read this topic; {suggest(topic, topics)}")
