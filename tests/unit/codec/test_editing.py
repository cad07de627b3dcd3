"""One value of an encoded event is changed, in the schema it was written with, and nothing else."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.codec.editing import edit
from connector.codec.schemas import read_schema

JIGUANG: Final = read_schema(Path("avro/JiguangUserEvent.avsc").read_text("utf-8")).tree
ENVELOPE: Final = {
    "type": "record",
    "name": "acme.Outer",
    "fields": [
        {
            "name": "body",
            "type": [
                "null",
                {"type": "record", "name": "acme.A", "fields": [{"name": "x", "type": "int"}]},
                {"type": "record", "name": "acme.B", "fields": [{"name": "x", "type": "int"}]},
            ],
        },
        {"name": "kind", "type": {"type": "enum", "name": "acme.Kind", "symbols": ["ONE", "TWO"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ratio", "type": ["null", "float", "double"]},
        {"name": "raw", "type": "bytes"},
    ],
}
VALUES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),  # JSON has neither
    st.text(),
    st.lists(st.text()),
)


def encoded(tree: Any, datum: Any) -> bytes:
    """Return a value with five bytes before its datum."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(tree), datum)
    return b"\x00\x00\x00\x00\x07" + out.getvalue()


def decoded(tree: Any, value: bytes) -> Any:
    """Return the datum behind five bytes."""
    return schemaless_reader(io.BytesIO(value[5:]), parse_schema(tree), None, return_record_name=True)


def jiguang(**properties: Any) -> dict[str, Any]:
    """Return an event with these properties."""
    return {"cuid": 1, "eventName": "e", "itime": 5, "randomId": None, "properties": properties}


@given(properties=st.dictionaries(st.text(), VALUES, max_size=4), name=st.text(min_size=1), value=VALUES)
@example(properties={"": None}, name=".", value=None)
@example(properties={"a": 1, "a.b": 2}, name="a.b", value=3)
def test_one_property_changes_and_all_else_stays(properties: dict[str, Any], name: str, value: Any) -> None:
    """Any property takes any value of its union, written as JSON; every other value and the prefix are as they were.

    Kills: encoding an event again with defaults, a union's value that becomes one of another branch.
    """
    path = f"properties.{name}"
    before = encoded(JIGUANG, jiguang(**properties))
    parts = name.split(".")
    if any(".".join(parts[:count]) in properties for count in range(1, len(parts))) and name not in properties:
        # A dot may be of a name or lead into a value: into one that holds nothing no other name is made up.
        with pytest.raises(ValueError, match="has no"):
            edit(before, 5, JIGUANG, [(path, json.dumps(value))])
        return
    after = edit(before, 5, JIGUANG, [(path, json.dumps(value))])
    assert after[:5] == before[:5]
    datum = decoded(JIGUANG, after)
    assert datum["properties"] == {**properties, name: value}
    assert type(datum["properties"][name]) is type(value)
    unchanged = decoded(JIGUANG, before)
    assert {**datum, "properties": None} == {**unchanged, "properties": None}


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("properties.city", "Berlin", "Berlin"),
        ("properties.city", "7", 7),
        ("properties.city", '"7"', "7"),
        ("properties.city", "null", None),
        ("properties.city", '["a", "b"]', ["a", "b"]),
        ("properties.city", "{", "{"),
        ("properties.a.b", "x", "x"),
        ("randomId", "7", "7"),
        ("randomId", "null", None),
        ("eventName", "7", "7"),
        ("cuid", "12", 12),
    ],
)
def test_a_text_is_read_as_the_type_that_is_there(path: str, text: str, value: Any) -> None:
    """A lone type takes the text as its own; in a union it is JSON where that fits, else a string."""
    datum = decoded(JIGUANG, edit(encoded(JIGUANG, jiguang()), 5, JIGUANG, [(path, text)]))
    root, _, rest = path.partition(".")
    assert (datum[root][rest] if rest else datum[root]) == value


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("cuid", "none", "cuid: not a valid long"),
        ("cuid", "9223372036854775808", "not a valid long"),
        ("city", "x", "has no field city; it has cuid, eventName"),
        ("cuid.x", "1", "long has no fields"),
        ("properties", "[]", "not a valid map"),
    ],
)
def test_impossible_edits_are_refused_with_the_path(path: str, text: str, words: str) -> None:
    """A path that leads nowhere and a text of another type are refused with the path."""
    with pytest.raises(ValueError, match=words):
        edit(encoded(JIGUANG, jiguang()), 5, JIGUANG, [(path, text)])


