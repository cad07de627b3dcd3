"""Avro as the world writes it, on real Kafka: what is sent is what was written, and only the faulty part counts."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from connector.testing.quick_audience import QuickAudienceApi
from tests.integration.accounts import contract
from tests.integration.events import Message, datum_bytes, event, wire
from tests.integration.job import Job, Vendor
from tests.unit.codec.corpus import long_bytes, text_bytes

INFINITY: Final = 9_223_372_036_825_200_000
NOW: Final = 1_790_000_000_000


class Case(NamedTuple):
    """One record: the type of its field `value`, its bytes, and what the vendor gets as entityId, or a refusal's code.

    `mapped` is false where no route uses the field. `more` are the schema's other fields, with no bytes of their own.
    """

    type: Any
    payload: bytes
    expected: str | None
    mapped: bool = True
    more: tuple[dict[str, Any], ...] = ()


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    """Return a logical type."""
    return {"type": kind, "logicalType": name, **more}


def sized(content: bytes) -> bytes:
    """Return bytes with their length in front."""
    return long_bytes(len(content)) + content


WIDE: Final = (1_234_567_891).to_bytes(4, "big")
ENUM: Final = {"type": "enum", "name": "Net", "symbols": ["3g", "4g-lte", "5g"]}
UNION: Final = ["null", "string"]
CASES: Final = {
    "decimal wider than its precision": Case(
        logical("bytes", "decimal", precision=5, scale=2), sized(WIDE), "12345678.91"
    ),
    "negative decimal, padded": Case(
        logical("bytes", "decimal", precision=9, scale=3), sized(b"\xff\xff\xff\x85"), "-0.123"
    ),
    "decimal that is to be ignored": Case(
        logical("bytes", "decimal", precision=64, scale=127), sized(b"\1"), None, mapped=False
    ),
    "precision as text": Case(logical("bytes", "decimal", precision="9", scale=2), sized(b"\1"), None, mapped=False),
    "fixed too small": Case(
        {"type": "fixed", "name": "F", "size": 1, "logicalType": "decimal", "precision": 30}, b"\1", None, mapped=False
    ),
    "time before midnight": Case(logical("int", "time-millis"), long_bytes(-1), "mapping.entityId.range"),
    "time before midnight, unused": Case(logical("int", "time-millis"), long_bytes(-1), None, mapped=False),
    "time after midnight, unused": Case(logical("int", "time-millis"), long_bytes(90_000_000), None, mapped=False),
    "late date, unused": Case(logical("int", "date"), long_bytes(2**31 - 1), None, mapped=False),
    "late date": Case(logical("int", "date"), long_bytes(2**31 - 1), "mapping.entityId.range"),
    "infinity": Case(logical("long", "timestamp-micros"), long_bytes(INFINITY), "mapping.entityId.range"),
    "infinity, unused": Case(logical("long", "timestamp-micros"), long_bytes(INFINITY), None, mapped=False),
    "empty uuid": Case(logical("string", "uuid"), text_bytes(""), ""),
    "upper-case uuid": Case(logical("string", "uuid"), text_bytes("6BF5E1BA-0FA1"), "6BF5E1BA-0FA1"),
    "float of 32 bits": Case("float", struct.pack("<f", 12.99), "12.99"),
    "symbols with digits and hyphens": Case(ENUM, long_bytes(1), "4g-lte"),
    "enum index -1": Case(ENUM, long_bytes(-1), "decode.payload"),
    "enum index past the end": Case(ENUM, long_bytes(3), "decode.payload"),
    "union branch -1": Case(UNION, long_bytes(-1), "decode.payload"),
    "varint of 70 bits": Case("long", b"\xff" * 9 + b"\x7f", "decode.payload"),
    "invalid default": Case(
        "string",
        text_bytes("v") + long_bytes(0),
        "v",
        more=({"name": "x-1", "type": ["null", "string"], "default": 5},),
    ),
    "a name that begins with a digit": Case(
        {"type": "record", "name": "3d-Point", "namespace": "my-ns.9x", "fields": [{"name": "a b", "type": "int"}]},
        long_bytes(7),
        None,
        mapped=False,
    ),
}


def schema_of(number: int, case: Case) -> dict[str, Any]:
    """Return a case's schema: who, when, and the value; its own name says whether a route uses the value."""
    value = {"name": "value", "type": case.type}
    fields = [{"name": "user", "type": "string"}, {"name": "at", "type": logical("long", "timestamp-millis")}]
    name = "Mapped" if case.mapped else "Unused"
    return {
        "type": "record",
        "name": f"{name}",
        "namespace": f"odd-ns.n{number}",
        "fields": [*fields, value, *case.more],
    }


def head(user: str) -> bytes:
    """Return the bytes of the first two fields."""
    return text_bytes(user) + long_bytes(NOW)


