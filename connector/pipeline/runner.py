"""The one task that owns the consumer: it polls, hands records to intake, pauses and resumes, commits, and drains.

Theory of operation. One turn: pause or resume what has to be, poll, take parked records and storms' records further,
hand what was polled to intake slice by slice, commit when the interval is over. Nothing else calls the consumer,
because a call from another task would wait out the running poll.

A partition's life here is one epoch, from `on_assign` to the end of `on_revoke` or `on_lost`:

    OPEN      new work begins; progress is committed at intervals
    DRAINING  nothing new begins; requests in flight and dead letters being written are awaited up to `drain_timeout`;
              then the last commit, repeated for a moment where the group's new generation refuses it
    CLOSED    work that finishes late changes nothing and is never committed: another member may have the partition

Why the epoch, and not simply "is it assigned"? A partition can leave and come back while a request of the first
assignment is still in flight. Its answer belongs to the first epoch's tracker, which is closed by then.

Intake of a partition pauses for three reasons: the buffer is full (all partitions), its next record waits for its
schema, or its offset map, or what storms have set aside of it, takes so much that reading on could not be remembered.

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
from connector.records import Assigned, Commit, FinalFault, LongMetadata, Position, Record, TopicPartition
from connector.tasks import Supervisor
from connector.telemetry.metrics import Metrics

log = structlog.get_logger()

SLICE: Final = 500
"""Records prepared in one go, 1 to 6 ms: what a request may be late because of them."""
POSITION_BYTES: Final = 200
"""Bytes that one position set aside takes: in the tracker, and in its storm (measured)."""
SET_ASIDE_SHARE: Final = 0.5
"""The part of the buffer's size that positions set aside may take, in addition to the buffer."""


LAST_COMMIT_PAUSE: Final = 0.2
"""Seconds before the last commit is repeated for the first time; it doubles up to `LONGEST_COMMIT_PAUSE`."""
LONGEST_COMMIT_PAUSE: Final = 1.0


class AssignmentListener(Protocol):
    """What a source reports about partitions, from inside `poll` or `close`."""

    async def on_assign(self, partitions: Sequence[Assigned]) -> None:
        """Take partitions over; their first record comes after this returned."""
        ...

    async def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish what is under way for partitions and commit it; they belong to another member once this returns."""
        ...

    async def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions that belong to another member already: nothing may be committed for them."""
        ...


