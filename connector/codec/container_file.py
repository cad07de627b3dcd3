"""Dead letters as an Avro object container file, which any Avro library reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any, Final

from fastavro import parse_schema, writer

_TEXTS: Final = ("code", "field", "vendor", "destination", "request_id", "resolved")
_TIMES: Final = ("first_attempt", "origin_timestamp")

SCHEMA: Final[Mapping[str, Any]] = {
    "type": "record",
    "name": "ExportedLetter",
    "namespace": "connector.dead_letters",
    "doc": "A dead letter as connector dlq export writes it: the dlq- headers as fields, the record as it came.",
    "fields": [
        *({"name": name, "type": "string"} for name in ("id", "cause", "message", "dedup_id", "group")),
        {"name": "failed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        *({"name": f"origin_{name}", "type": kind} for name, kind in (("topic", "string"), ("partition", "int"))),
        {"name": "origin_offset", "type": "long"},
        {"name": "replays", "type": "int"},
        {"name": "attempts", "type": "int"},
        *({"name": name, "type": ["null", "string"], "default": None} for name in _TEXTS),
        # A Kafka timestamp may lie outside the years that a date of Python's can be, so these are plain numbers.
        *({"name": name, "type": ["null", "long"], "default": None} for name in _TIMES),
        {"name": "http_status", "type": ["null", "int"], "default": None},
        {"name": "edited", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "key", "type": ["null", "bytes"], "default": None},
        {"name": "value", "type": ["null", "bytes"], "default": None},
        {
            "name": "headers",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Header",
                    "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": ["null", "bytes"]}],
                },
            },
        },
    ],
}
"""The file's schema. Times are epoch milliseconds; `resolved` is null, `replayed` or `discarded`."""


def write_dead_letters(out: IO[bytes], dead_letters: Iterable[Mapping[str, Any]]) -> None:
    """Write a container file, compressed block by block; at most one block is held in memory."""
    writer(out, parse_schema(dict(SCHEMA)), dead_letters, codec="deflate")
