"""Schemas are measured before anything is decoded with them: what would not end, or end the process, is refused."""

import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.schema import to_parsing_canonical_form

from connector.codec.reader import reader_of
from connector.codec.schemas import (
    MAX_DEPTH,
    SchemaFault,
    all_types,
    load_contracts,
    load_schema_files,
    read_schema,
    without_logical_types,
)
from connector.errors import StartupError


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
def test_a_type_may_contain_itself(schema: dict[str, Any]) -> None:
    """A recursive schema is a schema: how deep a payload goes is counted while it is read."""
    assert read_schema(json.dumps(schema)).tree["type"] == "record"


def test_a_type_that_is_used_twice_is_not_recursive() -> None:
    """Using a closed type again is allowed, by its full name or by its short one."""
    point = _record("Point", "int", "int", namespace="geo")
    schema = read_schema(json.dumps(_record("geo.Line", point, "Point", "geo.Point")))
    assert schema.name == "geo.Line"
    assert schema.tree["fields"][1]["type"] == "geo.Point"


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
        {"type": "enum", "name": "E"},
        {"type": "enum", "name": "E", "symbols": [1]},
        {"type": "record", "name": "R", "fields": [{"name": 7, "type": "int"}]},
        {"type": "array"},
        _record("Twice", _record("X"), _record("X", "int")),
        7,
    ],
)
def test_a_broken_schema_is_refused(schema: Any) -> None:
    """What Avro does not allow is a fault of the schema, never another exception."""
    assert _code(schema) == "decode.schema_invalid"


def test_a_reference_is_searched_to_the_limit_of_nesting_only() -> None:
    """A type that another schema defines beyond the limit is not found."""
    inner: Any = _record("Deep")
    for _ in range(MAX_DEPTH + 1):
        inner = {"type": "array", "items": inner}
    assert _code("Deep", inner) == "decode.schema_invalid"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"{", "is not a usable Avro schema"),
        (b"[" * 100_000, "is not a usable Avro schema"),
        (b'"acme.Nowhere"', "is not a usable Avro schema"),
    ],
    ids=["missing", "not UTF-8", "not JSON", "nested too deep", "not defined"],
)
def test_a_schema_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The start ends with the file's name, whatever is wrong with it. Kills: a traceback for an operator's slip."""
    file = tmp_path / "event.avsc"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=words) as caught:
        load_schema_files([file])
    assert "event.avsc" in str(caught.value)


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


def test_a_schema_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors on Windows write it. Kills: a start refused for a good schema."""
    file = tmp_path / "a.avsc"
    file.write_text('{"type": "record", "name": "a.A", "fields": []}', "utf-8-sig")
    assert [schema.name for schema in load_schema_files([file])] == ["a.A"]


def test_logical_types_are_taken_out_everywhere() -> None:
    """Neither a union, an array, a map nor a nested record keeps a logical type."""
    stamp = {"type": "long", "logicalType": "timestamp-millis"}
    tree = _record("R", stamp, ["null", stamp], {"type": "array", "items": stamp}, {"type": "map", "values": stamp})
    tree["fields"].append({"name": "inner", "type": _record("I", stamp)})
    assert "logicalType" in json.dumps(tree)
    assert "logicalType" not in json.dumps(without_logical_types(tree))


def _tree(schema: Any, *references: Any) -> Any:
    return read_schema(json.dumps(schema), [json.dumps(reference) for reference in references]).tree


ADDRESS = _record("shop.Address", "string")
CUSTOMER = {
    "type": "record",
    "name": "Customer",
    "namespace": "shop",
    "fields": [{"name": "home", "type": ADDRESS}, {"name": "work", "type": "Address"}],
}


@pytest.mark.parametrize(
    ("schema", "references", "full"),
    [
        (_record("shop.Order", "Address"), [CUSTOMER], "shop.Address"),
        (_record("shop.Order", "shop.Address", "shop.Customer"), [CUSTOMER], "shop.Address"),
        (_record("shop.Order", "shop.Customer", "shop.Address"), [CUSTOMER], "shop.Customer"),
        (_record("shop.Order", ".Plain"), [_record("Plain", "int")], "Plain"),
        (_record("shop.Order", "Plain"), [_record("Plain", "int")], "Plain"),
        (_record("a.Top", "b.Middle"), [_record("b.Middle", "c.Inner"), _record("c.Inner", "int")], "b.Middle"),
        (
            _record("a.Top", "b.One"),
            [_record("b.One", ["null", "b.Two"]), _record("b.Two", ["null", "b.One"])],
            "b.One",
        ),
        (_record("a.Top", "shop.Customer"), [CUSTOMER, ADDRESS], "shop.Customer"),
    ],
    ids=["nested", "nested first", "nested last", "dot", "bare", "of a reference", "circle", "defined twice"],
)
def test_a_reference_fills_in_every_type_that_it_defines(schema: Any, references: list[Any], full: str) -> None:
    """A name is filled in from any depth of any reference, in any order, and defined once.

    Kills: a lookup among the types at a reference's top level only.
    """
    for given in (references, references[::-1]):
        tree = _tree(schema, *given)
        assert tree["fields"][0]["type"]["name"] == full
        names = [node["name"] for node in all_types(tree) if isinstance(node, dict) and "name" in node]
        assert len(names) == len(set(names))
        assert callable(reader_of(tree))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string", "default": None}]},
        {"type": "record", "name": "R", "fields": [{"name": "a-b", "type": "string"}]},
        {"type": "record", "name": "my-name", "namespace": "9.a-b", "fields": []},
        _record("R", {"type": "enum", "name": "net", "symbols": ["3g", "4g-lte", "Ä"]}),
        _record("R", {"type": "bytes", "logicalType": "decimal", "precision": "9", "scale": 12}),
        _record("R", {"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}),
        _record("R", {"type": "string", "avro.java.string": "String"}),
    ],
    ids=["default", "field name", "name", "symbols", "decimal", "enum default", "java string"],
)
def test_a_fault_that_decoding_does_not_need_is_no_fault(schema: dict[str, Any]) -> None:
    """A schema is refused only if its values cannot be read. Kills: a schema refused whole for an unused part."""
    assert callable(reader_of(_tree(schema)))


@pytest.mark.parametrize("file", sorted(Path("avro").glob("*.avsc")), ids=lambda path: path.stem)
def test_the_canonical_form_is_the_specifications(file: Path) -> None:
    """The canonical form of each contract is what fastavro makes of it."""
    contract = load_contracts().schemas[f"connector.events.{file.stem}"]
    assert contract.canonical == to_parsing_canonical_form(json.loads(contract.text))


def test_reading_a_schema_back_keeps_it() -> None:
    """The text that is registered reads back as the same schema."""
    schema = load_contracts().schemas["connector.events.Event"]
    assert read_schema(schema.text).fingerprint == schema.fingerprint
