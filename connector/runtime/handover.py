"""Hands a group's progress over between a run of all destinations and runs of one destination.

`run --destination NAME` has its own group, `<group_id>.NAME`. The side that starts next must know what the other side
has delivered: otherwise the second split, or the way back, delivers it again. So:

- A destination's own group begins with the combined group's offsets and its own part of the map.
- The combined group begins with what every destination has finished, in its own group or in the combined one. Then it
  marks the own groups' offsets as handed over, and the next split begins with the combined group's progress again.
- An own group that is not marked is the newer side. Its offsets are used as they are, so `connector offsets reset` of
  the group that runs is respected.
- While the other side has members nothing starts: both would deliver every record.

Both sides may start in the same moment, as two deployments do on a machine that restarts. Neither sees the other one
then. So each looks again when its group counts it as a member, and before it reads anything. One of them has to see the
other. The run of one destination ends, and the combined one waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

import structlog

from connector.clock import Clock
from connector.config.loader import Settings
from connector.errors import FatalError, LongMetadataRefused, StartupError
from connector.kafka.client import session_seconds, start_of
from connector.kafka.groups import Groups
from connector.pipeline import offset_map as metadata
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.records import Commit, TopicPartition

HANDED_OVER: Final = "connector:handed-over"
"""The metadata of an own group's offsets that the combined group has taken over."""
LEAVE_SECONDS: Final = 10.0
"""How long, beyond `limits.drain_timeout` or the session's time-out, members of the other side may take to leave."""
_PAUSE: Final = 1.0

T = TypeVar("T")

log = structlog.get_logger()


class OtherSideRuns(FatalError):
    """The other side runs, or has run since this one began: this one must not deliver anything."""


async def take_over(groups: Groups, settings: Settings, destination: str | None, clock: Clock) -> None:
    """Give the progress of the other side to the group that is starting. Raises `StartupError`."""
    if destination is None:
        await _join(groups, settings, clock)
    else:
        await _split(groups, settings, destination, clock)


async def other_side(
    groups: Groups, settings: Settings, destination: str | None, clock: Clock, *, is_back: bool = False
) -> OtherSideRuns | None:
    """Return why a member must not begin although it has joined its group: the other side has members as well.

    `is_back`: this member has begun before and was away; then the other side may also have run and stopped.
    """
    base = settings.kafka.group_id
    others = [f"{base}.{name}" for name in settings.destinations] if destination is None else [base]
    # Only one side ends where both see each other.
    patience = LEAVE_SECONDS if destination is None else 0.0
    try:
        await _until_left(groups, others, clock, clock.now() + patience)
        if is_back:
            await _judge_absence(groups, settings, destination)
    except OtherSideRuns as error:
        return error
    except StartupError as error:
        # It could be read when this member started.
        log.warning("offsets.waiting", group=base, message=f"it is not known whether the other side runs: {error}")
    return None


async def _judge_absence(groups: Groups, settings: Settings, destination: str | None) -> None:
    """Raise `OtherSideRuns` if the other side has run while a member was away."""
    base = settings.kafka.group_id
    for name in settings.destinations if destination is None else [destination]:
        own = await _if_allowed(groups.committed(f"{base}.{name}"), [])
        # At this member's start all offsets of own groups were marked, or those of its own group were not.
        if any(_is_handed_over(commit) is (destination is not None) for commit in own):
            other = f"{base}.{name}" if destination is None else base
            raise OtherSideRuns(
                f"group {other} has run while this member was away from its group; start it again, so that it takes "
                "over what was delivered"
            )


async def give_back(groups: Groups, settings: Settings, destination: str | None) -> None:
    """Mark an own group's offsets as handed over: its member ended before it delivered anything."""
    if destination is None:
        return
    group = f"{settings.kafka.group_id}.{destination}"
    commits = [commit for commit in await groups.committed(group) if not _is_handed_over(commit)]
    # The last of several members does it.
    if commits:
        await _commit(groups, group, [commit._replace(metadata=HANDED_OVER) for commit in commits])


