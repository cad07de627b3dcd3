"""What is true of a simulated world, and which promise each step of it would break.

The truth is what the vendors accepted and what the dead-letter topic holds, never what the connector believes. Every
commit is judged at the moment at which it is stored, every acceptance at the moment at which the vendor decides.
"""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from connector.dead_letters.headers import ParsedDeadLetter, parse
from connector.dead_letters.reader import DeadLetterEntry
from connector.delivery.isolation import OUTAGE_AFTER
from connector.pipeline.batching import FIXED_CHARGE
from connector.pipeline.offset_map import FinishedMap, ForeignMetadata, decode
from connector.records import Commit, Headers, Record, TopicPartition
from connector.testing.loop import START, WALL
from tests.simulation.facts import INSTANT, MILLISECOND, Acceptance, Broken, Epoch, Epochs
from tests.simulation.replays import Replays
from tests.simulation.scenario import ACCEPT, DROP, LETTER, REFUSE, Planned, Scenario
from tests.simulation.unusual import BUGS
from tests.simulation.wishes import Wishes

HINTED: Final = 3
"""Requests more that the suspects of a hint may cost (design §5)."""
MOST_PROBED: Final = 10
"""Requests in which a record of a storm may be refused alone, before its probes have backed off."""
OVER: Final = "~"
"""Stands for the end of a storm, behind every reason of the same moment."""


