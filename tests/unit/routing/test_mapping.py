"""A route's `fields`: which sources a field accepts, which faults are found at start, and how events are mapped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from connector.config.errors import faults_of
from connector.config.routes import ConstSource, RouteSettings
from connector.errors import ConfigFault, Refusal
from connector.records import DecodedKey, Event, Record
from connector.routing.conditions import compile_condition as compile_on
from connector.routing.conversions import Unfit
from connector.routing.expressions import Expressions
from connector.routing.mapping import FieldMapping, compile_mapping
from connector.routing.paths import SchemaTree, parse_path
from connector.routing.sources import SourceCompiler, Value
from connector.vendors import kinds
from connector.vendors.base import FieldKind

WANTED = {
    "cuid": FieldKind("long", required=True),
    "eventName": FieldKind("string"),
    "itime": FieldKind("millis"),
    "seconds": FieldKind("seconds"),
    "properties": FieldKind("map"),
    "flag": FieldKind("boolean"),
}
RECORD = Record(
    "app-events", 0, 7, 1_700_000_000_999, b"77", b"", [("x", b"old"), ("x", b"new"), ("none", None), ("bad", b"\xff")]
)

A_FIELD = {"name": "a", "type": "int"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "com.acme.UserEvent",
    "fields": [
        {"name": "name", "type": "string"},
        {
            "name": "user",
            "type": ["null", {"type": "record", "name": "com.acme.User", "fields": [{"name": "id", "type": "long"}]}],
        },
        {"name": "other", "type": "com.acme.User"},
        {"name": "third", "type": ["null", "com.acme.User"]},
        {"name": "attributes", "type": {"type": "map", "values": ["null", "string", "com.acme.User"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "body", "type": [{"type": "record", "name": "com.acme.A", "fields": [A_FIELD]}, "com.acme.User"]},
    ],
}


def event(datum: dict[str, Any], key: DecodedKey | None = None) -> Event:
    """Return an event of some schema."""
    return Event("com.acme.Any", datum, key)


def compile_source(text: str, schema: Any = None) -> Value:
    """Return a source compiled."""
    return SourceCompiler(Expressions(), [], None if schema is None else SchemaTree(schema)).path(text)


def compile_condition(source: Value, wanted: object) -> Any:
    """Return what tells whether a condition holds; `wanted` as the file has it."""
    route = RouteSettings.model_validate({"to": [], "where": {source.text: wanted}})
    return compile_on(source, route.where[source.text]).met


def path_fault(parts: tuple[str, ...], schema: Any) -> str | None:
    """Return why a path leads nowhere in a schema."""
    try:
        SchemaTree(schema).follow(parse_path(".".join(parts)))
    except ValueError as fault:
        return str(fault)
    return None


def _mapped(
    fields: dict[str, Any], wanted: dict[str, FieldKind], schema: Any
) -> tuple[FieldMapping, list[ConfigFault]]:
    faults: list[ConfigFault] = []
    try:
        route = RouteSettings.model_validate({"to": [], "fields": {"v": fields}})
    except ValidationError as error:
        return FieldMapping({}, ()), faults_of(error, RouteSettings, {"to": [], "fields": {"v": fields}}, "routes[0]")
    sources = SourceCompiler(Expressions(), faults, None if schema is None else SchemaTree(schema))
    return compile_mapping(route.fields["v"], wanted, "routes[0].fields.v", sources), faults


def compiled(fields: dict[str, Any], wanted: dict[str, FieldKind] | None = None) -> FieldMapping:
    """Return a mapping that has no fault."""
    mapping, faults = _mapped(fields, wanted or WANTED, None)
    assert faults == []
    return mapping


def mapping_faults(fields: dict[str, Any], schema: Any = None) -> list[str]:
    """Return the faults of a mapping as lines."""
    return [str(fault) for fault in _mapped(fields, WANTED, schema)[1]]


def test_every_source_gives_its_value() -> None:
    """Paths, key, timestamp, header, constants and units in one mapping; unmapped fields of the vendor are null."""
    mapping = compiled(
        {
            "cuid": "$key",
            "eventName": "$header.x",
            "itime": {"path": "user.at", "unit": "s"},
            "seconds": "$timestamp",
            "properties": {"const": {"source": "app"}},
        }
    )
    assert mapping.apply(event({"user": {"at": 12}}), RECORD) == {
        "cuid": 77,
        "eventName": "new",
        "itime": 12_000,
        "seconds": 1_700_000_000,
        "properties": {"source": "app"},
        "flag": None,
    }


@pytest.mark.parametrize(
    ("path", "datum", "wanted"),
    [
        ("a", {"a": 5}, 5),
        ("a", {}, None),
        ("a.b", {"a": {"b": 5}}, 5),
        ("a.b", {"a": None}, None),
        ("a.b", {"a": {"c": 5}}, None),
        ("a.b", {"a": 5}, None),
        ("a.b", {"a": [5]}, None),
        ("a.b", {"a": ("com.acme.A", {"b": 5})}, 5),
        ("a", {"a": ("com.acme.A", {"b": 5})}, {"b": 5}),
        ("m.x.y", {"m": {"x.y": 5}}, 5),
        ("m.x.y.z", {"m": {"x.y": {"z": 5}}}, 5),
        ("m.x.y.z", {"m": {"x": None, "x.y": {"z": 5}}}, None),
        ("m.x.y", {"m": {"x": {"y": 5}, "x.y": 6}}, 5),
        ("$header.none", {}, None),
        ("$header.absent", {}, None),
        ("$header.x", {}, "new"),
        ("$key", {}, "77"),
        ("$timestamp", {}, 1_700_000_000_999),
    ],
)
def test_sources(path: str, datum: dict[str, Any], wanted: Any) -> None:
    """Null or nothing on the way is null, unions need no step, a map's key may hold dots, the last header counts."""
    assert compile_source(path).get(event(datum), RECORD) == wanted


