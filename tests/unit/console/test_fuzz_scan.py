"""The compiled passes over the index find what plain loops find. `make fuzz` gives them many more columns."""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.console import scan

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "100"))
TEXTS: Final = 5
TIMES: Final = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, 1, 2, 3])


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    """Draw columns of one length, and rows of them."""
    count = draw(st.integers(0, 12))
    numbers = st.lists(st.integers(0, TEXTS - 1), min_size=count, max_size=count)
    rows = draw(st.lists(st.integers(0, count - 1), max_size=20)) if count else []
    return {
        "rows": array("I", rows),
        "failed": array("q", draw(st.lists(TIMES, min_size=count, max_size=count))),
        **{name: array("H", draw(numbers)) for name in ("cause", "code", "destination")},
        "states": bytearray(draw(numbers)),
        "noted": array("I", draw(numbers)),
        "verdicts": bytearray(draw(st.lists(st.integers(0, 3), min_size=TEXTS, max_size=TEXTS))),
    }


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(columns(), st.data())
def test_rows_are_chosen_as_by_a_plain_loop(drawn: dict[str, Any], data: st.DataObject) -> None:
    """Kills: a row past a column's end; a place past the rows' end."""
    rows, most = drawn["rows"], data.draw(st.integers(0, TEXTS))
    begin = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(begin, len(rows)))
    states, verdicts, noted = drawn["states"], drawn["verdicts"], drawn["noted"]
    assert [*scan.below(rows, begin, end, states, most)] == [row for row in rows[begin:end] if states[row] < most]
    for name in ("failed", "cause", "noted"):
        number = data.draw(st.sampled_from([*drawn[name], 0]))
        assert [*scan.equal(rows, drawn[name], number)] == [row for row in rows if drawn[name][row] == number]
    assert [*scan.judged(rows, noted, verdicts, 1)] == [row for row in rows if verdicts[noted[row]] == 1]


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(columns(), TIMES, st.integers(1, 2**40), st.integers(0, 6))
def test_rows_are_counted_as_by_a_plain_loop(drawn: dict[str, Any], first: int, width: int, number: int) -> None:
    """Times of 64 bits are any time. Kills: a difference of two times that wraps around."""
    rows, failed, cause = drawn["rows"], drawn["failed"], drawn["cause"]
    assert [*scan.tally(rows, cause, TEXTS)] == [Counter(cause[row] for row in rows)[text] for text in range(TEXTS)]
    expected: defaultdict[int, list[int]] = defaultdict(lambda: [0] * number)
    for row in rows:
        if 0 <= failed[row] - first < width * number:
            expected[cause[row]][(failed[row] - first) // width] += 1
    found = scan.bins(rows, failed, cause, first, width, number)
    assert {text: [*counts] for text, counts in found.items()} == expected
    kinds: dict[tuple[int, int, int], list[int]] = {}
    for row in rows:
        kind = cause[row], drawn["code"][row], drawn["destination"][row]
        count, _, last = kinds.get(kind, [0, 0, failed[row]])
        kinds[kind] = [count + 1, failed[row], last]
    assert dict(scan.kinds(rows, failed, cause, drawn["code"], drawn["destination"])) == kinds


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(columns(), st.data())
def test_two_orders_become_one(drawn: dict[str, Any], data: st.DataObject) -> None:
    """The highest first, of equal ones the fresh first. Kills: a read past the end of the shorter order."""
    failed = drawn["failed"]
    rows = sorted(range(len(failed)), key=lambda row: (-failed[row], row))
    fresh = set(data.draw(st.sets(st.sampled_from(rows)))) if rows else set()
    new, old = ([row for row in rows if (row in fresh) == wanted] for wanted in (True, False))
    merged = [*scan.merged(array("I", old), array("I", new), failed)]
    assert merged == sorted(merged, key=lambda row: (-failed[row], row not in fresh, row))
    assert sorted(merged) == sorted(rows)
