"""Finds the schema of a topic's events: in the registry by the topic's subject, or by the topic's newest records."""

from __future__ import annotations

import asyncio
from collections import Counter

from connector.codec.frames import SchemaKey, frame
from connector.codec.registry import NotRegistered, Registry, RegistryTrouble
from connector.codec.schemas import Schema, SchemaFault
from connector.config.loader import KafkaSettings, RegistrySettings
from connector.errors import Refusal, StartupError
from connector.kafka.topic_reader import OffsetSpan, TopicReader
from connector.runtime.checks import open_registry

SECONDS = 15.0
_NEWEST = 20


async def schema_of_topic(topic: str, registry: str, bootstrap: str | None) -> Schema:
    """Return the record schema of a topic; with `bootstrap`, the schema of most of its newest records.

    Raises `StartupError` with what to do if there is none.
    """
    client = open_registry(RegistrySettings(url=registry))
    try:
        async with asyncio.timeout(SECONDS):
            if bootstrap is None:
                found = await client.latest(f"{topic}-value")
            else:
                found = await _of_records(topic, bootstrap, client)
    except TimeoutError:
        raise StartupError(f"the registry at {client.where} did not answer within {SECONDS:g} s") from None
    except (NotRegistered, RegistryTrouble, SchemaFault) as error:
        hint = "pass --schema FILE" if bootstrap is not None else "pass --bootstrap to look at its records, or --schema"
        raise StartupError(f"no schema for topic {topic}: {error}; {hint}") from None
    finally:
        await client.close()
    if found.name is None:
        raise StartupError(f"the schema of topic {topic} is not a record; pass --schema FILE and --record NAME")
    return found


async def _of_records(topic: str, bootstrap: str, registry: Registry) -> Schema:
    """Return the schema that most of the newest records name."""
    keys = await asyncio.to_thread(_keys, topic, bootstrap)
    if not keys:
        raise StartupError(f"topic {topic} has no record that names a schema of the registry; pass --schema FILE")
    # Of most of them, not of the newest: a topic may have a few test records.
    ((key, _),) = keys.most_common(1)
    return await (registry.by_id(key.value) if isinstance(key.value, int) else registry.by_guid(str(key.value)))


def _keys(topic: str, bootstrap: str) -> Counter[SchemaKey]:
    settings = KafkaSettings(topics=[topic], group_id="connector-init", client={"bootstrap.servers": bootstrap})
    found: Counter[SchemaKey] = Counter()
    with TopicReader(settings) as reader:
        _, topics = reader.topics()
        if topic not in topics:
            raise StartupError(f"topic {topic} does not exist; its name may be misspelt")
        bounds = {(topic, number): reader.bounds((topic, number)) for number in range(topics[topic])}
        spans = {at: OffsetSpan(max(first, end - _NEWEST), end) for at, (first, end) in bounds.items()}
        for record in reader.records(spans):
            try:
                key, _ = frame(record, {})
            except Refusal:
                continue
            if key.kind in ("id", "guid"):
                found[key] += 1
    return found
