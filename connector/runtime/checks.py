"""Checks before a run: routes against the known schemas and, with `--online`, Kafka, the registry and the vendors."""

from __future__ import annotations

import asyncio
import difflib
import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from connector import vendors
from connector.clock import SystemClock
from connector.codec.registry import Client, Registry, make_client
from connector.codec.schemas import SchemaFault, by_name, known_schemas, own_schemas, schemas_of
from connector.config.loader import DestinationSettings, KafkaSettings, Loaded, RegistrySettings, Settings
from connector.delivery.transport import HttpTransport, file_stamps
from connector.errors import ConfigFault, ConfigurationError, ConnectorError, StartupError, TransportError
from connector.kafka.client import property_faults
from connector.kafka.membership import GroupMembership, may_not_read
from connector.kafka.topics import OwnTopic, TopicCheck
from connector.routing.compiler import compile_routes, unknown_schemas
from connector.routing.conditions import TopicPattern
from connector.vendors.base import Misconfigured, Probed, VendorKind

TOPICS_TIMEOUT: Final = 30.0
"""Seconds that `topics` waits for a broker."""
REACH_TIMEOUT: Final = 10.0
"""Seconds that `check --online` waits for each answer."""

_NEARLY: Final = 0.85
"""From this similarity on, one schema name is very likely a misspelling of the other."""
MOST_SUBJECTS: Final = 200
"""How many subjects `check --online` asks the registry for."""


def tracing_faults(settings: Settings) -> list[ConfigFault]:
    """Return the fault if tracing is enabled but OpenTelemetry is not installed."""
    if not settings.tracing.enabled:
        return []
    wanted = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    if all(_is_installed(package) for package in wanted):
        return []
    advice = "install the extra: pip install 'connector[otel]', or leave tracing off"
    return [ConfigFault("tracing.enabled", f"OpenTelemetry is not installed; {advice}")]


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; its parents are."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def check_routes(loaded: Loaded) -> None:
    """Compile the routes as a run does. Raises `ConfigurationError` with every fault of `routes` and `schemas`."""
    used = {name: each.vendor for name, each in loaded.settings.destinations.items()}
    faults = route_faults(loaded.settings, used, loaded.folder)
    if faults:
        raise ConfigurationError(faults)


def route_faults(settings: Settings, used: Mapping[str, str], folder: Path) -> list[ConfigFault]:
    """Return every fault of Kafka's properties, `routes` and `schemas` that can be found without a registry.

    `used` is the vendor of each destination, including faulty destinations that are not in `settings`.
    """
    faults = tracing_faults(settings) + [
        ConfigFault(f"kafka.client.{name}" if name else "kafka.client", message)
        for name, message in property_faults(settings.kafka)
    ]
    # None instead of an empty set if they cannot be read, so that no schema is called unknown because of that.
    schemas: dict[str, Any] | None = None
    try:
        schemas = known_schemas(schemas_of(settings, folder))
    except ConfigurationError as error:
        faults += error.faults
    except StartupError as error:
        faults.append(ConfigFault("", str(error)))
    if schemas is not None:
        faults += [
            ConfigFault(f"schemas.plain.{topic}", f"unknown schema {name}; add its file to schemas.files")
            for topic, name in settings.schemas.plain.items()
            if name not in schemas
        ]
        faults += _misspelt(settings, schemas)
    return faults + _compiled(settings, used, schemas)


def _compiled(settings: Settings, used: Mapping[str, str], schemas: Mapping[str, Any] | None) -> list[ConfigFault]:
    kinds = vendors.kinds()
    destinations = {name: kinds[vendor] for name, vendor in used.items() if vendor in kinds}
    return compile_routes(settings, destinations, schemas)[1]


def _misspelt(settings: Settings, schemas: Mapping[str, Any]) -> list[ConfigFault]:
    """Return the routes whose schema is probably a misspelt one of `schemas.files`."""
    if settings.schema_registry is None:
        return []  # then every schema is known, and the routes' own check says so
    # `order_v2` is not a misspelling of `order_v1`, but another version that may be in the registry.
    digits = str.maketrans("", "", "0123456789")
    return [
        ConfigFault(fault.path, f"{fault.message} `connector check --online` asks the registry too")
        for fault, name in unknown_schemas(settings, schemas)
        if difflib.get_close_matches(name, schemas, n=1, cutoff=_NEARLY)
        and name.translate(digits) not in {known.translate(digits) for known in schemas}
    ]


