"""Storms: many records refused for one reason. The reason is held, not the topic or destination. Pure decisions.

Theory of operation. If one record is refused, the record is at fault. If half of all records are refused for the same
reason, more likely a setting is: a route, a mapping, a schema, or an account that does not know the event yet. Then the
topic must not be drained into dead letters, and no good record may wait. Each scope (a destination; for decoding and
routing, a topic) has one `Storms`. In it each reason (cause and code) is in one of three phases:

    phase    a record refused for this reason       leaves the phase when
    -------  -------------------------------------  -----------------------------------------------------------------
    calm     is counted, and becomes a dead letter  the reason would have more than its share of the last records
    storm    is set aside                           a record that was set aside passes on a probe, or by `release`
    open     is counted, and becomes a dead letter  (only after `release`) a window later, once the share is below
                                                    the limit again and all that was released came

Set aside means that only the position is kept. The record stays unfinished in its tracker, so the committed offset does
not pass it, and after a restart or a rebalance it is simply consumed again. Its bytes are released, and read again from
Kafka later (`rereading`): single records as probes, and all of them when the storm ends.

Why can only a record that was set aside end a storm? A good record proves nothing about the bad ones. If any acceptance
ended the storm, a topic with 5 % good records would drain the other 95 % into dead letters, one window after each good
record.

A probe may get no result, because it fails for another reason, or a record in front of it does. After a minute it is
set aside again, and the next probe takes another record.

Probes back off. A storm that returns soon after its end continues the back-off instead of restarting it.
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
OVERDUE: Final = 60.0
"""Seconds after which a probe without a result is set aside again, so that another record can be the next one."""
_REASONS: Final = 100
"""For how many ended storms the number of probes is remembered. Bounded, because the vendor chooses the codes."""
CALM: Final = 600.0
"""If a storm returns later than this many seconds after its end, it is a new one, and its probes start early again."""

log = structlog.get_logger()


class Place(NamedTuple):
    """One delivery without an outcome, by the place of its record; `bit` is its bit in the tracker."""

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
    """One storm as shown to a person. `since` and `next_probe` are epoch seconds; no `next_probe` during a probe."""

    cause: str
    code: str
    message: str
    since: float
    next_probe: float | None
    set_aside: int


class StormGuard:
    """Counts refusals by reason over a window of outcomes; `off` never trips.

    It trips when one reason would have more than its share of the window's full size, even before the window is full.
    """

    def __init__(
        self, settings: StormSettings | str, may_close: Callable[[Reason], bool] = lambda _reason: True
    ) -> None:
        self._may_close = may_close
        """Returns whether a reason that is let through may count again; called at most once a window."""
        self._settings = settings if isinstance(settings, StormSettings) else None
        self._window: deque[Reason | None] = deque()
        self._refused: Counter[Reason] = Counter()
        self._open: dict[Reason, int] = {}
        """The reasons that a release lets through, each with how many outcomes have to come before its share counts
        again."""

    def use(self, settings: StormSettings | str) -> None:
        """Use other settings from now on. The newest counted outcomes still count."""
        self._settings = settings if isinstance(settings, StormSettings) else None
        most = 0 if self._settings is None else self._settings.records
        while len(self._window) > most:
            self._drop_oldest()

    @property
    def counting(self) -> bool:
        """Whether acceptances have to be counted: something was refused, or a reason is let through."""
        return self._settings is not None and bool(self._refused or self._open)

    def accepted(self, count: int) -> None:
        """Count accepted records."""
        if self._settings is None or not self.counting:
            return
        # A whole window of them pushes everything else out, so more need not be pushed.
        for _ in range(min(count, self._settings.records)):
            self._push(None, self._settings)

    def refused(self, cause: str, code: str) -> bool:
        """Count a refusal; return whether it is one too many and must not be dead-lettered."""
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
        """Return how many of the last outcomes are refusals for a reason, each of them a dead letter."""
        return self._refused[reason]

    def clear(self, reason: Reason) -> None:
        """Forget the refusals for a reason: its storm is over."""
        # Count them as accepted: their places in the window stay, so that its length still shows how much was seen.
        self._window = deque(None if counted == reason else counted for counted in self._window)
        del self._refused[reason]

    def open(self, reason: Reason) -> None:
        """Let a reason through until its share is below the limit, which is checked after a whole window."""
        self.clear(reason)
        if self._settings is not None:
            self._open[reason] = self._settings.records

    def _push(self, counted: Reason | None, settings: StormSettings) -> None:
        self._window.append(counted)
        if len(self._window) > settings.records:
            self._drop_oldest()
        # Only after a whole window, because until then the window still contains the released records.
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
    """In the order in which they were set aside. A probe takes the first; if it fails, it is put last."""
    probing: Place | None = None
    probed_at: float = 0.0


class Storms:
    """The storms of one scope, by reason. `scope` has the fields for log lines, such as `{"topic": "orders"}`.

    `wait` gives the seconds until the next probe, from the number of probes so far. `on_change` is called when a storm
    begins or ends.
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
        """The released records by reason. The reason stays open until all of them came, because a person has decided
        so."""
        self._reading: frozenset[Place] = frozenset()
        self.quiet = True
        """Whether nothing was refused lately, so that acceptances need not be counted."""

    def __bool__(self) -> bool:
        """Whether anything is in a storm."""
        return bool(self._storms)

    def lasts(self, cause: str, code: str) -> bool:
        """Whether there is a storm for this reason."""
        return (cause, code) in self._storms

    def use(self, settings: StormSettings | str) -> None:
        """Use other settings from now on. `off` ends all storms. Others may fix the causes, so probes come soon."""
        self._guard.use(settings)
        if not isinstance(settings, StormSettings):
            self.release()
        self.probe_now()

    def probe_now(self) -> bool:
        """Make the probe of every storm due now; return whether there is a storm."""
        for storm in self._storms.values():
            storm.next_probe = self._clock.now()
        return bool(self._storms)

    def accepted(self, count: int) -> None:
        """Count accepted records."""
        self._guard.accepted(count)
        self.quiet = not (self._storms or self._guard.counting)

    def refused(self, cause: str, code: str, why: str, place: Place) -> bool:
        """Count a refusal; return True if the record is set aside instead of becoming a dead letter.

        `why` is the message for people if this begins a storm.
        """
        reason = (cause, code)
        self.quiet = False
        # Even by another reason: the probe is over, and it did not pass.
        self._probe_ended(place)
        self._released.pop(place, None)
        storm = self._storms.get(reason)
        if storm is None:
            if not self._guard.refused(cause, code):
                return False
            if not place.tracker.open:
                # Nothing to set aside: the next owner reads the record. A storm without a record could never end.
                return True
            storm = self._begin(reason, why)
        # If the partition was revoked, its next owner reads the record.
        if place.tracker.open:
            storm.aside[place] = None
            place.tracker.set_aside += 1
        return True

    def passed(self, places: Iterable[Place]) -> None:
        """Note records that were not refused. If one of them was a probe, its storm is over."""
        probes = {storm.probing: reason for reason, storm in self._storms.items() if storm.probing is not None}
        if not probes and not self._released:
            return
        for place in places:
            self._released.pop(place, None)
            if (reason := probes.get(place)) is not None:
                storm = self._end(reason)
                # Plus one: a storm that returns at once was not really over, so its pause grows.
                self._past.put(reason, (storm.probes + 1, self._clock.now()))
                self._guard.clear(reason)
                log.info("storm.ended", **self._scope, cause=reason[0], code=reason[1], records=len(storm.aside))

    def release(self) -> int:
        """Release all records set aside; those refused again become dead letters. Return how many there were."""
        released = 0
        for reason in list(self._storms):
            storm = self._end(reason)
            self._guard.open(reason)
            # A probe in flight belongs to the release too: if it is refused, it becomes a dead letter like the others.
            places = [*storm.aside, *([] if storm.probing is None else [storm.probing])]
            self._released.update(dict.fromkeys(places, reason))
            released += len(places)
        if released:
            log.warning("storm.released", **self._scope, records=released)
        return released

    def take_out(self, place: Place) -> bool:
        """Take out one record; return whether it was set aside."""
        for storm in self._storms.values():
            if place in storm.aside:
                del storm.aside[place]
                # At the front, because a person waits for it.
                self._let_go.appendleft(place)
                self._end_empty()
                return True
        return place in self._let_go

    def is_read_again(self, place: Place) -> bool:
        """Whether a record is being read again now, as a probe or because its storm is over."""
        return place in self._reading or any(storm.probing == place for storm in self._storms.values())

    def was_read(self) -> None:
        """Note that the records that `let_go` returned were processed again, or put back."""
        self._reading = frozenset()

    def overdue(self, now: float) -> list[Place]:
        """Return the probes that have had no result for `OVERDUE` seconds; each again only after as long.

        Such a record waits for a reason of its own: it fails, or a record in front of it does. Unless it is `put_back`,
        no other record would ever be the probe.
        """
        late = [
            storm for storm in self._storms.values() if storm.probing is not None and storm.probed_at + OVERDUE < now
        ]
        for storm in late:
            storm.probed_at = now
        return [storm.probing for storm in late if storm.probing is not None]

    def forget(self) -> None:
        """Forget the records whose partition is being revoked."""
        for storm in self._storms.values():
            for place in [place for place in storm.aside if not place.tracker.open]:
                self._remove(storm, place)
            # The probe's answer will not come here any more. Unless the probe is ended, there would never be another.
            if storm.probing is not None and not storm.probing.tracker.open:
                self._probe_later(storm)
        self._let_go = deque(place for place in self._let_go if place.tracker.open)
        self._end_empty()

    def probes(self, now: float) -> list[Place]:
        """Return a record for each storm whose probe is due. The record no longer counts as set aside."""
        for storm in self._storms.values():
            if storm.probing is not None and not storm.probing.pending:
                # The probe had another outcome, such as a skip, which proves nothing.
                self._probe_later(storm)
        self._end_empty()
        due = []
        for storm in self._storms.values():
            if storm.probing is None and storm.aside and storm.next_probe <= now:
                # The record that has waited longest. A failed one is put at the end, so that each probe tries another
                # record.
                storm.probing = next(iter(storm.aside))
                storm.probed_at = now
                self._remove(storm, storm.probing)
                due.append(storm.probing)
        return due

    def let_go(self, most: int) -> list[Place]:
        """Return records to process again because their storm is over. They count as set aside until `was_read`."""
        places = [self._let_go.popleft() for _ in range(min(most, len(self._let_go)))]
        for place in places:
            place.tracker.set_aside -= 1
        self._reading = frozenset(places)
        return places

    def put_back(self, places: Iterable[Place]) -> None:
        """Take back records that could not be read again now."""
        for place in places:
            storm = next((storm for storm in self._storms.values() if storm.probing == place), None)
            if storm is None:
                self._let_go.append(place)
            else:
                self._probe_later(storm)
                storm.aside[place] = None
            place.tracker.set_aside += 1

    def kept(self) -> list[Place]:
        """Return every record that is kept by its position only."""
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
        """Whether every record that was released for a reason has had some outcome."""
        self._released = {place: why for place, why in self._released.items() if place.pending}
        return reason not in self._released.values()

    def _begin(self, reason: Reason, why: str) -> _Storm:
        now = self._clock.now()
        # Example: a storm ended a minute ago, after 5 probes. The new one first waits as long as after 6 probes: the
        # cause was probably never fixed.
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
        """End storms without records set aside. The window stays: the next such refusal begins the storm again."""
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
    """The storms of decoding and routing, by topic; `of` creates those of a topic on first use."""

    def __init__(self, of: Callable[[str], Storms]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, topic: str) -> Storms:
        """Create the storms of a topic."""
        storms = self[topic] = self._of(topic)
        return storms

    def refused(self, refusal: Refusal, place: Place) -> bool:
        """Count a record that cannot be decoded or routed; return True if it is set aside."""
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
