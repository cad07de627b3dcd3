"""Jiguang events as bytes, written by fastavro from the contract's file and by none of the connector's code."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from typing import Any, Final, NamedTuple

from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from tools.servers import ROOT, Registry

SCHEMA: Final[dict[str, Any]] = json.loads((ROOT / "avro" / "JiguangUserEvent.avsc").read_text(encoding="utf-8"))
KNOWN_EVENT: Final = "page_view"
FIRST_CUID: Final = 10_000_000

_PARSED: Final = parse_schema(SCHEMA)
_FINGERPRINT: Final = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))


class Message(NamedTuple):
    """What is produced. `partition` None leaves the choice to the key."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int | None = None


def event(number: int, **changes: Any) -> dict[str, Any]:
    """Return event number `number` of a user of its own, so that its cuid names it at the vendor."""
    properties = {"page": f"/{number}", "depth": number % 7, "ratio": 0.5, "first": number % 2 == 0, "tags": ["a", "b"]}
    datum = {"cuid": FIRST_CUID + number, "eventName": KNOWN_EVENT, "itime": int(time.time() * 1000) - number}
    return {**datum, "randomId": None, "properties": properties, **changes}


def datum_bytes(datum: object, schema: Any = _PARSED) -> bytes:
    """Return the Avro datum alone."""
    out = io.BytesIO()
    schemaless_writer(out, schema, datum)
    return out.getvalue()


def wire(schema_id: int, datum: bytes) -> bytes:
    """Return a datum in Confluent's wire format."""
    return b"\x00" + schema_id.to_bytes(4, "big") + datum


def single_object(datum: bytes) -> bytes:
    """Return a datum of the contract schema in Avro's single-object encoding."""
    return b"\xc3\x01" + _FINGERPRINT + datum


def good(numbers: range, schema_id: int | None = None, partition: int | None = None) -> list[Message]:
    """Return good events, keyed by fifty users; without `schema_id` in single-object encoding."""
    messages = []
    for number in numbers:
        datum = datum_bytes(event(number))
        value = single_object(datum) if schema_id is None else wire(schema_id, datum)
        messages.append(Message(value, b"user-%d" % (number % 50), (("n", b"%d" % number),), partition))
    return messages


def register(registry: Registry, subject: str, schema: object) -> int:
    """Register a schema and return its id."""
    request = urllib.request.Request(
        f"{registry.url}/subjects/{subject}/versions",
        data=json.dumps({"schema": json.dumps(schema), "schemaType": "AVRO"}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["id"])
