"""The connector's own Avro reader against fastavro, which is the reference."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connector.codec.reader import TooManySteps, logical_type, reader_of
from connector.records import LogicalType, LogicalValue

LONGS = st.integers(-(2**63), 2**63 - 1)
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": LONGS,
    "double": st.floats(allow_nan=False),
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


@pytest.mark.slow
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
    read = reader_of(tree, tagged=True)
    place = data.draw(st.integers(0, max(0, len(payload) - 1)))
    if data.draw(st.booleans()):
        broken = payload[:place]
    else:
        broken = payload[:place] + bytes([data.draw(st.integers(0, 255))]) + payload[place + 1 :]
    try:
        found = read(broken, 0)
    except (ValueError, MemoryError):
        return
    # By their text, because a spoiled number may be NaN, which equals nothing.
    assert repr(found) == repr(reference(tree, broken))


@pytest.mark.parametrize("file", sorted(Path("avro").glob("*.avsc")), ids=lambda path: path.stem)
def test_every_contract_schema_is_read_by_it(file: Path) -> None:
    """The schemas that most events have are not left to the slower decoder."""
    assert callable(reader_of(json.loads(file.read_text(encoding="utf-8")), tagged=True))


def test_a_record_in_a_choice_of_records_is_named() -> None:
    """A union of several records shows which one it was; a union of one record and null does not."""
    one = {"type": "record", "name": "a.One", "fields": [{"name": "x", "type": "long"}]}
    two = {"type": "record", "name": "a.Two", "fields": [{"name": "y", "type": ["null", "a.One"]}]}
    tree = {"type": "record", "name": "a.All", "fields": [{"name": "choice", "type": [one, two]}]}
    payload = bytes([2, 2, 6])
    read = reader_of(tree, tagged=True)
    assert read(payload, 0) == ({"choice": ("a.Two", {"y": {"x": 3}})}, 3) == reference(tree, payload)


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


def decoded(tree: Any, payload: bytes, **options: Any) -> Any:
    """Return the datum of a payload that is read whole."""
    datum, end = reader_of(tree, **options)(payload, 0)
    assert end == len(payload)
    return datum


def written_as_float(number: float) -> bytes:
    """Return a number as Avro writes a float of 32 bits."""
    return struct.pack("<f", number)


def same_float(number: float, payload: bytes) -> bool:
    """Tell whether a number is the float of a payload; the largest float rounded up is none."""
    try:
        return written_as_float(number) == payload
    except OverflowError:
        return False


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(12.989999771118164)
@example(1e-45)
@example(3.4028234663852886e38)
def test_a_float_has_the_fewest_digits_that_are_this_float(number: float) -> None:
    """A float of 32 bits is the shortest decimal that is the same float. Kills: 12.99 sent as 12.989999771118164."""
    payload = written_as_float(number)
    found = decoded("float", payload)
    assert written_as_float(found) == payload
    candidates = (float(f"{number:.{digits}g}") for digits in range(1, 10))
    assert found == next(candidate for candidate in candidates if same_float(candidate, payload))


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan"), -0.0])
def test_a_float_that_is_no_decimal_is_read_as_it_is(number: float) -> None:
    """Infinity, NaN and the sign of zero are kept, for a rule to judge."""
    assert repr(decoded("float", written_as_float(number))) == repr(number)


@pytest.mark.parametrize(
    ("tree", "payload"),
    [
        ("boolean", b"\x02"),
        ("int", b"\x80\x80\x80\x80\x10"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x01"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02"),
        (["null", "long"], b"\x01"),
        (["null", "long"], b"\x04"),
        ("string", b"\x01"),
        ("bytes", b"\x04a"),
        ({"type": "array", "items": "long"}, b"\x01\x00"),
    ],
    ids=[
        "boolean 2",
        "int of 33 bits",
        "enum -1",
        "enum 1",
        "branch -1",
        "branch 2",
        "length -1",
        "cut",
        "no block size",
    ],
)
def test_what_avro_does_not_allow_is_a_broken_payload(tree: Any, payload: bytes) -> None:
    """An index, a length or a number out of bounds is refused. Kills: another value taken in its place."""
    with pytest.raises(ValueError, match=r"\w"):
        reader_of(tree)(payload, 0)


NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
}


@pytest.mark.parametrize("levels", [1, 64, 65, 100_000])
def test_a_recursive_payload_nests_64_records_deep_at_most(levels: int) -> None:
    """A recursive schema is read, and one payload nested too deep is refused. Kills: a stack that overflows."""
    payload = b"\x02\x02" * (levels - 1) + b"\x02\x00"
    if levels > 64:
        with pytest.raises(TooManySteps):
            reader_of(NODE)(payload, 0)
        return
    datum, depth = decoded(NODE, payload), 0
    while datum is not None:
        datum, depth = datum["next"], depth + 1
    assert depth == levels


def doubling(levels: int) -> Any:
    """Return a schema of records that each hold the one before twice: a payload of no byte claims 2 ** levels."""
    tree: Any = {"type": "record", "name": "R0", "fields": []}
    for level in range(1, levels):
        fields = [{"name": "a", "type": tree}, {"name": "b", "type": f"R{level - 1}"}]
        tree = {"type": "record", "name": f"R{level}", "fields": fields}
    return tree


def claims(count: int) -> bytes:
    """Return an array's payload that claims so many items of no bytes."""
    stream = io.BytesIO()
    schemaless_writer(stream, {"type": "long"}, count)
    return stream.getvalue() + b"\x00"


