"""Writes and reads the headers of a dead letter, in the format of `docs/dead-letters.md`. Pure.

First come the record's own headers, byte for byte and in their order, then one block of the connector's, which begins
with `dlq-version`. Only a whole block is the connector's: a user's own header whose name begins with `dlq-` comes
before the block, so it belongs to the record and is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from connector.records import NO_TIMESTAMP, DeadLetter, Headers, Position, Record, uuid5_text

VERSION: Final = "1"
MESSAGE_LIMIT: Final = 1024
TEXT_LIMIT: Final = 256

_VERSION: Final = "dlq-version"
_REPLAYS: Final = "dlq-replays"
_EDITED: Final = "dlq-edited"
_LEFT_OUT: Final = "dlq-left-out"
_NAMES: Final = frozenset(
    {
        _VERSION,
        _REPLAYS,
        "dlq-id",
        "dlq-cause",
        "dlq-code",
        "dlq-field",
        "dlq-message",
        "dlq-vendor",
        "dlq-destination",
        "dlq-http-status",
        "dlq-request-id",
        "dlq-attempts",
        "dlq-first-attempt",
        "dlq-failed-at",
        "dlq-origin-topic",
        "dlq-origin-partition",
        "dlq-origin-offset",
        "dlq-origin-timestamp",
        "dlq-dedup-id",
        "dlq-group",
        _EDITED,
        _LEFT_OUT,
        "dlq-value-bytes",
        "dlq-value-sha256",
    }
)
RESOLVES: Final = "dlq-resolves"
RESOLUTION: Final = "dlq-resolution"
RESOLVED_AT: Final = "dlq-at"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ParsedDeadLetter:
    """What a dead letter's headers say. Times are epoch milliseconds; `original` are the record's own headers.

    `origin`, `origin_timestamp` and `dedup_id` are those of the first failure, `replays` counts the replays since;
    everything else is about the last failure.
    """

    id: str
    cause: str
    message: str
    failed_at: int
    origin: Position
    dedup_id: str
    group: str
    replays: int
    attempts: int
    original: tuple[tuple[str, bytes | None], ...]
    origin_timestamp: int = NO_TIMESTAMP
    code: str | None = None
    field: str | None = None
    vendor: str | None = None
    destination: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    first_attempt: int | None = None
    edited: tuple[str, ...] = ()
    """Paths of the event that were edited for its replays; if there are any, the value is not the source record's."""

    def first_record(self, record: Record) -> Record:
        """Return a dead letter or replayed record as it was first read: at its origin, without our headers."""
        return Record(*self.origin, self.origin_timestamp, record.key, record.value, self.original)


def to_headers(dead_letter: DeadLetter, *, group: str, left_out: Sequence[str] = ()) -> list[tuple[str, bytes | None]]:
    """Return the headers of the dead-letter record; `left_out` are its parts that do not fit (`value`, `headers`, …).

    A record that already has a block (it was replayed, and failed again) keeps that block's origin, dedup id and
    number of replays; the rest of the block is replaced. Untrusted texts are cut: the message at 1 KiB, others at 256
    bytes. So whatever a vendor answers, the block is under 3 KiB plus the names of topic, group and destination.
    """
    record = dead_letter.record
    before = parse(record.headers)
    origin, timestamp, dedup_id, replays = record.position, record.timestamp, dead_letter.dedup_id, 0
    original: Headers = record.headers
    edited: tuple[str, ...] = ()
    if before is not None:
        origin, timestamp, dedup_id = before.origin, before.origin_timestamp, before.dedup_id
        replays, original, edited = before.replays, before.original, before.edited
    if "headers" in left_out:
        original = ()
    value, message = record.value or b"", dead_letter.message
    if left_out:
        message = f"too large for the dead-letter topic, so without its {', '.join(left_out)}; {message}"
    block = {
        _VERSION: VERSION,
        "dlq-id": uuid5_text(f"{dedup_id}/{dead_letter.destination or ''}/{replays}"),
        "dlq-cause": dead_letter.cause,
        "dlq-code": dead_letter.code and _cut(dead_letter.code, TEXT_LIMIT),
        "dlq-field": dead_letter.field and _cut(dead_letter.field, TEXT_LIMIT),
        "dlq-message": _cut(message, MESSAGE_LIMIT),
        "dlq-vendor": dead_letter.vendor,
        "dlq-destination": dead_letter.destination,
        "dlq-http-status": dead_letter.http_status,
        "dlq-request-id": dead_letter.request_id and _cut(dead_letter.request_id, TEXT_LIMIT),
        "dlq-attempts": dead_letter.attempts or None,
        "dlq-first-attempt": None
        if dead_letter.first_attempt is None
        else _time_text(int(dead_letter.first_attempt * 1000)),
        "dlq-failed-at": _time_text(int(dead_letter.failed_at * 1000)),
        "dlq-origin-topic": origin.topic,
        "dlq-origin-partition": origin.partition,
        "dlq-origin-offset": origin.offset,
        "dlq-origin-timestamp": None if timestamp == NO_TIMESTAMP else _time_text(timestamp),
        "dlq-dedup-id": dedup_id,
        "dlq-group": group,
        _REPLAYS: replays,
        _EDITED: _cut(" ".join(edited), TEXT_LIMIT),
        _LEFT_OUT: " ".join(left_out),
        "dlq-value-bytes": len(value) if left_out else None,
        "dlq-value-sha256": sha256(value).hexdigest() if left_out else None,
    }
    ours = [(name, str(value).encode(errors="replace")) for name, value in block.items() if value not in (None, "")]
    return [*original, *ours]


