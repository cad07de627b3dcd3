"""Dead letters as JSON Lines, as CSV, and as an Avro container file."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, Final, Literal, NamedTuple

import orjson

from connector.dead_letters.block import time_text
from connector.dead_letters.container_file import DeadLetterFile
from connector.dead_letters.reader import DeadLetterEntry
from connector.records import NO_TIMESTAMP

Format = Literal["jsonl", "csv", "avro"]

FORMATS: Final[Mapping[Format, tuple[str, str]]] = {
    "jsonl": ("JSON Lines", "application/jsonl; charset=utf-8"),
    "csv": ("CSV", "text/csv; charset=utf-8"),
    "avro": ("Avro", "application/avro"),
}
"""Each format's name for people, and its media type."""
_PIECE: Final = 1 << 20
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of a cell that a spreadsheet would run as a formula."""


class Content(NamedTuple):
    """The parts of the record that an export contains. Text instead of bytes is a placeholder for hidden bytes.

    With `masked` fields, the event without them takes the place of the value.
    """

    message: str
    key: bytes | str | None
    value: bytes | str | None
    headers: Sequence[tuple[str, bytes | str | None]]
    event: Any = None
    masked: bool = False


def content_of(dead_letter: DeadLetterEntry) -> Content:
    """Return everything, byte for byte."""
    record, facts = dead_letter.record, dead_letter.facts
    return Content(facts.message, record.key, record.value, facts.original)


def facts_json(dead_letter: DeadLetterEntry) -> dict[str, Any]:
    """Return what `list --json` prints of a dead letter: its headers' facts, without key and value."""
    facts = dead_letter.facts
    origin = facts.origin
    return {
        "id": facts.id,
        "state": dead_letter.state,
        "cause": facts.cause,
        "code": facts.code,
        "field": facts.field,
        "message": facts.message,
        "vendor": facts.vendor,
        "destination": facts.destination,
        "http_status": facts.http_status,
        "request_id": facts.request_id,
        "attempts": facts.attempts,
        "first_attempt": None if facts.first_attempt is None else time_text(facts.first_attempt),
        "failed_at": time_text(facts.failed_at),
        "origin": {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset},
        "origin_timestamp": None if facts.origin_timestamp == NO_TIMESTAMP else time_text(facts.origin_timestamp),
        "dedup_id": facts.dedup_id,
        "group": facts.group,
        "replays": facts.replays,
        "edited": list(facts.edited),
    }


def record_json(dead_letter: DeadLetterEntry, content: Content) -> dict[str, Any]:
    """Return what `export` writes as one JSON line: the headers' facts, and the original record in base64."""
    event = {"event": content.event} if content.masked else {}
    return {
        **facts_json(dead_letter),
        "message": content.message,
        "key": base64_text(content.key),
        "value": base64_text(content.value),
        "headers": [{"name": name, "value": base64_text(value)} for name, value in content.headers],
        **event,
    }


class Exporter:
    """Writes dead letters in a format, piece by piece."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._file = DeadLetterFile() if form == "avro" else None
        self._pieces: list[bytes] = []
        self._size = 0
        if form == "csv":
            # Spreadsheets read a file as UTF-8 only if it begins with this mark.
            self._put("\ufeff".encode() + _csv_line(_CSV))

    def add(self, dead_letter: DeadLetterEntry, content: Content) -> None:
        """Add a dead letter."""
        if self._file is not None:
            self._file.add(_avro(dead_letter, content))
        elif self._form == "csv":
            self._put(_csv_line(_csv(dead_letter, content)))
        else:
            self._put(_json(record_json(dead_letter, content)) + b"\n")

    @property
    def full(self) -> bool:
        """Whether enough is buffered to take a piece."""
        return bool(self._file.ready) if self._file is not None else self._size >= _PIECE

    def take(self, *, last: bool = False) -> bytes:
        """Return the piece that is ready; with `last` everything. The pieces in order are the file."""
        if self._file is not None:
            return self._file.take(last=last)
        piece = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return piece

    def _put(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)


def export(dead_letters: Iterable[DeadLetterEntry], out: IO[bytes], form: Format) -> int:
    """Write dead letters in a format, one by one; return how many."""
    exporter, count = Exporter(form), 0
    for count, dead_letter in enumerate(dead_letters, 1):  # noqa: B007 -- the last number is the count
        exporter.add(dead_letter, content_of(dead_letter))
        if exporter.full:
            out.write(exporter.take())
    out.write(exporter.take(last=True))
    return count


def _json(value: Any) -> bytes:
    """Return JSON. A lone surrogate, which UTF-8 cannot write, becomes a question mark."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return _json_of_anything(value)