@dataclass(slots=True)
class Oracle:
    """Judges one world. `now` is set by the caller."""

    scenario: Scenario
    set_aside: Callable[[str], Collection[tuple[str, int, int]]] = lambda _member: ()
    """Which records of a member hold no memory, because a storm has set them aside."""
    storms_since: Callable[[str, ParsedDeadLetter], Sequence[float]] = lambda _member, _dead_letter: ()
    """Since when (epoch seconds) a member has had a storm of a dead letter's own reason."""
    plan: dict[tuple[str, int, int], Planned] = field(default_factory=dict)
    offsets: dict[TopicPartition, list[int]] = field(default_factory=lambda: defaultdict(list))
    accepted: dict[tuple[int, str], list[Acceptance]] = field(default_factory=lambda: defaultdict(list))
    dead_letters: dict[tuple[int, str | None], set[str]] = field(default_factory=lambda: defaultdict(set))
    dedup: dict[int, str] = field(default_factory=dict)
    holders: dict[str, int] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    passed: dict[TopicPartition, int] = field(default_factory=dict)
    written: dict[tuple[int, str | None], list[Acceptance]] = field(default_factory=lambda: defaultdict(list))
    """Dead letters that are stored, by record and destination."""
    settled: dict[tuple[str, str], list[tuple[float, str | None]]] = field(default_factory=lambda: defaultdict(list))
    """By member and destination: when (epoch milliseconds) a record was accepted (None) or refused (cause and code).

    `OVER` is where a storm ended, from which on it counts again from nothing.
    """
    released: dict[tuple[str, str], float] = field(default_factory=dict)
    """By member and destination: when (epoch milliseconds) a storm was released first."""
    failed: set[tuple[int, str | None, int]] = field(default_factory=set)
    """Dead letters that somebody has begun to write: record, destination and when it failed."""
    held: dict[str, dict[int, tuple[Planned, Epoch]]] = field(default_factory=lambda: defaultdict(dict))
    """By member: what it has read in the assignments that it still has."""
    faults: Counter[str] = field(default_factory=Counter)
    blamed: set[tuple[int, str]] = field(default_factory=set)
    """Deliveries whose vendor said, alone and by a documented code, that the record is at fault, which it is not."""
    unknown: set[tuple[int, str]] = field(default_factory=set)
    """Deliveries of which an attempt ended so that no one knows what became of it."""
    sent: dict[tuple[str, int, str], list[tuple[float, Epoch]]] = field(default_factory=lambda: defaultdict(list))
    """When, and in which epoch, each member sent each delivery."""
    begun: set[tuple[int, str | None]] = field(default_factory=set)
    """Deliveries of which somebody has begun to write a dead letter."""
    wishes: Wishes = field(default_factory=Wishes)
    """What an operator asked to be skipped."""
    replays: Replays = field(default_factory=Replays)
    """The dead letters that are stored, and those that came again."""
    judged: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By member and destination: when the vendor judged a request."""
    given_up: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """By member, destination and how often the vendor had judged by then: records whose outcome stayed unknown."""
    refusals: Counter[tuple[int, int, str, bool]] = field(default_factory=Counter)
    """By epoch, record and destination: requests refused for its sake, in which it was alone or not."""
    let_go: set[tuple[tuple[str, int, int], str | None]] = field(default_factory=set)
    """Records that a release let go, each with the destination, or none, for which a storm had set it aside."""
    dropped: set[tuple[int, str]] = field(default_factory=set)
    """Deliveries that are done because a member without their destination committed the record."""
    gone: set[int] = field(default_factory=set)
    """Records of a topic that was deleted."""
    repeats: int = 0
    broken: str | None = None

    def fail(self, message: str) -> NoReturn:
        """Take note of the first broken promise and raise it: code that catches it does not hide it."""
        if self.broken is None:
            self.broken = message
        raise Broken(message)

    def saw(self, what: str) -> None:
        """Count a fault that happened."""
        self.faults[what] += 1

    def refuses(self, planned: Planned, destination: str, epoch: Epoch, *, alone: bool) -> None:
        """Judge that the vendor refuses a request now for the sake of a bad record in it."""
        settings = self.scenario.destinations[destination]
        self.refusals[epoch.number, planned.serial, destination, alone] += 1
        # Probes wait for 75 % of `retry.max` at least once they have backed off.
        waited = asyncio.get_running_loop().time() - epoch.began
        probes = 0 if settings.storm == "off" else int(waited / (0.75 * settings.retry.max))
        most = settings.batch.records or settings.documented.records
        # What a storm probes with may be read again beside new records, and is sent in one batch with them.
        bound = 1 + (most - 1).bit_length() + HINTED + probes
        if alone:
            bound = 1 if settings.storm == "off" else MOST_PROBED + probes
        doubted = planned.kind in ("odd", "walled")
        count = self.refusals[epoch.number, planned.serial, destination, alone]
        if count > bound and not doubted:
            # What a storm has set aside is sent in a batch again whenever the storm ends.
            bound *= 1 + sum(reason == OVER for _, reason in self.settled[epoch.member, destination])
        if count > bound and not doubted:
            self.fail(f"{planned.where} was in more than {bound} refused requests of {destination}")

    def wrote(self, topic: str, partition: int, offset: int, planned: Planned) -> None:
        """Take note of a record that was written to its partition."""
        self.plan[topic, partition, offset] = planned
        self.offsets[topic, partition].append(offset)

    def recreated(self, topic: str) -> None:
        """Take note that a topic was deleted, with its records, and is a new one now."""
        self.saw("a topic was recreated")
        self.gone.update(planned.serial for planned in self.plan.values() if planned.topic == topic)
        for partition in [partition for partition in self.offsets if partition[0] == topic]:
            self.offsets[partition].clear()
            self.passed.pop(partition, None)
        for epoch in self.epochs:
            # What is under way for the old topic belongs to no member any more.
            epoch.expelled |= epoch.partition[0] == topic

    def is_done(self, planned: Planned, destination: str) -> bool:
        """Whether a delivery has its outcome."""
        serial = planned.serial
        if planned.fates.get(destination, DROP) == DROP or serial in self.gone or (serial, destination) in self.dropped:
            return True
        return (serial, destination) in self.accepted or bool(
            self.dead_letters.get((serial, destination)) or self.dead_letters.get((serial, None))
        )

    def unfinished(self, planned: Planned) -> list[str]:
        """Return the destinations for which a record has no outcome yet; the empty name stands for its decoding."""
        if planned.whole == LETTER:
            return [] if planned.serial in self.gone or self.dead_letters.get((planned.serial, None)) else [""]
        return [name for name in planned.fates if not self.is_done(planned, name)]

    def judge_commit(self, commit: Commit, stored: int | None, epoch: Epoch | Literal[False], end: int) -> None:
        """Judge a commit that is about to be stored over `stored`; `end` is the partition's end offset.

        `epoch` is the member's, False where it does not own the partition.
        """
        partition = (commit.topic, commit.partition)
        where = f"commit of {commit.topic}[{commit.partition}] at {commit.offset}"
        if len(commit.metadata) > self.scenario.map_limit:
            self.fail(f"{where}: its map is longer than {self.scenario.map_limit} characters")
        if epoch is False:
            self.fail(f"{where}: the member does not own the partition")
        if not epoch.read:
            self.fail(f"{where}: this assignment has read nothing")
        if epoch.crowded:
            self.saw("a full map")
        if stored is not None and commit.offset < stored:
            self.fail(f"{where}: goes back from {stored}")
        if commit.offset > end:
            self.fail(f"{where}: passes the end {end}")
        for offset in self.offsets[partition]:
            if offset >= commit.offset:
                break
            if offset >= self.passed.get(partition, 0):
                left = self._left(self.plan[commit.topic, commit.partition, offset], epoch)
                if left:
                    self.fail(f"{where}: passes {offset}, unfinished for {left}")
        self.passed[partition] = max(self.passed.get(partition, 0), commit.offset)
        self._judge_map(commit, where, end, epoch)

    def _left(self, planned: Planned, epoch: Epoch) -> list[str]:
        """Return what is unfinished of a record that a commit says is done, where the member has the destination."""
        left = self.unfinished(planned)
        if epoch.lacks in left:
            left.remove(epoch.lacks)
            self.dropped.add((planned.serial, epoch.lacks))
        return left

    def _judge_map(self, commit: Commit, where: str, end: int, epoch: Epoch) -> None:
        try:
            finished = decode(commit.offset, commit.metadata)
        except ForeignMetadata as error:
            self.fail(f"{where}: its map cannot be read: {error}")
        if finished.end > end:
            self.fail(f"{where}: its map claims up to {finished.end}, the end is {end}")
        for offset in self.offsets[commit.topic, commit.partition]:
            planned = self.plan[commit.topic, commit.partition, offset]
            left = self.unfinished(planned)
            if not left:
                continue
            if finished.whole.contains(offset) and (left := self._left(planned, epoch)):
                self.fail(f"{where}: its map claims {offset}, unfinished for {left}")
            for name in left:
                if name in finished.parts and finished.parts[name].contains(offset):
                    self.fail(f"{where}: its map claims {offset} for {name}, which is unfinished")

    def accepts(
        self, planned: Planned, destination: str, epoch: Epoch, dedup_id: str | None, now: float, *, late: bool = False
    ) -> Acceptance:
        """Judge an acceptance that happens now, and return it; a `late` one is of a request that was given up."""
        what = f"{destination} accepts record {planned.serial} ({planned.where})"
        if planned.fates.get(destination) not in (ACCEPT, REFUSE):
            self.fail(f"{what}: it was never to go there")
        first = planned.root.serial
        if dedup_id is not None and self.dedup.setdefault(first, dedup_id) != dedup_id:
            self.fail(f"{what}: with another dedup id than before")
        if dedup_id is not None and self.holders.setdefault(dedup_id, first) != first:
            self.fail(f"{what}: with the dedup id of record {self.holders[dedup_id]}")
        if not late:
            self._judge_repeat(planned, destination, epoch, what)
        if planned.first is not None:
            self.saw("a replay was accepted")
        elif not late and self.scenario.destinations[destination].order == "key":
            self._judge_order(planned, destination, what)
        acceptance = Acceptance(now, epoch)
        if late:
            self.saw("accepted after the time-out")
        self.accepted[planned.serial, destination].append(acceptance)
        return acceptance

    def sends(self, planned: Planned, destination: str, epoch: Epoch, ahead: Collection[int]) -> None:
        """Judge that a delivery is sent now, in a request with the records `ahead` of it.

        Not where it is dead-lettered, or is to be skipped, in this epoch, nor before what has its key.
        """
        what = f"{destination} is sent record {planned.serial} ({planned.where})"
        for wish in self.wishes.concerning(planned.serial, destination):
            if wish.epoch is epoch:
                self.fail(f"{what}: an operator has had it skipped")
        for name in (destination, None):
            for dead_letter in self.written.get((planned.serial, name), ()):
                if dead_letter.epoch is epoch and dead_letter.answered is not None:
                    self.fail(f"{what}: its dead letter is written")
        if self.scenario.destinations[destination].order == "key" and planned.first is None:
            self._judge_overtaking(planned, destination, epoch, ahead, what)

    def _judge_overtaking(
        self, planned: Planned, destination: str, epoch: Epoch, ahead: Collection[int], what: str
    ) -> None:
        """Raise where an earlier record of the key, read in the same epoch, still waits to be accepted."""
        if self.scenario.waivers(destination):
            return
        for offset in reversed(self.offsets[planned.topic, planned.partition]):
            if offset < epoch.committed:
                return
            other = self.plan[planned.topic, planned.partition, offset]
            if offset >= planned.offset or other.key != planned.key or other.serial in ahead:
                continue
            wished = any(self.wishes.concerning(other.serial, destination))
            if self._waits(other, destination) and not wished and (other.serial, destination) not in self.blamed:
                self.fail(f"{what}: before {other.where}, which has the same key")

    def begins(self, source: Epochs, headers: Headers) -> None:
        """Take note that a member begins to write a dead letter: it has decided."""
        if (parsed := parse(headers)) is None:
            return
        planned = self.plan[parsed.origin]
        self.begun.add((planned.serial, parsed.destination))
        # One that Kafka does not take is written again, and counts once.
        attempt = (planned.serial, parsed.destination, parsed.failed_at)
        again = attempt in self.failed
        self.failed.add(attempt)
        judged = parsed.cause in ("invalid", "refused", "too_large", "internal")
        if parsed.destination is not None and judged and not (parsed.replays or again):
            failed = (source.clock.moment(parsed.failed_at / 1000) - START + WALL) * 1000
            self.settled[source.name, parsed.destination].append((failed, f"{parsed.cause} {parsed.code}"))
        if parsed.replays or parsed.cause == "operator" or (parsed.origin, parsed.destination) in self.let_go:
            return
        for since in self.storms_since(source.name, parsed):
            if parsed.failed_at > since * 1000 + 2:
                self.fail(f"a dead letter for {parsed.code} while its storm lasts: {parsed.origin}")

    def _waits(self, planned: Planned, destination: str) -> bool:
        """Whether a delivery waits for its outcome, also because no one can say yet what its refusal means."""
        fate = planned.fates.get(destination)
        odd = fate == REFUSE and planned.kind in ("odd", "walled") and (planned.serial, destination) not in self.begun
        return (odd or fate == ACCEPT) and not self.is_done(planned, destination)

    def _judge_repeat(self, planned: Planned, destination: str, epoch: Epoch, what: str) -> None:
        offset = planned.offset
        if offset < epoch.committed or claims(epoch.finished, offset, destination):
            self.fail(f"{what}: the commit that epoch {epoch.number} began with says that it is done")
        for before in self.accepted.get((planned.serial, destination), ()):
            self.repeats += 1
            if before.answered is None or epoch.expelled:
                continue
            if before.epoch is epoch:
                self.fail(f"{what}: a second time in epoch {epoch.number}, after it was answered")
            self._judge_again(before, what)
        for name in (destination, None):
            for dead_letter in self.written.get((planned.serial, name), ()):
                if dead_letter.answered is not None and not epoch.expelled and dead_letter.epoch is not epoch:
                    self._judge_again(dead_letter, f"{what}, although its dead letter is written")

    def _judge_again(self, before: Acceptance, what: str) -> None:
        if before.epoch.clean and self._in_time(before):
            self.fail(f"{what}: again after epoch {before.epoch.number} of {before.epoch.member} ended cleanly")

    def _in_time(self, acceptance: Acceptance) -> bool:
        """Whether the epoch's end had to commit the acceptance: it was answered before the drain's end."""
        epoch, answered = acceptance.epoch, acceptance.answered
        began = epoch.drain_began if epoch.drain_began is not None else epoch.ended
        if answered is None or began is None or (self.scenario.map_limit < 1000 and not self.scenario.unusual.tight):
            return False
        if epoch.last_commit is not None and answered < epoch.last_commit - INSTANT:
            return True
        return answered < began + self.scenario.drain_timeout - INSTANT

    def _judge_order(self, planned: Planned, destination: str, what: str) -> None:
        """Raise where a later record of the key was accepted before this one is for the first time."""
        if (planned.serial, destination) in self.accepted or planned.fates[destination] != ACCEPT:
            return
        blamed = (planned.serial, destination) in self.blamed
        if blamed or self.scenario.waivers(destination) or any(self.wishes.concerning(planned.serial, destination)):
            # What is refused, given up or skipped lets others pass; it comes again where a crash was before a commit.
            return
        for offset in reversed(self.offsets[planned.topic, planned.partition]):
            if offset <= planned.offset:
                return
            other = self.plan[planned.topic, planned.partition, offset]
            if other.key == planned.key and (other.serial, destination) in self.accepted:
                self.fail(f"{what}: after {offset}, which has the same key")

    def dead_letter(
        self, key: bytes | None, value: bytes | None, headers: Headers, source: Epochs, now: float
    ) -> Acceptance:
        """Judge a dead letter that a member stores now, and return it as what it is: an outcome."""
        parsed = parse(headers)
        if parsed is None:
            self.fail("a dead letter has no block of headers")
        first = self.plan[parsed.origin.topic, parsed.origin.partition, parsed.origin.offset]
        planned = self.replays.of_dead_letter(first, parsed)
        if planned is None:
            self.fail(f"a dead letter of {first.where} is of a replay that no one made: {parsed}")
        if not source.has((planned.topic, planned.partition), ever=True):
            self.fail(f"a dead letter of {planned.where} is of {source.name}, which never had it: {parsed}")
        if planned is not first:
            self.saw("a replay was dead-lettered")
        what = f"dead letter of record {planned.serial} ({planned.where}) for {parsed.destination}: {parsed.cause}"
        if parsed.cause == "internal":
            self.saw(f"our own code raised while it {'decoded' if parsed.destination is None else 'prepared'}")
            if planned.kind not in BUGS:
                self.fail(f"{what}: {parsed.message}")
        if (key, value, parsed.original) != (planned.key, planned.value, planned.headers):
            self.fail(f"{what}: key, value or headers differ")
        if self.dedup.setdefault(first.serial, parsed.dedup_id) != parsed.dedup_id:
            self.fail(f"{what}: with another dedup id than before")
        known = self.dead_letters[planned.serial, parsed.destination]
        known.add(parsed.id)
        if len(known) > 1:
            self.fail(f"{what}: written again with another id")
        dead_letter = DeadLetterEntry(
            Record("letters", 0, len(self.replays.stored), -1, key, value, headers), parsed, "open"
        )
        self.replays.stored.setdefault(parsed.id, (planned, dead_letter))
        failed = source.clock.moment(parsed.failed_at / 1000)
        if parsed.cause == "operator":
            epoch = self._judge_skip(planned, parsed.destination, source, what, failed)
        else:
            self._judge_cause(planned, parsed, source, what, now)
            epoch = self._epoch_of_dead_letter(source.name, planned, parsed.destination, failed)
        if epoch is None:
            return Acceptance(now, source.epoch_of((planned.topic, planned.partition)))
        for before in self.written[planned.serial, parsed.destination]:
            # What was under way when a drain was missed may arrive at any time.
            if before.answered is not None and not epoch.expelled and epoch.ended is None and before.epoch is not epoch:
                self._judge_again(before, what)
        written = Acceptance(now, epoch)
        self.written[planned.serial, parsed.destination].append(written)
        return written

    def _judge_skip(
        self, planned: Planned, destination: str | None, source: Epochs, what: str, failed: float
    ) -> Epoch | None:
        """Raise if the dead letter was not requested; return the epoch of the request, None if that is unclear."""
        wishes = self.wishes.meant(planned.serial, destination, source.name, failed)
        if not wishes:
            self.fail(f"{what}: no operator asked {source.name} for it")
        for wish in wishes:
            wish.dead_letters += 1
        return wishes[0].epoch if all(wish.epoch is wishes[0].epoch for wish in wishes) else None

    def _judge_cause(self, planned: Planned, parsed: ParsedDeadLetter, source: Epochs, what: str, now: float) -> None:
        """Raise where there is nothing wrong with a record that is dead-lettered."""
        if parsed.destination is None:
            innocent = planned.whole != LETTER
        else:
            innocent = planned.fates.get(parsed.destination) != REFUSE
            if parsed.cause in self.scenario.waivers(parsed.destination):
                self._judge_waiver(planned.serial, parsed.destination, parsed.cause, source.name, what, now)
                if parsed.cause == "unknown_outcome":
                    self._judge_drain(source, parsed.destination, parsed.failed_at)
                innocent = False
            elif parsed.code == "route.destination" and source.lacks == parsed.destination:
                self.saw("a replay's destination was absent")
                innocent = False
            elif parsed.cause == "refused" and (planned.serial, parsed.destination) in self.blamed:
                innocent = False
        if innocent:
            self.fail(f"{what} {parsed.code}: nothing is wrong with it ({parsed.message})")

    def _epoch_of_dead_letter(
        self, member: str, planned: Planned, destination: str | None, failed: float
    ) -> Epoch | None:
        """Return the epoch whose work failed, to the millisecond, at `failed`; None where that is not clear."""
        mine = [
            one for one in self.epochs if (one.member, one.partition) == (member, (planned.topic, planned.partition))
        ]
        if any(abs(one.began - failed) < MILLISECOND for one in mine):
            return None
        sent = [
            one
            for one in self.sent.get((member, planned.serial, destination or ""), ())
            if one[0] <= failed + MILLISECOND
        ]
        if sent:
            epoch = sent[-1][1]
            longest = self.scenario.destinations[destination or ""].timeout + 1.0
            return epoch if all(one is epoch or at + longest < failed for at, one in sent) else None
        return next((one for one in reversed(mine) if one.began <= failed), None)

    def _judge_waiver(self, serial: int, destination: str, cause: str, member: str, what: str, now: float) -> None:
        """Raise where a record is given up for which there was no reason to."""
        if cause == "unknown_outcome" and (serial, destination) not in self.unknown:
            self.fail(f"{what}: every attempt's outcome is known")
        patience = self.scenario.destinations[destination].retry.give_up_after
        if cause == "gave_up" and now - self.sent[member, serial, destination][0][0] < (patience or 0.0) - INSTANT:
            self.fail(f"{what}: before {patience} s were over")

    def _judge_drain(self, source: Epochs, destination: str, failed_at: int) -> None:
        """Raise where more is given up in a row than the batches that it takes to see an outage.

        Twice as many, because some fail while others are judged. A dead letter counts when its record failed, however
        late it was written.
        """
        of = source.name, destination
        row = *of, bisect(self.judged[of], source.clock.moment(failed_at / 1000))
        self.given_up[row] += 1
        settings = self.scenario.destinations[destination]
        most = 2 * (OUTAGE_AFTER - 1) * (settings.batch.records or settings.documented.records)
        if self.given_up[row] > most:
            self.fail(f"{source.name} gives up more than {most} records of {destination} although it accepts nothing")

    def judge_waiting(self, written_before: float) -> None:
        """Raise where a good record waits for a bad one that always fails, but for a record of its own key."""
        # One whose acceptance no member has learned of is finished here, and is still sent there.
        poison = [
            (planned, name)
            for planned in self.plan.values()
            if planned.kind == "poison"
            for name in planned.fates
            if name in self.unfinished(planned) or (planned.serial, name) in self.unknown
        ]
        for planned in self.plan.values():
            if planned.kind not in ("good", "tracked") or planned.written >= written_before:
                continue
            for name in self.unfinished(planned):
                ordered = self.scenario.destinations[name].order == "key"
                behind = any(other.lane == planned.lane and at == name for other, at in poison)
                if not (ordered and behind):
                    self.fail(f"{planned.where} waits for {name}, which takes it, and only bad records are left")

    def judge_storms(self) -> None:
        """Raise where a member dead-lettered more of its last records for one reason than a storm lets pass."""
        for (member, destination), outcomes in self.settled.items():
            storm = self.scenario.destinations[destination].storm
            if isinstance(storm, str):
                continue
            over = [at for at, reason in outcomes if reason == OVER]
            end = self.released.get((member, destination), float("inf")) - 2
            counted = [(at, reason or "") for at, reason in outcomes if at < end]
            for refused in {reason for _, reason in counted if reason not in ("", OVER)}:
                row: deque[str] = deque(maxlen=storm.records)
                for at, reason in counted:
                    if any(abs(at - other) < 2 for other in over):
                        row.clear()
                        continue
                    row.append(reason)
                    if row.count(refused) > storm.share * storm.records:
                        self.fail(
                            f"{member} dead-letters {row.count(refused)} of {destination}'s last records: {refused}"
                        )

    def storm_is_over(self, member: str, destination: str | None, *, released: bool = False) -> None:
        """Take note that a storm of a member's destination ended now; one that is `released` may drain from now on."""
        if destination is not None:
            at = (asyncio.get_running_loop().time() - START + WALL) * 1000
            self.settled[member, destination].append((at, OVER))
            if released:
                self.released.setdefault((member, destination), at)

    def judge_read(self, member: str, records: Sequence[Record], epochs: Mapping[TopicPartition, Epoch]) -> None:
        """Raise where a member reads on although what it has read and not ended fills its buffer."""
        held = self.held[member]
        for serial, (planned, epoch) in list(held.items()):
            left = self.unfinished(planned)
            if epochs.get((planned.topic, planned.partition)) is not epoch or left in ([], [epoch.lacks]):
                del held[serial]
        aside = self.set_aside(member)
        inside = [
            planned for planned, _ in held.values() if (planned.topic, planned.partition, planned.offset) not in aside
        ]
        size = sum(FIXED_CHARGE + len(planned.value or b"") for planned in inside)
        if size >= self.scenario.settings.limits.buffer:
            self.fail(f"{member} reads on, holding {size} bytes in {len(held)} records")
        for planned, epoch in held.values():
            if epoch.crowded and any((one.topic, one.partition) == epoch.partition for one in records):
                self.fail(f"{member} reads on in {epoch.partition} with a full map, and {planned.where} is unfinished")
        for record in records:
            planned = self.plan[record.topic, record.partition, record.offset]
            held[planned.serial] = planned, epochs[record.topic, record.partition]

    def left(self, *, good: bool = False) -> list[str]:
        """Return every delivery that has no outcome, or of these the `good` ones only, which a vendor takes."""
        return [
            f"{planned.where} for {name or 'anybody'}"
            for planned in self.plan.values()
            for name in self.unfinished(planned)
            if not good or planned.fates.get(name) == ACCEPT
        ]

    def end_epoch(self, epoch: Epoch, now: float, *, clean: bool) -> None:
        """Take note that an assignment is over; `clean`: left by a drain, its last commit acknowledged."""
        epoch.ended = now
        epoch.clean = clean and not epoch.faulty_commit


def claims(finished: FinishedMap, offset: int, destination: str | None) -> bool:
    """Whether a map says that a delivery is done, or a whole record where there is no destination."""
    part = finished.parts.get(destination) if destination is not None else None
    return finished.whole.contains(offset) or (part is not None and part.contains(offset))
