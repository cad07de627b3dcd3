"""The reader takes any bytes for any schema of the corpus: a datum or its own refusal, in bounded time and memory.

`make fuzz` gives it many more (`FUZZ_EXAMPLES`, `FUZZ_SECONDS`), and takes a reader that is built with sanitizers.
"""

from __future__ import annotations

import os
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.codec.reader import Broken, Mismatch, read_run, reader_of
from connector.codec.schemas import load_contracts, named_types
from connector.records import Event, Record
from tests.unit.codec.corpus import FILES, long_bytes, tree_of, written

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "600"))
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "1"))
MOST_SECONDS: Final = 2.0
"""Of the processor, for one payload of at most 4 KiB, with sanitizers; without them it is a hundredth of that."""
BYTES_OF_A_STEP: Final = 200
"""A step is at most one small object and its place in a container."""
STEPS: Final = 65_536
STEPS_OF_A_BYTE: Final = 8

TREES: Final = {
    **{file.stem: tree_of(file) for file in FILES},
    **{name: schema.tree for name, schema in load_contracts().schemas.items()},
}
PAYLOADS: Final = {name: [payload for payload, _ in written(tree)] for name, tree in TREES.items()}
LONGS: Final = (*map(long_bytes, (-(2**63), 2**63 - 1, -1, 2**31 - 1, 2**17)), b"\x80" * 9)
"""Counts and lengths at the edges: the least and the greatest of 64 bits, and one that does not end."""

Read = Callable[[bytes, int], tuple[Any, int]]


class Writer(NamedTuple):
    """A writer as `read_run` knows it."""

    name: str
    read: Read


def plain(tree: Any) -> Read:
    """Return the reader of keys and events."""
    return reader_of(tree)


def as_contract(tree: Any) -> Read:
    """Return the reader of contract events, with every map as JSON text and the names of union branches."""
    maps = [(record["name"], field["name"]) for record in _records(tree) for field in record["fields"]]
    return reader_of(tree, tagged=True, as_json=maps, logical=False)


def evolved(tree: Any) -> Read:
    """Return the reader of an older writer: fields that are skipped, and one that has a default."""
    records = _records(tree)
    if not isinstance(tree, dict) or tree not in records:
        return reader_of(tree, tree)
    # A field that has its type inside may define what another one names, so it stays.
    kept = [field for number, field in enumerate(tree["fields"]) if number % 2 or not isinstance(field["type"], str)]
    added = {"name": "added_later", "type": "string", "default": "x"}
    return reader_of(tree, {**tree, "fields": [*kept, added]})


def _records(tree: Any) -> list[dict[str, Any]]:
    return [node for node in named_types(tree).values() if isinstance(node, dict) and "fields" in node]


READERS: Final = {
    (name, kind.__name__): kind(tree) for name, tree in TREES.items() for kind in (plain, as_contract, evolved)
}


@st.composite
def payloads(draw: st.DrawFn, name: str) -> bytes:
    """Draw noise, or a payload of the schema with bytes changed, cut, repeated, or added, and counts at the edges."""
    value = bytearray(draw(st.sampled_from(PAYLOADS[name]) | st.binary(max_size=60)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(value)))
        new = draw(st.binary(max_size=9) | st.sampled_from(LONGS) | st.just(bytes(value[place : place + 40]) * 3))
        value[place : place + draw(st.integers(0, 9))] = new
    return bytes(value[:4096])


def outcome(read: Read, payload: bytes) -> object:
    """Return the datum and its end, or the reader's own refusal. Anything else is a fault, and so is a late end."""
    began = time.process_time()
    try:
        datum, end = read(payload, 0)
    except (Broken, Mismatch, UnicodeDecodeError) as refusal:
        datum, end = repr(refusal), 0
    assert end <= len(payload)
    assert time.process_time() - began < MOST_SECONDS
    return repr(datum), end


@pytest.mark.slow
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_bytes_are_a_datum_or_a_refusal(data: st.DataObject) -> None:
    """No other exception, no end behind the bytes, no long wait, and the same outcome with other bytes behind.

    Kills: a read past the end, an index out of bounds, a loop over items that are only claimed.
    """
    name, kind = data.draw(st.sampled_from(sorted(READERS)))
    payload = data.draw(payloads(name))
    read = READERS[name, kind]
    found = outcome(read, payload)
    if found == outcome(read, payload + b"\x00") or not payload:
        return
    # A payload that is cut may go on with the byte behind it. One that was read whole may not.
    assert isinstance(found, tuple)
    assert found[1] == 0


@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES // 4)
@given(st.data())
def test_any_bytes_cost_a_bounded_amount_of_memory(data: st.DataObject) -> None:
    """At most 200 bytes for each step, of which a payload has 65,536 and 8 more for each byte: 13 MB for an empty one.

    Kills: memory for items that are only claimed.
    """
    name, kind = data.draw(st.sampled_from(sorted(READERS)))
    payload = data.draw(payloads(name))
    tracemalloc.start()
    try:
        outcome(READERS[name, kind], payload)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < BYTES_OF_A_STEP * (STEPS + STEPS_OF_A_BYTE * len(payload))


@pytest.mark.slow
@pytest.mark.timeout(0)
@settings(max_examples=EXAMPLES // 4)
@given(st.data())
def test_a_run_ends_before_the_first_payload_that_is_broken(data: st.DataObject) -> None:
    """Many at once are read as each alone is. Kills: a run that reads on from a payload that ended too early."""
    name = data.draw(st.sampled_from(sorted(TREES)))
    read = READERS[name, "plain"]
    head = b"\0\0\0\0\1"
    values = [head[: data.draw(st.integers(0, 5) | st.just(5))] + data.draw(payloads(name)) for _ in range(4)]
    records = [Record("t", 0, number, -1, None, value, ()) for number, value in enumerate(values)]
    found = read_run(records, {head: Writer("n", read)}, Event)
    for record, event in zip(records, found, strict=False):
        assert record.value is not None
        datum, end = read(record.value, 5)
        assert (repr(event.datum), end) == (repr(datum), len(record.value))


@pytest.mark.timeout(0)
def test_many_payloads_that_are_broken_at_random() -> None:
    """The same by chance instead of by search: a hundred times as many in the same time, from a seed that is shown."""
    seed = int(os.environ.get("FUZZ_SEED", str(time.time_ns())))
    chance, until, count = random.Random(seed), time.monotonic() + SECONDS, 0
    names = sorted(READERS)
    while time.monotonic() < until:
        name, kind = key = chance.choice(names)
        value = bytearray(chance.choice(PAYLOADS[name]))
        for _ in range(chance.randrange(4)):
            place = chance.randrange(len(value) + 1)
            value[place : place + chance.randrange(9)] = chance.choice((*LONGS, b"", chance.randbytes(3), value[:40]))
        payload, count = bytes(value[:4096]), count + 1
        try:
            outcome(READERS[key], payload)
        except BaseException as error:
            raise AssertionError(f"FUZZ_SEED={seed}: {name}, {kind}, {payload.hex()}") from error
    assert count > SECONDS
    print(f"{count} payloads, FUZZ_SEED={seed}")


def test_the_files_are_all_used() -> None:
    """Every schema of the corpus and every contract has payloads, and a reader of each kind."""
    assert len(READERS) == 3 * len(TREES) > 3 * 65
    assert all(PAYLOADS.values())
