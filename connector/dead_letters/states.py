"""The states of a topic's dead letters in some 30 bytes each, so that a million fit on a small machine. Pure.

A crash may write one dead letter twice, and a record that is read again may fail again after its dead letter was
discarded. Both are copies: records with one id. A resolution closes the copies that are in front of it in its own
partition, and nothing else:

    partition 0:  copy 1   discarded   copy 2        the dead letter is open: copy 2 is a new failure
    partition 0:  copy 1   discarded                 open: the copy in partition 1 was never resolved
    partition 1:  copy 2

Reading each partition in its order is therefore enough, in one pass, however the partitions alternate.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, Literal

State = Literal["open", "replayed", "discarded"]

STATES: Final[tuple[State, ...]] = ("open", "replayed", "discarded")
# A power of two: then `value & last` is the remainder, and doubling keeps it so.
_FIRST_SIZE: Final = 1 << 10
_MASK: Final = (1 << 64) - 1


class States:
    """Every dead letter that was noted, as a row with its state and the place of the record that stands for it.

    Ids are kept as 64 bits of Python's keyed hash: the chance that any two of a million share them is 1 in 37 million.
    """

    def __init__(self) -> None:
        # An open-addressing hash table of row numbers plus one; at most two thirds of it are used.
        self._table = array("I", bytes(4 * _FIRST_SIZE))
        self._hashes = array("Q")
        self._partitions = array("I")
        self._offsets = array("q")
        self._states = bytearray()
        self._others: dict[int, dict[int, int]] = {}
        """Further partitions with an open copy, and its offset; almost always none."""

    def __len__(self) -> int:
        """Return how many dead letters there are, resolved ones included."""
        return len(self._states)

    def row(self, identity: str) -> int | None:
        """Return the row of an id; None if it was not noted."""
        found = self._table[self._slot(hash(identity) & _MASK)]
        return found - 1 if found else None

    def state(self, row: int) -> State:
        """Return the state of a dead letter."""
        return STATES[self._states[row]]

    def place(self, row: int) -> tuple[int, int]:
        """Return partition and offset of the record that stands for a dead letter: its first copy not yet resolved.

        If all are resolved, the first of those that were resolved last.
        """
        return self._partitions[row], self._offsets[row]

    def other_partitions(self, row: int) -> tuple[int, ...]:
        """Return the further partitions in which the dead letter has a copy that is not resolved."""
        return tuple(self._others.get(row, {}))

    def rows(self, *, resolved: bool) -> Iterator[int]:
        """Yield the open dead letters, or all."""
        return (row for row, state in enumerate(self._states) if resolved or not state)

    def note(self, identity: str, partition: int, offset: int) -> tuple[int, bool]:
        """Note a copy; return its row, and whether this record now stands for the dead letter."""
        # Keyed differently in each process, so no producer can write ids that collide.
        value = hash(identity) & _MASK
        slot = self._slot(value)
        row = self._table[slot] - 1
        if row < 0:
            return self._add(slot, value, partition, offset), True
        # A copy behind a resolution is a new failure. An id resolved for ever would hide it.
        if self._states[row]:
            self._states[row] = 0
            self._partitions[row], self._offsets[row] = partition, offset
            return row, True
        if partition != self._partitions[row]:
            self._others.setdefault(row, {}).setdefault(partition, offset)
        return row, False

    def resolve(self, identity: str, partition: int, kind: State) -> int | None:
        """Close the copies of a dead letter in this partition; return its row, None if there is none to close."""
        row = self.row(identity)
        if row is None:
            return None
        others = self._others.get(row, {})
        if partition in others:
            # One copy less. The record that stands for the dead letter is in another partition and stays open.
            del others[partition]
        elif self._states[row] or partition != self._partitions[row]:
            return None
        elif others:
            # Its own copy is closed, but another partition has one: from now on that copy stands for the dead letter.
            self._partitions[row], self._offsets[row] = others.popitem()
        else:
            self._states[row] = STATES.index(kind)
        if not others:
            self._others.pop(row, None)
        return row

    def _slot(self, value: int) -> int:
        """Return the slot of a hash, or the free one where it would be."""
        table, hashes, last = self._table, self._hashes, len(self._table) - 1
        # Linear probing. Hashes are compared and not ids, because ids are not
        # kept: 36 characters each would double the size of a row.
        slot = value & last
        while (entry := table[slot]) and hashes[entry - 1] != value:
            slot = (slot + 1) & last
        return slot

    def _add(self, slot: int, value: int, partition: int, offset: int) -> int:
        row = len(self._states)
        self._table[slot] = row + 1
        self._hashes.append(value)
        self._partitions.append(partition)
        self._offsets.append(offset)
        self._states.append(0)
        if (row + 1) * 3 > len(self._table) * 2:
            # Zeros of 4 bytes for twice as many slots.
            self._table = array("I", bytes(8 * len(self._table)))
            for number, each in enumerate(self._hashes):
                self._table[self._slot(each)] = number + 1
        return row
