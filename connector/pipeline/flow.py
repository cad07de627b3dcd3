"""When intake pauses and resumes: the buffer's budget, room in the offset map, and reasons of single partitions. Pure.

Pausing drops what librdkafka fetched ahead, so the budget has hysteresis: it pauses at its limit and resumes at half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from connector.pipeline.offset_map import encode
from connector.pipeline.offsets import PartitionTracker
from connector.records import TopicPartition

RESUME_SHARE: Final = 0.5

POLL_RECORDS: Final = 1000
"""Records that a poll may return before intake can pause."""
_BITS_A_CLAIM: Final = 1.6
"""Upper bound of bits that a claim takes when packed: measured 1.0 to 1.6 with random, periodic and batched
patterns."""
_FRAME_BYTES: Final = 64
_ENTRY_BYTES: Final = 12
_RESUME_ROOM: Final = 0.9


class MapRoom:
    """Whether reading a partition may continue: the offset map that its deliveries may need must fit into a commit.

    The size of the current map does not show that. Suppose 10,000 records are read and none is finished: the map is
    empty. If then every second one is accepted, the map needs 10,000 bits. So the worst case counts: the size of the
    map when it was last encoded, plus one claim for each delivery that was open then or began since, but never more
    than a bit for each offset and entry. Without this limit the map might have to be cut, and the deliveries that are
    cut from it are made again.
    """

    def __init__(self, tracker: PartitionTracker, limit: int, characters: int = 0) -> None:
        self._tracker = tracker
        self._full = False
        self.limit_to(limit)
        self.measured(characters)

    def limit_to(self, limit: int) -> None:
        """Set the characters that a map may have."""
        self._limit = limit
        names = self._tracker.names
        frame = _FRAME_BYTES + sum(len(name.encode()) + _ENTRY_BYTES for name in names)
        self._span = (limit * 3 / 4 - frame) * 8 / (1 + len(names)) - POLL_RECORDS
        """So many offsets fit whatever is finished of them: with a bit per offset and destination."""

    @property
    def used(self) -> float:
        """The share of the metadata that the map took when last encoded; 1 while reading waits for outcomes."""
        return 1.0 if self._full else self._characters / self._limit

    def measured(self, characters: int) -> None:
        """Note the length of the tracker's map, encoded just now."""
        self._characters = characters
        self._claims = self._tracker.claims - self._tracker.open_claims()
        self._measured_at = self._tracker.claims

    @property
    def full(self) -> bool:
        """Whether reading has to wait for outcomes. If nothing is unfinished, waiting cannot help."""
        tracker = self._tracker
        if not tracker.unfinished:
            self._full = False
            return False
        # Example: with one destination and 4,095 characters the span is about 11,000 offsets. Only a partition whose
        # head is stuck comes near it, so the estimate below is seldom made.
        if not self._full and tracker.end - tracker.watermark < self._span:
            return False
        limit = self._limit * (_RESUME_ROOM if self._full else 1)
        if self._worst(POLL_RECORDS) < limit:
            self._full = False
        else:
            if self._measured_at != tracker.claims:
                # Deliveries that finished since the last commit may have made room.
                snapshot = tracker.peek()
                self.measured(len(encode(snapshot.watermark, snapshot.finished, self._limit).text))
            self._full = self._worst(POLL_RECORDS) >= limit
        return self._full

    def _worst(self, more: int) -> int:
        """Return how many characters the map may need after `more` further records."""
        tracker = self._tracker
        names = tracker.names_of_parts()
        claims = tracker.claims - self._claims + more * tracker.widest
        offsets = tracker.end - tracker.watermark + more
        # The map as measured, plus what each claim since then may add. Base64 makes 4 characters of 3 bytes.
        packed = self._characters * 3 / 4 + claims * _BITS_A_CLAIM / 8
        plain = (1 + len(names)) * offsets / 8
        frame = _FRAME_BYTES + sum(len(name.encode()) + _ENTRY_BYTES for name in names)
        return math.ceil((min(packed, plain) + frame) * 4 / 3)


class Budget:
    """The bytes held for deliveries that have no outcome yet."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._full = False

    def add(self, charge: int) -> None:
        """Count bytes that are held from now on."""
        self.used += charge

    def release(self, charge: int) -> None:
        """Count bytes that are held no longer."""
        self.used -= charge

    @property
    def full(self) -> bool:
        """Whether intake has to wait: from when the limit is reached until half of it is free again."""
        # Hysteresis. With one threshold for both, every batch that is finished would resume and every poll would pause
        # again; and each pause drops what librdkafka fetched ahead.
        if self._full:
            self._full = self.used > self.limit * RESUME_SHARE
        else:
            self._full = self.used >= self.limit
        return self._full


class FlowChange(NamedTuple):
    """The partitions to pause and to resume."""

    pause: list[TopicPartition]
    resume: list[TopicPartition]


class Flow:
    """Which partitions are paused, and which should be."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = set()
        """The partitions that the consumer has paused."""

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget partitions that were revoked, or that were assigned again and so are not paused."""
        self.paused.difference_update(partitions)

    def change(
        self, assigned: Iterable[TopicPartition], blocked: Iterable[TopicPartition], *, all_blocked: bool
    ) -> FlowChange:
        """Return which partitions to pause and to resume, and assume that it is done."""
        owned = set(assigned)
        wanted = owned if all_blocked else owned.intersection(blocked)
        change = FlowChange(sorted(wanted - self.paused), sorted((self.paused & owned) - wanted))
        self.paused = wanted
        return change