async def _split(groups: Groups, settings: Settings, destination: str, clock: Clock) -> None:
    """Begin a destination's own group with the combined group's offsets, unless it is the newer side.

    Without offsets it would send everything again, so it refuses to start, unless `kafka.start` is set.
    """
    base = settings.kafka.group_id
    group = f"{base}.{destination}"
    await _until_left(groups, [base], clock, clock.now() + _patience(settings))
    own = {(commit.topic, commit.partition): commit for commit in await groups.committed(group)}
    # Unmarked offsets are newer. A union of both sides would undo an operator's reset of either.
    if own and not any(_is_handed_over(commit) for commit in own.values()):
        return
    adopted = []
    for commit in await groups.committed(base):
        # A partition that was added since is not in the own group: it begins with the combined group's offset, too.
        at = own.get((commit.topic, commit.partition))
        if at is None or _is_handed_over(at):
            watermark, part = metadata.part_of(commit.offset, finished_of(commit), destination)
            text = metadata.encode(watermark, part).text
            adopted.append(Commit(commit.topic, commit.partition, watermark, text))
    if not adopted:
        if own or settings.kafka.start is not None:
            return
        raise StartupError(
            f"group {group} has no offsets yet and group {base} has none to copy: set kafka.start, or run the combined "
            f"group first"
        )
    await _commit(groups, group, adopted)
    log.info("offsets.adopted", group=group, base=base, partitions=len(adopted))


async def _join(groups: Groups, settings: Settings, clock: Clock) -> None:
    """Begin the combined group with what each destination has finished, if one has run alone since the last time."""
    base = settings.kafka.group_id
    own = {name: f"{base}.{name}" for name in settings.destinations}
    # Wait also for groups that have committed nothing yet. Only afterwards are their last commits known.
    await _until_left(groups, [*own.values()], clock, clock.now() + _patience(settings))
    # A client without the right to describe an own group takes nothing over from it, and starts all the same.
    found = await asyncio.gather(*(_if_allowed(groups.committed(group), []) for group in own.values()))
    alone = {
        name: {(commit.topic, commit.partition): commit for commit in commits if not _is_handed_over(commit)}
        for name, commits in zip(own, found, strict=True)
    }
    # If the combined group has members, it is already running, and this member joins it. Its members commit its
    # offsets.
    if not any(alone.values()) or await groups.members(base):
        return
    before = {(commit.topic, commit.partition): commit for commit in await groups.committed(base)}
    # Without topics that were deleted since, because the coordinator removes their offsets late.
    wanted = {partition for commits in alone.values() for partition in commits} & await groups.partitions()
    bounds = await groups.bounds(sorted(wanted))
    starts = await _starts(groups, settings, bounds, {topic for topic, _ in before})
    read = {name: {topic for topic, _ in commits} for name, commits in alone.items()}
    joined = []
    for partition in sorted(wanted):
        newer = {name: commits[partition] for name, commits in alone.items() if partition in commits}
        first = bounds[partition][0]
        firsts = {name: first if partition[0] in read[name] else starts.get(partition, first) for name in own}
        progress = progress_of(before.get(partition), newer, firsts)
        watermark, finished = metadata.combined(progress)
        finished = finished.joined(_of_absent(before.get(partition), progress).above(watermark))
        joined.append(Commit(*partition, watermark, metadata.encode(watermark, finished).text))
    # Marked only after the combined group has the progress: a crash in between hands it over once more.
    await _commit(groups, base, joined)
    for name, commits in alone.items():
        if commits:
            await groups.commit(own[name], [commit._replace(metadata=HANDED_OVER) for commit in commits.values()])
            log.info("offsets.taken_back", group=base, own=own[name], partitions=len(commits))


async def _starts(
    groups: Groups, settings: Settings, bounds: Mapping[TopicPartition, tuple[int, int]], begun: set[str]
) -> dict[TopicPartition, int]:
    """Return where a destination without any deliveries starts: at `kafka.start`, if that moves with time.

    In topics that the combined group has `begun`, and in the replay topic, it starts with the first record.
    """
    start = start_of(settings.kafka)
    fresh = [partition for partition in bounds if partition[0] not in begun | {settings.replay_topic}]
    if start == "earliest":
        return {}
    found = await groups.offsets_at(fresh, start) if isinstance(start, int) else dict.fromkeys(fresh, -1)
    # The end, too, if no record is as late as the time.
    return {partition: offset if offset >= 0 else bounds[partition][1] for partition, offset in found.items()}