def parse(headers: Headers) -> ParsedDeadLetter | None:
    """Return what the headers of a dead letter or replayed record say; None without a whole block of ours."""
    start = max((index for index, (name, _) in enumerate(headers) if name == _VERSION), default=None)
    if start is None:
        return None
    block = {name: value.decode(errors="replace") for name, value in headers[start:] if name in _NAMES and value}
    original = (*headers[:start], *(header for header in headers[start:] if header[0] not in _NAMES))
    if block.get(_VERSION) != VERSION:
        return None
    try:
        return _parsed(block, original)
    except (KeyError, ValueError, OverflowError):
        return None


def dead_letter_id(headers: Headers) -> str | None:
    """Return the `dlq-id` of a dead letter's block, in a tenth of the time of `parse`.

    None if there is no block with an id. Whether the block is whole only `parse` knows.
    """
    found: bytes | None = None
    for name, value in reversed(headers):
        if name == "dlq-id" and found is None:
            found = value or None
        elif name == _VERSION:
            return found.decode(errors="replace") if found and value == VERSION.encode() else None
    return None


def replayed(headers: Headers, edited: Sequence[str] = ()) -> list[tuple[str, bytes | None]]:
    """Return the headers of a dead letter's replay: the same, with `dlq-replays` increased by one.

    `edited` are the paths of the event that are changed now; they are added to `dlq-edited`. Raises `ValueError` if
    the headers are not a dead letter's.
    """
    dead_letter = parse(headers)
    if dead_letter is None:
        raise ValueError("the record is not a dead letter: it has no whole block of dlq- headers")
    start = max(index for index, (name, _) in enumerate(headers) if name == _VERSION)
    count = str(dead_letter.replays + 1).encode()
    paths = " ".join(dict.fromkeys((*dead_letter.edited, *(path.replace(" ", "%20") for path in edited))))
    kept = [header for index, header in enumerate(headers) if index < start or header[0] not in (_REPLAYS, _EDITED)]
    ours = [(_EDITED, _cut(paths, TEXT_LIMIT).encode())] if paths else []
    return [*kept, (_REPLAYS, count), *ours]


def resolution(dead_letter: str, kind: str, at: int) -> list[tuple[str, bytes | None]]:
    """Return the headers of the record that resolves a dead letter (its `dlq-id`) as `replayed` or `discarded`."""
    headers = ((RESOLVES, dead_letter), (RESOLUTION, kind), (RESOLVED_AT, _time_text(at)))
    return [(name, value.encode(errors="replace")) for name, value in headers]


def _parsed(block: Mapping[str, str], original: tuple[tuple[str, bytes | None], ...]) -> ParsedDeadLetter:
    status, first = block.get("dlq-http-status"), block.get("dlq-first-attempt")
    timestamp = block.get("dlq-origin-timestamp")
    return ParsedDeadLetter(
        id=block["dlq-id"],
        cause=block["dlq-cause"],
        message=block.get("dlq-message", ""),
        failed_at=_millis(block["dlq-failed-at"]),
        origin=Position(block["dlq-origin-topic"], int(block["dlq-origin-partition"]), int(block["dlq-origin-offset"])),
        dedup_id=block["dlq-dedup-id"],
        group=block["dlq-group"],
        replays=int(block.get(_REPLAYS, "0")),
        attempts=int(block.get("dlq-attempts", "0")),
        original=original,
        origin_timestamp=NO_TIMESTAMP if timestamp is None else _millis(timestamp),
        code=block.get("dlq-code"),
        field=block.get("dlq-field"),
        vendor=block.get("dlq-vendor"),
        destination=block.get("dlq-destination"),
        http_status=None if status is None else int(status),
        request_id=block.get("dlq-request-id"),
        first_attempt=None if first is None else _millis(first),
        edited=tuple(block.get(_EDITED, "").split()),
    )


def _cut(text: str, limit: int) -> str:
    """Return the longest beginning of `text` whose UTF-8 is at most `limit` bytes, whole characters only."""
    data = text.encode(errors="replace")
    return data[:limit].decode(errors="ignore")


def _time_text(millis: int) -> str:
    """Return ISO 8601 in UTC with milliseconds; outside the years 1 to 9999, the number."""
    try:
        moment = _EPOCH + millis * _MILLISECOND
    except OverflowError:
        return str(millis)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _millis(text: str) -> int:
    if text.lstrip("-").isdecimal():
        return int(text)
    return (datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND
