"""A destination on virtual time: the real worker between a model vendor and a model dead-letter topic."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

import orjson

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.delivery.destination import Destination, Ports
from connector.delivery.worker import Worker
from connector.errors import Refusal, TransportError
from connector.pipeline.batching import Delivery, Offer, charge_of
from connector.pipeline.flow import Budget
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.pipeline.storms import Place
from connector.records import Answer, DeadLetter, Item, Record
from connector.telemetry.metrics import Metrics
from connector.testing.loop import LoopClock, run_virtual
from connector.vendors.base import (
    DESTINATION,
    Accepted,
    Limits,
    Misconfigured,
    RateHint,
    Refused,
    Request,
    Response,
    Retry,
    Throttled,
    TooLarge,
    VendorEvent,
    Verdict,
)

# What the model vendor says of a request that it refuses; no identifier can hold it by chance.
WORDS = "not as it ought to be"


class ModelSettings(DestinationSettings):
    """An account at the model vendor, whose document allows 100 records and names no rate."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=100_000)

    vendor: str = "model"
    base_url: str = "https://model.example.com"


class RatedSettings(ModelSettings):
    """The same with a documented rate of 100 requests a second."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=100_000, requests_per_second=100)


@dataclass(slots=True)
class ModelVendor:
    """Reads the model's answers; `token` is what it signs with."""

    records: int = 100
    token: str = "good"

    def group(self, event: VendorEvent) -> Hashable:
        """Return one group for all."""
        return "g"

    def limits(self, group: Hashable) -> Limits:
        """Return what one request holds: a JSON array of numbers."""
        return Limits(self.records, 100_000, 2, 1)

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Return the event's number."""
        return Item(str(event.fields["n"]).encode())

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the array, signed."""
        body = b"[" + b",".join(item.body for item in items) + b"]"
        return Request("POST", f"https://model.example.com/{group}", {"token": self.token}, body)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return the verdict that the answer spells out."""
        status, said = response.status, orjson.loads(response.body or b"{}")
        code = str(said.get("code", status))
        after = float(response.headers["retry-after"]) if "retry-after" in response.headers else None
        if status == 200:
            again = frozenset(index for index, item in enumerate(items) if int(item.body) in said.get("again", ()))
            numbers = [int(item.body) for index, item in enumerate(items) if index not in again]
            answers = [Answer("model.Answer", {"n": n}) for n in numbers] if said.get("answers") else []
            return Accepted(answers, again, rate=RateHint(0, said["reset"]) if "reset" in said else None)
        if status == 400:
            named = frozenset(index for index, item in enumerate(items) if int(item.body) in said.get("named", ()))
            answers = [Answer("model.Answer", {"n": int(item.body)}) for item in items] if said.get("answers") else []
            return Refused(code, WORDS, named, documented=said.get("documented", True), answers=tuple(answers))
        if status == 413:
            return TooLarge(code, "too large", said.get("limit", "records"), documented=said.get("documented", True))
        if status == 429:
            return Throttled("slow down", after)
        if status in (401, 403):
            return Misconfigured(code, "no access", DESTINATION if status == 401 else group)
        return Retry(f"HTTP {status}", after, unknown_outcome=status in (502, 504))


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answers: `cut` breaks the connection after the body was sent; what `hangs` is never answered."""

    status: int = 200
    said: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hangs: bool = False


OK = Reply()
Behave = Callable[["Call"], Reply]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the model saw it: when, which group, which numbers, signed with what, and how many went before."""

    at: float
    group: str
    numbers: tuple[int, ...]
    token: str
    nth: int


def refusing(bad: Iterable[int], *, hinted: bool = False, documented: bool = True) -> Behave:
    """Return a vendor that refuses every batch with one of these records, whole."""
    wrong = frozenset(bad)

    def behave(call: Call) -> Reply:
        named = sorted(wrong.intersection(call.numbers))
        if not named:
            return OK
        return Reply(400, {"code": "B1", "named": named if hinted else [], "documented": documented})

    return behave


