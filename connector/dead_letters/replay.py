"""Replays and discards dead letters: selects them, and decides what is written for each and in which transactions.

An `Order` says which, a `ReplayService` carries it out; the one on Kafka is in `connector.operations.replay`:

    async with aclosing(service.replay(Order(Filter({"code": frozenset({"4103"})})))) as steps:
        async for step in steps:
            ...  # step.outcomes: the outcome of each dead letter; step.read of step.total: the progress

A replayed record and the record that resolves its dead letter are written in one Kafka transaction, many dead letters
to a transaction. So a dead letter is either in the replay topic and resolved, or neither, even after SIGKILL, and
running the replay again sends nothing twice. A new replay or discard of a group takes over from a running one, which
Kafka fences.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import structs

from connector.clock import Clock
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import redirected, replayed, resolution, rest_hash, restored
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError
from connector.kafka.transactions import Outgoing
from connector.records import Position, Record

Kind = Literal["replayed", "discarded"]

MAX_REPLAYS: Final = 3
"""How often a record may be replayed by default, so that one that always fails is not replayed for ever."""
CHUNK: Final = 500
"""Maximum dead letters in one transaction."""
CHUNK_BYTES: Final = 4 << 20
"""Maximum bytes in one transaction; a dead letter that is larger gets one of its own."""


class Edit(NamedTuple):
    """A change of the event before its replay: `path` as in a route (`properties.city`), `text` as typed."""

    path: str
    text: str


class Target(NamedTuple):
    """A destination, and its vendor."""

    destination: str
    vendor: str


@dataclass(frozen=True, slots=True)
class Order:
    """Which dead letters to replay or discard, and how.

    `force` includes those that would fail again by today's rules, or are another group's. `max_replays` is the loop
    guard. `rate` is dead letters a second, 0 for as fast as Kafka takes them. A discard uses `wanted`, `rate`
    and, for other groups' dead letters, `force`.
    """

    wanted: Filter = field(default_factory=Filter)
    force: bool = False
    edits: tuple[Edit, ...] = ()
    max_replays: int = MAX_REPLAYS
    rate: float = 0.0
    to: Target | None = None
    """The destination to replay to, instead of each dead letter's own, which may have been renamed."""


class Kept(NamedTuple):
    """Why a dead letter is kept back: a rule, `loop_guard`, `group`, `left_out`, `edit` or `size`; and the reason."""

    code: str
    reason: str


class Outcome(NamedTuple):
    """The outcome of a dead letter: done (replayed or discarded; in a plan, would be), or kept back."""

    dead_letter: DeadLetterEntry
    kept: Kept | None


class Step(NamedTuple):
    """Progress of a replay or discard: the outcomes since the last step, already committed. There may be none.

    `read` of `total` offsets are read, both passes counted.
    """

    outcomes: tuple[Outcome, ...]
    read: int
    total: int


class ReplayService(Protocol):
    """Replays and discards dead letters. Each call reads the topic again. To stop early, close the iterator.

    All may raise `StartupError` (Kafka does not answer) and `ConnectorError` (the operation was interrupted; outcomes
    not yet yielded in a step may or may not be committed). It is always safe to repeat the call.
    """

    def plan(self, order: Order) -> AsyncGenerator[Step, None]:
        """Yield what `replay` would do."""
        ...

    def plan_discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Yield what `discard` would do."""
        ...

    def replay(self, order: Order) -> AsyncGenerator[Step, None]:
        """Replay unresolved dead letters; take over from another replay or discard of the group. Raises `TakenOver`."""
        ...

    def discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Mark unresolved dead letters as discarded; take over as `replay` does. Raises `TakenOver`."""
        ...


class TakenOver(ConnectorError):
    """Another replay or discard of the same group has started, and this one has ended."""


class RecordRefused(ConnectorError):
    """Kafka rejects one of a transaction's records for good, such as one that is too large; none was written."""


class Transactions(Protocol):
    """Writes records atomically: all or none."""

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Write and commit all records in one transaction. If it raises, none was written.

        Only a lost connection can leave unknown whether they were. Raises `TakenOver`, `RecordRefused`, and
        `ConnectorError` for anything else.
        """
        ...


class Examiner(Protocol):
    """Checks dead letters by today's rules."""

    async def judge(self, dead_letter: DeadLetterEntry) -> Kept | None:
        """Return why the dead letter would fail again; None if it would not. Raises `ConnectorError` if unknown."""
        ...

    async def edit(self, dead_letter: DeadLetterEntry, edits: Sequence[Edit]) -> DeadLetterEntry | Kept:
        """Return the dead letter with its event changed, in the same schema; or why that is impossible."""
        ...


