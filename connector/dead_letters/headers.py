"""Writes and reads the headers of a dead letter, in the format of `docs/dead-letters.md`. Pure.

First come the record's own headers, byte for byte and in their order, then one block of the connector's, which begins
with `dlq-version`. Only a block that is exactly as this module writes it is the connector's. Anyone may put `dlq-`
headers on a record, so all other headers belong to the record and are kept as they came. So whatever bytes `parse` is
given, its result is bounded and valid, and no reader has to check it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from msgspec import Struct

from connector.dead_letters.block import Form, id_of, read_block, start_of, time_text
from connector.dead_letters.dialects import NAMES as DIALECT_NAMES
from connector.dead_letters.dialects import Dialect, dialect_headers
from connector.records import NO_TIMESTAMP, DeadLetter, Headers, Position, Record, uuid5_text

VERSION: Final = "1"
MESSAGE_LIMIT: Final = 1024
TEXT_LIMIT: Final = 256
NAME_LIMIT: Final = 32_767
"""Maximum bytes of a name (a group, a destination): Kafka's limit for a group id."""
MOST_REPLAYS: Final = (1 << 31) - 1
"""The same for attempts: an export writes both as Avro's int, and this is the largest one."""

_VERSION: Final = "dlq-version"
_ID: Final = "dlq-id"
_REPLAYS: Final = "dlq-replays"
_EDITED: Final = "dlq-edited"
_LEFT_OUT: Final = "dlq-left-out"
RESOLVES: Final = "dlq-resolves"
RESOLUTION: Final = "dlq-resolution"
RESOLVED_AT: Final = "dlq-at"

_NOT_A_DEAD_LETTER: Final = "the record is not a dead letter: it has no whole block of dlq- headers"
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ParsedDeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter's headers, parsed. Times are epoch milliseconds; `original` are the record's own headers.

    `origin`, `origin_timestamp` and `dedup_id` are those of the first failure, `replays` counts the replays since;
    everything else is about the last failure.
    """

    id: str
    cause: str
    failed_at: int
    origin: Position
    dedup_id: str
    group: str
    original: tuple[tuple[str, bytes | None], ...]
    message: str = ""
    replays: int = 0
    attempts: int = 0
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
    left_out: tuple[str, ...] = ()
    """Parts of the record that did not fit into the topic. `value_bytes` and `value_sha256` describe the value."""
    value_bytes: int | None = None
    value_sha256: str | None = None
    rest_sha256: str | None = None
    """The hash of key and headers if they did not fit; see `rest_hash`."""

    def first_record(self, record: Record) -> Record:
        """Return a dead letter or replayed record as it was first read: at its origin, without the added headers."""
        return Record(*self.origin, self.origin_timestamp, record.key, record.value, self.original)


def to_headers(
    dead_letter: DeadLetter, *, group: str, left_out: Sequence[str] = (), dialect: Dialect | None = None
) -> list[tuple[str, bytes | None]]:
    """Return the headers of the dead-letter record, with those of another tool's dialect if one is given.

    `left_out` are the record's parts that do not fit (`value`, `headers`, …). A replay that failed again keeps its
    block's origin, dedup id and number of replays; the rest of the block is replaced. A block on any other record
    belongs to that record. Untrusted texts are cut: the message to 1 KiB, others to 256 bytes. So the block is never
    larger than 3 KiB plus the names of topic, group and destination, whatever a vendor answers.
    """
    record, first = dead_letter.record, dead_letter.first_attempt
    # A block is trusted only in the replay topic. On a live record it may be a copy, and its ids are another event's.
    before = parse(record.headers) if dead_letter.replayed else None
    origin, timestamp, dedup_id, replays = record.position, record.timestamp, dead_letter.dedup_id, 0
    own: Headers = record.headers
    edited: tuple[str, ...] = ()
    if before is not None:
        origin, timestamp, dedup_id = before.origin, before.origin_timestamp, before.dedup_id
        replays, own, edited = before.replays, before.original, before.edited
    original = () if "headers" in left_out else own
    value, message = record.value or b"", dead_letter.message
    if left_out:
        message = f"too large for the dead-letter topic, so without its {', '.join(left_out)}; {message}"
    block = {
        _VERSION: VERSION,
        _ID: _dead_letter_id(dead_letter, group, origin, timestamp, replays),
        "dlq-cause": dead_letter.cause,
        "dlq-code": dead_letter.code and _cut(dead_letter.code, TEXT_LIMIT),
        "dlq-field": dead_letter.field and _cut(dead_letter.field, TEXT_LIMIT),
        "dlq-message": _cut(message, MESSAGE_LIMIT),
        "dlq-vendor": dead_letter.vendor,
        "dlq-destination": dead_letter.destination,
        "dlq-http-status": dead_letter.http_status,
        "dlq-request-id": dead_letter.request_id and _cut(dead_letter.request_id, TEXT_LIMIT),
        "dlq-attempts": dead_letter.attempts or None,
        "dlq-first-attempt": None if first is None else time_text(int(first * 1000)),
        "dlq-failed-at": time_text(int(dead_letter.failed_at * 1000)),
        "dlq-origin-topic": origin.topic,
        "dlq-origin-partition": origin.partition,
        "dlq-origin-offset": origin.offset,
        "dlq-origin-timestamp": None if timestamp == NO_TIMESTAMP else time_text(timestamp),
        "dlq-dedup-id": dedup_id,
        "dlq-group": group,
        _REPLAYS: replays,
        _EDITED: _cut(" ".join(edited), TEXT_LIMIT),
        _LEFT_OUT: " ".join(left_out),
        "dlq-value-bytes": len(value) if left_out else None,
        "dlq-value-sha256": sha256(value).hexdigest() if left_out else None,
        "dlq-rest-sha256": rest_hash(record.key, own) if "headers" in left_out else None,
    }
    # A vendor's text may have a lone surrogate, which UTF-8 cannot write. It must not stop the dead letter. A zero is
    # written: `dlq-replays` is never absent.
    ours = [(name, str(value).encode(errors="replace")) for name, value in block.items() if value not in (None, "")]
    if dialect is None:
        return [*original, *ours]
    cause, code, text = (str(block[name] or "") for name in ("dlq-cause", "dlq-code", "dlq-message"))
    theirs = dialect_headers(
        dialect, origin=origin, timestamp=timestamp, group=group, cause=cause, code=code or None, message=text
    )
    return [*original, *ours, *theirs]


def parse(headers: Headers) -> ParsedDeadLetter | None:
    """Parse the headers of a dead letter or replayed record; None if they have no complete block of the connector's."""
    found = read_block(headers, _VERSION, VERSION.encode(), _FORMS, DIALECT_NAMES)
    if found is None:
        return None
    values, original = found
    try:
        origin = Position(values.pop("topic"), values.pop("partition"), values.pop("offset"))
        return ParsedDeadLetter(origin=origin, original=original, **values)
    # A block that lacks a required header was cut or edited, so none of it can be trusted.
    except (KeyError, TypeError):
        return None