class ModelTransport:
    """Answers as `behave` says, after `latency` seconds, and keeps what was asked."""

    def __init__(self, behave: Behave, latency: float) -> None:
        self.behave = behave
        self.latency = latency
        self.calls: list[Call] = []
        self.replies: list[Reply] = []
        self.accepted: list[int] = []
        self.in_flight = self.most_in_flight = 0
        self.closed = False

    async def send(self, request: Request, timeout: float) -> Response:
        """Answer one request; a model that takes longer than `timeout` is given up."""
        numbers = tuple(orjson.loads(request.body or b"[]"))
        at = asyncio.get_running_loop().time()
        call = Call(at, request.url.rpartition("/")[2], numbers, request.headers["token"], len(self.calls))
        self.calls.append(call)
        reply = self.behave(call)
        self.replies.append(reply)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if reply.hangs or self.latency > timeout:
                await asyncio.sleep(timeout)
                raise TransportError("no answer in time", unknown_outcome=True)
            await asyncio.sleep(self.latency)
        finally:
            self.in_flight -= 1
        if reply.cut:
            raise TransportError("the connection broke", unknown_outcome=True)
        if reply.status == 200:
            self.accepted += [n for n in numbers if n not in reply.said.get("again", ())]
        return Response(reply.status, reply.headers, orjson.dumps(reply.said))

    async def close(self) -> None:
        """Take note."""
        self.closed = True


class ModelDeadLetters:
    """A dead-letter topic that acknowledges after `latency` seconds, and while `gate` is set."""

    def __init__(self) -> None:
        self.dead_letters: list[DeadLetter] = []
        self.begun = 0
        self.latency = 0.0
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, dead_letter: DeadLetter, is_ours: Callable[[], bool]) -> None:
        """Take one dead letter."""
        self.begun += 1
        await self.gate.wait()
        await asyncio.sleep(self.latency)
        self.dead_letters.append(dead_letter)

    @property
    def numbers(self) -> list[int]:
        """The offsets of the records in it, ascending."""
        return sorted(dead_letter.record.offset for dead_letter in self.dead_letters)


class ModelAnswers:
    """A results topic; `on_write` is called before it acknowledges. Those of `too_large` it can never take."""

    def __init__(self) -> None:
        self.written: list[Answer] = []
        self.too_large: set[int] = set()
        self.on_write: Callable[[], None] = lambda: None

    async def write(self, answers: Iterable[tuple[bytes | None, Answer]]) -> list[int]:
        """Take answers."""
        self.on_write()
        await asyncio.sleep(0.01)
        given = [answer for _, answer in answers]
        self.written += [answer for answer in given if answer.datum["n"] not in self.too_large]
        return [index for index, answer in enumerate(given) if answer.datum["n"] in self.too_large]


