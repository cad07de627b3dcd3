"""The forms of a source: maps, lists, JSON, defaults, hashes; and a compiled plan against a naive interpreter."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from connector.config.routes import CelSource, ConstSource, JsonSource, ListSource, MapSource, PathSource, Source
from connector.errors import ConfigFault
from connector.records import Event, LogicalType, LogicalValue, Record
from connector.routing.conversions import Unfit, to_json
from connector.routing.expressions import Expressions
from connector.routing.paths import SchemaTree
from connector.routing.sources import SourceCompiler, Value

RECORD = Record("orders", 0, 7, 1_700_000_000_999, b"k-7", b"", [("app", b"shop")])
ORDER: dict[str, Any] = {
    "order_id": "o-1",
    "user": {"id": 7, "phone": None, "email": "Ann@Example.COM", "consent": True, "nick": ""},
    "items": [
        {"sku": "a", "qty": 2, "tags": ["x", "y"]},
        {"sku": "b", "qty": 1, "tags": []},
        {"sku": None, "qty": 4, "tags": None},
    ],
    "total": LogicalValue(LogicalType("decimal", 2), b"\x04\xd2"),
    "created_at": LogicalValue(LogicalType("timestamp-millis"), 1_700_000_000_000),
    "seconds": 1_700_000_000,
    "channel": "WEB",
    "body": ("com.shop.Card", {"last": "42"}),
}
_SOURCES: TypeAdapter[Source] = TypeAdapter(Source)


def compiled(source: Any, schema: Any = None) -> Value:
    """Return a source, as the file has it, compiled."""
    faults: list[ConfigFault] = []
    tree = None if schema is None else SchemaTree(schema)
    value = SourceCompiler(Expressions(), faults, tree).compile(_SOURCES.validate_python(source), "x")
    assert value is not None, faults
    return value


def value_of(source: Any, datum: dict[str, Any] | None = None) -> Any:
    """Return what a source gives for an event, in JSON's types."""
    return to_json(compiled(source).get(Event("com.shop.Order", ORDER if datum is None else datum), RECORD))


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("items[].sku", ["a", "b", None]),
        ("items[0].sku", "a"),
        ("items[1].qty", 1),
        ("items[9].sku", None),
        ("items[].tags[]", ["x", "y"]),
        ("items[0].tags[1]", "y"),
        ("user[0].id", None),
        ("order_id[]", None),
        ("absent[].sku", None),
        ("body.last", "42"),
        ({"map": {"sku": "items[0].sku", "who": {"map": {"id": "user.id"}}}}, {"sku": "a", "who": {"id": 7}}),
        ({"map": {"at": "created_at", "sum": "total"}}, {"at": 1_700_000_000_000, "sum": 12.34}),
        ({"map": {"at": {"path": "seconds", "unit": "s"}}}, {"at": 1_700_000_000_000}),
        ({"map": {"at": "$timestamp", "app": "$header.app"}}, {"at": 1_700_000_000_999, "app": "shop"}),
        ({"base": "user", "omit": ["phone", "email", "nick"]}, {"id": 7, "consent": True}),
        (
            {"base": "user", "omit": ["phone", "email", "nick"], "map": {"id": "order_id"}},
            {"id": "o-1", "consent": True},
        ),
        ({"base": "user.phone", "map": {"id": "order_id"}}, {"id": "o-1"}),
        ({"list": ["order_id", {"const": "x"}, "user.phone"]}, ["o-1", "x"]),
        (
            {
                "list": [
                    {"map": {"customerId": "user.phone", "idMapping": {"const": "phone"}}},
                    {"map": {"customerId": "user.email", "idMapping": {"const": "email"}}},
                ]
            },
            [{"customerId": "Ann@Example.COM", "idMapping": "email"}],
        ),
        ({"list": [{"map": {"kind": {"const": "phone"}}}]}, [{"kind": "phone"}]),
        ({"path": "user.phone", "default": "none"}, "none"),
        ({"path": "user.nick", "default": "none"}, "none"),
        ({"path": "absent.deep", "default": 5}, 5),
        ({"path": "user.id", "default": 5}, 7),
        ({"path": "user.email", "case": "lower"}, "ann@example.com"),
        ({"path": "user.phone", "case": "upper"}, None),
        ({"path": "user.phone", "hash": "sha256"}, None),
        ({"path": "user.email", "case": "lower", "hash": "sha256"}, hashlib.sha256(b"ann@example.com").hexdigest()),
        ({"path": "user.id", "hash": "sha256"}, hashlib.sha256(b"7").hexdigest()),
        ({"path": "user.phone", "default": "x", "hash": "sha256"}, hashlib.sha256(b"x").hexdigest()),
        (
            {"path": "user.email", "hash": "hmac-sha256", "key": "pepper"},
            hmac.digest(b"pepper", b"Ann@Example.COM", "sha256").hex(),
        ),
        ({"path": "$key", "hash": "sha256"}, hashlib.sha256(b"k-7").hexdigest()),
        ({"path": "$header.app", "case": "upper"}, "SHOP"),
        ({"json": "user.phone"}, None),
        ({"json": {"const": {"a": [1]}}}, '{"a":[1]}'),
    ],
)
def test_forms(source: Any, wanted: Any) -> None:
    """Each form gives its value; nulls in a list, and maps in it whose every source is null, are left out."""
    assert value_of(source) == wanted