def test_a_branch_of_a_union_stays_the_branch() -> None:
    """Of two records with the same fields the one that was written is changed; enums and times keep their kinds."""
    outer = {"body": ("acme.B", {"x": 1}), "kind": "ONE", "at": 1_700_000_000_000, "ratio": 0.1, "raw": b"r"}
    value = encoded(ENVELOPE, outer)
    tree = read_schema(json.dumps(ENVELOPE)).tree
    changed = edit(value, 5, tree, [("body.x", "2"), ("kind", "TWO"), ("raw", "/w==")])
    datum = decoded(ENVELOPE, changed)
    assert (datum["body"], datum["kind"], datum["raw"]) == (("acme.B", {"x": 2}), "TWO", b"\xff")
    with pytest.raises(ValueError, match=r"kind: not a valid acme\.Kind \(ONE, TWO\)"):
        edit(value, 5, tree, [("kind", "THREE")])
    nothing = encoded(ENVELOPE, {**outer, "body": None})
    with pytest.raises(ValueError, match="the current value has no x in it"):
        edit(nothing, 5, tree, [("body.x", "2")])


WIDE: Final = {
    "type": "record",
    "name": "acme.Wide",
    "fields": [
        {"name": "price", "type": "float"},
        {"name": "ratio", "type": "double"},
        {"name": "mode", "type": ["string", {"type": "enum", "name": "acme.Mode", "symbols": ["A", "B"]}]},
        {"name": "amount", "type": ["long", "double"]},
        {
            "name": "inner",
            "type": [
                "null",
                {"type": "map", "values": "long"},
                {"type": "record", "name": "acme.In", "fields": [{"name": "x", "type": "int"}]},
            ],
        },
        {"name": "tags", "type": {"type": "map", "values": ["null", "string", "long", "float"]}},
        {"name": "items", "type": {"type": "array", "items": ["float", "double"]}},
        {"name": "raw", "type": {"type": "fixed", "name": "acme.Raw", "size": 2}},
        {"name": "note", "type": "string"},
    ],
}
WIDE_PARSED: Final = parse_schema(WIDE)
WIDE_TREE: Final = read_schema(json.dumps(WIDE)).tree
floats: Final = st.floats(width=32)
data: Final = st.fixed_dictionaries(
    {
        "price": floats,
        "ratio": st.floats(),
        "mode": st.sampled_from([("string", "A"), ("string", ""), ("acme.Mode", "A"), ("acme.Mode", "B")]),
        "amount": st.one_of(
            st.tuples(st.just("long"), st.integers(-(2**63), 2**63 - 1)), st.tuples(st.just("double"), st.floats())
        ),
        "inner": st.one_of(
            st.none(),
            st.dictionaries(st.sampled_from(["x", "y"]), st.integers(-5, 5)),
            st.tuples(st.just("acme.In"), st.fixed_dictionaries({"x": st.integers(-5, 5)})),
        ),
        "tags": st.dictionaries(
            st.sampled_from(["a", "a.b", "b", ""]), st.one_of(st.none(), st.text(), st.integers(-(2**63), 2**63 - 1))
        ),
        "items": st.lists(st.one_of(st.tuples(st.just("float"), floats), st.tuples(st.just("double"), st.floats()))),
        "raw": st.binary(min_size=2, max_size=2),
        "note": st.text(),
    }
)


