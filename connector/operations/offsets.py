"""Reads and resets a group's committed offsets, with its offset maps, lag and backlog."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connector.config.loader import Settings
from connector.errors import ConnectorError
from connector.kafka.groups import Groups
from connector.kafka.topics import TopicSelection
from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, ForeignMetadata
from connector.records import Commit, TopicPartition
from connector.runtime.handover import set_offsets

_TOPIC_GONE: Final = "the topic or partition does not exist"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A group's progress in one partition.

    `committed` is None without a committed offset; `first` and `end` are None if the partition does not exist. `fault`
    says why this release cannot read the commit metadata as a map; then `finished` is empty.
    """

    topic: str
    partition: int
    committed: int | None
    first: int | None
    end: int | None
    finished: FinishedMap
    map_used: float = 0.0
    fault: str | None = None

    @property
    def start(self) -> int | None:
        """Where reading would continue: the committed offset, else the first offset of the partition."""
        return self.first if self.committed is None else self.committed

    @property
    def lag(self) -> int | None:
        """Offsets between the committed one and the end; None if either is unknown."""
        if self.start is None or self.end is None or self.first is None:
            return None
        # Counted from the first offset: deleted records are no backlog.
        return max(0, self.end - max(self.start, self.first))

    @property
    def backlog(self) -> int | None:
        """`lag` without the records above the committed offset that are finished for all destinations."""
        lag = self.lag
        if lag is None or self.end is None or self.start is None or self.first is None:
            return None
        return lag - self.finished.whole.above(max(self.start, self.first)).below(self.end).count()

    @property
    def out_of_range(self) -> bool:
        """Whether the committed offset is outside the partition, so that a run would stop."""
        if self.committed is None or self.first is None or self.end is None:
            return False
        return not self.first <= self.committed <= self.end

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints; ranges are [first, last], both included."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "committed": self.committed,
            "first": self.first,
            "end": self.end,
            "lag": self.lag,
            "backlog": self.backlog,
            "out_of_range": self.out_of_range,
            "map_used": round(self.map_used, 4),
            "finished": ranges(self.finished.whole.bounds),
            "finished_for": {name: ranges(runs.bounds) for name, runs in self.finished.parts.items()},
            "metadata_fault": self.fault,
        }


@dataclass(frozen=True, slots=True)
class Move:
    """A new offset for one partition. `metadata` is its offset map, with `kept` finished records."""

    state: PartitionState
    offset: int
    metadata: str
    kept: int

    @property
    def again(self) -> int:
        """How many offsets below the committed one will be read again."""
        start = min(self.state.start or 0, self.state.end or 0)
        return max(0, start - max(self.offset, self.state.first or 0))

    @property
    def passed_over(self) -> int:
        """How many unfinished offsets will never be read, not counting those that Kafka has deleted."""
        start = max(self.state.start or 0, self.state.first or 0)
        # Records that the map calls finished have their outcome, so they do not count.
        finished = self.state.finished.whole.above(start).below(self.offset).count() if self.offset > start else 0
        return max(0, self.offset - start) - finished

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "topic": self.state.topic,
            "partition": self.state.partition,
            "from": self.state.committed,
            "to": self.offset,
            "again": self.again,
            "passed_over": self.passed_over,
            "kept": self.kept,
        }


class OffsetsRefused(ConnectorError):
    """The offsets cannot be reset like this; the message says why and what to do."""


def ranges(bounds: Sequence[int]) -> list[list[int]]:
    """Return half-open bounds as pairs of first and last offset, both inclusive."""
    return [[first, end - 1] for first, end in zip(bounds[::2], bounds[1::2], strict=True)]


async def read(
    settings: Settings, group: str, topics: Collection[str] = (), partitions: Collection[int] = ()
) -> list[PartitionState]:
    """Return the state of each partition of a group, in order of topic and number.

    For the configured group, and its destinations' own groups, partitions without a committed offset are included; for
    any other group only those with one. `topics` and `partitions` restrict them. Raises `StartupError`.
    """
    async with Groups(settings.kafka) as groups:
        return await _states(groups, settings, group, topics, partitions)


