"""Which dead letters of a world are stored, which of them were replayed, and which record a member's work is for."""

from __future__ import annotations

from collections import defaultdict

from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.reader import DeadLetterEntry
from tests.simulation.facts import Epochs
from tests.simulation.scenario import Planned


class Replays:
    """The dead-letter topic, each dead letter once, and the outcome of its replays."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[Planned, DeadLetterEntry]] = {}
        """By `dlq-id`: the record of which it is, and the dead letter."""
        self._again: dict[int, list[Planned]] = defaultdict(list)

    def wrote(self, planned: Planned) -> None:
        """Take note of a replay that was written."""
        self._again[planned.root.serial].append(planned)

    def told_apart(self, planned: Planned, destination: str | None) -> bool:
        """Whether a dead letter's replay could be told from the other replays of its record.

        An unrouted dead letter and one of a destination get the same id when both are replayed and fail.
        """
        level = planned.replays + 1
        others = [one for one in self._again[planned.root.serial] if one.replays == level]
        return all((one.asked is None) == (destination is None) for one in others)

    def of_dead_letter(self, first: Planned, dead_letter: ParsedDeadLetter) -> Planned | None:
        """Return the record of a dead letter: `first` or one of its replays; None if there is no such replay."""
        if not dead_letter.replays:
            return first
        for one in self._again.get(first.serial, ()):
            if one.replays == dead_letter.replays and one.asked in (None, dead_letter.destination):
                return one
        return None

    def meant(self, first: Planned, destination: str, source: Epochs) -> Planned:
        """Return the record of which a member sends an event now: the last one for the destination that it can have.

        A dead letter is replayed only once its record is committed, so only a member that was put out sends it again.
        """
        if first.serial not in self._again:
            return first
        all_ = [*(one for one in reversed(self._again[first.serial]) if destination in one.fates), first]
        now = (one for one in all_ if source.has((one.topic, one.partition)))
        return next(now, None) or next(
            (one for one in all_ if source.has((one.topic, one.partition), ever=True)), first
        )
