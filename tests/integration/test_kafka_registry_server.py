"""A real schema registry: ids, references, registration, and what is answered for an id that it does not know."""

import asyncio
import json
from collections.abc import Callable

import pytest
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, SchemaReference
from confluent_kafka.schema_registry import Schema as RegistrySchema

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder, compile_write
from connector.codec.registry import NotRegistered, RegistryTrouble, make_client
from connector.codec.registry import Registry as SchemaRegistry
from connector.codec.schemas import Contracts, load_contracts, read_schema
from connector.config.loader import RegistrySettings
from connector.errors import Refusal, SchemaUnavailable
from connector.records import Event, Record
from tools.servers import Registry


def _open(url: str) -> SchemaRegistry:
    return SchemaRegistry(make_client(RegistrySettings(url=url)), url)


def _record(value: bytes) -> Record:
    return Record("events", 0, 0, 0, None, value, ())


async def _settled(decoder: Decoder, record: Record) -> Event:
    try:
        return decoder.event(record)
    except SchemaUnavailable as missing:
        await decoder.resolve(missing.key)
    return decoder.event(record)


async def test_what_the_encoder_registers_the_decoder_resolves(
    registry: Registry, fresh_name: Callable[[str], str]
) -> None:
    """An answer written to a topic is read back by its id, from a decoder that only has the registry."""
    server = _open(registry.url)
    encoder = Encoder(load_contracts(), clock=SystemClock(), registry=server)
    decoder = Decoder(Contracts({}), clock=SystemClock(), registry=server)
    try:
        name = "connector.events.MyTrackerEvent"
        value = await encoder.encode(fresh_name("results"), name, {"method": "login", "customUserId": "u"})
        event = await _settled(decoder, _record(value))
        assert (event.schema, event.datum["customUserId"]) == (name, "u")
    finally:
        await decoder.close()
        await server.close()


async def test_a_schema_with_references_is_read_whole(registry: Registry, fresh_name: Callable[[str], str]) -> None:
    """References that are registered apart are fetched and filled in."""
    names = [f"{fresh_name('n').replace('-', '_')}.{short}" for short in ("Inner", "Outer")]
    inner = {"type": "record", "name": names[0], "fields": [{"name": "n", "type": "long"}]}
    outer = {"type": "record", "name": names[1], "fields": [{"name": "inner", "type": names[0]}]}
    subjects = [fresh_name("inner"), fresh_name("outer")]
    async with AsyncSchemaRegistryClient({"url": registry.url}) as client:
        await client.register_schema(subjects[0], RegistrySchema(json.dumps(inner), "AVRO"))
        reference = SchemaReference(names[0], subjects[0], 1)
        schema_id = await client.register_schema(subjects[1], RegistrySchema(json.dumps(outer), "AVRO", [reference]))
    whole = read_schema(json.dumps(outer), [json.dumps(inner)])
    server = _open(registry.url)
    decoder = Decoder(Contracts({}), clock=SystemClock(), registry=server)
    try:
        value = b"\0" + schema_id.to_bytes(4, "big") + compile_write(whole.tree)({"inner": {"n": 5}})
        assert (await _settled(decoder, _record(value))).datum == {"inner": {"n": 5}}
        with pytest.raises(Refusal, match="are left"):
            decoder.event(_record(value + b"x"))
    finally:
        await decoder.close()
        await server.close()


async def test_an_unknown_id_and_a_wrong_path_are_told_apart(registry: Registry) -> None:
    """The registry's own "not found" is a word about the schema; a wrong path's 404 and a closed port are not."""
    for url, expected in (
        (registry.url, NotRegistered),
        (registry.url + "/no/such/path", RegistryTrouble),
        ("http://127.0.0.1:1", RegistryTrouble),
    ):
        server = _open(url)
        try:
            with pytest.raises(expected):
                await asyncio.wait_for(server.by_id(2_000_000_000), 30)
        finally:
            await server.close()
