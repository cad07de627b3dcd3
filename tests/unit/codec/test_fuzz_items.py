"""Compiled code takes any bytes for items: it writes what the steps make, or leaves the record to them.

`make fuzz` gives it many more (`FUZZ_EXAMPLES`, `FUZZ_SECONDS`), and takes a reader that is built with sanitizers.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.codec.encoder import compile_write
from connector.codec.schemas import load_contracts
from connector.records import Record
from connector.vendors.jpush_answers import RESULT
from tests.unit.codec import test_items, test_items_mapped
from tests.unit.codec.test_fuzz import LONGS
from tests.unit.codec.test_items import KINDS, NOW, PLAIN, decoder_of, record_of, value_of, vendor_of
from tests.unit.codec.test_items_mapped import ROUTES, plain_for

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "100"))
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "1"))

Compare = Callable[[bytes], int]


def _of_vendor(name: str) -> Compare:
    vendor, decoder = vendor_of(name), decoder_of(name)
    return lambda value: test_items.assert_same(vendor, decoder, [record_of(0, value)])


def _of_route(name: str) -> Compare:
    return lambda value: test_items_mapped.assert_same(name, [Record("topic", 3, 0, NOW, b"key", value, ())])


COMPARED: Final[dict[str, tuple[bytes, Compare]]] = {
    **{name: (value_of(name, PLAIN[name]), _of_vendor(name)) for name in KINDS},
    **{
        f"route {name}": (test_items_mapped.record_of(0, plain_for(name)).value or b"", _of_route(name))
        for name in ROUTES
    },
}
"""By name: a plain value, and what compares both ways of making items of a value."""


def spoiled(value: bytes, chance: random.Random) -> bytes:
    """Return a value with bytes changed, cut or added behind the ten that name its schema."""
    found = bytearray(value)
    for _ in range(1 + chance.randrange(3)):
        place = 10 + chance.randrange(len(found) - 9)
        new = chance.choice((*LONGS, b"", chance.randbytes(1), chance.randbytes(3), bytes(found[10:40])))
        found[place : place + chance.randrange(9)] = new
        if len(found) < 11:
            break
    return bytes(found[:4096])


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(sorted(COMPARED)), st.randoms(use_true_random=False))
def test_any_value_is_written_as_the_steps_do_or_not_at_all(name: str, chance: random.Random) -> None:
    """No crash and no other item. Kills: a read past the end; a value that only one of both ways takes."""
    value, compare = COMPARED[name]
    compare(spoiled(value, chance))


@pytest.mark.timeout(0)
def test_many_values_that_are_broken_at_random() -> None:
    """The same by chance instead of by search, from a seed that is shown."""
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns())))
    chance, until, count, written = random.Random(seed), time.monotonic() + SECONDS, 0, 0
    names = sorted(COMPARED)
    while time.monotonic() < until:
        name = chance.choice(names)
        value, compare = COMPARED[name]
        broken = spoiled(value, chance)
        try:
            written += compare(broken)
        except BaseException as error:
            raise AssertionError(f"FUZZ_SEED={seed}: {name}, {broken.hex()}") from error
        count += 1
    assert count > SECONDS
    print(f"{count} values, {written} of them plain, FUZZ_SEED={seed}")


@pytest.mark.slow
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=300), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_datum_is_written_or_refused(datum: Any) -> None:
    """The writer of results takes any datum. Kills: a write past the room that was reserved."""
    write = compile_write(load_contracts().schemas[RESULT].tree)
    result = {"query_id": "q", "endpoint": "e", "msg_id": None, "status": "found", "asked_at": 0, "raw": ""}
    try:
        assert isinstance(write(result | {"answer": datum}), bytes)
    except (ValueError, TypeError, AttributeError, OverflowError):
        assert (
            not isinstance(datum, dict)
            or any(
                isinstance(value, dict) or (isinstance(value, int) and not -(2**63) <= value < 2**63)
                for value in datum.values()
            )
            or any("\ud800" <= char <= "\udfff" for text in (*datum, *datum.values()) for char in str(text))
        )
