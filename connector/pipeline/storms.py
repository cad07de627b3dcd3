"""Keeps a topic from being drained into the dead-letter topic where a setting is at fault. Pure.

One bad record is the record's fault; half of all records refused for the same reason is a setting's fault. A guard
counts the last `records` outcomes, of a destination or of a topic, and trips when one cause and code has more than its
share of the whole window.

A topic of which too many records cannot be decoded or routed is in a storm: its refused records wait instead of
becoming dead letters, and intake pauses but for a few records at growing intervals. The first record that can be
decoded and routed ends the storm, and a new window begins.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from connector.config.loader import StormSettings
from connector.errors import Refusal
from connector.pipeline.offsets import PartitionTracker
from connector.records import Record, TopicPartition

_FIRST_PROBE: Final = 1.0
_LONGEST_PROBE: Final = 60.0


class StormGuard:
    """Counts refusals by cause and code over a window of outcomes; `off` never trips."""

    def __init__(self, settings: StormSettings | str) -> None:
        self._settings = settings if isinstance(settings, StormSettings) else None
        self._window: deque[tuple[str, str] | None] = deque()
        self._refused: Counter[tuple[str, str]] = Counter()

    def accepted(self, count: int) -> None:
        """Count accepted records. Cheap while nothing was refused."""
        if self._settings is None or not self._refused:
            return
        for _ in range(min(count, self._settings.records)):
            self._push(None)

    def refused(self, cause: str, code: str) -> bool:
        """Count a refusal; return whether it is one too many, so that it must not be dead-lettered."""
        if self._settings is None:
            return False
        reason = (cause, code)
        if self._refused[reason] + 1 > self._settings.share * self._settings.records:
            return True
        self._refused[reason] += 1
        self._push(reason)
        return False

    def reset(self) -> None:
        """Start a new window: the first acceptance after a storm."""
        self._window.clear()
        self._refused.clear()

    def _push(self, reason: tuple[str, str] | None) -> None:
        if self._settings is None:
            return
        self._window.append(reason)
        if len(self._window) > self._settings.records:
            gone = self._window.popleft()
            if gone is not None:
                self._refused[gone] -= 1
                if not self._refused[gone]:
                    del self._refused[gone]


@dataclass(frozen=True, slots=True)
class Suspended:
    """A refused record that waits for the storm to end."""

    record: Record
    tracker: PartitionTracker
    refusal: Refusal


@dataclass(slots=True)
class _Storm:
    next_probe: float
    probes: int = 0
    waiting: list[Suspended] = field(default_factory=list)


class Storms:
    """The storms of all topics. `on_change` is told a topic and why it is held, or None when it flows again."""

    def __init__(self, guard: Callable[[str], StormGuard], on_change: Callable[[str, str | None], None]) -> None:
        self._guard_of = guard
        self._on_change = on_change
        self._guards: dict[str, StormGuard] = {}
        self._storms: dict[str, _Storm] = {}

    def __bool__(self) -> bool:
        """Whether some topic is in a storm."""
        return bool(self._storms)

    def suspends(self, record: Record, tracker: PartitionTracker, refusal: Refusal, now: float) -> bool:
        """Count a refused record; return True where it has to wait instead of becoming a dead letter."""
        topic = record.topic
        storm = self._storms.get(topic)
        if storm is None:
            guard = self._guards.get(topic)
            if guard is None:
                guard = self._guards[topic] = self._guard_of(topic)
            if not guard.refused(refusal.cause, refusal.code):
                return False
            storm = self._storms[topic] = _Storm(now + _FIRST_PROBE)
            self._on_change(topic, _why(topic, refusal))
        elif storm.next_probe <= now:
            storm.probes += 1
            storm.next_probe = now + min(_LONGEST_PROBE, _FIRST_PROBE * 2.0 ** min(storm.probes, 16))
        storm.waiting.append(Suspended(record, tracker, refusal))
        return True

    def accepted(self, topic: str, count: int) -> list[Suspended]:
        """Count records that were decoded and routed; return those to refuse anew where this ends a storm."""
        guard = self._guards.get(topic)
        if guard is None:
            return []
        if topic not in self._storms:
            guard.accepted(count)
            return []
        return self.release(topic)

    def release(self, topic: str) -> list[Suspended]:
        """End a topic's storm and return the records to refuse anew."""
        storm = self._storms.pop(topic, None)
        if storm is None:
            return []
        self._guards[topic].reset()
        self._on_change(topic, None)
        return storm.waiting

    def topics(self) -> list[str]:
        """Return the topics in a storm."""
        return list(self._storms)

    def blocked(self, now: float) -> frozenset[str]:
        """Return the topics whose intake pauses: those in a storm, but while a probe is due."""
        return frozenset(topic for topic, storm in self._storms.items() if storm.next_probe > now)

    def take_out(self, topic: str, partition: int, offset: int) -> Record | None:
        """Let go of one waiting record and return it; None where it does not wait here."""
        storm = self._storms.get(topic)
        if storm is None:
            return None
        found = next((one for one in storm.waiting if one.record.position == (topic, partition, offset)), None)
        if found is None:
            return None
        storm.waiting.remove(found)
        return found.record

    def forget(self, partitions: Iterable[TopicPartition]) -> list[Record]:
        """Let go of waiting records whose partition leaves, and return them."""
        gone = set(partitions)
        forgotten: list[Record] = []
        for storm in self._storms.values():
            forgotten += [one.record for one in storm.waiting if (one.record.topic, one.record.partition) in gone]
            storm.waiting = [one for one in storm.waiting if (one.record.topic, one.record.partition) not in gone]
        return forgotten


def _why(topic: str, refusal: Refusal) -> str:
    if refusal.cause == "decode":
        likely = "kafka.topics names a topic of another format, or schema_registry or schemas do not fit its producers"
    else:
        likely = "a route is missing or does not match"
    return (
        f"too many of the last records of topic {topic} were refused with {refusal.code} ({refusal.message}): likely "
        f"{likely}; mend it, or set storm: off to let them go"
    )
