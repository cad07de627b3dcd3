"""Replays and discards on a model of Kafka: which dead letters, in which transactions, how fast, and what stays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import dead_letter_id, parse, to_headers
from connector.dead_letters.reader import (
    DeadLetterEntry,
    DeadLetterNotFound,
    Survey,
    parse_resolution,
    read_dead_letters,
)
from connector.dead_letters.replay import CHUNK, Edit, Kept, Order, Read, RecordRefused, Replayer, Step, Target
from connector.dead_letters.stream import RECORDS, DeadLetterStream
from connector.kafka.transactions import Outgoing
from connector.records import DeadLetter, Position, Record
from connector.testing.loop import LoopClock
from tests.unit.dead_letters.test_dead_letter_reader import at_their_places, dead, identity, resolution
from tests.unit.delivery.delivery_rig import played

BROKEN = Kept("model.rule", "breaks a rule")


class ModelReader:
    """Yields dead letters, so many at a time."""

    def __init__(self, records: Sequence[Record], size: int = 700) -> None:
        self._dead_letters = [
            DeadLetterEntry(one, facts, "open") for one in records if (facts := parse(one.headers)) is not None
        ]
        self._size = size

    async def dead_letters(self, wanted: Filter) -> AsyncGenerator[Read, None]:
        """Yield the matching dead letters."""
        yield Read((), 0, len(self._dead_letters))
        for first in range(0, len(self._dead_letters), self._size):
            some = self._dead_letters[first : first + self._size]
            yield Read([one for one in some if wanted.matches(one.facts, one.record)], first, len(self._dead_letters))


class ModelExaminer:
    """Keeps back dead letters with code `broken`, and edits values by appending the text."""

    async def judge(self, dead_letter: DeadLetterEntry) -> Kept | None:
        """Judge by the code."""
        return BROKEN if dead_letter.facts.code == "broken" else None

    async def edit(self, dead_letter: DeadLetterEntry, edits: Sequence[Edit]) -> DeadLetterEntry | Kept:
        """Append the texts, unless a path forbids it."""
        if edits[0].path == "none":
            return Kept("edit", "no such path")
        value = (dead_letter.record.value or b"") + edits[0].text.encode()
        return dead_letter._replace(record=replace(dead_letter.record, value=value))


class ModelOriginals:
    """Source topics with these records."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = {record.position: record for record in records}

    async def fetch(self, origin: Position) -> Record | str:
        """Return the record at a position."""
        return self._records.get(origin, "Kafka has deleted it")


class ModelTransactions:
    """Commits transactions, except those with a dead letter that is too large."""

    def __init__(self, clock: LoopClock, large: frozenset[str] = frozenset()) -> None:
        self._clock = clock
        self._large = large
        self.committed: list[list[Outgoing]] = []
        self.times: list[float] = []

    async def commit(self, records: Sequence[Outgoing]) -> None:
        """Take the records all together."""
        resolved = [parse_resolution(Record("", 0, 0, 0, None, one.value, one.headers)) for one in records]
        if any(one is not None and one.dead_letter in self._large for one in resolved):
            raise RecordRefused("too large")
        self.committed.append(list(records))
        self.times.append(self._clock.now())

    @property
    def written(self) -> list[Outgoing]:
        """All records."""
        return [one for records in self.committed for one in records]


async def carried_out(
    records: Sequence[Record],
    order: Order,
    kind: Any = "replayed",
    large: frozenset[str] = frozenset(),
    sources: Sequence[Record] = (),
) -> tuple[ModelTransactions, list[Step]]:
    """Carry an order out; return what was written and the outcomes."""
    clock = LoopClock()
    transactions = ModelTransactions(clock, large)
    replayer = Replayer(ModelReader(records), ModelExaminer(), ModelOriginals(sources), clock, "group", "group.replay")
    steps = [step async for step in replayer.carry_out(kind, order, transactions)]
    return transactions, steps


def outcomes(steps: Sequence[Step]) -> dict[str, Kept | None]:
    """Return the outcome of each dead letter."""
    told = [one for step in steps for one in step.outcomes]
    found = {one.dead_letter.facts.id: one.kept for one in told}
    assert len(found) == len(told), "a dead letter was reported twice"
    return found


