"""A real schema registry: the forms of ids, references, rules, and what is answered for an id that it does not know."""

import asyncio
import json
import urllib.request
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, SchemaReference
from confluent_kafka.schema_registry import Schema as RegistrySchema

from connector.clock import SystemClock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder, compile_write
from connector.codec.registry import NotRegistered, RegistryRefused, RegistryTrouble, make_client
from connector.codec.registry import Registry as SchemaRegistry
from connector.codec.schemas import Contracts, load_contracts, read_schema
from connector.config.loader import RegistrySettings
from connector.errors import Refusal, SchemaUnavailable
from connector.records import Event, Record
from tests.integration.events import SCHEMA, Message, datum_bytes, event, register, single_object, wire
from tests.integration.fronts import Front
from tests.integration.job import Job, Vendor
from tools.servers import ROOT, Registry


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
        value = (await encoder.writer(fresh_name("results"), name))({"method": "login", "customUserId": "u"})
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
        with pytest.raises(Refusal, match="1 byte is left"):
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


EACH = 20
GUID = uuid.UUID("6bf5e1ba-0fa1-4f7c-9a0e-5d1c2b3a4f50")


def test_every_form_of_a_schemas_name_is_delivered(job: Job, vendor: Vendor, registry: Registry) -> None:
    """Ids of 4 bytes, Confluent's header by id and by GUID, Apicurio's header, and single-object encoding in one topic.

    Apicurio has no GUIDs, so a front gives its schema one. Kills: a header that is only read where the value has no id.
    """
    schema_id = register(registry, f"{job.topic}-value", SCHEMA)
    small, wide = schema_id.to_bytes(4, "big"), schema_id.to_bytes(8, "big")
    api = "/apis/ccompat/v7/schemas"

    def messages(number: int) -> list[Message]:
        datum = [datum_bytes(event(EACH * form + number)) for form in range(5)]
        return [
            Message(wire(schema_id, datum[0])),
            Message(datum[1], headers=(("__value_schema_id", b"\0" + small),)),
            Message(datum[2], headers=(("__value_schema_id", b"\1" + GUID.bytes),)),
            Message(datum[3], headers=(("apicurio.value.encoding", b"BINARY"), ("apicurio.value.contentId", wide))),
            Message(single_object(datum[4])),
        ]

    with Front(registry.port, aliases={f"{api}/guids/{GUID}": f"{api}/ids/{schema_id}"}) as front:
        job.produce(message for number in range(EACH) for message in messages(number))
        settings = {"url": f"http://127.0.0.1:{front.port}/apis/ccompat/v7"}
        member = job.start(job.settings(vendor.destination, schema_registry=settings))
        job.until_done(member)
        assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == 5 * EACH
    assert job.dead_letters() == []


def test_plain_avro_needs_no_registry(job: Job, vendor: Vendor) -> None:
    """The configuration names the topic's schema; a value that is no such Avro is a dead letter."""
    job.produce([*(Message(datum_bytes(event(number))) for number in range(EACH)), Message(b"\xff\xff")])
    name = "connector.events.JiguangUserEvent"
    schemas = {"files": [str(ROOT / "avro" / "JiguangUserEvent.avsc")], "plain": {job.topic: name}}
    member = job.start(job.settings(vendor.destination, schemas=schemas))
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == EACH
    assert [dead_letter.own["dlq-code"] for dead_letter in job.dead_letters()] == ["decode.payload"]


def test_ids_that_cannot_be_used_say_what_to_set(job: Job, vendor: Vendor, registry: Registry) -> None:
    """An id of 8 bytes and a global id are dead letters whose message names the producer's setting; others pass.

    Kills: an id of 8 bytes shown as the id 0; a global id looked up as a content id, which is another schema's.
    """
    schema_id = register(registry, f"{job.topic}-value", SCHEMA)
    datum = datum_bytes(event(0))
    wide = schema_id.to_bytes(8, "big")
    bad = [Message(b"\0" + wide + datum), Message(datum, headers=(("apicurio.value.globalId", wide),))]
    job.produce([*bad, Message(wire(schema_id, datum)), Message(b"\0\x80\0\0\0" + datum)])
    member = job.start(job.settings(vendor.destination, schema_registry={"url": registry.url}))
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.total() == 1
    found = sorted(dead_letter.own["dlq-message"] for dead_letter in job.dead_letters())
    assert {dead_letter.own["dlq-code"] for dead_letter in job.dead_letters()} == {"decode.frame"}
    assert "use-id to contentId" in found[0]
    assert f"looks like an id of 8 bytes ({schema_id})" in found[1]
    assert "the schema id is 2147483648" in found[2]


