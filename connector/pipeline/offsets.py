"""Tracks which records of a partition are done, and so how far it may be committed. Pure.

Theory of operation. A tracker belongs to one assignment of one partition (an epoch). It remembers only unfinished
records: every record that was read and is not remembered is done. So a partition whose first record is stuck while
millions pass behind it costs nothing, and offsets without a record (compaction, transaction markers) never block.

The **watermark** is the lowest unfinished offset, or the position if there is none. It is what is committed. Why not
the highest finished offset? Everything below a committed offset is never read again, so one unfinished record below
it would be lost.

Deliveries finished above the watermark are committed with it as the **offset map**, per destination. Example: 10 and 12
are delivered to `a` and `b`, 11 to `a` only, and `b` is held.

    unfinished         {11: b}
    committed offset   11
    map                whole: 12      a: 11

After a restart the next epoch starts at 11 with that map, sends 11 to `b` only, and skips 12. The tracker keeps a claim
of the map until its record is read and routed again. Routing may come much later, and a commit in between must repeat
the claim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from connector.pipeline.offset_map import FinishedMap, Runs

WHOLE = 1
"""The bit of the record itself, while it is neither routed nor finished. Destinations have the higher bits."""


class Phase(Enum):
    """Where an assignment is in its life."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


NOTHING: Final = FinishedMap()
"""The map if everything that was read is done; it needs no encoding."""


class Snapshot(NamedTuple):
    """The content of a commit: everything below `watermark` is done, and above it what `finished` claims."""

    watermark: int
    finished: FinishedMap