def dead_letter_id(headers: Headers) -> str | None:
    """Return the `dlq-id` of a dead letter's block, in a tenth of the time of `parse`.

    None if there is no block with an id. Does not check that the block is complete; `parse` does.
    """
    return id_of(headers, _ID, _VERSION, VERSION.encode())


def redirected(headers: Headers, destination: str, vendor: str) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers with another destination; the id stays. Raises as `replayed` does."""
    if parse(headers) is None:
        raise ValueError(_NOT_A_DEAD_LETTER)
    start = start_of(headers, _VERSION)
    # The id stays, so that the resolution still closes the dead letter that was replayed.
    ours = {"dlq-destination": destination.encode(), "dlq-vendor": vendor.encode()}
    kept = [header for index, header in enumerate(headers) if index < start or header[0] not in ours]
    return [*kept, *ours.items()]


def restored(headers: Headers, original: Headers) -> list[tuple[str, bytes | None]]:
    """Return a dead letter's headers with the left-out parts restored. Raises as `replayed` does."""
    if parse(headers) is None:
        raise ValueError(_NOT_A_DEAD_LETTER)
    block = headers[start_of(headers, _VERSION) :]
    gone = (_LEFT_OUT, "dlq-value-bytes", "dlq-value-sha256", "dlq-rest-sha256")
    # The other tool's headers in the block are dropped: they describe the dead letter without its value.
    return [*original, *(header for header in block if header[0] in _FORMS and header[0] not in gone)]


def replayed(headers: Headers, edited: Sequence[str] = ()) -> list[tuple[str, bytes | None]]:
    """Return the headers for a dead letter's replay: the same headers with `dlq-replays` increased by one.

    `edited` are the paths of the event that this replay changes; they are added to `dlq-edited`. Raises `ValueError` if
    the headers are not a dead letter's.
    """
    dead_letter = parse(headers)
    if dead_letter is None:
        raise ValueError(_NOT_A_DEAD_LETTER)
    start = start_of(headers, _VERSION)
    # Capped, because readers do not accept a block with a larger number.
    count = str(min(dead_letter.replays + 1, MOST_REPLAYS)).encode()
    paths = " ".join(dict.fromkeys((*dead_letter.edited, *(path.replace(" ", "%20") for path in edited))))
    kept = [header for index, header in enumerate(headers) if index < start or header[0] not in (_REPLAYS, _EDITED)]
    ours = [(_EDITED, _cut(paths, TEXT_LIMIT).encode())] if paths else []
    return [*kept, (_REPLAYS, count), *ours]


