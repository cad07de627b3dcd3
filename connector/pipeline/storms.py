"""Storms: many records refused for one reason. The cause is held, not the topic or destination. Decides only, no I/O.

Theory of operation. One bad record is the record's fault. Half of all records refused for the same reason is rather a
setting's fault: a route, a mapping, a schema, an account that does not know the event yet. Then nothing may be drained
into the dead-letter topic, and no good record may wait. Each scope (a destination; for decoding and routing a topic)
has one `Storms`, and in it each reason (cause and code) is in one of three phases:

    phase    a record refused for this reason       leaves the phase when
    -------  -------------------------------------  -----------------------------------------------------------------
    calm     is counted, and becomes a dead letter  the reason would have more than its share of the last records
    storm    is set aside                           a record that was set aside passes on a probe, or by `release`
    open     is counted, and becomes a dead letter  (only after `release`) a window later, once the share is below
                                                    the limit again and all that was released came

Set aside means: only the position is kept. The record stays unfinished in its tracker, so its offset is not committed
past, and after a restart or a rebalance it simply comes again. Its bytes are let go of and read again from Kafka later
(`rereading`): one at a time as a probe, all of them when the storm ends.

Why only a record that was set aside can end a storm: a good record says nothing about the bad ones. Ended by any
acceptance, a topic of which 5 % is good drains the other 95 %, one window after each good record.

Probes back off, and a storm that comes back soon after its end goes on where its probes were.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

from connector.clock import Clock
from connector.config.loader import StormSettings
from connector.errors import Refusal
from connector.pipeline.offsets import PartitionTracker
from connector.recent import Recent
from connector.records import Position

Reason = tuple[str, str]
"""A dead letter's cause and code."""

FIRST_PROBE: Final = 1.0
LONGEST_PROBE: Final = 60.0
_REASONS: Final = 100
"""Of how many storms that are over the probes are remembered: the codes are the vendor's."""
CALM: Final = 600.0
"""Seconds after a storm's end after which its next one is a new one, whose probes begin soon again."""

log = structlog.get_logger()


class Place(NamedTuple):
    """One delivery that has no outcome yet, by where its record is; `bit` is its bit in the tracker."""

    tracker: PartitionTracker
    offset: int
    bit: int

    @property
    def position(self) -> Position:
        """The record's position."""
        return Position(self.tracker.topic, self.tracker.partition, self.offset)

    @property
    def pending(self) -> bool:
        """Whether the delivery still needs an outcome here."""
        return self.tracker.open and self.tracker.is_pending(self.offset, self.bit)


@dataclass(frozen=True, slots=True)
class StormStatus:
    """One storm as a person sees it. `since` and `next_probe` are epoch seconds, None while a probe is under way."""

    cause: str
    code: str
    message: str
    since: float
    next_probe: float | None
    set_aside: int


