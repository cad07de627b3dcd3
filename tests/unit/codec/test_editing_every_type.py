"""An edit of a field of any type gives the bytes of an independent encoder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from fastavro import parse_schema
from hypothesis import given
from hypothesis import strategies as st

from connector.codec.editing import edit
from connector.codec.schemas import read_schema
from tests.unit.codec.test_editing import encoded

Kind = tuple[Any, st.SearchStrategy[tuple[Any, Any]]]
"""A type's schema, and its values: as fastavro takes one, and as JSON does (text as such, bytes in base64)."""


def same(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Return values that fastavro and JSON write alike."""
    return values.map(lambda value: (value, value))


def in_base64(size: int | None = None) -> st.SearchStrategy[tuple[Any, Any]]:
    """Return byte strings, of one size if it is given."""
    return st.binary(min_size=size or 0, max_size=size or 40).map(lambda raw: (raw, base64.b64encode(raw).decode()))


doubles: Final = st.floats(allow_nan=False, allow_infinity=False)  # JSON has neither
longs: Final = st.integers(-(2**63), 2**63 - 1)
PLAIN: Final[tuple[Kind, ...]] = (
    ("null", same(st.none())),
    ("boolean", same(st.booleans())),
    ("int", same(st.integers(-(2**31), 2**31 - 1))),
    ("long", same(longs)),
    ("float", same(st.floats(width=32, allow_nan=False, allow_infinity=False))),
    ("double", same(doubles)),
    ("bytes", in_base64()),
    ("string", same(st.text())),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, in_base64()),
    ({"type": "string", "logicalType": "uuid"}, same(st.uuids().map(str))),
    ({"type": "int", "logicalType": "date"}, same(st.integers(-(2**31), 2**31 - 1))),
    ({"type": "int", "logicalType": "time-millis"}, same(st.integers(0, 86_399_999))),
    ({"type": "long", "logicalType": "time-micros"}, same(st.integers(0, 86_399_999_999))),
    ({"type": "long", "logicalType": "timestamp-millis"}, same(longs)),
    ({"type": "long", "logicalType": "timestamp-micros"}, same(longs)),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, same(longs)),
)


def a_kind(draw: st.DrawFn, names: Iterator[str], depth: int) -> Kind:
    """Draw a type; named types get the next name, so that each is defined once."""
    form = draw(st.sampled_from(["plain", "enum", "fixed", *(["array", "map", "record", "union"] if depth else [])]))
    if form == "plain":
        return draw(st.sampled_from(PLAIN))
    if form == "enum":
        symbols = ["A", "B", "null", "_1"]
        return {"type": "enum", "name": next(names), "symbols": symbols}, same(st.sampled_from(symbols))
    if form == "fixed":
        size = draw(st.integers(1, 20))
        return {"type": "fixed", "name": next(names), "size": size}, in_base64(size)
    if form == "union":
        return a_union(draw, names)
    if form == "record":
        name = next(names)
        fields = {f"f{number}": a_kind(draw, names, depth - 1) for number in range(draw(st.integers(0, 3)))}
        values = st.fixed_dictionaries({field: values for field, (_, values) in fields.items()}).map(in_both_forms)
        return a_record(name, {field: schema for field, (schema, _) in fields.items()}), values
    schema, values = a_kind(draw, names, depth - 1)
    if form == "array":
        return {"type": "array", "items": schema}, st.lists(values, max_size=3).map(
            lambda pairs: ([datum for datum, _ in pairs], [text for _, text in pairs])
        )
    return {"type": "map", "values": schema}, st.dictionaries(st.text(), values, max_size=3).map(in_both_forms)


def a_union(draw: st.DrawFn, names: Iterator[str]) -> Kind:
    """Draw a union of branches that JSON tells apart, in any order; named ones are named, as in Avro's own JSON."""
    enum, fixed, record = (next(names) for _ in range(3))
    number = doubles.filter(lambda value: not value.is_integer())
    branches: list[tuple[Any, st.SearchStrategy[tuple[Any, Any]]]] = [
        ("null", same(st.none())),
        ("boolean", same(st.booleans())),
        ("long", longs.map(lambda value: (("long", value), value))),
        ("double", number.map(lambda value: (("double", value), value))),
        ("string", st.text().map(lambda text: (("string", text), text))),
        (
            {"type": "enum", "name": enum, "symbols": ["A", "B"]},
            st.sampled_from("AB").map(lambda symbol: ((enum, symbol), {enum: symbol})),
        ),
        (
            {"type": "fixed", "name": fixed, "size": 3},
            in_base64(3).map(lambda pair: ((fixed, pair[0]), {fixed: pair[1]})),
        ),
        (
            a_record(record, {"x": "long"}),
            longs.map(lambda value: ((record, {"x": value}), {record: {"x": value}})),
        ),
    ]
    chosen = draw(st.lists(st.sampled_from(branches), min_size=1, unique_by=lambda branch: str(branch[0])))
    return [schema for schema, _ in chosen], st.one_of([values for _, values in chosen])


def a_record(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record's schema."""
    return {"type": "record", "name": name, "fields": [{"name": each, "type": fields[each]} for each in fields]}


def in_both_forms(pairs: dict[str, tuple[Any, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return fields or entries as fastavro takes them, and as JSON does."""
    return {name: datum for name, (datum, _) in pairs.items()}, {name: text for name, (_, text) in pairs.items()}


@st.composite
def edits(draw: st.DrawFn) -> tuple[Any, Any, Any, str]:
    """Draw a schema, a datum, the same with another value in `in.it`, and that value as the text of an edit."""
    names = (f"acme.T{number}" for number in count())
    fields = {name: a_kind(draw, names, 2) for name in ("before", "it", "after")}
    inner = a_record("acme.Inner", {name: schema for name, (schema, _) in fields.items()})
    tree = a_record("acme.Outer", {"first": "string", "in": inner, "last": "long"})
    data = {name: draw(values)[0] for name, (_, values) in fields.items()}
    schema, values = fields["it"]
    datum, value = draw(values)
    kind = schema["type"] if isinstance(schema, dict) else schema
    literal = kind in ("string", "bytes", "enum", "fixed")
    text = value if literal else json.dumps(value, ensure_ascii=draw(st.booleans()))
    first, last = draw(st.text()), draw(longs)
    outer = {"first": first, "in": data, "last": last}
    return tree, outer, {**outer, "in": {**data, "it": datum}}, text


@given(edits())
def test_an_edit_of_any_type_gives_the_bytes_of_an_independent_encoder(drawn: tuple[Any, Any, Any, str]) -> None:
    """Whatever the field's type, and its neighbours', the edited event is what fastavro writes for the new value.

    Kills: a type whose text is read as another's, a length that is off, a neighbour that is encoded again.
    """
    schema, datum, wanted, text = drawn
    tree = read_schema(json.dumps(schema)).tree
    parsed = parse_schema(schema)
    assert edit(encoded(parsed, datum), 5, tree, [("in.it", text)]) == encoded(parsed, wanted)