def test_dot_is_the_whole_event() -> None:
    """`.` is the event itself, and JSON text of it has all that it holds."""
    assert set(value_of(".")) == set(ORDER)
    text = json.loads(value_of({"json": "."}))
    assert (text["items"][0]["sku"], text["body"], text["total"]) == ("a", {"last": "42"}, 12.34)


def test_what_is_wrong_inside_a_map_names_its_key() -> None:
    """A key that is not UTF-8, deep inside a map, refuses with the names on the way to it."""
    source = compiled({"map": {"outer": {"map": {"inner": "$header.bad"}}}})
    record = Record("orders", 0, 7, -1, None, b"", [("bad", b"\xff")])
    with pytest.raises(Unfit, match="outer: inner: the header is not UTF-8 text"):
        source.get(Event("x", {}), record)


@pytest.mark.parametrize("key", [b"\0\0\0\x2a", b"\0", b"\x03\0abcd"])
def test_a_key_with_zero_bytes_is_no_text(key: bytes) -> None:
    """Serializers of numbers write such keys, and they are UTF-8. Kills: control characters sent as an id."""
    with pytest.raises(Unfit) as caught:
        compiled("$key").get(Event("a", {}), replace(RECORD, key=key))
    assert caught.value.rule == "key"


def test_a_base_that_is_no_map_refuses() -> None:
    """`base` takes a record or a map; anything else is refused and never guessed."""
    with pytest.raises(Unfit, match="base is not a record or map"):
        value_of({"base": "order_id"})


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"path": "$timestamp", "unit": "ms"}, "x: $timestamp needs no unit"),
        ({"map": {"a": {"list": ["b..c"]}}}, "x.map.a.list[0]: 'b..c' is not a dotted path"),
        ({"map": {}, "base": "$bad"}, "x.base: $bad is not a valid source"),
        ({"json": {"const": None}}, "x.json: a constant null has no effect"),
        ("a[x]", "x: 'a[x]' is not a dotted path"),
        ("a[-1]", "x: 'a[-1]' is not a dotted path"),
        ("[0]", "x: '[0]' is not a dotted path"),
    ],
)
def test_faults_name_their_place(source: Any, fault: str) -> None:
    """A fault inside a map or a list has the whole path to it."""
    faults: list[ConfigFault] = []
    SourceCompiler(Expressions(), faults).compile(_SOURCES.validate_python(source), "x")
    (found,) = faults
    assert str(found).startswith(fault)