def progress_of(combined: Commit | None, alone: Mapping[str, Commit], firsts: Mapping[str, int]) -> dict[str, Runs]:
    """Return the records of a partition that each destination has finished, from offset 0 on.

    `combined` is the combined group's commit, `alone` are those of own groups; `firsts` is, by destination, the first
    offset that it may need.
    """
    # Deleted records cannot be delivered any more. Counted as unfinished, they would hold the watermark for ever.
    progress = {name: _up_to(first) for name, first in firsts.items()}
    if combined is not None:
        finished = finished_of(combined)
        below = _up_to(combined.offset)
        progress = {name: runs.union(below).union(finished.done(name)) for name, runs in progress.items()}
    for name, commit in alone.items():
        # `whole` is enough: an own group has one destination, so no record is finished in part only.
        progress[name] = progress[name].union(_up_to(commit.offset)).union(finished_of(commit).whole)
    return progress


def _of_absent(combined: Commit | None, progress: Mapping[str, Runs]) -> FinishedMap:
    """Return the combined group's claims for destinations that are not configured now."""
    claims = {} if combined is None else finished_of(combined).parts
    return FinishedMap(parts={name: runs for name, runs in claims.items() if name not in progress})


def finished_of(commit: Commit) -> FinishedMap:
    """Return the map of a commit, empty if it is not one."""
    try:
        return metadata.decode(commit.offset, commit.metadata)
    except metadata.ForeignMetadata as error:
        log.warning("offsets.foreign_metadata", topic=commit.topic, partition=commit.partition, message=str(error))
        return FinishedMap()


def _patience(settings: Settings) -> float:
    """Return the seconds within which members that were stopped or killed have left."""
    return max(settings.limits.drain_timeout, session_seconds(settings.kafka)) + LEAVE_SECONDS


async def _until_left(groups: Groups, others: Sequence[str], clock: Clock, deadline: float) -> None:
    """Return once none of these groups has members. Raises `OtherSideRuns` if one still has some at the deadline."""
    for group in others:
        logged = False
        while await _if_allowed(groups.members(group), 0):
            if clock.now() >= deadline:
                raise OtherSideRuns(
                    f"group {group} has running members. A run of all destinations and a run of one (--destination) "
                    f"would both deliver every record; stop the members of {group} first"
                )
            if not logged:
                log.warning(
                    "offsets.waiting", group=group, message="the other side still has members; waiting for them"
                )
            logged = True
            await clock.sleep(_PAUSE)


async def _if_allowed(answer: Awaitable[T], otherwise: T) -> T:
    """Return an answer about a group, or `otherwise` if this client may not read the group."""
    try:
        return await answer
    except StartupError as error:
        if "GROUP_AUTHORIZATION_FAILED" not in str(error):
            raise
        return otherwise


async def set_offsets(groups: Groups, group: str, commits: Sequence[Commit]) -> None:
    """Set a group's offsets, with shorter maps if its coordinator takes no longer ones. Raises `StartupError`."""
    limit = max((len(commit.metadata) for commit in commits), default=0)
    while True:
        try:
            await groups.commit(group, commits)
        except LongMetadataRefused as error:
            # `offset.metadata.max.bytes` is below Kafka's default. Kafka does not say what it takes, so half is tried.
            limit //= 2
            if not limit:
                raise
            log.warning("offsets.map_cut", group=group, characters=limit, message=str(error))
            commits = [
                commit._replace(metadata=metadata.shortened(commit.offset, commit.metadata, limit))
                for commit in commits
            ]
        else:
            return


async def _commit(groups: Groups, group: str, commits: Sequence[Commit]) -> None:
    try:
        await set_offsets(groups, group, commits)
    except StartupError:
        # Another member of this group may have started first and done the same.
        if not await groups.members(group):
            raise


def _is_handed_over(commit: Commit) -> bool:
    return commit.metadata == HANDED_OVER


def _up_to(offset: int) -> Runs:
    return Runs((0, offset)) if offset else Runs()
