"""What a seed draws: the settings, the records, and which faults come when. Nothing here runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final, NamedTuple

from connector import vendors
from connector.config.loader import DestinationSettings, Settings, StormSettings
from connector.records import Headers
from connector.testing.jiguang import JiguangApi
from connector.testing.loop import WALL
from connector.testing.mytracker import MyTrackerApi
from tests.simulation.unusual import BUG, BUGS, Unusual, draw_unusual, odd_headers

ACCEPT, REFUSE, LETTER, DROP = "accept", "refuse", "letter", "drop"
"""Fates: the vendor takes it; it ends as a dead letter, unless the vendor took it; a dead letter; nothing happens."""

KINDS: Final = vendors.kinds()
TOPICS: Final = ("events", "orders")
REPLAYS: Final = "g.replay"
"""The group's replay topic."""
STEPS: Final = (
    *("poll", "assign", "assigned", "revoke", "revoked", "commit", "committed"),
    *("send", "judged", "answered", "letter", "letter arrives", "lettered"),
)
"""What a member does that others can see; a crash before and after each of them is a crash anywhere."""
FOREIGN: Final = ("text", "empty", "version", "checksum", "moved")
"""Metadata that is no map: somebody's words; none; a map that claims all, of another version or with a bit flipped."""
_DRAWN_WINDOWS: Final = ("down", "credential", "throttle", "hang", "garbage", "baffling", "blaming")
WINDOWS: Final = (*_DRAWN_WINDOWS, "gateway")
"""What a vendor may do for a while. `baffling`: every record is refused by a code that no document knows; `blaming`:
by one that the vendor documents as the record's fault, as where a setting is wrong; `gateway`: 502 for everything."""
TIGHT: Final = 220
"""Characters of a map that the records of one seed may come to need."""
HARD_STOP: Final = 900.0
"""Virtual seconds after the faults in which everything has to be finished."""


@dataclass(slots=True)
class Planned:
    """A record to write, and what has to become of it for each destination."""

    serial: int
    kind: str
    key: bytes | None
    fates: dict[str, str]
    whole: str = ACCEPT
    headers: Headers = ()
    topic: str = TOPICS[0]
    partition: int = 0
    offset: int = -1
    written: float = 0.0
    """When it was written (loop seconds)."""
    value: bytes | None = None
    first: Planned | None = None
    """The record that came first, where this one is a replay."""
    replays: int = 0
    asked: str | None = None
    """The destination of the dead letter that is replayed, None where it has none."""

    @property
    def root(self) -> Planned:
        """The record as it came first."""
        return self if self.first is None else self.first

    def again(self, serial: int, destination: str | None) -> Planned:
        """Return the replay of this record's dead letter for a destination; without one it is routed again."""
        fates = self.fates if destination is None else {destination: self.fates[destination]}
        return replace(
            self,
            serial=serial,
            fates=fates,
            topic=REPLAYS,
            first=self.root,
            replays=self.replays + 1,
            asked=destination,
        )

    @property
    def lane(self) -> object:
        """What its order is about: its key, or its partition where it has none."""
        return self.partition if self.key is None else self.key

    @property
    def where(self) -> str:
        """Where it stands, and what is wrong with it."""
        return f"{self.topic}[{self.partition}]@{self.offset} {self.kind}"


@dataclass(frozen=True, slots=True)
class Crash:
    """Ends a member at its `nth` step of a kind, of `STEPS`."""

    step: str
    nth: int


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely each fault is, by request or by call, while faults last."""

    request: float
    commit: float
    dead_letter: float
    registry: float
    slow: float
    windows: tuple[tuple[float, float, str, str], ...]
    """From, to, destination, and what it answers all the time: one of `WINDOWS`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One seed's world."""

    seed: int
    partitions: int
    members: int
    eager: bool
    records: int
    pace: float
    faults_end: float
    settings: Settings
    map_limit: int
    chunk: int
    bad: float
    bad_kinds: tuple[str, ...]
    """Where not empty, what is wrong with all bad records: one or a few causes, so that a storm can come of it."""
    topics: int
    hints: bool
    foreign: str | None
    """The commit metadata that another program left behind, of `FOREIGN`."""
    weather: Weather
    crashes: tuple[Crash, ...]
    events: tuple[tuple[float, str], ...]
    """When, and which of `rebalance`, `back`, `lost`, `join`, `stop`, `cancel`, `crash`, `skip`, `replay`, `release`,
    or of those of `Unusual.events`."""
    replays: int = 0
    """Partitions of the replay topic; where it is empty for ever it is left out."""
    server_limit: int = 2**20
    keys: int = 5
    poison: float = 0.0
    """How many records, of those that nothing else is wrong with, get a 403 or a 5xx for every request they are in."""
    destinations: dict[str, DestinationSettings] = field(default_factory=dict)
    unusual: Unusual = field(default_factory=Unusual)

    @property
    def roomy(self) -> bool:
        """Whether there can always be another record to ask with where one waits for evidence.

        Where records in doubt, and those of their keys, fill the buffer or the map, nothing else is read.
        """
        return self.map_limit > 1000 and self.settings.limits.buffer > 500_000

    @property
    def drain_timeout(self) -> float:
        """Seconds that a drain may take."""
        return self.settings.limits.drain_timeout

    @property
    def alone(self) -> bool:
        """Whether the only member has every partition, so that whatever it needs another record for comes."""
        return self.members == 1 and all(what != "join" for _, what in self.events)

    def without(self, destination: str | None) -> Settings:
        """Return the settings of a member that does not have a destination, or has all where it is None."""
        if destination is None:
            return self.settings
        left = {name: one for name, one in self.destinations.items() if name != destination}
        # The other one of the two that share a schema gets it without a route.
        return self.settings.model_copy(update={"destinations": left, "routes": []})

    def waivers(self, destination: str) -> set[str]:
        """Return the causes for which the user asked to dead-letter even an innocent record."""
        one = self.destinations[destination]
        asked = {"unknown_outcome"} if one.on_unknown_outcome == "dead_letter" else set()
        return asked if one.retry.give_up_after is None else asked | {"gave_up"}


