"""The conversion table of `docs/routing.md`: each kind of Avro value into each kind of field, or a clear refusal."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.routing.conversions import Unfit, converter

MOMENT = datetime(2026, 11, 21, 9, 30, 0, 250_999, tzinfo=UTC)
MILLIS = 1_795_253_400_250
LOCAL = datetime(2026, 11, 21, 9, 30)  # noqa: DTZ001 - a local timestamp has no zone, that is the case
IDENTIFIER = UUID("12345678-1234-5678-1234-567812345678")

# Each row: the value, then what each kind makes of it; a text in angle brackets is the rule that refuses it.
KINDS = ("string", "long", "boolean", "millis", "seconds", "map", "strings", "string_map", "records", "any")
TABLE: list[tuple[Any, ...]] = [
    (None, None, None, None, None, None, None, None, None, None, None),
    ("ios", "ios", "<type>", "<type>", "<type>", "<type>", "<type>", "<type>", "<type>", "<type>", "ios"),
    ("42", "42", 42, "<type>", 42, 42, "<type>", "<type>", "<type>", "<type>", "42"),
    ("true", "true", "<type>", True, "<type>", "<type>", "<type>", "<type>", "<type>", "<type>", "true"),
    (True, "true", "<type>", True, "<type>", "<type>", "<type>", "<type>", "<type>", "<type>", True),
    (1, "1", 1, True, 1, 1, "<type>", "<type>", "<type>", "<type>", 1),
    (-7, "-7", -7, "<type>", -7, -7, "<type>", "<type>", "<type>", "<type>", -7),
    (2.0, "2.0", 2, "<type>", 2, 2, "<type>", "<type>", "<type>", "<type>", 2.0),
    (2.5, "2.5", "<type>", "<type>", 2, 2, "<type>", "<type>", "<type>", "<type>", 2.5),
    (math.nan, "<nan>", "<type>", "<type>", "<nan>", "<nan>", "<type>", "<type>", "<type>", "<type>", "<nan>"),
    (-math.inf, "<nan>", "<type>", "<type>", "<nan>", "<nan>", "<type>", "<type>", "<type>", "<type>", "<nan>"),
    (Decimal("12.30"), "12.30", "<type>", "<type>", 12, 12, "<type>", "<type>", "<type>", "<type>", 12.3),
    (Decimal("1E+3"), "1000", 1000, "<type>", 1000, 1000, "<type>", "<type>", "<type>", "<type>", 1000),
    (IDENTIFIER, str(IDENTIFIER), *["<type>"] * 8, str(IDENTIFIER)),
    (MOMENT, "2026-11-21T09:30:00.250999Z", "<type>", "<type>", MILLIS, MILLIS // 1000, *["<type>"] * 4, MILLIS),
    (LOCAL, LOCAL.isoformat(), "<type>", "<type>", "<local_time>", "<local_time>", *["<type>"] * 4, LOCAL.isoformat()),
    (date(2026, 11, 21), "2026-11-21", *["<type>"] * 8, "2026-11-21"),
    (time(9, 30, 1), "09:30:01", *["<type>"] * 8, "09:30:01"),
    (b"raw", *["<bytes>"] * 10),
    ({"a": 1}, *["<type>"] * 4, "<type>", {"a": 1}, "<type>", {"a": "1"}, "<type>", {"a": 1}),
    ({"a": b""}, *["<type>"] * 5, "<bytes>", "<type>", "<bytes>", "<type>", "<bytes>"),
    ({"a": None}, *["<type>"] * 5, {"a": None}, "<type>", {}, "<type>", {"a": None}),
    ({"a": [MOMENT]}, *["<type>"] * 5, {"a": [MILLIS]}, "<type>", {"a": f"[{MILLIS}]"}, "<type>", {"a": [MILLIS]}),
    ({"a": math.nan}, *["<type>"] * 5, "<nan>", "<type>", "<nan>", "<type>", "<nan>"),
    ({"a": [math.nan]}, *["<type>"] * 5, "<nan>", "<type>", "<nan>", "<type>", "<nan>"),
    ([], *["<type>"] * 6, [], "<type>", [], []),
    (["a", 1, True], *["<type>"] * 6, ["a", "1", "true"], "<type>", "<type>", ["a", 1, True]),
    (["a", None], *["<type>"] * 6, "<type>", "<type>", "<type>", ["a", None]),
    ([{"a": IDENTIFIER}], *["<type>"] * 6, "<type>", "<type>", [{"a": str(IDENTIFIER)}], [{"a": str(IDENTIFIER)}]),
    ([("x.Y", {"a": 1})], *["<type>"] * 6, "<type>", "<type>", [{"a": 1}], [{"a": 1}]),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0])[:40])
def test_each_value_has_its_stated_result(row: tuple[Any, ...]) -> None:
    """Every cell of the table: the exact result and its type, or the rule that refuses."""
    value, *cells = row
    assert len(cells) == len(KINDS)
    for kind, wanted in zip(KINDS, cells, strict=True):
        if isinstance(wanted, str) and wanted.startswith("<"):
            with pytest.raises(Unfit) as refused:
                converter(kind, None)(value)
            assert (kind, refused.value.rule) == (kind, wanted.strip("<>"))
        else:
            result = converter(kind, None)(value)
            assert (kind, result, type(result)) == (kind, wanted, type(wanted))


@pytest.mark.parametrize(
    ("kind", "unit", "value", "wanted"),
    [
        ("seconds", "ms", 1_700_000_000_999, 1_700_000_000),
        ("seconds", "ms", -1, -1),
        ("seconds", "s", 1_700_000_000, 1_700_000_000),
        ("seconds", None, 1_700_000_000_999, 1_700_000_000_999),
        ("millis", "s", 1_700_000_000, 1_700_000_000_000),
        ("millis", "s", 1_700_000_000.123, 1_700_000_000_123),
        ("millis", "s", Decimal("1.9999"), 1999),
        ("millis", "s", Decimal("-0.0001"), -1),
        ("millis", "ms", 1.9, 1),
        ("millis", "s", "1700000000", 1_700_000_000_000),
        ("seconds", "ms", "1700000000999", 1_700_000_000),
        ("millis", None, "2026-11-21T10:30:00.250+01:00", MILLIS),
        ("millis", "s", "2026-11-21T09:30:00.250Z", MILLIS),
        ("seconds", "ms", MOMENT, MILLIS // 1000),
    ],
)
def test_units(kind: str, unit: Any, value: Any, wanted: int) -> None:
    """A unit is a plain number's; a time that knows its zone needs none; all is floored, also below 1970."""
    assert converter(kind, unit)(value) == wanted


