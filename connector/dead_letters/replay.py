"""Replays and discards dead letters: which of them, what is written for each, and in which transactions.

An `Order` says which, a `ReplayService` carries it out; the one on Kafka is in `connector.operations.replay`:

    async with aclosing(service.replay(Order(Filter({"code": frozenset({"4103"})})))) as steps:
        async for step in steps:
            ...  # step.outcomes: the outcome of each dead letter; step.read of step.total: the progress

A replay and the record that resolves its dead letter are in one Kafka transaction, many dead letters to one. So
whenever it ends, by SIGKILL too, a dead letter is either in the replay topic and resolved, or neither, and running it
again sends nothing twice. A new replay or discard of a group takes over from a running one (Kafka fences it).
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
"""How often a record is replayed unless an order says otherwise, so that one that always fails does not go round."""
CHUNK: Final = 500
"""Most dead letters in one transaction."""
CHUNK_BYTES: Final = 4 << 20
"""Most bytes in one transaction, except for a dead letter that is larger alone."""


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
    """Where replays go instead of each dead letter's own destination, which may have another name by now."""


class Kept(NamedTuple):
    """Why a dead letter is kept back: a rule, `loop_guard`, `group`, `left_out`, `edit` or `size`; and the reason."""

    code: str
    reason: str


class Outcome(NamedTuple):
    """What became of a dead letter: done (replayed or discarded; in a plan: it would be), or kept back."""

    dead_letter: DeadLetterEntry
    kept: Kept | None


class Step(NamedTuple):
    """Progress of a replay or discard: the outcomes since the last step, already committed; they may be none.

    `read` of `total` offsets are read, both passes counted.
    """

    outcomes: tuple[Outcome, ...]
    read: int
    total: int


class ReplayService(Protocol):
    """Replays and discards dead letters. Each call reads the topic again. To stop early, close the iterator.

    All may raise `StartupError` (Kafka does not answer) and `ConnectorError` (the operation broke off: what was not in
    a step may be committed or not). It is always safe to repeat the call.
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
    """Writes records all together."""

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Return when all of the records are written and committed in one transaction; where it raises, none is.

        Only after a lost connection it may be open which of both holds. Raises `TakenOver`, `RecordRefused`, and
        `ConnectorError` for anything else.
        """
        ...


class Examiner(Protocol):
    """Checks dead letters by today's rules."""

    async def judge(self, dead_letter: DeadLetterEntry) -> Kept | None:
        """Return why the dead letter would fail again; None if nothing says so. Raises `ConnectorError` if unknown."""
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
    """Some dead letters, and how far the reading is (offsets)."""

    dead_letters: Sequence[DeadLetterEntry]
    read: int
    total: int


class Reader(Protocol):
    """Reads the unresolved dead letters of the dead-letter topic."""

    def dead_letters(self, wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the matching unresolved dead letters, each once; now and then none, as progress."""
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
        """Replay or discard dead letters, one transaction after the other; what is kept back is not changed."""
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
        # Also before a discard: several groups may share the topic, and each answers for its own dead letters.
        if facts.group != self.group and not order.force:
            return dead_letter, Kept("group", f"it belongs to group {facts.group}: use that group's configuration")
        if kind == "discarded":
            return dead_letter, None
        # Not lifted by `force`: a script with --force would replay the same failure for ever.
        if facts.replays >= order.max_replays:
            return dead_letter, Kept(
                "loop_guard",
                f"it was replayed {facts.replays} times and failed each time: pass --max-replays {facts.replays + 1} "
                "to try once more, or discard it",
            )
        # In this order: an edit needs the whole value, and today's rules judge what would be sent.
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
        """Return a dead letter with what did not fit into its topic, read at its origin; or why that is impossible.

        Only what has the hashes of what failed: the topic may have been recreated, or the event edited since. Not even
        by force is anything sent that was never written.
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
    """Collects dead letters for one transaction, keeps the rate, and writes."""

    def __init__(self, replayer: Replayer, kind: Kind, order: Order, transactions: Transactions) -> None:
        self._replayer = replayer
        self._kind = kind
        self._edited = tuple(edit.path for edit in order.edits) if kind == "replayed" else ()
        self._rate = order.rate
        self._transactions = transactions
        # Readers of committed records see a transaction at once, so it holds at most a second's share of the rate.
        self._most = min(CHUNK, max(1, int(order.rate))) if order.rate else CHUNK
        self._waiting: list[tuple[DeadLetterEntry, DeadLetterEntry]] = []
        self._bytes = 0
        self._next = replayer.clock.now()

    def add(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> bool:
        """Add a dead letter, and what is replayed of it; return whether the transaction is full."""
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
            # Between two transactions, because an open one blocks the readers of both topics.
            await clock.sleep(pause)
        if self._rate:
            self._next = max(self._next, clock.now()) + len(waiting) / self._rate
        return await self._commit(waiting)

    async def _commit(self, waiting: Sequence[tuple[DeadLetterEntry, DeadLetterEntry]]) -> list[Outcome]:
        """Write dead letters in one transaction; if Kafka rejects a record, in halves, to find out which."""
        records = [record for dead_letter, sent in waiting for record in self._records(dead_letter, sent)]
        try:
            await self._transactions.commit(records)
        except RecordRefused as refusal:
            # A transaction is all or nothing: one record that is too large keeps back the other 499.
            if len(waiting) == 1:
                return [Outcome(waiting[0][0], Kept("size", str(refusal)))]
            middle = len(waiting) // 2
            return [*await self._commit(waiting[:middle]), *await self._commit(waiting[middle:])]
        return [Outcome(dead_letter, None) for dead_letter, _ in waiting]

    def _records(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> list[Outgoing]:
        stored, replay = dead_letter.record, sent.record
        headers = resolution(dead_letter.facts.id, self._kind, int(self._replayer.clock.wall() * 1000))
        # One for each partition that has a copy: a resolution closes only what is in front of it in its own partition.
        partitions = (stored.partition, *dead_letter.other_partitions)
        resolutions = [Outgoing(stored.topic, partition, stored.key, None, headers) for partition in partitions]
        if self._kind == "discarded":
            return resolutions
        carried = replayed(replay.headers, self._edited)
        # To the group's own topic: the source topic has other readers, which would read the event twice.
        return [Outgoing(self._replayer.replay_topic, None, replay.key, replay.value, carried), *resolutions]