class Originals(Protocol):
    """Reads source records at their origins."""

    async def fetch(self, origin: Position) -> Record | str:
        """Return the record, or why Kafka no longer has it. Raises `ConnectorError` if Kafka does not answer."""
        ...


class Read(NamedTuple):
    """Some dead letters, and how many offsets are read."""

    dead_letters: Sequence[DeadLetterEntry]
    read: int
    total: int


class Reader(Protocol):
    """Reads the unresolved dead letters of the dead-letter topic."""

    def dead_letters(self, wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the matching unresolved dead letters, each once. Some items have none and only report progress."""
        ...


@dataclass(frozen=True, slots=True)
class Replayer:
    """Carries out the orders for one group."""

    reader: Reader
    examiner: Examiner
    originals: Originals
    clock: Clock
    group: str
    replay_topic: str

    async def plan(self, order: Order, kind: Kind = "replayed") -> AsyncGenerator[Step, None]:
        """Yield what `carry_out` would do."""
        async with aclosing(self.reader.dead_letters(order.wanted)) as reads:
            async for read in reads:
                outcomes = [
                    Outcome(dead_letter, (await self._check(dead_letter, order, kind))[1])
                    for dead_letter in read.dead_letters
                ]
                yield Step(tuple(outcomes), read.read, read.total)

    async def carry_out(self, kind: Kind, order: Order, transactions: Transactions) -> AsyncGenerator[Step, None]:
        """Replay or discard dead letters, one transaction after the other. Those kept back are not changed."""
        read = Read((), 0, 0)
        writer = _Writer(self, kind, order, transactions)
        async with aclosing(self.reader.dead_letters(order.wanted)) as reads:
            async for read in reads:
                outcomes: list[Outcome] = []
                for dead_letter in read.dead_letters:
                    sent, kept = await self._check(dead_letter, order, kind)
                    if kept is not None:
                        outcomes.append(Outcome(dead_letter, kept))
                    elif writer.add(dead_letter, sent):
                        outcomes += await writer.write()
                        yield Step(tuple(outcomes), read.read, read.total)
                        outcomes.clear()
                yield Step(tuple(outcomes), read.read, read.total)
        yield Step(tuple(await writer.write()), read.read, read.total)

    async def _check(
        self, dead_letter: DeadLetterEntry, order: Order, kind: Kind
    ) -> tuple[DeadLetterEntry, Kept | None]:
        """Return the dead letter as it would be replayed, and why it is kept back."""
        facts = dead_letter.facts
        # This applies to a discard too: several groups may share the topic, and each decides about its own dead
        # letters.
        if facts.group != self.group and not order.force:
            return dead_letter, Kept("group", f"it belongs to group {facts.group}: use that group's configuration")
        if kind == "discarded":
            return dead_letter, None
        # `force` does not lift this: a script with --force would replay the same failure for ever.
        if facts.replays >= order.max_replays:
            return dead_letter, Kept(
                "loop_guard",
                f"it was replayed {facts.replays} times and failed each time: pass --max-replays {facts.replays + 1} "
                "to try once more, or discard it",
            )
        # The order matters: an edit needs the whole value, and today's rules judge what would be sent.
        if facts.left_out:
            whole = await self._whole(dead_letter)
            if isinstance(whole, Kept):
                return dead_letter, whole
            dead_letter = whole
        if order.edits:
            edited = await self.examiner.edit(dead_letter, order.edits)
            if isinstance(edited, Kept):
                return dead_letter, edited
            dead_letter = edited
        if order.to is not None:
            dead_letter = _sent_to(dead_letter, order.to)
        return dead_letter, None if order.force else await self.examiner.judge(dead_letter)

    async def _whole(self, dead_letter: DeadLetterEntry) -> DeadLetterEntry | Kept:
        """Return a dead letter with its left-out parts restored from its origin, or why that is impossible.

        The hashes must match those of the failed record: the topic may have been recreated, or the event edited since.
        Even `force` never sends bytes that the producer did not write.
        """
        record, facts = dead_letter.record, dead_letter.facts
        found = await self.originals.fetch(facts.origin)
        if not isinstance(found, str):
            value = found.value or b""
            has_rest = not {"key", "headers"} & set(facts.left_out)
            key, own = (record.key, facts.original) if has_rest else (found.key, found.headers)
            same = len(value) == facts.value_bytes and sha256(value).hexdigest() == facts.value_sha256
            if same and (has_rest or rest_hash(key, own) == facts.rest_sha256):
                return dead_letter._replace(
                    record=structs.replace(record, key=key, value=value, headers=restored(record.headers, own)),
                    facts=structs.replace(facts, left_out=(), original=tuple(own)),
                )
            found = "another record is there now, or its event was edited before it failed"
        return Kept(
            "left_out",
            f"it did not fit into the dead-letter topic and has no {', '.join(facts.left_out)}, and its origin "
            f"{facts.origin} no longer has it: {found}; produce the record again from its source",
        )


def _sent_to(dead_letter: DeadLetterEntry, target: Target) -> DeadLetterEntry:
    """Return a dead letter as one of another destination."""
    record, facts = dead_letter.record, dead_letter.facts
    return dead_letter._replace(
        record=structs.replace(record, headers=redirected(record.headers, *target)),
        facts=structs.replace(facts, destination=target.destination, vendor=target.vendor),
    )


class _Writer:
    """Collects dead letters for one transaction, and writes them within the rate."""

    def __init__(self, replayer: Replayer, kind: Kind, order: Order, transactions: Transactions) -> None:
        self._replayer = replayer
        self._kind = kind
        self._edited = tuple(edit.path for edit in order.edits) if kind == "replayed" else ()
        self._rate = order.rate
        self._transactions = transactions
        # Readers of committed records get a whole transaction at once, so it holds at most one second's worth of the
        # rate.
        self._most = min(CHUNK, max(1, int(order.rate))) if order.rate else CHUNK
        self._waiting: list[tuple[DeadLetterEntry, DeadLetterEntry]] = []
        self._bytes = 0
        self._next = replayer.clock.now()

    def add(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> bool:
        """Add a dead letter, and its record to replay; return whether the transaction is full."""
        self._waiting.append((dead_letter, sent))
        self._bytes += len(sent.record.value or b"")
        return len(self._waiting) >= self._most or self._bytes >= CHUNK_BYTES

    async def write(self) -> list[Outcome]:
        """Write what was added, within the rate, and return the outcomes."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return []
        clock = self._replayer.clock
        if (pause := self._next - clock.now()) > 0:
            # Wait between transactions, not inside one: an open transaction blocks the readers of both topics.
            await clock.sleep(pause)
        if self._rate:
            self._next = max(self._next, clock.now()) + len(waiting) / self._rate
        return await self._commit(waiting)

    async def _commit(self, waiting: Sequence[tuple[DeadLetterEntry, DeadLetterEntry]]) -> list[Outcome]:
        """Write dead letters in one transaction. If Kafka rejects a record, try halves to find it."""
        records = [record for dead_letter, sent in waiting for record in self._records(dead_letter, sent)]
        try:
            await self._transactions.commit(records)
        except RecordRefused as refusal:
            # A transaction is all or nothing: one record that is too large would keep the other 499 back.
            if len(waiting) == 1:
                return [Outcome(waiting[0][0], Kept("size", str(refusal)))]
            middle = len(waiting) // 2
            return [*await self._commit(waiting[:middle]), *await self._commit(waiting[middle:])]
        return [Outcome(dead_letter, None) for dead_letter, _ in waiting]

    def _records(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> list[Outgoing]:
        stored, replay = dead_letter.record, sent.record
        headers = resolution(dead_letter.facts.id, self._kind, int(self._replayer.clock.wall() * 1000))
        # Each partition that has a copy gets a resolution: it closes only what is in front of it in its own partition.
        partitions = (stored.partition, *dead_letter.other_partitions)
        resolutions = [Outgoing(stored.topic, partition, stored.key, None, headers) for partition in partitions]
        if self._kind == "discarded":
            return resolutions
        carried = replayed(replay.headers, self._edited)
        # Written to the group's own topic: the source topic has other readers, which would read the event twice.
        return [Outgoing(self._replayer.replay_topic, None, replay.key, replay.value, carried), *resolutions]
