"""From consumed records to deliveries: decode, route, prepare.

Theory of operation. Records come in runs: what one poll returned of one partition, at most a slice of it. Each step
takes a whole run and a single record is a run of one, so there is one way through, and what is the same for all records
of a run is done once. Everything here is synchronous: a run costs no `await`, and no other task sees it half done.

A record ends up in one of four ways:

- prepared: it waits at a destination, which gives it its outcome;
- refused: it cannot be decoded or routed, or raises an unexpected exception, which is a fault of the connector and must
  not end the run. It becomes a dead letter, or is set aside if its topic is in a storm for that reason (`storms`);
- parked: its schema is not known yet. Later records of its partition are parked behind it, so that none overtakes it,
  and all of them continue once the decoder has an answer;
- done: it has no value, is for another destination, or matches no route and `unrouted` is `skip`.

Every held record, parked or prepared, is charged to the budget exactly once and released exactly once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Final, Protocol

import structlog

from connector.clock import Clock
from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.errors import ConnectorError, Refusal, SchemaUnavailable
from connector.pipeline.batching import FIXED_CHARGE, Delivery, Offer, charge_of
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import WHOLE, PartitionTracker, destination_bit
from connector.pipeline.preparation import Deliverer, Run, RunDestination
from connector.pipeline.skips import CAUSE, CODE, MESSAGE, Skip
from connector.pipeline.storms import Place, TopicStorms
from connector.recent import Recent
from connector.records import DeadLetter, Event, Item, Position, QuestionShape, Record, TopicPartition, uuid5_text
from connector.routing.table import Routed, RouteTable, Skipped, position_identity, reroute
from connector.tasks import Supervisor, internal_refusal, refusing
from connector.telemetry.logs import sample
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Shape, ShapeMapping

_FEW: Final = 4
"""A run of plain records shorter than this is not worth trying."""
_SCHEMAS: Final = 1000
"""How many schemas are remembered as being for other destinations or not."""

log = structlog.get_logger()

Decoded = Event | Refusal | SchemaUnavailable
"""The result for one record: its event, why it cannot be decoded, or which schema has to be resolved first."""
TrackerOf = Callable[[TopicPartition], PartitionTracker | None]


class PlainWriter(Protocol):
    """A writer's schema for which compiled code may turn plain values into items."""

    @property
    def name(self) -> str:
        """The schema's full name."""
        ...

    def maker(self, shape: Shape | QuestionShape, mapping: ShapeMapping | None) -> Callable[..., list[Offer]] | None:
        """Return the compiled maker of offers for a vendor's shape (`codec/items.pxi`), or None if there is none."""
        ...


class EventDecoder(Protocol):
    """Turns records' bytes into events."""

    def decode(self, records: list[Record]) -> list[Decoded]:
        """Return the result for each record, in order. Never waits."""
        ...

    def plain(self, record: Record) -> tuple[bytes, PlainWriter] | None:
        """Return the value's first bytes and the schema that they name; None if they alone do not decide."""
        ...

    def peek(self, record: Record) -> str | None:
        """Return the full name of the record's schema without decoding it, or None if that is not known."""
        ...

    async def resolve(self, key: object) -> None:
        """Return once `decode` has an answer for the schema. Retries for as long as the registry is in trouble."""
        ...

    def abandon(self, key: object) -> None:
        """Stop asking for a schema that no record waits for any more: its `resolve` is cancelled."""
        ...


