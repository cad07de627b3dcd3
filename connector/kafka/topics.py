"""What is checked of Kafka before the run begins: a broker answers, topics are there and take what goes into them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from connector.kafka.admin import Admin
from connector.kafka.client import admin_config, error_text, kafka_error
from connector.kafka.refusals import explained, is_final, says_more

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


@dataclass(frozen=True, slots=True)
class OwnTopic:
    """A topic that the connector writes, and what for."""

    name: str
    purpose: Literal["dead-letter", "replay", "results", "receipts", "audit"]

    @property
    def holds_originals(self) -> bool:
        """Whether the source's records are written to it with headers of our own."""
        return self.purpose in ("dead-letter", "replay")


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was found. `partitions` are those of the topics that are read; `created` and `warnings` are for people."""

    cluster_id: str
    partitions: Mapping[str, int]
    created: Sequence[str] = ()
    warnings: Sequence[str] = ()


class BrokerUnreachable(ConnectorError):
    """No broker answered within the time given; waiting longer may help."""


class TopicCheck(Admin):
    """Asks a cluster about its topics, inside of `async with`: one client, which ends with it."""

    def __init__(self, settings: KafkaSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._error: KafkaError | None = None
        config = admin_config(settings) | {"error_cb": self._on_error}
        super().__init__(config, "admin")

    async def wait(self, on_waiting: Callable[[str | None], None], timeout: float | None = None) -> None:
        """Return when a broker answers; `on_waiting` is told why it does not, and None when it does.

        Raises `StartupError` where librdkafka is certain that waiting is in vain (credentials, certificates), and
        `BrokerUnreachable` after `timeout` seconds; without one it waits for ever. May be cancelled.
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
        self, topics: Iterable[str], own: Sequence[OwnTopic], new_partitions: int | None = None
    ) -> TopicReport:
        """Look at the topics that are read and the connector's own, and create those that may be created.

        Own topics have to exist (or `kafka.create_topics` is set), must not be compacted (letters with one key would
        replace each other), and those for dead letters must take the largest source record. Raises `StartupError`
        with every fault. Patterns are left to the consumer. A broker that does not tell configurations is
        believed. A topic that is created has `new_partitions`, by default as many as the largest source topic.
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
        await self._create(missing, largest, new)
        known = [topic for topic in present if topic.name in configs]
        warnings = [warning for topic in known for warning in _judge(topic, configs[topic.name], largest)]
        for warning in warnings:
            _log.warning("kafka.topic", message=warning)
        for name in (topic.name for topic in own if topic.purpose == "replay"):
            partitions[name] = len(metadata.topics[name].partitions) if name in metadata.topics else new
        return TopicReport(str(metadata.cluster_id), partitions, [topic.name for topic in missing], warnings)

    async def _try_reach(self) -> str | None:
        """Return None where a broker answers, else why not. Raises `StartupError` where it never will."""
        self._error = None
        try:
            await self.topics(_TRY_SECONDS)
        except KafkaException as error:
            # The cause comes by the error callback, which only poll() calls; the exception says that time is up.
            await self.serve()
            cause = self._cause() or kafka_error(error)
            text = explained(cause, self._settings.client)
            if is_final(cause):
                raise StartupError(f"Kafka refuses this client, see kafka.client: {text}") from None
            return text
        return None

    async def _metadata(self) -> ClusterMetadata:
        try:
            return await self.topics(_REQUEST_SECONDS)
        except KafkaException as error:
            raise StartupError(f"Kafka does not tell its topics: {error_text(error)}") from None

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the configuration of each topic that the broker tells about."""
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
            said = ", ".join(f"{topic.name} ({topic.purpose})" for topic in missing)
            raise StartupError(f"missing topics: {said}; create them, or set kafka.create_topics: true")
        new = [NewTopic(topic.name, partitions, _BROKER_DEFAULT, config=_config(topic, largest)) for topic in missing]
        faults = []
        for name, future in self.client.create_topics(new, request_timeout=_REQUEST_SECONDS).items():
            try:
                await asyncio.wrap_future(future)
            except KafkaException as error:
                # Another member that starts at the same time may have been first.
                if kafka_error(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    faults.append(f"topic {name} could not be created: {error_text(error)}")
            else:
                _log.info("kafka.topic_created", topic=name, partitions=partitions)
        if faults:
            raise StartupError("; ".join(faults))

    def _cause(self) -> KafkaError | None:
        return self._error

    def _on_error(self, error: KafkaError) -> None:
        if says_more(error, self._error):
            self._error = error


def _config(topic: OwnTopic, largest: int) -> dict[str, str]:
    config = {"cleanup.policy": "delete"}
    if topic.holds_originals and largest:
        config["max.message.bytes"] = str(largest + LETTER_MARGIN)
    return config


def _max_bytes(config: Mapping[str, str]) -> int:
    return int(config.get("max.message.bytes", 0))


def _judge(topic: OwnTopic, config: Mapping[str, str], largest: int) -> list[str]:
    """Return warnings about a topic that exists. Raises `StartupError` where it is unfit."""
    command = f"kafka-configs --alter --entity-type topics --entity-name {topic.name} --add-config"
    if "compact" in config.get("cleanup.policy", ""):
        raise StartupError(
            f"the {topic.purpose} topic {topic.name} is compacted, so records with the same key would replace each "
            f"other: {command} cleanup.policy=delete"
        )
    limit = _max_bytes(config)
    if not topic.holds_originals or not limit or limit >= largest + LETTER_MARGIN:
        return []
    advice = f"{command} max.message.bytes={largest + LETTER_MARGIN}"
    if limit < largest:
        raise StartupError(
            f"the {topic.purpose} topic {topic.name} takes records up to {limit} bytes, those of the source have up to "
            f"{largest}: {advice}"
        )
    warning = (
        f"the {topic.purpose} topic {topic.name} takes records up to {limit} bytes: the largest records of the source, "
        f"{largest} bytes, do not fit with a dead letter's headers: {advice}"
    )
    return [warning]