def _rule(registry: Registry, subject: str, compatibility: str) -> None:
    request = urllib.request.Request(
        f"{registry.url}/config/{subject}",
        data=json.dumps({"compatibility": compatibility}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


async def test_a_compatibility_rule_is_obeyed_and_named(registry: Registry, fresh_name: Callable[[str], str]) -> None:
    """The registry's rule refuses an incompatible schema of ours with its own words, and takes a compatible one."""
    subject = fresh_name("results")
    old = {"type": "record", "name": "a.Result", "fields": [{"name": "n", "type": "long"}]}
    added = {"name": "more", "type": "string"}
    server = _open(registry.url)
    try:
        first = await server.register(subject, read_schema(json.dumps(old)))
        await asyncio.to_thread(_rule, registry, subject, "BACKWARD")
        worse = {**old, "fields": [*old["fields"], added]}
        with pytest.raises(RegistryRefused, match=f"rejects a.Result for subject {subject}: HTTP 409"):
            await server.register(subject, read_schema(json.dumps(worse)))
        better = {**old, "fields": [*old["fields"], {**added, "default": ""}]}
        assert await server.register(subject, read_schema(json.dumps(better))) != first
        assert await server.register(subject, read_schema(json.dumps(old))) == first
    finally:
        await server.close()


def _referring(registry: Registry, subject: str, schema: object, *references: tuple[str, str]) -> int:
    named = [{"name": name, "subject": of, "version": 1} for name, of in references]
    request = urllib.request.Request(
        f"{registry.url}/subjects/{subject}/versions",
        data=json.dumps({"schema": json.dumps(schema), "schemaType": "AVRO", "references": named}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["id"])


def test_a_union_of_referenced_types_is_routed_by_the_type_that_is_there(
    job: Job, vendor: Vendor, registry: Registry
) -> None:
    """Two event types in one topic, by references of references; each record is the one that its branch says.

    Kills: a type of a reference's reference that is not known; a union judged as no record.
    """
    shop = {
        "type": "record",
        "name": "shop.Base",
        "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
    }
    user = {"name": "user", "type": "long"}
    types = {
        name: {"type": "record", "name": f"shop.{name}", "fields": [{"name": "base", "type": "shop.Base"}, user]}
        for name in ("Paid", "Left")
    }
    register(registry, f"{job.topic}-base", shop)
    for name, schema in types.items():
        _referring(registry, f"{job.topic}-{name}", schema, ("shop.Base", f"{job.topic}-base"))
    names = [(f"shop.{name}", f"{job.topic}-{name}") for name in types]
    schema_id = _referring(registry, f"{job.topic}-value", ["null", *(name for name, _ in names)], *names)
    now = event(0)["itime"]
    whole = [{**schema, "fields": [{"name": "base", "type": shop}, user]} for schema in types.values()]
    job.produce(
        Message(
            wire(schema_id, bytes([2 * (1 + kind)]) + datum_bytes({"base": {"at": now}, "user": number}, whole[kind]))
        )
        for number in range(2 * EACH)
        for kind in [number % 2]
    )
    fields = {"cuid": "user", "eventName": {"const": "page_view"}, "itime": "base.at"}
    route = {"schema": "shop.Paid", "to": ["jg"], "fields": {"jiguang": fields}}
    settings = job.settings(vendor.destination, schema_registry={"url": registry.url}, routes=[route], unrouted="skip")
    member = job.start(settings)
    job.until_done(member)
    assert member.stop() == 0
    assert set(vendor.cuids) == set(range(0, 2 * EACH, 2))
    assert job.dead_letters() == []
