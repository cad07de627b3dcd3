"""The one task that owns the consumer: it polls, hands records to intake, pauses and resumes, commits, and drains.

Theory of operation. One turn of the loop: pause or resume partitions, poll, continue with parked records and with
records of storms, pass the polled records to intake slice by slice, and commit if the interval is over. Nothing else
calls the consumer, because a call from another task would wait until the running poll ends.

A partition's life here is one epoch, from `on_assign` to the end of `on_revoke` or `on_lost`:

    OPEN      new work begins; progress is committed at intervals
    DRAINING  nothing new begins; requests in flight and dead letters being written are awaited up to `drain_timeout`;
              then the last commit, repeated briefly if the group's new generation refuses it
    CLOSED    work that finishes late changes nothing and is never committed: another member may have the partition

Why an epoch, and not simply "is it assigned"? A partition can be revoked and assigned again while a request of the
first assignment is still in flight. Its answer belongs to the first epoch's tracker, which is closed by then.

Intake of a partition pauses for three reasons: the buffer is full (then all partitions pause), its next record waits
for its schema, or there is no more room to remember its progress (in its offset map, or in the positions that storms
have set aside).

The runner knows neither Kafka nor HTTP. It states the protocols it needs; `runtime.app` passes the real ones, and the
simulation passes a model of a broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.pipeline import offset_map as metadata
from connector.pipeline.flow import Flow, MapRoom
from connector.pipeline.intake import Intake
from connector.pipeline.offsets import NOTHING, PartitionTracker, Phase
from connector.pipeline.rereading import Rereader
from connector.records import (
    Assigned,
    Commit,
    FinalFault,
    LongMetadata,
    Position,
    RebalanceListener,
    Record,
    TopicPartition,
)
from connector.tasks import Supervisor
from connector.telemetry.metrics import Metrics

log = structlog.get_logger()

SLICE: Final = 500
"""Records prepared without a pause. They take 1 to 6 ms, by which a due request may be late."""
POSITION_BYTES: Final = 200
"""Bytes that one position set aside takes in the tracker and in its storm (measured)."""
SET_ASIDE_SHARE: Final = 0.5
"""The memory for positions set aside, as a share of the buffer's size and in addition to it."""


LAST_COMMIT_PAUSE: Final = 0.2
"""Seconds before the first repetition of the last commit; they double up to `LONGEST_COMMIT_PAUSE`."""
LONGEST_COMMIT_PAUSE: Final = 1.0


class RecordSource(Protocol):
    """Where records come from. Only one task calls it; `commit` is also called from inside `on_revoke`."""

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group."""
        ...

    async def poll(self) -> list[Record]:
        """Return the next records, or none after a few milliseconds. Never cancelled. Raises `FatalError`."""
        ...

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return records by their positions, as `rereading.PositionReader` does."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Commit offsets and metadata; return faults by partition.

        A `FinalFault` if committing again cannot help, `LongMetadata` if shorter metadata can.
        """
        ...

    async def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Return no records of these partitions until `resume`."""
        ...

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Return records of these partitions again, without a gap."""
        ...

    def ends(self) -> dict[TopicPartition, int]:
        """Return the known end offsets of the assigned partitions."""
        ...

    def reached(self) -> dict[TopicPartition, int]:
        """Return the partitions' ends reached since the last call. All records below an end were returned."""
        ...

    async def close(self) -> None:
        """Leave the group."""
        ...


class Drainable(Protocol):
    """One destination, as the runner sees it."""

    def stop(self) -> None:
        """Start no further request."""
        ...

    def drop(self) -> None:
        """Drop unsent deliveries whose partition is no longer open."""
        ...

    async def drain(self, timeout: float) -> bool:
        """Like `drop`, then wait for their requests in flight; return whether all ended within `timeout` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One assigned partition, as `/status` shows it."""

    topic: str
    partition: int
    watermark: int
    position: int
    map_used: float


