"""The holds of one destination: several at once, each with its own cause, since when, and next probe. Pure.

What may happen to a hold is the table in `states`; here are the times and the messages.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from connector.delivery.pacing import Backoff
from connector.delivery.states import TABLE, Action, Cause, DestinationState, Event, Kind, Phase
from connector.vendors.base import DESTINATION, endpoint_of


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
    phase: Phase = Phase.HELD
    eager: bool = False
    """Whether the last probe was a record that had been tried before, so that a new one need not wait."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A destination's state, or one hold of it, as a person sees it. `since` and `next_probe` are epoch seconds.

    `set_aside` is how many records wait apart for this hold's cause.
    """

    state: DestinationState
    cause: Cause | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None
    set_aside: int | None = None


Probe = tuple[Hold, ...]
"""What one request probes: every hold that kept its batch back, the whole destination's first."""


class Holds:
    """Everything that holds one destination. `backoff` gives the waits between probes."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._holds: list[Hold] = []
        self._intake: Condition | None = None

    def __bool__(self) -> bool:
        """Whether any batch may be kept back."""
        return bool(self._holds)

    def get(self, kind: Kind | None = None, scope: Hashable = DESTINATION) -> Hold | None:
        """Return the hold of a kind and scope; without a kind the worst one of the scope."""
        found = (hold for hold in self._holds if hold.scope == scope and kind in (None, hold.kind))
        return min(found, key=_badness, default=None)

    def blocking(self, group: Hashable) -> Probe:
        """Return the holds that keep a group's batches back: its own, and the whole destination's."""
        if not self._holds:
            return ()
        scopes = (DESTINATION, group, endpoint_of(group))
        return tuple(hold for hold in sorted(self._holds, key=_badness) if hold.scope in scopes)

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
        """Hold a scope; a hold of the same kind is renewed, and counts from now if its code is another."""
        hold = self.get(kind, scope)
        step = TABLE[kind, Phase.FREE if hold is None else hold.phase, Event.BEGUN]
        if step.action is Action.BEGIN:
            next_probe = None if kind is Kind.OPERATOR else now + self._backoff.probe(0)
            self._holds.append(Hold(kind, scope, code, message, wall, next_probe))
        elif hold is not None:
            hold.since = hold.since if hold.code == code else wall
            hold.code, hold.message = code, message

    def apply(
        self,
        event: Event,
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
        if not self._holds:
            return []
        ended = []
        for hold in self.blocking(group):
            what = event
            if event is Event.DENIED and hold.scope != scope:
                what = Event.WIDER if scope == DESTINATION else Event.NARROWER
            # An answer to a request from before the hold, or before its probe, is late: the probe is still under way.
            phase = Phase.PROBING if hold in probe and hold.phase is Phase.PROBING else Phase.HELD
            action = TABLE[hold.kind, phase, what].action
            if action is Action.END:
                self._holds.remove(hold)
                ended.append(hold)
            elif action is Action.LATER:
                if message is not None and hold.kind is Kind.OUTAGE:
                    hold.message = message
                self._probe_later(hold, now, wish)
        return ended

    def start_probe(self, group: Hashable, *, fresh: bool = False) -> Probe:
        """Note that a probe goes out, and return what it probes; `fresh`: its record was never sent before."""
        probe = self.blocking(group)
        for hold in probe:
            hold.eager = not fresh
            hold.phase = TABLE[hold.kind, hold.phase, Event.PROBED].phase
        return probe

    def end_probe(self, probe: Probe, now: float) -> None:
        """Note that a probe is over: a hold that its answer neither ended nor put off is probed again later."""
        for hold in probe:
            if hold.phase is Phase.PROBING:
                self._probe_later(hold, now, None)

    def lasts(self, probe: Probe) -> bool:
        """Whether any hold of a probe still holds."""
        return any(hold in self._holds for hold in probe)

    def probe_is_due(self, group: Hashable, now: float, *, fresh: bool = False) -> bool:
        """Whether a batch of this group is kept back, and may go out as a probe now; `fresh`: if it was never sent."""
        probe = self.blocking(group)
        due = _due(probe)
        return due is not None and (due <= now or (fresh and all(hold.eager for hold in probe)))

    def next_probe(self, now: float) -> float | None:
        """Return when a probe becomes due by time alone (monotonic seconds).

        One that is due already waits for a batch or a slot.
        """
        times = [_due(self.blocking(scope)) for scope in {hold.scope for hold in self._holds}]
        return min((time for time in times if time is not None and time > now), default=None)

    def probe_now(self, now: float) -> bool:
        """Make a probe of every hold due that is ever probed; return whether there is one."""
        probed = [hold for hold in self._holds if hold.next_probe is not None]
        for hold in probed:
            hold.next_probe = now
        return bool(probed)

    def release(self, kind: Kind | None = None) -> list[Hold]:
        """End every hold, or those of a kind, because a person says so, and return them."""
        released = [hold for hold in self._holds if kind in (None, hold.kind)]
        self._holds = [hold for hold in self._holds if hold not in released]
        for hold in released:
            hold.phase = TABLE[hold.kind, hold.phase, Event.RELEASED].phase
        return released

    def set_intake(self, cause: Cause | None, message: str, wall: float) -> None:
        """Show that records wait before they reach the destination; None: they no longer do."""
        if cause is None:
            self._intake = None
        elif self._intake is None or (self._intake.cause, self._intake.message) != (cause, message):
            self._intake = Condition(DestinationState.HELD, cause, None, message, wall)

    def shown(self, *, now: float, wall: float) -> list[Condition]:
        """Return every hold as a person sees it, the worst first."""
        holds = [_shown(hold, now, wall) for hold in sorted(self._holds, key=_badness)]
        return holds if self._intake is None else [*holds, self._intake]

    def _probe_later(self, hold: Hold, now: float, wish: float | None) -> None:
        hold.phase = Phase.HELD
        hold.probes += 1
        wait = self._backoff.probe(hold.probes)
        hold.next_probe = now + (wait if wish is None else max(wait, self._backoff.wait(1, wish)))


def _due(probe: Probe) -> float | None:
    """Return when all of these holds may be probed together; None where there is none, or one may not."""
    if any(hold.phase is Phase.PROBING or hold.next_probe is None for hold in probe):
        return None
    return max((hold.next_probe or 0.0 for hold in probe), default=None)


def _badness(hold: Hold) -> tuple[bool, int]:
    return hold.scope != DESTINATION, hold.kind.value


def _shown(hold: Hold, now: float, wall: float) -> Condition:
    probing = hold.phase is Phase.PROBING
    message = hold.message if hold.scope == DESTINATION else f"{hold.message} (only {hold.scope})"
    next_probe = None if hold.next_probe is None or probing else wall + max(0.0, hold.next_probe - now)
    state = DestinationState.PROBING if probing else DestinationState.HELD
    return Condition(state, hold.kind.cause, hold.code, message, hold.since, next_probe)
