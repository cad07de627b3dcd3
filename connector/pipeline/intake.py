"""From consumed records to deliveries: decode, route, prepare. What cannot go on becomes a refusal, or is parked.

Everything here is synchronous, so that a chunk of records costs no await of its own. Records whose schema nobody knows
yet are parked with all that follow them in their partition, until the decoder has an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby
from operator import attrgetter
from typing import Final

import structlog

from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.errors import Refusal, SchemaUnavailable
from connector.pipeline.batching import charge_of
from connector.pipeline.flow import TopicPartition
from connector.pipeline.offsets import WHOLE, PartitionTracker, destination_bit
from connector.pipeline.preparing import Chunk, Services
from connector.pipeline.skipping import CAUSE, CODE, MESSAGE, Skip
from connector.pipeline.storms import Suspended
from connector.records import DeadLetter, Event, Record, uuid5_text
from connector.routing.replays import reroute
from connector.routing.table import position_identity
from connector.telemetry.logs import sample

_Decoded = tuple[PartitionTracker, list[tuple[Record, Event]]]
"""A partition's records with their events."""

_PARTITION: Final = attrgetter("topic", "partition")

log = structlog.get_logger()


class Intake:
    """Takes consumed records in. `names` are the destinations in the order of their trackers' bits.

    `only` is the one destination of a run that skips what is for others, undecoded where the schema tells. Records of
    `replay_topic` were dead letters: they are read as they came first, and are outside storm windows.
    """

    def __init__(
        self, services: Services, names: Sequence[str], *, only: str | None = None, replay_topic: str | None = None
    ) -> None:
        self._to = services
        self._only = only
        self._replay_topic = replay_topic
        self._elsewhere: dict[tuple[str, str], bool] = {}
        self._bits = {name: destination_bit(index) for index, name in enumerate(names)}
        self._parked: dict[TopicPartition, deque[Record]] = {}
        self._resolving: dict[object, asyncio.Task[None]] = {}
        self._tasks: dict[asyncio.Task[None], PartitionTracker] = {}
        self._answered = False
        self._error: BaseException | None = None
        self._skips: dict[tuple[str, int, int], Skip] = {}
        """Records that are skipped when they are read."""

    def blocked(self, assigned: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions to pause: their next record waits for its schema, or their topic is in a storm."""
        blocked = set(self._parked)
        if self._to.storms:
            topics = self._to.storms.blocked(self._to.clock.now())
            blocked.update(partition for partition in assigned if partition[0] in topics)
        return blocked

    def release(self) -> None:
        """End every topic's storm: the operator says that it can go on."""
        for topic in self._to.storms.topics():
            self._resume(self._to.storms.release(topic))

    def take(self, records: Sequence[Record], tracker_of: Callable[[TopicPartition], PartitionTracker | None]) -> None:
        """Take a chunk of consumed records. Those of partitions that have left are ignored: they stay uncommitted."""
        consumed: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        fresh: list[tuple[PartitionTracker, list[Record]]] = []
        for partition, read in groupby(records, _PARTITION):
            tracker = tracker_of(partition)
            if tracker is None or not tracker.open:
                continue
            run = list(read)
            consumed[partition[0]] += len(run)
            if left := self._begin(run, tracker, skipped):
                fresh.append((tracker, left))
        metrics = self._to.metrics
        for topic, count in consumed.items():
            metrics.records_consumed.labels(topic).inc(count)
        for reason, count in skipped.items():
            metrics.records_skipped.labels(reason).inc(count)
        if fresh:
            self._process(fresh)

    def _begin(self, run: list[Record], tracker: PartitionTracker, skipped: Counter[str]) -> list[Record]:
        """Take note of one partition's records; return those that are to be decoded."""
        if not tracker.begin_all([record.offset for record in run]):
            begun = [record for record in run if tracker.begin(record.offset)]
            skipped["finished_before"] += len(run) - len(begun)
            run = begun
        if self._skips or self._only is not None or [None for record in run if record.value is None]:
            return [record for record in run if not self._ends_here(record, tracker, skipped)]
        return run

    def _ends_here(self, record: Record, tracker: PartitionTracker, skipped: Counter[str]) -> bool:
        """End a record that is not to be decoded: it has no value, is skipped by hand, or is for others."""
        if record.value is None:
            skipped["null_value"] += 1
        elif (skip := self._skips.pop(record.position, None)) is not None:
            self._to.budget.add(charge_of(record))
            self._skip(record, tracker, skip)
            return True
        elif self._only is not None and self._is_elsewhere(record, self._only):
            skipped["other_destination"] += 1
        else:
            return False
        tracker.finish(record.offset, WHOLE)
        return True

    def take_parked(self, tracker_of: Callable[[TopicPartition], PartitionTracker | None]) -> None:
        """Go on with parked records whose schema has an answer now. Raises what resolving raised unexpectedly."""
        if self._error is not None:
            raise self._error
        if not self._answered:
            return
        self._answered = False
        for partition in list(self._parked):
            tracker = tracker_of(partition)
            records = self._parked.pop(partition)
            self._to.budget.release(sum(charge_of(record) for record in records))
            if tracker is not None and tracker.open:
                self._process([(tracker, list(records))])

    def forget(self, partitions: Sequence[TopicPartition]) -> None:
        """Let go of waiting records whose partition leaves."""
        gone = set(partitions)
        self._skips = {at: skip for at, skip in self._skips.items() if at[:2] not in gone}
        for partition in partitions:
            for record in self._parked.pop(partition, ()):
                self._to.budget.release(charge_of(record))
        for record in self._to.storms.forget(partitions):
            self._to.budget.release(charge_of(record))

    def skip(self, tracker: PartitionTracker, offset: int) -> Skip:
        """Dead-letter a record that no destination has yet by hand: where it waits here at once, else when it is read.

        One whose dead letter is being written for another cause is left to that.
        """
        at = (tracker.topic, tracker.partition, offset)
        skip = self._skips.get(at) or Skip()
        record = self._to.storms.take_out(*at) or self._take_parked(*at)
        if record is not None:
            self._skip(record, tracker, skip)
        elif offset >= tracker.position:
            self._skips[at] = skip
        return skip

    async def drain(self, timeout: float) -> bool:
        """Wait for the dead letters of leaving partitions that are being written; return whether all ended in time."""
        leaving = {task for task, tracker in self._tasks.items() if not tracker.open}
        if not leaving:
            return True
        _, late = await asyncio.wait(leaving, timeout=max(0.0, timeout))
        return not late

    async def close(self) -> None:
        """Cancel what is still going on."""
        tasks = [*self._tasks, *self._resolving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_elsewhere(self, record: Record, only: str) -> bool:
        """Whether the record's schema alone, or what a letter says, tells that it is not for this destination."""
        dead_letter = self._replayed(record)
        if dead_letter is not None:
            if dead_letter.destination in self._to.routes.destinations:
                return dead_letter.destination != only
            record = dead_letter.first_record(record)
        schema = self._to.decoder.peek(record)
        if schema is None:
            return False
        known = self._elsewhere.get((record.topic, schema))
        if known is None:
            known = self._elsewhere[record.topic, schema] = not self._to.routes.may_reach(only, record.topic, schema)
        return known

    def _replayed(self, record: Record) -> ParsedDeadLetter | None:
        """Return what the letter says that a replayed record was; None for any other record."""
        return parse(record.headers) if record.topic == self._replay_topic else None

    def _first(self, record: Record) -> Record:
        """Return the record as it came first."""
        dead_letter = self._replayed(record)
        return record if dead_letter is None else dead_letter.first_record(record)

    def _follow(self, decoded: Sequence[_Decoded]) -> None:
        """Log the records that the sample took: what they are, and no value that is in them."""
        for record, event in chain.from_iterable(events for _, events in decoded):
            if sample.takes(record.topic, record.partition, record.offset):
                log.debug(
                    "record.decoded",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    schema=event.schema,
                    bytes=len(record.value or b""),
                )

    def _process(self, runs: Sequence[tuple[PartitionTracker, list[Record]]]) -> None:
        now = self._to.clock.now
        started = now()
        decoded = [(tracker, self._decode(tracker, records)) for tracker, records in runs]
        if sample.on:
            self._follow(decoded)
        between = now()
        self._prepare(decoded)
        time = self._to.metrics.time_seconds
        time.add("decode", between - started)
        time.add("prepare", now() - between)

    def _decode(self, tracker: PartitionTracker, records: list[Record]) -> list[tuple[Record, Event]]:
        """Decode one partition's records; one whose schema is not known is parked with all that follow."""
        decode, parked = self._to.decoder.decode, self._parked
        replayed = tracker.topic == self._replay_topic
        first = [] if parked or replayed else self._to.decoder.decode_run(records)
        decoded = list(zip(records, first, strict=False))
        for record in records[len(first) :]:
            if parked and (tracker.topic, tracker.partition) in parked:
                self._park(record)
                self._look_ahead(record)
                continue
            try:
                decoded.append((record, decode(self._first(record) if replayed else record)))
            except SchemaUnavailable as error:
                self._park(record)
                self._resolve(error.key)
            except Refusal as refusal:
                self._refuse(record, tracker, refusal)
        return decoded

    def _prepare(self, decoded: Sequence[_Decoded]) -> None:
        routes, cluster_id = self._to.routes, self._to.cluster_id
        chunk = Chunk(self._to, self._bits)
        accepted: Counter[str] = Counter()
        for tracker, events in decoded:
            topic, schema, count = tracker.topic, None, 0
            replayed = topic == self._replay_topic
            only = None if replayed else self._only_destination(topic, events)
            if only is not None and chunk.prepare_all(events, tracker, only, cluster_id):
                accepted[topic] += len(events)
                continue
            for record, event in events:
                if event.schema != schema:
                    schema = event.schema
                    plan = routes.plan(topic, schema)
                dead_letter = self._replayed(record) if replayed else None
                try:
                    if dead_letter is None:
                        routed = plan(event, record, cluster_id)
                    else:
                        routed = reroute(routes, event, dead_letter.first_record(record), dead_letter, cluster_id)
                except Refusal as refusal:
                    self._refuse(record, tracker, refusal)
                    continue
                count += 1
                chunk.prepare(record, tracker, routed, None if dead_letter is None else dead_letter.dedup_id)
            accepted[topic] += count
        chunk.offer()
        for topic, count in accepted.items():
            if count:
                self._resume(self._to.storms.accepted(topic, count))

    def _only_destination(self, topic: str, events: Sequence[tuple[Record, Event]]) -> str | None:
        """Return where all events of a run go as they are, None where each has to be looked at."""
        schemas = {event.schema for _, event in events}
        return self._to.routes.only_destination(topic, schemas.pop()) if len(schemas) == 1 else None

    def _look_ahead(self, record: Record) -> None:
        """Ask for the schema of a record that waits behind another one's.

        An unknown id is refused only once the registry has proven itself by a known one: where a whole partition waits
        behind the unknown one, that may be this.
        """
        try:
            self._to.decoder.decode(self._first(record))
        except SchemaUnavailable as error:
            self._resolve(error.key)
        except Refusal:
            # It is refused in its turn.
            return

    def _park(self, record: Record) -> None:
        self._parked.setdefault((record.topic, record.partition), deque()).append(record)
        self._to.budget.add(charge_of(record))

    def _take_parked(self, topic: str, partition: int, offset: int) -> Record | None:
        """Take out a parked record, still charged; what waited behind it goes on."""
        parked = self._parked.get((topic, partition), ())
        record = next((one for one in parked if one.offset == offset), None)
        if record is None:
            return None
        left = deque(one for one in parked if one is not record)
        if left:
            self._parked[topic, partition] = left
        else:
            del self._parked[topic, partition]
        self._answered = True
        key = self._waits_for(record)
        if key is not None and not any(self._waits_for(one) == key for all_ in self._parked.values() for one in all_):
            self._to.decoder.abandon(key)
        return record

    def _waits_for(self, record: Record) -> object:
        """Return the key of the schema that a record waits for, None where it waits for another record only."""
        try:
            self._to.decoder.decode(self._first(record))
        except SchemaUnavailable as error:
            return error.key
        except Refusal:
            return None
        return None

    def _resolve(self, key: object) -> None:
        if key in self._resolving:
            return
        task = asyncio.create_task(self._to.decoder.resolve(key))
        self._resolving[key] = task
        task.add_done_callback(lambda done: self._resolved(key, done))

    def _resolved(self, key: object, task: asyncio.Task[None]) -> None:
        del self._resolving[key]
        self._answered = True
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error

    def _refuse(self, record: Record, tracker: PartitionTracker, refusal: Refusal) -> None:
        charge = charge_of(record)
        self._to.budget.add(charge)
        replayed = record.topic == self._replay_topic
        if replayed or not self._to.storms.suspends(record, tracker, refusal, self._to.clock.now()):
            self._write(record, tracker, refusal, charge)

    def _skip(self, record: Record, tracker: PartitionTracker, skip: Skip) -> None:
        """Dead-letter a record by hand; it is charged already."""
        skip.taken = True
        self._write(record, tracker, Refusal(CAUSE, CODE, MESSAGE), charge_of(record))

    def _write(self, record: Record, tracker: PartitionTracker, refusal: Refusal, charge: int) -> None:
        task = asyncio.create_task(self._dead_letter(record, tracker, refusal, charge))
        self._tasks[task] = tracker
        task.add_done_callback(self._tasks.pop)

    def _resume(self, suspended: Sequence[Suspended]) -> None:
        """Refuse anew what a storm kept back; there may be a next one among them."""
        for one in suspended:
            self._to.budget.release(charge_of(one.record))
            if one.tracker.open:
                self._refuse(one.record, one.tracker, one.refusal)

    async def _dead_letter(self, record: Record, tracker: PartitionTracker, refusal: Refusal, charge: int) -> None:
        before = self._replayed(record)
        try:
            await self._to.dead_letters.write(
                DeadLetter(
                    record=record,
                    cause=refusal.cause,
                    code=refusal.code,
                    message=refusal.message,
                    failed_at=self._to.clock.wall(),
                    dedup_id=uuid5_text(position_identity(self._to.cluster_id, record)),
                    field=refusal.field,
                    vendor=None if before is None else before.vendor,
                    destination=None if before is None else before.destination,
                ),
                tracker.is_ours,
            )
            tracker.finish(record.offset, WHOLE)
        finally:
            self._to.budget.release(charge)