def test_a_record_without_key_or_timestamp_gives_null() -> None:
    """What a record does not have is null, and never the number -1."""
    record = replace(RECORD, key=None, timestamp=-1)
    assert compiled({"cuid": "$key", "itime": "$timestamp"}).apply(event({}), record)["itime"] is None
    assert compile_source("$key").get(event({}), record) is None


@pytest.mark.parametrize(
    ("path", "key", "wanted"),
    [
        ("$key", DecodedKey("text"), "text"),
        ("$key", DecodedKey({"id": 7}), {"id": 7}),
        ("$key.id", DecodedKey({"id": 7}), 7),
        ("$key.user.id", DecodedKey({"user": {"id": 7}}), 7),
        ("$key.other", DecodedKey({"id": 7}), None),
        ("$key", DecodedKey(None, "not valid Avro"), "<key>"),
        ("$key.id", DecodedKey(None, "not valid Avro"), "<key>"),
        ("$key.id", None, "<key>"),
    ],
)
def test_a_key_that_names_a_schema_is_its_datum(path: str, key: DecodedKey | None, wanted: Any) -> None:
    """A decoded key is a value, or its fields are; a key that has none is refused where it is mapped.

    Kills: the control characters of a schema id sent as text.
    """
    try:
        found = compile_source(path).get(event({}, key), RECORD)
    except Unfit as unfit:
        found = f"<{unfit.rule}>"
    assert found == wanted


def test_a_key_that_is_neither_is_refused_by_the_rule_key() -> None:
    """Bytes that are no text and name no schema are refused as `key`, and only where they are mapped."""
    record = replace(RECORD, key=b"\xff")
    with pytest.raises(Unfit) as unfit:
        compile_source("$key").get(event({}), record)
    assert unfit.value.rule == "key"


@pytest.mark.parametrize(("wanted", "met"), [(7, True), ("7", True), ([8, 7], True), (8, False)])
def test_where_compares_a_decoded_key_by_its_text(wanted: Any, met: bool) -> None:
    """A key is compared as text, decoded or not."""
    condition = compile_condition(compile_source("$key"), wanted)
    assert condition(event({}, DecodedKey(7)), RECORD) is met


