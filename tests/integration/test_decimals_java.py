"""A table of decimals in Apache Avro's Java library: the same digits from the same bytes, or a stated difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from connector.codec.reader import reader_of
from connector.records import LogicalValue
from connector.routing.conversions import to_string
from tests.integration.java_source import run_source
from tests.unit.codec.corpus import long_bytes

TYPES: Final = [
    *(
        (precision, scale)
        for precision in (1, 2, 5, 18, 38, 64, 77, 1000)
        for scale in (0, 1, precision // 2, precision)
    ),
    *((5, 6), (64, 127), (0, 0), (-1, 0), (5, -1), ("5", 2), (None, 0), (5, "2"), (5.0, 2)),
]
"""Precision and scale, the extremes of each and those that the specification says to ignore."""
UNSCALED: Final = (
    0,
    1,
    -1,
    9,
    -9,
    127,
    128,
    -128,
    -129,
    1234,
    -1234,
    99_999,
    1_234_567_891,
    -(2**63),
    10**38,
    -(10**64),
)
SIZES: Final = (1, 2, 4, 8, 12, 16, 32)
EMPTY: Final = "NumberFormatException"
"""What Java says of a decimal of no bytes. Here it is 0: other writers leave out the only byte of a zero."""


class Row(NamedTuple):
    """A schema of a decimal, a payload, and the bytes that the payload holds."""

    schema: dict[str, Any]
    payload: bytes
    content: bytes


def rows() -> Iterator[Row]:
    """Yield every type with every number that it may hold, in the fewest bytes, padded, and as a fixed."""
    for precision, scale in TYPES:
        logical = {"logicalType": "decimal", "precision": precision, "scale": scale}
        for number in UNSCALED:
            least = (number if number >= 0 else ~number).bit_length() // 8 + 1
            for width in (least, least + 1, least + 5):
                content = number.to_bytes(width, "big", signed=True)
                yield Row({"type": "bytes", **logical}, long_bytes(width) + content, content)
            for size in (size for size in SIZES if size >= least):
                content = number.to_bytes(size, "big", signed=True)
                yield Row({"type": "fixed", "name": "f", "size": size, **logical}, content, content)
        yield Row({"type": "bytes", **logical}, b"\0", b"")


def ours(row: Row) -> str:
    """Return a payload as our reader and the mapping's text give it."""
    value, end = reader_of(row.schema)(row.payload, 0)
    assert end == len(row.payload)
    if isinstance(value, LogicalValue):
        return str(to_string(value))
    assert value == row.content
    return "no decimal"


@pytest.mark.timeout(90)
def test_java_reads_the_same_decimals(tmp_path: Path) -> None:
    """Every digit and every zero at the end, whatever precision says; a type that is not valid is ignored by both.

    Kills: a decimal cut to its precision; a sign lost in padded bytes; another limit of digits for a fixed's size.
    """
    table = list(rows())
    file = tmp_path / "table.tsv"
    file.write_text("".join(f"{json.dumps(row.schema)}\t{row.payload.hex()}\n" for row in table), encoding="utf-8")
    found = run_source("DecimalTable", "avro", str(file)).splitlines()
    assert len(found) == len(table) > 2000
    differing = [(row, java) for row, java in zip(table, found, strict=True) if ours(row) != java]
    assert {java for _, java in differing} <= {EMPTY}
    assert all(row.content == b"" for row, _ in differing), differing[:3]
