"""A model of some Kafka topics and one consumer group, as strict as the real ones where it matters.

Like Kafka it takes a commit from any live member of the group, for any partition and any offset; the oracle is told
first. Like librdkafka it calls the listener from inside `poll` and `close` only, pauses by partition, returns records
in the order of their offsets, and has gaps where compaction and transaction markers were.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NoReturn, Protocol

from connector.errors import FatalError, StartupError
from connector.kafka.topic_ids import GONE, HeldIds
from connector.pipeline.offset_map import MAX_TEXT, FinishedMap, ForeignMetadata, Runs, decode, encode
from connector.records import Assigned, Commit, FinalFault, Position, RebalanceListener, Record, TopicPartition
from tests.simulation.facts import INSTANT, Epoch, MemberClock

Step = Callable[[str], bool]
SLOW = 1.0
"""Seconds from which on a drain is called slow."""
AWAY = 10**6
"""The offset of a map that was copied to another one."""
HANGS = (0.5, 5.0)
"""Seconds for which a commit waits for the end of a rebalance, before it is refused because its generation is over."""
IDLE = (0.01, 0.25)
"""Seconds that an empty poll takes at first, and after many empty ones: virtual time costs real turns of the loop."""


OLD = 5000
"""The first offset of a topic that will be recreated: records of the new one then have other offsets."""
LOOKS = 2.0
"""Seconds after which a member looks again whether a topic was recreated."""


class Judge(Protocol):
    """Who is told of commits and of assignments that begin and end."""

    epochs: list[Epoch]

    def judge_commit(self, commit: Commit, stored: int | None, epoch: Epoch | Literal[False], end: int) -> None:
        """Raise where the commit breaks a promise; `epoch` is False where the member does not own the partition."""
        ...

    def end_epoch(self, epoch: Epoch, now: float, *, clean: bool) -> None:
        """Take note of the end of an assignment."""
        ...

    def judge_read(self, member: str, records: Sequence[Record], epochs: Mapping[TopicPartition, Epoch]) -> None:
        """Raise where a member reads more than it may."""
        ...

    def recreated(self, topic: str) -> None:
        """Take note that a topic was deleted and is a new one now."""
        ...

    def saw(self, what: str) -> None:
        """Count a fault that happened."""
        ...

    def fail(self, message: str) -> NoReturn:
        """Raise for a broken promise."""
        ...


@dataclass(slots=True)
class Faults:
    """What the broker does wrong now. A commit fails before it is stored or after, by halves."""

    commit: float = 0.0
    slow: float = 0.0
    hanging: float = 0.0
    """How likely a commit of a leaving partition waits for the rebalance and is refused then."""
    again: float = 0.0
    """How likely a resumed partition is read again from a little before."""


@dataclass(slots=True)
class Log:
    """One partition: its records, ascending with gaps, the first offset, and the end."""

    records: list[Record] = field(default_factory=list)
    end: int = 0
    start: int = 0

    def append(self, make: Callable[[int], Record], gap: int) -> int:
        """Write a record, `gap` offsets that are no records before it, and return its offset."""
        offset = self.end + gap
        self.records.append(make(offset))
        self.end = offset + 1
        return offset

    def read(self, start: int, most: int) -> list[Record]:
        """Return at most so many records from an offset on."""
        first = bisect_left(self.records, start, key=lambda record: record.offset)
        return self.records[first : first + most]


class ModelBroker:
    """Topics (how many partitions each has) and one group: its members, who owns what, and what is committed."""

    def __init__(self, topics: Mapping[str, int], random: Random, judge: Judge, *, eager: bool = False) -> None:
        self.logs = {(topic, number): Log() for topic, count in topics.items() for number in range(count)}
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.faults = Faults()
        self.members: list[ModelSource] = []
        self.owner: dict[TopicPartition, ModelSource | None] = dict.fromkeys(self.logs)
        self.target: dict[TopicPartition, ModelSource | None] = dict.fromkeys(self.logs)
        self.random = random
        self.judge = judge
        self.eager = eager
        self.metadata_limit = MAX_TEXT
        self.crowded_from = 0.75 * MAX_TEXT
        self.drain_timeout = 0.0
        """Seconds for which the last commit of a leaving partition has to be repeated; 0: it is not judged."""
        self.hangs = Random("hangs")
        self.grown = 0
        """How often partitions were added."""
        self.first = 0
        """The first offset of partitions that are added."""
        self.ids = dict.fromkeys(topics, "old")
        self.recreated = False
        """Whether a topic was deleted, and perhaps recreated."""
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self.doubles: list[tuple[float, float]] = []
        """When a member worked on that had been put out: in the middle of a drain it does not notice."""

    def wake(self) -> None:
        """Let idle polls return: something changed."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if not one.done():
                one.set_result(True)

    async def changes(self, seconds: float) -> bool:
        """Wait until something changes, so many seconds at most; return whether it did."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting[future] = None
        timer = loop.call_later(seconds, lambda: None if future.done() else future.set_result(False))
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)

    def leave_behind(self, foreign: str) -> None:
        """Let another program commit: an offset, and metadata that is no map (of `scenario.FOREIGN`)."""
        claims_all = bytearray(b64decode(encode(AWAY, FinishedMap(Runs((AWAY, AWAY + 5000)))).text))
        if foreign != "moved":
            claims_all[1 if foreign == "version" else 3] ^= 3
        text = {"text": "aGVsbG8=", "empty": ""}.get(foreign, b64encode(claims_all).decode())
        self.committed = {partition: (log.end, text) for partition, log in self.logs.items()}

    def join(self, member: ModelSource) -> None:
        """Take a member into the group."""
        self.members.append(member)
        self.rebalance()

    def expel(self, member: ModelSource, notice: float = 0.0) -> None:
        """Put a member out: its partitions are free at once; it notices so many seconds later."""
        if member in self.members:
            self.members.remove(member)
            now = asyncio.get_running_loop().time()
            member.notices_at = now + notice
            if notice:
                self.judge.saw("expelled")
            member.put_out_at = now
        for epoch in member.epochs.values():
            epoch.expelled = True
        for partition, owner in self.owner.items():
            if owner is member:
                self.owner[partition] = None
        self.rebalance()

    def rebalance(self, *, shuffle: bool = False) -> None:
        """Say again who is to own what: evenly, moving as little as that takes unless shuffled."""
        if not self.members:
            self.target = dict.fromkeys(self.logs)
            return
        most = -(-len(self.logs) // len(self.members))
        counts = dict.fromkeys(self.members, 0)
        target: dict[TopicPartition, ModelSource | None] = dict.fromkeys(self.logs)
        if not shuffle:
            for partition, owner in self.owner.items():
                if owner in counts and counts[owner] < most and self.ids[partition[0]] != GONE:
                    target[partition] = owner
                    counts[owner] += 1
        for partition, keeps in list(target.items()):
            if keeps is None and self.ids[partition[0]] != GONE:
                fewest = min(counts.values())
                chosen = self.random.choice([m for m in self.members if counts[m] == fewest])
                target[partition] = chosen
                counts[chosen] += 1
        self.target = target
        if self.eager:
            for member in self.members:
                member.leaving.update(member.assignment)
        self.wake()

    def grow(self, counts: dict[str, int]) -> None:
        """Add a partition to every topic of `counts`, which says how many there are."""
        for topic, count in counts.items():
            first = self.first if self.ids[topic] == "old" else 0
            self.logs[topic, count] = Log(end=first, start=first)
            self.owner[topic, count] = self.target[topic, count] = None
            counts[topic] = count + 1
        self.grown += 1
        self.judge.saw("a partition was added")
        self.rebalance()

    def delete(self, topic: str) -> None:
        """Delete a topic with the group's offsets."""
        for partition in self.logs:
            if partition[0] == topic:
                self.logs[partition] = Log()
                self.committed.pop(partition, None)
        self.ids[topic], self.recreated = GONE, True
        self.judge.recreated(topic)
        self.rebalance()

    def recreate(self, topic: str) -> None:
        """Create a topic that was deleted."""
        self.ids[topic] = "new"
        now = asyncio.get_running_loop().time()
        for member in self.members:
            member.next_look = now + self.random.uniform(0.0, LOOKS)
        self.rebalance()

    def store(self, member: ModelSource, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Store a member's commits and return the faults: as the real client, that of one partition for all."""
        if member not in self.members:
            return {(c.topic, c.partition): "the member is not known to the group" for c in commits}
        fault = None
        for commit in commits:
            partition = (commit.topic, commit.partition)
            if len(commit.metadata) > self.metadata_limit:
                fault = "the metadata is too large"
                continue
            stored = self.committed.get(partition)
            owner = self.owner[partition] is member
            epoch = member.epochs.get(partition)
            self.judge.judge_commit(
                commit, stored and stored[0], owner and epoch is not None and epoch, self.logs[partition].end
            )
            self.committed[partition] = (commit.offset, commit.metadata)
        return {} if fault is None else {(c.topic, c.partition): fault for c in commits}


class ModelSource:
    """One member. `step` is asked at each of its steps whether it may go on; a member that died does nothing more."""

    def __init__(
        self, broker: ModelBroker, name: str, step: Step = lambda _step: True, *, chunk: int = 500, latency: float = 0.0
    ) -> None:
        self.name = name
        self.leaving: set[TopicPartition] = set()
        self.assignment: dict[TopicPartition, int] = {}
        self.epochs: dict[TopicPartition, Epoch] = {}
        self.past: dict[TopicPartition, Epoch] = {}
        self.stopped_at: float | None = None
        self.cancelled = False
        self.lacks: str | None = None
        """The destination that this member does not have."""
        self.held: set[str] = set()
        """The destinations that an operator holds here."""
        self.clock = MemberClock()
        self.counted = broker.grown
        self.notices_at = self.put_out_at = 0.0
        self._broker = broker
        self._step = step
        self._chunk = chunk
        self._latency = latency
        self._paused: set[TopicPartition] = set()
        self._idle = IDLE[0]
        self._closed = self._fresh = self._rebalancing = False
        self._turn = 0
        self._ids = HeldIds()
        self.next_look = 0.0

    async def start(self, listener: RebalanceListener) -> None:
        """Join the group."""
        self._listener = listener
        self._broker.join(self)

    async def poll(self) -> list[Record]:
        """Rebalance where the group says so, and return the next records."""
        await asyncio.sleep(0)
        if not self._step("poll"):
            raise FatalError("the member is dead")
        await self._rebalance()
        if self._broker.recreated:
            self._look()
        records = self._read()
        if records:
            self._idle = IDLE[0]
        else:
            wait, self._idle = self._idle, min(self._idle * 2, IDLE[1])
            if await self._broker.changes(wait):
                self._idle = IDLE[0]
        return records

    def _look(self) -> None:
        """Look now and then whether a topic was recreated. Raises `FatalError` where one was, as the real source."""
        now = asyncio.get_running_loop().time()
        if now >= self.next_look:
            self.next_look = now + LOOKS
            self._ids.others(self._ids.partitions, self._broker.ids)
        if (fault := self._ids.fault()) is not None:
            self.stopped_at = now if self.stopped_at is None else self.stopped_at
            raise FatalError(fault)

    async def commit(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Commit what is not of a topic that was recreated meanwhile."""
        if not self._broker.recreated:
            return await self._send(commits)
        others = self._ids.others({(commit.topic, commit.partition) for commit in commits}, self._broker.ids)
        for partition in others:
            self._broker.judge.saw("a commit for a recreated topic was refused")
            epoch = self.epochs[partition]
            epoch.faulty_commit = False
            epoch.refused += self.stopped_at is not None or epoch.drain_began is not None
            # One that the turn of a stop makes by itself, and the last one.
            if epoch.refused > 2:
                self._broker.judge.fail(f"{self.name} repeats a commit of {partition} that can never pass")
        faults: dict[TopicPartition, str] = dict.fromkeys(others, FinalFault("the topic was deleted"))
        left = [commit for commit in commits if (commit.topic, commit.partition) not in others]
        return faults | (await self._send(left) if left else {})

    async def _send(self, commits: Sequence[Commit]) -> dict[TopicPartition, str]:
        """Send a commit to the coordinator; it may be lost on the way there or back."""
        now = asyncio.get_running_loop().time()
        broker = self._broker
        for commit in commits:
            epoch = self.epochs.get((commit.topic, commit.partition))
            if epoch is not None:
                epoch.last_commit, epoch.faulty_commit = now, True
                epoch.crowded = len(commit.metadata) >= broker.crowded_from
        if not self._step("commit"):
            return {(c.topic, c.partition): "dead" for c in commits}
        if self._rebalancing and broker.faults.hanging and broker.hangs.random() < broker.faults.hanging:
            broker.judge.saw("a commit hung through a rebalance")
            await asyncio.sleep(broker.hangs.uniform(*HANGS))
            return {(c.topic, c.partition): "the generation is over" for c in commits}
        await asyncio.sleep(self._latency)
        roll = broker.random.random()
        if roll < broker.faults.commit / 2:
            broker.judge.saw("commit did not arrive")
            return {(c.topic, c.partition): "the request timed out" for c in commits}
        # A topic that is recreated in these milliseconds is not drawn: no client could tell.
        others = self._ids.others({(c.topic, c.partition) for c in commits}, broker.ids) if broker.recreated else ()
        faults = broker.store(self, [c for c in commits if (c.topic, c.partition) not in others])
        if roll < broker.faults.commit:
            broker.judge.saw("commit's answer was lost")
        if not self._step("committed") or roll < broker.faults.commit:
            return {(c.topic, c.partition): "the answer was lost" for c in commits}
        for commit in commits:
            epoch = self.epochs.get((commit.topic, commit.partition))
            if epoch is not None and (commit.topic, commit.partition) not in faults:
                epoch.faulty_commit = False
        return faults

    async def read_again(self, positions: Sequence[Position]) -> list[Record]:
        """Return these records; now and then Kafka does not answer."""
        await asyncio.sleep(self._latency)
        if self._broker.random.random() < self._broker.faults.commit:
            self._broker.judge.saw("records could not be read again")
            raise StartupError("Kafka did not answer")
        self._broker.judge.saw("records were read again")
        wanted = set(positions)
        found = {position[:2] for position in positions}
        return [record for at in sorted(found) for record in self._broker.logs[at].records if record.position in wanted]

    async def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Return no records of these partitions."""
        self._paused.update(p for p in partitions if p in self.assignment)

    async def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Return records again, perhaps from a little before: the fetcher starts again."""
        for partition in partitions:
            if partition in self._paused:
                self._paused.discard(partition)
                if self._broker.random.random() < self._broker.faults.again:
                    self._broker.judge.saw("a resumed partition went back")
                    start = self.epochs[partition].committed
                    self.assignment[partition] = max(start, self.assignment[partition] - 3)

    def epoch_of(self, partition: TopicPartition) -> Epoch:
        """Return the present epoch of a partition, or its last one."""
        return self.epochs.get(partition) or self.past[partition]

    def has(self, partition: TopicPartition, *, ever: bool = False) -> bool:
        """Whether the partition is the member's, as far as it knows, or `ever` was."""
        return partition in self.epochs or (ever and partition in self.past)

    def ends(self) -> dict[TopicPartition, int]:
        """Return the end offsets of what is assigned."""
        return {partition: self._broker.logs[partition].end for partition in self.assignment}

    def reached(self) -> dict[TopicPartition, int]:
        """Return the ends that were come to; a real client tells each once."""
        return {
            partition: self._broker.logs[partition].end
            for partition, position in self.assignment.items()
            if partition not in self._paused and not self._broker.logs[partition].read(position, 1)
        }

    async def close(self) -> None:
        """Leave the group; what is still assigned is revoked first."""
        if self._closed:
            return
        self._closed = True
        if self in self._broker.members and self.assignment:
            await self._revoke(list(self.assignment))
        elif self.assignment:
            await self._lose()
        self._broker.expel(self)

    async def _rebalance(self) -> None:
        broker = self._broker
        if self not in broker.members:
            if asyncio.get_running_loop().time() >= self.notices_at:
                await self._lose()
                broker.join(self)
            return
        leaving = [p for p in self.assignment if broker.target[p] is not self or p in self.leaving]
        if leaving:
            await self._revoke(leaving)
            if self not in broker.members:
                return
        if self.counted != broker.grown:
            # Every member hears of a rebalance, with nothing assigned again where it only keeps what it has.
            self.counted = broker.grown
            await self._listener.on_assign([])
            broker.wake()
        coming = [p for p, target in broker.target.items() if target is self and broker.owner[p] is None]
        if coming and all(member.counted == broker.grown for member in broker.members):
            for partition in coming:
                broker.owner[partition] = self
            await self._assign(coming)

    async def _assign(self, partitions: Sequence[TopicPartition]) -> None:
        now = asyncio.get_running_loop().time()
        self._ids.note(set(partitions), self._broker.ids)
        assigned = []
        for partition in partitions:
            offset, text = self._broker.committed.get(partition, (None, ""))
            start = self._broker.logs[partition].start if offset is None else offset
            try:
                finished = decode(start, text)
            except ForeignMetadata:
                finished = FinishedMap()
                self._broker.judge.saw("foreign metadata")
            epoch = Epoch(len(self._broker.judge.epochs), self.name, partition, start, finished, now, lacks=self.lacks)
            self._broker.judge.epochs.append(epoch)
            if partition in self.past:
                self._broker.judge.saw("a partition came back")
            self.epochs[partition] = epoch
            self.assignment[partition] = start
            assigned.append(Assigned(*partition, start, offset, text))
        self._fresh = True
        self._step("assign")
        await self._listener.on_assign(assigned)
        self._step("assigned")
        self._paused.difference_update(partitions)

    async def _revoke(self, partitions: list[TopicPartition]) -> None:
        loop = asyncio.get_running_loop()
        for partition in partitions:
            self.epochs[partition].drain_began = loop.time() if self.stopped_at is None else self.stopped_at
        self._step("revoke")
        began = loop.time()
        self._rebalancing = True
        try:
            await self._listener.on_revoke(partitions)
        finally:
            self._rebalancing = False
        self._broker.judge.saw("revoked in the middle of something" if loop.time() - began > SLOW else "revoked")
        if self._step("revoked"):
            self._judge_last_commit(partitions)
        for partition in partitions:
            owns = self._broker.owner[partition] is self
            self._forget(partition, clean=owns)
            if owns:
                self._broker.owner[partition] = None
        self._broker.wake()

    def _judge_last_commit(self, partitions: Sequence[TopicPartition]) -> None:
        """Raise where a member gives up its last commit before the time for a drain is over."""
        limit = self._broker.drain_timeout
        if not limit or self.cancelled or self not in self._broker.members:
            return
        for epoch in (self.epochs[partition] for partition in partitions):
            tried, began = epoch.last_commit, epoch.drain_began
            if not epoch.faulty_commit or epoch.expelled or tried is None or began is None:
                continue
            if tried < began + limit - INSTANT:
                self._broker.judge.fail(f"{self.name} gives up the last commit of {epoch.partition} too early")

    async def _lose(self) -> None:
        self._broker.doubles.append((self.put_out_at, asyncio.get_running_loop().time()))
        partitions = list(self.assignment)
        for partition in partitions:
            self._forget(partition, clean=False)
        if partitions:
            self._broker.judge.saw("lost")
            await self._listener.on_lost(partitions)

    def _forget(self, partition: TopicPartition, *, clean: bool) -> None:
        self.assignment.pop(partition, None)
        self.leaving.discard(partition)
        self._paused.discard(partition)
        self._ids.forget((partition,))
        epoch = self.past[partition] = self.epochs.pop(partition)
        self._broker.judge.end_epoch(epoch, asyncio.get_running_loop().time(), clean=clean)

    def _read(self) -> list[Record]:
        """Return at most a chunk of records; each time another partition is first."""
        records: list[Record] = []
        order = list(self.assignment)
        self._turn += 1
        for index in range(len(order)):
            partition = order[(index + self._turn) % len(order)]
            if partition in self._paused:
                continue
            found = self._broker.logs[partition].read(self.assignment[partition], self._chunk - len(records))
            if found:
                self.epochs[partition].read = True
                self.assignment[partition] = found[-1].offset + 1
                records += found
        if records and not self._fresh:
            # What was assigned a moment ago could not be paused yet.
            self._broker.judge.judge_read(self.name, records, self.epochs)
        self._fresh = False
        return records
