"""Older and newer writers of every contract schema are read by the real decoder, as the connector's own schema says."""

from __future__ import annotations

import copy
from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader

from connector.codec.decoder import Decoder
from connector.codec.encoder import compile_write
from connector.codec.reader import Mismatch, reader_of
from connector.codec.schemas import Schema, assemble, load_contracts, without_logical_types
from connector.errors import Refusal
from connector.records import Record
from connector.testing.clock import ManualClock

CONTRACTS = load_contracts()
SPACE = "connector.events"

REQUIRED: dict[str, dict[str, Any]] = {
    "JiguangUserEvent": {"cuid": 7, "eventName": "pay", "itime": 1_700_000_000_123},
    "QuickAudienceEvent": {"customerId": "c", "eventCode": "buy", "eventTime": 1_700_000_000_123},
    "MyTrackerEvent": {"method": "login"},
    "JPushReportQuery": {"id": "q", "query": (f"{SPACE}.Received", {"msg_id": 5})},
}
"""For each contract of an event, what the fields without a default hold."""

ENVELOPED = sorted(REQUIRED)


def contract(name: str) -> Any:
    """Return a copy of a contract schema."""
    return copy.deepcopy(CONTRACTS.schemas[f"{SPACE}.{name}"].tree)


def older(tree: Any) -> Any:
    """Return a record's schema as a writer has it that knows none of the fields with a default."""
    return {**tree, "fields": [field for field in tree["fields"] if "default" not in field]}


def newer(tree: Any) -> Any:
    """Return a record's schema with fields that the connector does not know, before and behind the others."""
    nested = {"type": "record", "name": f"{tree['name']}Extra", "fields": [{"name": "n", "type": "long"}]}
    first = {"name": "trace", "type": {"type": "array", "items": "string"}}
    last = {"name": "extra", "type": ["null", nested], "default": None}
    return {**tree, "fields": [first, *tree["fields"], last]}


def defaults(name: str) -> dict[str, Any]:
    """Return the defaults of a contract's fields."""
    return {field["name"]: field["default"] for field in contract(name)["fields"] if "default" in field}


def written_as(writer: Any, datum: Any) -> Any:
    """Return what the connector reads of a datum whose logical types are given as they are written."""
    return decoded(writer, datum, plain=True)


def decoded(writer: Any, datum: Any, *, plain: bool = False) -> Any:
    """Return what the connector reads of a datum in the writer's own single-object encoding."""
    schema: Schema = assemble(writer, {})
    decoder = Decoder(CONTRACTS, clock=ManualClock(), schemas=[schema], plain={"events": str(schema.name)})
    written = without_logical_types(schema.tree) if plain else schema.tree
    value = compile_write(written)(datum)
    event = decoder.event(Record("events", 0, 0, 0, None, value, ()))
    assert event.schema == schema.name
    return event.datum


@pytest.mark.parametrize("name", ENVELOPED)
def test_an_older_writer_reads_as_if_it_had_written_the_defaults(name: str) -> None:
    """A writer that has none of the optional fields gives a whole event."""
    assert decoded(older(contract(name)), REQUIRED[name]) == {**defaults(name), **REQUIRED[name]}


@pytest.mark.parametrize("name", ENVELOPED)
def test_a_newer_writers_own_fields_are_passed_over(name: str) -> None:
    """What the connector does not know is skipped, wherever it stands."""
    datum = {"trace": ["a", "b"], **defaults(name), **REQUIRED[name], "extra": {"n": 1}}
    assert decoded(newer(contract(name)), datum) == {**defaults(name), **REQUIRED[name]}


@pytest.mark.parametrize("name", ENVELOPED)
@pytest.mark.parametrize("side", [older, newer])
def test_a_body_in_the_envelope_evolves_as_well(name: str, side: Any) -> None:
    """The envelope's body keeps its schema's name and is read as a bare event of that schema is."""
    tree = contract("Event")
    body = next(field for field in tree["fields"] if field["name"] == "body")
    body["type"] = [side(branch) if branch["name"] == f"{SPACE}.{name}" else branch for branch in body["type"]]
    known = {**defaults(name), **REQUIRED[name]}
    inner = REQUIRED[name] if side is older else {"trace": [], **known, "extra": None}
    datum = {"id": "1", "target": "t", "body": (f"{SPACE}.{name}", inner)}
    assert decoded(tree, datum) == {"id": "1", "target": "t", "body": (f"{SPACE}.{name}", known)}