@pytest.mark.parametrize(
    ("tree", "payload"),
    [
        ({"type": "array", "items": "null"}, claims(30_000_000)),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, claims(2**62)),
        ({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}, claims(2**62)),
        ({"type": "array", "items": doubling(12)}, claims(60_000)),
        (doubling(40), b""),
    ],
    ids=["nulls", "empty fixed", "empty records", "doubling records in an array", "doubling records"],
)
def test_a_payload_that_claims_more_than_its_bytes_is_refused(tree: Any, payload: bytes) -> None:
    """Work is counted before it is done. Kills: five bytes that block the process for seconds."""
    with pytest.raises(TooManySteps):
        reader_of(tree)(payload, 0)


POINTS = {"type": "array", "items": {"type": "record", "name": "P", "fields": [{"name": "x", "type": "int"}]}}


@pytest.mark.parametrize(
    ("tree", "item"),
    [
        (POINTS, b"\x02"),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, b"\x00"),
        ({"type": "array", "items": {"type": "map", "values": "int"}}, b"\x00"),
    ],
    ids=["records", "arrays", "maps"],
)
def test_a_payload_of_tiny_containers_is_bounded_in_memory(tree: Any, item: bytes) -> None:
    """At most 131,072 containers and one more for each 8 bytes are read: each takes up to 200 bytes of memory.

    Kills: a record of 1 MB that takes 300 MB, which ends a process with a limit of 256 MB.
    """
    size = 400_000
    read = reader_of(tree)
    for count, fits in ((131_000 + size // 8, True), (131_100 + size // 8, False)):
        payload = claims(count)[:-1] + item * count + b"\x00"
        payload += b"\x00" * (size - len(payload))
        if fits:
            assert len(read(payload, 0)[0]) == count
            continue
        with pytest.raises(TooManySteps, match="more records, arrays and maps"):
            read(payload, 0)


def test_as_many_values_as_the_bytes_allow_are_read() -> None:
    """A long list of small records is below the limit, also where each of them is mostly empty."""
    fields = [{"name": f"f{index}", "type": ["null", "string"]} for index in range(100)]
    tree = {"type": "array", "items": {"type": "record", "name": "R", "fields": fields}}
    payload = claims(20_000)[:-1] + bytes(100 * 20_000) + b"\x00"
    assert len(decoded(tree, payload)) == 20_000


def logical(kind: Any, name: object, **more: Any) -> Any:
    """Return a type with a logical type."""
    return {**(kind if isinstance(kind, dict) else {"type": kind}), "logicalType": name, **more}


FIXED = {"type": "fixed", "name": "F", "size": 2}


@pytest.mark.parametrize(
    "tree",
    [
        logical("bytes", "decimal", precision=4, scale=5),
        logical("bytes", "decimal", precision="4", scale=2),
        logical("bytes", "decimal", precision=0),
        logical("bytes", "decimal", scale=2),
        logical("bytes", "decimal", precision=4, scale=-1),
        logical("bytes", "decimal", precision=True, scale=0),
        logical(FIXED, "decimal", precision=5, scale=2),
        logical(FIXED, "uuid"),
        logical("long", "date"),
        logical("int", "timestamp-millis"),
        logical("bytes", "no-such-type"),
        logical("bytes", 7),
        logical("string", "uuid"),
    ],
    ids=str,
)
def test_an_invalid_logical_type_is_ignored(tree: Any) -> None:
    """The specification: ignore a logical type that is unknown or invalid. Kills: a schema refused whole for it."""
    assert logical_type(tree) is None


@pytest.mark.parametrize("size", [3, 1900, 10**12])
def test_a_decimal_may_be_on_a_fixed_of_any_size(size: int) -> None:
    """Its most digits are known without the number. Kills: a schema refused, or a loop blocked, for a large fixed."""
    tree = {"type": "fixed", "name": "F", "size": size, "logicalType": "decimal", "precision": 6, "scale": 2}
    assert logical_type(tree) == LogicalType("decimal", 2)
    assert logical_type({**tree, "size": 2}) is None
    assert callable(reader_of(tree))


@pytest.mark.parametrize(
    ("tree", "scale"),
    [
        (logical("bytes", "decimal", precision=64, scale=64), 64),
        (logical("bytes", "decimal", precision=4), 0),
        (logical(FIXED, "decimal", precision=4, scale=2), 2),
    ],
    ids=str,
)
def test_a_decimal_keeps_what_was_written(tree: Any, scale: int) -> None:
    """The bytes of a decimal come as they are, with the scale. Kills: a decimal rounded to the precision."""
    payload = b"\x01\x02" if tree["type"] == "fixed" else b"\x04\x01\x02"
    assert decoded(tree, payload) == LogicalValue(LogicalType("decimal", scale), b"\x01\x02")
