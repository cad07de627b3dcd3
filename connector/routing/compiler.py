"""The `routes` of a configuration, compiled; every fault at once, each with its path. Pure.

`config.load` has checked by then what needs no vendor: names of destinations and vendors, topics and patterns. Here is
checked what needs to know fields: sources, conditions, mappings, and paths into schemas that are known at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from connector.config.errors import suggest
from connector.config.loader import RouteSettings, Settings
from connector.errors import ConfigFault
from connector.records import Event, Record
from connector.routing.mapping import (
    Condition,
    FieldMapping,
    Source,
    TopicPattern,
    compile_condition,
    compile_mapping,
    compile_source,
    path_fault,
)
from connector.vendors.base import VendorKind

ENVELOPE: Final = "connector.events.Event"
_NAMESPACE: Final = "connector.events."


class Leg(NamedTuple):
    """One destination of a route: the contract schema it takes as it is, and the mapping for everything else."""

    destination: str
    schema: str
    mapping: FieldMapping | None


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """One entry of `routes`; `index` is its place there. Unset `topics` and `schema` match all."""

    index: int
    topics: TopicPattern | None
    schema: str | None
    conditions: tuple[Condition, ...]
    legs: tuple[Leg, ...]
    identity: Source | None
    entity: bool

    def is_for(self, topic: str, schema: str) -> bool:
        """Whether the route is for events of the schema in the topic, apart from its `where`."""
        return (self.schema is None or self.schema == schema) and (self.topics is None or self.topics.matches(topic))

    def matches(self, event: Event, record: Record) -> bool:
        """Whether every entry of `where` matches."""
        return all(condition(event, record) for condition in self.conditions)


def compile_routes(
    settings: Settings, destinations: Mapping[str, VendorKind], schemas: Mapping[str, Any]
) -> tuple[tuple[CompiledRoute, ...], list[ConfigFault]]:
    """Return the compiled routes and every fault in them; with a fault the routes are not to be used."""
    compiler = _Compiler(destinations, schemas)
    routes = tuple(compiler.route(index, route) for index, route in enumerate(settings.routes))
    return routes, compiler.faults


def passed_on(settings: Settings, kinds: Mapping[str, VendorKind]) -> frozenset[tuple[str, str]]:
    """Return the fields, as (schema, name), that their vendors take as written JSON and that no route looks into."""
    looked_into = {part for route in settings.routes for text in _sources(route) for part in text.split(".")}
    used = [kinds[one.vendor] for one in settings.destinations.values() if one.vendor in kinds]
    return frozenset(
        (kind.schema, name)
        for kind in used
        for name in kind.as_json - looked_into
        if all(name in other.as_json for other in used if other.schema == kind.schema)
    )


def reads_keys(settings: Settings) -> bool:
    """Tell whether a route reads the records' keys, so that those which name a schema have to be decoded."""
    return any(text.startswith("$key") for route in settings.routes for text in _sources(route))


def _sources(route: RouteSettings) -> list[str]:
    """Return the texts of every source in a route, as they stand in the configuration."""
    entries = [entry for fields in route.fields.values() for entry in fields.values()]
    texts = [entry.get("path") if isinstance(entry, dict) else entry for entry in entries]
    return [text for text in (route.id, *route.where, *texts) if isinstance(text, str)]


class _Compiler:
    """Compiles route by route and collects what is wrong, so that one start reports every fault."""

    def __init__(self, destinations: Mapping[str, VendorKind], schemas: Mapping[str, Any]) -> None:
        self.destinations = destinations
        self.schemas = schemas
        self.faults: list[ConfigFault] = []

    def route(self, index: int, route: RouteSettings) -> CompiledRoute:
        """Return one compiled route; what is wrong with it goes to `faults`."""
        path = f"routes[{index}]"
        schema = self.schemas.get(route.schema_name) if route.schema_name else None
        self._check_schema_name(path, route)
        return CompiledRoute(
            index=index,
            topics=self._topics(path, route),
            schema=route.schema_name,
            conditions=self._conditions(path, route, schema),
            legs=self._legs(path, route, self._mappings(path, route, schema)),
            identity=self._source(f"{path}.id", route.id, schema) if route.id is not None else None,
            entity=route.entity,
        )

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(ConfigFault(path, message))

    def _check_schema_name(self, path: str, route: RouteSettings) -> None:
        name = route.schema_name
        known = {ENVELOPE, *(kind.schema for kind in self.destinations.values())}
        if name and name.startswith(_NAMESPACE) and name not in known:
            self._fault(f"{path}.schema", f"no destination takes this contract schema; {suggest(name, known)}")

    def _topics(self, path: str, route: RouteSettings) -> TopicPattern | None:
        if route.topics is None:
            return None
        if not route.topics:
            self._fault(f"{path}.topics", "an empty list matches no topic; name topics, or leave it out to match all")
        return TopicPattern(route.topics)

    def _source(self, path: str, text: str, schema: Any) -> Source | None:
        try:
            source = compile_source(text)
        except ValueError as fault:
            self._fault(path, str(fault))
            return None
        wrong = path_fault(source.path, schema) if source.path is not None and schema is not None else None
        if wrong is not None:
            self._fault(path, wrong)
        return source

    def _conditions(self, path: str, route: RouteSettings, schema: Any) -> tuple[Condition, ...]:
        conditions: list[Condition] = []
        for text, wanted in route.where.items():
            where = f"{path}.where.{text}"
            source = self._source(where, text, schema)
            if source is None:
                continue
            try:
                conditions.append(compile_condition(source, wanted))
            except ValueError as fault:
                self._fault(where, str(fault))
        return tuple(conditions)

    def _mappings(self, path: str, route: RouteSettings, schema: Any) -> dict[str, FieldMapping]:
        """Return the route's mappings by vendor."""
        kinds = {kind.name: kind for kind in (self.destinations[name] for name in route.to)}
        mappings: dict[str, FieldMapping] = {}
        for vendor, fields in route.fields.items():
            mappings[vendor], faults = compile_mapping(fields, kinds[vendor].fields, f"{path}.fields.{vendor}", schema)
            self.faults += faults
        return mappings

    def _legs(self, path: str, route: RouteSettings, mappings: Mapping[str, FieldMapping]) -> tuple[Leg, ...]:
        legs = tuple(
            Leg(name, self.destinations[name].schema, mappings.get(self.destinations[name].name)) for name in route.to
        )
        unmapped = {leg.schema: leg for leg in legs if leg.mapping is None}
        for leg in unmapped.values():
            if route.schema_name not in (None, ENVELOPE, leg.schema):
                vendor = self.destinations[leg.destination].name
                message = (
                    f"destination {leg.destination} takes {leg.schema}; map the fields of {route.schema_name} to it"
                )
                self._fault(f"{path}.fields.{vendor}", message)
        return legs
