"""The corpus of schemas: what was written is what is read, by our reader and by fastavro."""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any, Final

import pytest
from fastavro import parse_schema, schemaless_reader

from connector.codec.reader import reader_of
from connector.codec.schemas import without_logical_types
from tests.unit.codec.corpus import FILES, tree_of, written

FASTAVRO_REFUSES: Final = {"default_invalid", "enum_symbols_odd"}
"""Schemas that fastavro refuses whole, for a part that decoding does not need."""

TREES: Final = {file.stem: tree_of(file) for file in FILES}


def test_the_corpus_is_large_enough() -> None:
    """At least 60 schemas."""
    assert len(FILES) >= 60


@pytest.mark.parametrize("name", TREES)
def test_written_payloads_are_read_back(name: str) -> None:
    """Each payload at the limits of each type is decoded to the written value and read to its end.

    Kills: a branch by its name, a block with a size, a name that Avro does not allow.
    """
    read = reader_of(TREES[name], logical=False)
    for payload, datum in written(TREES[name]):
        assert read(payload, 0) == (datum, len(payload))
        if payload:
            with pytest.raises(ValueError, match=r"."):
                read(payload[:-1], 0)


@pytest.mark.parametrize("name", TREES)
def test_fastavro_reads_the_same(name: str) -> None:
    """fastavro, the reference, gives the same datum, floats of 32 bits apart; or it refuses the schema, as stated."""
    plain = without_logical_types(TREES[name])
    try:
        schema = parse_schema(json.loads(json.dumps(plain)))
    except Exception:  # noqa: BLE001 - fastavro lets KeyError and others through
        assert name in FASTAVRO_REFUSES
        return
    assert name not in FASTAVRO_REFUSES
    for payload, datum in written(TREES[name]):
        assert alike(schemaless_reader(BytesIO(payload), schema, None), datum)


def alike(found: Any, wanted: Any) -> bool:
    """Tell whether two data are the same, where a number may be a float of 32 bits in full."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-7, abs_tol=1e-45)
    return bool(found == wanted)
