"""The compiled modules: what runs is their source, and what they make is what Python would make."""

from __future__ import annotations

import io
import struct
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from fastavro import schemaless_writer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector import vendors
from connector.codec.reader import Broken, dedup_ids, reader_of
from connector.codec.schemas import load_contracts, without_logical_types
from connector.config.models import KafkaSettings, Settings
from connector.config.routes import RouteSettings
from connector.errors import Refusal
from connector.records import uuid5_text
from connector.routing.compiler import passed_on
from connector.vendors.base import Vendor, VendorEvent
from tools.source import ROOT

SOURCES: Final = tuple(sorted((ROOT / "connector").rglob("*.pyx")))
NAMESPACE: Final = uuid.UUID("6f1e3b52-c0a6-524f-9a4b-1d5a7c2f9e10")
NOW: Final = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp() * 1000)
CONTRACTS: Final = load_contracts()
KINDS: Final = vendors.kinds()
WITH_JSON: Final = {kind.schema: kind for kind in KINDS.values() if kind.as_json}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_what_runs_is_the_source_that_stands_here(source: Path) -> None:
    """A library that is older than its source would hide every change of it."""
    libraries = list(source.parent.glob(f"{source.stem}.*.so"))
    assert libraries, "run make .venv/.compiled"
    assert all(one.stat().st_mtime >= source.stat().st_mtime for one in libraries), "run make .venv/.compiled"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_build_compiles_it(source: Path) -> None:
    """The build names it, and make builds again when it changes. Kills: a module that only a developer compiles."""
    name = str(source.relative_to(ROOT))
    assert source in set(ROOT.glob("connector/*/*.pyx"))
    assert f'Path("{name}")' in (ROOT / "hatch_build.py").read_text("utf-8")
    assert "$(wildcard connector/*/*.pyx" in (ROOT / "Makefile").read_text("utf-8")


@given(st.text() | st.text("xé礼", min_size=30, max_size=300))
@example("x" * 39)
@example("x" * 40)  # with the namespace's 16 bytes the first that does not fit one block
@example("x" * 48)
@example("x" * 103)
@example("x" * 104)
def test_a_dedup_id_is_pythons_own(name: str) -> None:
    """The same UUIDv5 as the standard library makes, in Python and in each compiled way.

    Kills: a version or variant in the wrong place; a block of SHA-1 that the processor's instructions read otherwise.
    """
    expected = str(uuid.uuid5(NAMESPACE, name))
    assert {uuid5_text(name), *dedup_ids(name)} == {expected}


TEXTS: Final = st.text(max_size=12) | st.sampled_from(["", '"', "\\", "\n", "\x00", "\x7f", "é", "礼", "\u2028", "😀"])
LONGS: Final = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 9, 10, -(2**63), 2**63 - 1, 2**53 + 1])
PLAIN: Final = st.one_of(st.booleans(), LONGS, st.floats(), TEXTS, st.lists(TEXTS, max_size=3))
FIELDS: Final = {
    "connector.events.JiguangUserEvent": st.fixed_dictionaries(
        {
            "cuid": LONGS,
            "eventName": TEXTS,
            "itime": st.just(NOW),
            "properties": st.dictionaries(TEXTS, st.none() | PLAIN, max_size=4)
            | st.dictionaries(st.text("abc", min_size=1, max_size=2), PLAIN, max_size=9),
        },
        optional={"randomId": TEXTS},
    ),
    "connector.events.QuickAudienceEvent": st.fixed_dictionaries(
        {
            "eventCode": TEXTS,
            "eventTime": st.just(NOW),
            "extendAttributes": st.dictionaries(TEXTS, TEXTS, max_size=6),
        }
    ),
}
ACCOUNTS: Final[dict[str, dict[str, Any]]] = {
    "jiguang": {"project_id": "p", "project_secret": "s", "app_key": "k"},
    "quick_audience": {
        "base_url": "https://qa.example",
        "access_id": "a",
        "access_key": "k",
        "access_secret": "s",
        "app_id": "i",
    },
}


def vendor_of(schema: str) -> Vendor:
    """Return the vendor that takes the schema, all its rules on."""
    kind = WITH_JSON[schema]
    return kind.build(kind.settings(vendor=kind.name, **ACCOUNTS[kind.name]))


def payload_of(schema: str, datum: dict[str, Any]) -> bytes:
    """Return the datum as fastavro writes it; a field without a value gets its default or an empty text."""
    tree = without_logical_types(CONTRACTS.schemas[schema].tree)
    whole = {field["name"]: field.get("default", "x") for field in tree["fields"]} | datum
    stream = io.BytesIO()
    schemaless_writer(stream, tree, whole)
    return stream.getvalue()


def outcome(schema: str, payload: bytes, as_json: set[tuple[str, str]]) -> object:
    """Return what becomes of a payload: the item, or why it is refused."""
    try:
        read = reader_of(CONTRACTS.schemas[schema].tree, tagged=True, as_json=as_json, logical=False)
        datum, end = read(payload, 0)
    except Exception as error:  # noqa: BLE001 - a broken payload raises anything
        return type(error) in {Broken, UnicodeDecodeError}
    try:
        return end, vendor_of(schema).encode(VendorEvent(datum, "identity"), NOW)
    except Refusal as refusal:
        return end, refusal.code, refusal.message, refusal.field