@pytest.mark.parametrize("value", ["2026-11-21T09:30:00", "2026-11-21"])
def test_text_without_a_zone_is_no_point_in_time(value: str) -> None:
    """A time in text needs a zone, because guessing one moves events by hours."""
    with pytest.raises(Unfit) as refused:
        converter("millis", None)(value)
    assert refused.value.rule == "local_time"


zoned = st.builds(
    lambda millis, micros, hours: (
        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis, microseconds=micros)
    ).astimezone(timezone(timedelta(hours=hours))),
    st.integers(-(10**13), 10**14),
    st.integers(0, 999),
    st.integers(-12, 12),
)


@given(zoned)
def test_a_zoned_time_is_floored(moment: datetime) -> None:
    """Milliseconds and seconds are the largest not after the moment, whatever its zone and however early.

    Kills: going through float seconds, and cutting towards zero.
    """
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert converter("millis", None)(moment) == micros // 1000
    assert converter("seconds", None)(moment) == micros // 1_000_000
    assert converter("any", None)(moment) == micros // 1000


@given(st.decimals(allow_nan=False, allow_infinity=False, places=40, min_value=-(10**14), max_value=10**14))
def test_decimal_times_are_floored_exactly(value: Decimal) -> None:
    """A decimal of seconds becomes milliseconds by exact arithmetic.

    Kills: multiplying in the decimal context, which rounds at 28 digits.
    """
    assert converter("millis", "s")(value) == math.floor(Fraction(value) * 1000)
    assert converter("seconds", "ms")(value) == math.floor(Fraction(value) / 1000)


@given(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)
    | st.decimals(-1000, 1000, places=2)
    | st.integers(2**63 - 2, 2**63 + 2).map(Decimal)
)
def test_a_decimal_is_a_json_number_only_where_it_reads_back_the_same(value: Decimal) -> None:
    """No digit of a decimal is lost on the way into a map: it is exact, or refused.

    Kills: `float(value)` for every decimal.
    """
    whole = value == value.to_integral_value() and -(2**63) <= value < 2**63
    if whole or Decimal(repr(float(value))) == value:
        assert Decimal(json.dumps(converter("any", None)(value))) == value
    else:
        with pytest.raises(Unfit, match="more digits"):
            converter("any", None)(value)


@given(
    st.one_of(st.integers(-(10**25), 10**25).map(str), st.text(max_size=5), st.sampled_from(["१", "1_0", " 1", "+5"]))
)
def test_text_is_a_whole_number_by_digits_only(text: str) -> None:
    """Only plain ASCII digits with a sign are a number; spaces, underscores and other scripts are refused.

    Kills: `int(text)` as the whole test.
    """
    digits = text.removeprefix("-").removeprefix("+") if text[:1] in "+-" else text
    good = digits.isascii() and digits.isdigit() and len(digits) <= 19 and text.count("+") + text.count("-") <= 1
    if good:
        assert converter("long", None)(text) == int(text)
    else:
        with pytest.raises(Unfit):
            converter("long", None)(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.dates()
    | st.uuids()
    | zoned,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.tuples(st.just("x.Y"), st.dictionaries(st.text(max_size=3), inner, max_size=2))
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_maps_come_out_in_json(value: dict[str, Any]) -> None:
    """A map of anything but bytes is JSON afterwards, with every key; as a map of texts it has texts and no nulls."""
    mapped = converter("map", None)(value)
    assert mapped == json.loads(json.dumps(mapped))
    assert list(mapped) == list(value)
    texts = converter("string_map", None)(value)
    assert list(texts) == [key for key, inner in value.items() if inner is not None]
    assert all(type(text) is str for text in texts.values())


def test_records_of_texts_have_each_value_as_text() -> None:
    """A list of records for a field of texts has numbers as digits and no nulls; anything else is refused."""
    convert = converter("string_records", None)
    assert convert(None) is None
    assert convert([{"id": 42, "kind": "shop", "none": None}, ("x.Y", {"id": True})]) == [
        {"id": "42", "kind": "shop"},
        {"id": "true"},
    ]
    for value in ("x", {"id": 1}, ["x"]):
        with pytest.raises(Unfit):
            convert(value)