class StormGuard:
    """Counts refusals by reason over a window of outcomes; `off` never trips.

    It trips when one reason would have more than its share of the whole window, full or not.
    """

    def __init__(
        self, settings: StormSettings | str, may_close: Callable[[Reason], bool] = lambda _reason: True
    ) -> None:
        self._may_close = may_close
        """Whether a reason that is let through may count again; asked once a window."""
        self._settings = settings if isinstance(settings, StormSettings) else None
        self._window: deque[Reason | None] = deque()
        self._refused: Counter[Reason] = Counter()
        self._open: dict[Reason, int] = {}
        """Reasons that a release lets through, and how many outcomes have to come before their share counts again."""

    def use(self, settings: StormSettings | str) -> None:
        """Judge by other settings from now on; the newest outcomes that are counted still count."""
        self._settings = settings if isinstance(settings, StormSettings) else None
        most = 0 if self._settings is None else self._settings.records
        while len(self._window) > most:
            self._drop_oldest()

    @property
    def counting(self) -> bool:
        """Whether acceptances count: something was refused, or a reason is let through."""
        return self._settings is not None and bool(self._refused or self._open)

    def accepted(self, count: int) -> None:
        """Count accepted records."""
        if self._settings is None or not self.counting:
            return
        # More than a window pushes out everything else, so the rest need not be pushed.
        for _ in range(min(count, self._settings.records)):
            self._push(None, self._settings)

    def refused(self, cause: str, code: str) -> bool:
        """Count a refusal; return whether it is one too many, so that it must not be dead-lettered."""
        if self._settings is None:
            return False
        reason = (cause, code)
        # Example: `share` 0.5 of 500 records. The 251st refusal for one reason among the last 500 outcomes trips it,
        # also when fewer than 500 were seen: a topic that begins with bad records writes 250 dead letters, not 500.
        if reason not in self._open and self._refused[reason] + 1 > self._settings.share * self._settings.records:
            return True
        self._refused[reason] += 1
        self._push(reason, self._settings)
        return False

    def refusals(self, reason: Reason) -> int:
        """Return how many of the last outcomes are refusals for a reason, each a dead letter."""
        return self._refused[reason]

    def clear(self, reason: Reason) -> None:
        """Forget the refusals for a reason: its storm is over."""
        # As if they had passed: the places in the window stay, so its length still says how much was seen.
        self._window = deque(None if counted == reason else counted for counted in self._window)
        del self._refused[reason]

    def open(self, reason: Reason) -> None:
        """Let a reason through until its share, a whole window later, is below the limit."""
        self.clear(reason)
        if self._settings is not None:
            self._open[reason] = self._settings.records

    def _push(self, counted: Reason | None, settings: StormSettings) -> None:
        self._window.append(counted)
        if len(self._window) > settings.records:
            self._drop_oldest()
        # A whole window after the release, because until then the window still holds what the release let through.
        for reason, left in list(self._open.items()):
            self._open[reason] = left - 1
            if left > 1 or self._refused[reason] > settings.share * settings.records:
                continue
            if self._may_close(reason):
                del self._open[reason]
            else:
                self._open[reason] = settings.records

    def _drop_oldest(self) -> None:
        gone = self._window.popleft()
        if gone is not None:
            self._refused[gone] -= 1
            if not self._refused[gone]:
                del self._refused[gone]


@dataclass(slots=True)
class _Storm:
    message: str
    since: float
    next_probe: float
    probes: int
    aside: dict[Place, None] = field(default_factory=dict)
    """In the order in which they were set aside; a probe takes the first, and puts it last where it fails."""
    probing: Place | None = None


