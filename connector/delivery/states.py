"""The states of a destination: the transition table, the holds, and which changes are logged. Pure.

Theory of operation. A destination flows until something holds it. There are four kinds of hold. In each scope (the
whole destination, or one group of it) each kind is a small state machine: FREE, HELD, or PROBING while one request
tests whether the hold can end. Several may hold at once, each with its own start, cause, message and next probe. A
batch is sent normally only if no hold covers it, and as a probe only if the probes of all holds that cover it are due.
An answer is an event for each of these holds: for the holds it probed in phase PROBING, and for holds that began after
it was sent in phase HELD ("late"). The state that a person sees is derived: the worst hold (order of `Kind`), else an
active throttle, else batches that are being retried.

    kind       begins when                                            ends by
    ---------  -----------------------------------------------------  -----------------------------------------------
    OPERATOR   a person, or `hold: true`, holds it                    a release only; it is never probed
    DENIED     a credential, address or permission is wrong           a probe that is accepted, or judged in any way
    DOUBT      records are refused by a code that is not documented   a probe that is accepted, or refused by a
                                                                      documented code: the vendor does judge records
    OUTAGE     batches fail, and none is accepted between             any answer at all, even a late one

A probe has one record, another one each time: a whole batch could be denied, or fail, because of a single bad record.
The oldest and the newest record take turns, because bad records often come in a row. A due probe goes before all else.
After a probe that does not end its hold, the next one comes later. Exception: if that probe's record had been tried
before, the first new record may probe at once, because the old record may have been the reason. A release ends every
hold. A storm is shown as a hold too, after all others, but holds only its cause: see `pipeline.storms`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple

from connector.delivery.pacing import Backoff
from connector.vendors.base import DESTINATION, endpoint_of


class DestinationState(StrEnum):
    """What a destination does."""

    FLOWING = "flowing"
    THROTTLED = "throttled"
    RETRYING = "retrying"
    HELD = "held"
    PROBING = "probing"


class Cause(StrEnum):
    """Why a destination is held."""

    MISCONFIGURED = "misconfigured"
    OUTAGE = "outage"
    STORM = "storm"
    REGISTRY = "registry"
    OPERATOR = "operator"


class Kind(Enum):
    """The kinds of hold, the worst first."""

    OPERATOR = auto()
    DENIED = auto()
    DOUBT = auto()
    OUTAGE = auto()

    @property
    def cause(self) -> Cause:
        """The cause shown to a person."""
        return _CAUSES[self]


_CAUSES: Final = {
    Kind.OPERATOR: Cause.OPERATOR,
    Kind.DENIED: Cause.MISCONFIGURED,
    Kind.DOUBT: Cause.MISCONFIGURED,
    Kind.OUTAGE: Cause.OUTAGE,
}


class HoldPhase(Enum):
    """The phase of one hold."""

    FREE = auto()
    HELD = auto()
    PROBING = auto()


class HoldEvent(Enum):
    """What can happen to a hold. Answers count if the hold's scope includes their batch."""

    BEGUN = auto()
    """The trouble of the hold was seen, for the first time or again."""
    PROBED = auto()
    """A probe is sent."""
    ENDED = auto()
    """A probe is over without another event, for example because its record had expired."""
    RELEASED = auto()
    """A person releases the destination."""
    ACCEPTED = auto()
    JUDGED = auto()
    """Refused by a code that the vendor documents."""
    BAFFLING = auto()
    """Refused by a code that the vendor does not document."""
    TOO_LARGE = auto()
    THROTTLED = auto()
    FAILED = auto()
    DENIED = auto()
    """Access is denied, in the scope of the hold."""
    NARROWER = auto()
    """Access is denied to one group only; the hold is the whole destination's."""
    WIDER = auto()
    """Access is denied to the whole destination; the hold is one group's."""


class Action(Enum):
    """What is done about a hold."""

    KEEP = auto()
    BEGIN = auto()
    RENEW = auto()
    """Its code and message become those of the event."""
    PROBE = auto()
    LATER = auto()
    """The probe did not end the hold: the next one comes later."""
    END = auto()


class Transition(NamedTuple):
    """An entry of the table: the action, and the next phase."""

    action: Action
    phase: HoldPhase


_NEXT: Final = {
    Action.BEGIN: HoldPhase.HELD,
    Action.PROBE: HoldPhase.PROBING,
    Action.LATER: HoldPhase.HELD,
    Action.END: HoldPhase.FREE,
}
_Cells = tuple[Action | None, Action | None, Action | None]
"""The action in each of the phases FREE, HELD and PROBING; None if the event cannot happen there."""

