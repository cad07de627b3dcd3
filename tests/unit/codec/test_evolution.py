"""Older and newer writers of every contract schema are read by the real decoder, as the connector's own schema says."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from connector.codec.codec import Decoder
from connector.codec.engine import compile_write
from connector.codec.schemas import Schema, assemble, load_contracts
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


def decoded(writer: Any, datum: Any) -> Any:
    """Return what the connector reads of a datum in the writer's own single-object encoding."""
    schema: Schema = assemble(writer, {})
    decoder = Decoder(CONTRACTS, clock=ManualClock(), schemas=[schema])
    value = b"\xc3\x01" + schema.fingerprint + compile_write(schema.tree)(datum)
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
