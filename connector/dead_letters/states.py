"""The states of a topic's dead letters, in some 30 bytes each, so that a million of them need little memory. Pure.

A crash may write one dead letter twice, and a record that is read again may fail again after its dead letter was
discarded. Both are copies: records with one id. A resolution closes the copies that are in front of it in its own
partition, and nothing else:

    partition 0:  copy 1   discarded   copy 2        the dead letter is open: copy 2 is a new failure
    partition 0:  copy 1   discarded                 open: the copy in partition 1 was never resolved
    partition 1:  copy 2

So one pass is enough, if it reads each partition in order. How the partitions alternate does not matter.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, Literal

from connector.dead_letters.block import RowIndex

State = Literal["open", "replayed", "discarded"]

STATES: Final[tuple[State, ...]] = ("open", "replayed", "discarded")


class States:
    """Every noted dead letter as a row: its state, and the place of the record that stands for it."""

    def __init__(self) -> None:
        self._rows = RowIndex()
        self._partitions = array("I")
        self._offsets = array("q")
        self._states = bytearray()
        self._others: dict[int, dict[int, int]] = {}
        """Further partitions with an open copy, and its offset; almost always none."""

    def __len__(self) -> int:
        """Return how many dead letters there are, resolved ones included."""
        return len(self._states)

    def row(self, identity: str) -> int | None:
        """Return the row of an id; None if the id was not noted."""
        return self._rows.row(identity)

    def state(self, row: int) -> State:
        """Return the state of a dead letter."""
        return STATES[self._states[row]]

    def place(self, row: int) -> tuple[int, int]:
        """Return partition and offset of the record that stands for a dead letter: its first unresolved copy.

        If all copies are resolved: the first of those that were resolved last.
        """
        return self._partitions[row], self._offsets[row]

    def other_partitions(self, row: int) -> tuple[int, ...]:
        """Return the further partitions in which the dead letter has an unresolved copy."""
        return tuple(self._others.get(row, {}))

    def rows(self, *, resolved: bool) -> Iterator[int]:
        """Yield the open dead letters, or all."""
        return (row for row, state in enumerate(self._states) if resolved or not state)

    def note(self, identity: str, partition: int, offset: int) -> tuple[int, bool]:
        """Note a copy; return its row, and whether this record now stands for the dead letter."""
        row = self._rows.add(identity)
        if row == len(self._states):
            self._partitions.append(partition)
            self._offsets.append(offset)
            self._states.append(0)
            return row, True
        # A copy after a resolution is a new failure, so it reopens the dead letter.
        if self._states[row]:
            self._states[row] = 0
            self._partitions[row], self._offsets[row] = partition, offset
            return row, True
        if partition != self._partitions[row]:
            self._others.setdefault(row, {}).setdefault(partition, offset)
        return row, False

    def resolve(self, identity: str, partition: int, kind: State) -> int | None:
        """Close the copies of a dead letter in this partition; return its row, or None if there is none to close."""
        row = self.row(identity)
        if row is None:
            return None
        others = self._others.get(row, {})
        if partition in others:
            # The copy here is closed. The dead letter stays open: another partition has the record that stands for it.
            del others[partition]
        elif self._states[row] or partition != self._partitions[row]:
            return None
        elif others:
            # The copy that stood for the dead letter is closed. An open copy in another partition takes its place.
            self._partitions[row], self._offsets[row] = others.popitem()
        else:
            self._states[row] = STATES.index(kind)
        if not others:
            self._others.pop(row, None)
        return row
