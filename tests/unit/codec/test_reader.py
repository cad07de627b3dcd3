"""The connector's own Avro reader against fastavro, which is the reference."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from connector.codec import engine
from connector.codec.reader import Unsupported, reader_of
from connector.codec.schemas import read_schema, without_logical_types

LONGS = st.integers(-(2**63), 2**63 - 1)
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": LONGS,
    "double": st.floats(allow_nan=False),
    "float": st.floats(width=32, allow_nan=False),
    "string": st.text(max_size=70),
    "bytes": st.binary(max_size=70),
}
Drawn = tuple[Any, st.SearchStrategy[Any]]


class Names:
    """Gives every named type of one schema its own name."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        """Return a name that was not given before."""
        self.count += 1
        return f"N{self.count}"


def schema_and_data(draw: st.DrawFn, names: Names, depth: int) -> Drawn:
    """Draw a schema, and the strategy of its data."""
    kinds = [*PRIMITIVES, "enum", "fixed"]
    if depth:
        kinds += ["record", "array", "map", "union"] * 2
    kind = draw(st.sampled_from(kinds))
    if kind in PRIMITIVES:
        return kind, PRIMITIVES[kind]
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from("ABCDEFG"), min_size=1, max_size=7, unique=True))
        return {"type": "enum", "name": names(), "symbols": symbols}, st.sampled_from(symbols)
    if kind == "fixed":
        size = draw(st.integers(1, 20))
        return {"type": "fixed", "name": names(), "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "record":
        return record(draw, names, depth)
    if kind == "union":
        branches = draw(st.lists(st.sampled_from(["null", "string", "long", "boolean"]), min_size=1, unique=True))
        return branches, st.one_of(*(PRIMITIVES[branch] for branch in branches))
    inner, data = schema_and_data(draw, names, depth - 1)
    if kind == "array":
        return {"type": "array", "items": inner}, st.lists(data, max_size=4)
    return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=5), data, max_size=4)


def record(draw: st.DrawFn, names: Names, depth: int) -> Drawn:
    """Draw a record of up to four fields."""
    name = names()
    fields = {f"f{index}": schema_and_data(draw, names, depth - 1) for index in range(draw(st.integers(0, 4)))}
    tree = {
        "type": "record",
        "name": name,
        "fields": [{"name": field, "type": inner} for field, (inner, _) in fields.items()],
    }
    return tree, st.fixed_dictionaries({field: data for field, (_, data) in fields.items()})


@st.composite
def schemas_with_payload(draw: st.DrawFn) -> tuple[Any, bytes]:
    """Draw a record schema and the bytes of one datum."""
    tree, data = record(draw, Names(), 3)
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(json.loads(json.dumps(tree))), draw(data))
    return tree, stream.getvalue()


def reference(tree: Any, payload: bytes) -> tuple[Any, int]:
    """Decode with fastavro."""
    stream = io.BytesIO(payload)
    datum = schemaless_reader(
        stream,
        parse_schema(json.loads(json.dumps(tree))),
        None,
        return_record_name=True,
        return_record_name_override=True,
    )
    return datum, stream.tell()


@pytest.mark.promise("P16")
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(schemas_with_payload())
def test_it_reads_what_fastavro_reads(drawn: tuple[Any, bytes]) -> None:
    """Every datum comes out as fastavro reads it. Kills: zigzag without the sign, a branch off by one."""
    tree, payload = drawn
    read = reader_of(tree, tagged=True)
    assert read(b"\x00" + payload, 1)[0] == reference(tree, payload)[0]
    assert read(payload, 0)[1] == len(payload)


@pytest.mark.promise("P14", "P16")
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(schemas_with_payload(), st.data())
def test_a_broken_payload_is_never_read_as_another(drawn: tuple[Any, bytes], data: st.DataObject) -> None:
    """A cut or spoiled payload raises, or says what fastavro says. Kills: no check that the payload ended early."""
    tree, payload = drawn
    # A guarded schema is walked before it is decoded: five bytes can claim millions of items that take none.
    assume(not read_schema(json.dumps(tree)).guarded)
    read = reader_of(tree, tagged=True)
    place = data.draw(st.integers(0, max(0, len(payload) - 1)))
    if data.draw(st.booleans()):
        broken = payload[:place]
    else:
        broken = payload[:place] + bytes([data.draw(st.integers(0, 255))]) + payload[place + 1 :]
    try:
        found = read(broken, 0)
    except Exception:  # noqa: BLE001 - a broken payload may raise anything
        return
    # By their text, because a spoiled number may be NaN, which equals nothing.
    assert repr(found) == repr(reference(tree, broken))


@pytest.mark.parametrize("file", sorted(Path("avro").glob("*.avsc")), ids=lambda path: path.stem)
def test_every_contract_schema_is_read_by_it(file: Path) -> None:
    """The schemas that most events have are not left to the slower decoder."""
    assert callable(reader_of(without_logical_types(json.loads(file.read_text(encoding="utf-8"))), tagged=True))


def test_a_record_in_a_choice_of_records_is_named() -> None:
    """A union of several records tells which it was, a union of one and null does not."""
    one = {"type": "record", "name": "a.One", "fields": [{"name": "x", "type": "long"}]}
    two = {"type": "record", "name": "a.Two", "fields": [{"name": "y", "type": ["null", "a.One"]}]}
    tree = {"type": "record", "name": "a.All", "fields": [{"name": "choice", "type": [one, two]}]}
    payload = bytes([2, 2, 6])
    read = reader_of(tree, tagged=True)
    assert read(payload, 0) == ({"choice": ("a.Two", {"y": {"x": 3}})}, 3) == reference(tree, payload)


DATE = {"type": "int", "logicalType": "date"}
WITH_DATE = {"type": "record", "name": "R", "fields": [{"name": "d", "type": DATE}]}


def test_logical_types_are_left_to_fastavro() -> None:
    """A schema with a logical type has no reader here, and is decoded all the same."""
    with pytest.raises(Unsupported):
        reader_of(WITH_DATE)
    assert engine.compile_read(WITH_DATE)(bytes([2]), 0) == ({"d": date(1970, 1, 2)}, 1)


def test_a_package_that_was_not_compiled_decodes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was compiled fastavro decodes, and says the same. Kills: a second decoder with its own mind."""
    tree = without_logical_types(json.loads(Path("avro/JiguangUserEvent.avsc").read_text(encoding="utf-8")))
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(tree), {"cuid": 7, "eventName": "n", "itime": 1, "properties": {"a": ["b"]}})
    compiled = reader_of(tree, tagged=True)(stream.getvalue(), 0)
    monkeypatch.setattr(engine, "COMPILED", False)
    assert engine.compile_read(tree, tagged=True)(stream.getvalue(), 0) == compiled


@pytest.mark.parametrize(
    "payload",
    [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"],
    ids=["a bit too many", "a byte too many"],
)
def test_a_number_of_more_than_64_bits_is_refused(payload: bytes) -> None:
    """A number that no long holds is a broken payload. Kills: a number that wraps around."""
    with pytest.raises(ValueError, match="64 bits"):
        reader_of({"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]})(payload, 0)


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, -1, 0, 2**62])
def test_the_largest_numbers_are_read(number: int) -> None:
    """All 64 bits count. Kills: a shift that drops the sign."""
    tree = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}
    stream = io.BytesIO()
    schemaless_writer(stream, parse_schema(tree), {"n": number})
    assert reader_of(tree)(stream.getvalue(), 0)[0] == {"n": number}
