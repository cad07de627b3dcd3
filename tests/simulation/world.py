"""Runs one seed: the real pipelines of several members between a model of Kafka and models of the vendors."""

from __future__ import annotations

import asyncio
import itertools
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, cast

import structlog

from connector.codec.decoder import Decoder
from connector.codec.registry import Client, Registry
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.writer import DeadLetterWriter
from connector.errors import FatalError
from connector.pipeline import flow
from connector.pipeline.storms import Storms
from connector.records import Position
from connector.routing.compiler import passed_on
from connector.runtime.member import ASK_SECONDS, REBALANCE_SECONDS
from connector.runtime.member import Member as Port
from connector.runtime.pipeline import Edges, Pipeline, build
from connector.telemetry.metrics import Metrics
from connector.testing.loop import START, LoopClock, run_virtual
from connector.vendors.base import Vendor
from tests.simulation.broker import OLD, ModelBroker, ModelSource
from tests.simulation.edges import CONTRACTS, ModelProducer, ModelRegistry, QuickDecoder, with_bug
from tests.simulation.facts import Broken, MemberClock, Report
from tests.simulation.operator import Operator
from tests.simulation.oracle import Oracle
from tests.simulation.scenario import HARD_STOP, KINDS, REPLAYS, TOPICS, Crash, Scenario, draw
from tests.simulation.unusual import CLOCKS, FORWARD
from tests.simulation.vendors import BLAMED, ModelTransport, ModelVendor, judge_rate
from tests.simulation.workload import Workload

MEMBER: Final = ContextVar("MEMBER", default="")
"""The member whose task is running."""
CLUSTER: Final = "model-cluster"
BUGGY: Final = {name: with_bug(kind) for name, kind in KINDS.items()}
SESSION: Final = 10.0
"""The members' session time-out: as long the group may count one that is gone."""
NOTICES: Final = REBALANCE_SECONDS + ASK_SECONDS + 1.0
"""Seconds in which a member's readiness follows what became of its partitions."""
STOPPING: Final = 5.0
"""Seconds after the drain within which a member has to end (design: `run` stops within `drain_timeout` + 5 s)."""
LARGEST_ITEM: Final = 1500
"""Bytes that no vendor's item of these records passes."""
BAD_ALONE: Final = 300.0
"""Seconds in which all is finished that does not fail by itself or wait for its key; half of it for a late record."""
ENOUGH: Final = 20
"""While so many good records wait, and are accepted one after the other, no more are written."""
LET_GO: Final = 120.0
"""Seconds after which nothing may be under way any more when everything is done."""


@dataclass(slots=True)
class Member:
    """One process: its pipeline, its task, and how often it came to each step."""

    name: str
    world: World
    crash: Crash | None
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    steps: Counter[str] = field(default_factory=Counter)
    dead: bool = False
    cancelled: bool = False
    source: ModelSource = field(init=False)
    pipeline: Pipeline = field(init=False)
    port: Port = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    most: int = 0
    idle_since: float | None = None
    secrets: dict[str, int] = field(default_factory=dict)
    """Which secrets of each destination it has read."""

    def step(self, name: str) -> bool:
        """Count a step; return whether the member lives on after it."""
        if self.dead:
            return False
        self.steps[name] += 1
        self.most = max(self.most, self.pipeline.budget.used)
        if self.crash is not None and (name, self.steps[name]) == (self.crash.step, self.crash.nth):
            self.world.oracle.saw(f"crash at {name}")
            self.die()
        return not self.dead

    def die(self) -> None:
        """End at once: nothing that this process does reaches anybody any more."""
        if self.dead:
            return
        self.dead = True
        self.world.note("crash", member=self.name)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.task.cancel)
        loop.call_later(self.world.random.uniform(0.5, 6.0), self.world.broker.expel, self.source)