class Storms:
    """The storms of one scope, by reason. `scope` is what a log line says of it, such as `{"topic": "orders"}`.

    `wait` gives the seconds until the next probe after so many; `on_change` is called when a storm begins or ends.
    """

    def __init__(
        self,
        settings: StormSettings | str,
        clock: Clock,
        *,
        scope: dict[str, str],
        wait: Callable[[int], float] = lambda probes: min(LONGEST_PROBE, FIRST_PROBE * 2.0 ** min(probes, 16)),
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._guard = StormGuard(settings, self._all_came)
        self._clock = clock
        self._scope = scope
        self._wait = wait
        self._on_change = on_change
        self._storms: dict[Reason, _Storm] = {}
        self._past: Recent[Reason, tuple[int, float]] = Recent(_REASONS)
        self._let_go: deque[Place] = deque()
        self._released: dict[Place, Reason] = {}
        """What a release let go, and its reason, which stays open until all of it came: a person has decided."""
        self._reading: frozenset[Place] = frozenset()
        self.quiet = True
        """Whether nothing was refused lately, so that no acceptance has to be counted."""

    def __bool__(self) -> bool:
        """Whether anything is in a storm."""
        return bool(self._storms)

    def lasts(self, cause: str, code: str) -> bool:
        """Whether there is a storm of this reason."""
        return (cause, code) in self._storms

    def use(self, settings: StormSettings | str) -> None:
        """Judge by other settings from now on. `off` ends the storms; other settings may have fixed their cause."""
        self._guard.use(settings)
        if not isinstance(settings, StormSettings):
            self.release()
        self.probe_now()

    def probe_now(self) -> bool:
        """Let a record of each storm be tried at once; return whether there is a storm."""
        for storm in self._storms.values():
            storm.next_probe = self._clock.now()
        return bool(self._storms)

    def accepted(self, count: int) -> None:
        """Count records that were not refused."""
        self._guard.accepted(count)
        self.quiet = not (self._storms or self._guard.counting)

    def refused(self, cause: str, code: str, why: str, place: Place) -> bool:
        """Count a refusal; return True where the record is set aside instead of becoming a dead letter.

        `why` is what a person is shown where this is one too many.
        """
        reason = (cause, code)
        self.quiet = False
        self._probe_ended(place)
        self._released.pop(place, None)
        storm = self._storms.get(reason)
        if storm is None:
            if not self._guard.refused(cause, code):
                return False
            if not place.tracker.open:
                return True  # a storm begins with a record that is set aside
            storm = self._begin(reason, why)
        if place.tracker.open:  # else the next owner of the partition comes to it
            storm.aside[place] = None
            place.tracker.set_aside += 1
        return True

    def passed(self, places: Iterable[Place]) -> None:
        """Note records that were not refused: where one was a probe, its storm is over."""
        probes = {storm.probing: reason for reason, storm in self._storms.items() if storm.probing is not None}
        if not probes and not self._released:
            return
        for place in places:
            self._released.pop(place, None)
            if (reason := probes.get(place)) is not None:
                storm = self._end(reason)
                # One more than its probes: a storm that comes back at once was not over, so its pause grows.
                self._past.put(reason, (storm.probes + 1, self._clock.now()))
                self._guard.clear(reason)
                log.info("storm.ended", **self._scope, cause=reason[0], code=reason[1], records=len(storm.aside))

    def release(self) -> int:
        """Let all go that is set aside, as dead letters where they are refused again; return how many they are."""
        released = 0
        for reason in list(self._storms):
            storm = self._end(reason)
            self._guard.open(reason)
            places = [*storm.aside, *([] if storm.probing is None else [storm.probing])]
            self._released.update(dict.fromkeys(places, reason))
            released += len(places)
        if released:
            log.warning("storm.released", **self._scope, records=released)
        return released

    def take_out(self, place: Place) -> bool:
        """Let one record go that is set aside; return whether it was."""
        for storm in self._storms.values():
            if place in storm.aside:
                del storm.aside[place]
                # In front: a person waits for it.
                self._let_go.appendleft(place)
                self._end_empty()
                return True
        return place in self._let_go

    def is_read_again(self, place: Place) -> bool:
        """Whether a record is being read again now, because its storm is over or as a probe."""
        return place in self._reading or any(storm.probing == place for storm in self._storms.values())

    def was_read(self) -> None:
        """Note that what `let_go` returned was taken in again, or put back."""
        self._reading = frozenset()

    def forget(self) -> None:
        """Forget the records whose partition is leaving."""
        for storm in self._storms.values():
            for place in [place for place in storm.aside if not place.tracker.open]:
                self._remove(storm, place)
            # Its answer will not come here any more, and without an end of the probe there would never be another.
            if storm.probing is not None and not storm.probing.tracker.open:
                self._probe_later(storm)
        self._let_go = deque(place for place in self._let_go if place.tracker.open)
        self._end_empty()

    def probes(self, now: float) -> list[Place]:
        """Return a record for each storm whose probe is due; it is no longer set aside."""
        for storm in self._storms.values():
            if storm.probing is not None and not storm.probing.pending:
                # It had another outcome, such as a skip: that shows nothing.
                self._probe_later(storm)
        self._end_empty()
        due = []
        for storm in self._storms.values():
            if storm.probing is None and storm.aside and storm.next_probe <= now:
                # The one that has waited longest. One that fails is put at the end, so each probe tries another record.
                storm.probing = next(iter(storm.aside))
                self._remove(storm, storm.probing)
                due.append(storm.probing)
        return due

    def let_go(self, most: int) -> list[Place]:
        """Return records to take in again because their storm is over. Until then they count as set aside."""
        places = [self._let_go.popleft() for _ in range(min(most, len(self._let_go)))]
        for place in places:
            place.tracker.set_aside -= 1
        self._reading = frozenset(places)
        return places

    def put_back(self, places: Iterable[Place]) -> None:
        """Take back what could not be read again now."""
        for place in places:
            storm = next((storm for storm in self._storms.values() if storm.probing == place), None)
            if storm is None:
                self._let_go.append(place)
            else:
                self._probe_later(storm)
                storm.aside[place] = None
            place.tracker.set_aside += 1

    def kept(self) -> list[Place]:
        """Return every record of which only the position is kept."""
        return [*self._let_go, *(place for storm in self._storms.values() for place in storm.aside)]

    def status(self) -> list[StormStatus]:
        """Return every storm, the longest first."""
        now, wall = self._clock.now(), self._clock.wall()
        return [
            StormStatus(
                *reason,
                storm.message,
                storm.since,
                None if storm.probing is not None else wall + max(0.0, storm.next_probe - now),
                len(storm.aside) + (storm.probing is not None),
            )
            for reason, storm in self._storms.items()
        ]

    def _all_came(self, reason: Reason) -> bool:
        """Whether everything that a release let go for a reason was refused, passed, or had another outcome."""
        self._released = {place: why for place, why in self._released.items() if place.pending}
        return reason not in self._released.values()

    def _begin(self, reason: Reason, why: str) -> _Storm:
        now = self._clock.now()
        probes, ended = self._past.get(reason) or (0, now)
        probes = probes if now - ended < CALM else 0
        storm = self._storms[reason] = _Storm(why, self._clock.wall(), now + self._wait(probes), probes)
        log.warning(
            "storm.began",
            **self._scope,
            cause=reason[0],
            code=reason[1],
            dead_letters=self._guard.refusals(reason),
            message=why,
        )
        self._on_change()
        return storm

    def _end(self, reason: Reason) -> _Storm:
        storm = self._storms.pop(reason)
        self._let_go.extend(storm.aside)
        self._on_change()
        return storm

    def _end_empty(self) -> None:
        """End storms that have nothing set aside. The window stays: the next such refusal begins it again, at once."""
        for reason in [reason for reason, storm in self._storms.items() if not storm.aside and storm.probing is None]:
            storm = self._end(reason)
            self._past.put(reason, (storm.probes, self._clock.now()))

    def _remove(self, storm: _Storm, place: Place) -> None:
        del storm.aside[place]
        place.tracker.set_aside -= 1

    def _probe_ended(self, place: Place) -> None:
        for storm in self._storms.values():
            if storm.probing == place:
                self._probe_later(storm)

    def _probe_later(self, storm: _Storm) -> None:
        storm.probing = None
        storm.probes += 1
        storm.next_probe = self._clock.now() + self._wait(storm.probes)


class TopicStorms(dict[str, Storms]):
    """The storms of decoding and routing, by topic; `of` makes those of a topic when it is first asked for."""

    def __init__(self, of: Callable[[str], Storms]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, topic: str) -> Storms:
        """Make the storms of a topic."""
        storms = self[topic] = self._of(topic)
        return storms

    def refused(self, refusal: Refusal, place: Place) -> bool:
        """Count a record that cannot be decoded or routed; return True where it is set aside."""
        topic = place.tracker.topic
        return self[topic].refused(refusal.cause, refusal.code, _why(topic, refusal), place)


def _why(topic: str, refusal: Refusal) -> str:
    if refusal.cause == "decode":
        likely = "kafka.topics names a topic of another format, or schema_registry or schemas do not match it"
    elif refusal.cause == "internal":
        likely = "a fault of this release; update it"
    else:
        likely = "a route is missing or does not match"
    return (
        f"too many of the last records of topic {topic} are refused with {refusal.code} ({refusal.message}); probable "
        f"cause: {likely}. Fix it, run `connector release`, or set storm: off to dead-letter them"
    )
