"""Values of logical types are converted exactly where a mapping asks for them, or refused by name; never rounded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.records import LogicalType, LogicalValue
from connector.routing.conversions import Unfit, converter, exact


def value(name: str, raw: int | bytes, scale: int = 0) -> LogicalValue:
    """Return a value as the decoder gives it."""
    return LogicalValue(LogicalType(name, scale), raw)


def signed(number: int) -> bytes:
    """Return a number as a decimal's bytes: two's complement, the fewest that hold it."""
    return number.to_bytes((number if number >= 0 else ~number).bit_length() // 8 + 1, "big", signed=True)


def result(kind: str, given_value: Any) -> Any:
    """Return what a field of a kind gets, or the rule that refuses the value."""
    try:
        return converter(kind, None)(given_value)
    except Unfit as unfit:
        return f"<{unfit.rule}>"


UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"
NAMES = ["date", "time-millis", "time-micros", "timestamp-millis", "local-timestamp-nanos"]
NOON = 12 * 3_600_000


@pytest.mark.parametrize(
    ("given_value", "text", "millis", "json"),
    [
        (value("date", 0), "1970-01-01", "<type>", "1970-01-01"),
        (value("date", -1), "1969-12-31", "<type>", "1969-12-31"),
        (value("date", 2**31 - 1), "<range>", "<range>", "<range>"),
        (value("time-millis", NOON), "12:00:00", "<type>", "12:00:00"),
        (value("time-millis", -1), "<range>", "<range>", "<range>"),
        (value("time-millis", 86_400_000), "<range>", "<range>", "<range>"),
        (value("time-micros", 1), "00:00:00.000001", "<type>", "00:00:00.000001"),
        (value("timestamp-millis", 1), "1970-01-01T00:00:00.001000Z", 1, 1),
        (value("timestamp-micros", -1), "1969-12-31T23:59:59.999999Z", -1, -1),
        (value("timestamp-nanos", 1_999), "1970-01-01T00:00:00.000001999Z", 0, 0),
        (value("timestamp-nanos", -1), "1969-12-31T23:59:59.999999999Z", -1, -1),
        (value("timestamp-nanos", 2_000), "1970-01-01T00:00:00.000002Z", 0, 0),
        (
            value("local-timestamp-nanos", 5),
            *("1970-01-01T00:00:00.000000005", "<local_time>"),
            "1970-01-01T00:00:00.000000005",
        ),
        (value("timestamp-micros", 9223372036825200000), "<range>", "<range>", "<range>"),
        (value("timestamp-millis", 253_402_300_799_999), "9999-12-31T23:59:59.999000Z", *[253_402_300_799_999] * 2),
        (value("timestamp-millis", 253_402_300_800_000), "<range>", "<range>", "<range>"),
        (value("timestamp-millis", -62_135_596_800_001), "<range>", "<range>", "<range>"),
        (value("local-timestamp-millis", 0), "1970-01-01T00:00:00", "<local_time>", "1970-01-01T00:00:00"),
        (value("local-timestamp-micros", 2**62), "<range>", "<range>", "<range>"),
        (value("uuid", bytes(range(16))), UUID_TEXT, "<type>", UUID_TEXT),
        (value("decimal", signed(1234), 2), "12.34", 12, 12.34),
        (value("decimal", signed(-1234), 2), "-12.34", -13, -12.34),
        (value("decimal", signed(1_234_567_891), 2), "12345678.91", 12_345_678, 12_345_678.91),
        (value("decimal", signed(1200), 2), "12.00", 12, 12),
        (value("decimal", b"", 2), "0.00", 0, 0),
        (value("decimal", signed(10**40 + 1), 20), f"{10**20}.{1:020}", 10**20, "<decimal>"),
    ],
    ids=str,
)
def test_a_value_is_exact_or_refused(given_value: LogicalValue, text: Any, millis: Any, json: Any) -> None:
    """Each kind of field gets the value exactly, or a rule refuses it.

    Kills: a decimal rounded to its precision, -1 read as 00:00:00.999, a time that only a mapped field may refuse.
    """
    assert result("string", given_value) == text
    assert result("millis", given_value) == millis
    assert result("any", given_value) == json


@given(st.integers(-(10**60), 10**60), st.integers(0, 60))
@example(1_234_567_891, 2)
def test_a_decimal_has_every_digit_that_was_written(unscaled: int, scale: int) -> None:
    """A decimal is its unscaled number over a power of ten, whatever its width. Kills: a context that rounds."""
    found = exact(value("decimal", signed(unscaled), scale))
    assert found.as_tuple().exponent == -scale
    assert Decimal(result("string", value("decimal", signed(unscaled), scale))) == found
    assert int("".join(map(str, found.as_tuple().digits))) * (-1 if unscaled < 0 else 1) == unscaled


@pytest.mark.parametrize("kind", ["string", "long", "millis", "any"])
@pytest.mark.parametrize("decimal", [value("decimal", b"\x7f" * 2500, 2), value("decimal", b"\x05", 10**9)])
def test_a_decimal_of_thousands_of_digits_is_refused(kind: str, decimal: LogicalValue) -> None:
    """Kills: a ValueError of Python's own limit; a text of a gigabyte, or seconds of work, for one byte of payload."""
    assert result(kind, decimal) == "<decimal>"


@pytest.mark.parametrize("kind", ["string", "long", "boolean", "millis", "seconds", "any", "map", "strings"])
@given(
    st.sampled_from(["date", "time-millis", "time-micros", "timestamp-millis", "local-timestamp-nanos"]), st.integers()
)
def test_no_number_is_anything_but_a_value_or_a_refusal(kind: str, name: str, raw: int) -> None:
    """Every number of every logical type is converted or refused. Kills: an OverflowError that ends the record."""
    result(kind, value(name, raw))


def test_values_inside_of_containers_are_converted_too() -> None:
    """A map or list that is passed on holds no value of a logical type any more."""
    inner = {"price": value("decimal", signed(5), 1), "at": [value("timestamp-micros", 7_000)]}
    assert result("map", inner) == {"price": 0.5, "at": [7]}
    assert result("strings", [value("decimal", signed(5), 1)]) == ["0.5"]
    assert result("string_map", {"a": value("date", 0), "b": {"c": value("date", 0)}}) == {
        "a": "1970-01-01",
        "b": '{"c":"1970-01-01"}',
    }