def rest_hash(key: bytes | None, headers: Headers) -> str:
    """Return the SHA-256 of a record's key and headers, each part preceded by its length in 8 bytes (null: -1)."""
    found = sha256()
    for part in (key, *(part for name, value in headers for part in (name.encode(errors="replace"), value))):
        found.update((-1 if part is None else len(part)).to_bytes(8, "big", signed=True) + (part or b""))
    return found.hexdigest()


def resolution(dead_letter: str, kind: str, at: int) -> list[tuple[str, bytes | None]]:
    """Return the headers of the record that marks a dead letter (its `dlq-id`) as `replayed` or `discarded`."""
    headers = ((RESOLVES, dead_letter), (RESOLUTION, kind), (RESOLVED_AT, time_text(at)))
    return [(name, value.encode(errors="replace")) for name, value in headers]


def _dead_letter_id(dead_letter: DeadLetter, group: str, origin: Position, timestamp: int, replays: int) -> str:
    """Return the id of one failure, made from the group, the first origin, the destination and the number of replays.

    A crash may write a dead letter twice. Both copies come from the same position, so they have the same id. The
    position is included if it is not the origin: records that carry copies of one block are still different failures.
    """
    position = dead_letter.record.position
    read_at = () if position == origin else position
    # Joined as JSON, because names may contain any separator: group "a.b" and topic "c" differ from group "a" and topic
    # "b.c".
    return uuid5_text(json.dumps([group, *origin, timestamp, dead_letter.destination, replays, *read_at]))


def read_resolution(headers: Headers) -> tuple[str, str, str] | None:
    """Return the id, `replayed` or `discarded`, and the time as text from the headers of a resolution record.

    None if they are not as `resolution` writes them, except for the time: an invalid time becomes empty.
    """
    found = {name: value for name, value in headers if value is not None}
    kind = {b"replayed": "replayed", b"discarded": "discarded"}.get(found.get(RESOLUTION, b""))
    identity, at = (found.get(name, b"").decode(errors="replace") for name in (RESOLVES, RESOLVED_AT))
    if kind is None or _UUID.fullmatch(identity) is None:
        return None
    return identity, kind, at if _TIME.fullmatch(at) else ""


def _cut(text: str, limit: int) -> str:
    """Return the longest beginning of `text`, in whole characters, that has at most `limit` bytes in UTF-8."""
    data = text.encode(errors="replace")
    return data[:limit].decode(errors="ignore")


_FORMS: Final = {
    _VERSION: Form("version", "text", TEXT_LIMIT),
    _ID: Form("id", "uuid"),
    "dlq-cause": Form("cause", "word", 32),
    "dlq-code": Form("code", "text", TEXT_LIMIT),
    "dlq-field": Form("field", "text", TEXT_LIMIT),
    "dlq-message": Form("message", "text", MESSAGE_LIMIT),
    "dlq-vendor": Form("vendor", "text", NAME_LIMIT),
    "dlq-destination": Form("destination", "text", NAME_LIMIT),
    "dlq-http-status": Form("http_status", "number", 999),
    "dlq-request-id": Form("request_id", "text", TEXT_LIMIT),
    "dlq-attempts": Form("attempts", "number", MOST_REPLAYS),
    "dlq-first-attempt": Form("first_attempt", "time"),
    "dlq-failed-at": Form("failed_at", "time"),
    "dlq-origin-topic": Form("topic", "topic", 249),
    "dlq-origin-partition": Form("partition", "number", (1 << 31) - 1),
    "dlq-origin-offset": Form("offset", "number"),
    "dlq-origin-timestamp": Form("origin_timestamp", "time"),
    "dlq-dedup-id": Form("dedup_id", "text", NAME_LIMIT),
    "dlq-group": Form("group", "text", NAME_LIMIT),
    _REPLAYS: Form("replays", "number", MOST_REPLAYS),
    _EDITED: Form("edited", "paths", TEXT_LIMIT),
    _LEFT_OUT: Form("left_out", "paths", TEXT_LIMIT),
    "dlq-value-bytes": Form("value_bytes", "number", (1 << 31) - 1),
    "dlq-value-sha256": Form("value_sha256", "hash", 64, 63),
    "dlq-rest-sha256": Form("rest_sha256", "hash", 64, 63),
}
"""Each header of the block: its field in `ParsedDeadLetter`, and what its value may be."""
