"""Regular expressions on records' values: what is refused at start, and that no text takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.routing.conversions import Unfit
from connector.routing.patterns import LONGEST, bounded_search


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"(a|ab)*c",
        r"(a?b?)*",
        r"(x{0,20}){0,20}y",
        r"((a{1,5}){1,5}){1,5}$",
        r"(?:a?){30}a{30}",
        r"(a?){8}(a?){8}(a?){8}(a?){8}a{32}",
        r".*.*=.*.*",
        r"(?:a|a){1,16}b",
    ],
)
def test_patterns_that_can_run_away_are_refused(pattern: str) -> None:
    """A pattern that takes exponential time, or too much for any useful text, is a fault at start."""
    with pytest.raises(ValueError, match="exponential|too many repetitions"):
        bounded_search(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^login",
        r"\.(ru|cn)$",
        r"^(ios|android)(-beta)?$",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"^[a-z0-9._]+@[a-z0-9.]+\.[a-z]{2,6}$",
        r"^[a-z]+(?:-[a-z]++)*+$",
        r"(?i)bot|crawler|spider",
        r"^(?!test-)",
        r"^\+86\d{11}$",
        r"^a*a*a*b",
        r"(\w)\1",
    ],
)
@pytest.mark.parametrize("character", ["a", "1", ".", "-", "@"])
def test_useful_patterns_are_quick_on_the_longest_text(pattern: str, character: str) -> None:
    """The longest text that a pattern is applied to takes a fraction of a second; a longer one is refused."""
    search = bounded_search(pattern)
    length = LONGEST
    while length:
        began = time.process_time()
        try:
            search(character * length + "!")
        except Unfit:
            length //= 2
            continue
        assert time.process_time() - began < 1
        break
    assert length >= 64


@pytest.mark.parametrize(
    ("step", "mark", "has_one_end"),
    [
        ("[a-z]", ":", True),
        ("[a-z]", "m", False),
        ("[A-Z]", "m", False),
        ("[^;,]", ";", True),
        ("[^;,]", "a", False),
        (r"\d", "-", True),
        (r"\d", "5", False),
        (r"[\w.]", "-", True),
        (r"[\w.]", "a", False),
        ("x", "-", True),
        ("X", "x", False),
        (".", ";", False),
    ],
)
def test_a_repetition_that_can_end_at_one_place_only_costs_no_further_power(
    step: str, mark: str, has_one_end: bool
) -> None:
    """Three fields with a mark after each apply to the longest text only where the mark is in no field.

    Without regard to case, which a pattern may switch off anywhere. Kills: a text of 65,536 characters for a pattern
    that takes the cube of its length; `[^;]*;` refused like `.*;`.
    """
    search = bounded_search(f"^{step}*{mark}{step}*{mark}{step}*{mark}!")
    if has_one_end:
        assert not search("?" * LONGEST)
        return
    with pytest.raises(Unfit, match="too many"):
        search("?" * 1000)


def test_a_text_that_is_too_long_is_refused_without_its_value() -> None:
    """The refusal names the bound and not the text."""
    search = bounded_search("a.*b.*c")
    with pytest.raises(Unfit, match="too many for the pattern") as caught:
        search("secret" * 10_000)
    assert "secret" not in caught.value.why


pieces = st.sampled_from(["a", "b", ".", r"\w", "[ab]", "a+", "b*", ".*", "(a|b)", "a?", "^", "$", "{2}", r"\d{1,3}"])


@settings(deadline=None)
@given(st.lists(pieces, min_size=1, max_size=6).map("".join), st.text("ab1", max_size=20))
def test_a_bounded_search_finds_what_the_pattern_finds(pattern: str, text: str) -> None:
    """A pattern that is taken finds what `re.search` finds. Kills: `match` for patterns that are not anchored."""
    try:
        search = bounded_search(pattern)
    except ValueError:
        return
    assert search(text) == (re.search(pattern, text) is not None)
    assert search(None) is False