names = st.sampled_from(["a", "b", "c"])
steps = st.lists(st.one_of(names, st.sampled_from(["[]", "[0]", "[1]"])), max_size=3)
paths = st.builds(lambda first, rest: ".".join([first, *rest]).replace(".[", "["), names, steps)
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "Y"])
events = st.dictionaries(
    names,
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)),
    max_size=3,
)
plain = st.one_of(
    paths, st.just("."), st.builds(lambda value: {"const": value}, st.sampled_from([1, "z", [1], {"q": 2}]))
)
changed = st.builds(
    lambda path, default, case: {
        "path": path,
        **({"default": default} if default else {}),
        **({"case": case} if case else {}),
    },
    paths,
    st.sampled_from([None, 9, "D"]),
    st.sampled_from([None, "lower", "upper"]),
)
sources = st.recursive(
    plain | changed,
    lambda inner: st.one_of(
        st.builds(lambda entries: {"map": entries}, st.dictionaries(names, inner, min_size=1, max_size=3)),
        st.builds(
            lambda entries, base, omit: {"map": entries, "base": base, "omit": omit},
            st.dictionaries(names, inner, max_size=2),
            paths | st.just("."),
            st.lists(names, max_size=2),
        ),
        st.builds(lambda parts: {"list": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"json": part}, inner),
    ),
    max_leaves=6,
)


class _Odd(Exception):
    """The interpreter refuses."""


def interpreted(source: Source, event: dict[str, Any]) -> Any:
    """Return what a source means, as `docs/routing.md` says it, read word by word."""
    match source:
        case str():
            return followed(event, source)
        case ConstSource():
            return source.const
        case PathSource():
            value = followed(event, source.path)
            if source.default is not None and (value is None or value == ""):
                value = source.default
            if source.case is None or value is None:
                return value
            if isinstance(value, list | dict):
                raise _Odd
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return text.lower() if source.case == "lower" else text.upper()
        case MapSource():
            base = followed(event, source.base) if source.base is not None else {}
            if base is not None and not isinstance(base, dict):
                raise _Odd
            found = {key: value for key, value in (base or {}).items() if key not in source.omit}
            return {**found, **{key: interpreted(each, event) for key, each in source.entries.items()}}
        case ListSource():
            values = [(each, interpreted(each, event)) for each in source.sources]
            return [value for each, value in values if value is not None and not is_empty(each, value)]
        case JsonSource():
            value = interpreted(source.source, event)
            return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        case CelSource():
            raise NotImplementedError


def is_empty(source: Source, value: dict[str, Any]) -> bool:
    """Whether a map in a list has sources, and all of them are null."""
    if not isinstance(source, MapSource) or source.base is not None:
        return False
    asked = [key for key, each in source.entries.items() if not isinstance(each, ConstSource)]
    return bool(asked) and all(value[key] is None for key in asked)


def followed(value: Any, path: str) -> Any:
    """Return what is at a path."""
    return value if path == "." else _at(value, path.replace("[", ".[").split("."))


def _at(value: Any, steps: list[str]) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if step == "[]":
        if not isinstance(value, list):
            return None
        found = [_at(inner, rest) for inner in value]
        return [each for inner in found if inner is not None for each in inner] if "[]" in rest else found
    if step.startswith("["):
        index = int(step[1:-1])
        return _at(value[index], rest) if isinstance(value, list) and index < len(value) else None
    return _at(value[step], rest) if isinstance(value, dict) and step in value else None


@given(sources, events)
def test_a_compiled_source_equals_the_interpreter(written: Any, event: dict[str, Any]) -> None:
    """For any source and event the compiled plan gives the interpreter's value, or refuses where that does.

    Kills: leaving out a null element of `a[]`, taking `omit` from the map's own entries.
    """
    source = _SOURCES.validate_python(written)
    value = compiled(written)
    try:
        wanted = interpreted(source, event)
    except _Odd:
        with pytest.raises(Unfit):
            value.get(Event("x", event), RECORD)
        return
    assert to_json(value.get(Event("x", event), RECORD)) == wanted