@contextmanager
def registry_of(schemas: dict[int, dict[str, Any]]) -> Iterator[str]:
    """Give the address of a registry with these answers, which a real one would not take as schemas."""

    class Handler(BaseHTTPRequestHandler):
        """Answers for one id."""

        def do_GET(self) -> None:
            found = schemas.get(int(self.path.partition("?")[0].rpartition("/")[2]))
            body = json.dumps(found or {"error_code": 40403, "message": "Schema not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="registry")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(10)


def route(schema: str, **fields: Any) -> dict[str, Any]:
    """Return a route of one schema."""
    base = {"customerId": "user", "eventCode": {"const": "e"}, "eventTime": "at"}
    return {"schema": schema, "to": ["jg"], "fields": {"quick_audience": {**base, **fields}}}


def test_each_record_arrives_as_it_was_written_or_says_why_not(job: Job) -> None:
    """A value is exact or refused by its field's name; a schema's faults and values that no route uses do no harm.

    Kills: decimals and times that are rounded, text that is normalised, indexes below zero, schemas refused whole.
    """
    schemas, routes, messages = {}, [], []
    for number, (name, case) in enumerate(CASES.items(), 1):
        schema = schema_of(number, case)
        schemas[number] = {"schema": json.dumps(schema)}
        fields = {"entityId": "value"} if case.mapped else {}
        routes.append(route(f"{schema['namespace']}.{schema['name']}", **fields))
        messages.append(Message(wire(number, head(name) + case.payload)))
    with Vendor(QuickAudienceApi()) as vendor, registry_of(schemas) as url:
        job.produce(messages)
        member = job.start(job.settings(vendor.destination, routes=routes, schema_registry={"url": url}))
        job.until_done(member)
        assert member.stop() == 0
    found = {event["customerId"]: event.get("entityId") for event in vendor.accepted}
    refused = {
        next(name for name in CASES if head(name) in (dead_letter.value or b"")): dead_letter.own
        for dead_letter in job.dead_letters()
    }
    for name, case in CASES.items():
        what = refused[name]["dlq-code"] if name in refused else found.get(name, "lost")
        assert what == case.expected, (name, what, refused.get(name))


USER: Final = {"type": "record", "name": "k.User", "fields": [{"name": "id", "type": "string"}]}
VALUE: Final = {"type": "record", "name": "v.Event", "fields": [{"name": "at", "type": "long"}]}
KEYED: Final = {**VALUE, "name": "v.Keyed"}


def test_keys_are_decoded_where_they_name_a_schema(job: Job) -> None:
    """`$key` is a key's text, `$key.id` a field of its record; what is neither is refused by the field's name.

    Kills: a key in the wire format whose control characters become an id.
    """
    schemas = {number: {"schema": json.dumps(tree)} for number, tree in enumerate((VALUE, KEYED, USER, "string"), 1)}
    plain, keyed = wire(1, long_bytes(NOW)), wire(2, long_bytes(NOW))
    messages = [
        Message(plain, b"as text"),
        Message(plain, wire(4, text_bytes("framed text"))),
        Message(keyed, wire(3, text_bytes("of a record"))),
        Message(plain, b"\xff\xfe\0"),
        Message(plain, wire(4, text_bytes("cut")[:-1])),
        Message(plain, wire(3, text_bytes("a record is no text"))),
    ]
    routes = [
        route("v.Event", customerId="$key", eventTime="at"),
        route("v.Keyed", customerId="$key.id", eventTime="at"),
    ]
    with Vendor(QuickAudienceApi()) as vendor, registry_of(schemas) as url:
        job.produce(messages)
        member = job.start(job.settings(vendor.destination, routes=routes, schema_registry={"url": url}))
        job.until_done(member)
        assert member.stop() == 0
    assert {event["customerId"] for event in vendor.accepted} == {"as text", "framed text", "of a record"}
    codes = [dead_letter.own["dlq-code"] for dead_letter in job.dead_letters()]
    assert sorted(codes) == ["mapping.customerId.key", "mapping.customerId.key", "mapping.customerId.type"]


def changed_body(change: Callable[[Any], Any]) -> Any:
    """Return the envelope's schema with another type for its body, made from that of the body's first record."""
    envelope = contract("Event")
    body = next(field for field in envelope["fields"] if field["name"] == "body")
    body["type"] = change(next(branch for branch in body["type"] if branch["name"] == "JiguangUserEvent"))
    return envelope


def test_contracts_written_in_other_ways_are_resolved(job: Job, vendor: Vendor) -> None:
    """A body that is one record, a union of one, or a record or null; and a contract's time in microseconds.

    A schema with a contract's name that cannot be parsed refuses its own records. Kills: a union compared by its form;
    microseconds sent as milliseconds; a member that ends over one schema.
    """
    jiguang = contract("JiguangUserEvent")
    micros = json.loads(json.dumps(jiguang))
    time_field = next(field for field in micros["fields"] if field["name"] == "itime")
    time_field["type"] = logical("long", "timestamp-micros")
    envelopes = [changed_body(change) for change in (lambda one: one, lambda one: [one], lambda one: ["null", one])]
    trees = (*envelopes, micros)
    schemas: dict[int, dict[str, Any]] = {number: {"schema": json.dumps(tree)} for number, tree in enumerate(trees, 1)}
    schemas[5] = {"schema": json.dumps({**jiguang, "fields": [{"name": "cuid", "type": "no.such.Type"}]})}
    data = [event(number, properties={"page": "/"}) for number in range(4)]
    record = "connector.events.JiguangUserEvent"
    envelope = {"id": "e", "target": "jg"}
    messages = [
        Message(wire(1, datum_bytes({**envelope, "body": data[0]}, envelopes[0]))),
        Message(wire(2, datum_bytes({**envelope, "body": (record, data[1])}, envelopes[1]))),
        Message(wire(3, datum_bytes({**envelope, "body": (record, data[2])}, envelopes[2]))),
        Message(wire(4, datum_bytes({**data[3], "itime": data[3]["itime"] * 1000 + 999}, micros))),
        Message(wire(5, b"\2")),
    ]
    with registry_of(schemas) as url:
        job.produce(messages)
        member = job.start(job.settings(vendor.destination, schema_registry={"url": url}))
        job.until_done(member)
        assert member.stop() == 0
    assert {each["cuid"]: each["itime"] for each in vendor.accepted} == {each["cuid"]: each["itime"] for each in data}
    assert [dead_letter.own["dlq-code"] for dead_letter in job.dead_letters()] == ["decode.schema_invalid"]


def test_a_parent_of_a_field_that_is_passed_on_as_json_is_mapped(job: Job) -> None:
    """A mapping of the whole body has the attributes inside it, whatever they hold.

    Kills: attributes that were decoded as JSON text for another route, and cannot be encoded again.
    """
    schema = contract("Event")
    record = "connector.events.JiguangUserEvent"
    given = [{}, {"a": 1}, {"a": "text", "b": 1.5, "c": True, "d": ["x", "y"], "e": None}]
    events = [(record, event(number, properties=properties)) for number, properties in enumerate(given)]
    own = [
        Message(wire(1, datum_bytes({"id": f"{n}", "target": "jg", "body": each}, schema)))
        for n, each in enumerate(events)
    ]
    fields = {"extendAttributes": "body", "customerId": "id", "eventTime": "body.itime"}
    with Vendor(QuickAudienceApi()) as vendor, registry_of({1: {"schema": json.dumps(schema)}}) as url:
        job.produce(own)
        settings = job.settings(
            vendor.destination, routes=[route("connector.events.Event", **fields)], schema_registry={"url": url}
        )
        member = job.start(settings)
        job.until_done(member)
        assert member.stop() == 0
    assert [dead_letter.own["dlq-message"] for dead_letter in job.dead_letters()] == []
    found = {each["customerId"]: json.loads(each["extendAttributes"]["properties"]) for each in vendor.accepted}
    assert found == {f"{number}": properties for number, properties in enumerate(given)}


def test_a_schema_with_an_encryption_rule_holds_its_records(job: Job) -> None:
    """Nothing of it is sent or dead-lettered, and the hold names the rule; other schemas go on.

    Kills: ciphertext sent as a user's id.
    """
    rule = {"name": "hide-pii", "kind": "TRANSFORM", "mode": "WRITEREAD", "type": "ENCRYPT", "tags": ["PII"]}
    rules = {"domainRules": [rule]}
    schemas: dict[int, dict[str, Any]] = {1: {"schema": json.dumps(VALUE)}}
    schemas[2] = {"schema": json.dumps(KEYED), "ruleSet": rules}
    routes = [route(name, customerId="$key", eventTime="at") for name in ("v.Event", "v.Keyed")]
    with Vendor(QuickAudienceApi()) as vendor, registry_of(schemas) as url:
        job.produce([Message(wire(2, long_bytes(NOW)), b"secret", partition=0)])
        job.produce([Message(wire(1, long_bytes(NOW)), b"plain", partition=1)])
        member = job.start(job.settings(vendor.destination, routes=routes, schema_registry={"url": url}))
        assert "encryption rule 'hide-pii'" in member.until_held("registry")["message"]
        member.wait(lambda: job.committed()[1] == 1, "the other schema's record")
        assert member.stop() == 0
    assert [each["customerId"] for each in vendor.accepted] == ["plain"]
    assert job.dead_letters() == []
    assert job.committed()[0] == 0