class DeadLetterSink(Protocol):
    """Accepts refused records."""

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Return once Kafka has acknowledged the dead letter, or its partition is no longer ours.

        Retries until then. May be cancelled; raises nothing else.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The collaborators of intake."""

    decoder: EventDecoder
    routes: RouteTable
    deliverers: Mapping[str, Deliverer]
    dead_letters: DeadLetterSink
    budget: Budget
    metrics: Metrics
    clock: Clock
    storms: TopicStorms
    cluster_id: str


class Intake:
    """Processes consumed records. `names` are the destinations in the order of the trackers' bits.

    `only` is set in a run of one destination: records for others are skipped, without decoding if the schema alone
    shows that. Records of `replay_topic` were dead letters: they are treated as they first came, and are outside storm
    windows.
    """

    def __init__(
        self, services: Services, names: Sequence[str], *, only: str | None = None, replay_topic: str | None = None
    ) -> None:
        self._services = services
        self._only = only
        self._replay_topic = replay_topic
        self._elsewhere: Recent[tuple[str, str], bool] = Recent(_SCHEMAS)
        bits = {name: destination_bit(index) for index, name in enumerate(names)}
        self._legs = {name: RunDestination(bits[name], deliverer) for name, deliverer in services.deliverers.items()}
        self.parked: dict[TopicPartition, deque[Record]] = {}
        """The parked records by partition, in order: the first one waits for its schema. These partitions are
        paused."""
        self._parked_bytes = 0
        self._resolving: set[object] = set()
        self._tasks: Supervisor[PartitionTracker | None] = Supervisor(self._wake)
        """The tasks that write dead letters, each tagged with its partition, and those that resolve schemas."""
        self.answered = False
        """Whether `take_parked` has something to do."""
        self._skips: dict[tuple[str, int, int], Skip] = {}
        """Records that an operator skips as soon as they are read."""

    @property
    def budget(self) -> Budget:
        """The bytes that records without an outcome may hold."""
        return self._services.budget

    def take(self, records: Sequence[Record], tracker_of: TrackerOf) -> None:
        """Process consumed records. Those of revoked partitions are ignored: they stay uncommitted."""
        consumed: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        fresh: list[tuple[PartitionTracker, list[Record]]] = []
        for run in _runs(records):
            topic = run[0].topic
            tracker = tracker_of((topic, run[0].partition))
            if tracker is None or not tracker.open:
                continue
            consumed[topic] += len(run)
            if left := self._begin(run, tracker, skipped):
                fresh.append((tracker, left))
        metrics = self._services.metrics
        for topic, count in consumed.items():
            metrics.records_consumed.labels(topic).inc(count)
        for reason, count in skipped.items():
            metrics.records_skipped.labels(reason).inc(count)
        if fresh:
            self._process(fresh)

    def _begin(self, run: list[Record], tracker: PartitionTracker, skipped: Counter[str]) -> list[Record]:
        """Begin one partition's records in its tracker; return those to decode."""
        begun = tracker.begin([record.offset for record in run])
        # Already done according to the committed map, or read a second time.
        if len(begun) < len(run):
            skipped["finished_before"] += len(run) - len(begun)
            by_offset = {record.offset: record for record in run}
            run = [by_offset[offset] for offset in begun]
        # Only these three reasons need a look at each record. Searching the list of values is the cheapest test for a
        # null.
        if self._skips or self._only is not None or [None for record in run if record.value is None]:
            return [record for record in run if not self._ends_here(record, tracker, skipped)]
        return run

    def _ends_here(self, record: Record, tracker: PartitionTracker, skipped: Counter[str]) -> bool:
        """Finish a record that need not be decoded: it has no value, an operator skips it, or it is for others."""
        if record.value is None:
            skipped["null_value"] += 1
        elif (skip := self._skips.pop(record.position, None)) is not None:
            self._services.budget.add(charge_of(record))
            self._skip(record, tracker, skip)
            return True
        elif self._only is not None and self._is_elsewhere(record, self._only):
            skipped["other_destination"] += 1
        else:
            return False
        tracker.finish((record.offset,), WHOLE)
        return True

    def rerouted(self) -> None:
        """Forget everything that was derived from the routes, because they have changed."""
        self._elsewhere.clear()

    def take_parked(self, tracker_of: TrackerOf) -> None:
        """Continue with parked records whose schema has an answer now, as far as the budget has room.

        A record for several destinations is charged once while it is parked, and then once for each of them. Raises the
        exception of a failed background task.
        """
        self._tasks.check()
        budget = self._services.budget
        if not self.answered or budget.used > max(budget.limit, self._parked_bytes):
            # If only parked records fill the budget, nothing else will make room.
            return
        # Cleared before the work, so that an answer or a failure during the work sets it again.
        self.answered = False
        for partition in list(self.parked):
            tracker = tracker_of(partition)
            waiting = self.parked.pop(partition)
            while waiting:
                records = self._take_portion(waiting)
                if tracker is not None and tracker.open:
                    self._process([(tracker, records)])
                is_full = budget.used > budget.limit
                if waiting and (is_full or partition in self.parked):
                    self.parked.setdefault(partition, deque()).extend(waiting)
                    break
            # Not one more record of each other partition: a hundred of them, each as large as Kafka allows, are memory
            # too.
            if is_full:
                self.answered = True
                break

    def _take_portion(self, waiting: deque[Record]) -> list[Record]:
        """Take out as many parked records as fit for all destinations, but at least one."""
        budget, legs = self._services.budget, 1 + len(self._services.deliverers)
        portion: list[Record] = []
        cost = 0
        while waiting and (not portion or budget.used + cost < budget.limit):
            record = waiting.popleft()
            charge = charge_of(record)
            self._charge_parked(-charge)
            cost += legs * charge
            portion.append(record)
        return portion

    def take_again(
        self, destination: str | None, records: Sequence[tuple[PartitionTracker, Record]]
    ) -> list[tuple[PartitionTracker, Record]]:
        """Process records again that were set aside by a storm of the `destination`, or of their topic if it is None.

        Returns those that have to be read once more, because their schema is not known now.
        """
        unknown: list[tuple[PartitionTracker, Record]] = []
        for tracker, group in groupby(records, itemgetter(0)):
            run = [record for _, record in group]
            # The partition was revoked while the records were read again. Its next owner reads them anyway.
            if not tracker.open:
                continue
            if destination is not None:
                unknown += [(tracker, record) for record in self._prepare_again(destination, tracker, run)]
            elif left := [record for record in run if not self._skips_again(record, tracker)]:
                self._process([(tracker, left)])
        return unknown

    def _prepare_again(self, destination: str, tracker: PartitionTracker, records: list[Record]) -> list[Record]:
        """Prepare records for one destination only. The other destinations have their deliveries already."""
        routes, cluster_id = self._services.routes, self._services.cluster_id
        run = Run(self._services.budget, self._services.metrics, self._services.clock, self._legs)
        known: list[tuple[Record, Routed]] = []
        unknown: list[Record] = []
        for record, outcome in zip(records, self._decoded(records), strict=True):
            if isinstance(outcome, SchemaUnavailable):
                self._resolve(outcome.key)
                unknown.append(record)
                continue
            try:
                if isinstance(outcome, Refusal):
                    raise outcome
                with refusing("routed"):
                    routed = routes.route(outcome, record, cluster_id)
                if not any(delivery.destination == destination for delivery in routed):
                    run.reroute(tracker, destination, record, routed)
                known += [(record, delivery) for delivery in routed if delivery.destination == destination]
            except Refusal as refusal:
                known.append((record, Routed(destination, refusal, position_identity(cluster_id, record))))
        run.prepare_again(tracker, destination, known)
        run.offer()
        return unknown

    def _skips_again(self, record: Record, tracker: PartitionTracker) -> bool:
        """Dead-letter a record that was set aside if an operator skips it now."""
        skip = self._skips.pop(record.position, None)
        if skip is not None:
            self._services.budget.add(charge_of(record))
            self._skip(record, tracker, skip)
        return skip is not None

    def forget(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop parked records whose partition is being revoked."""
        gone = set(partitions)
        # The next owner does not know of the skip: the operator has to ask again.
        self._skips = {position: skip for position, skip in self._skips.items() if position[:2] not in gone}
        for partition in partitions:
            for record in self.parked.pop(partition, ()):
                self._charge_parked(-charge_of(record))
        for storms in self._services.storms.values():
            storms.forget()

    def skip(self, tracker: PartitionTracker, offset: int) -> Skip:
        """Dead-letter a record that has not reached a destination: at once if it is parked here, else when it is read.

        A record whose dead letter is already being written keeps that one.
        """
        position = (tracker.topic, tracker.partition, offset)
        skip = self._skips.get(position) or Skip()
        place, storms = Place(tracker, offset, WHOLE), self._services.storms[tracker.topic]
        record = self._take_parked(*position)
        if record is not None:
            self._skip(record, tracker, skip)
        elif offset >= tracker.position or storms.take_out(place) or storms.is_read_again(place):
            self._skips[position] = skip
        return skip

    async def drain(self, timeout: float) -> bool:
        """Wait for dead letters of revoked partitions that are being written; return whether all ended in time."""
        return await self._tasks.wait(lambda tracker: tracker is not None and not tracker.open, timeout)

    async def close(self) -> None:
        """Cancel all background tasks."""
        await self._tasks.close()

    def _is_elsewhere(self, record: Record, only: str) -> bool:
        """Whether its schema, or a replayed record's headers, already show that only other destinations get it."""
        dead_letter = self._replayed(record)
        if dead_letter is not None:
            if dead_letter.destination in self._services.routes.destinations:
                return dead_letter.destination != only
            record = dead_letter.first_record(record)
        schema = self._services.decoder.peek(record)
        if schema is None:
            return False
        known = self._elsewhere.get((record.topic, schema))
        # Remembered by schema and topic: without the event, the routes depend on nothing else.
        if known is None:
            known = not self._services.routes.may_reach(only, record.topic, schema)
            self._elsewhere.put((record.topic, schema), known)
        return known

    def _replayed(self, record: Record) -> ParsedDeadLetter | None:
        """Return the parsed headers of a replayed record; None for any other record."""
        return parse(record.headers) if record.topic == self._replay_topic else None

    def _first(self, record: Record) -> Record:
        """Return the record as it first came."""
        dead_letter = self._replayed(record)
        return record if dead_letter is None else dead_letter.first_record(record)

    def _process(self, runs: Sequence[tuple[PartitionTracker, list[Record]]]) -> None:
        """Make deliveries of the records: runs of plain records in compiled code, the others step by step."""
        run = Run(self._services.budget, self._services.metrics, self._services.clock, self._legs)
        for tracker, records in runs:
            left = records
            # A record that is not plain is processed alone, and compiled code continues after it.
            while made := self._make_at_once(run, tracker, left):
                left = left[made:]
                # If plain records are rare, trying costs more than it saves.
                if made < _FEW:
                    break
                # Only the record that ended it is known not to be plain.
                if left:
                    self._make(run, tracker, left[:1])
                    left = left[1:]
            if left:
                self._make(run, tracker, left)
        run.offer()

    def _make_at_once(self, run: Run, tracker: PartitionTracker, records: list[Record]) -> int:
        """Make deliveries of the leading plain records without building events; return how many those were.

        A record is plain if its schema is the vendor's contract schema, or one that a route maps by plain paths, if it
        goes to one destination only, and if it has the vendor's shape. During a replay, in a storm, or with deliveries
        finished before, no record counts as plain.
        """
        topic, services = tracker.topic, self._services
        found = services.decoder.plain(records[0]) if records else None
        # Each of these needs a look at every record: claims of the committed map, a replay's headers, a storm's window,
        # and the debug log.
        if found is None or tracker.partial or topic == self._replay_topic or topic in services.storms or sample.on:
            return 0
        # Records after a parked record are parked behind it: overtaking it would break key order.
        if self.parked and (topic, tracker.partition) in self.parked:
            return 0
        prefix, writer = found
        straight = services.routes.straight(topic, writer.name)
        leg = None if straight is None else self._legs.get(straight.destination)
        if straight is None or leg is None or leg.shaped is None:
            return 0
        maker = writer.maker(leg.shaped.shape, straight.mapping)
        if maker is None:
            return 0
        # The limits are the same for all groups of a vendor with a shape.
        limits = leg.vendor.limits(None)
        # The records' identities differ only in the offset at the end.
        identity = position_identity(services.cluster_id, Position(topic, tracker.partition, 0))[:-1].encode()
        try:
            offers = maker(
                records,
                prefix,
                identity,
                run.now + leg.shaped.clock_ahead,
                # Only a vendor that is behind us moves the end of an item: by our own clock it expires no sooner.
                min(0, leg.shaped.clock_ahead),
                limits.bytes - limits.overhead,
                FIXED_CHARGE + leg.answer_charge,
                Item,
                Delivery,
                Offer,
                tracker,
                leg.bit,
            )
        except Exception:  # noqa: BLE001 - no content of a record may end a run
            # Going step by step finds the record that raised it, and only that one becomes a dead letter.
            return 0
        made = 0
        for offer in offers:
            tracker.route([delivery.record.offset for delivery in offer.deliveries], leg.bit)
            leg.add(offer)
            made += len(offer.deliveries)
        return made

    def _make(self, run: Run, tracker: PartitionTracker, records: list[Record]) -> None:
        """Decode, route and prepare records one after the other."""
        now, time = self._services.clock.now, self._services.metrics.time_seconds
        started = now()
        events = self._decode(tracker, records)
        if sample.on:
            _log_sampled(events)
        between = now()
        self._prepare(run, tracker, events)
        time.add("decode", between - started)
        time.add("prepare", now() - between)

    def _decode(self, tracker: PartitionTracker, records: list[Record]) -> list[tuple[Record, Event]]:
        """Return one partition's events. A record with an unknown schema is parked together with all that follow it.

        The records that follow are decoded too, only to ask for their schemas. An unknown id is refused only once the
        registry has resolved another id. If a whole partition waits behind the unknown id, that other id may be among
        these records.
        """
        outcomes = self._decoded(records)
        parked = bool(self.parked) and (tracker.topic, tracker.partition) in self.parked
        decoded: list[tuple[Record, Event]] = []
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, SchemaUnavailable):
                self._resolve(outcome.key)
                parked = True
            if parked:
                self._park(record)
            elif isinstance(outcome, Event):
                decoded.append((record, outcome))
            elif isinstance(outcome, Refusal):
                self._refuse(record, tracker, outcome)
        return decoded

    def _decoded(self, records: list[Record]) -> list[Decoded]:
        """Return the result for each record. An exception in one of them refuses only that record."""
        try:
            replayed = records[0].topic == self._replay_topic
            return self._services.decoder.decode([self._first(record) for record in records] if replayed else records)
        except Exception as error:  # noqa: BLE001 - no content of a record may end a run
            # It is unknown which record raised it, so decode each alone.
            if len(records) == 1:
                return [internal_refusal(error, "decoded")]
            return [outcome for record in records for outcome in self._decoded([record])]

    def _prepare(self, run: Run, tracker: PartitionTracker, events: Sequence[tuple[Record, Event]]) -> None:
        """Route and prepare events."""
        routed = self._route(tracker, events)
        if (destination := self._only_destination(tracker.topic, events)) is not None:
            records, deliveries = [record for record, _ in routed], [delivery for _, (delivery,) in routed]
            run.prepare(tracker, records, {destination: deliveries})
        else:
            for record, each in routed:
                if isinstance(each, Skipped):
                    run.skip(tracker, record, each.reason)
                    continue
                run.prepare(tracker, [record], {delivery.destination: [delivery] for delivery in each})
        # Replayed records are outside storm windows. A topic without refusals has no entry, so this usually costs
        # nothing.
        if routed and tracker.topic in self._services.storms and tracker.topic != self._replay_topic:
            storms = self._services.storms[tracker.topic]
            storms.accepted(len(routed))
            storms.passed(Place(tracker, record.offset, WHOLE) for record, _ in routed)

    def _route(
        self, tracker: PartitionTracker, events: Sequence[tuple[Record, Event]]
    ) -> list[tuple[Record, list[Routed]]]:
        """Return each event's deliveries; an event that cannot be routed is refused."""
        routes, cluster_id, topic = self._services.routes, self._services.cluster_id, tracker.topic
        replayed = topic == self._replay_topic
        routed, schema = [], None
        for record, event in events:
            # Records of one topic usually have one schema, so one look-up serves the whole run.
            if event.schema != schema:
                schema = event.schema
                plan = routes.plan(topic, schema)
            try:
                dead_letter = self._replayed(record) if replayed else None
                if dead_letter is None:
                    deliveries = plan(event, record, cluster_id)
                else:
                    deliveries = reroute(routes, event, dead_letter.first_record(record), dead_letter, cluster_id)
            except Refusal as refusal:
                self._refuse(record, tracker, refusal)
            # `unrouted: stop` is meant to end the run.
            except ConnectorError:
                raise
            except Exception as error:  # noqa: BLE001 - no content of a record may end a run
                self._refuse(record, tracker, internal_refusal(error, "routed"))
            else:
                routed.append((record, deliveries))
        return routed

    def _only_destination(self, topic: str, events: Sequence[tuple[Record, Event]]) -> str | None:
        """Return the destination that all events of a run go to unchanged; None if each has to be routed."""
        schemas = {event.schema for _, event in events}
        if topic == self._replay_topic or len(schemas) != 1:
            return None
        return self._services.routes.only_destination(topic, schemas.pop())

    def _park(self, record: Record) -> None:
        self.parked.setdefault((record.topic, record.partition), deque()).append(record)
        self._charge_parked(charge_of(record))

    def _charge_parked(self, charge: int) -> None:
        self._services.budget.add(charge)
        self._parked_bytes += charge

    def _take_parked(self, topic: str, partition: int, offset: int) -> Record | None:
        """Take out a parked record, which stays charged; the records behind it continue."""
        parked = self.parked.get((topic, partition), ())
        record = next((waiting for waiting in parked if waiting.offset == offset), None)
        if record is None:
            return None
        self._parked_bytes -= charge_of(record)
        left = deque(waiting for waiting in parked if waiting is not record)
        if left:
            self.parked[topic, partition] = left
        else:
            del self.parked[topic, partition]
        self.answered = True
        key = self._waits_for(record)
        # Otherwise the registry would be asked for ever for a schema that no record needs any more.
        if key is not None and all(self._waits_for(other) != key for other in chain(*self.parked.values())):
            self._services.decoder.abandon(key)
        return record

    def _waits_for(self, record: Record) -> object:
        """Return the key of the schema that a record waits for, or None if it waits for another record only."""
        (outcome,) = self._decoded([record])
        return outcome.key if isinstance(outcome, SchemaUnavailable) else None

    def _resolve(self, key: object) -> None:
        if key not in self._resolving:
            self._resolving.add(key)
            self._tasks.start(self._resolved(key), f"schema {key}", None)

    async def _resolved(self, key: object) -> None:
        try:
            await self._services.decoder.resolve(key)
        finally:
            self._resolving.discard(key)
            self._wake()

    def _wake(self) -> None:
        self.answered = True

    def _refuse(self, record: Record, tracker: PartitionTracker, refusal: Refusal) -> None:
        """Dead-letter a record that cannot be decoded or routed, or set it aside in a storm without holding memory."""
        place = Place(tracker, record.offset, WHOLE)
        # A replayed record is not counted in a storm: it was refused before, and a person asked to try it again.
        if record.topic == self._replay_topic or not self._services.storms.refused(refusal, place):
            self._services.budget.add(charge_of(record))
            self._write(record, tracker, refusal.bare())

    def _skip(self, record: Record, tracker: PartitionTracker, skip: Skip) -> None:
        """Dead-letter a record for an operator; it is charged already."""
        skip.taken = True
        self._write(record, tracker, Refusal(CAUSE, CODE, MESSAGE))

    def _write(self, record: Record, tracker: PartitionTracker, refusal: Refusal) -> None:
        """Write a dead letter for a record that is charged already."""
        self._tasks.start(self._dead_letter(record, tracker, refusal), "dead letter", tracker)

    async def _dead_letter(self, record: Record, tracker: PartitionTracker, refusal: Refusal) -> None:
        before = self._replayed(record)
        try:
            await self._services.dead_letters.write(
                DeadLetter(
                    record=record,
                    cause=refusal.cause,
                    code=refusal.code,
                    message=refusal.message,
                    failed_at=self._services.clock.wall(),
                    # Its identity is the position: an event's own id is known only once it is decoded and routed.
                    dedup_id=uuid5_text(position_identity(self._services.cluster_id, record)),
                    field=refusal.field,
                    vendor=None if before is None else before.vendor,
                    destination=None if before is None else before.destination,
                    replayed=before is not None,
                ),
                tracker.is_ours,
            )
            tracker.finish((record.offset,), WHOLE)
        finally:
            self._services.budget.release(charge_of(record))


def _runs(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Cut where the partition changes: a poll returns the records of each partition together."""
    # Written out, because this compares every record, and `groupby` would make a key for each.
    topic, partition, start = "", -1, 0
    for index, record in enumerate(records):
        if record.partition != partition or record.topic != topic:
            topic, partition = record.topic, record.partition
            if index:
                yield list(records[start:index])
            start = index
    if records:
        yield list(records[start:])


def _log_sampled(events: Sequence[tuple[Record, Event]]) -> None:
    """Log the sampled records without their values."""
    for record, event in events:
        if sample.takes(record.topic, record.partition, record.offset):
            log.debug(
                "record.decoded",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                schema=event.schema,
                bytes=len(record.value or b""),
            )