class RecordSource(Protocol):
    """Where records come from. All methods are called by one task, `commit` also from inside `on_revoke`."""

    async def start(self, listener: AssignmentListener) -> None:
        """Join the group."""
        ...

    async def poll(self) -> list[Record]:
        """Return the next records, none after a few milliseconds. Never cancelled. Raises `FatalError`."""
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
        """Return no records of these partitions until they are resumed."""
        ...

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Return records of these partitions again, none left out."""
        ...

    def ends(self) -> dict[TopicPartition, int]:
        """Return the assigned partitions' end offsets, as far as they are known."""
        ...

    def reached(self) -> dict[TopicPartition, int]:
        """Return where reading came to partitions' ends since the last call: below, all records were returned."""
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
        """Let go of unsent deliveries whose partition is not open any more."""
        ...

    async def drain(self, timeout: float) -> bool:
        """Do the same, and wait for their requests under way; return whether all ended in time (seconds)."""
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
        """By when a stop has to be over (monotonic seconds)."""
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
        """Since when the group has not answered this member (monotonic seconds); None once it has."""
        self.lost_at = float("-inf")
        """When the group took partitions away without a rebalance (monotonic seconds)."""

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that are ours now."""
        return frozenset(self._trackers)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then drain, commit and leave the group.

        Raises `FatalError` where going on needs a person; what is unfinished stays uncommitted.
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
        # No drain and no commit: the new owner may have committed already, and ours would move the group backwards.
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
        """Return what is known of an assigned partition's records, None for one that is not ours."""
        return self._trackers.get(partition)

    def end_of(self, partition: TopicPartition) -> int | None:
        """Return an assigned partition's end offset as the last fetch reported it, None before it is known."""
        return self._source.ends().get(partition)

    def status(self) -> list[PartitionStatus]:
        """Return the assigned partitions; a map counts as full where what storms have set aside stops intake."""
        return [
            PartitionStatus(*partition, tracker.watermark, tracker.position, self._used(partition))
            for partition, tracker in sorted(self._trackers.items())
        ]

    def _used(self, partition: TopicPartition) -> float:
        return 1.0 if partition in self._logged_full else self._rooms[partition].used

    def backlog(self) -> dict[TopicPartition, int]:
        """Return how many records of each partition are not done: those finished above the watermark are."""
        ends = self._source.ends()
        return {
            partition: max(0, ends.get(partition, tracker.position) - tracker.position) + tracker.unfinished
            for partition, tracker in self._trackers.items()
        }

    def update_gauges(self) -> None:
        """Bring the partitions' gauges up to date."""
        now = self._clock.now()
        for (topic, partition), backlog in self.backlog().items():
            tracker = self._trackers[topic, partition]
            labels = (topic, str(partition))
            watermark, moved = self._moved[topic, partition]
            # An idle partition does not age: with nothing unfinished the watermark has nowhere to go.
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
        # After the poll, which may have waited: health is judged by when the consumer was last asked and answered.
        now = self.polled_at = self._clock.now()
        self._time.rest("poll" if records else waits_for, now)
        if self._intake.answered:
            self._intake.take_parked(self._trackers.get)
        if self._stormy:
            self._rereader.turn()
        for start in range(0, len(records), SLICE):
            self._intake.take(records[start : start + SLICE], self._trackers.get)
            self._time.rest("prepare", self._clock.now())
            # Requests that are due, and answers, wait for no more than one slice.
            await asyncio.sleep(0)
            self._time.rest("deliver", self._clock.now())
        # After intake: the end was reached behind these records, and must not pass them.
        for partition, offset in self._source.reached().items():
            self._trackers[partition].reach(offset)
        if now - self._committed_at >= self._timing.commit_interval:
            await self._commit(list(self._trackers))
            # It may have shown that partitions were added, which this member's rebalances do not report.
            self._on_assignment(self.assigned)

    async def _pause_and_resume(self) -> str:
        """Pause and resume partitions; return the part of the time to which a poll without records belongs."""
        crowded = {partition for partition, room in self._rooms.items() if room.full}
        blocked = self._intake.parked.keys()
        # Once a record was set aside its storm has to be looked after, whatever became of its partition.
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
        """Return the partitions of which so much is set aside that intake has to pause.

        Usually the offset map is the bound. But where nearly all records are set aside they are one run in the map, and
        their positions alone would fill the memory: so the members' positions may take a part of the buffer's size.
        """
        total = sum([tracker.set_aside for tracker in self._trackers.values()])
        # Measured in positions, because their records' bytes were let go of.
        if total * POSITION_BYTES < self._budget.limit * SET_ASIDE_SHARE:
            return set()
        return {
            partition
            for partition, tracker in self._trackers.items()
            # Those with at least the mean: pausing them stops the growth, and a partition without any is not held up.
            if tracker.set_aside * len(self._trackers) >= total
        }

    def _log_full(self, full: set[TopicPartition]) -> None:
        """Log each partition whose intake pauses because of what is set aside, once."""
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
        """Commit what moved since the last commit; return the partitions whose commit failed and may succeed later."""
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
                # The tracker took the snapshot as said. Without this, a partition in which nothing more happens would
                # never be committed.
                self._trackers[partition].retake()
            log.warning("commit.failed", topic=partition[0], partition=partition[1], message=message)
        self._metrics.commits.labels("ok").inc(len(commits) - len(faults))
        if faults:
            self._metrics.commits.labels("failed").inc(len(faults))
        self._time.rest("commit", self._clock.now())
        # Of what fails for good (the member was expelled, the topic is
        # gone) a repetition would only cost the drain's time.
        return [partition for partition, fault in faults.items() if not isinstance(fault, FinalFault)]

    def _apply_limit(self, refused: Sequence[int]) -> None:
        """Write shorter maps where the coordinator refused some of these lengths."""
        # `offset.metadata.max.bytes` may be below Kafka's default. Kafka does not say what it takes, so half is tried.
        if refused:
            self._map_limit = max(1, min(self._map_limit, *refused) // 2)
            for room in self._rooms.values():
                room.limit_to(self._map_limit)

    async def _commit_last(self, partitions: Sequence[TopicPartition], deadline: float) -> None:
        """Commit what leaves, and repeat that until `deadline` if it fails: no other member will do it.

        A commit can fail only because a rebalance is under way. The broker reads the requests of a connection one after
        the other, so behind a JoinGroup the commit is not read until every member has joined, perhaps seconds later.
        Then it has the old generation and is refused (`ILLEGAL_GENERATION`), while the same commit passes once this
        member knows the new one. So there is one more attempt after the deadline: the last may have been such a wait.
        """
        failed = await self._commit(partitions)
        pause, late = LAST_COMMIT_PAUSE, False
        while failed and not late:
            late = self._clock.now() >= deadline
            await self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_COMMIT_PAUSE)
            failed = await self._commit([partition for partition in failed if partition in self._trackers])

    async def _leave(self, partitions: Sequence[TopicPartition]) -> None:
        """Drain partitions within `drain_timeout`, commit what they finished, and fence what comes later."""
        leaving = [partition for partition in partitions if partition in self._trackers]
        if not leaving:
            return
        for partition in leaving:
            # First of all. From here on nothing new starts for the partition, and whatever fails in it is dropped where
            # it would be put back: so the drain can only get shorter.
            self._trackers[partition].phase = Phase.DRAINING
        # The share of the rate limit goes before the drain: the next owner may send as soon as it has the partition.
        self._on_assignment(frozenset(p for p, tracker in self._trackers.items() if tracker.open))
        self._intake.forget(leaving)
        now = self._clock.now()
        deadline = min(now + self._timing.drain_timeout, self._stop_by)
        timeout = max(0.0, deadline - now)
        # Side by side: one after the other, a slow vendor would use up the time of all others.
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
        # Also where the drain was missed: what has finished by now must not be sent again.
        await self._commit_last(leaving, deadline)
        # Only after the commit. An answer that comes in between still counts for it.
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
        """Begin to drain everything at once on a stop, also while a rebalance is being drained.

        Otherwise the stop's own drain would begin after that of the rebalance, and take as long again.
        """
        await stop.wait()
        self._stop_by = self._clock.now() + self._timing.drain_timeout
        for destination in self._destinations:
            destination.stop()

    async def _stop(self) -> None:
        # No retry, no probe and no half of a batch starts during the last drain.
        for destination in self._destinations:
            destination.stop()
        await self._leave(list(self._trackers))
        # After the last commit, and the source last of all: leaving the group hands the partitions over.
        await self._rereader.close()
        await self._intake.close()
        await self._source.close()


def _restored(assigned: Assigned) -> metadata.FinishedMap | None:
    """Return the committed map, or None where there is none that can be read: sending again beats losing."""
    # The map belongs to the committed offset. Where reading starts elsewhere (a reset), it is about other records.
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
