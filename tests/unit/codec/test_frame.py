"""A value says in one of four ways which schema it was written with; what says nothing is refused."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.codec.frames import APICURIO_HEADER, SCHEMA_HEADER, SchemaKey, frame
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


def test_apicurios_header_names_an_id() -> None:
    """An id of 8 bytes in the header, and the whole value is the datum. A global id is another number: refused."""
    record = _record(b"\0\0\0\0\1x", [("apicurio.value.encoding", b"BINARY"), (APICURIO_HEADER, bytes(7) + b"\x07")])
    assert frame(record, {}) == (SchemaKey("id", 7), 0)
    for name, content in (
        (APICURIO_HEADER, b"\0\0\0\x07"),
        (APICURIO_HEADER, b"\1" + bytes(7)),
        (APICURIO_HEADER, None),
    ):
        with pytest.raises(Refusal, match="allowed: an id of 8 bytes"):
            frame(_record(b"x", [(name, content)]), {})
    with pytest.raises(Refusal, match="use-id to contentId"):
        frame(_record(b"\0\0\0\0\1x", [("apicurio.value.globalId", bytes(7) + b"\x07")]), {})


def test_an_id_of_8_bytes_is_said_to_be_one() -> None:
    """Read as an id of 4 bytes it is 0: the message has the id and the producer's setting. Other zeros get no advice.

    Kills: advice that only names the number 0.
    """
    with pytest.raises(Refusal, match=r"looks like an id of 8 bytes \(77\).*Default4ByteIdHandler"):
        frame(_record(b"\0" + (77).to_bytes(8, "big") + b"datum"), {})
    for value in (bytes(5), bytes(9), bytes(8) + b"\1"[:0], b"\0\xff\xff\xff\xff\0\0\0\1"):
        with pytest.raises(Refusal) as caught:
            frame(_record(value), {})
        assert "8 bytes" not in caught.value.message


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
