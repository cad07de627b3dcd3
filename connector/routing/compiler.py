"""The `routes` of a configuration, compiled; every fault at once, each with its path. Pure.

`config.load` has already checked what needs no vendor: names of destinations and vendors, topics and patterns, and the
form of each source. This module checks what needs the fields: sources, conditions, mappings, and their types as far as
schemas are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from connector.config.errors import suggest
from connector.config.loader import RouteSettings, Settings
from connector.config.routes import CEL
from connector.errors import ConfigFault, Refusal
from connector.records import Event, Record
from connector.routing.conditions import CompiledCondition, TopicPattern, compile_condition
from connector.routing.conversions import Unfit
from connector.routing.expression_tokens import names_in, reads_whole_event
from connector.routing.expression_types import no_condition
from connector.routing.expressions import Expressions
from connector.routing.mapping import FieldMapping, compile_mapping
from connector.routing.paths import SchemaTree
from connector.routing.sources import SourceCompiler, Value, texts_of
from connector.vendors.base import VendorKind

ENVELOPE: Final = "connector.events.Event"
_NAMESPACE: Final = "connector.events."


def is_contract(schema: str) -> bool:
    """Whether a full name is one of the connector's own schemas."""
    return schema.startswith(_NAMESPACE)


class Leg(NamedTuple):
    """One destination of a route: the contract schema that it accepts unchanged, and the mapping for other schemas."""

    destination: str
    schema: str
    mapping: FieldMapping | None


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """One entry of `routes`; `index` is its place there. Unset `topics` and `schema` match all.

    A route without `legs` drops what it matches. `sample` is the share that it takes, None for all.
    """

    index: int
    topics: TopicPattern | None
    schema: str | None
    conditions: tuple[CompiledCondition, ...]
    legs: tuple[Leg, ...]
    identity: Value | None
    entity: bool
    sample: float | None = None

    @property
    def drops(self) -> bool:
        """Whether what matches goes nowhere."""
        return not self.legs

    @property
    def always(self) -> bool:
        """Whether the route takes every event of its topics and schema, without conditions or a sample."""
        return not self.conditions and (self.sample is None or not self.drops)

    def is_for(self, topic: str, schema: str) -> bool:
        """Whether the route is for events of the schema in the topic, apart from its `where`."""
        return (self.schema is None or self.schema == schema) and (self.topics is None or self.topics.matches(topic))

    def matches(self, event: Event, record: Record) -> bool:
        """Whether every entry of `where` matches. Raises `Refusal` if that cannot be determined."""
        return self.unmet(event, record) is None

    def unmet(self, event: Event, record: Record) -> str | None:
        """Return the first entry of `where` that does not match; None if all match. Raises as `matches` does."""
        for text, met, _ in self.conditions:
            try:
                if not met(event, record):
                    return text
            except Unfit as unfit:
                message = f"routes[{self.index}].where.{text}: {unfit.why}"
                raise Refusal("route", f"route.where.{unfit.rule}", message, field=f"where.{text}") from None
        return None


def compile_routes(
    settings: Settings, destinations: Mapping[str, VendorKind], schemas: Mapping[str, Any] | None
) -> tuple[tuple[CompiledRoute, ...], list[ConfigFault]]:
    """Return the compiled routes and every fault in them; with a fault the routes are not to be used.

    `schemas` are the known schemas by full name; None if none were looked up.
    """
    compiler = _Compiler(destinations, schemas or {})
    if schemas is not None and settings.schema_registry is None:
        compiler.faults += [fault for fault, _ in unknown_schemas(settings, schemas)]
    routes = tuple(compiler.route(index, route) for index, route in enumerate(settings.routes))
    return routes, compiler.faults


def unknown_schemas(settings: Settings, schemas: Mapping[str, Any]) -> Iterator[tuple[ConfigFault, str]]:
    """Yield the fault and the schema of each route whose schema is unknown."""
    for index, route in enumerate(settings.routes):
        name = route.schema_name
        if name and name not in schemas and not is_contract(name):
            known = [each for each in schemas if not is_contract(each)] or schemas
            yield ConfigFault(f"routes[{index}].schema", f"no known schema is {name}; {suggest(name, known)}"), name


def passed_on(settings: Settings, kinds: Mapping[str, VendorKind]) -> frozenset[tuple[str, str]]:
    """Return the fields, as (schema, name), that vendors accept as JSON text and that no route looks into."""
    looked_into: set[str] = set()
    for text, is_expression in _sources(settings.routes):
        # The route reads the whole event, and so every map, so none may stay as JSON.
        if text == "." or (is_expression and reads_whole_event(text)):
            return frozenset()
        looked_into |= names_in(text) if is_expression else {part.partition("[")[0] for part in text.split(".")}
    used = [kinds[each.vendor] for each in settings.destinations.values() if each.vendor in kinds]
    return frozenset(
        (kind.schema, name)
        for kind in used
        for name in kind.as_json - looked_into
        # Two vendors may accept the same schema. A field stays JSON only if both can use the text.
        if all(name in other.as_json for other in used if other.schema == kind.schema)
    )


