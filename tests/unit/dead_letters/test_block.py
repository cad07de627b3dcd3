"""The compiled reader of a block takes exactly what the format allows, and times are the standard library's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.dead_letters.block import Form, id_of, read_block, time_text

MOST = (1 << 63) - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(form: Form, value: bytes) -> object:
    """Return what a header with this value says; None where it makes the block incomplete."""
    found = read_block(
        [("first", b"1"), ("x", value)], "first", {"first": Form("first", "text", 9), "x": form}, frozenset()
    )
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
