"""How many records one poll asks for and how long it waits: small for large records, patient when none come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connector.records import Record

MAX_RECORDS: Final = 500
"""The most records that one poll returns."""
WAIT_SECONDS: Final = 0.01
"""How long a poll collects: librdkafka keeps a lone record back for all of it."""
IDLE_SECONDS: Final = 0.2
"""How long a poll waits where the last one returned nothing: it ends with the first record, so none is kept back."""
_FIRST: Final = 32


class Chunk:
    """The size of the next poll: about `limit` bytes by the mean of the last one, and `MAX_RECORDS` at most.

    While nobody knows how large the records are it begins small, and at most doubles from one poll to the next.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle = False
        self.records = _FIRST

    def next(self, *, patient: bool) -> tuple[int, float]:
        """Return how many records to ask for, and how many seconds to wait for them.

        `patient`: nothing but a record, or a change of the assignment, is waited for.
        """
        return (1, IDLE_SECONDS) if patient and self._idle else (self.records, WAIT_SECONDS)

    def saw(self, records: Sequence[Record]) -> None:
        """Note what a poll returned."""
        self._idle = not records
        if not records:
            return
        total = sum([len(record.key or b"") + len(record.value or b"") for record in records])
        total += sum([len(content or b"") for record in records if record.headers for _, content in record.headers])
        fitting = self._limit * len(records) // max(1, total)
        self.records = max(1, min(MAX_RECORDS, 2 * self.records, fitting))