class PartitionTracker:
    """The unfinished deliveries of one partition in one assignment epoch.

    Offsets are begun in ascending order, as Kafka gives them. `destinations` are the names whose bits follow `WHOLE`.

    A restored map may claim deliveries of destinations that are not configured here, for example during a rollback, or
    in a member with another file. Those claims have no effect here, but every snapshot repeats them. Otherwise the
    destination's finished deliveries would be made again once it is back. They are repeated unchanged, even for records
    that are done by now: reduced to pending records, they would have gaps and need more room than was counted.
    """

    __slots__ = (
        "_absent",
        "_changed",
        "_fans_out",
        "_pending",
        "_phase",
        "_restored",
        "_set_aside",
        "claims",
        "destinations",
        "open",
        "partial",
        "partition",
        "position",
        "stormy",
        "topic",
        "widest",
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
        self.claims = 0
        """How many claims the map may need for the records read so far; it only grows (see `MapRoom`)."""
        self.widest = 1
        """The most claims that one record needed so far: the estimate for the next one."""
        self._fans_out = False
        self._set_aside = 0
        self.stormy = False
        """Whether a storm has ever set a record of it aside."""
        self._pending: dict[int, int] = {}
        self.partial: dict[int, int] = {}
        """By offset, the bits for which a record is finished while others are left."""
        self._restored = restored if restored is not None and not restored.is_empty() else None
        claims = {} if restored is None else restored.parts
        self._absent = {name: runs for name, runs in claims.items() if runs.bounds and name not in self.destinations}
        self._changed = False

    @property
    def phase(self) -> Phase:
        """Where the assignment is in its life."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self.open = phase is Phase.OPEN

    @property
    def set_aside(self) -> int:
        """How many of its deliveries a storm has set aside."""
        return self._set_aside

    @set_aside.setter
    def set_aside(self, count: int) -> None:
        self._set_aside, self.stormy = count, True

    def is_ours(self) -> bool:
        """Whether the assignment is not closed, so that deliveries finished now can still be committed."""
        return self._phase is not Phase.CLOSED

    @property
    def unfinished(self) -> int:
        """How many records were read and are not done."""
        return len(self._pending)

    @property
    def watermark(self) -> int:
        """The offset below which every delivery has its outcome."""
        return next(iter(self._pending), self.position)

    def begin(self, offsets: Sequence[int]) -> Sequence[int]:
        """Note records that were read, in order; return those that still have to be processed.

        Leaves out records that the committed map says are done, and those read before: a fetcher may go back by itself.
        """
        # The usual case: in order, above everything read before, no restored claims. Then building one dictionary is
        # all the work. The offsets ascend without a repeat if they equal the sorted keys, because a dictionary drops
        # repeats.
        if self._restored is None and offsets[0] >= self.position:
            begun = dict.fromkeys(offsets, WHOLE)
            if list(begun) == sorted(offsets):
                self.claims += len(begun)
                if offsets[-1] - self.position >= len(begun):
                    self._note_gaps(offsets)
                self.position = offsets[-1] + 1
                # Kept in the order of offsets, so that the watermark is the first key and never has to be searched for.
                self._pending.update(begun)
                return offsets
        # Repeats and restored claims are rare, and need a look at each record.
        return [offset for offset in offsets if self._begins(offset)]

    def _note_gaps(self, offsets: Sequence[int]) -> None:
        before = (self.position - 1, *offsets)
        gaps = sum(_gap_claims(after - offset - 1) for offset, after in zip(before, offsets, strict=False))
        self.claims += gaps
        self.widest = max(self.widest, 1 + gaps // len(offsets))

    def _begins(self, offset: int) -> bool:
        # Already read in this epoch. Beginning it again would undo its outcome and move the watermark back.
        if offset < self.position:
            return False
        self.claims += 1 + _gap_claims(offset - self.position)
        self.position = offset + 1
        restored = self._restored
        if restored is not None:
            if offset >= restored.end:
                self._restored = None
            elif restored.whole.contains(offset):
                self._changed = True
                return False
            else:
                # Kept until the record is routed, which may be much later. Without this the map would lose these
                # claims.
                done = self._restored_mask(offset)
                if done:
                    self.partial[offset] = done
        self._pending[offset] = WHOLE
        return True

    def reach(self, offset: int) -> None:
        """Note that reading reached this offset: offsets below it that were not begun have no record."""
        # Example: 10 and 11 are records, 12 is the marker of their transaction, and the partition ends at 13. Without
        # this the group would show a lag of 1 for ever, and would never be empty.
        if offset > self.position:
            self.position = offset
            self._changed = True

    def route(self, offsets: Sequence[int], mask: int) -> Sequence[int]:
        """Note which destinations (bits) these records go to; return for each record those without an outcome.

        A record with no such destination is finished.
        """
        if mask & (mask - 1):
            self._widen(mask, len(offsets))
        partial = self.partial
        # Nearly always no record has a claim of its own. Then the masks apply without a look at each record.
        if not partial:
            self._pending.update(dict.fromkeys(offsets, mask))
            return [mask] * len(offsets)
        masks = [mask & ~partial.get(offset, 0) for offset in offsets]
        for offset, left in zip(offsets, masks, strict=True):
            if left:
                self._pending[offset] = left
            else:
                self.finish((offset,), WHOLE)
        return masks

    def reroute(self, offset: int, bit: int, mask: int) -> int:
        """Note that a record no longer goes to one destination (`bit`), but to those of `mask`.

        Returns the destinations that are new for it and still need a delivery.
        """
        left = self._pending.get(offset, 0)
        new = mask & ~left & ~self.partial.get(offset, 0)
        if new:
            self._pending[offset] = left | new
            self._widen(left | new, 1)
        self.finish((offset,), bit)
        return new

    def finish(self, offsets: Sequence[int], bit: int) -> None:
        """Note the outcomes of deliveries to one destination. Late outcomes in a closed epoch change nothing."""
        # Why not note it anyway? Another member may have the partition, and sends the record itself. A note here could
        # only lead to a commit for an epoch that is over.
        if self._phase is Phase.CLOSED:
            return
        self._changed = True
        pending, partial = self._pending, self.partial
        if len(offsets) > 1 and not partial and set(map(pending.__getitem__, offsets)) == {bit}:
            # These records need no other outcome, so all are removed at once.
            deque(map(pending.pop, offsets), maxlen=0)
            return
        # An offset that is not pending raises KeyError on purpose: a second outcome for one delivery is a bug, and
        # ignoring it would hide a record that was sent twice.
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
        """Return the bits that a record still needs an outcome for: 0 if it is done, or None if it was not read yet.

        An offset without a record, or below the start of this assignment, counts as done.
        """
        if offset < self.position:
            return self._pending.get(offset, 0)
        return 0 if self._restored is not None and self._restored.whole.contains(offset) else None

    def snapshot(self) -> Snapshot | None:
        """Return what to commit, or None if this epoch finished nothing since the last snapshot.

        Watermark and position are read in one step: a position read later would claim records that came in between.
        """
        if not self._changed:
            return None
        self._changed = False
        return self.peek()

    def peek(self) -> Snapshot:
        """Return the same snapshot without marking it as taken."""
        # Everything read is done, and no restored claim is left: the map is empty.
        if not self._pending and self._restored is None:
            return Snapshot(self.position, NOTHING)
        watermark = self.watermark
        whole = Runs.complement(watermark, self.position, self._pending)
        parts: dict[str, list[int]] = {}
        for offset, done in self.partial.items():
            for index, name in enumerate(self.destinations):
                if done & (WHOLE << (index + 1)):
                    parts.setdefault(name, []).append(offset)
        absent = {name: runs.above(watermark) for name, runs in self._absent.items()}
        finished = FinishedMap(whole, {name: Runs.of(sorted(offsets)) for name, offsets in parts.items()} | absent)
        if self._restored is not None:
            # Restored claims about records not read yet are repeated, because a commit replaces the old map.
            finished = finished.joined(self._restored.above(self.position))
        return Snapshot(watermark, finished)

    def open_claims(self) -> int:
        """Return how many further claims the map may need for the deliveries that are unfinished now."""
        return sum(_claims(left) for left in self._pending.values())

    def names_of_parts(self) -> tuple[str, ...]:
        """Return the destinations that the map may list separately; none while each record has only one delivery."""
        if not self._fans_out and not self.partial and self._restored is None and not self._absent:
            return ()
        return self.names

    @property
    def names(self) -> tuple[str, ...]:
        """Every destination that the map may have claims for."""
        return (*self.destinations, *self._absent)

    @property
    def end(self) -> int:
        """One past the last offset that a snapshot may have a claim about."""
        return self.position if self._restored is None else max(self.position, self._restored.end)

    def _widen(self, mask: int, records: int) -> None:
        claims, self._fans_out = _claims(mask), True
        self.claims += records * (claims - 1)
        self.widest = max(self.widest, claims)

    def retake(self) -> None:
        """Mark the last snapshot as not taken: its commit failed, so it has to be repeated."""
        self._changed = True

    def _restored_mask(self, offset: int) -> int:
        mask = 0
        if self._restored is not None:
            for index, name in enumerate(self.destinations):
                runs = self._restored.parts.get(name)
                if runs is not None and runs.contains(offset):
                    mask |= WHOLE << (index + 1)
        return mask


def _claims(left: int) -> int:
    """Return how many claims a record may need in the map: one per delivery, and one more if there are several."""
    deliveries = left.bit_count()
    return deliveries + (deliveries > 1)


def _gap_claims(gap: int) -> int:
    """Return the bits that a gap without records may cost: it splits a run, so two more numbers."""
    return 0 if gap <= 0 else 16 + 8 * (gap.bit_length() // 7)


def destination_bit(index: int) -> int:
    """Return the bit of the destination with this index."""
    return WHOLE << (index + 1)
