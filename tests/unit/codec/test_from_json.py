"""An event that a person writes as JSON becomes the Avro datum that is meant, or a fault that names the place."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connector.codec.from_json import JsonFault, encode_json
from connector.codec.reader import reader_of
from connector.codec.schemas import Schema, read_schema
from connector.records import LogicalValue
from tests.unit.codec.corpus import FILES, written

ORDER = read_schema(
    json.dumps(
        {
            "type": "record",
            "name": "acme.Order",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "count", "type": "int", "default": 7},
                {"name": "note", "type": ["null", "string", "acme.Order"]},
                {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["WEB", "APP"]}},
                {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "boolean"}}},
                {"name": "raw", "type": ["bytes", "null"], "default": "\u00ff"},
            ],
        }
    )
)
GOOD: dict[str, Any] = {"id": "a", "total": 1, "at": 0, "kind": "WEB", "tags": {}}


def decoded(schema: Schema, value: Any) -> Any:
    """Return the datum that the JSON becomes."""
    data = encode_json(schema.tree, value)
    datum, end = reader_of(schema.tree)(data, 0)
    assert end == len(data)
    return datum


def as_written(value: Any) -> Any:
    """Return a decoded datum as a person may write it."""
    if isinstance(value, dict):
        return {name: as_written(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_written(inner) for inner in value]
    if isinstance(value, LogicalValue):
        return as_written(value.raw)
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_values_of_every_schema_come_back(file: Path) -> None:
    """What a payload of the corpus decodes to, written as JSON, is encoded to an equal datum."""
    schema = read_schema(file.read_text(encoding="utf-8"))
    for payload, _ in written(schema.tree):
        datum = reader_of(schema.tree)(payload, 0)[0]
        assert decoded(schema, as_written(datum)) == datum


def test_fields_that_are_not_given_take_their_default_or_null() -> None:
    """A missing field has its default, else null where that is allowed."""
    datum = decoded(ORDER, GOOD)
    assert (datum["count"], datum["note"], datum["raw"]) == (7, None, b"\xff")


@pytest.mark.parametrize(
    ("field", "written", "raw"),
    [
        ("note", "x", "x"),
        ("note", {"string": "x"}, "x"),
        ("note", {"acme.Order": GOOD}, decoded(ORDER, GOOD)),
        ("note", GOOD, decoded(ORDER, GOOD)),
        ("total", 12.34, b"\x04\xd2"),
        ("total", "12.34", b"\x04\xd2"),
        ("total", Decimal("-0.01"), b"\xff"),
        ("at", "1970-01-01T01:00:01+01:00", 1_000_000),
        ("raw", {"bytes": "\u00fe"}, b"\xfe"),
        ("raw", {"base64": "/g=="}, b"\xfe"),
        ("tags", {"a": [True]}, {"a": [True]}),
    ],
)
def test_each_form_of_a_value_is_understood(field: str, written: Any, raw: Any) -> None:
    """Plain JSON, Avro's JSON, decimals as numbers or text, times as ISO 8601."""
    found = decoded(ORDER, {**GOOD, field: written})[field]
    assert (found.raw if isinstance(found, LogicalValue) else found) == raw


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"idd": "a"}, "idd: acme.Order has no such field; did you mean id?"),
        ({"id": None}, "id: must be a string, not null"),
        ({"count": "7"}, "count: must be a whole number, not a string"),
        ({"count": 2**31}, "count: is out of the range of int"),
        ({"count": True}, "count: must be a whole number, not a boolean"),
        ({"count": 1.5}, "count: must be a whole number, not a number with a fraction"),
        ({"kind": "SHOP"}, "kind: acme.Kind has no symbol 'SHOP'; known: APP, WEB"),
        ({"tags": {"a": [1]}}, "tags.a[0]: must be true or false, not a whole number"),
        ({"note": {**GOOD, "kind": "X"}}, "note.kind: acme.Kind has no symbol 'X'; known: APP, WEB"),
        ({"note": 5}, "note: must be null or string or acme.Order, not a whole number"),
        ({"total": "1.234"}, "total: has more than 2 digits after the point"),
        ({"at": "2026-01-01T00:00:00"}, "at: the time needs its zone, such as 2026-11-20T10:00:00Z"),
    ],
)
def test_a_fault_names_the_place_and_what_is_wanted(changes: dict[str, Any], fault: str) -> None:
    """A value that is not one of its type is refused with its path."""
    with pytest.raises(JsonFault) as caught:
        encode_json(ORDER.tree, {**GOOD, **changes})
    assert str(caught.value) == fault


def test_a_required_field_must_be_given() -> None:
    """A field without a default that is not nullable has to be written."""
    with pytest.raises(JsonFault, match="id: is required: acme.Order has no default for it"):
        encode_json(ORDER.tree, {})