@dataclass(frozen=True, slots=True)
class Timing:
    """How often offsets are committed, how long a drain may take (seconds), and how long a map may be (characters)."""

    commit_interval: float
    drain_timeout: float
    map_limit: int = metadata.MAX_TEXT


class Runner:
    """Runs the pipeline of one process: `destinations` names them in the order of the trackers' bits."""

    def __init__(
        self,
        source: RecordSource,
        intake: Intake,
        destinations: Sequence[tuple[str, Drainable]],
        *,
        metrics: Metrics,
        clock: Clock,
        timing: Timing,
        rereader: Rereader,
        on_assignment: Callable[[frozenset[TopicPartition]], None] = lambda _partitions: None,
    ) -> None:
        self._source = source
        self._intake = intake
        self._names = [name for name, _ in destinations]
        self._destinations = [destination for _, destination in destinations]
        self._budget = intake.budget
        self._metrics = metrics
        self._time = metrics.time_seconds
        self._clock = clock
        self._timing = timing
        self._on_assignment = on_assignment
        self._rereader = rereader
        self._logged_full: set[TopicPartition] = set()
        self._tasks: Supervisor[None] = Supervisor()
        self._stop_by = float("inf")
        """When a stop has to be over (monotonic seconds)."""
        self._flow = Flow()
        self._stormy = False
        self._trackers: dict[TopicPartition, PartitionTracker] = {}
        self._rooms: dict[TopicPartition, MapRoom] = {}
        self._map_limit = timing.map_limit
        """The longest map that the group's coordinator was seen to take, or may take (characters)."""
        self._moved: dict[TopicPartition, tuple[int, float]] = {}
        self._committed_at = clock.now()
        self.polled_at: float | None = None
        """When the consumer was polled last (monotonic seconds); None before that."""
        self.joining_since: float | None = None
        """Since when the group has not answered this member (monotonic seconds); None if it has."""
        self.lost_at = float("-inf")
        """When this member lost its partitions without a revoke (monotonic seconds)."""

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that are ours now."""
        return frozenset(self._trackers)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then drain, commit and leave the group.

        Raises `FatalError` if a person has to act. Unfinished records stay uncommitted.
        """
        await self._source.start(self)
        self._committed_at = self._clock.now()
        self.joining_since = self._committed_at
        self._time.begin(self._committed_at)
        self._tasks.start(self._begin_stop(stop), "stop", None)
        try:
            while not stop.is_set():
                await self._turn()
        finally:
            try:
                await self._stop()
            finally:
                await self._tasks.close()
        self._tasks.check()

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Begin an epoch for each partition, with what the committed map says is finished."""
        for assigned in partitions:
            partition = (assigned.topic, assigned.partition)
            self._trackers[partition] = PartitionTracker(
                assigned.topic, assigned.partition, assigned.start, self._names, _restored(assigned)
            )
            self._rooms[partition] = MapRoom(self._trackers[partition], self._map_limit, len(assigned.metadata))
            self._moved[partition] = (assigned.start, self._clock.now())
        self._flow.forget((assigned.topic, assigned.partition) for assigned in partitions)
        self.joining_since = None
        self._metrics.rebalances.labels("assigned").inc()
        self._on_assignment(self.assigned)
        log.info(
            "partitions.assigned", partitions=_names((assigned.topic, assigned.partition) for assigned in partitions)
        )

    async def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Drain the partitions, commit them, and end their epochs."""
        self._metrics.rebalances.labels("revoked").inc()
        await self._leave(partitions)
        log.info("partitions.revoked", partitions=_names(partitions))

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """End the epochs without a commit: another member has the partitions already."""
        self._metrics.rebalances.labels("lost").inc()
        # No drain and no commit: the new owner may have committed already, and a commit here could move its offset
        # back.
        gone = self._take_trackers(partitions, Phase.CLOSED)
        self.lost_at = self._clock.now()
        self.joining_since = None if self._trackers else self.lost_at
        self._intake.forget(list(gone))
        for destination in self._destinations:
            destination.drop()
        self._on_assignment(self.assigned)
        log.warning(
            "partitions.lost",
            partitions=_names(partitions),
            message="the group took the partitions away; what was not committed will be delivered again",
        )

    def tracker_of(self, partition: TopicPartition) -> PartitionTracker | None:
        """Return the tracker of an assigned partition; None for a partition that is not ours."""
        return self._trackers.get(partition)

    def end_of(self, partition: TopicPartition) -> int | None:
        """Return an assigned partition's end offset from the last fetch; None if it is not known yet."""
        return self._source.ends().get(partition)

    def status(self) -> list[PartitionStatus]:
        """Return the assigned partitions. A map counts as full if records set aside by storms pause the intake."""
        return [
            PartitionStatus(*partition, tracker.watermark, tracker.position, self._used(partition))
            for partition, tracker in sorted(self._trackers.items())
        ]

    def _used(self, partition: TopicPartition) -> float:
        return 1.0 if partition in self._logged_full else self._rooms[partition].used

    def backlog(self) -> dict[TopicPartition, int]:
        """Return how many records of each partition are not done, not counting those finished above the watermark."""
        ends = self._source.ends()
        return {
            partition: max(0, ends.get(partition, tracker.position) - tracker.position) + tracker.unfinished
            for partition, tracker in self._trackers.items()
        }

    def update_gauges(self) -> None:
        """Update the partitions' gauges."""
        now = self._clock.now()
        for (topic, partition), backlog in self.backlog().items():
            tracker = self._trackers[topic, partition]
            labels = (topic, str(partition))
            watermark, moved = self._moved[topic, partition]
            # An idle partition does not age: with nothing unfinished the watermark cannot move.
            if tracker.watermark != watermark or not tracker.unfinished:
                moved = now
                self._moved[topic, partition] = (tracker.watermark, now)
            self._metrics.partition_lag.labels(*labels).set(backlog)
            self._metrics.partition_watermark_age.labels(*labels).set(now - moved)
            self._metrics.offset_map_used.labels(*labels).set(self._rooms[topic, partition].used)
        self._metrics.buffer_bytes.set(self._budget.used)
        self._metrics.buffer_limit_bytes.set(self._budget.limit)

    async def _turn(self) -> None:
        waits_for = await self._pause_and_resume()
        records = await self._source.poll()
        # Set after the poll, which may have waited: health depends on when the consumer was last polled and returned.
        now = self.polled_at = self._clock.now()
        self._time.rest("poll" if records else waits_for, now)
        if self._intake.answered:
            self._intake.take_parked(self._trackers.get)
        if self._stormy:
            self._rereader.turn()
        for start in range(0, len(records), SLICE):
            self._intake.take(records[start : start + SLICE], self._trackers.get)
            self._time.rest("prepare", self._clock.now())
            # Let other tasks run between slices, so that due requests and answers wait for one slice at most.
            await asyncio.sleep(0)
            self._time.rest("deliver", self._clock.now())
        # After intake: the end is behind these records, which must have been begun first.
        for partition, offset in self._source.reached().items():
            self._trackers[partition].reach(offset)
        if now - self._committed_at >= self._timing.commit_interval:
            await self._commit(list(self._trackers))
            # The commit may have found added partitions, which this member's rebalances do not report.
            self._on_assignment(self.assigned)

    async def _pause_and_resume(self) -> str:
        """Pause and resume partitions; return the part of `time_seconds_total` that an empty poll counts to."""
        crowded = {partition for partition, room in self._rooms.items() if room.full}
        blocked = self._intake.parked.keys()
        # Once a record was set aside, its storm needs these turns, whatever happened to its partition.
        self._stormy = self._stormy or any(tracker.stormy for tracker in self._trackers.values())
        if self._stormy:
            crowded |= self._full_of_set_aside()
            self._log_full({partition for partition in crowded if self._trackers[partition].set_aside})
        full = self._budget.full
        if full or crowded or blocked or self._flow.paused:
            change = self._flow.change(self._trackers, blocked | crowded, all_blocked=full)
            if change.pause:
                await self._source.pause(change.pause)
            if change.resume:
                await self._source.resume(change.resume)
        return "deliver" if full or crowded else "decode" if blocked else "idle"

    def _full_of_set_aside(self) -> set[TopicPartition]:
        """Return the partitions whose intake has to pause because so much of them is set aside.

        Usually the offset map limits that. But if nearly all records are set aside, they are one short run in the map,
        while their positions alone would fill the memory. So these positions may take at most a share of the buffer's
        size.
        """
        total = sum([tracker.set_aside for tracker in self._trackers.values()])
        # Counted in positions, because the records' bytes were released.
        if total * POSITION_BYTES < self._budget.limit * SET_ASIDE_SHARE:
            return set()
        return {
            partition
            for partition, tracker in self._trackers.items()
            # Pause those with at least the mean: that stops the growth, and does not hold up a partition without any.
            if tracker.set_aside * len(self._trackers) >= total
        }

    def _log_full(self, full: set[TopicPartition]) -> None:
        """Log once for each partition that its intake pauses because of records set aside."""
        for partition in full - self._logged_full:
            log.warning(
                "storm.partition_full",
                topic=partition[0],
                partition=partition[1],
                records=self._trackers[partition].set_aside,
                message="storms have set aside all records of this partition that can be tracked; its intake pauses",
            )
        self._logged_full = full

    async def _commit(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Commit the progress since the last commit; return the partitions whose commit failed but may be repeated."""
        self._committed_at = self._clock.now()
        commits = []
        for partition in partitions:
            tracker = self._trackers[partition]
            snapshot = tracker.snapshot()
            if snapshot is None:
                continue
            watermark, finished = snapshot
            text = ""
            if finished is not NOTHING:
                text = metadata.encode(watermark, finished, self._map_limit).text
            self._rooms[partition].measured(len(text))
            commits.append(Commit(*partition, watermark, text))
        if not commits:
            return []
        faults = await self._source.commit(commits)
        self._apply_limit([len(c.metadata) for c in commits if isinstance(faults.get(c[:2]), LongMetadata)])
        for partition, message in faults.items():
            if partition in self._trackers:
                # The tracker assumes that the snapshot was committed. Without this, a partition in which nothing more
                # happens would never be committed.
                self._trackers[partition].retake()
            log.warning("commit.failed", topic=partition[0], partition=partition[1], message=message)
        self._metrics.commits.labels("ok").inc(len(commits) - len(faults))
        if faults:
            self._metrics.commits.labels("failed").inc(len(faults))
        self._time.rest("commit", self._clock.now())
        # Do not repeat a commit that cannot succeed (the member was expelled, the topic is gone): that would only use
        # up the drain's time.
        return [partition for partition, fault in faults.items() if not isinstance(fault, FinalFault)]

    def _apply_limit(self, refused: Sequence[int]) -> None:
        """Write shorter maps where the coordinator refused some of these lengths."""
        # `offset.metadata.max.bytes` may be below Kafka's default. Kafka does not say what it takes, so half of the
        # longest is tried: librdkafka reports one partition's fault for all of a commit.
        if longest := max(refused, default=0):
            self._map_limit = max(1, min(self._map_limit, longest) // 2)
            for room in self._rooms.values():
                room.limit_to(self._map_limit)

    async def _commit_last(self, partitions: Sequence[TopicPartition], deadline: float) -> None:
        """Commit revoked partitions; repeat a failed commit until `deadline`, because no other member can make it.

        A commit may fail only because of a rebalance in progress. The broker reads the requests of a connection one
        after the other. Behind a JoinGroup it reads the commit only once every member has joined, perhaps seconds
        later. By then the commit has an old generation and is refused (`ILLEGAL_GENERATION`), while the same commit
        succeeds once this member knows the new generation. So there is one more attempt after the deadline, in case the
        last one waited like that.
        """
        failed = await self._commit(partitions)
        pause, late = LAST_COMMIT_PAUSE, False
        while failed and not late:
            late = self._clock.now() >= deadline
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_COMMIT_PAUSE)
            failed = await self._commit([partition for partition in failed if partition in self._trackers])

    async def _leave(self, partitions: Sequence[TopicPartition]) -> None:
        """Drain partitions within `drain_timeout`, commit what they finished, and close their epochs."""
        leaving = [partition for partition in partitions if partition in self._trackers]
        if not leaving:
            return
        for partition in leaving:
            # First of all: from here on nothing new starts for the partition, and a failed batch is dropped instead of
            # put back. So the amount of work to drain can only shrink.
            self._trackers[partition].phase = Phase.DRAINING
        # Give up the share of the rate limit before the drain: the next owner may send as soon as it has the partition.
        self._on_assignment(frozenset(p for p, tracker in self._trackers.items() if tracker.open))
        self._intake.forget(leaving)
        now = self._clock.now()
        deadline = min(now + self._timing.drain_timeout, self._stop_by)
        timeout = max(0.0, deadline - now)
        # Concurrently: one after the other, a slow vendor would use up the time of all others.
        drains = [self._intake.drain(timeout), *(destination.drain(timeout) for destination in self._destinations)]
        in_time = all(await asyncio.gather(*drains))
        self._time.rest("deliver", self._clock.now())
        if not in_time:
            log.warning(
                "drain.missed",
                partitions=_names(leaving),
                seconds=round(timeout, 3),
                message="requests were under way when limits.drain_timeout ended; their records may be delivered again",
            )
        # Even if the drain ran out of time: what has finished by now must not be sent again.
        await self._commit_last(leaving, deadline)
        # Closed only after the commit, so that an answer that comes in between still counts.
        self._take_trackers(leaving, Phase.CLOSED)

    def _take_trackers(
        self, partitions: Sequence[TopicPartition], phase: Phase
    ) -> dict[TopicPartition, PartitionTracker]:
        gone = {partition: self._trackers.pop(partition) for partition in partitions if partition in self._trackers}
        for partition, tracker in gone.items():
            tracker.phase = phase
            del self._rooms[partition], self._moved[partition]
            self._metrics.forget_partition(*partition)
        self._flow.forget(gone)
        return gone

    async def _begin_stop(self, stop: asyncio.Event) -> None:
        """Begin to drain everything as soon as a stop is requested, even while a rebalance drains.

        Otherwise the stop's drain would begin only after that of the rebalance, and take as long again.
        """
        await stop.wait()
        self._stop_by = self._clock.now() + self._timing.drain_timeout
        for destination in self._destinations:
            destination.stop()

    async def _stop(self) -> None:
        # No retry, probe or half of a batch starts during the last drain.
        for destination in self._destinations:
            destination.stop()
        await self._leave(list(self._trackers))
        # After the last commit, and the source last of all, because leaving the group gives the partitions to others.
        await self._rereader.close()
        await self._intake.close()
        await self._source.close()


def _restored(assigned: Assigned) -> metadata.FinishedMap | None:
    """Return the committed map; None if it cannot be read, because sending twice is better than losing."""
    # The map belongs to the committed offset. If reading starts elsewhere (after a reset), the map is about other
    # records.
    if assigned.committed is None or assigned.committed != assigned.start:
        return None
    try:
        return metadata.decode(assigned.committed, assigned.metadata)
    except metadata.ForeignMetadata as error:
        log.warning(
            "offsets.foreign_metadata",
            topic=assigned.topic,
            partition=assigned.partition,
            offset=assigned.committed,
            message=f"the committed metadata is ignored: {error}; what was finished above the offset is sent again",
        )
        return None


def _names(partitions: object) -> list[str]:
    return [f"{topic}[{partition}]" for topic, partition in sorted(partitions)]  # type: ignore[call-overload]
