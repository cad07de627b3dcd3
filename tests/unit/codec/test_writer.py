"""The native writer of Avro: the bytes that fastavro writes, and fastavro's refusals."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.codec.encoder import compile_write
from connector.codec.reader import writer_of
from connector.codec.schemas import load_contracts
from connector.vendors.jpush_answers import RESULT

TREE: Final = load_contracts().schemas[RESULT].tree
TEXTS: Final = st.text(max_size=8) | st.sampled_from(["", "\x00", "é", "礼", "😀", "\ud800", "x" * 600])
LONGS: Final = st.integers(-(2**64), 2**64) | st.sampled_from([0, -1, 63, 64, -64, -65, -(2**63), 2**63 - 1, 2**63])
ODD: Final = st.none() | st.booleans() | st.floats() | st.binary(max_size=2) | st.lists(LONGS, max_size=1)
RESULTS: Final = st.fixed_dictionaries(
    {
        "query_id": TEXTS,
        "endpoint": TEXTS,
        "msg_id": st.none() | LONGS,
        "status": st.sampled_from(["found", "missing", "refused"]),
        "asked_at": LONGS,
        "answer": st.dictionaries(TEXTS, st.none() | LONGS | TEXTS, max_size=4),
        "raw": TEXTS,
    }
)


def by_fastavro(datum: Any) -> bytes | None:
    """Return what fastavro writes, None where it refuses."""
    stream = BytesIO()
    try:
        schemaless_writer(stream, parse_schema(TREE), datum, strict_allow_default=True)
    except Exception:  # noqa: BLE001 - fastavro raises anything
        return None
    return stream.getvalue()


def ours(datum: Any) -> bytes | None:
    """Return what the connector writes, None where it refuses."""
    try:
        return compile_write(TREE)(datum)
    except Exception:  # noqa: BLE001 - as fastavro
        return None


@settings(max_examples=300, deadline=None)
@given(RESULTS)
def test_a_result_has_fastavros_bytes(datum: dict[str, Any]) -> None:
    """Every text, number and branch. Kills: a wrong sign, a length in characters, a branch of another type."""
    assert ours(datum) == by_fastavro(datum)


@settings(max_examples=200, deadline=None)
@given(RESULTS, st.data())
def test_an_odd_result_is_judged_by_fastavro(datum: dict[str, Any], data: st.DataObject) -> None:
    """A field of another type, missing, or one too many. Kills: a default left out; a boolean as a number."""
    name = data.draw(st.sampled_from([*datum, "more"]))
    if data.draw(st.booleans()):
        datum[name] = data.draw(ODD | TEXTS | LONGS)
    else:
        datum.pop(name, None)
    assert ours(datum) == by_fastavro(datum)


def test_a_plain_result_is_written_natively() -> None:
    """The short way is taken. Kills: a writer that is never used."""
    datum = {
        "query_id": "q",
        "endpoint": "received",
        "msg_id": 1,
        "status": "found",
        "asked_at": 1_795_305_600_000,
        "answer": {"a": 1, "b": None, "c": "d"},
        "raw": "{}",
    }
    native = writer_of(TREE)
    assert native is not None
    assert native(datum) == by_fastavro(datum)


@pytest.mark.parametrize(
    "tree",
    [
        "double",
        {"type": "array", "items": "double"},
        ["int", "long"],
        ["null", {"type": "map", "values": "long"}],
        {"type": "bytes", "logicalType": "decimal", "precision": 4},
        {"type": "long", "logicalType": "timestamp-micros"},
        {"type": "record", "name": "R", "fields": [{"name": "f", "type": "float"}]},
    ],
)
def test_other_forms_are_left_to_fastavro(tree: Any) -> None:
    """A form that the writer does not have gives no writer. Kills: a schema that is written in part."""
    assert writer_of(tree) is None
