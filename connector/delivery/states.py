"""The states of a destination, and what moves it from one to another: a table. Pure.

Theory of operation. A destination flows until something holds it. There are four kinds of hold. Each is a small
machine in each scope (the whole destination, or one group of it): it is FREE, HELD, or PROBING while one request tries
whether it can end. Several may hold at once; each has its own since, cause, message and next probe. A batch is sent
only when no hold of its scopes is left, and as a probe only when the probes of all of them are due. One answer is an
event for each of these holds: PROBING for the holds that it probed, HELD for those that began after it was sent
("late"). What a person sees is derived: the worst hold gives the state (order of `Kind`), then an unexpired throttle,
then batches that are being retried.

    kind       begins when                                            ends by
    ---------  -----------------------------------------------------  -----------------------------------------------
    OPERATOR   a person, or `hold: true`, holds it                    a release only; it is never probed
    DENIED     a credential, address or permission is wrong           a probe that is accepted, or judged in any way
    DOUBT      records are refused by a code that is not documented   a probe that is accepted, or refused by a
                                                                      documented code: the vendor does judge records
    OUTAGE     batches fail, and none is accepted between             any answer at all, also a late one

A probe carries one record, another one each time: a whole batch would be denied, or fail, for the sake of a single bad
record in it. A probe that does not end its hold puts the next one further off; but where it was a record that had been
tried before, the first new record may probe at once, because it did nothing to wait for. A release ends every hold.
A storm is shown as a hold too, the last one, but holds only its cause: see `pipeline.storms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Final, NamedTuple


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
        """The cause that a person sees."""
        return _CAUSES[self]


_CAUSES: Final = {
    Kind.OPERATOR: Cause.OPERATOR,
    Kind.DENIED: Cause.MISCONFIGURED,
    Kind.DOUBT: Cause.MISCONFIGURED,
    Kind.OUTAGE: Cause.OUTAGE,
}


class Phase(Enum):
    """Where one hold is in its life."""

    FREE = auto()
    HELD = auto()
    PROBING = auto()


class Event(Enum):
    """What can happen to a hold. The answers are those to a batch that the hold's scope includes."""

    BEGUN = auto()
    """What the hold is about was seen (again)."""
    PROBED = auto()
    """A probe goes out."""
    ENDED = auto()
    """A probe is over and no other event was made of it, for example because all its records had expired."""
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
    """The probe ended nothing: the next one comes later."""
    END = auto()


class Step(NamedTuple):
    """One row of the table: what is done, and the phase after it."""

    action: Action
    phase: Phase


_NEXT: Final = {
    Action.BEGIN: Phase.HELD,
    Action.PROBE: Phase.PROBING,
    Action.LATER: Phase.HELD,
    Action.END: Phase.FREE,
}
_Cells = tuple[Action | None, Action | None, Action | None]
"""The actions when FREE, HELD and PROBING; None where the event cannot happen."""

_KEEP, _LATER, _END = Action.KEEP, Action.LATER, Action.END
_LASTS: Final[_Cells] = (_KEEP, _KEEP, _LATER)
_PROBE_ENDS: Final[_Cells] = (_KEEP, _KEEP, _END)
_ANY_ENDS: Final[_Cells] = (_KEEP, _END, _END)
_UNTOUCHED: Final[_Cells] = (_KEEP, _KEEP, None)

_ALL_KINDS: Final[Mapping[Event, _Cells]] = {
    # event              FREE          HELD          PROBING
    Event.BEGUN: (Action.BEGIN, Action.RENEW, Action.RENEW),
    Event.PROBED: (None, Action.PROBE, None),
    Event.ENDED: (None, None, _LATER),
    Event.RELEASED: (_KEEP, _END, _END),
}
_BY_KIND: Final[Mapping[Event, tuple[_Cells, _Cells, _Cells]]] = {
    # event            DENIED       DOUBT        OUTAGE
    Event.ACCEPTED: (_PROBE_ENDS, _PROBE_ENDS, _ANY_ENDS),
    Event.JUDGED: (_PROBE_ENDS, _PROBE_ENDS, _ANY_ENDS),
    Event.BAFFLING: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    Event.TOO_LARGE: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    Event.THROTTLED: (_LASTS, _LASTS, _LASTS),
    Event.FAILED: (_LASTS, _LASTS, _LASTS),
    Event.DENIED: (_LASTS, _LASTS, _ANY_ENDS),
    Event.NARROWER: (_PROBE_ENDS, _LASTS, _ANY_ENDS),
    Event.WIDER: (_LASTS, _LASTS, _ANY_ENDS),
}
_PROBED_KINDS: Final = (Kind.DENIED, Kind.DOUBT, Kind.OUTAGE)


def _cells(kind: Kind, event: Event) -> _Cells:
    if event in _ALL_KINDS:
        free, held, probing = _ALL_KINDS[event]
        if kind is Kind.OPERATOR:
            # It is never probed, so nothing of a probe can happen to it.
            return free, None if event is Event.PROBED else held, None
        return free, held, probing
    return _UNTOUCHED if kind is Kind.OPERATOR else _BY_KIND[event][_PROBED_KINDS.index(kind)]


TABLE: Final[Mapping[tuple[Kind, Phase, Event], Step]] = {
    (kind, phase, event): Step(action, _NEXT.get(action, phase))
    for kind in Kind
    for event in Event
    for phase, action in zip(Phase, _cells(kind, event), strict=True)
    if action is not None
}
"""(kind and phase of a hold, event) → (action, next phase). A row that is missing is a fault of the program."""
