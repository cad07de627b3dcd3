"""Dead letters as an Avro object container file, which any Avro library reads."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from secrets import token_bytes
from typing import Any, Final, cast

import orjson

from connector.codec.editing import long_bytes, sized_bytes
from connector.codec.reader import writer_of

_TEXTS: Final = ("code", "field", "vendor", "destination", "request_id", "resolved")
_TIMES: Final = ("first_attempt", "origin_timestamp")

SCHEMA: Final[Mapping[str, Any]] = {
    "type": "record",
    "name": "ExportedLetter",
    "namespace": "connector.dead_letters",
    "doc": "A dead letter as connector dlq export writes it: the dlq- headers as fields, the record as it came.",
    "fields": [
        *({"name": name, "type": "string"} for name in ("id", "cause", "message", "dedup_id", "group")),
        # Times are plain numbers. A wrong clock may have written a year that Python's dates do not have, and a reader
        # that converts times to dates could then not read the file.
        {"name": "failed_at", "type": "long"},
        *({"name": f"origin_{name}", "type": kind} for name, kind in (("topic", "string"), ("partition", "int"))),
        {"name": "origin_offset", "type": "long"},
        {"name": "replays", "type": "int"},
        {"name": "attempts", "type": "int"},
        *({"name": name, "type": ["null", "string"], "default": None} for name in _TEXTS),
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


_write: Final = cast("Callable[[tuple[Any, ...]], bytes]", writer_of(SCHEMA))
_BLOCK: Final = 1 << 16
"""Bytes of rows after which a block of the file ends."""


class DeadLetterFile:
    """Writes a container file piece by piece. Holds in memory what was added and not yet taken.

    Not by Avro's libraries, because they would take half of an export's time.
    """

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._size = 0
        self._sync = token_bytes(16)
        about = {"avro.codec": b"deflate", "avro.schema": orjson.dumps(SCHEMA)}
        pairs = b"".join(sized_bytes(name.encode()) + sized_bytes(value) for name, value in about.items())
        self.ready = [b"Obj\x01" + long_bytes(len(about)) + pairs + b"\x00" + self._sync]
        """Pieces that are not yet taken."""

    def add(self, values: tuple[Any, ...]) -> None:
        """Add a dead letter: the values of the fields of `SCHEMA`, in their order."""
        row = _write(values)
        self._rows.append(row)
        self._size += len(row)
        if self._size >= _BLOCK:
            self._end_block()

    def take(self, *, last: bool) -> bytes:
        """Return the bytes that are ready; with `last` all of them. The pieces in order are the file."""
        if last and self._rows:
            self._end_block()
        taken, self.ready = b"".join(self.ready), []
        return taken

    def _end_block(self) -> None:
        # The fastest level: higher ones save a few percent of the size and take several times as long.
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        data = deflate.compress(b"".join(self._rows)) + deflate.flush()
        self.ready.append(long_bytes(len(self._rows)) + sized_bytes(data) + self._sync)
        self._rows, self._size = [], 0