def _json_of_anything(value: Any) -> bytes:
    """Return JSON of what orjson refuses: integers of more than 64 bits, and lone surrogates."""
    return json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")


_CSV: Final = (
    *("id", "state", "failed_at", "cause", "code", "field", "message", "vendor", "destination", "http_status"),
    *("request_id", "attempts", "first_attempt", "origin_topic", "origin_partition", "origin_offset"),
    *("origin_timestamp", "dedup_id", "group", "replays", "edited", "key", "key_base64", "value_base64"),
    *("headers", "event"),
)


def _csv(dead_letter: DeadLetterEntry, content: Content) -> list[str]:
    """Return the cells of a row: text as it is, bytes in base64, headers and event as JSON."""
    row = facts_json(dead_letter)
    row |= {f"origin_{name}": value for name, value in row["origin"].items()}
    row |= {
        "message": content.message,
        "edited": " ".join(row["edited"]),
        "key": content.key if isinstance(content.key, str) else _readable(content.key),
        "headers": _json([[name, base64_text(value)] for name, value in content.headers]).decode(),
        "event": "" if content.event is None else _json(content.event).decode(),
    }
    # Not guarded: digits and base64 are harmless as formulas.
    plain = {"key_base64": base64_text(content.key), "value_base64": base64_text(content.value)}
    cells = [row[name] if name in row else plain[name] for name in _CSV]
    return [_guarded(cell) if name in row else cell or "" for name, cell in zip(_CSV, cells, strict=True)]


def _guarded(cell: Any) -> str:
    """Return a cell's text, with a quote in front if a spreadsheet would run it as a formula."""
    text = "" if cell is None else str(cell)
    # Only text is guarded: a negative number begins with "-" too, and is harmless.
    return f"'{text}" if isinstance(cell, str) and text.startswith(_FORMULA) else text


def _readable(key: bytes | None) -> str:
    """Return a key as text; empty if it is none."""
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _csv_line(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode(errors="replace")


def _avro(dead_letter: DeadLetterEntry, content: Content) -> tuple[Any, ...]:
    """Return the values of the file's fields, in the order of its schema."""
    facts = dead_letter.facts
    return (
        *(facts.id, facts.cause, content.message, facts.dedup_id, facts.group, facts.failed_at, *facts.origin),
        *(facts.replays, facts.attempts, facts.code, facts.field, facts.vendor, facts.destination, facts.request_id),
        None if dead_letter.state == "open" else dead_letter.state,
        facts.first_attempt,
        None if facts.origin_timestamp == NO_TIMESTAMP else facts.origin_timestamp,
        facts.http_status,
        None if content.event is None else _json(content.event).decode(),
        *(facts.edited, _as_bytes(content.key), _as_bytes(content.value)),
        [(name, _as_bytes(value)) for name, value in content.headers],
    )


def _as_bytes(data: bytes | str | None) -> bytes | None:
    """Return a placeholder for hidden bytes as bytes, and everything else unchanged."""
    return data.encode() if isinstance(data, str) else data


def base64_text(data: bytes | str | None) -> str | None:
    """Return bytes in base64; a placeholder for hidden bytes, and None, unchanged."""
    return data if data is None or isinstance(data, str) else base64.b64encode(data).decode()