def both_ways(schema: str, payload: bytes) -> tuple[object, object]:
    """Return what becomes of a payload with the map written at once, and by way of the dictionary."""
    return outcome(schema, payload, {(schema, name) for name in WITH_JSON[schema].as_json}), outcome(
        schema, payload, set()
    )


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FIELDS)).flatmap(lambda schema: st.tuples(st.just(schema), FIELDS[schema])))
@example(("connector.events.JiguangUserEvent", {"cuid": 1, "eventName": "e", "itime": NOW, "properties": {"a": 1e300}}))
def test_a_map_written_at_once_is_what_the_dictionary_would_be(drawn: tuple[str, dict[str, Any]]) -> None:
    """The same item to the byte, or the same refusal. Kills: a rule that only the dictionary is held to."""
    schema, datum = drawn
    direct, reference = both_ways(schema, payload_of(schema, datum))
    assert direct == reference


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FIELDS)).flatmap(lambda schema: st.tuples(st.just(schema), FIELDS[schema])),
    st.data(),
)
def test_a_spoiled_map_is_never_taken_for_another(drawn: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """A cut or changed payload has the same outcome both ways. Kills: a byte that is read past the payload's end."""
    schema, datum = drawn
    payload = payload_of(schema, datum)
    place = data.draw(st.integers(0, len(payload) - 1))
    spoiled = payload[:place]
    if data.draw(st.booleans()):
        spoiled += bytes([data.draw(st.integers(0, 255))]) + payload[place + 1 :]
    direct, reference = both_ways(schema, spoiled)
    assert direct == reference


MAP: Final = {
    "type": "record",
    "name": "R",
    "fields": [{"name": "m", "type": {"type": "map", "values": ["null", "long", "double", "string"]}}],
}


def read_map(payload: bytes) -> Any:
    """Return the map of a payload, read with leave to write it as JSON."""
    return reader_of(MAP, as_json={("R", "m")})(payload, 0)[0]["m"]


def payload_of_map(*entries: bytes) -> bytes:
    """Return a map's payload of entries that are encoded already."""
    count = 2 * len(entries)
    return (bytes([count]) if count < 128 else bytes([count & 127 | 128, count >> 7])) + b"".join(entries) + b"\x00"


ONE: Final = b"\x02a\x02\x02"
"""The entry "a": 1."""


def test_plain_values_are_written_at_once() -> None:
    """What nearly all maps hold does not become a dictionary. Kills: a short way that is never taken."""
    found = read_map(payload_of_map(ONE, b"\x02b\x06\x04hi"))
    assert type(found) is orjson.Fragment
    assert orjson.dumps(found) == b'{"a":1,"b":"hi"}'


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], {}),
        ([ONE, b"\x02a\x02\x04"], {"a": 2}),
        ([b"\x00\x02\x02"], {"": 1}),
        ([ONE, b"\x02b\x00"], {"a": 1, "b": None}),
        ([b"\x02a\x04" + struct.pack("<d", float("inf"))], {"a": float("inf")}),
        ([b"\x04%02d\x02\x02" % number for number in range(63)] + [ONE], None),
        ([b"\x04%02d\x02\x02" % number for number in range(65)], {f"{number:02}": 1 for number in range(65)}),
        ([b"\x02a\x06" + b"\x80\x80\x08" + b"x" * 65_536], {"a": "x" * 65_536}),
    ],
    ids=["empty", "twice", "no name", "null", "infinite", "64 names", "65 names", "large"],
)
def test_what_has_to_be_looked_at_is_a_dictionary(entries: list[bytes], expected: dict[str, Any] | None) -> None:
    """What a vendor's rules are about comes as values. Kills: JSON with one name twice, infinity that became null."""
    found = read_map(payload_of_map(*entries))
    assert (found == expected) if expected is not None else type(found) is orjson.Fragment


@pytest.mark.parametrize(
    ("route", "passed"),
    [
        ({"topics": ["a"]}, True),
        ({"where": {"eventName": "view"}}, True),
        ({"where": {"properties.amount": 5}}, False),
        ({"id": "body.properties.id"}, False),
        ({"fields": {"jiguang": {"cuid": "user.id", "eventName": "e", "itime": {"path": "properties.t"}}}}, False),
    ],
    ids=["no source", "another field", "where", "id", "mapping"],
)
def test_a_field_that_a_route_looks_into_is_read(route: dict[str, Any], *, passed: bool) -> None:
    """Only what no route names is written unread. Kills: a condition that JSON never meets."""
    configured = Settings(
        kafka=KafkaSettings(topics=("a",), group_id="g", client={"bootstrap.servers": "b"}),
        destinations={"d": KINDS["jiguang"].settings(vendor="jiguang", **ACCOUNTS["jiguang"])},
        routes=(RouteSettings.model_validate({"to": ["d"], **route}),),
    )
    assert (passed_on(configured, KINDS) == {("connector.events.JiguangUserEvent", "properties")}) is passed