def schema_warnings(loaded: Loaded) -> list[ConfigFault]:
    """Return the routes whose schema is not in `schemas.files`, but may be in the registry."""
    if loaded.settings.schema_registry is None or not loaded.settings.schemas.files:
        return []
    schemas = known_schemas(own_schemas(loaded))
    return [
        ConfigFault(fault.path, f"{name} is in none of schemas.files; `connector check --online` asks the registry")
        for fault, name in unknown_schemas(loaded.settings, schemas)
    ]


async def registry_schemas(settings: Settings) -> dict[str, Any] | None:
    """Return the newest schemas in the registry, by full name; None if there is none, or it does not answer.

    Asks for the subjects of the consumed topics, and for those named like a route's schema. If the registry does not
    answer, `check_online` reports why.
    """
    if settings.schema_registry is None:
        return None
    wanted = {route.schema_name for route in settings.routes if route.schema_name}
    topics = TopicPattern(settings.kafka.topics)
    found: dict[str, Any] = {}
    try:
        registry = open_registry(settings.schema_registry)
        try:
            subjects = [
                subject
                for subject in await registry.subjects()
                if topics.matches(subject.removesuffix("-value")) or any(name in subject for name in wanted)
            ]
            for subject in subjects[:MOST_SUBJECTS]:
                # One unreadable schema must not hide faults of the others.
                with suppress(ConnectorError, SchemaFault):
                    found |= by_name([await registry.latest(subject)])
        finally:
            await registry.close()
    except ConnectorError:
        return None
    return found


def registry_faults(loaded: Loaded, found: Mapping[str, Any]) -> list[ConfigFault]:
    """Return the faults of `routes` by the registry's schemas too. Files and the contract take precedence."""
    schemas = {**found, **known_schemas(own_schemas(loaded))}
    used = {name: each.vendor for name, each in loaded.settings.destinations.items()}
    faults = [fault for fault, _ in unknown_schemas(loaded.settings, schemas)]
    return faults + _compiled(loaded.settings, used, schemas)


async def check_online(loaded: Loaded) -> list[str]:
    """Return the faults of broker, topics, registry, and the vendors that can be probed."""
    settings = loaded.settings
    faults: list[str] = []
    try:
        async with TopicCheck(settings.kafka, clock=SystemClock()) as check:
            await check.wait(lambda _message: None, REACH_TIMEOUT)
            # A check changes nothing, so it creates no topic even with `create_topics`.
            await check.check(settings.kafka.topics, own_topics(settings), dry=True)
        faults.extend(await _group_faults(settings.kafka))
    except ConnectorError as error:
        faults.append(str(error))
    if settings.schema_registry is not None:
        try:
            registry = open_registry(settings.schema_registry)
            try:
                await registry.check()
            finally:
                await registry.close()
        except ConnectorError as error:
            faults.append(f"schema_registry: {error}")
    kinds = vendors.kinds()
    for name, destination in settings.destinations.items():
        fault = await probe(name, destination, kinds)
        if fault is not None:
            faults.append(f"destinations.{name}: {fault}")
    return faults


async def _group_faults(settings: KafkaSettings) -> list[str]:
    """Return why a member could not join the group. Raises `StartupError` if the group's broker does not answer.

    Any broker answers metadata requests, but one of them leads the group, with its own address and permission.
    """
    async with GroupMembership(settings) as groups:
        return [] if await groups.may_read(settings.group_id) else [may_not_read(settings.group_id)]


class CheckedTopic(NamedTuple):
    """One of the connector's own topics that passed its checks, and whether it was just created."""

    name: str
    purpose: str
    created: bool


