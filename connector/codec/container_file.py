"""Dead letters as an Avro object container file, which any Avro library reads."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema
from fastavro.write import Writer

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
        {"name": "event", "type": ["null", "string"], "default": None},
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
"""The file's schema. Times are epoch milliseconds; `resolved` is null, `replayed` or `discarded`; `event` is JSON and
only in an export of the console that hides fields; then key, value and headers may be `•••` or null."""


class DeadLetterFile:
    """Writes a container file piece by piece: what was added and not yet taken is held in memory."""

    def __init__(self) -> None:
        self._bytes = BytesIO()
        # Its fastest level: deflating is most of the work, and a better one saves a few percent of the size.
        self._writer = Writer(self._bytes, parse_schema(dict(SCHEMA)), codec="deflate", compression_level=1)

    def add(self, dead_letter: dict[str, Any]) -> None:
        """Add a dead letter, as `SCHEMA` has it."""
        self._writer.write(dead_letter)

    def take(self, *, last: bool) -> bytes:
        """Return the bytes that are ready; with `last` all of them. The file is every piece in its order."""
        if last:
            self._writer.flush()
        taken = self._bytes.getvalue()
        self._bytes.seek(0)
        self._bytes.truncate()
        return taken
