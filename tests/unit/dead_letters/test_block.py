"""The compiled reader of a block takes exactly what the format allows, and times are the standard library's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.codec.reader import Unwritten
from connector.dead_letters.block import Form, RowIndex, id_of, read_block, time_text
from connector.dead_letters.container_file import SCHEMA, DeadLetterFile

MOST = (1 << 63) - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(form: Form, value: bytes) -> object:
    """Return what a header with this value says; None where it makes the block incomplete."""
    found = read_block([("first", b"1"), ("x", value)], "first", b"1", {"x": form}, frozenset())
    return None if found is None else found[0][form.field]


UUID = b"%s-1234-abcd-0000-%s" % (b"0" * 8, b"f" * 12)
WRONG_TIMES = (
    *("2026-02-29T00:00:00.000Z", "1900-02-29T00:00:00.000Z", "0000-01-01T00:00:00.000Z", "2026-00-01T00:00:00.000Z"),
    *("2026-13-01T00:00:00.000Z", "2026-04-31T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "2026-01-01T00:60:00.000Z"),
    *("2026-01-01T00:00:60.000Z", "2026-01-01T00:00:00.000", "2026-01-01T00:00:00.000+", "2026-01-01 00:00:00.000Z"),
    *("2026-01-01", "-", "--1", "-9223372036854775809"),
)


@pytest.mark.parametrize(
    ("kind", "most", "good", "bad"),
    [
        ("number", 999, {b"0": 0, b"7": 7, b"999": 999}, [b"", b"1000", b"-1", b"01", b"+1", b"1_0", b" 1", b"-0"]),
        ("number", MOST, {b"%d" % MOST: MOST}, [b"%d" % (MOST + 1), b"9" * 19, b"9" * 20, b"18446744073709551616"]),
        ("time", MOST, {b"%d" % (-MOST - 1): -MOST - 1}, [time.encode() for time in WRONG_TIMES]),
        ("time", MOST, {b"2024-02-29T23:59:59.999Z": 1709251199999, b"1969-12-31T23:59:59.999Z": -1}, []),
        ("topic", 249, {b"a.B-_9": "a.B-_9"}, [b"", b"a/b", b"a b", b"x" * 250, b"\xc3\xa9"]),
        ("word", 32, {b"gave_up": "gave_up"}, [b"", b"Gave", b"a-b", b"a" * 33]),
        ("text", 4, {b"\xc3\xa9\xc3\xa9": "éé", b" ": " "}, [b"", b"12345", b"\xff", b"\xed\xa0\x80"]),
        ("paths", 9, {b"a  b": ("a", "b"), b" ": ()}, [b"", b"\xff"]),
        ("uuid", MOST, {UUID: UUID.decode()}, [b"", b"0" * 36, UUID.upper(), UUID[1:]]),
    ],
)
def test_a_value_is_taken_only_in_the_form_that_the_connector_writes(
    kind: str, most: int, good: dict[bytes, object], bad: list[bytes]
) -> None:
    """Each form at its edge and one past it. Kills: a bound off by one, a sign or a day that wraps around."""
    form = Form("x_field", kind, most)
    assert {value: read(form, value) for value in good} == good
    assert [value for value in bad if read(form, value) is not None] == []


@given(st.integers(-(1 << 63), MOST) | st.integers(-62135596800000, 253402300799999))
@example(-62135596800000)
@example(-62135596800001)
@example(253402300799999)
@example(253402300800000)
@example(-1)
def test_times_are_written_and_read_as_the_standard_library_does(millis: int) -> None:
    """ISO 8601 for the years 1 to 9999, else the number; and each comes back. Kills: a leap year that is none."""
    try:
        whole = (EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        whole = str(millis)
    assert time_text(millis) == whole
    assert read(Form("at", "time"), whole.encode()) == millis


def test_an_id_counts_only_in_the_last_block() -> None:
    """The last value inside the last block of this version. Kills: an id in front of the block."""
    block = [("id", b"early"), ("first", b"1"), ("id", b"a"), ("id", b"b")]
    assert id_of(block, "id", "first", b"1") == "b"
    assert id_of(block[:2], "id", "first", b"1") is None
    assert id_of(block, "id", "first", b"2") is None
    assert id_of([*block, ("first", b"1")], "id", "first", b"1") is None


@given(st.lists(st.text("ab", max_size=3) | st.integers().map(str), max_size=60))
def test_rows_are_numbered_as_their_ids_come(ids: list[str]) -> None:
    """Each id has one row, the first seen the first. Kills: a row that is found by its slot alone."""
    index, expected = RowIndex(), dict[str, int]()
    for identity in ids:
        assert index.row(identity) == expected.get(identity)
        assert index.add(identity) == expected.setdefault(identity, len(expected))
        assert index.row(identity) == expected[identity]


def test_rows_are_kept_while_the_table_grows() -> None:
    """Of 5,000 ids every one keeps its row over each doubling. Kills: a table that is not filled again."""
    index = RowIndex()
    assert [index.add(f"id {number}") for number in range(5000)] == list(range(5000))
    assert [index.row(f"id {number}") for number in range(5001)] == [*range(5000), None]


LONGS = st.integers(-(1 << 63), MOST) | st.sampled_from([0, -1, 63, 64, -64, -65, MOST, -MOST - 1])
INTS = st.integers(-(1 << 31), (1 << 31) - 1)
OF_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(codec="utf-8"), max_size=70),
    "bytes": st.binary(max_size=70),
    "long": LONGS,
    "int": INTS,
}


def values_of(field: Any) -> st.SearchStrategy[Any]:
    """Return the values that a field of the schema may have."""
    kind = field["type"]
    if isinstance(kind, list):
        return st.none() | OF_TYPE[kind[1]]
    if field["name"] == "edited":
        return st.lists(OF_TYPE["string"], max_size=3)
    if field["name"] == "headers":
        return st.lists(st.tuples(OF_TYPE["string"], st.none() | OF_TYPE["bytes"]), max_size=3)
    return OF_TYPE[kind]


@given(st.lists(st.tuples(*map(values_of, SCHEMA["fields"])), max_size=5))
def test_another_library_reads_the_file_as_it_was_written(rows: list[tuple[Any, ...]]) -> None:
    """fastavro, which shares no code with the writer, reads every value back. Kills: fields in another order."""
    file = DeadLetterFile()
    pieces = [file.take(last=False)]
    for row in rows:
        file.add(row)
        pieces.append(file.take(last=False))
    found = list(fastavro.reader(BytesIO(b"".join([*pieces, file.take(last=True)]))))
    names = [field["name"] for field in SCHEMA["fields"]]
    as_written: list[Any] = [dict(zip(names, row, strict=True)) for row in rows]
    for fields in as_written:
        fields["headers"] = [{"name": name, "value": value} for name, value in fields["headers"]]
    assert found == as_written


def test_a_file_of_many_blocks_is_read_whole() -> None:
    """Blocks end while rows come. Kills: a count that is not begun again."""
    file = DeadLetterFile()
    row: Any = ("i", "c", "m" * 500, "d", "g", 1, "t", 1, 1, 0, 0, *[None] * 10, [], b"k", b"v" * 500, [])
    for _ in range(300):
        file.add(row)
    assert len(file.ready) > 3
    whole = file.take(last=True)
    assert sum(1 for _ in fastavro.reader(BytesIO(whole))) == 300
    assert file.take(last=True) == b""


@pytest.mark.parametrize(
    ("index", "wrong"), [(0, None), (1, "\ud800"), (5, 1 << 63), (7, 1 << 31), (9, 1.5), (23, "text"), (24, [("a",)])]
)
def test_a_dead_letter_that_cannot_be_written_leaves_nothing(index: int, wrong: object) -> None:
    """The rows before and behind it are as if it had not come. Kills: half a row in the file."""
    row: Any = ("i", "c", "m", "d", "g", 1, "t", 1, 1, 0, 0, *[None] * 10, [], b"k", b"v", [])
    file = DeadLetterFile()
    file.add(row)
    with pytest.raises((Unwritten, OverflowError, UnicodeEncodeError)):
        file.add((*row[:index], wrong, *row[index + 1 :]))
    file.add(row)
    assert sum(1 for _ in fastavro.reader(BytesIO(file.take(last=True)))) == 2
