"""Decides where events go: by `routes`, by the envelope's target, or by the contract schema. Pure.

    a route without destinations matches?    yes → dropped, whatever other routes say
      no, a route matches                    → every matching route's destinations, each once, first route first
      no, an envelope                        → its target: a destination's name, or a vendor's with one destination
      no, a vendor's contract schema         → that vendor's only destination
      no                                     → `unrouted`: a dead letter, a skip, or the end of the run

Decisions that depend only on topic and schema are made once and cached. `docs/routing.md` states the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from typing import Any, Final, NamedTuple
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from connector.config.loader import Settings
from connector.dead_letters.headers import ParsedDeadLetter
from connector.errors import ConfigurationError, FatalError, Refusal
from connector.recent import Recent
from connector.records import Event, LogicalValue, Position, Record, uuid5_text
from connector.routing.compiler import ENVELOPE, CompiledRoute, Leg, compile_routes, is_contract
from connector.routing.conversions import Unfit, exact
from connector.vendors.base import ShapeMapping, VendorEvent, VendorKind

UNROUTED: Final = "unrouted"
SAMPLED: Final = "sample"

Plan = Callable[[Event, Record, str], "list[Routed]"]

_IDS: Final = (str, int, UUID)
_SCHEMAS: Final = 1000
"""For how many pairs of topic and schema the plan is cached."""


class Skipped(list["Routed"]):
    """No delivery, by the user's rules. `reason` is `UNROUTED`, `SAMPLED`, or the route that drops it: `routes[0]`."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Routed(Struct, frozen=True, gc=False):
    """A delivery to make: the event in the vendor's fields, or why it cannot be delivered there.

    The dedup id is made from `identity`, also for a refused event. `route` is the index in `routes`; None if the
    envelope's target or the contract schema decided. `first_dedup_id` is set for a replayed record: the dedup id it
    always had.
    """

    destination: str
    event: VendorEvent | Refusal
    identity: str
    route: int | None = None
    first_dedup_id: str | None = None


class Straight(NamedTuple):
    """The one destination of a schema's plain events, and the mapping if the schema is not the vendor's own."""

    destination: str
    mapping: ShapeMapping | None = None


def why_skipped(reason: str) -> str:
    """Return in words why an event goes nowhere."""
    if reason == UNROUTED:
        return "no route matches (unrouted: skip)"
    return "it is not in the route's sample" if reason == SAMPLED else f"{reason} drops it (to: [])"


def position_identity(cluster_id: str, position: Position | Record) -> str:
    """Return the identity of a record whose event has no id of its own: its position, which never changes."""
    return f"{cluster_id}/{position.topic}/{position.partition}/{position.offset}"


def event_identity(event_id: str) -> str:
    """Return the identity by the event's own id. It equals no position's identity: a cluster id has no colon."""
    return f"id:{event_id}"


