"""Schemas are measured before anything is decoded with them: what would not end, or end the process, is refused."""

import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.codec.engine import compile_write
from connector.codec.schemas import (
    MAX_DEPTH,
    STEPS,
    STEPS_A_BYTE,
    SchemaFault,
    StepCounter,
    TooManySteps,
    read_schema,
    without_logical_types,
)


def _record(name: str, *types: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(types)],
        **more,
    }


def _code(schema: Any, *references: Any) -> str:
    with pytest.raises(SchemaFault) as caught:
        read_schema(json.dumps(schema), [json.dumps(reference) for reference in references])
    return caught.value.code


@pytest.mark.parametrize(
    "schema",
    [
        _record("Node", ["null", "Node"]),
        _record("a.Node", {"type": "array", "items": "a.Node"}),
        _record("Outer", _record("Inner", ["null", {"type": "map", "values": "Outer"}])),
        _record("Node", {"type": "Node"}),
    ],
    ids=["union", "array", "indirect", "wrapped name"],
)
def test_a_recursive_type_is_refused(schema: dict[str, Any]) -> None:
    """Whatever way a type comes back to itself, its schema is refused as recursive."""
    assert _code(schema) == "decode.schema_recursive"


def test_a_type_that_is_used_twice_is_not_recursive() -> None:
    """Using a closed type again is allowed, by its full name or by its short one."""
    point = _record("Point", "int", "int", namespace="geo")
    schema = read_schema(json.dumps(_record("geo.Line", point, "Point", "geo.Point")))
    assert schema.name == "geo.Line"
    assert schema.tree["fields"][1]["type"] == "geo.Point"


def test_types_that_double_each_other_are_refused() -> None:
    """Twenty records that each hold the one before twice claim a million steps from no byte at all: refused."""
    definitions = [_record("R0")]
    definitions += [_record(f"R{i}", f"R{i - 1}", f"R{i - 1}") for i in range(1, 20)]
    assert _code(_record("Top", "R19"), *definitions) == "decode.schema_invalid"


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 3_000, 100_000])
def test_nesting_is_bounded(levels: int) -> None:
    """A schema nested deeper than the limit is refused, however deep; so no stack overflows."""
    text = '{"type":"array","items":' * levels + '"int"' + "}" * levels
    with pytest.raises(SchemaFault):
        read_schema(text)


def test_nesting_below_the_limit_is_read() -> None:
    """Half the limit passes: the limit refuses only what is out of all proportion."""
    levels = MAX_DEPTH // 2
    tree: Any = "int"
    for _ in range(levels):
        tree = {"type": "array", "items": tree}
    assert read_schema(json.dumps(_record("Deep", tree))).name == "Deep"


@pytest.mark.parametrize(
    "schema",
    [
        "Unknown",
        [],
        {"name": "NoType"},
        {"type": "record", "name": "NoFields"},
        {"type": "record", "fields": []},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "array"},
        _record("Twice", _record("X"), _record("X")),
        7,
    ],
)
def test_a_broken_schema_is_refused(schema: Any) -> None:
    """What Avro does not allow is a fault of the schema, never another exception."""
    assert _code(schema) == "decode.schema_invalid"


def test_text_that_is_no_json_is_a_fault() -> None:
    """A registry may hold anything under an id."""
    with pytest.raises(SchemaFault):
        read_schema("<html>")


def test_references_are_filled_in_and_the_fingerprint_is_the_whole_schemas() -> None:
    """A schema with references has the canonical form and the fingerprint of the same schema written in one piece."""
    inner = _record("Inner", "string", namespace="a.b")
    whole = read_schema(json.dumps(_record("a.Outer", inner, "a.b.Inner")))
    parts = read_schema(json.dumps(_record("a.Outer", "a.b.Inner", "a.b.Inner")), [json.dumps(inner)])
    assert parts.canonical == whole.canonical
    assert parts.fingerprint == whole.fingerprint
    parsed: Any = fastavro.parse_schema(parts.tree)
    assert parsed["name"] == "a.Outer"


