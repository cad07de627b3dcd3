"""Replays and discards dead letters: which of them, what is written for each, and in which transactions.

Who wants letters replayed states an `Order` and asks a `Desk`; `connector.operations.replay` has the real one:

    async with aclosing(desk.replay(Order(Filter({"code": frozenset({"4103"})})))) as steps:
        async for step in steps:
            ...  # step.outcomes: what became of each letter; step.read of step.total: how far the reading is

A replay and the record that resolves its letter are one Kafka transaction, many letters to one: so whenever it ends, by
SIGKILL too, a letter is either resolved and in the replay topic, or neither, and who begins again sends nothing twice.
A new replay or discard of the same group takes over from one that is under way (Kafka fences its transactions).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from connector.clock import Clock
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import replayed, resolution
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import ConnectorError
from connector.records import Headers

Kind = Literal["replayed", "discarded"]

MAX_REPLAYS: Final = 3
"""How often a record is replayed, unless an order says otherwise: one that is refused each time goes round for ever."""
CHUNK: Final = 500
"""Letters in one transaction, at most."""
CHUNK_BYTES: Final = 4 << 20
"""Bytes in one transaction, at most, but for a letter that is larger alone."""


class Edit(NamedTuple):
    """A change of the event before it is replayed: `path` as in a route (`properties.city`), `text` as it was typed."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Order:
    """Which letters are meant, and how they are replayed.

    `force` takes letters too that would fail again by today's rules, or are another group's. `max_replays` is the loop
    guard. `rate` is letters a second, 0 for as fast as Kafka takes them. A discard heeds `wanted` and `rate` only.
    """

    wanted: Filter = field(default_factory=Filter)
    force: bool = False
    edits: tuple[Edit, ...] = ()
    max_replays: int = MAX_REPLAYS
    rate: float = 0.0


class Kept(NamedTuple):
    """Why a letter is kept back: a rule's id or a word of this module (`loop_guard`, `group`, `size`), and in words."""

    code: str
    reason: str


class Outcome(NamedTuple):
    """What became of a letter: done (replayed or discarded; in a plan: it would be), or kept back."""

    dead_letter: DeadLetterEntry
    kept: Kept | None


class Step(NamedTuple):
    """News of a replay or discard: outcomes since the last step, committed already, and how far the reading is.

    `read` of `total` offsets are read, both passes counted. `outcomes` may be empty.
    """

    outcomes: tuple[Outcome, ...]
    read: int
    total: int


class Desk(Protocol):
    """Where letters are replayed and discarded. Each call reads the topic anew. To end early close the iterator.

    All may raise `StartupError` (Kafka does not answer), and `ConnectorError` where it breaks off: whatever was not in
    a step may be committed or not, and asking again is always right.
    """

    def plan(self, order: Order) -> AsyncGenerator[Step, None]:
        """Tell what `replay` would do, and do nothing."""
        ...

    def plan_discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Tell what `discard` would do, and do nothing."""
        ...

    def replay(self, order: Order) -> AsyncGenerator[Step, None]:
        """Replay open letters; takes over from another replay or discard of the group. Raises `TakenOver`."""
        ...

    def discard(self, order: Order) -> AsyncGenerator[Step, None]:
        """Mark open letters as discarded; takes over as `replay` does. Raises `TakenOver`."""
        ...


class TakenOver(ConnectorError):
    """Another replay or discard of the same group began: it goes on, this one has ended."""


class RecordRefused(ConnectorError):
    """Kafka refuses one of a transaction's records for good, such as one that is too large; none was written."""


class Outgoing(NamedTuple):
    """A record to write; without `partition` its key decides."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


class Transactions(Protocol):
    """Writes records all together."""

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Return when all of the records are written and committed in one transaction; where it raises, none is.

        Only after a lost connection it may be open which of both holds. Raises `TakenOver`, `RecordRefused`, and
        `ConnectorError` for anything else.
        """
        ...


class Examiner(Protocol):
    """Tells what today's rules make of a letter."""

    async def judge(self, dead_letter: DeadLetterEntry) -> Kept | None:
        """Return why the letter would fail again, None where nothing says so. Raises `ConnectorError` when in doubt."""
        ...

    async def edit(self, dead_letter: DeadLetterEntry, edits: Sequence[Edit]) -> DeadLetterEntry | Kept:
        """Return the letter with its event changed, encoded with the same schema; or why that cannot be."""
        ...


class Read(NamedTuple):
    """Some letters, and how far the reading is (offsets)."""

    dead_letters: Sequence[DeadLetterEntry]
    read: int
    total: int


