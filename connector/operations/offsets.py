"""What `connector offsets` reads and sets: a group's committed offsets, its offset maps, and what is left to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connector.config.loader import Settings
from connector.errors import ConnectorError
from connector.kafka.groups import Groups, Partition
from connector.kafka.subscription import TopicSelection
from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, ForeignMetadata
from connector.records import Commit

_TOPIC_GONE: Final = "the topic or partition does not exist"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What a group has done of one partition.

    `committed` is None where it has no offset, `first` and `end` are None where the partition does not exist.
    `fault` tells why the commit metadata is no map that this release reads; then `finished` is empty.
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
        """Where reading would go on: the committed offset; without one the first there is."""
        return self.first if self.committed is None else self.committed

    @property
    def lag(self) -> int | None:
        """Offsets between the committed one and the end; None where one of both is unknown."""
        if self.start is None or self.end is None or self.first is None:
            return None
        return max(0, self.end - max(self.start, self.first))

    @property
    def backlog(self) -> int | None:
        """`lag` without the records above the committed offset that are finished for good."""
        lag = self.lag
        if lag is None or self.end is None or self.start is None or self.first is None:
            return None
        return lag - self.finished.whole.above(max(self.start, self.first)).below(self.end).count()

    @property
    def out_of_range(self) -> bool:
        """Whether the committed offset is not in the partition any more, so that a run would stop."""
        if self.committed is None or self.first is None or self.end is None:
            return False
        return not self.first <= self.committed <= self.end

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: ranges are [first, last], both inside."""
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
    """A new offset for one partition. `metadata` is the map that goes with it, `kept` how many records it finishes."""

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
        """How many offsets that are not finished will never be read, those that Kafka has deleted left out."""
        start = max(self.state.start or 0, self.state.first or 0)
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
    """The offsets cannot be set so; the message says why and what to do."""


def ranges(bounds: Sequence[int]) -> list[list[int]]:
    """Return half-open bounds as pairs of first and last offset."""
    return [[first, end - 1] for first, end in zip(bounds[::2], bounds[1::2], strict=True)]


async def read(
    settings: Settings, group: str, topics: Collection[str] = (), partitions: Collection[int] = ()
) -> list[PartitionState]:
    """Return the state of each partition of a group, in order of topic and number.

    Of the configured group (and of its destinations' own ones) the partitions that have no offset yet are among them;
    of any other group, those that have one. `topics` and `partitions` leave out others. Raises `StartupError`.
    """
    async with Groups(settings.kafka) as groups:
        return await _read(groups, settings, group, topics, partitions)


async def _read(
    groups: Groups, settings: Settings, group: str, topics: Collection[str], partitions: Collection[int]
) -> list[PartitionState]:
    committed = {(one.topic, one.partition): one for one in await groups.committed(group)}
    there = await groups.partitions()
    wanted = set(committed) | {one for one in there if one[0] in topics}
    if _is_own(settings, group):
        selection = TopicSelection(settings.kafka.topics, settings.own_topics)
        names = {*selection.names, *selection.matching({topic for topic, _ in there}), settings.replay_topic}
        wanted |= {one for one in there if one[0] in names}
    wanted = {
        (topic, number)
        for topic, number in wanted
        if (not topics or topic in topics) and (not partitions or number in partitions)
    }
    bounds = await groups.bounds(wanted & there)
    return [state_of(one, committed.get(one), bounds.get(one)) for one in sorted(wanted)]


def plan(states: Sequence[PartitionState], targets: Mapping[Partition, int]) -> Iterator[Move]:
    """Yield the moves that set each partition to its target, but for those that stand there already.

    A move forward keeps what the map says above its target: what a vendor has accepted there is not sent again. A
    move back forgets the map, because it is made to send again. Raises `OffsetsRefused` for a target outside a
    partition, before the first move.
    """
    chosen = [(one, targets[one.topic, one.partition]) for one in states if (one.topic, one.partition) in targets]
    for state, target in chosen:
        if state.first is None or state.end is None:
            continue
        if not state.first <= target <= state.end:
            raise OffsetsRefused(
                f"{state.topic}[{state.partition}] holds the offsets {state.first} up to its end {state.end}, so it "
                f"cannot be set to {target}; name other partitions, or use earliest or latest"
            )
    for state, target in chosen:
        if state.end is None or target == state.committed:
            continue
        finished = FinishedMap()
        if state.committed is not None and target > state.committed:
            finished = state.finished.above(target)
        yield Move(state, target, metadata.encode(target, finished).text, finished.whole.count())


async def targets_of(settings: Settings, states: Sequence[PartitionState], to: str | int) -> dict[Partition, int]:
    """Return the offset that `to` means in each partition that exists: `earliest`, `latest` or epoch milliseconds.

    A point in time after the last record is the end. Raises `StartupError`.
    """
    there = {(one.topic, one.partition): one for one in states if one.end is not None}
    if isinstance(to, str):
        return {at: (one.first if to == "earliest" else one.end) or 0 for at, one in there.items()}
    async with Groups(settings.kafka) as groups:
        found = await groups.offsets_at(there, to)
    return {at: offset if offset >= 0 else there[at].end or 0 for at, offset in found.items()}


async def refuse_running(settings: Settings, group: str) -> None:
    """Raise `OffsetsRefused` where the group has members: what they commit next would undo a reset."""
    async with Groups(settings.kafka) as groups:
        count = await groups.members(group)
    if count:
        many = "one member" if count == 1 else f"{count} members"
        raise OffsetsRefused(
            f"group {group} has {many} running; stop them first (one that was killed leaves when its session ends)"
        )


async def apply(settings: Settings, group: str, moves: Sequence[Move]) -> None:
    """Commit the moves. Raises `StartupError`, also where the group has members by now."""
    commits = [Commit(one.state.topic, one.state.partition, one.offset, one.metadata) for one in moves]
    async with Groups(settings.kafka) as groups:
        await groups.commit(group, commits)


def _is_own(settings: Settings, group: str) -> bool:
    base = settings.kafka.group_id
    return group == base or group in {f"{base}.{name}" for name in settings.destinations}


def state_of(at: Partition, commit: Commit | None, bounds: tuple[int, int] | None) -> PartitionState:
    """Return a partition's state by what its group committed and its first offset and end; None: it is gone."""
    first, end = bounds if bounds is not None else (None, None)
    finished, fault = FinishedMap(), None if bounds is not None else _TOPIC_GONE
    if commit is None:
        return PartitionState(*at, None, first, end, finished, 0.0, fault)
    try:
        finished = metadata.decode(commit.offset, commit.metadata)
    except ForeignMetadata as error:
        fault = fault or str(error)
    return PartitionState(*at, commit.offset, first, end, finished, len(commit.metadata) / metadata.MAX_TEXT, fault)
