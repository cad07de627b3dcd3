"""Topics: selects those to read, and checks that all needed topics exist and are suitable."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    ClusterMetadata,
    ConfigResource,
    NewTopic,
)

from connector.clock import Clock
from connector.config.loader import KafkaSettings
from connector.errors import ConnectorError, StartupError
from connector.kafka.client import (
    LEAST_BATCH,
    MOST_BATCH,
    Admin,
    admin_config,
    error_text,
    explained,
    is_final,
    kafka_error,
    says_more,
    until_resolved,
)

LETTER_MARGIN: Final = 16 * 1024
"""Bytes that a dead letter's own headers may add to its original record."""

_REQUEST_SECONDS: Final = 10.0
_TRY_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.5
_SAY_SECONDS: Final = 10.0
_BROKER_DEFAULT: Final = -1
# librdkafka's own mock broker, which the demo runs on, never answers DescribeConfigs.
_MOCK_CLUSTER: Final = "mockCluster"

_log = structlog.get_logger()


class TopicSelection:
    """The names and the patterns (which begin with ^) of `kafka.topics`; a pattern never matches one of `own_topics`.

    Patterns are resolved here. With KIP-848 the broker would resolve them, and could not leave out the connector's own
    topics. The constructor raises `StartupError` for a pattern that is not a regular expression.
    """

    def __init__(self, topics: Iterable[str], own_topics: frozenset[str]) -> None:
        self.names: list[str] = []
        self.patterns: list[re.Pattern[str]] = []
        self._own_topics = own_topics
        for topic in topics:
            if not topic.startswith("^"):
                self.names.append(topic)
                continue
            try:
                self.patterns.append(re.compile(topic))
            except re.error as error:
                raise StartupError(f"kafka.topics: {topic} is not a regular expression: {error}") from None

    def matching(self, topics: Iterable[str]) -> set[str]:
        """Return the topics that a pattern matches from their start, without Kafka's internal (`__`) and own topics."""
        return {
            topic
            for topic in topics
            if not topic.startswith("__")
            and topic not in self._own_topics
            and any(pattern.match(topic) for pattern in self.patterns)
        }

    def kin(self, topic: str, topics: Iterable[str]) -> set[str]:
        """Return those of `topics` that are matched by a pattern that also matches `topic`."""
        patterns = [pattern for pattern in self.patterns if pattern.match(topic)]
        return {other for other in self.matching(topics) if any(pattern.match(other) for pattern in patterns)}


@dataclass(frozen=True, slots=True)
class OwnTopic:
    """A topic that the connector writes, and its purpose."""

    name: str
    purpose: Literal["dead-letter", "replay", "results", "receipts", "audit", "events"]

    @property
    def holds_originals(self) -> bool:
        """Whether it holds source records with added headers."""
        return self.purpose in ("dead-letter", "replay")


@dataclass(frozen=True, slots=True)
class TopicReport:
    """The result of a check. `partitions` are counts by topic read; `created` and `warnings` are for people.

    A batch of up to `batch_bytes` is below the limits of all own topics, as far as they are known.
    """

    cluster_id: str
    partitions: Mapping[str, int]
    batch_bytes: int
    created: Sequence[str] = ()
    warnings: Sequence[str] = ()


class BrokerUnreachable(ConnectorError):
    """No broker answered in time; waiting longer may help."""


