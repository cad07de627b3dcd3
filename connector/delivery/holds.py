"""The states of a destination, and what moves it from one to another. Pure.

Theory of operation. A destination flows until something holds it. A hold has a cause and a scope (the destination, or
one group of it) and ends by itself when a probe is answered in a way that disproves its cause; only a hold by the
operator waits for the operator. Causes that end by themselves probe with one batch at a time, another one each time, at
growing intervals.

    event                         flowing/throttled/retrying     held                            probing
    ----------------------------  -----------------------------  ------------------------------  -------------------
    a batch is accepted           flowing                        (a late answer) released        released → flowing
    a batch is refused            flowing                        –                               released, but a storm
    throttled                     throttled until then           –                               held, later probe
    failed, others are accepted   retrying                       –                               held, later probe
    failed `OUTAGE_AFTER` times   held: outage                   –                               held, later probe
    misconfigured                 held: misconfigured            cause and message are renewed   held, later probe
    storm                         held: storm                    –                               held, later probe
    operator holds / releases     held: operator / –             held: operator / released       as held
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from connector.delivery.retry import Backoff
from connector.vendors.base import DESTINATION

OUTAGE_AFTER: Final = 5
"""Failures in a row, no batch accepted between them, after which a destination is held as an outage."""


class State(StrEnum):
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


@dataclass(slots=True)
class Hold:
    """One hold: why, since when (epoch seconds), and the next probe (monotonic seconds; None: never by itself).

    `single`: probes carry one record, because it is the records that are in doubt.
    """

    cause: Cause
    code: str | None
    message: str
    since: float
    next_probe: float | None
    single: bool = False
    probes: int = 0
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A destination's state as a person sees it. `since` and `next_probe` are epoch seconds."""

    state: State
    cause: Cause | None = None
    code: str | None = None
    message: str | None = None
    since: float | None = None
    next_probe: float | None = None


class Holds:
    """The holds of one destination, by scope."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._holds: dict[Hashable, Hold] = {}
        self.failures = 0

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._holds)

    def get(self, scope: Hashable = DESTINATION) -> Hold | None:
        """Return the hold of a scope."""
        return self._holds.get(scope)

    def blocking(self, group: Hashable) -> Hold | None:
        """Return the hold that keeps a group's batches back: its own, or the whole destination's."""
        return self._holds.get(DESTINATION) or self._holds.get(group)

    def hold(
        self,
        cause: Cause,
        code: str | None,
        message: str,
        *,
        now: float,
        wall: float,
        scope: Hashable = DESTINATION,
        single: bool = False,
    ) -> bool:
        """Hold a scope, or renew its hold's cause after a probe that failed. Return whether this is news.

        The operator's hold stays the operator's.
        """
        held = self._holds.get(scope)
        if held is None:
            wait = None if cause is Cause.OPERATOR else now + self._backoff.probe(0)
            self._holds[scope] = Hold(cause, code, message, wall, wait, single)
            return True
        if held.cause is Cause.OPERATOR:
            held.probing = False
            return False
        news = (held.cause, held.code) != (cause, code)
        if news:
            held.since = wall
        held.cause, held.code, held.message, held.single = cause, code, message, single
        if cause is Cause.OPERATOR:
            held.next_probe, held.probing = None, False
        elif held.probing:
            self._probe_failed(held, now, None)
        return news

    def probe_failed(self, scope: Hashable, now: float, message: str | None = None, wish: float | None = None) -> None:
        """Note a probe that told nothing new; the next one comes later."""
        held = self._holds.get(scope)
        if held is None:
            return
        if message is not None and held.cause is Cause.OUTAGE:
            held.message = message
        if held.probing:
            self._probe_failed(held, now, wish)

    def probe_due(self, group: Hashable, now: float) -> Hold | None:
        """Return the hold for which a batch of this group may go out as a probe now."""
        held = self.blocking(group)
        if held is None or held.probing or held.next_probe is None or held.next_probe > now:
            return None
        return held

    def probe_started(self, group: Hashable) -> Hold | None:
        """Note that a probe is on its way, and return the hold that it tries."""
        held = self.blocking(group)
        if held is not None:
            held.probing = True
        return held

    def probe_ended(self, held: Hold, now: float) -> None:
        """Note that a probe is over; where its answer neither ended nor renewed the hold, the next comes later."""
        if held.probing:
            self._probe_failed(held, now, None)

    def release(self, scope: Hashable) -> Hold | None:
        """End a scope's hold and return it."""
        return self._holds.pop(scope, None)

    def next_probe(self, now: float) -> float | None:
        """Return when a probe becomes due by time alone (monotonic seconds).

        One that is due already waits for a batch or a slot, and a group's while the whole destination is held.
        """
        whole = self._holds.get(DESTINATION)
        holds = self._holds.values() if whole is None else [whole]
        times = [held.next_probe for held in holds if held.next_probe is not None and not held.probing]
        return min((time for time in times if time > now), default=None)

    def scopes(self) -> list[Hashable]:
        """Return what is held."""
        return list(self._holds)

    def condition(self, *, now: float, wall: float, throttled_until: float, retrying: str | None) -> Condition:
        """Return the state to show: the destination's own hold before a group's, a hold before anything else."""
        scope = DESTINATION if DESTINATION in self._holds else next(iter(self._holds), None)
        if scope is not None:
            held = self._holds[scope]
            message = held.message if scope == DESTINATION else f"{held.message} (only {scope})"
            probe = None if held.next_probe is None or held.probing else wall + max(0.0, held.next_probe - now)
            state = State.PROBING if held.probing else State.HELD
            return Condition(state, held.cause, held.code, message, held.since, probe)
        if throttled_until > now:
            return Condition(
                State.THROTTLED, message="the vendor asked to wait", next_probe=wall + throttled_until - now
            )
        if retrying is not None:
            return Condition(State.RETRYING, message=retrying)
        return Condition(State.FLOWING)

    def _probe_failed(self, held: Hold, now: float, wish: float | None) -> None:
        held.probing = False
        held.probes += 1
        wait = self._backoff.probe(held.probes)
        held.next_probe = now + (wait if wish is None else max(wait, self._backoff.wait(1, wish)))
