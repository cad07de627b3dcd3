"""The values that all packages pass on, from a Kafka message to its outcome.

All are immutable. What exists once for each record or delivery is a `msgspec.Struct`: C code builds it, its fields are
read at the least cost that Python has, and the garbage collector, which would find no cycle in it, leaves it out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec import Struct

NO_TIMESTAMP: Final = -1

Headers = Sequence[tuple[str, bytes | None]]

HEADER_CHARGE: Final = 160
"""Bytes that a header takes in addition to its name and value: the pair, the objects."""

UNREADABLE_HEADERS: Final[Headers] = (("connector-unreadable-headers", None),)
"""In place of headers that the client library cannot read, because a name is not UTF-8; known by its identity."""

TopicPartition = tuple[str, int]
"""A partition: its topic's name and its number."""


class Position(NamedTuple):
    """A record's place: topic, partition and offset."""

    topic: str
    partition: int
    offset: int


class Record(Struct, frozen=True, gc=False):
    """A Kafka message as it came. `timestamp` is in milliseconds since 1970, or `NO_TIMESTAMP`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def position(self) -> Position:
        """The record's place."""
        return Position(self.topic, self.partition, self.offset)


class LogicalType(NamedTuple):
    """A logical type of Avro: its name, and a decimal's scale."""

    name: str
    scale: int = 0


class LogicalValue(Struct, frozen=True, gc=False):
    """A value of a logical type as it was written: a number, or bytes.

    It is converted where a mapping asks for it: a value out of range does no harm in a field that no route uses.
    """

    type: LogicalType
    raw: int | bytes


class DecodedKey(Struct, frozen=True, gc=False):
    """A record's key that names a schema: its datum, or the fault for which it has none."""

    datum: Any
    fault: str | None = None


class Event(Struct, frozen=True, gc=False):
    """A decoded record: the full name of the schema it was written with, and the datum.

    A union of several records inside a contract schema decodes to `(full name, datum)`. `key` is set if the record's
    key names a schema and a route reads the key; any other key is text.
    """

    schema: str
    datum: dict[str, Any]
    key: DecodedKey | None = None


class Item(Struct, frozen=True, gc=False):
    """One event as the bytes that go into a request body.

    `weight` counts against the vendor's records of a batch. An item whose `merge_key` is already in a batch adds
    neither bytes nor weight to it. `expires_at` (epoch milliseconds) is when a rule that held at preparation
    stops to hold, so a late retry checks it again. `context` is for the vendor's own `request` and `read`.
    """

    body: bytes
    weight: int = 1
    merge_key: Hashable = None
    expires_at: int | None = None
    context: Any = None


@dataclass(frozen=True, slots=True)
class QuestionShape:
    """What plain questions of a query vendor are as items, for compiled code (`vendors.base.Shaped`).

    The contract schema has the fields `id`, a string, and `query`, a union of records. A record of `groups`, which are
    full names and the group of each, has the one field `subject`, a whole number of 64 bits. The number is the body and
    the merge key; what `context` makes of id, group, number, an empty tuple and the present time is the context.
    """

    id: str
    query: str
    subject: str
    groups: tuple[tuple[str, str], ...]
    context: Callable[[str, str, int, tuple[str, ...], int], Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A vendor's answer to one question, to be produced to the destination's results topic as an Avro record."""

    schema: str
    datum: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that will not be delivered, and why. Times are epoch seconds."""

    record: Record
    cause: str
    code: str | None
    message: str
    failed_at: float
    dedup_id: str
    field: str | None = None
    vendor: str | None = None
    destination: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    attempts: int = 0
    first_attempt: float | None = None
    replayed: bool = False
    """Whether the record is a replay, so that a block of dead-letter headers on it is ours; anyone can write others."""


class OffsetRange(NamedTuple):
    """Records of one partition without a gap between their offsets; `last` belongs to it."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A batch that a vendor accepted. Times are epoch seconds, `positions` ascend; `request_id` is the vendor's own."""

    id: str
    destination: str
    vendor: str
    positions: tuple[OffsetRange, ...]
    records: int
    delivered_at: float
    first_attempt: float | None
    attempts: int
    http_status: int | None
    request_id: str | None


DEDUP_NAMESPACE: Final = bytes.fromhex("6f1e3b52c0a6524f9a4b1d5a7c2f9e10")
"""The namespace of dedup ids; another one would make every event new to its vendor."""
_DEDUP_SHA1: Final = hashlib.sha1(DEDUP_NAMESPACE, usedforsecurity=False)
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""A digit of the hash with its two highest bits set to 10, which is the variant of RFC 9562."""


def uuid5_text(name: str) -> str:
    """Return the UUIDv5 (RFC 9562, 5.5) of a name in the connector's own namespace as text.

    Same result as `uuid.uuid5`, at a third of its cost: it is computed for every record.
    """
    sha1 = _DEDUP_SHA1.copy()
    sha1.update(name.encode())
    digits = sha1.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


class Assigned(NamedTuple):
    """A partition given to this member: where reading starts, and what the group had committed for it.

    `committed` is None where the group has no offset; `metadata` is the text committed with it, perhaps empty.
    """

    topic: str
    partition: int
    start: int
    committed: int | None
    metadata: str


class FinalFault(str):
    """Why a commit failed, if committing again cannot succeed: the member was expelled, or the topic is gone."""

    __slots__ = ()


class LongMetadata(str):
    """Why a commit failed, if its metadata is longer than the group's coordinator takes: one with less can succeed."""

    __slots__ = ()


class Commit(NamedTuple):
    """An explicit commit: the offset below which everything is done, and the offset map as text."""

    topic: str
    partition: int
    offset: int
    metadata: str