def test_a_writer_whose_numbers_are_narrower_or_not_nullable_is_read() -> None:
    """An int is read as a long, and a value that its writer never leaves out as a nullable one."""
    tree = contract("MyTrackerEvent")
    kinds = {"age": "int", "eventTimestamp": "int", "customUserId": "string"}
    tree["fields"] = [
        {"name": field["name"], "type": kinds[field["name"]]} if field["name"] in kinds else field
        for field in tree["fields"]
    ]
    given = {"age": 128, "eventTimestamp": 1_700_000_000, "customUserId": "u"}
    known = {**defaults("MyTrackerEvent"), **REQUIRED["MyTrackerEvent"], **given}
    assert decoded(tree, known) == known


def test_a_writer_that_is_not_our_schema_of_that_name_is_refused_in_words() -> None:
    """A writer without a required field is a refusal that names the schema, never a guess."""
    tree = contract("JiguangUserEvent")
    tree["fields"] = [field for field in tree["fields"] if field["name"] != "cuid"]
    datum = {**defaults("JiguangUserEvent"), **REQUIRED["JiguangUserEvent"]}
    del datum["cuid"]
    with pytest.raises(Refusal, match="JiguangUserEvent") as caught:
        decoded(tree, datum)
    assert caught.value.code == "decode.schema_mismatch"


def envelope(body: Any) -> Any:
    """Return the envelope's schema with another type of body."""
    tree = contract("Event")
    next(field for field in tree["fields"] if field["name"] == "body")["type"] = body
    return tree


USER = {**defaults("JiguangUserEvent"), **REQUIRED["JiguangUserEvent"]}
JIGUANG = f"{SPACE}.JiguangUserEvent"


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (contract("JiguangUserEvent"), USER),
        ([contract("JiguangUserEvent")], USER),
        (["null", contract("JiguangUserEvent")], USER),
        ([contract("MyTrackerEvent"), contract("JiguangUserEvent")], (JIGUANG, USER)),
    ],
    ids=["one record", "a union of one", "null or one", "fewer"],
)
def test_a_writers_envelope_needs_only_the_body_that_it_writes(body: Any, written: Any) -> None:
    """Whatever the writer's body is a union of, the reader's names the record. Kills: a body without a name."""
    datum = {"id": "1", "target": "t", "body": written}
    assert decoded(envelope(body), datum) == {"id": "1", "target": "t", "body": (JIGUANG, USER)}


def test_a_body_that_is_null_is_a_mismatch_of_that_record_only() -> None:
    """A null body is no event; the schema that allows it is read all the same."""
    tree = envelope(["null", contract("JiguangUserEvent")])
    with pytest.raises(Refusal, match="null") as caught:
        decoded(tree, {"id": "1", "target": "t", "body": None})
    assert caught.value.code == "decode.schema_mismatch"


@pytest.mark.parametrize(
    ("logical", "written", "read"),
    [
        ("timestamp-micros", 1_700_000_000_123_999, 1_700_000_000_123),
        ("timestamp-micros", -1, -1),
        ("timestamp-nanos", 1_700_000_000_123_999_999, 1_700_000_000_123),
        ("timestamp-millis", 1_700_000_000_123, 1_700_000_000_123),
        (None, 1_700_000_000_123, 1_700_000_000_123),
    ],
)
def test_a_contracts_time_is_read_by_the_writers_unit(logical: str | None, written: int, read: int) -> None:
    """A time in another unit is converted, and floored. Kills: microseconds sent as milliseconds."""
    tree = contract("JiguangUserEvent")
    time = next(field for field in tree["fields"] if field["name"] == "itime")
    time["type"] = {"type": "long", **({"logicalType": logical} if logical else {})}
    assert written_as(tree, {**USER, "itime": written})["itime"] == read


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, 1_700_000_000_999, 1_700_000_000),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], 1_700_000_000_999_999, 1_700_000_000),
        ("int", 1_700_000_000, 1_700_000_000),
        (["null", "long"], None, None),
    ],
    ids=["millis", "micros", "int", "null"],
)
def test_mytrackers_seconds_are_read_by_the_writers_unit(kind: Any, written: Any, read: Any) -> None:
    """The contract holds seconds as a plain number; a writer's timestamp becomes seconds."""
    tree = contract("MyTrackerEvent")
    tree["fields"] = [
        {"name": field["name"], "type": kind} if field["name"] == "eventTimestamp" else field
        for field in tree["fields"]
    ]
    datum = {**defaults("MyTrackerEvent"), **REQUIRED["MyTrackerEvent"], "eventTimestamp": written}
    assert written_as(tree, datum)["eventTimestamp"] == read