def draw(seed: int) -> Scenario:
    """Return the world of a seed."""
    random = Random(seed)
    calm = random.random() < 0.15
    faults_end = random.uniform(3.0, 25.0)
    members = random.choice((1, 2, 2, 3))
    buffer, map_limit = random.choice((12_000, 60_000, *[10**6] * 4)), random.choice((*[4095] * 4, 36, 60, 120))
    settings = _settings(random, buffer, doubtful=buffer == 10**6 and map_limit == 4095)
    happenings = ["rebalance", "rebalance", "join", "back", "lost", "join", "stop", "cancel", "crash"]
    count = 0 if calm else random.choice((0, 2, 4, 8, 12))
    # Much happens early, while there is most to do.
    ends = (faults_end, 3.0, 1.0)
    events = [(random.uniform(0.05, random.choice(ends)), random.choice(happenings)) for _ in range(count)]
    asked, replays = _asked(seed, faults_end)
    storms = _storms(seed, faults_end, list(settings.destinations))
    if storms.bad is not None and buffer == 10**6 and map_limit == 4095:
        settings = _guarded(settings)
    unusual = Unusual() if calm else draw_unusual(seed, faults_end, list(settings.destinations))
    crashes = [
        Crash(random.choice(STEPS), random.choice((1, 1, 1, 2, 3, 8, 20)))
        for _ in range(0 if calm else random.choice((0, 1, 2, 3)))
    ]
    scenario = Scenario(
        seed=seed,
        partitions=random.choice((1, 2, 4)),
        members=members,
        eager=random.random() < 0.3,
        records=random.choice((5, 30, 60, 120)),
        pace=random.choice((0.0, 0.01, 0.1)),
        faults_end=faults_end,
        settings=settings,
        map_limit=map_limit,
        chunk=random.choice((1, 7, 50, 500)),
        bad=storms.bad if storms.bad is not None else random.choice((0.0, 0.1, 0.4)),
        bad_kinds=storms.kinds,
        topics=storms.topics,
        hints=random.random() < 0.5,
        foreign=random.choice(FOREIGN) if random.random() < 0.2 else None,
        weather=_gateways(seed, _weather(random, faults_end, list(settings.destinations), calm=calm), settings),
        crashes=tuple(crashes),
        events=tuple(sorted([*events, *asked, *storms.releases, *unusual.events])),
        replays=replays,
        server_limit=random.choice((2**20, 2**20, 700)),
        keys=random.choice((1, 5, 40)),
        poison=Random(f"poison {seed}").choice((0.0, 0.0, 0.02, 0.1)),
        destinations=dict(settings.destinations),
        unusual=unusual,
    )
    if unusual.tight:
        return replace(scenario, map_limit=TIGHT, partitions=1, chunk=min(7, scenario.chunk))
    return scenario


def _asked(seed: int, end: float) -> tuple[list[tuple[float, str]], int]:
    """Return what the operator does and when, and how many partitions replays have.

    It is of another source of randomness, so that nothing else depends on it.
    """
    random = Random(f"operator {seed}")
    count = random.choice((0, 0, 1, 3, 10))
    asked = [(random.uniform(0.05, random.choice((end, 3.0, 1.0))), "skip") for _ in range(count)]
    partitions = random.choice((0, 1, 2))
    if partitions:
        asked += [(random.uniform(0.3, end), "replay") for _ in range(random.choice((1, 3, 8)))]
    return asked, partitions