def reads_keys(settings: Settings) -> bool:
    """Return whether a route reads the records' keys, so that keys that name a schema have to be decoded."""
    return any(
        "key" in names_in(text) if is_expression else text.startswith("$key")
        for text, is_expression in _sources(settings.routes)
    )


def _sources(routes: Iterable[RouteSettings]) -> Iterator[tuple[str, bool]]:
    """Yield every path and every expression of the routes, and whether it is an expression."""
    for route in routes:
        if route.id is not None:
            yield route.id, False
        for text, wanted in route.where.items():
            if text == CEL and isinstance(wanted, str):
                yield wanted, True
            else:
                yield text, False
        for fields in route.fields.values():
            for source in fields.values():
                yield from texts_of(source)


class _Compiler:
    """Compiles route by route and collects all faults, so that one start reports every fault."""

    def __init__(self, destinations: Mapping[str, VendorKind], schemas: Mapping[str, Any]) -> None:
        self.destinations = destinations
        self.schemas = schemas
        self.expressions = Expressions()
        self.faults: list[ConfigFault] = []

    def route(self, index: int, route: RouteSettings) -> CompiledRoute:
        """Return one compiled route; add its faults to `faults`."""
        path = f"routes[{index}]"
        self._check_schema_name(path, route)
        tree = self._tree(route.schema_name)
        sources = SourceCompiler(self.expressions, self.faults, tree)
        return CompiledRoute(
            index=index,
            topics=self._topics(path, route),
            schema=route.schema_name,
            conditions=tuple(self._conditions(path, route, sources)),
            legs=self._legs(path, route, self._mappings(path, route, sources)),
            identity=None if route.id is None else self._try(f"{path}.id", sources.identity, route.id),
            entity=route.entity,
            sample=route.sample,
        )

    def _tree(self, schema: str | None) -> SchemaTree | None:
        found = self.schemas.get(schema) if schema is not None else None
        return None if found is None else SchemaTree(found)

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(ConfigFault(path, message))

    def _try(self, path: str, compile_one: Callable[..., Any], *arguments: Any) -> Any:
        """Return the call's result; if it raises, add the fault to `faults`."""
        try:
            return compile_one(*arguments)
        except ValueError as fault:
            self._fault(path, str(fault))
            return None

    def _check_schema_name(self, path: str, route: RouteSettings) -> None:
        name = route.schema_name
        known = {ENVELOPE, *(kind.schema for kind in self.destinations.values())}
        if name and is_contract(name) and name not in known:
            self._fault(f"{path}.schema", f"no destination takes this contract schema; {suggest(name, known)}")

    def _topics(self, path: str, route: RouteSettings) -> TopicPattern | None:
        if route.topics is None:
            return None
        if not route.topics:
            self._fault(f"{path}.topics", "an empty list matches no topic; name topics, or leave it out to match all")
        return TopicPattern(route.topics)

    def _conditions(self, path: str, route: RouteSettings, sources: SourceCompiler) -> Iterator[CompiledCondition]:
        for text, wanted in route.where.items():
            where = f"{path}.where.{text}"
            if text == CEL and isinstance(wanted, str):
                condition = self._try(where, self._expression, wanted, sources.schema)
                if condition is not None:
                    yield condition
                continue
            value = self._try(where, sources.path, text)
            condition = None if value is None else self._try(where, compile_condition, value, wanted)
            if condition is not None:
                yield condition

    def _expression(self, text: str, schema: SchemaTree | None) -> CompiledCondition:
        """Return the condition `cel`. Raises `ValueError` for a wrong expression, and for one that is no condition."""
        evaluate = self.expressions.compile(text, schema)
        if (reason := no_condition(text, schema)) is not None:
            raise ValueError(reason)
        return CompiledCondition(CEL, _truth(evaluate))

    def _mappings(self, path: str, route: RouteSettings, sources: SourceCompiler) -> dict[str, FieldMapping]:
        """Return the route's mappings by vendor."""
        kinds = {
            kind.name: kind for kind in (self.destinations[name] for name in route.to if name in self.destinations)
        }
        return {
            vendor: compile_mapping(
                fields, kinds[vendor].fields, f"{path}.fields.{vendor}", sources, self._tree(kinds[vendor].schema)
            )
            for vendor, fields in route.fields.items()
            if vendor in kinds
        }

    def _legs(self, path: str, route: RouteSettings, mappings: Mapping[str, FieldMapping]) -> tuple[Leg, ...]:
        known = {name: self.destinations[name] for name in route.to if name in self.destinations}
        legs = tuple(Leg(name, kind.schema, mappings.get(kind.name)) for name, kind in known.items())
        unmapped = {leg.schema: leg for leg in legs if leg.mapping is None}
        for leg in unmapped.values():
            if route.schema_name not in (None, ENVELOPE, leg.schema):
                vendor = self.destinations[leg.destination].name
                message = (
                    f"destination {leg.destination} takes {leg.schema}; map the fields of {route.schema_name} to it"
                )
                self._fault(f"{path}.fields.{vendor}", message)
        return legs


def _truth(evaluate: Callable[[Event, Record], Any]) -> Callable[[Event, Record], bool]:
    def met(event: Event, record: Record) -> bool:
        found = evaluate(event, record)
        if not isinstance(found, bool):
            raise Unfit("type", "the expression must give true or false")
        return found

    return met
