"""The values that all packages pass on, from a Kafka message to its outcome.

All are immutable. Values that exist once per record or delivery are `msgspec.Struct`s: C code builds them, reading
their fields is as cheap as it can be in Python, and the garbage collector does not track them, because they form no
cycles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from msgspec import Struct

NO_TIMESTAMP: Final = -1

Headers = Sequence[tuple[str, bytes | None]]

HEADER_CHARGE: Final = 160
"""Bytes that a header takes in addition to its name and value: the pair, the objects."""

UNREADABLE_HEADERS: Final[Headers] = (("connector-unreadable-headers", None),)
"""Stands for headers that the client library cannot read, because a name is not UTF-8. Compare by identity."""

TopicPartition = tuple[str, int]
"""A partition: its topic's name and its number."""


class Position(NamedTuple):
    """A record's place: topic, partition and offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return the place as all messages write it: `user-events[0]@1234`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


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

    It is converted only if a mapping uses it, so that a value out of range does no harm in an unused field.
    """

    type: LogicalType
    raw: int | bytes


class DecodedKey(Struct, frozen=True, gc=False):
    """A record's key that names a schema: its datum, or why it cannot be decoded."""

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
    neither bytes nor weight to it. `expires_at` (epoch milliseconds) is when a rule that it met at preparation is
    broken, so that a late retry checks again. `context` is for the vendor's own `request` and `read`.
    """

    body: bytes
    weight: int = 1
    merge_key: Hashable = None
    expires_at: int | None = None
    context: Any = None


@dataclass(frozen=True, slots=True)
class QuestionShape:
    """How compiled code turns plain questions of a query vendor into items (`vendors.base.Shaped`).

    The contract schema has the fields `id`, a string, and `query`, a union of records. `groups` maps full names of
    those records to groups; each of these records has one field `subject`, a whole number of 64 bits. The number
    becomes the body and the merge key. The item's context is what `context` returns for id, group, number, an empty
    tuple and the current time.
    """

    id: str
    query: str
    subject: str
    groups: tuple[tuple[str, str], ...]
    context: Callable[[str, str, int, tuple[str, ...], int], Any]


class Answer(Struct, frozen=True, gc=False):
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
    """Whether the record is a replay. Only then is a block of dead-letter headers trusted, because anyone can write
    one."""


class OffsetRange(NamedTuple):
    """Consecutive offsets of one partition; `last` is included."""

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
"""The namespace of dedup ids. With another one every event would be new to its vendor."""
_DEDUP_SHA1: Final = hashlib.sha1(DEDUP_NAMESPACE, usedforsecurity=False)
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""A digit of the hash with its two highest bits set to 10, which is the variant of RFC 9562."""


def uuid5_text(name: str) -> str:
    """Return the UUIDv5 (RFC 9562, 5.5) of a name in the connector's own namespace as text.

    The same result as `uuid.uuid5` at a third of its cost, because it is computed for every record.
    """
    sha1 = _DEDUP_SHA1.copy()
    sha1.update(name.encode())
    digits = sha1.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


class Assigned(NamedTuple):
    """A partition assigned to this member: where reading starts, and what the group has committed for it.

    `committed` is None if the group has no offset; `metadata` is the text committed with it, perhaps empty.
    """

    topic: str
    partition: int
    start: int
    committed: int | None
    metadata: str


class RebalanceListener(Protocol):
    """Takes partitions over and gives them up. The callbacks run inside the source's `poll` or `close`."""

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Take partitions over; their first records come after this returns."""
        ...

    async def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish and commit what is in flight; the partitions belong to another member once this returns."""
        ...

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions without a commit: they already belong to another member."""
        ...


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
