"""How a value or a key names the schema that it was written with. Pure.

- Confluent's wire format: 0, the schema's id (4 bytes, big-endian), the datum.
- Confluent's header form: header `__value_schema_id` with 0 and an id, or 1 and a GUID (16 bytes); the value is the
  datum.
- Apicurio's header form: header `apicurio.value.contentId` with the id (8 bytes, big-endian); the value is the datum.
- Avro's single-object encoding: C3 01, the schema's CRC-64-AVRO fingerprint (8 bytes, little-endian), the datum.
- Plain Avro: the datum alone; the configuration names the topic's schema.

Keys have the first three forms, with headers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple
from uuid import UUID

from connector.errors import Refusal, counted
from connector.records import Record

WIRE_MAGIC: Final = b"\x00"
SINGLE_OBJECT: Final = b"\xc3\x01"
SCHEMA_HEADER: Final = "__value_schema_id"
KEY_HEADER: Final = "__key_schema_id"
APICURIO_HEADER: Final = "apicurio.value.contentId"
APICURIO_KEY_HEADER: Final = "apicurio.key.contentId"
_APICURIO_GLOBAL: Final = "apicurio.value.globalId"
_APICURIO_KEY_GLOBAL: Final = "apicurio.key.globalId"
SCHEMA_HEADERS: Final = frozenset({SCHEMA_HEADER, APICURIO_HEADER, _APICURIO_GLOBAL})
KEY_HEADERS: Final = frozenset({KEY_HEADER, APICURIO_KEY_HEADER, _APICURIO_KEY_GLOBAL})

WIRE_LENGTH: Final = 5
"""Bytes before the datum in the wire format."""

SINGLE_LENGTH: Final = 10
"""Bytes before the datum in single-object encoding."""

_GUID_MAGIC: Final = 1
_MOST_ID: Final = 2**31 - 1
"""Ids of the registry are positive numbers of 32 bits."""

_ACCEPTED: Final = (
    "accepted: Confluent's wire format (0 and a schema id), a schema id in header __value_schema_id or "
    "apicurio.value.contentId, Avro single-object encoding (C3 01), and plain Avro if schemas.plain names the topic's "
    "schema"
)
_EIGHT_BYTES: Final = (
    "this looks like an id of 8 bytes ({}), which Apicurio's serializers write with DefaultIdHandler or "
    "Legacy8ByteIdHandler: set apicurio.registry.id-handler to the handler of 4 bytes (Default4ByteIdHandler; in "
    "version 2 apicurio.registry.as-confluent: true), or apicurio.registry.headers.enabled: true"
)
_GLOBAL_ID: Final = (
    "header {} names the schema by Apicurio's global id, which its Confluent API does not have: "
    "set apicurio.registry.use-id to contentId in the producer"
)
_LOOKS: Final = {ord("{"): ", like JSON text", ord("["): ", like JSON text", ord("O"): ", like an Avro file"}


class SchemaKey(NamedTuple):
    """The name of a writer's schema: its id or GUID in the registry, its fingerprint, or its full name."""

    kind: Literal["id", "guid", "fingerprint", "name"]
    value: int | str | bytes

    def __str__(self) -> str:
        """Return the key as messages show it."""
        value = self.value.hex() if isinstance(self.value, bytes) else self.value
        return f"{self.kind} {value}"


def frame(record: Record, plain: Mapping[str, str]) -> tuple[SchemaKey, int]:
    """Return the schema that a value was written with, and the index of its datum.

    A header takes precedence over the value's first bytes, and the settings (`plain`, by topic) over both. Raises
    `Refusal` (`decode.empty`, `decode.frame`) for a value that names no schema.
    """
    value = record.value or b""
    # The setting decides first: a plain value may begin with any byte, and so look like one of the other forms.
    if name := plain.get(record.topic):
        return SchemaKey("name", name), 0
    for header, content in record.headers:
        if header in SCHEMA_HEADERS:
            return _by_header(header, content or b""), 0
    if not value:
        raise Refusal("decode", "decode.empty", f"the value is empty; {_ACCEPTED}")
    if value[:1] == WIRE_MAGIC and len(value) >= WIRE_LENGTH:
        return _by_id(value[1:WIRE_LENGTH], value[WIRE_LENGTH : WIRE_LENGTH + 4]), WIRE_LENGTH
    if value[:2] == SINGLE_OBJECT and len(value) >= SINGLE_LENGTH:
        return SchemaKey("fingerprint", value[2:SINGLE_LENGTH]), SINGLE_LENGTH
    found = f"the value has {counted(len(value), 'byte')} and begins with {value[0]:#04x}{_LOOKS.get(value[0], '')}"
    raise Refusal("decode", "decode.frame", f"{found}; {_ACCEPTED}")


def key_frame(record: Record) -> tuple[SchemaKey, int] | None:
    """Return the schema that a record's key names, and the index of its datum; None for a key that names none.

    Raises `Refusal` as `frame` does.
    """
    key = record.key
    for header, content in record.headers:
        if key is not None and header in KEY_HEADERS:
            return _by_header(header, content or b""), 0
    # Most keys are text. Only one that names a schema is decoded.
    if key is None or key[:1] != WIRE_MAGIC or len(key) < WIRE_LENGTH:
        return None
    return _by_id(key[1:WIRE_LENGTH]), WIRE_LENGTH


def _by_id(content: bytes, rest: bytes = b"") -> SchemaKey:
    """Return the key of a registry's id. Any garbage that begins with 0 looks like an id, so the range is checked."""
    schema_id = int.from_bytes(content, "big")
    if 0 < schema_id <= _MOST_ID:
        return SchemaKey("id", schema_id)
    # An id of 8 bytes begins with four zero bytes. Read as an id of 4 bytes it is 0, which no registry assigns.
    looks = int.from_bytes(rest, "big") if schema_id == 0 and len(rest) == 4 else 0
    hint = f"; {_EIGHT_BYTES.format(looks)}" if looks else ""
    raise Refusal("decode", "decode.frame", f"the schema id is {schema_id}; ids are 1 to {_MOST_ID}{hint}")


def _by_header(header: str, content: bytes) -> SchemaKey:
    if header in (_APICURIO_GLOBAL, _APICURIO_KEY_GLOBAL):
        raise Refusal("decode", "decode.frame", _GLOBAL_ID.format(header))
    if header in (APICURIO_HEADER, APICURIO_KEY_HEADER):
        # Apicurio writes a long, but its Confluent API, which this connector asks, has ids of 32 bits.
        if len(content) == 8 and content[:4] == bytes(4):
            return _by_id(content[4:])
        allowed = "an id of 8 bytes that is a positive number of 31 bits"
    else:
        if len(content) == WIRE_LENGTH and content[:1] == WIRE_MAGIC:
            return _by_id(content[1:])
        if len(content) == 1 + 16 and content[0] == _GUID_MAGIC:
            return SchemaKey("guid", str(UUID(bytes=content[1:])))
        allowed = "0 and an id (4 bytes), or 1 and a GUID (16 bytes)"
    raise Refusal("decode", "decode.frame", f"header {header} has {counted(len(content), 'byte')}; allowed: {allowed}")
