"""What the registry lacks or says in parts: references, keys' schemas, and schemas that no record waits for."""

from __future__ import annotations

import asyncio
import json

import orjson
import pytest
from confluent_kafka.schema_registry import SchemaReference
from confluent_kafka.schema_registry.error import SchemaRegistryError

from connector.codec.decoder import Decoder
from connector.codec.frames import SchemaKey
from connector.codec.registry import Registry, RegistryTrouble
from connector.codec.schemas import Contracts
from connector.errors import Refusal, SchemaUnavailable
from connector.records import DecodedKey, Event, Record
from tests.unit.codec.test_registry import PLAIN, WHERE, Bench, FakeClient, _avro, _record


async def test_a_keys_schema_is_resolved_like_a_values() -> None:
    """A record whose key names a schema that is not known yet waits for it, wherever it stands in a run.

    Kills: a key that is taken for broken while the registry was not asked; a run that ends at it.
    """
    key_schema = json.dumps({"type": "record", "name": "com.acme.K", "fields": [{"name": "k", "type": "int"}]})
    bench = Bench({1: _avro(), 2: _avro(key_schema)})
    bench.decoder = Decoder(Contracts({}), clock=bench.clock, registry=bench.registry, keys=True)
    plain = _record(1)
    keyed = Record("events", 0, 1, 0, b"\0\0\0\0\x02\x0e", plain.value, ())
    await bench.settle(plain)
    first, waits, last = bench.decoder.decode([plain, keyed, plain])
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert isinstance(waits, SchemaUnavailable)
    assert (await bench.settle(keyed)).key == DecodedKey({"k": 7})


async def test_a_schema_that_no_record_waits_for_is_asked_for_no_more() -> None:
    """An abandoned question is not asked again, and those who wait for its answer are cancelled. Others continue.

    Kills: a registry that is asked for ever for the schema of a skipped record.
    """
    bench = Bench({1: SchemaRegistryError(503, 50301, "down"), 2: SchemaRegistryError(503, 50301, "down")})
    one, two = (asyncio.create_task(bench.settle(_record(number))) for number in (1, 2))
    await bench.clock.settle()
    bench.decoder.abandon(SchemaKey("id", 1))
    bench.decoder.abandon(SchemaKey("id", 3))
    with pytest.raises(TypeError):
        await bench.decoder.resolve("a key of another decoder")
    await asyncio.gather(one, return_exceptions=True)
    assert one.cancelled()
    asked = bench.client.asked.count(1)
    bench.client.answers[2] = _avro()
    await bench.clock.elapse(60)
    assert (await two).datum == {"n": 1}
    assert bench.client.asked.count(1) == asked


async def test_a_union_at_the_top_is_decoded_for_new_routes_too() -> None:
    """After a reload a top-level union decodes for the new routes. Kills: a union that stays as it was."""
    fields = [{"name": "m", "type": {"type": "map", "values": "string"}}]
    bench = Bench({1: _avro(json.dumps([{"type": "record", "name": "com.acme.M", "fields": fields}]))})
    record = _record(1, b"\x00\x02\x02a\x02b\x00")
    assert (await bench.settle(record)).datum == {"m": {"a": "b"}}
    for _ in range(2):
        bench.decoder.look_into({("com.acme.M", "m")}, keys=False)
        assert type(bench.decoder.event(record).datum["m"]) is orjson.Fragment
    assert bench.client.asked == [1]


@pytest.mark.parametrize(
    ("references", "words"),
    [
        ([SchemaReference("a.B", None, 1)], "no subject or version"),
        ([SchemaReference("a.B", f"s{number}", 1) for number in range(201)], "more than 200 references"),
    ],
    ids=["nothing named", "too many"],
)
async def test_references_that_cannot_be_followed_refuse_the_schemas_records(
    references: list[SchemaReference], words: str
) -> None:
    """Such a schema is never whole, so its records are refused, and the registry is not asked without an end."""
    inner = _avro(json.dumps({"type": "record", "name": "a.B", "fields": []}))
    bench = Bench({1: _avro(PLAIN, *references), **{(f"s{number}", 1): inner for number in range(201)}})
    with pytest.raises(Refusal, match=words) as caught:
        await bench.settle(_record(1))
    assert caught.value.code == "decode.schema_invalid"


async def test_a_reference_that_is_named_twice_is_asked_for_once() -> None:
    """Two schemas that refer to the same third one are read whole, with one question for it."""
    third = _avro(json.dumps({"type": "record", "name": "a.C", "fields": [{"name": "n", "type": "int"}]}))
    to_third = SchemaReference("a.C", "c", 1)
    second = _avro(json.dumps({"type": "record", "name": "a.B", "fields": [{"name": "c", "type": "a.C"}]}), to_third)
    fields = [{"name": "b", "type": "a.B"}, {"name": "c", "type": "a.C"}]
    first = _avro(
        json.dumps({"type": "record", "name": "a.A", "fields": fields}), to_third, SchemaReference("a.B", "b", 1)
    )
    bench = Bench({1: first, ("b", 1): second, ("c", 1): third})
    assert (await bench.settle(_record(1, b"\x02\x04"))).datum == {"b": {"c": {"n": 1}}, "c": {"n": 2}}
    assert bench.client.asked.count(("c", 1)) == 1


@pytest.mark.parametrize(
    "answer", [SchemaRegistryError(404, 40401, "Subject 'b' not found"), SchemaRegistryError(500, 50001, "down")]
)
async def test_a_reference_that_the_registry_lacks_is_its_trouble(answer: SchemaRegistryError) -> None:
    """The schema exists, so what it refers to has to: records wait, none is refused. Kills: blaming the records."""
    outer = json.dumps({"type": "record", "name": "a.A", "fields": [{"name": "b", "type": "a.B"}]})
    client = FakeClient({1: _avro(outer, SchemaReference("a.B", "b", 1)), ("b", 1): answer})
    client.answers["b", 1, "deleted"] = answer
    with pytest.raises(RegistryTrouble):
        await Registry(client, WHERE).by_id(1)