@dataclass(slots=True)
class RouteTable:
    """All routes, compiled. `route` is called for every record, and caches its plan for each topic and schema."""

    routes: tuple[CompiledRoute, ...]
    destinations: Mapping[str, VendorKind]
    unrouted: str
    _plans: Recent[tuple[str, str], Plan] = field(default_factory=lambda: Recent(_SCHEMAS))
    _only: Recent[tuple[str, str], tuple[str | None]] = field(default_factory=lambda: Recent(_SCHEMAS))
    _straight: Recent[tuple[str, str], tuple[Straight | None]] = field(default_factory=lambda: Recent(_SCHEMAS))

    @classmethod
    def compile(
        cls, settings: Settings, kinds: Mapping[str, VendorKind], schemas: Mapping[str, Any] | None = None
    ) -> RouteTable:
        """Return the table for a configuration.

        `schemas` are the writers' schemas known at start (parsed JSON by full name); paths of routes that name one
        are checked against it. Raises `ConfigurationError` with every fault of `routes` at once.
        """
        vendors = {name: destination.vendor for name, destination in settings.destinations.items()}
        destinations = {name: kinds[vendor] for name, vendor in vendors.items() if vendor in kinds}
        routes, faults = compile_routes(settings, destinations, schemas)
        if faults:
            raise ConfigurationError(faults)
        return cls(routes, destinations, settings.unrouted)

    @property
    def drop_reasons(self) -> list[str]:
        """The `Skipped` reasons of the routes that drop what they match."""
        return [f"routes[{route.index}]" for route in self.routes if route.drops]

    def become(self, other: RouteTable) -> None:
        """Take over another table's routes, for everything that refers to this one."""
        # In place, because intake refers to this object: a reload changes it between two records.
        self.routes, self.destinations, self.unrouted = other.routes, other.destinations, other.unrouted
        self._plans.clear()
        self._only.clear()
        self._straight.clear()

    def route(self, event: Event, record: Record, cluster_id: str) -> list[Routed]:
        """Return the deliveries to make for one event; an empty list is a skip by the rules (`Skipped`).

        A fault that concerns one destination (its mapping, its id) is the `Refusal` of that entry only. Raises
        `Refusal` with cause `route` if no destination can be determined, or `FatalError` under `unrouted: stop`.
        """
        return self.plan(record.topic, event.schema)(event, record, cluster_id)

    def plan(self, topic: str, schema: str) -> Plan:
        """Return the function that routes a schema's events in a topic like `route`; for callers with many of them."""
        plan = self._plans.get((topic, schema))
        if plan is None:
            plan = self._plan(topic, schema)
            self._plans.put((topic, schema), plan)
        return plan

    def only_destination(self, topic: str, schema: str) -> str | None:
        """Return where every event of a schema in a topic goes unchanged; None if a route or a target decides."""
        known = self._only.get((topic, schema))
        if known is None:
            names = self._by_schema(schema)
            plain = schema != ENVELOPE and len(names) == 1 and not self._matching(topic, schema)
            known = (names[0] if plain else None,)
            self._only.put((topic, schema), known)
        return known[0]

    def straight(self, topic: str, schema: str) -> Straight | None:
        """Return where a schema's events in a topic go, if compiled code can decide that; else None."""
        known = self._straight.get((topic, schema))
        if known is None:
            destination, matching = self.only_destination(topic, schema), self._matching(topic, schema)
            if destination is not None:
                known = (Straight(destination),)
            else:
                known = (_straight(matching[0], schema) if len(matching) == 1 else None,)
            self._straight.put((topic, schema), known)
        return known[0]

    def reaches(self, topic: str) -> frozenset[str]:
        """Return every destination that some record of the topic may go to, whatever its schema."""
        matching = [route for route in self.routes if route.topics is None or route.topics.matches(topic)]
        if any(route.schema is None and route.always for route in matching):
            return frozenset(leg.destination for route in matching for leg in route.legs)
        return frozenset(self.destinations)

    def may_reach(self, destination: str, topic: str, schema: str) -> bool:
        """Whether some event of the schema in the topic may go to the destination.

        False lets a run for this destination alone skip such records without decoding them.
        """
        matching = self._matching(topic, schema)
        if any(leg.destination == destination for route in matching for leg in route.legs):
            return True
        if any(route.always for route in matching):
            return False
        return schema == ENVELOPE or destination in self._by_schema(schema)

    def _matching(self, topic: str, schema: str) -> tuple[CompiledRoute, ...]:
        return tuple(route for route in self.routes if route.is_for(topic, schema))

    def _by_schema(self, schema: str) -> list[str]:
        return [name for name, kind in self.destinations.items() if kind.schema == schema]

    def _plan(self, topic: str, schema: str) -> Plan:
        """Return the plan for a schema's events in a topic: its routes, and what to do if none matches."""
        otherwise = self._without_route(schema)
        matching = self._matching(topic, schema)
        dropping = tuple(route for route in matching if route.drops)
        routes = tuple(route for route in matching if not route.drops)
        if not matching:
            return otherwise
        # There are routes for this schema and topic, so the message says which condition kept the event out.
        if otherwise == self._unrouted and routes:
            otherwise = self._unmet(routes)

        def by_route(event: Event, record: Record, cluster_id: str) -> list[Routed]:
            # First, because `to: []` is a rule to keep events back, and no other route may send them.
            for route in dropping:
                if route.matches(event, record) and _in_sample(route, event, record, cluster_id):
                    return Skipped(f"routes[{route.index}]")
            # Example: two routes match, with to: [a, b] and to: [b, c]. Then a and b get the record by the first
            # route, and c by the second.
            routed: list[Routed] = []
            matched = False
            for route in routes:
                if route.matches(event, record):
                    matched = True
                    if route.sample is None or _in_sample(route, event, record, cluster_id):
                        _follow(route, event, record, cluster_id, routed)
            if matched:
                return routed or Skipped(SAMPLED)
            return otherwise(event, record, cluster_id)

        return by_route

    def _without_route(self, schema: str) -> Plan:
        if schema == ENVELOPE:
            return self._by_target
        names = self._by_schema(schema)
        if not names:
            return self._unrouted
        if len(names) > 1:
            return _ambiguous(schema, names)
        destination = names[0]

        def to_only_destination(event: Event, record: Record, cluster_id: str) -> list[Routed]:
            identity = position_identity(cluster_id, record)
            return [Routed(destination, VendorEvent(event.datum, identity, record.timestamp), identity)]

        return to_only_destination

    def _by_target(self, event: Event, record: Record, cluster_id: str) -> list[Routed]:
        destination = self._target(event.datum["target"])
        identity = _envelope_identity(event.datum, record, cluster_id)
        body = event.datum["body"]
        kind = self.destinations[destination]
        if _body_schema(body) == kind.schema:
            return [Routed(destination, VendorEvent(body[1], identity, record.timestamp), identity)]
        return [Routed(destination, _mismatch(destination, kind.schema, body), identity)]

    def _target(self, target: str) -> str:
        if target in self.destinations:
            return target
        # A producer may know only the vendor. That is enough if the vendor has one destination.
        names = [name for name, kind in self.destinations.items() if kind.name == target]
        if len(names) == 1:
            return names[0]
        if names:
            message = f"target is vendor {target}, which has {len(names)} destinations; name one: {', '.join(names)}"
            raise Refusal("route", "route.ambiguous", message, field="target")
        known = ", ".join(self.destinations)
        message = (
            f"the target is neither a destination nor a vendor with exactly one destination; destinations: {known}"
        )
        raise Refusal("route", "route.unknown_target", message, field="target")

    def _unrouted(self, event: Event, record: Record, cluster_id: str) -> list[Routed]:
        what = f"no route matches schema {event.schema} in topic {record.topic}"
        return self._without_match(record, "route.unrouted", what, None)

    def _unmet(self, routes: tuple[CompiledRoute, ...]) -> Plan:
        """Return what to do with an event of a routed schema if no route's conditions match."""

        def refuse(event: Event, record: Record, _cluster_id: str) -> list[Routed]:
            unmet = {route.index: route.unmet(event, record) or "" for route in routes}
            which = ", ".join(f"routes[{index}].where.{text}" for index, text in unmet.items())
            what = (
                f"schema {event.schema} in topic {record.topic} has routes, but their conditions do not match: {which}"
            )
            return self._without_match(record, "route.unmet", what, f"where.{next(iter(unmet.values()))}")

        return refuse

    def _without_match(self, record: Record, code: str, what: str, field: str | None) -> list[Routed]:
        if self.unrouted == "skip":
            return Skipped(UNROUTED)
        if self.unrouted == "stop":
            raise FatalError(
                f"{what} (partition {record.partition}, offset {record.offset}); "
                "add a route for it, or set unrouted to dead_letter or skip"
            )
        advice = "add a route for it, or to: [] to drop it, or set unrouted: skip"
        raise Refusal("route", code, f"{what}; {advice}", field=field)


