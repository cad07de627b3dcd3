"""How many records one poll returns, so that a poll of large records does not pass every bound at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connector.records import Record

MAX_RECORDS: Final = 500
"""The most records that one poll returns."""
_FIRST: Final = 32


class Chunk:
    """The size of the next poll: about `limit` bytes by the mean of the last one, and `MAX_RECORDS` at most.

    While nobody knows how large the records are it begins small, and at most doubles from one poll to the next.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.records = _FIRST

    def saw(self, records: Sequence[Record]) -> None:
        """Note what a poll returned."""
        if not records:
            return
        total = sum(len(record.value or b"") + len(record.key or b"") for record in records)
        total += sum(len(value or b"") for record in records for _, value in record.headers)
        fitting = self._limit * len(records) // max(1, total)
        self.records = max(1, min(MAX_RECORDS, 2 * self.records, fitting))