class World:
    """Everything of one seed. `stormy` is true while faults happen."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed * 31 + 7)
        self.clock = LoopClock()
        self.oracle = Oracle(scenario, self._set_aside, self._storms_since)
        self.partitions = dict.fromkeys(TOPICS[: scenario.topics], scenario.partitions) | (
            {REPLAYS: scenario.replays} if scenario.replays else {}
        )
        self.broker = ModelBroker(self.partitions, self.random, self.oracle, eager=scenario.eager)
        self.broker.crowded_from = 0.75 * scenario.map_limit
        self.broker.drain_timeout = scenario.drain_timeout
        self.broker.hangs = Random(f"hangs {scenario.seed}")
        self.clocks = Random(f"clocks {scenario.seed}")
        self.absences = Random(f"absences {scenario.seed}")
        self.workload = Workload(scenario, self.broker, self.oracle, self.clock, self.random)
        self.records = self.workload.records
        self.stormy = True
        self.trace: list[str] = []
        self.members: list[Member] = []
        mood = Random(f"operator's {scenario.seed}")
        self.operator = Operator(self.oracle, self.broker, self.workload, self.clock, mood)
        self.crashes = list(scenario.crashes)
        self.ending = False
        self._vacant_since: float | None = None
        self._full_since: float | None = None
        self._accepted = 0
        self._numbers = itertools.count()
        self.vendors = {
            name: ModelVendor(name, one, scenario, self.oracle, self.records, self.random, self.clock.now)
            for name, one in scenario.destinations.items()
        }

    def _set_aside(self, name: str) -> set[Position]:
        """Return the records of a member that hold no memory, because a storm has set them aside."""
        members = [member for member in self.members if member.name == name]
        scopes = [storms for member in members for _, storms in member.pipeline.holds.scopes()]
        return {place.position for storms in scopes for place in storms.kept()}

    def _storms_since(self, name: str, parsed: ParsedDeadLetter) -> list[float]:
        """Return since when (epoch seconds) a member has had a storm of a dead letter's own reason."""
        found = []
        for member in self.members:
            if member.name == name:
                holds = member.pipeline.holds
                named = member.pipeline.workers.get(parsed.destination or "")
                storms = named.destination.storms if named is not None else holds.topics[parsed.origin.topic]
                found += [one.since for one in storms.status() if (one.cause, one.code) == (parsed.cause, parsed.code)]
        return found

    def note(self, what: str, /, **fields: object) -> None:
        """Add a line to the trace."""
        at = asyncio.get_running_loop().time() - START
        self.trace.append(f"{at:9.3f} {what} {' '.join(f'{name}={value}' for name, value in fields.items())}")

    async def run(self, begun: Callable[[World], None]) -> None:
        """Let everything happen; raise `Broken` for a broken promise."""
        begun(self)
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        scenario, weather = self.scenario, self.scenario.weather
        self.broker.faults.commit = weather.commit
        self.broker.faults.again = 0.3 if weather.commit else 0.0
        self.broker.faults.hanging = scenario.unusual.hanging
        if scenario.unusual.recreated:
            self.broker.first = OLD
            for log in self.broker.logs.values():
                log.start = log.end = OLD
        if scenario.foreign:
            self.broker.leave_behind(scenario.foreign)
        for _ in range(scenario.members):
            self._start()
        writing = asyncio.create_task(self.workload.write())
        happening = asyncio.create_task(self._happen())
        try:
            await self._watch(scenario.faults_end)
            await asyncio.gather(writing, happening)
            self.stormy = False
            self.note("faults end")
            self.broker.faults.commit = self.broker.faults.again = self.broker.faults.hanging = 0.0
            self._unhold()
            for member in self.members:
                # From now on every destination is there: others take the places of those without it.
                if member.source.lacks is not None and not member.dead and not member.stop.is_set():
                    self._befall(member, "stop")
            for vendor in self.vendors.values():
                vendor.stormy = False
            await self._finish()
        finally:
            self.ending = True
            for task in (writing, happening):
                task.cancel()
            await asyncio.gather(writing, happening, return_exceptions=True)
            await self.operator.gather()
            await self._stop_all()
        self._check_end()

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        if self.oracle.broken is None:
            self.oracle.broken = f"unhandled: {context.get('message')} {context.get('exception')!r}"

    async def _why_unassigned(self) -> str | None:
        """Return what the group's coordinator would say of partitions that no member has."""
        left = sum(owner is None for owner in self.broker.owner.values())
        return f"joining the group: {left} of its partitions have no member" if left else None

    async def _watch(self, seconds: float) -> None:
        """Let virtual time pass; end early when a promise is broken."""
        end = self.clock.now() + seconds
        while (left := end - self.clock.now()) > 0:
            await asyncio.sleep(min(left, 0.5))
            self._judge_readiness()
            self._raise()

    def _judge_readiness(self) -> None:
        """Raise where a member says that it is ready and can do no work, or that it is not although it can."""
        now = self.clock.now()
        if any(owner is None for owner in self.broker.owner.values()):
            self._vacant_since = self._vacant_since if self._vacant_since is not None else now
            self._full_since = None
        else:
            self._full_since = self._full_since if self._full_since is not None else now
            self._vacant_since = None
        for member in self.members:
            if member.dead or member.cancelled or member.stop.is_set():
                continue
            ready, _ = member.port.readiness()
            if member.pipeline.runner.assigned:
                member.idle_since = None
                if not ready:
                    self.oracle.fail(f"{member.name} has partitions, and is not ready")
                continue
            member.idle_since = member.idle_since if member.idle_since is not None else now
            if ready and self._vacant_since is not None and now - max(self._vacant_since, member.idle_since) > NOTICES:
                self.oracle.fail(f"{member.name} is ready, although it has nothing while partitions have no member")
            idle = now - max(self._full_since or now, member.idle_since)
            if not ready and idle > SESSION + NOTICES:
                self.oracle.fail(f"{member.name} is not ready, although others have all partitions")

    def _raise(self) -> None:
        if self.oracle.broken is not None:
            raise Broken(self.oracle.broken)

    async def _happen(self) -> None:
        for at, what in self.scenario.events:
            await asyncio.sleep(max(0.0, START + at - self.clock.now()))
            alive = [m for m in self.members if not m.dead and not m.stop.is_set() and not m.cancelled]
            self.note("event", what=what)
            if what == "join":
                self._start()
            elif what == "rebalance":
                self.broker.rebalance(shuffle=True)
            elif what == "skip":
                self.operator.skip(alive)
            elif what == "replay":
                self.operator.replay()
            elif what == "release":
                self._release(alive)
            elif what == "grow":
                self.broker.grow(self.partitions)
            elif what == "recreate":
                await self._recreate(alive, Random(f"recreated {self.scenario.seed}"))
            elif what == "rotate":
                self.vendors[self.random.choice(list(self.vendors))].secrets += 1
            elif what == "unhold":
                self._unhold()
            elif what == "hold" and alive:
                self._hold(self.random.choice(alive))
            elif alive:
                self._befall(self.random.choice(alive), what)

    async def _recreate(self, members: Sequence[Member], random: Random) -> None:
        """Delete a topic and create it again: some seconds later, or at once, while one of several members leaves."""
        topic = random.choice(TOPICS[: self.scenario.topics])
        self.broker.delete(topic)
        if random.random() < 0.4:
            self.oracle.saw("a topic was away")
            await asyncio.sleep(random.uniform(0.1, 5.0))
        elif len(members) > 1:
            self._befall(random.choice(members), "stop")
        self.broker.recreate(topic)

    def _release(self, members: Sequence[Member]) -> None:
        """Let go what storms have set aside, as `connector release` does for every destination."""
        for member in members:
            for name, storms in member.pipeline.holds.scopes():
                lasted = bool(storms)
                self._note_release(name, storms)
                storms.release()
                if lasted:
                    self.oracle.saw("a storm was released")
                    self.oracle.storm_is_over(member.name, name, released=True)

    def _hold(self, member: Member) -> None:
        """Hold a destination in one member, as `connector hold` does."""
        name = self.random.choice(list(member.pipeline.workers))
        member.pipeline.workers[name].hold("held by an operator")
        member.source.held.add(name)
        self.oracle.saw("a destination was held")

    def _unhold(self) -> None:
        """Release what was held, with its storms, as `connector release` does."""
        for member in self.members:
            for name in member.source.held:
                worker = member.pipeline.workers[name]
                self._note_release(name, worker.destination.storms)
                if worker.destination.storms:
                    self.oracle.storm_is_over(member.name, name, released=True)
                worker.release()
            member.source.held.clear()

    def _note_release(self, name: str | None, storms: Storms) -> None:
        """Note what a release lets go: it becomes a dead letter if it is refused, whatever storm there is then."""
        probes = [storm.probing for storm in storms._storms.values() if storm.probing is not None]
        self.oracle.let_go.update((place.position, name) for place in (*storms.kept(), *probes))

    def _befall(self, member: Member, what: str) -> None:
        if what == "back":
            member.source.leaving.update(member.source.assignment)
            self.broker.wake()
        elif what == "lost":
            self.broker.expel(member.source, self.random.choice((0.0, 0.5, 5.0)))
        elif what == "crash":
            member.die()
        elif what == "stop":
            member.source.stopped_at = self.clock.now()
            member.stop.set()
        else:
            self.cancel(member)

    def cancel(self, member: Member) -> None:
        """Cancel a member's run, which is a stop; a second time it ends without its drain."""
        if member.source.stopped_at is None:
            member.source.stopped_at = self.clock.now()
        member.cancelled = member.source.cancelled = True
        member.task.cancel()

    def _start(self) -> None:
        crash = self.crashes.pop() if self.crashes else None
        member = Member(f"m{next(self._numbers)}", self, crash)
        scenario = self.scenario
        self.note("start", member=member.name, crash=crash)
        member.source = ModelSource(
            self.broker, member.name, member.step, chunk=scenario.chunk, latency=self.random.choice((0.001, 0.1))
        )
        if scenario.unusual.clocks:
            member.source.clock = self._clock()
        if self.stormy and scenario.unusual.absent is not None and self.absences.random() < 0.4:
            member.source.lacks = scenario.unusual.absent
            self.oracle.saw("a destination was absent")
        settings = scenario.without(member.source.lacks)
        clock = member.source.clock
        member.secrets = {name: vendor.secrets for name, vendor in self.vendors.items()}
        metrics, weather = Metrics(), scenario.weather
        registry = Registry(
            cast(
                "Client",
                ModelRegistry(lambda: self._fails(weather.registry), self.oracle.saw),
            ),
            "http://model",
        )
        producer = ModelProducer(
            member.source,
            self.oracle,
            self.random,
            member.step,
            lambda: self._fails(weather.dead_letter),
        )
        dead_letters = DeadLetterWriter(
            producer, "letters", "g", metrics=metrics, clock=clock, drain_timeout=scenario.drain_timeout
        )
        as_json = passed_on(settings, KINDS)
        decoder = QuickDecoder(CONTRACTS, clock=clock, registry=registry, as_json=as_json)
        edges = Edges(
            source=member.source,
            decoder=decoder,
            dead_letters=dead_letters,
            answers={},
            transport=lambda name, _one: ModelTransport(
                self.vendors[name], member.source, member.step, lambda: member.secrets[name]
            ),
            reload=lambda name: self._reload(member, name),
            clock=clock,
            random=Random(self.random.random()),
            cluster_id=CLUSTER,
            partitions=self.partitions,
            map_limit=scenario.map_limit,
        )
        member.pipeline = build(settings, BUGGY, metrics, edges)
        member.port = Port("g", clock, scenario.drain_timeout, session_timeout=SESSION)
        member.port.running(member.pipeline, dead_letters, dict)
        member.task = asyncio.create_task(self._live(member, decoder), name=member.name)
        self.members.append(member)

    def _clock(self) -> MemberClock:
        """Return the clock of a machine that is off by minutes, and perhaps set forward soon."""
        at = START + self.clocks.uniform(0.0, 20.0) if self.clocks.random() < 0.3 else float("inf")
        return MemberClock(self.clocks.uniform(-CLOCKS, CLOCKS), FORWARD, at)

    def _reload(self, member: Member, name: str) -> Vendor | None:
        """Return a destination's vendor with the secrets of now; None if the member has them."""
        if member.secrets[name] == self.vendors[name].secrets:
            return None
        member.secrets[name] = self.vendors[name].secrets
        settings = self.scenario.destinations[name]
        return BUGGY[settings.vendor].build(settings)

    async def _live(self, member: Member, decoder: Decoder) -> None:
        """Run a member to its end; where it ends before the world does, another one takes its place."""
        MEMBER.set(member.name)
        watching = asyncio.create_task(member.port.watch_membership(self._why_unassigned))
        try:
            await member.pipeline.run(member.stop)
        except asyncio.CancelledError:
            if not (member.dead or member.cancelled):
                raise
        except Exception as error:  # noqa: BLE001 - whatever ends a member is a finding
            if isinstance(error, FatalError) and self.broker.recreated:
                self.oracle.saw("a recreated topic ended a member")
            elif not member.dead and self.oracle.broken is None:
                self.oracle.broken = f"{member.name} ended with {error!r}"
                self.note(
                    "failed", member=member.name, traceback="\n" + "".join(traceback.format_exception(error)).rstrip()
                )
        finally:
            watching.cancel()
            try:
                await decoder.close()
            finally:
                self._ended(member)

    def _ended(self, member: Member) -> None:
        self.note("end", member=member.name)
        later = asyncio.get_running_loop().call_later
        later(self.random.uniform(0.5, 6.0), self.broker.expel, member.source)  # where it did not leave by itself
        self.members.remove(member)
        self._check_memory(member)
        if not self.ending:
            later(self.random.choice((0.0, 0.5, 3.0)), self._replace)

    def _fails(self, likely: float) -> bool:
        return self.stormy and self.random.random() < likely

    def _replace(self) -> None:
        if not self.ending and len(self.members) < self.scenario.members:
            self._start()

    def _check_memory(self, member: Member) -> None:
        """A poll's records may come on top of the limit, nothing else."""
        most_one = (self.workload.largest + LARGEST_ITEM) * max(1, len(self.vendors))
        if member.pipeline.budget.used < 0 and self.oracle.broken is None:
            self.oracle.broken = f"{member.name} gave back more bytes than it held"
        if member.most > member.pipeline.budget.limit + self.scenario.chunk * most_one and self.oracle.broken is None:
            self.oracle.broken = f"{member.name} held {member.most} bytes, the limit is {member.pipeline.budget.limit}"

    async def _finish(self) -> None:
        """Feed good records until everything has its outcome and is committed; at last let storms go."""
        judged_at = self.clock.now() + BAD_ALONE
        if self.scenario.roomy:
            await self._finish_good(judged_at)
        end = self.clock.now() + HARD_STOP
        while True:
            self._release([member for member in self.members if not member.dead])
            await self._watch(5.0)
            left = self.oracle.left()
            self._end_poison(judged_at)
            if not left and self._all_committed():
                break
            if self.clock.now() > end:
                self._stuck(left)
            if left or any(member.pipeline.budget.used for member in self.members):
                self._feed()
        await self._let_go()

    async def _finish_good(self, judged_at: float) -> None:
        """Feed good records until all of them are accepted, whatever storms have set aside, which holds no memory."""
        end = self.clock.now() + HARD_STOP
        while left := self.oracle.left(good=True):
            self._end_poison(judged_at)
            if self.clock.now() > end:
                self._stuck(left)
            self._feed()
            await self._watch(5.0)
        if any(storms for member in self.members for _, storms in member.pipeline.holds.scopes()):
            self.oracle.saw("good records flowed through a storm")

    def _feed(self) -> None:
        """Write good records, unless many wait and some were accepted: then they are the evidence that others need.

        A member that takes one at a time, slowly, would never be done.
        """
        before, self._accepted = self._accepted, sum(map(len, self.oracle.accepted.values()))
        if self._accepted == before or len(self.oracle.left(good=True)) < ENOUGH:
            for _ in range(2):
                self.workload.add(good=True)

    async def _let_go(self) -> None:
        """Wait until no member holds a byte: what was lost may still be under way."""
        end = self.clock.now() + LET_GO
        while holding := [m for m in self.members if m.pipeline.budget.used and not m.dead and not m.stop.is_set()]:
            if self.clock.now() > end:
                used = {member.name: member.pipeline.budget.used for member in holding}
                self.oracle.fail(f"bytes are still held when everything is done: {used}")
            await self._watch(1.0)

    def _end_poison(self, judged_at: float) -> None:
        """From `judged_at` on, judge that nothing but bad records is left, and let those pass from then on."""
        if self.clock.now() <= judged_at or not any(vendor.poisonous for vendor in self.vendors.values()):
            return
        if self.scenario.roomy:
            self.oracle.judge_waiting(self.clock.now() - BAD_ALONE / 2)
        for vendor in self.vendors.values():
            vendor.poisonous = False

    def _stuck(self, left: list[str]) -> None:
        for member in self.members:
            for name, worker in member.pipeline.workers.items():
                self.note("state", member=member.name, destination=name, condition=worker.condition())
            for one in member.pipeline.runner.status():
                self.note("partition", member=member.name, status=one)
        for vendor in self.vendors.values():
            self.note("requests", vendor=vendor.name, sent=len(vendor.sent))
        self.oracle.fail(f"no progress: {left[:5]} and so on, {len(left)}; committed {self.broker.committed}")

    def _all_committed(self) -> bool:
        committed = self.broker.committed
        ends = {partition: log.records[-1].offset for partition, log in self.broker.logs.items() if log.records}
        return all(committed.get(partition, (0, ""))[0] > end for partition, end in ends.items())

    async def _stop_all(self) -> None:
        tasks = [member.task for member in self.members]
        for member in self.members:
            member.source.stopped_at = self.clock.now()
            member.stop.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self.scenario.drain_timeout + STOPPING)
            if self.oracle.broken is None and any(one.task in late and not one.dead for one in self.members):
                self.oracle.broken = "a member does not stop"
            while late:  # the first cancellation is a stop again, the second ends the drain
                for task in late:
                    task.cancel()
                _, late = await asyncio.wait(late, timeout=1.0)

    def _check_end(self) -> None:
        self._raise()
        self.oracle.judge_storms()
        for vendor in self.vendors.values():
            judge_rate(vendor, self.broker.doubles)