def test_the_fingerprint_is_the_specifications() -> None:
    """Avro's specification gives the CRC-64 of `"int"`: 7275d51a3f395c8f, in single-object encoding little-endian."""
    assert read_schema('"int"').fingerprint == bytes.fromhex("8f5c393f1ad57572")


def test_logical_types_are_taken_out_everywhere() -> None:
    """Neither a union, an array, a map nor a nested record keeps a logical type."""
    stamp = {"type": "long", "logicalType": "timestamp-millis"}
    tree = _record("R", stamp, ["null", stamp], {"type": "array", "items": stamp}, {"type": "map", "values": stamp})
    tree["fields"].append({"name": "inner", "type": _record("I", stamp)})
    assert "logicalType" in json.dumps(tree)
    assert "logicalType" not in json.dumps(without_logical_types(tree))


_EMPTY = {"type": "array", "items": "null"}


@pytest.mark.parametrize(
    ("items", "guarded"),
    [
        ("null", True),
        (_record("Empty"), True),
        ({"type": "fixed", "name": "Nothing", "size": 0}, True),
        (_record("Nulls", *["null"] * 300, "int"), True),
        ("int", False),
        (["null", "string"], False),
        (_record("Usual", "string", ["null", "long"]), False),
    ],
)
def test_arrays_of_what_takes_no_bytes_are_guarded(items: Any, guarded: bool) -> None:
    """Items that claim far more steps than bytes put the schema under guard, usual ones do not."""
    schema = read_schema(json.dumps(_record("R", {"type": "array", "items": items})))
    assert schema.guarded is guarded


def test_a_map_of_nulls_needs_no_guard() -> None:
    """Each entry of a map has a key of at least one byte."""
    assert not read_schema(json.dumps(_record("R", {"type": "map", "values": "null"}))).guarded


def _claimed(count: int) -> bytes:
    return compile_write(_record("R", "long"))({"f0": count}) + b"\0"


def test_the_guard_stops_at_its_limit_and_not_before() -> None:
    """As many items as the limit allows pass, one more is refused: counted over the record, the array and its items."""
    counter = StepCounter(read_schema(json.dumps(_record("R", _EMPTY))).tree)
    most = STEPS + STEPS_A_BYTE * len(_claimed(STEPS)) - 2
    counter.check(_claimed(most))
    for count in (most + 1, 30_000_000):
        with pytest.raises(TooManySteps):
            counter.check(_claimed(count))


_FIELDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("string", st.text(max_size=40)),
    ("bytes", st.binary(max_size=40)),
    ("boolean", st.booleans()),
    ("double", st.floats(allow_nan=False)),
    (["null", "string"], st.none() | st.text(max_size=5)),
    ({"type": "array", "items": "null"}, st.lists(st.none(), max_size=70)),
    ({"type": "map", "values": "long"}, st.dictionaries(st.text(max_size=4), st.integers(-5, 5), max_size=70)),
    ({"type": "fixed", "name": "F", "size": 3}, st.binary(min_size=3, max_size=3)),
    ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, st.sampled_from(["A", "B"])),
]


def _as_json(field: tuple[Any, Any]) -> str:
    return json.dumps(field[0])


@given(st.data())
def test_the_guard_reads_what_the_engine_writes(data: st.DataObject) -> None:
    """Every datum of every type passes the guard, and cut anywhere it raises ValueError and nothing else."""
    chosen = data.draw(st.lists(st.sampled_from(_FIELDS), min_size=1, max_size=6, unique_by=_as_json))
    schema = read_schema(json.dumps(_record("R", *(kind for kind, _ in chosen))))
    datum = {f"f{i}": data.draw(values) for i, (_, values) in enumerate(chosen)}
    payload = compile_write(schema.tree)(datum)
    counter = StepCounter(schema.tree)
    counter.check(payload)
    if payload:
        cut = data.draw(st.integers(0, len(payload) - 1))
        with pytest.raises(ValueError, match="payload"):
            counter.check(payload[:cut])