class Reader(Protocol):
    """Reads the open letters of the dead-letter topic."""

    def dead_letters(self, wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the open letters that are wanted, each once; now and then none, to tell how far it is."""
        ...


@dataclass(frozen=True, slots=True)
class Replayer:
    """Carries out the orders for one group."""

    reader: Reader
    examiner: Examiner
    clock: Clock
    group: str
    replay_topic: str

    async def plan(self, order: Order, kind: Kind = "replayed") -> AsyncGenerator[Step, None]:
        """Yield what `carry_out` would do."""
        async with aclosing(self.reader.dead_letters(order.wanted)) as reads:
            async for read in reads:
                outcomes = [Outcome(one, (await self._look(one, order, kind))[1]) for one in read.dead_letters]
                yield Step(tuple(outcomes), read.read, read.total)

    async def carry_out(self, kind: Kind, order: Order, transactions: Transactions) -> AsyncGenerator[Step, None]:
        """Replay or discard letters, one transaction after the other; what is kept back stays as it is."""
        read = Read((), 0, 0)
        writer = _Writer(self, kind, order, transactions)
        async with aclosing(self.reader.dead_letters(order.wanted)) as reads:
            async for read in reads:
                outcomes: list[Outcome] = []
                for dead_letter in read.dead_letters:
                    sent, kept = await self._look(dead_letter, order, kind)
                    if kept is not None:
                        outcomes.append(Outcome(dead_letter, kept))
                    elif writer.add(dead_letter, sent):
                        outcomes += await writer.write()
                        yield Step(tuple(outcomes), read.read, read.total)
                        outcomes.clear()
                yield Step(tuple(outcomes), read.read, read.total)
        yield Step(tuple(await writer.write()), read.read, read.total)

    async def _look(
        self, dead_letter: DeadLetterEntry, order: Order, kind: Kind
    ) -> tuple[DeadLetterEntry, Kept | None]:
        """Return the letter as it is to be replayed, and why it is kept back."""
        if kind == "discarded":
            return dead_letter, None
        facts = dead_letter.facts
        if facts.replays >= order.max_replays:
            return dead_letter, Kept(
                "loop_guard",
                f"it was replayed {facts.replays} times and failed each time; --max-replays {facts.replays + 1} tries "
                "once more, discard gives it up",
            )
        if facts.group != self.group and not order.force:
            return dead_letter, Kept("group", f"it is group {facts.group}'s: replay it with that group's configuration")
        if order.edits:
            edited = await self.examiner.edit(dead_letter, order.edits)
            if isinstance(edited, Kept):
                return dead_letter, edited
            dead_letter = edited
        return dead_letter, None if order.force else await self.examiner.judge(dead_letter)


class _Writer:
    """Gathers letters to one transaction, keeps the pace, and writes."""

    def __init__(self, replayer: Replayer, kind: Kind, order: Order, transactions: Transactions) -> None:
        self._to = replayer
        self._kind = kind
        self._edited = tuple(edit.path for edit in order.edits) if kind == "replayed" else ()
        self._rate = order.rate
        self._transactions = transactions
        self._most = min(CHUNK, max(1, int(order.rate))) if order.rate else CHUNK
        self._waiting: list[tuple[DeadLetterEntry, DeadLetterEntry]] = []
        self._bytes = 0
        self._next = replayer.clock.now()

    def add(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> bool:
        """Add a letter, and as what it is replayed; return whether it is time to write."""
        self._waiting.append((dead_letter, sent))
        self._bytes += len(sent.record.value or b"")
        return len(self._waiting) >= self._most or self._bytes >= CHUNK_BYTES

    async def write(self) -> list[Outcome]:
        """Write what was added, not faster than is wanted, and return what became of it."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return []
        clock = self._to.clock
        if (pause := self._next - clock.now()) > 0:
            # Between two transactions: an open one would keep readers of both topics waiting.
            await clock.sleep(pause)
        if self._rate:
            self._next = max(self._next, clock.now()) + len(waiting) / self._rate
        return await self._commit(waiting)

    async def _commit(self, waiting: Sequence[tuple[DeadLetterEntry, DeadLetterEntry]]) -> list[Outcome]:
        """Write letters in one transaction; in smaller ones where Kafka refuses one of them, to find out which."""
        records = [record for dead_letter, sent in waiting for record in self._records(dead_letter, sent)]
        try:
            await self._transactions.commit(records)
        except RecordRefused as refusal:
            if len(waiting) == 1:
                return [Outcome(waiting[0][0], Kept("size", str(refusal)))]
            middle = len(waiting) // 2
            return [*await self._commit(waiting[:middle]), *await self._commit(waiting[middle:])]
        return [Outcome(dead_letter, None) for dead_letter, _ in waiting]

    def _records(self, dead_letter: DeadLetterEntry, sent: DeadLetterEntry) -> list[Outgoing]:
        stored, replay = dead_letter.record, sent.record
        headers = resolution(dead_letter.facts.id, self._kind, int(self._to.clock.wall() * 1000))
        resolved = Outgoing(stored.topic, stored.partition, stored.key, None, headers)
        if self._kind == "discarded":
            return [resolved]
        carried = replayed(replay.headers, self._edited)
        return [Outgoing(self._to.replay_topic, None, replay.key, replay.value, carried), resolved]