@pytest.mark.promise("P13")
@given(kinds=st.lists(st.sampled_from(["4103", "broken", "large"]), max_size=60), most=st.sampled_from([0.0, 1.0, 7.0]))
def test_each_dead_letter_and_its_resolution_are_in_one_transaction(kinds: list[str], most: float) -> None:
    """Whatever is kept back or too large, each other dead letter is written once, with the record that resolves it.

    Kills: a resolution in the next transaction, a chunk that is given up for one dead letter that Kafka refuses.
    """
    records = [dead(number, code=code) for number, code in enumerate(kinds)]
    large = frozenset(identity(one) for one, code in zip(records, kinds, strict=True) if code == "large")

    @played
    async def play() -> None:
        transactions, steps = await carried_out(records, Order(rate=most), large=large)
        told = outcomes(steps)
        expected = {"4103": None, "broken": "model.rule", "large": "size"}
        assert {one: kept and kept.code for one, kept in told.items()} == {
            identity(one): expected[code] for one, code in zip(records, kinds, strict=True)
        }
        seen: list[str] = []
        for transaction in transactions.committed:
            replays, resolved = transaction[::2], transaction[1::2]
            for replay, record in zip(replays, resolved, strict=True):
                said = parse_resolution(Record("", 0, 0, 0, None, record.value, record.headers))
                facts = parse(replay.headers)
                assert said is not None
                assert facts is not None
                assert (replay.topic, said.dead_letter, said.kind, facts.replays) == (
                    "group.replay",
                    facts.id,
                    "replayed",
                    1,
                )
                assert (record.topic, record.partition) == ("group.dead-letters", 0)
                seen.append(said.dead_letter)
        assert sorted(seen) == sorted(identity(one) for one, code in zip(records, kinds, strict=True) if code == "4103")

    play()


@played
async def test_a_replay_keeps_its_pace_between_transactions() -> None:
    """With a rate of 50 a second, 120 dead letters take two pauses of a second, outside a transaction."""
    transactions, _ = await carried_out([dead(number) for number in range(120)], Order(rate=50.0))
    assert [len(one) // 2 for one in transactions.committed] == [50, 50, 20]
    first = transactions.times[0]
    assert [round(one - first, 3) for one in transactions.times] == [0.0, 1.0, 2.0]
    at_once, _ = await carried_out([dead(number) for number in range(CHUNK + 1)], Order())
    assert [len(one) // 2 for one in at_once.committed] == [CHUNK, 1]
    assert at_once.times[0] == at_once.times[1]


@played
async def test_the_loop_guard_and_other_groups_are_kept_back() -> None:
    """`force` sends what would fail again and what is another group's, but never past the loop guard."""
    guarded = dead(1)
    headers = [(name, b"3" if name == "dlq-replays" else value) for name, value in guarded.headers]
    other = dead(2)
    theirs = [(name, b"theirs" if name == "dlq-group" else value) for name, value in other.headers]
    records = [replace(guarded, headers=headers), replace(other, headers=theirs), dead(3, code="broken"), dead(4)]
    _, steps = await carried_out(records, Order())
    codes = {identity(one): kept and kept.code for one, kept in zip(records, outcomes(steps).values(), strict=False)}
    assert codes.keys() == {identity(one) for one in records}
    told = outcomes(steps)
    assert [told[identity(one)] and told[identity(one)].code for one in records] == [  # type: ignore[union-attr]
        *("loop_guard", "group", "model.rule", None)
    ]
    _, forced = await carried_out(records, Order(force=True))
    told = outcomes(forced)
    assert [told[identity(one)] is None for one in records] == [False, True, True, True]
    _, more = await carried_out(records, Order(force=True, max_replays=4))
    assert set(outcomes(more).values()) == {None}


@played
async def test_a_dead_letter_without_its_value_is_never_replayed() -> None:
    """Not even by force: an empty value is not what was written. A discard closes it. Kills: an empty event sent."""
    whole = dead(1)
    headers = [*whole.headers, ("dlq-left-out", b"value"), ("dlq-value-bytes", b"9"), ("dlq-value-sha256", b"0" * 64)]
    cut = replace(whole, value=b"", headers=headers)
    for order in (Order(), Order(force=True)):
        transactions, steps = await carried_out([cut], order)
        (kept,) = outcomes(steps).values()
        assert kept is not None
        assert kept.code == "left_out"
        assert transactions.written == []


@pytest.mark.parametrize("left_out", [("value",), ("value", "key", "headers")])
async def test_what_did_not_fit_is_replayed_from_its_origin(left_out: tuple[str, ...]) -> None:
    """Key, value and headers are the source record's, the block has no trace of the gap, and it is resolved.

    Kills: a replay of an empty value, a block that still says that its value is missing.
    """
    source = Record("events", 2, 41, 1_700_000_000_000, b"user-1", b"x" * 5000, (("trace", b"\xff"), ("trace", None)))
    fault = DeadLetter(
        source, "refused", "4103", "unknown", 1_700_000_001.0, "event-1", vendor="jiguang", destination="jg"
    )
    headers = to_headers(fault, group="group", left_out=left_out)
    key = None if "key" in left_out else source.key
    cut = Record("dead", 0, 7, 1_700_000_002_000, key, b"", headers)
    transactions, steps = await carried_out([cut], Order(), sources=[source])
    assert list(outcomes(steps).values()) == [None]
    sent, closing = transactions.written
    assert (sent.key, sent.value) == (source.key, source.value)
    facts = parse(sent.headers)
    assert facts is not None
    assert (facts.original, facts.left_out, facts.value_bytes, facts.replays) == (source.headers, (), None, 1)
    assert (closing.topic, closing.partition, closing.key, closing.value) == ("dead", 0, key, None)
    assert dead_letter_id(headers) == dead_letter_id(sent.headers)


@pytest.mark.parametrize("there", [b"x" * 4999, b"y" * 5000, None])
async def test_another_record_at_the_origin_is_never_sent(there: bytes | None) -> None:
    """A topic that was recreated has another record there, whose size or hash differs. Kills: a hash not compared."""
    source = Record("events", 2, 41, 1_700_000_000_000, b"user-1", b"x" * 5000, ())
    fault = DeadLetter(
        source, "refused", "4103", "unknown", 1_700_000_001.0, "event-1", vendor="jiguang", destination="jg"
    )
    cut = Record("dead", 0, 7, 1, source.key, b"", to_headers(fault, group="group", left_out=("value",)))
    transactions, steps = await carried_out([cut], Order(force=True), sources=[replace(source, value=there)])
    (kept,) = outcomes(steps).values()
    assert kept is not None
    assert "another record is there now" in kept.reason
    assert transactions.written == []


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"user-2"},
        {"key": None},
        {"headers": ()},
        {"headers": (("tracea", b""),)},
        {"headers": (("trace", b"a"),)},
    ],
)
async def test_a_record_with_another_key_or_headers_is_never_sent(change: dict[str, Any]) -> None:
    """Where they were left out they are compared too. Kills: a recreated topic with the value under another key."""
    source = Record("events", 2, 41, 1_700_000_000_000, b"user-1", b"x" * 5000, (("trace", b"a"), ("trace", None)))
    fault = DeadLetter(
        source, "refused", "4103", "unknown", 1_700_000_001.0, "event-1", vendor="jiguang", destination="jg"
    )
    headers = to_headers(fault, group="group", left_out=("value", "key", "headers"))
    cut = Record("dead", 0, 7, 1, None, b"", headers)
    transactions, steps = await carried_out([cut], Order(force=True), sources=[replace(source, **change)])
    (kept,) = outcomes(steps).values()
    assert kept is not None
    assert kept.code == "left_out"
    assert transactions.written == []


