"""Which records of a partition are done, and so how far it may be committed. Pure.

A tracker belongs to one assignment of one partition (an epoch). It remembers only what is unfinished: everything it
has read and does not remember is done. So a partition whose head is stuck while millions pass behind it costs nothing,
and offsets that are no records (compaction, transaction markers) never block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from connector.pipeline.offset_map import FinishedMap, Runs

WHOLE = 1
"""The bit of the record itself: it is neither routed nor finished yet. Destinations have the bits above."""


class Phase(Enum):
    """How much of its life an assignment has left."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Snapshot(NamedTuple):
    """What a commit of this moment says: everything below `watermark` is done, and above it what `finished` claims."""

    watermark: int
    finished: FinishedMap


class PartitionTracker:
    """The unfinished deliveries of one partition in one assignment epoch.

    Offsets are begun in ascending order, as Kafka gives them. `destinations` are the names whose bits follow `WHOLE`.
    """

    __slots__ = (
        "_changed",
        "_partial",
        "_pending",
        "_phase",
        "_restored",
        "destinations",
        "open",
        "partition",
        "position",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        start: int,
        destinations: Sequence[str],
        restored: FinishedMap | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.destinations = tuple(destinations)
        self._phase = Phase.OPEN
        self.open = True
        """Whether new work may start for this assignment."""
        self.position = start
        self._pending: dict[int, int] = {}
        self._partial: dict[int, int] = {}
        self._restored = restored if restored is not None and not restored.is_empty() else None
        self._changed = False

    @property
    def phase(self) -> Phase:
        """How much of its life the assignment has left."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self.open = phase is Phase.OPEN

    def is_ours(self) -> bool:
        """Whether the assignment is not over: what is finished now can still be committed."""
        return self._phase is not Phase.CLOSED

    @property
    def unfinished(self) -> int:
        """How many records were read and are not done."""
        return len(self._pending)

    @property
    def watermark(self) -> int:
        """The offset below which every delivery has its outcome."""
        return next(iter(self._pending), self.position)

    def begin(self, offset: int) -> bool:
        """Take note of a record that was read; return False where it is done already, or was read before.

        The committed map says the former; the latter is a fetcher that went back by itself.
        """
        if offset < self.position:
            return False
        self.position = offset + 1
        restored = self._restored
        if restored is not None:
            if offset >= restored.end:
                self._restored = None
            elif restored.whole.contains(offset):
                self._changed = True
                return False
            else:
                # Kept from now on: routing may come much later, and until then the map would forget these claims.
                done = self._restored_mask(offset)
                if done:
                    self._partial[offset] = done
        self._pending[offset] = WHOLE
        return True

    def begin_all(self, offsets: Sequence[int]) -> bool:
        """Take note of records that were read, at once; return False, nothing noted, where `begin` has to see each.

        That is where one may be done already: the committed map says so, or a fetcher went back.
        """
        begun = dict.fromkeys(offsets, WHOLE)
        if self._restored is not None or offsets[0] < self.position or list(begun) != sorted(offsets):
            return False
        self.position = offsets[-1] + 1
        self._pending.update(begun)
        return True

    def reach(self, offset: int) -> None:
        """Take note that reading came to this offset: what lies below and was not begun is no record."""
        if offset > self.position:
            self.position = offset
            self._changed = True

    def route(self, offset: int, mask: int) -> int:
        """State which destinations (bits) the record goes to; return those that still have to be delivered.

        A record that is left with none is finished.
        """
        left = mask & ~self._partial.get(offset, 0) if self._partial else mask
        if not left:
            self.finish(offset, WHOLE)
            return 0
        self._pending[offset] = left
        return left

    def route_all(self, offsets: Sequence[int], mask: int) -> bool:
        """State where several records go that all go to the same; False, nothing stated, where `route` has to see each.

        That is where a part of one may be done already.
        """
        if self._partial:
            return False
        self._pending.update(dict.fromkeys(offsets, mask))
        return True

    def finish(self, offset: int, bit: int) -> None:
        """Note one delivery's outcome. Late work of a closed epoch changes nothing."""
        self.finish_all((offset,), bit)

    def finish_all(self, offsets: Sequence[int], bit: int) -> None:
        """Note the outcomes of several deliveries to one destination, as `finish` does."""
        if self._phase is Phase.CLOSED:
            return
        self._changed = True
        pending, partial = self._pending, self._partial
        if len(offsets) > 1 and not partial and set(map(pending.__getitem__, offsets)) == {bit}:
            deque(map(pending.pop, offsets), maxlen=0)
            return
        for offset in offsets:
            left = pending[offset] & ~bit
            if left:
                pending[offset] = left
                partial[offset] = partial.get(offset, 0) | bit
            else:
                del pending[offset]
                if partial:
                    partial.pop(offset, None)

    def is_pending(self, offset: int, bit: int) -> bool:
        """Whether this delivery still has no outcome."""
        return bool(self._pending.get(offset, 0) & bit)

    def left(self, offset: int) -> int | None:
        """Return the bits that a record still needs an outcome for: 0 where it is done, None where it was not read yet.

        Of an offset that holds no record, and of one below the start of this assignment, it says that it is done.
        """
        if offset < self.position:
            return self._pending.get(offset, 0)
        return 0 if self._restored is not None and self._restored.whole.contains(offset) else None

    def snapshot(self) -> Snapshot | None:
        """Return what to commit, or None where this epoch finished nothing since the last snapshot.

        Read in one go: a position taken after the unfinished set would claim records that came in between.
        """
        if not self._changed:
            return None
        self._changed = False
        return self.peek()

    def peek(self) -> Snapshot:
        """Return the same without taking note that it was taken."""
        watermark = self.watermark
        whole = Runs.complement(watermark, self.position, self._pending)
        parts: dict[str, list[int]] = {}
        for offset, done in self._partial.items():
            for index, name in enumerate(self.destinations):
                if done & (WHOLE << (index + 1)):
                    parts.setdefault(name, []).append(offset)
        finished = FinishedMap(whole, {name: Runs.of(sorted(offsets)) for name, offsets in parts.items()})
        if self._restored is not None:
            finished = finished.joined(self._restored.above(self.position))
        return Snapshot(watermark, finished)

    def retake(self) -> None:
        """Take back the last snapshot: its commit failed, so it has to be made again."""
        self._changed = True

    def _restored_mask(self, offset: int) -> int:
        mask = 0
        if self._restored is not None:
            for index, name in enumerate(self.destinations):
                runs = self._restored.parts.get(name)
                if runs is not None and runs.contains(offset):
                    mask |= WHOLE << (index + 1)
        return mask


def destination_bit(index: int) -> int:
    """Return the bit of the destination with this index."""
    return WHOLE << (index + 1)
