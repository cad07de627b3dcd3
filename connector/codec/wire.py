"""How a value says which schema it was written with. Pure.

- Confluent's wire format: 0, the schema's id (4 bytes, big-endian), the datum.
- Confluent's header form: header `__value_schema_id` with 0 and an id, or 1 and a GUID (16 bytes); the value is the
  datum.
- Avro's single-object encoding: C3 01, the schema's CRC-64-AVRO fingerprint (8 bytes, little-endian), the datum.
- Plain Avro: the datum alone; the topic's configuration names the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple
from uuid import UUID

from connector.errors import Refusal
from connector.records import Record

WIRE_MAGIC: Final = b"\x00"
SINGLE_OBJECT: Final = b"\xc3\x01"
SCHEMA_HEADER: Final = "__value_schema_id"

WIRE_LENGTH: Final = 5
"""Bytes before the datum in the wire format."""

SINGLE_LENGTH: Final = 10
"""Bytes before the datum in single-object encoding."""

_GUID_MAGIC: Final = 1
_ACCEPTED: Final = (
    "accepted are: Confluent's wire format (0 and a schema id), a schema id in header __value_schema_id, Avro "
    "single-object encoding (C3 01), and plain Avro where schemas.plain names the topic's schema"
)
_LOOKS: Final = {ord("{"): ", as JSON text does", ord("["): ", as JSON text does", ord("O"): ", as an Avro file does"}


class SchemaKey(NamedTuple):
    """What names a writer's schema: its id or GUID in the registry, its fingerprint, or its full name."""

    kind: Literal["id", "guid", "fingerprint", "name"]
    value: int | str | bytes

    def __str__(self) -> str:
        """Return the key as a person reads it."""
        value = self.value.hex() if isinstance(self.value, bytes) else self.value
        return f"{self.kind} {value}"


def frame(record: Record, plain: Mapping[str, str]) -> tuple[SchemaKey, int]:
    """Return which schema a value was written with, and where its datum begins.

    A header's word stands above the value's first bytes, and the settings' (`plain`, by topic) above both. Raises
    `Refusal` (`decode.empty`, `decode.frame`) for a value that says nothing of the kind.
    """
    value = record.value or b""
    if name := plain.get(record.topic):
        return SchemaKey("name", name), 0
    for header, content in record.headers:
        if header == SCHEMA_HEADER:
            return _header_key(content or b""), 0
    if not value:
        raise Refusal("decode", "decode.empty", f"the value is empty; {_ACCEPTED}")
    if value[:1] == WIRE_MAGIC and len(value) >= WIRE_LENGTH:
        return SchemaKey("id", int.from_bytes(value[1:WIRE_LENGTH], "big")), WIRE_LENGTH
    if value[:2] == SINGLE_OBJECT and len(value) >= SINGLE_LENGTH:
        return SchemaKey("fingerprint", value[2:SINGLE_LENGTH]), SINGLE_LENGTH
    found = f"the value has {len(value)} bytes and begins with {value[0]:#04x}{_LOOKS.get(value[0], '')}"
    raise Refusal("decode", "decode.frame", f"{found}; {_ACCEPTED}")


def _header_key(content: bytes) -> SchemaKey:
    if len(content) == WIRE_LENGTH and content[:1] == WIRE_MAGIC:
        return SchemaKey("id", int.from_bytes(content[1:], "big"))
    if len(content) == 1 + 16 and content[0] == _GUID_MAGIC:
        return SchemaKey("guid", str(UUID(bytes=content[1:])))
    raise Refusal(
        "decode",
        "decode.frame",
        f"header {SCHEMA_HEADER} has {len(content)} bytes; it is 0 and an id of 4 bytes, or 1 and a GUID of 16 bytes",
    )