def reroute(
    routes: RouteTable, event: Event, first: Record, dead_letter: ParsedDeadLetter, cluster_id: str
) -> list[Routed]:
    """Return the deliveries of a replayed event, whose record first came as `first`; each keeps its dedup id.

    A dead letter of one destination goes only there. One that was never routed goes where routes lead today, perhaps
    nowhere (`Skipped`). Raises `Refusal` with cause `route`, even under `unrouted: stop`, because an old record must
    not end a run.
    """
    try:
        routed = routes.route(event, first, cluster_id)
    except FatalError as error:
        raise Refusal("route", "route.unrouted", str(error)) from None
    wanted = dead_letter.destination
    # A rule drops it today, so it is skipped. "No route" is a refusal here, because it had a destination before.
    if isinstance(routed, Skipped) and (wanted is None or routed.reason != UNROUTED):
        return routed
    if wanted is not None:
        routed = [delivery for delivery in routed if delivery.destination == wanted]
        if not routed:
            if wanted not in routes.destinations:
                raise Refusal("route", "route.destination", f"destination {wanted} is no longer configured")
            raise Refusal("route", "route.unrouted", f"no route sends such an event to {wanted} today")
    return [_kept(delivery, dead_letter.dedup_id) for delivery in routed]


def _kept(routed: Routed, dedup_id: str) -> Routed:
    if not isinstance(routed.event, Refusal):
        routed = replace(routed, event=replace(routed.event, first_dedup_id=dedup_id))
    return replace(routed, first_dedup_id=dedup_id)


def _straight(route: CompiledRoute, schema: str) -> Straight | None:
    """Return a route's plan for a schema's plain events, if it maps plain paths for one destination."""
    conditions = [condition.plain for condition in route.conditions if condition.plain is not None]
    if route.entity or route.sample is not None or len(route.legs) != 1 or len(conditions) < len(route.conditions):
        return None
    leg = route.legs[0]
    if leg.schema == schema and route.identity is None and not conditions:
        # As in `_delivered`: without a schema in the route, its mapping is for other schemas.
        return Straight(leg.destination) if leg.mapping is None or route.schema is None else None
    plain = None if leg.mapping is None or is_contract(schema) else leg.mapping.plain()
    identity = None if route.identity is None else route.identity.names
    if plain is None or (route.identity is not None and identity is None):
        return None
    return Straight(leg.destination, replace_fields(plain, identity=identity, conditions=tuple(conditions)))