def _guarded(settings: Settings) -> Settings:
    """Return the settings with a storm guard that trips soon."""
    soon = StormSettings(share=0.5, records=10)
    destinations = {name: one.model_copy(update={"storm": soon}) for name, one in settings.destinations.items()}
    return settings.model_copy(update={"destinations": destinations})


class _Storms(NamedTuple):
    bad: float | None
    kinds: tuple[str, ...]
    topics: int
    releases: list[tuple[float, str]]


def _storms(seed: int, end: float, names: Sequence[str]) -> _Storms:
    """Return a share of bad records, from nearly none to nearly all, by cause, and when an operator releases.

    It is of another source of randomness, so that nothing else depends on it.
    """
    random = Random(f"storms {seed}")
    topics = random.choice((1, 1, 2))
    if random.random() < 0.6:
        return _Storms(None, (), topics, [])
    kinds = [kind for kind in _STORMY if "tracker" in names or not kind.startswith("tracked")]
    releases = [(random.uniform(0.3, end), "release") for _ in range(random.choice((0, 0, 1, 3)))]
    bad = random.choice((0.01, 0.3, 0.6, 0.9, 0.95, 0.99, 0.999))
    return _Storms(bad, tuple(random.sample(kinds, random.choice((1, 1, 2, 3)))), topics, releases)


def _weather(random: Random, end: float, names: list[str], *, calm: bool) -> Weather:
    if calm:
        return Weather(0.0, 0.0, 0.0, 0.0, 0.0, ())
    rate = (0.0, 0.05, 0.3)
    windows = []
    for _ in range(random.choice((0, 1, 2, 3))):
        begin = random.uniform(0.0, random.choice((end, 1.0)))
        kind = random.choice((*_DRAWN_WINDOWS, *("baffling", "blaming") * 2))
        until = random.choice((end, random.uniform(begin, end)))
        windows.append((begin, until, random.choice(names), kind))
    return Weather(
        random.choice(rate),
        random.choice(rate),
        random.choice(rate),
        random.choice((0.0, 0.5)),
        random.choice((0.0, 0.02, 0.2)),
        tuple(windows),
    )


def _gateways(seed: int, weather: Weather, settings: Settings) -> Weather:
    """Add times in which a gateway answers for a vendor; of another source of randomness, as `_asked`."""
    random = Random(f"gateway {seed}")
    windows = list(weather.windows)
    for name, destination in settings.destinations.items():
        likely = 0.6 if destination.on_unknown_outcome == "dead_letter" else 0.1
        if weather.windows and random.random() < likely:
            windows.append((0.0, random.uniform(1.0, 20.0), name, "gateway"))
    return replace(weather, windows=tuple(windows))


def _settings(random: Random, buffer: int, *, doubtful: bool) -> Settings:
    drain = random.choice((3.0, 6.0, 22.0))
    jiguang = JiguangApi().destination("http://jiguang.example.com")
    tracker = MyTrackerApi().destination("http://mytracker.example.com")
    destinations = {"alpha": _destination(random, drain, jiguang, doubtful=doubtful)}
    if random.random() < 0.7:
        destinations["beta"] = _destination(random, drain, jiguang, doubtful=doubtful)
    if random.random() < 0.6:
        destinations["tracker"] = _destination(random, drain, tracker, doubtful=doubtful)
    both = [name for name in destinations if name != "tracker"]
    return Settings.model_validate(
        {
            "kafka": {"topics": list(TOPICS), "group_id": "g", "client": {"bootstrap.servers": "model:1"}},
            "destinations": destinations,
            # One destination needs no route: what has one schema goes there as it is, a run of records at once.
            "routes": [{"schema": "connector.events.JiguangUserEvent", "to": both}] if len(both) > 1 else [],
            "limits": {
                "buffer": buffer,
                "drain_timeout": drain,
                "commit_interval": random.choice((0.1, 1.0, 3.0)),
            },
        }
    )


def _destination(random: Random, drain: float, account: dict[str, Any], *, doubtful: bool) -> DestinationSettings:
    records = random.choice((1, 3, 10, 20))
    order, max_in_flight = random.choice(("none", "key")), random.choice((1, 3, 8))
    storm: Any = random.choice(("off", *[{"share": 0.5, "records": 10}] * 2, {"share": 0.5, "records": 100}))
    if not doubtful:
        # A storm ends by another record's acceptance: there has to be room for one.
        storm = "off"
    give_up = random.choice((None, None, None, None, 5.0))
    return KINDS[account["vendor"]].settings.model_validate(
        {
            **account,
            "batch": {
                "records": records,
                "bytes": random.choice((None, None, 600)),
                "linger": random.choice((0.01, 0.2)),
            },
            "max_in_flight": max_in_flight,
            "order": order,
            "requests_per_second": random.choice((None, None, 5, 50)),
            "retry": {
                "initial": random.choice((0.05, 0.5)),
                "max": random.choice((1.0, 4.0)),
                "give_up_after": give_up,
            },
            "timeout": random.choice((1.0, drain - 2.0)),
            "on_unknown_outcome": "dead_letter" if random.random() < 0.1 else "retry",
            "storm": storm,
        }
    )