async def check_topics(loaded: Loaded, *, create: bool, partitions: int | None) -> list[CheckedTopic]:
    """Return the connector's own topics; with `create`, create missing ones, whatever the file says.

    Raises `StartupError` with everything that is wrong with them, `BrokerUnreachable` after half a minute.
    """
    settings = loaded.settings
    kafka = settings.kafka.model_copy(update={"create_topics": create})
    own = own_topics(settings)
    if settings.console.audit_topic is not None:
        own.append(OwnTopic(settings.console.audit_topic, "audit"))
    async with TopicCheck(kafka, clock=SystemClock()) as check:
        await check.wait(lambda _message: None, TOPICS_TIMEOUT)
        report = await check.check(kafka.topics, own, partitions)
    return [CheckedTopic(topic.name, topic.purpose, topic.name in report.created) for topic in own]


async def probe(name: str, settings: DestinationSettings, kinds: Mapping[str, VendorKind]) -> str | None:
    """Return why a destination cannot be used; None if all is well.

    If the vendor has no request without effect, only the address is tried; see `unprobed`. The vendor's verdict shows a
    refused credential. Any other 2xx is fine, because the body is not documented.
    """
    vendor = kinds[settings.vendor].build(settings)
    if not isinstance(vendor, Probed):
        return await _unreachable(settings)
    transport = HttpTransport(name, settings.http, 1)
    try:
        response = await transport.send(vendor.probe(), min(settings.timeout, REACH_TIMEOUT))
    except TransportError as error:
        return error.reason
    finally:
        await transport.close()
    verdict = vendor.read(response, None, (), 0)
    if isinstance(verdict, Misconfigured):
        return verdict.reason
    return None if 200 <= response.status < 300 else f"HTTP {response.status} for the probe of its credential"


def unprobed(settings: Settings) -> list[str]:
    """Return the destinations whose credentials cannot be checked without an effect at the vendor."""
    kinds = vendors.kinds()
    return [
        name for name, each in settings.destinations.items() if not isinstance(kinds[each.vendor].build(each), Probed)
    ]


async def _unreachable(settings: DestinationSettings) -> str | None:
    """Return why a destination's address cannot be connected to; None if it can, or if there is a proxy."""
    parts = urlsplit(settings.base_url)
    if settings.http.proxy is not None or not parts.hostname:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    where = f"connect to {parts.hostname}:{port} failed"
    try:
        async with asyncio.timeout(REACH_TIMEOUT):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except socket.gaierror:
        return f"{where}: the host name cannot be resolved"
    except TimeoutError:
        return f"{where}: no answer within {REACH_TIMEOUT:g} s"
    except OSError as error:
        return f"{where}: {os.strerror(error.errno) if error.errno else error}"
    writer.close()
    return None


def own_topics(settings: Settings) -> list[OwnTopic]:
    """Return the topics that the connector writes to, and their purposes."""
    topics = [OwnTopic(settings.dead_letter_topic, "dead-letter"), OwnTopic(settings.replay_topic, "replay")]
    topics.extend(OwnTopic(topic, "results") for topic in settings.results_topics.values())
    if settings.receipts.topic:
        topics.append(OwnTopic(settings.receipts.topic, "receipts"))
    if settings.console.events_topic:
        topics.append(OwnTopic(settings.console.events_topic, "events"))
    return topics


def open_registry(settings: RegistrySettings, reload: Callable[[], RegistrySettings] | None = None) -> Registry:
    """Return a registry's client. Raises `StartupError` if the client rejects its settings.

    `reload` reads the settings again, with rotated secrets; without it they stay unchanged. Certificates are read again
    when their files have changed. While the new files cannot be used, the old certificates are.
    """
    current = settings, _certificates(settings)

    def renew() -> Client | None:
        nonlocal current
        again = current[0] if reload is None else reload()
        # Build a new client only after a change: each has its own connections, and this is called after every failed
        # request.
        found = again, _certificates(again)
        if found == current:
            return None
        try:
            client = make_client(again)
        except OSError:  # a file that is only half written
            return None
        current = found
        return client

    try:
        return Registry(make_client(settings), settings.url, renew, settings.client.get("proxy"))
    except OSError as error:
        raise StartupError(f"schema_registry.client: a certificate's file cannot be used: {error}") from None
    except ValueError as error:
        raise StartupError(f"schema_registry.client: {error}") from None


def _certificates(settings: RegistrySettings) -> list[tuple[int, int, int] | None]:
    """Return stamps that change with the content of the registry's certificates."""
    keys = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
    return file_stamps([path for key in keys if isinstance(path := settings.client.get(key), str)])