def test_a_schema_named_like_a_contract_harms_only_its_own_records() -> None:
    """A schema of the registry that cannot be used refuses its records. Kills: a schema that ends every member."""
    fields = [{"name": name, "type": "string", "default": 7} for name in ("id", "target")]
    schema = assemble({"type": "record", "name": f"{SPACE}.Event", "fields": fields}, {})
    decoder = Decoder(CONTRACTS, clock=ManualClock(), schemas=[schema])
    with pytest.raises(Refusal) as caught:
        decoder.event(Record("events", 0, 0, 0, None, b"\xc3\x01" + schema.fingerprint + b"\x02a\x02b", ()))
    assert caught.value.code == "decode.schema_mismatch"


def person(**more: Any) -> Any:
    """Return a schema for what resolution may change."""
    return {
        "type": "record",
        "name": "a.Person",
        "fields": [{"name": name, "type": kind} for name, kind in more.items()],
    }


ENUM = {"type": "enum", "name": "a.E", "symbols": ["A", "B"]}


@pytest.mark.parametrize(
    ("writer", "reader", "datum"),
    [
        (person(n="int"), person(n="double"), {"n": 3}),
        (person(n="long"), person(n=["null", "float"]), {"n": 3}),
        (person(n=["null", "int"]), person(n="long"), {"n": 3}),
        (person(n=["string", "int"]), person(n=["null", "long", "string"]), {"n": 3}),
        (person(n="string"), person(n="bytes"), {"n": "é"}),
        (person(n="bytes"), person(n="string"), {"n": b"x"}),
        (
            person(n={"type": "array", "items": "int"}),
            person(n={"type": "array", "items": ["null", "long"]}),
            {"n": [1]},
        ),
        (person(n={"type": "map", "values": "int"}), person(n={"type": "map", "values": "long"}), {"n": {"a": 1}}),
        (person(n=ENUM, m="a.E"), person(m={**ENUM, "symbols": ["B", "A", "C"]}), {"n": "A", "m": "B"}),
        (person(n={**ENUM, "symbols": ["Z"]}), person(n={**ENUM, "default": "B"}), {"n": "Z"}),
        (
            person(n={"type": "fixed", "name": "a.F", "size": 2}, m="a.F"),
            person(m={"type": "fixed", "name": "a.F", "size": 2}),
            {"n": b"ab", "m": b"cd"},
        ),
        (
            person(old="int"),
            {**person(), "fields": [{"name": "new", "type": "int", "aliases": ["old"]}]},
            {"old": 3},
        ),
    ],
    ids=str,
)
def test_resolution_is_the_specifications(writer: Any, reader: Any, datum: Any) -> None:
    """A writer's datum is read as fastavro resolves it. Kills: a field out of order, a branch by its number."""
    payload = compile_write(assemble(writer, {}).tree)(datum)
    ours, end = reader_of(assemble(writer, {}).tree, assemble(reader, {}).tree)(payload, 0)
    theirs = schemaless_reader(BytesIO(payload), parse_schema(writer), parse_schema(reader))
    assert (ours, end) == (theirs, len(payload))


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (person(n="long"), person(n="int")),
        (person(n="string"), person(n=["null", "long"])),
        (person(), person(n="int")),
        ({**person(), "name": "a.Other"}, person()),
        (person(n={"type": "fixed", "name": "a.F", "size": 2}), person(n={"type": "fixed", "name": "a.F", "size": 3})),
    ],
    ids=str,
)
def test_what_cannot_be_resolved_is_a_mismatch(writer: Any, reader: Any) -> None:
    """A type that cannot be read as the reader's is never guessed."""
    with pytest.raises(Mismatch):
        reader_of(assemble(writer, {}).tree, assemble(reader, {}).tree)