class Rig:
    """One destination called `d` with everything around it."""

    def __init__(self, behave: Behave = lambda _call: OK, *, latency: float = 0.02, **settings: Any) -> None:
        kind = RatedSettings if settings.pop("rated", False) else ModelSettings
        records = settings.get("batch", {}).get("records", 100)
        self.clock = LoopClock()
        self.budget = Budget(10**9)
        self.metrics = Metrics()
        self.dead_letters = ModelDeadLetters()
        self.answers = ModelAnswers()
        self.transport = ModelTransport(behave, latency)
        self.token = self.known = "good"
        self.reloads = 0
        self.trackers: dict[int, PartitionTracker] = {}
        self.rereads = True
        """Whether what storms have set aside is read again."""
        self.keys: dict[int, bytes | None] = {}
        """The key of each record, for when it is read again."""
        self.invalid: set[int] = set()
        """Records that break a rule before they are sent."""
        ports = Ports(self.clock, Random(7), self.dead_letters, self.answers, self.metrics, self.budget)

        def reload() -> ModelVendor | None:
            self.reloads += 1
            same, self.known = self.token == self.known, self.token
            return None if same else ModelVendor(records, self.token)

        vendor = ModelVendor(records, self.token)
        self.destination = Destination("d", kind.model_validate(settings), vendor, ports, reload=reload)
        self.worker = Worker(self.destination, self.transport, timeout=20.0)

    def tracker(self, partition: int = 0) -> PartitionTracker:
        """Return the tracker of a partition."""
        if partition not in self.trackers:
            self.trackers[partition] = PartitionTracker("t", partition, 0, ["d"])
        return self.trackers[partition]

    def delivery(
        self,
        number: int,
        *,
        key: bytes | None = None,
        partition: int = 0,
        expires_at: int | None = None,
        dedup_id: str | None = None,
    ) -> Delivery:
        """Return the delivery of the record at offset `number`, charged to the budget."""
        tracker, bit = self.tracker(partition), destination_bit(0)
        assert tracker.begin((number,))
        tracker.route((number,), bit)
        self.keys[number] = key
        return self._made(number, tracker, key, expires_at, dedup_id)

    def _made(
        self,
        number: int,
        tracker: PartitionTracker,
        key: bytes | None = None,
        expires_at: int | None = None,
        dedup_id: str | None = None,
    ) -> Delivery:
        bit = destination_bit(0)
        record = Record("t", tracker.partition, number, -1, key, b"v", ())
        item = Item(str(number).encode(), expires_at=expires_at)
        charge = charge_of(record, item.body)
        self.budget.add(charge)
        return Delivery(record, tracker, bit, item, f"id-{number}", charge, dedup_id)

    def offer(
        self,
        numbers: Iterable[int],
        *,
        group: str = "g",
        key: Callable[[int], bytes | None] = lambda _n: None,
        partition: int = 0,
    ) -> None:
        """Offer the records at these offsets."""
        self.take([self.delivery(n, key=key(n), partition=partition) for n in numbers], group)

    def take(self, deliveries: list[Delivery], group: str = "g") -> None:
        """Offer these deliveries."""
        self.worker.offer(Offer(group, deliveries, sum(delivery.charge for delivery in deliveries)))

    def refuse(self, numbers: Iterable[int]) -> None:
        """Hand over records that break a rule."""
        for number in numbers:
            self.invalid.add(number)
            self._give(self.delivery(number))

    def _give(self, delivery: Delivery) -> None:
        if delivery.record.offset in self.invalid:
            self.worker.refuse(delivery, Refusal("invalid", "model.n", "no number"))
        else:
            self.take([delivery])

    async def _read_again(self) -> None:
        """Take in again what storms have set aside, as the rereader does."""
        storms = self.destination.storms
        while True:
            await asyncio.sleep(0.05)
            for place in (*storms.probes(self.clock.now()), *storms.let_go(500)) if self.rereads else ():
                self.give_again(place)

    def give_again(self, place: Place) -> None:
        """Take in again what a storm had set aside."""
        if place.pending:
            self._give(self._made(place.offset, place.tracker, self.keys[place.offset]))

    @property
    def set_aside(self) -> int:
        """How many records storms have set aside."""
        return sum(storm.set_aside for storm in self.destination.storms.status())

    @property
    def unfinished(self) -> int:
        """How many deliveries have no outcome."""
        return sum(tracker.unfinished for tracker in self.trackers.values())

    async def done(self, within: float = 600.0) -> None:
        """Wait until every delivery has its outcome."""
        await self.until(lambda: not self.unfinished, within)

    async def until(self, condition: Callable[[], object], within: float = 600.0) -> None:
        """Wait until something holds, `within` virtual seconds at most."""
        end = self.clock.now() + within
        while not condition():
            assert self.clock.now() < end, f"not within {within} s: {self.worker.condition()}"
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self, *, all_done: bool = True) -> AsyncIterator[Rig]:
        """Run the worker; where all is done at the end, no byte of the budget may be left and nothing sent twice."""
        task = asyncio.create_task(self.worker.run())
        reading = asyncio.create_task(self._read_again())
        try:
            yield self
        finally:
            task.cancel()
            reading.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            await self.worker.close()
        assert isinstance(ended, asyncio.CancelledError), repr(ended)
        if all_done:
            assert self.unfinished == 0
            assert self.budget.used == 0
            assert self.destination.buffer.bytes == 0
            assert self.worker.in_flight == 0
            assert not any(lane.in_flight for lane in self.destination.lanes)

    def sent_once(self) -> bool:
        """Whether the vendor accepted no record twice."""
        return max(Counter(self.transport.accepted).values(), default=1) == 1


def played(play: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine function that runs on virtual time; its name and promise stay."""

    def test() -> None:
        run_virtual(play())

    test.__name__ = play.__name__
    test.__doc__ = play.__doc__
    return test


def failing(*bad: int, status: int = 500, **headers: str) -> Behave:
    """Return a vendor that answers with a status to whatever holds one of these records."""
    reply = Reply(status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return lambda call: reply if set(bad).intersection(call.numbers) else OK


def key_of(number: int) -> bytes:
    """Return one of 20 keys."""
    return b"%d" % (number % 20)


def undocumented(bad: set[int]) -> Behave:
    """Return a vendor that refuses whatever holds one of these records by a code that no document has."""
    refusal = Reply(400, {"code": "X", "documented": False})
    return lambda call: refusal if bad.intersection(call.numbers) else OK