def draw_record(scenario: Scenario, random: Random, serial: int, *, good: bool = False) -> Planned:
    """Return the next record of the workload; a `good` one is accepted by every destination."""
    names = scenario.destinations
    both = [name for name in names if name != "tracker"]
    key = None if random.random() < 0.1 else b"k%d" % random.randrange(40 if good else scenario.keys)
    kind = "good"
    if "tracker" in names and random.random() < 0.3:
        kind = "tracked"
    if not good and random.random() < scenario.bad:
        kind = random.choice(scenario.bad_kinds or (_BAD if "tracker" in names else _BAD[:-2]))
        if kind == "odd" and not scenario.roomy:
            kind = "no_user"
        if kind == "strange" and (scenario.partitions == 1 or not scenario.alone):
            # Where all that a member reads waits behind it, no known schema can tell that it is the right registry.
            kind = "broken"
    if good and kind == "good" and serial // len(TOPICS) % 2 and "tracker" in names:
        kind = "tracked"
    mood = Random(f"poison {scenario.seed} {serial}")
    if not good and kind == "good" and scenario.roomy and mood.random() < scenario.poison:
        kind = mood.choice(("walled", "poison"))
    odd = Random(f"unusual {scenario.seed} {serial}")
    if not good and kind == "good" and odd.random() < scenario.unusual.bugs:
        kind = odd.choice(BUGS)
    fates: dict[str, str]
    whole = ACCEPT
    if kind in ("broken", "empty", "unrouted", "strange", BUGS[0]):
        fates, whole = {}, LETTER
    elif kind == "null":
        fates, whole = {}, DROP
    elif kind == "tracked":
        fates = {"tracker": ACCEPT}
    elif kind in ("tracked_invalid", "tracked_refused"):
        fates = {"tracker": REFUSE}
    elif kind == "unknown_event":
        fates = {name: REFUSE if name == "alpha" else ACCEPT for name in both}
    else:
        fates = dict.fromkeys(both, ACCEPT if kind in ("good", "poison") else REFUSE)
    headers: Headers = (("trace", b"%d" % serial),) if serial % 3 == 0 else ()
    if odd.random() < scenario.unusual.forged:
        headers = (*headers, *odd_headers(odd))
    if kind == BUGS[0]:
        headers = (*headers, (BUG, b""))
    partition = 0 if kind == "strange" else random.randrange(scenario.partitions)
    topic = TOPICS[serial % scenario.topics]
    return Planned(serial, kind, key, fates, whole, headers, topic, partition)


_STORMY: Final = ("unknown_event", "bad_note", "invalid", "no_user", "broken", "unrouted", "tracked_invalid")
"""What may be wrong with most records."""
_BAD: Final = (
    "unknown_event",
    "bad_note",
    "odd",
    "invalid",
    "no_user",
    "null",
    "broken",
    "empty",
    "unrouted",
    "strange",
    "tracked_invalid",
    "tracked_refused",
)


def method_of(planned: Planned) -> str:
    """Return the method of a record for MyTracker: one of two, which go out in different requests."""
    return ("login", "registration")[planned.root.serial % 2]


def datum_of(planned: Planned, random: Random) -> tuple[str, dict[str, Any]]:
    """Return the schema's name and the datum of a record that has one."""
    if planned.kind == "unrouted":
        return "connector.events.QuickAudienceEvent", {
            "customerId": "c",
            "eventCode": "e",
            "eventTime": int(WALL * 1000),
            "extendAttributes": {},
            "customerIdList": [],
        }
    if planned.kind in ("tracked", "tracked_invalid", "tracked_refused"):
        user = {"tracked": "u", "tracked_refused": "bad"}.get(planned.kind, "u" * 1024) + str(planned.serial)
        return "connector.events.MyTrackerEvent", {"method": method_of(planned), "customUserId": user}
    names = {"unknown_event": "missing", "odd": "odd", "walled": "walled", "poison": "poison", BUGS[1]: BUG}
    name = names.get(planned.kind, "open")
    cuid = planned.serial + (10**9 if planned.kind == "no_user" else 0)
    itime = int(WALL * 1000) + (10**9 if planned.kind == "invalid" else 0)
    # An answer that names the attribute names those that have it: most of them innocent.
    note: str | int | None = random.choice((None, "", "n" * 10, "n" * 200))
    if planned.kind == "bad_note":
        note = 5
    return "connector.events.JiguangUserEvent", {
        "cuid": cuid,
        "eventName": name,
        "itime": itime,
        "properties": {} if note is None else {"note": note},
    }