_KEEP, _LATER, _END = Action.KEEP, Action.LATER, Action.END
_LASTS: Final[_Cells] = (_KEEP, _KEEP, _LATER)
_PROBE_ENDS: Final[_Cells] = (_KEEP, _KEEP, _END)
_ANY_ENDS: Final[_Cells] = (_KEEP, _END, _END)
_UNTOUCHED: Final[_Cells] = (_KEEP, _KEEP, None)

_ALL_KINDS: Final[Mapping[HoldEvent, _Cells]] = {
    # event              FREE          HELD          PROBING
    HoldEvent.BEGUN: (Action.BEGIN, Action.RENEW, Action.RENEW),
    HoldEvent.PROBED: (None, Action.PROBE, None),
    HoldEvent.ENDED: (None, None, _LATER),
    HoldEvent.RELEASED: (_KEEP, _END, _END),
}
_BY_KIND: Final[Mapping[HoldEvent, tuple[_Cells, _Cells, _Cells]]] = {
    # event            DENIED       DOUBT        OUTAGE
    HoldEvent.ACCEPTED: (_PROBE_ENDS, _PROBE_ENDS, _ANY_ENDS),
    HoldEvent.JUDGED: (_PROBE_ENDS, _PROBE_ENDS, _ANY_ENDS),
    HoldEvent.BAFFLING: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    HoldEvent.TOO_LARGE: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    HoldEvent.THROTTLED: (_LASTS, _LASTS, _LASTS),
    HoldEvent.FAILED: (_LASTS, _LASTS, _LASTS),
    HoldEvent.DENIED: (_LASTS, _LASTS, _ANY_ENDS),
    HoldEvent.NARROWER: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    HoldEvent.WIDER: (_LASTS, _LASTS, _ANY_ENDS),
}
_PROBED_KINDS: Final = (Kind.DENIED, Kind.DOUBT, Kind.OUTAGE)


def _cells(kind: Kind, event: HoldEvent) -> _Cells:
    if event in _ALL_KINDS:
        free, held, probing = _ALL_KINDS[event]
        if kind is Kind.OPERATOR:
            # Never probed, so no event of a probe can occur.
            return free, None if event is HoldEvent.PROBED else held, None
        return free, held, probing
    return _UNTOUCHED if kind is Kind.OPERATOR else _BY_KIND[event][_PROBED_KINDS.index(kind)]


TABLE: Final[Mapping[tuple[Kind, HoldPhase, HoldEvent], Transition]] = {
    (kind, phase, event): Transition(action, _NEXT.get(action, phase))
    for kind in Kind
    for event in HoldEvent
    for phase, action in zip(HoldPhase, _cells(kind, event), strict=True)
    if action is not None
}
"""(kind and phase of a hold, event) → (action, next phase). A missing entry is a fault of the program."""


@dataclass(slots=True, eq=False)
class Hold:
    """One hold. `since` is epoch seconds, `next_probe` monotonic seconds; None: it is never probed."""

    kind: Kind
    scope: Hashable
    code: str | None
    message: str
    since: float
    next_probe: float | None
    probes: int = 0
    phase: HoldPhase = HoldPhase.HELD
    eager: bool = False
    """Whether the last probe's record had been tried before, so that a new record may probe at once."""
    probe: Probe | None = None
    """The holds of the probe that is in flight for this hold. Tells its answer from that of another request."""


@dataclass(frozen=True, slots=True)
class StateReport:
    """A destination's state, or one of its holds, as shown to a person. `since` and `next_probe` are epoch seconds.

    `set_aside` is how many records are set aside because of this hold's cause.
    """

    state: DestinationState
    cause: Cause | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None
    set_aside: int | None = None


Probe = tuple[Hold, ...]
"""The holds that one request probes: all that kept its batch back, the whole destination's first."""