def _in_sample(route: CompiledRoute, event: Event, record: Record, cluster_id: str) -> bool:
    """Whether the event is in the route's sample: by its dedup id, so that the result is the same after a restart."""
    if route.sample is None:
        return True
    try:
        identity = _route_identity(route, event, record, cluster_id)
    except Refusal:
        identity = position_identity(cluster_id, record)
    # The first 32 bits of the id as a number: equal for every attempt, and spread evenly.
    return int(uuid5_text(identity)[:8], 16) < route.sample * 2**32


def _follow(route: CompiledRoute, event: Event, record: Record, cluster_id: str, routed: list[Routed]) -> None:
    """Add the route's deliveries to `routed`, except to destinations that an earlier route already sends it to."""
    taken = {earlier.destination for earlier in routed} if routed else ()
    fault: Refusal | None = None
    try:
        identity = _route_identity(route, event, record, cluster_id)
    except Refusal as refusal:
        fault, identity = refusal, position_identity(cluster_id, record)
    routed += [
        Routed(leg.destination, fault or _delivered(leg, route, event, record, identity), identity, route.index)
        for leg in route.legs
        if leg.destination not in taken
    ]


def _delivered(leg: Leg, route: CompiledRoute, event: Event, record: Record, identity: str) -> VendorEvent | Refusal:
    """Return the event for one destination: unchanged if it already has the vendor's schema, else mapped."""
    fields: Mapping[str, Any] | None = None
    if leg.mapping is None or route.schema is None:
        if event.schema == leg.schema:
            fields = event.datum
        elif event.schema == ENVELOPE and _body_schema(event.datum["body"]) == leg.schema:
            fields = event.datum["body"][1]
    if fields is None:
        if leg.mapping is None:
            return _unmapped(leg, event)
        try:
            fields = leg.mapping.apply(event, record)
        except Refusal as refusal:
            return refusal
    return VendorEvent(fields, identity, record.timestamp, route.entity)


def _route_identity(route: CompiledRoute, event: Event, record: Record, cluster_id: str) -> str:
    """Return the identity, by the route's `id`, else the envelope's id, else the position."""
    if route.identity is None:
        if event.schema == ENVELOPE:
            return _envelope_identity(event.datum, record, cluster_id)
        return position_identity(cluster_id, record)
    try:
        value = route.identity.get(event, record)
    except Unfit as unfit:
        raise _bad_id(route.identity.text, unfit.rule, unfit.why) from None
    # As text, so that a UUID is the same id whether the producer writes it as a string or as 16 bytes.
    if type(value) is LogicalValue and value.type.name == "uuid":
        value = exact(value)
    # Without an id two events must not become one, so the position is used.
    if value is None or value == "":
        return position_identity(cluster_id, record)
    if not isinstance(value, _IDS) or isinstance(value, bool):
        raise _bad_id(route.identity.text, "type", "an event's id is text, a whole number or a UUID")
    return event_identity(str(value))


def _envelope_identity(datum: Mapping[str, Any], record: Record, cluster_id: str) -> str:
    event_id = datum["id"]
    return event_identity(event_id) if event_id else position_identity(cluster_id, record)


def _bad_id(source: str, rule: str, why: str) -> Refusal:
    return Refusal("route", f"route.id.{rule}", f"id from {source}: {why}", field=source)


def _body_schema(body: Any) -> str | None:
    return body[0] if type(body) is tuple else None


def _unmapped(leg: Leg, event: Event) -> Refusal:
    if event.schema == ENVELOPE:
        return _mismatch(leg.destination, leg.schema, event.datum["body"])
    message = (
        f"schema {event.schema} is not {leg.schema}, and the route maps no fields for destination {leg.destination}"
    )
    return Refusal("route", "route.unmapped", message)


def _mismatch(destination: str, schema: str, body: Any) -> Refusal:
    message = f"body is {_body_schema(body) or 'no record'}, and destination {destination} takes {schema}"
    return Refusal("route", "route.body_mismatch", message, field="body")


def _ambiguous(schema: str, names: list[str]) -> Plan:
    message = f"schema {schema} has {len(names)} destinations ({', '.join(names)}), and no route chooses one"

    def refuse(_event: Event, _record: Record, _cluster_id: str) -> list[Routed]:
        raise Refusal("route", "route.ambiguous", message)

    return refuse