def run(seed: int, scenario: Scenario | None = None, begun: Callable[[World], None] = lambda _world: None) -> Report:
    """Run one seed and report. `begun` is told the world once its loop runs."""
    scenario = draw(seed) if scenario is None else scenario
    world = World(scenario)
    old = structlog.get_config()

    def logged(_logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        name = event.pop("event", "")
        if name == "storm.ended":
            destination, code = event.get("destination"), event["code"]
            # At the end what was refused with a 403 passes.
            passes = code == BLAMED or (code == "http_403" and not any(one.poisonous for one in world.vendors.values()))
            if destination != "tracker" and not passes:
                world.oracle.broken = world.oracle.broken or f"a storm of {code} ended, and nothing refused so can pass"
            world.oracle.storm_is_over(MEMBER.get(), destination)
        world.note(f"{method} {name}", **event)
        raise structlog.DropEvent

    structlog.configure(processors=[logged], cache_logger_on_first_use=False)
    poll_records = flow.POLL_RECORDS
    if scenario.unusual.tight:
        vars(flow)["POLL_RECORDS"] = scenario.chunk
    try:
        run_virtual(world.run(begun))
    except Broken:
        pass
    except Exception as error:  # noqa: BLE001 - whatever ends a world is a finding
        world.oracle.broken = world.oracle.broken or repr(error)
    finally:
        vars(flow)["POLL_RECORDS"] = poll_records
        structlog.configure(**old)
    counts = {
        "records": len(world.records),
        "accepted": sum(len(found) for found in world.oracle.accepted.values()),
        "letters": len(world.oracle.dead_letters),
        "repeats": world.oracle.repeats,
        "epochs": len(world.oracle.epochs),
    }
    return Report(seed, world.oracle.broken, world.trace, counts, world.oracle.faults)