@played
async def test_an_edited_replay_is_marked_and_its_dead_letter_is_as_it_was() -> None:
    """The changed value goes to the replay topic with the paths in `dlq-edited`; an invalid path keeps it back."""
    transactions, _ = await carried_out([dead(1)], Order(edits=(Edit("properties.city", "x"), Edit("a b", "y"))))
    replay, resolved = transactions.written
    facts = parse(replay.headers)
    assert facts is not None
    assert (replay.value, facts.edited) == (b"vx", ("properties.city", "a%20b"))
    assert resolved.value is None
    _, steps = await carried_out([dead(1)], Order(edits=(Edit("none", "x"),)))
    assert [kept and kept.code for kept in outcomes(steps).values()] == ["edit"]


@played
async def test_a_discard_writes_resolutions_only() -> None:
    """Nothing goes to the replay topic, and neither a rule nor the loop guard keeps a dead letter back.

    Another group's dead letter is kept back unless it is forced, as by a replay. Kills: a discard of what is not ours.
    """
    foreign = dead(3)
    headers = [(name, b"other" if name == "dlq-group" else value) for name, value in foreign.headers]
    records = [dead(1, code="broken"), dead(2), replace(foreign, headers=headers)]
    transactions, steps = await carried_out(records, Order(), "discarded")
    found = [parse_resolution(Record("", 0, 0, 0, None, each.value, each.headers)) for each in transactions.written]
    assert [each and each.kind for each in found] == ["discarded", "discarded"]
    assert [kept and kept.code for kept in outcomes(steps).values()].count("group") == 1
    transactions, steps = await carried_out(records, Order(force=True), "discarded")
    assert (len(transactions.written), set(outcomes(steps).values())) == (3, {None})