class TopicCheck(Admin):
    """Checks the topics of a cluster, inside `async with`."""

    def __init__(self, settings: KafkaSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._error: KafkaError | None = None
        config = admin_config(settings) | {"error_cb": self._on_error}
        super().__init__(config, "admin")

    async def wait(self, on_waiting: Callable[[str | None], None], timeout: float | None = None) -> None:
        """Return once a broker answers; `on_waiting` receives the reason while it does not, and None when it does.

        Raises `StartupError` if waiting cannot help (credentials, certificates), and `BrokerUnreachable` after
        `timeout` seconds. Without a time-out it waits for ever. May be cancelled.
        """
        began = self._clock.now()
        said = began - _SAY_SECONDS
        while (reason := await self._try_reach()) is not None:
            now = self._clock.now()
            on_waiting(reason)
            servers = self._settings.client.get("bootstrap.servers")
            if timeout is not None and now - began >= timeout:
                raise BrokerUnreachable(f"no Kafka broker at {servers} answered within {timeout:g} s: {reason}")
            if now - said >= _SAY_SECONDS:
                said = now
                _log.warning("kafka.waiting", servers=servers, reason=reason, seconds=round(now - began))
            await self._clock.sleep(_PAUSE_SECONDS)
        on_waiting(None)

    async def check(
        self, topics: Iterable[str], own: Sequence[OwnTopic], new_partitions: int | None = None, *, dry: bool = False
    ) -> TopicReport:
        """Check the topics that are read and the connector's own, and create those that may be created.

        Own topics must exist (unless `kafka.create_topics` is set), must not be compacted (dead letters with the same
        key would replace each other), and those for dead letters must take the largest source record. Raises
        `StartupError` with every fault. Patterns are left to the consumer. If the broker does not show configurations,
        they are assumed to be right. A created topic gets `new_partitions`, by default as many as the largest source
        topic has. `dry`: creates nothing, and a topic that would be created is no fault.
        """
        metadata = await self._metadata()
        own_names = {topic.name for topic in own}
        sources = [name for name in topics if not name.startswith("^") and name not in own_names]
        partitions = {name: len(t.partitions) for name in sources if (t := metadata.topics.get(name)) is not None}
        faults = [f"topic {name} does not exist; create it, or correct kafka.topics" for name in sources]
        faults = [fault for name, fault in zip(sources, faults, strict=True) if name not in partitions]
        if faults:
            raise StartupError("; ".join(faults))
        present = [topic for topic in own if topic.name in metadata.topics]
        mocked = str(metadata.cluster_id).startswith(_MOCK_CLUSTER)
        configs = await self._configs([] if mocked else [*sources, *(topic.name for topic in present)])
        largest = max((_max_bytes(configs[name]) for name in sources if name in configs), default=0)
        missing = [topic for topic in own if topic.name not in metadata.topics]
        new = new_partitions or max(partitions.values(), default=1)
        if not (dry and self._settings.create_topics):
            await self._create(missing, largest, new)
        known = [topic for topic in present if topic.name in configs]
        warnings = [warning for topic in known for warning in _check_config(topic, configs[topic.name], largest)]
        for warning in warnings:
            _log.warning("kafka.topic", message=warning)
        for name in (topic.name for topic in own if topic.purpose == "replay"):
            partitions[name] = len(metadata.topics[name].partitions) if name in metadata.topics else new
        # A topic that is created takes at least what the sources take.
        limits = [
            largest if topic in missing else _max_bytes(configs[topic.name]) if topic in known else 0 for topic in own
        ]
        return TopicReport(
            str(metadata.cluster_id),
            partitions,
            max(LEAST_BATCH, min([MOST_BATCH, *limits])),
            [topic.name for topic in missing],
            warnings,
        )

    async def _try_reach(self) -> str | None:
        """Return None if a broker answers, else the reason. Raises `StartupError` if it never will."""
        self._error = None
        try:
            await self.topics(_TRY_SECONDS)
        except KafkaException as error:
            # The exception only says that time is up. The cause comes through the error callback, which poll() calls.
            await self.serve()
            cause = self._cause() or kafka_error(error)
            text = explained(cause, self._settings.client)
            if is_final(cause):
                raise StartupError(f"Kafka refuses this client; check kafka.client: {text}") from None
            return text
        return None

    async def _metadata(self) -> ClusterMetadata:
        try:
            return await until_resolved(lambda: self.topics(_REQUEST_SECONDS))
        except KafkaException as error:
            raise StartupError(f"cannot list the topics: {error_text(error)}") from None

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the configuration of each topic whose configuration the broker shows."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        configs: dict[str, dict[str, str]] = {}
        refusal: str | None = None
        try:
            futures = self.client.describe_configs(resources, request_timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            futures, refusal = {}, error_text(error)
        for resource, future in futures.items():
            try:
                entries: Mapping[str, Any] = await asyncio.wrap_future(future)
            except KafkaException as error:
                refusal = error_text(error)
            else:
                configs[resource.name] = {name: entry.value for name, entry in entries.items()}
        if refusal is not None:
            _log.warning("kafka.topics_unchecked", reason=refusal)
        return configs

    async def _create(self, missing: Sequence[OwnTopic], largest: int, partitions: int) -> None:
        if not missing:
            return
        if not self._settings.create_topics:
            names = ", ".join(f"{topic.name} ({topic.purpose})" for topic in missing)
            raise StartupError(f"missing topics: {names}; create them, or set kafka.create_topics: true")
        faults = []
        for own in missing:
            new = NewTopic(own.name, partitions, _BROKER_DEFAULT, config=_new_config(own, largest))
            try:
                await until_resolved(partial(self._ask_to_create, new))
            except KafkaException as error:
                # Another member that starts at the same time may have created it first, or a first answer was lost.
                if kafka_error(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    faults.append(f"cannot create topic {own.name}: {error_text(error)}")
            else:
                _log.info("kafka.topic_created", topic=own.name, partitions=partitions)
        if faults:
            raise StartupError("; ".join(faults))

    async def _ask_to_create(self, topic: NewTopic) -> None:
        (future,) = self.client.create_topics([topic], request_timeout=_REQUEST_SECONDS).values()
        await asyncio.wrap_future(future)

    def _cause(self) -> KafkaError | None:
        return self._error

    def _on_error(self, error: KafkaError) -> None:
        if says_more(error, self._error):
            self._error = error


def _new_config(topic: OwnTopic, largest: int) -> dict[str, str]:
    config = {"cleanup.policy": "delete"}
    if topic.holds_originals and largest:
        config["max.message.bytes"] = str(largest + LETTER_MARGIN)
    return config


def _max_bytes(config: Mapping[str, str]) -> int:
    return int(config.get("max.message.bytes", 0))


def _check_config(topic: OwnTopic, config: Mapping[str, str], largest: int) -> list[str]:
    """Return warnings about an existing topic. Raises `StartupError` if it is unsuitable."""
    command = f"kafka-configs --alter --entity-type topics --entity-name {topic.name} --add-config"
    if "compact" in config.get("cleanup.policy", ""):
        raise StartupError(
            f"the {topic.purpose} topic {topic.name} is compacted, so records with the same key replace each other; "
            f"run {command} cleanup.policy=delete"
        )
    limit = _max_bytes(config)
    if not topic.holds_originals or not limit or limit >= largest + LETTER_MARGIN:
        return []
    advice = f"{command} max.message.bytes={largest + LETTER_MARGIN}"
    if limit < largest:
        raise StartupError(
            f"the {topic.purpose} topic {topic.name} takes records up to {limit} bytes, but the source's have up to "
            f"{largest}; run {advice}"
        )
    warning = (
        f"the {topic.purpose} topic {topic.name} takes records up to {limit} bytes; the source's largest "
        f"record ({largest} bytes) with a dead letter's headers does not fit; run {advice}"
    )
    return [warning]
