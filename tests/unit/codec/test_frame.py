"""A value says in one of four ways which schema it was written with; what says nothing is refused."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.codec.decoder import SCHEMA_HEADER, SchemaKey, frame
from connector.errors import Refusal
from connector.records import Headers, Record

GUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def _record(value: bytes, headers: Headers = ()) -> Record:
    return Record("events", 0, 0, 0, None, value, headers)


@given(st.integers(1, 2**31 - 1), st.binary(max_size=9))
def test_the_wire_format_names_an_id(schema_id: int, body: bytes) -> None:
    """0 and four bytes name the id, big-endian, and the datum begins after them; also where it is empty."""
    value = b"\0" + schema_id.to_bytes(4, "big") + body
    assert frame(_record(value), {}) == (SchemaKey("id", schema_id), 5)


def test_the_header_form_names_an_id_or_a_guid() -> None:
    """The header's word stands above the value's first byte, and the whole value is the datum, be it empty."""
    by_guid = _record(b"\0rest", [("other", None), (SCHEMA_HEADER, b"\1" + GUID.bytes)])
    assert frame(by_guid, {}) == (SchemaKey("guid", str(GUID)), 0)
    assert frame(_record(b"", [(SCHEMA_HEADER, b"\0\0\0\0\x07")]), {}) == (SchemaKey("id", 7), 0)


def test_single_object_encoding_names_a_fingerprint() -> None:
    """C3 01 and eight bytes name the fingerprint."""
    assert frame(_record(b"\xc3\x01" + b"12345678" + b"x"), {}) == (SchemaKey("fingerprint", b"12345678"), 10)


def test_a_plain_topic_is_never_looked_at() -> None:
    """Plain Avro may begin with any byte, a zero too: the settings decide."""
    assert frame(_record(b"\0\0\0\0\1x"), {"events": "a.B"}) == (SchemaKey("name", "a.B"), 0)


@pytest.mark.parametrize(
    ("value", "code", "says"),
    [
        (b"", "decode.empty", "empty"),
        (b"\0\0\0\1", "decode.frame", "4 bytes"),
        (b"\xc3\x01abc", "decode.frame", "0xc3"),
        (b'{"cuid": 1}', "decode.frame", "JSON"),
        (b"\x05hello", "decode.frame", "0x05"),
    ],
)
def test_what_says_nothing_is_refused(value: bytes, code: str, says: str) -> None:
    """The refusal says what was found, in bytes and never in content, and what is accepted."""
    with pytest.raises(Refusal) as caught:
        frame(_record(value), {})
    assert (caught.value.cause, caught.value.code) == ("decode", code)
    assert says in caught.value.message
    assert "schemas.plain" in caught.value.message
    assert "cuid" not in caught.value.message


@pytest.mark.parametrize("content", [None, b"", b"\1short", b"\0" * 4, b"\2" + GUID.bytes])
def test_a_broken_header_is_refused(content: bytes | None) -> None:
    """A schema header of another length or version is refused, and the value is not guessed at."""
    with pytest.raises(Refusal, match=SCHEMA_HEADER):
        frame(_record(b"\0\0\0\0\1x", [(SCHEMA_HEADER, content)]), {})