def by_fastavro(datum: Any) -> bytes:
    """Return a datum as fastavro encodes it, each union's value in the branch that a tuple names."""
    return encoded(WIDE_PARSED, datum)


@given(
    datum=data,
    text=st.text(),
    price=st.floats(width=32, allow_nan=False),
    raw=st.binary(min_size=2, max_size=2),
)
def test_an_edit_gives_the_bytes_of_an_independent_encoder(datum: Any, text: str, price: float, raw: bytes) -> None:
    """Only the edited value's bytes change, whatever branches the other values are in, and NaN or not.

    Kills: decoding and encoding the rest, which changes branches (enum to string, record to map, long to double).
    """
    before = by_fastavro(datum)
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("note", text, {"note": text}),
        ("price", repr(price).replace("inf", "Infinity"), {"price": price}),
        ("raw", base64.b64encode(raw).decode(), {"raw": raw}),
        ("amount", "7", {"amount": ("long", 7)}),
        ("amount", "7.5", {"amount": ("double", 7.5)}),
        ("mode", '{"acme.Mode": "B"}', {"mode": ("acme.Mode", "B")}),
        ("mode", "B", {"mode": ("string", "B")}),
        ("inner", '{"acme.In": {"x": 3}}', {"inner": ("acme.In", {"x": 3})}),
        ("inner", '{"x": 3}', {"inner": {"x": 3}}),
    ]
    for path, new, changed in changes:
        assert edit(before, 5, WIDE_TREE, [(path, new)]) == by_fastavro({**datum, **changed})


@given(datum=data, key=st.sampled_from(["a", "a.b", "c.d"]))
def test_an_edit_of_a_map_changes_or_adds_one_entry(datum: Any, key: str) -> None:
    """The other entries keep their bytes and their order, also in blocks that are written with their size."""
    # A path is read with its first part as the key, if there is one: `a.b` next to `a` is no entry that a path names.
    assume(key in datum["tags"] or not any(key.startswith(f"{other}.") for other in datum["tags"]))
    edited = edit(by_fastavro(datum), 5, WIDE_TREE, [(f"tags.{key}", "8")])
    assert decoded(WIDE_PARSED, edited)["tags"] == {**datum["tags"], key: 8}
    assert decoded(WIDE_PARSED, edited)["note"] == datum["note"]


def test_a_block_with_a_size_keeps_a_right_size() -> None:
    """Java's blocking encoder writes the bytes of a block in front of it; a reader that skips the map relies on it."""
    tree = read_schema(
        json.dumps(
            {
                "type": "record",
                "name": "R",
                "fields": [{"name": "m", "type": {"type": "map", "values": "string"}}, {"name": "n", "type": "int"}],
            }
        )
    ).tree
    entries = b"\x02a\x02x" + b"\x02b\x02y"
    value = b"\x03" + bytes([2 * len(entries)]) + entries + b"\x00" + b"\x0e"
    edited = edit(value, 0, tree, [("m.a", "longer"), ("m.b", "z"), ("n", "8")])
    new = b"\x02a\x0clonger" + b"\x02b\x02z"
    assert edited == b"\x03" + bytes([2 * len(new)]) + new + b"\x00" + b"\x10"


MAP: Final = {"type": "map", "values": "string"}


def test_a_null_becomes_a_map_of_the_one_entry() -> None:
    """A path into a null gives the union's only map, with that entry; between two maps nothing is guessed."""
    tree = {"type": "record", "name": "R", "fields": [{"name": "m", "type": ["null", MAP]}]}
    assert decoded(tree, edit(encoded(tree, {"m": None}), 5, tree, [("m.k", "v")])) == {"m": {"k": "v"}}
    tree["fields"] = [{"name": "m", "type": ["null", MAP, {"type": "map", "values": "int"}]}]
    with pytest.raises(ValueError, match="has no k in it"):
        edit(b"\0", 0, tree, [("m.k", "v")])