@pytest.mark.parametrize(
    ("field", "entry", "datum", "code"),
    [
        ("cuid", "a", {"a": "secret-name"}, "mapping.cuid.type"),
        ("eventName", "a", {"a": b"secret-name"}, "mapping.eventName.bytes"),
        ("eventName", "a", {"a": float("nan")}, "mapping.eventName.nan"),
        ("eventName", "$header.bad", {}, "mapping.eventName.utf8"),
        ("properties", "a", {"a": ["secret-name"]}, "mapping.properties.type"),
        ("flag", "a", {"a": "secret-name"}, "mapping.flag.type"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(field: str, entry: Any, datum: dict[str, Any], code: str) -> None:
    """The refusal names field, source and rule, has the cause `invalid`, and never contains the value."""
    mapping = compiled({"cuid": {"const": 1}, field: entry})
    with pytest.raises(Refusal) as refused:
        mapping.apply(event(datum), RECORD)
    assert (refused.value.cause, refused.value.code, refused.value.field) == ("invalid", code, field)
    assert "secret-name" not in refused.value.message


@pytest.mark.parametrize(("kind", "known"), [("foo", False), ("Received", True), ("received", True)])
def test_a_constant_that_the_vendor_does_not_know_is_a_fault(kind: str, *, known: bool) -> None:
    """Every record would be refused for it. Kills: a check that knows only the enums of contract schemas."""
    faults: list[ConfigFault] = []
    compile_mapping(
        {"kind": ConstSource(const=kind), "msg_id": "id"},
        kinds(others=[])["jpush_report"].fields,
        "fields",
        SourceCompiler(Expressions(), faults),
    )
    told = [str(fault) for fault in faults]
    assert [text for text in told if "the constant must be one of Received, MessageStatus" in text] == told
    assert bool(told) is not known


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"cuid": "a", "eventNam": "b"},
            "routes[0].fields.v.eventNam: the vendor has no such field; did you mean eventName?",
        ),
        ({}, "routes[0].fields.v.cuid: the vendor requires this field: map it"),
        ({"cuid": "$keys"}, "routes[0].fields.v.cuid: $keys is not a valid source"),
        ({"cuid": "$header."}, "routes[0].fields.v.cuid: $header. is not a valid source"),
        ({"cuid": "a..b"}, "routes[0].fields.v.cuid: 'a..b' is not a dotted path"),
        ({"cuid": ""}, "routes[0].fields.v.cuid: '' is not a dotted path"),
        ({"cuid": 5}, "routes[0].fields.v.cuid: a whole number is not a valid source; write a dotted path"),
        ({"cuid": None}, "routes[0].fields.v.cuid: null is not a valid source"),
        ({"cuid": {"const": "x"}}, "routes[0].fields.v.cuid: the constant cannot be a whole number"),
        ({"cuid": {"path": "a", "default": "x"}}, "routes[0].fields.v.cuid: the default cannot be a whole number"),
        ({"cuid": {"const": None}}, "routes[0].fields.v.cuid: a constant null has no effect"),
        ({"cuid": {"path": "a", "units": "s"}}, "routes[0].fields.v.cuid.units: unknown key; did you mean unit?"),
        ({"cuid": {"const": 1, "path": "a"}}, "routes[0].fields.v.cuid.path: unknown key"),
        ({"cuid": {}}, "routes[0].fields.v.cuid: a mapping is not a valid source"),
        ({"cuid": {"path": ""}}, "routes[0].fields.v.cuid.path: must not be empty"),
        ({"cuid": {"path": "a", "unit": "s"}}, "routes[0].fields.v.cuid: a unit belongs to a time"),
        (
            {"cuid": "a", "itime": {"path": "a", "unit": "us"}},
            "routes[0].fields.v.itime.unit: must be 'ms' or 's', not 'us'",
        ),
        (
            {"cuid": "a", "itime": {"path": "$timestamp", "unit": "s"}},
            "routes[0].fields.v.itime: $timestamp needs no unit",
        ),
        (
            {"cuid": "a", "properties": "$key"},
            "routes[0].fields.v.properties: $key is text, and the field wants a map",
        ),
        (
            {"cuid": "a", "flag": "$timestamp"},
            "routes[0].fields.v.flag: $timestamp is a time, and the field wants true or false",
        ),
    ],
)
def test_faults_are_told_at_start(fields: dict[str, Any], fault: str) -> None:
    """A fault in a mapping is reported before the first record, with its path and what is allowed."""
    [told] = mapping_faults(fields)
    assert told.startswith(fault)


def test_every_fault_comes_at_once() -> None:
    """One start reports all faults of a mapping."""
    told = mapping_faults({"eventNam": "b", "itime": {"path": "a..b"}, "flag": {"const": 3}})
    assert [line.split(":")[0].rpartition(".")[2] for line in told] == ["eventNam", "itime", "flag", "cuid"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("name", None),
        ("user", None),
        ("user.id", None),
        ("other.id", None),
        ("third.id", None),
        ("attributes", None),
        ("attributes.anything", None),
        ("attributes.any.key.with.dots", None),
        ("body.a", None),
        ("body.id", None),
        ("nam", "the record has no field 'nam'; did you mean name?"),
        ("user.ids", "the record at user has no field 'ids'; did you mean id?"),
        ("other.x", "the record at other has no field 'x'; known: id"),
        ("name.length", "name is not a record or map, so 'length' is not in it"),
        ("tags.0", "tags is an array: write tags[0] for an element"),
        ("at.x", "at is not a record or map, so 'x' is not in it"),
        ("body.b", "the record at body has no field 'b'; known: a, id"),
    ],
)
def test_paths_are_checked_where_the_schema_is_known(path: str, fault: str | None) -> None:
    """A path that the writer's schema cannot have is reported at start, through unions, maps and named types."""
    assert path_fault(tuple(path.split(".")), SCHEMA) == fault
    _, faults = _mapped({"any": path}, {"any": FieldKind("any")}, SCHEMA)
    assert list(map(str, faults)) == ([] if fault is None else [f"routes[0].fields.v.any: {fault}"])


keys = st.text(alphabet="ab.", min_size=1, max_size=3)
data = st.recursive(st.none() | st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12)


@given(st.dictionaries(keys, data, max_size=3), st.lists(st.sampled_from("ab"), min_size=1, max_size=4))
def test_a_path_finds_only_what_is_there(datum: dict[str, Any], parts: list[str]) -> None:
    """Whatever the nesting, a value found has a chain of keys whose dotted text is the path; nothing is ever raised.

    Kills: trying the joined key before the single step, and running past the path's end.
    """

    def chains(value: Any, rest: str) -> list[Any]:
        found = [] if rest else [value]
        if isinstance(value, dict) and rest:
            for key, inner in value.items():
                if rest == key:
                    found += chains(inner, "")
                elif rest.startswith(f"{key}."):
                    found += chains(inner, rest[len(key) + 1 :])
        return found

    path = ".".join(parts)
    value = compile_source(path).get(event(datum), RECORD)
    candidates = chains(datum, path)
    assert value is None or value in candidates
    simple: Any = datum
    for part in parts:
        simple = simple.get(part) if isinstance(simple, dict) else None
    if simple is not None:
        assert value == simple
