"""The compiled reader of a dead letter's headers takes any headers. `make fuzz` gives it many more."""

from __future__ import annotations

import os
import re
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.dead_letters.block import KINDS, Form, id_of, read_block, time_text

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "100"))
BOUNDS: Final = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 40)
FORMS: Final = st.builds(Form, st.just("x_field"), st.sampled_from(sorted(KINDS)), BOUNDS, BOUNDS)
TIMES: Final = st.datetimes().map(lambda moment: moment.isoformat(timespec="milliseconds") + "Z")
VALUES: Final = (
    st.binary(max_size=40)
    | st.text("0123456789abcdef-T:.Z_ ", max_size=40).map(str.encode)
    | (TIMES | st.uuids().map(str) | st.integers(-(2**64), 2**64).map(str)).map(str.encode)
    | st.none()
)
HEADERS: Final = st.lists(st.tuples(st.sampled_from(["first", "x", "own", "left"]), VALUES), max_size=8)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|-?\d+")


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(HEADERS, FORMS)
def test_any_headers_are_a_block_or_none(headers: list[tuple[str, bytes | None]], form: Form) -> None:
    """Own headers are kept, and ids found, whatever is in the block. Kills: a read past a value's end."""
    starts = [index for index, (name, _) in enumerate(headers) if name == "first"]
    version = headers[starts[-1]][1] if starts else None
    found = read_block(headers, "first", version or b"1", {"x": form}, frozenset({"left"}))
    if found is not None:
        _, own = found
        start = starts[-1]
        assert own == (*headers[:start], *(each for each in headers[start:] if each[0] == "own"))
    assert found is None or starts
    found_id = id_of(headers, "x", "first", b"1")
    assert found_id is None or isinstance(found_id, str)


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(st.integers(-(2**63), 2**63 - 1))
def test_any_number_is_a_time(millis: int) -> None:
    """Kills: a year of five digits in a text for four."""
    assert _TIME.fullmatch(time_text(millis))