def test_a_cut_event_is_never_read_beyond_its_end() -> None:
    """Whatever is missing at the end, an edit of the last field is refused. Kills: an index error; bytes made up."""
    fields: list[dict[str, Any]] = [
        {"name": "a", "type": "string"},
        {"name": "b", "type": "boolean"},
        {"name": "c", "type": {"type": "array", "items": "long"}},
        {"name": "d", "type": MAP},
        {"name": "e", "type": "long"},
    ]
    tree = {"type": "record", "name": "R", "fields": fields}
    value = encoded(tree, {"a": "text", "b": True, "c": [300, 1], "d": {"k": "v"}, "e": 1000})
    assert decoded(tree, edit(value, 5, tree, [("b", "false"), ("e", "7")]))["e"] == 7
    for end in range(5, len(value)):
        with pytest.raises(ValueError, match="incomplete"):
            edit(value[:end], 5, tree, [("e", "7")])
    # A long of more than ten bytes is none.
    with pytest.raises(ValueError, match="incomplete"):
        edit(b"\xff" * 20, 0, {"type": "record", "name": "R", "fields": fields[4:]}, [("e", "7")])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (["null", "boolean"], "true", True),
        ("boolean", "yes", None),
        (["null", {"type": "enum", "name": "E", "symbols": ["A"]}, "bytes"], "AAE=", b"\0\1"),
        (["null", {"type": "fixed", "name": "F", "size": 2}], "AAE=", b"\0\1"),
        (["null", {"type": "fixed", "name": "F", "size": 3}], "AAE=", None),
        ({"type": "array", "items": ["null", "bytes"]}, '["AAE=", null]', [b"\0\1", None]),
        ("float", "16777216", 16777216.0),
        ("float", "16777217", None),
        ("double", "9007199254740993", None),
        (["null", "double"], "9007199254740993", None),
        (["null", "long", "double"], "9223372036854775808", None),
        ({"type": "map", "values": "int"}, '{"a": 1, "a": 2}', None),
    ],
)
def test_a_value_is_written_whole_or_refused(kind: Any, text: str, value: Any) -> None:
    """What a type cannot hold exactly is refused, and what it can is written as fastavro does.

    Kills: whole numbers that are rounded, a name that comes twice of which the last wins, bytes in a union.
    """
    tree = {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}
    begins = {"float": bytes(4), "double": bytes(8)}.get(kind if isinstance(kind, str) else "", b"\0")
    if value is None:
        with pytest.raises(ValueError, match="f: not a valid"):
            edit(begins, 0, tree, [("f", text)])
        return
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(tree), {"f": value})
    assert edit(begins, 0, tree, [("f", text)]) == out.getvalue()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *(
            (field, text)
            for field in ("amount", "price")
            for text in ("1_000", " 7 ", "+1", "0x10", "1e", "007", "", "١")
        ),
        *(("amount", text) for text in ("9223372036854775808", "true", "NaN", '"7"', "null")),
        *(("price", text) for text in ("1e39", "nan", "inf", "1e400")),
        *(("raw", text) for text in ("AAA=x", "AA==", "")),
        *(("inner", text) for text in ('{"acme.In": {"x": 3, "y": 4}}', '{"acme.In": {}}', '{"x": "3"}', "[]")),
        ("inner.x.y", "1"),
    ],
)
def test_a_text_of_another_type_is_refused(path: str, text: str) -> None:
    """Values are read strictly by the field's type, so that a slip of the finger is no number."""
    datum = {
        "price": 1.0,
        "ratio": 1.0,
        "mode": "A",
        "amount": 1,
        "inner": {"x": 1},
        "tags": {},
        "items": [],
        "raw": b"ab",
    }
    with pytest.raises(ValueError, match=path):
        edit(by_fastavro({**datum, "note": ""}), 5, WIDE_TREE, [(path, text)])