def _source(records: Sequence[Record], passes: list[int]) -> Callable[[Callable[[int, int], None]], Iterator[Record]]:
    def read(progress: Callable[[int, int], None]) -> Iterator[Record]:
        passes.append(0)
        for number, one in enumerate(records):
            progress(number, len(records))
            passes[-1] += 1
            yield one

    return read


async def test_a_stream_gives_open_dead_letters_once_in_two_passes() -> None:
    """Copies are yielded once over all portions, resolved dead letters never, and progress never goes back."""
    some = [dead(number) for number in range(RECORDS + 50)]
    records = at_their_places([*some, resolution(some[3], "replayed"), some[7], some[RECORDS + 1]])
    passes: list[int] = []
    stream = DeadLetterStream(_source(records, passes))
    reads = [read async for read in stream.dead_letters(Filter())]
    found = [one.facts.origin.offset for read in reads for one in read.dead_letters]
    assert found == [number for number in range(RECORDS + 50) if number != 3]
    assert passes == [len(records), len(records)]
    assert [read.read for read in reads] == sorted(read.read for read in reads)
    assert len(stream.survey.states) == len(some)
    same = {whole for read in reads for whole in (entry.facts.id for entry in read.dead_letters)}
    begun = Filter(ids=frozenset({min(same)[:13], max(same)}))
    found_by_id = [entry.facts.id async for read in stream.dead_letters(begun) for entry in read.dead_letters]
    assert sorted(found_by_id) == [min(same), max(same)]
    with pytest.raises(DeadLetterNotFound, match="no dead letter has the id 00000000-0000"):
        _ = [read async for read in stream.dead_letters(Filter(ids=frozenset({min(same), f"00000000-{'0000' * 7}"})))]


@played
async def test_a_replay_to_another_destination_names_it_and_its_vendor() -> None:
    """The record goes to the other destination, its dead letter is resolved under its own id, and all else stays.

    Kills: a resolution of another id, a replay that still names the old destination.
    """
    transactions, steps = await carried_out([dead(1)], Order(to=Target("new", "mytracker")))
    (sent, resolved) = transactions.written
    facts = parse(sent.headers)
    before = parse(dead(1).headers)
    assert facts is not None
    assert before is not None
    assert (facts.destination, facts.vendor, facts.replays) == ("new", "mytracker", 1)
    assert (facts.dedup_id, facts.origin, facts.original) == (before.dedup_id, before.origin, before.original)
    assert dict(resolved.headers)["dlq-resolves"] == before.id.encode()
    assert list(outcomes(steps)) == [before.id]


@played
async def test_every_copy_of_a_dead_letter_is_resolved() -> None:
    """The resolution is written into each partition that has a copy, in the transaction of the replay.

    Kills: a resolution in the partition of one copy only, so that the other one is replayed again.
    """
    once = dead(1)
    records = [once, replace(once, partition=2), replace(once, partition=1)]
    (entry,) = read_dead_letters(records, Survey.of(records), Filter())
    clock = LoopClock()
    transactions = ModelTransactions(clock)
    reader = ModelReader([])
    reader._dead_letters = [entry]
    replayer = Replayer(reader, ModelExaminer(), ModelOriginals([]), clock, "group", "group.replay")
    _ = [step async for step in replayer.carry_out("replayed", Order(), transactions)]
    (written,) = transactions.committed
    resolved = [each.partition for each in written if each.value is None]
    assert (sorted(partition or 0 for partition in resolved), len(written)) == ([0, 1, 2], 4)
    behind = [Record(each.topic, each.partition or 0, 9, 0, each.key, None, each.headers) for each in written]
    done = Survey.of([*records, *(record for record in behind if record.topic == once.topic)])
    assert list(read_dead_letters(records, done, Filter())) == []


async def test_a_stream_that_is_cancelled_ends_its_thread() -> None:
    """Cancelling stops the blocking reading, waits for it, and leaves no thread behind."""
    reading, ended = threading.Event(), threading.Event()

    def endless(progress: Callable[[int, int], None]) -> Iterator[Record]:
        try:
            while True:
                reading.set()
                progress(0, 1)
                yield from ()
        finally:
            ended.set()

    async def read() -> None:
        async with aclosing(DeadLetterStream(endless).dead_letters(Filter())) as reads:
            async for _ in reads:
                pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(reading.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