async def _states(
    groups: Groups, settings: Settings, group: str, topics: Collection[str], partitions: Collection[int]
) -> list[PartitionState]:
    committed = {(commit.topic, commit.partition): commit for commit in await groups.committed(group)}
    there = await groups.partitions()
    wanted = set(committed) | {partition for partition in there if partition[0] in topics}
    if _is_own(settings, group):
        selection = TopicSelection(settings.kafka.topics, settings.own_topics)
        names = {*selection.names, *selection.matching({topic for topic, _ in there}), settings.replay_topic}
        wanted |= {partition for partition in there if partition[0] in names}
    wanted = {
        (topic, number)
        for topic, number in wanted
        if (not topics or topic in topics) and (not partitions or number in partitions)
    }
    bounds = await groups.bounds(wanted & there)
    return [state_of(each, committed.get(each), bounds.get(each)) for each in sorted(wanted)]


def plan(states: Sequence[PartitionState], targets: Mapping[TopicPartition, int]) -> Iterator[Move]:
    """Yield the moves that set each partition to its target, except partitions that are there already.

    A move forward keeps the map above its target, so that records accepted there are not sent again. A move back drops
    the map, because its purpose is to send again. Raises `OffsetsRefused` for a target outside a partition, before the
    first move.
    """
    chosen = [
        (state, targets[state.topic, state.partition]) for state in states if (state.topic, state.partition) in targets
    ]
    for state, target in chosen:
        if state.first is None or state.end is None:
            continue
        if not state.first <= target <= state.end:
            raise OffsetsRefused(
                f"{state.topic}[{state.partition}] has offsets {state.first} to its end {state.end}, so it cannot be "
                f"set to {target}; name other partitions, or use earliest or latest"
            )
    for state, target in chosen:
        if state.end is None or target == state.committed:
            continue
        finished = FinishedMap()
        if state.committed is not None and target > state.committed:
            # Only for a move forward. A move back is meant to send everything again, and a map would leave records out.
            finished = state.finished.above(target)
        yield Move(state, target, metadata.encode(target, finished).text, finished.whole.count())


async def targets_of(settings: Settings, states: Sequence[PartitionState], to: str | int) -> dict[TopicPartition, int]:
    """Return the offset for `to` in each existing partition; `to` is `earliest`, `latest` or epoch milliseconds.

    A time after the last record is the end. Raises `StartupError`.
    """
    there = {(state.topic, state.partition): state for state in states if state.end is not None}
    if isinstance(to, str):
        return {key: (state.first if to == "earliest" else state.end) or 0 for key, state in there.items()}
    async with Groups(settings.kafka) as groups:
        found = await groups.offsets_at(there, to)
    return {key: offset if offset >= 0 else there[key].end or 0 for key, offset in found.items()}


async def refuse_running(settings: Settings, group: str) -> None:
    """Raise `OffsetsRefused` if the group has members: their next commit would undo a reset."""
    async with Groups(settings.kafka) as groups:
        count = await groups.members(group)
    if count:
        members, them = ("1 member", "it") if count == 1 else (f"{count} members", "them")
        raise OffsetsRefused(
            f"group {group} has {members} running: stop {them} first (a killed member leaves when its session ends)"
        )


async def apply(settings: Settings, group: str, moves: Sequence[Move]) -> None:
    """Commit the moves. Raises `StartupError`, also if the group has members again."""
    commits = [Commit(move.state.topic, move.state.partition, move.offset, move.metadata) for move in moves]
    async with Groups(settings.kafka) as groups:
        await set_offsets(groups, group, commits)


def _is_own(settings: Settings, group: str) -> bool:
    base = settings.kafka.group_id
    return group == base or group in {f"{base}.{name}" for name in settings.destinations}


def state_of(partition: TopicPartition, commit: Commit | None, bounds: tuple[int, int] | None) -> PartitionState:
    """Return a partition's state from its group's commit and its first offset and end (None: it does not exist)."""
    first, end = bounds if bounds is not None else (None, None)
    finished, fault = FinishedMap(), None if bounds is not None else _TOPIC_GONE
    if commit is None:
        return PartitionState(*partition, None, first, end, finished, 0.0, fault)
    try:
        finished = metadata.decode(commit.offset, commit.metadata)
    except ForeignMetadata as error:
        fault = fault or str(error)
    return PartitionState(
        *partition, commit.offset, first, end, finished, len(commit.metadata) / metadata.MAX_TEXT, fault
    )
