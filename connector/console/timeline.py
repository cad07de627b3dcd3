"""The timeline of the last 24 hours: the events of members and the console, each once, as sentences. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from connector.console.formatting import moment
from connector.console.members import seconds
from connector.errors import counted

DAY: Final = 24 * 3600.0
MOST: Final = 5000
"""Maximum events kept; the oldest are dropped."""
_NAME: Final = 250
_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """An event. `at` is epoch seconds; `fields` are those of the log event `name`."""

    id: str
    at: float
    member: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Happening:
    """An event as a sentence; `kind` is bad, warn, good or calm."""

    at: float
    member: str
    kind: str
    title: str
    detail: str

    @property
    def day(self) -> str:
        """The date in UTC."""
        return moment(self.at, "%Y-%m-%d")


class Chronicle:
    """The events of a day from several overlapping sources, each event once."""

    def __init__(self) -> None:
        self._events: dict[str, TimelineEvent] = {}

    def add(self, events: Iterable[TimelineEvent], now: float) -> None:
        """Add events, and drop those that are more than a day old or too many."""
        for event in events:
            self._events.setdefault(event.id, event)
        if self._events and (len(self._events) > MOST or min(each.at for each in self._events.values()) < now - DAY):
            kept = sorted((each for each in self._events.values() if each.at >= now - DAY), key=_when)[-MOST:]
            self._events = {event.id: event for event in kept}

    def happenings(self) -> list[Happening]:
        """Return the events as sentences, newest first."""
        return [as_happening(event) for event in sorted(self._events.values(), key=_when, reverse=True)]


def _when(event: TimelineEvent) -> tuple[float, str]:
    return event.at, event.id


def read_events(value: Any) -> list[TimelineEvent]:
    """Return the events in a decoded answer of /events, or in records of the topic; anything else is left out."""
    listed = value.get("events") if isinstance(value, Mapping) else value
    found = (read_event(each) for each in (listed if isinstance(listed, list) else [])[-MOST:])
    return [event for event in found if event is not None]


def read_event(value: Any) -> TimelineEvent | None:
    """Return one event, its texts bounded; None if it has no id, time or name."""
    if not isinstance(value, Mapping):
        return None
    identity, at, name = value.get("id"), seconds(value.get("at")), value.get("event")
    if not isinstance(identity, str) or at is None or not isinstance(name, str):
        return None
    fields = {str(key)[:_NAME]: _bounded(child) for key, child in list(value.items())[:_ITEMS]}
    return TimelineEvent(identity[:_NAME], at, str(value.get("member", ""))[:_NAME], name[:_NAME], fields)


_ITEMS: Final = 50


def _bounded(value: Any) -> Any:
    if isinstance(value, list):
        return [str(child)[:_NAME] for child in value[:_ITEMS]]
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:_TEXT]


def as_happening(event: TimelineEvent) -> Happening:
    """Return an event as a sentence. An event unknown to this version is shown by its name."""
    teller = _TELLERS.get(event.name)
    try:
        kind, title, detail = teller(event.fields) if teller else ("calm", event.name, "")
    except (KeyError, TypeError, ValueError, OverflowError):
        # Another version may have written other fields.
        kind, title, detail = "calm", event.name, ""
    return Happening(event.at, event.member, kind, title, detail)


Fields = Mapping[str, Any]
Told = tuple[str, str, str]


def _state(given: Fields) -> Told:
    name, state, cause = given["destination"], given["state"], given.get("cause")
    message = str(given.get("message") or "")
    if state in ("held", "probing"):
        code = f" {given['code']}" if given.get("code") else ""
        return "bad", f"{name} is held: {cause or 'unknown'}{code}", message
    if state == "flowing":
        was = given.get("was")
        return "good", f"{name} delivers again", f"It was {was} before." if was else ""
    return "warn", f"{name} is {state}", message


def _scope(given: Fields) -> str:
    return str(given.get("destination") or f"topic {given.get('topic', '?')}")


def _storm_began(given: Fields) -> Told:
    letters = given.get("dead_letters")
    number = "" if not isinstance(letters, int) else f"{counted(letters, 'dead letter')} before it. "
    title = f"Storm in {_scope(given)}: {given['cause']} {given.get('code') or ''}".rstrip()
    return "bad", title, f"{number}{given.get('message') or ''}".strip()


def _storm_ended(given: Fields) -> Told:
    detail = f"{counted(int(given.get('records') or 0), 'record')} set aside are sent again."
    return "good", f"Storm in {_scope(given)} is over", detail


def _storm_released(given: Fields) -> Told:
    detail = f"{counted(int(given['records']), 'record')} set aside are sent again; those refused become dead letters."
    return "warn", f"Storm in {_scope(given)} released", detail


def _partitions(kind: str, verb: str) -> Callable[[Fields], Told]:
    def tell(given: Fields) -> Told:
        names = given.get("partitions") or []
        named = ", ".join(map(str, names)) if isinstance(names, list) else str(names)
        number = counted(len(names), "partition") if isinstance(names, list) else "partitions"
        return kind, f"Rebalance: {number} {verb}", named

    return tell


def _action(given: Fields) -> Told:
    what = str(given.get("action", "action"))
    who = f"by {given['who']}" if given.get("who") else ""
    done = given.get("done")
    number = f" {counted(done, 'dead letter')}" if isinstance(done, int) else ""
    place = str(given.get("destination") or "")
    return "calm", f"Console: {what}{number} {place}".strip(), who


def _sentence(kind: str, title: str, *details: str) -> Callable[[Fields], Told]:
    def tell(given: Fields) -> Told:
        found = [given.get(name) for name in details]
        texts = [", ".join(map(str, each)) if isinstance(each, list) else str(each) for each in found if each]
        return kind, title, "; ".join(texts)

    return tell


def _skipped(given: Fields) -> Told:
    place = f"{given.get('topic')}[{given.get('partition')}]@{given.get('offset')}"
    return "warn", f"Skip of {place}: {given.get('state', '')}".rstrip(": "), str(given.get("message") or "")


def _replayed(given: Fields) -> Told:
    return "calm", f"{counted(int(given['records']), 'replayed record')} read", ""


def _reloaded(given: Fields) -> Told:
    parts = [
        f"{word}: {', '.join(map(str, given[key]))}"
        for key, word in (("applied", "applied"), ("left", "left until a restart"))
        if isinstance(given.get(key), list) and given[key]
    ]
    return "calm", "Configuration read again", "; ".join(parts) or "nothing had changed"


_TELLERS: Final[Mapping[str, Callable[[Fields], Told]]] = {
    "connector.started": _sentence("calm", "Member started", "version"),
    "connector.stopping": _sentence("calm", "Member stops", "signal"),
    "config.reloaded": _reloaded,
    "config.reload_failed": _sentence("bad", "Configuration not read again: it is faulty", "message"),
    "destination.state": _state,
    "storm.began": _storm_began,
    "storm.ended": _storm_ended,
    "storm.released": _storm_released,
    "storm.partition_full": _sentence("warn", "Intake of a partition pauses: too much is set aside", "topic"),
    "partitions.assigned": _partitions("calm", "assigned"),
    "partitions.revoked": _partitions("calm", "given up"),
    "partitions.lost": _partitions("bad", "lost"),
    "member.without_partitions": _sentence("warn", "Member without partitions", "reason"),
    "member.stuck": _sentence("bad", "Member is stuck", "reason"),
    "member.moving": _sentence("good", "Member moves again"),
    "drain.missed": _sentence("warn", "A drain ran out of time: some deliveries are repeated"),
    "kafka.trouble": _sentence("bad", "Trouble with Kafka", "topic", "message"),
    "kafka.recovered": _sentence("good", "Kafka works again", "topic"),
    "registry.waiting": _sentence("bad", "The schema registry does not answer", "message"),
    "registry.recovered": _sentence("good", "The schema registry answers again"),
    "record.skip_by_operator": _skipped,
    "replay.read": _replayed,
    "console.action_ended": _action,
    "console.member_action_ended": _action,
}