class Holds:
    """All holds of one destination, each with its own cause and next probe.

    `TABLE` says what may happen to a hold; this class keeps the times and messages. `backoff` gives the waits between
    probes.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.active: list[Hold] = []
        """All holds. If there are none, no batch is kept back."""
        self._intake: StateReport | None = None

    def get(self, kind: Kind | None = None, scope: Hashable = DESTINATION) -> Hold | None:
        """Return the hold of a kind and scope; without a kind, the worst hold of the scope."""
        found = (hold for hold in self.active if hold.scope == scope and kind in (None, hold.kind))
        return min(found, key=_badness, default=None)

    def blocking(self, group: Hashable) -> Probe:
        """Return the holds that keep a group's batches back: its own, and the whole destination's."""
        if not self.active:
            return ()
        scopes = (DESTINATION, group, endpoint_of(group))
        return tuple(hold for hold in sorted(self.active, key=_badness) if hold.scope in scopes)

    def begin(
        self,
        kind: Kind,
        code: str | None,
        message: str,
        *,
        now: float,
        wall: float,
        scope: Hashable = DESTINATION,
    ) -> None:
        """Hold a scope. A hold of the same kind is renewed; if its code changes, it counts as beginning now."""
        hold = self.get(kind, scope)
        step = TABLE[kind, HoldPhase.FREE if hold is None else hold.phase, HoldEvent.BEGUN]
        if step.action is Action.BEGIN:
            next_probe = None if kind is Kind.OPERATOR else now + self._backoff.probe(0)
            self.active.append(Hold(kind, scope, code, message, wall, next_probe))
        elif hold is not None:
            # The same trouble goes on. Another code is a different trouble, with a start of its own to show.
            hold.since = hold.since if hold.code == code else wall
            hold.code, hold.message = code, message

    def apply(
        self,
        event: HoldEvent,
        group: Hashable,
        probe: Probe,
        *,
        now: float,
        scope: Hashable = DESTINATION,
        message: str | None = None,
        wish: float | None = None,
    ) -> list[Hold]:
        """Apply an answer for a batch of `group` to every hold that concerns it, and return those that it ended.

        `probe` is what the batch probed. `scope` is what a DENIED answer is about, `wish` the wait that the vendor asks
        for (seconds).
        """
        ended = []
        for hold in self.blocking(group):
            what = event
            # Example: JPush denies one interface. That shows that the account itself is fine. If the request probed a
            # hold of the whole destination for denied access, that hold ends, and only the endpoint is held.
            if event is HoldEvent.DENIED and hold.scope != scope:
                what = HoldEvent.WIDER if scope == DESTINATION else HoldEvent.NARROWER
            # An answer to a request from before the hold, or from before its probe, is late: the probe is still in
            # flight.
            phase = HoldPhase.PROBING if hold.probe is probe else HoldPhase.HELD
            action = TABLE[hold.kind, phase, what].action
            if action is Action.END:
                # One answer may end several holds: any answer ends an outage, and an acceptance ends the others too.
                self.active.remove(hold)
                ended.append(hold)
            elif action is Action.LATER:
                if message is not None and hold.kind is Kind.OUTAGE:
                    hold.message = message
                self._probe_later(hold, now, wish)
        return ended

    def start_probe(self, group: Hashable, *, fresh: bool = False) -> Probe:
        """Note that a probe is sent, and return the holds that it probes; `fresh`: its record was never sent before."""
        probe = self.blocking(group)
        for hold in probe:
            hold.eager = not fresh
            hold.probe = probe
            hold.phase = TABLE[hold.kind, hold.phase, HoldEvent.PROBED].phase
        return probe

    def end_probe(self, probe: Probe, now: float) -> None:
        """Note that a probe is over. A hold that its answer neither ended nor postponed is probed again later."""
        for hold in probe:
            # Writing a dead letter can take a long time after the answer. The next probe may be in flight by then.
            if hold.probe is probe:
                self._probe_later(hold, now, None)

    def lasts(self, probe: Probe) -> bool:
        """Whether any of the probed holds still holds."""
        return any(hold in self.active for hold in probe)

    def probe_is_due(self, group: Hashable, now: float, *, fresh: bool = False) -> bool:
        """Whether a batch of this group is kept back and may be sent as a probe now; `fresh`: if it was never sent."""
        probe = self.blocking(group)
        due = _due(probe)
        return due is not None and (due <= now or (fresh and all(hold.eager for hold in probe)))

    def any_due(self, now: float) -> bool:
        """Whether any hold may be probed now, by a fresh record at least."""
        return any(
            hold.phase is HoldPhase.HELD and hold.next_probe is not None and (hold.eager or hold.next_probe <= now)
            for hold in self.active
        )

    def next_probe(self, now: float) -> float | None:
        """Return when a probe becomes due by time alone (monotonic seconds).

        A probe that is already due waits for a batch or a slot instead.
        """
        times = [_due(self.blocking(scope)) for scope in {hold.scope for hold in self.active}]
        return min((time for time in times if time is not None and time > now), default=None)

    def probe_now(self, now: float) -> bool:
        """Make the probes of all holds due; return whether any hold is probed at all."""
        probed = [hold for hold in self.active if hold.next_probe is not None]
        for hold in probed:
            hold.next_probe = now
        return bool(probed)

    def release(self, kind: Kind | None = None) -> list[Hold]:
        """End every hold, or every hold of a kind, for an operator, and return them."""
        released = [hold for hold in self.active if kind in (None, hold.kind)]
        self.active = [hold for hold in self.active if hold not in released]
        for hold in released:
            hold.phase = TABLE[hold.kind, hold.phase, HoldEvent.RELEASED].phase
        return released

    def set_intake(self, cause: Cause | None, message: str, wall: float) -> None:
        """Show that records wait before they can reach the destination; with `cause` None, that they no longer wait."""
        if cause is None:
            self._intake = None
        elif self._intake is None or (self._intake.cause, self._intake.message) != (cause, message):
            self._intake = StateReport(DestinationState.HELD, cause, None, message, wall)

    def shown(self, *, now: float, wall: float) -> list[StateReport]:
        """Return every hold in the form shown to a person, the worst first."""
        holds = [_shown(hold, now, wall) for hold in sorted(self.active, key=_badness)]
        return holds if self._intake is None else [*holds, self._intake]

    def _probe_later(self, hold: Hold, now: float, wish: float | None) -> None:
        hold.phase = HoldPhase.HELD
        hold.probe = None
        hold.probes += 1
        wait = self._backoff.probe(hold.probes)
        # Never sooner than the back-off: in an outage `Retry-After: 0` would mean probes without a pause.
        hold.next_probe = now + (wait if wish is None else max(wait, self._backoff.wait(1, wish)))


def _due(probe: Probe) -> float | None:
    """Return when all of these holds may be probed together; None if there is none, or one is never probed."""
    if any(hold.phase is HoldPhase.PROBING or hold.next_probe is None for hold in probe):
        return None
    # The latest of them: a batch that two holds keep back may be sent only when both may be probed.
    return max((hold.next_probe or 0.0 for hold in probe), default=None)


def _badness(hold: Hold) -> tuple[bool, int]:
    return hold.scope != DESTINATION, hold.kind.value


def _shown(hold: Hold, now: float, wall: float) -> StateReport:
    probing = hold.phase is HoldPhase.PROBING
    message = hold.message if hold.scope == DESTINATION else f"{hold.message} (only {hold.scope})"
    next_probe = None if hold.next_probe is None or probing else wall + max(0.0, hold.next_probe - now)
    state = DestinationState.PROBING if probing else DestinationState.HELD
    return StateReport(state, hold.kind.cause, hold.code, message, hold.since, next_probe)


SETTLED: Final = 5.0
"""Seconds that a state has to last to be logged, unless it is logged at once."""
AT_ONCE: Final = 6
"""At most this many changes are logged at once within `WINDOW` seconds; with more, a change has to last first."""
WINDOW: Final = 60.0

_HELD: Final = (DestinationState.HELD, DestinationState.PROBING)


class ConditionLog:
    """The last seen and the last logged state of one destination.

    The beginning of a hold, and its end in `flowing`, are logged at once. Any other change is logged once it has lasted
    `SETTLED` seconds, with the number of changes left out, so that a destination that is throttled ten times a second
    does not log ten lines a second. A probe counts as part of its hold.
    """

    def __init__(self, wall: float) -> None:
        self.seen = StateReport(DestinationState.FLOWING, since=wall)
        self._logged = self.seen
        self._changed_at = 0.0
        self._left_out = 0
        self._at_once: deque[float] = deque(maxlen=AT_ONCE)

    def see(self, condition: StateReport, now: float, wall: float) -> bool:
        """Note the current state; return whether it differs from the last one."""
        if condition.state is self.seen.state and _same(condition, self.seen):
            return False
        if not _same(condition, self.seen):
            self._left_out += not _same(self.seen, self._logged)
            self._changed_at = now
        self.seen = replace(condition, since=wall if condition.since is None else condition.since)
        return True

    def to_log(self, now: float) -> tuple[StateReport, StateReport, int] | None:
        """Return the last logged state, the current one, and how many changes in between were left out.

        None if there is nothing to log yet.
        """
        if _same(self.seen, self._logged) or not (self._urgent(now) or now - self._changed_at >= SETTLED):
            return None
        before, left_out = self._logged, self._left_out
        self._logged, self._left_out = self.seen, 0
        return before, self.seen, left_out

    def due(self, now: float) -> float | None:
        """Return in how many seconds a change will have lasted long enough; None if no change waits."""
        return None if _same(self.seen, self._logged) else max(0.0, self._changed_at + SETTLED - now)

    def _urgent(self, now: float) -> bool:
        ends = self._logged.state in _HELD and self.seen.state is DestinationState.FLOWING
        if not ends and self.seen.state not in _HELD:
            return False
        if len(self._at_once) == AT_ONCE and now - self._at_once[0] < WINDOW:
            return False
        self._at_once.append(now)
        return True


def _same(before: StateReport, after: StateReport) -> bool:
    return _name(before) == _name(after)


def _name(condition: StateReport) -> tuple[DestinationState, Cause | None, str | None]:
    state = DestinationState.HELD if condition.state in _HELD else condition.state
    return state, condition.cause, condition.code
