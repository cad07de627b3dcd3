"""The mapping of a route's `fields` for one vendor: each field's source, converted to the field's type. Pure.

`docs/routing.md` states what each value becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from connector.config.errors import suggest
from connector.config.routes import PathSource, Source
from connector.errors import ConfigFault, Refusal
from connector.records import Event, Record
from connector.routing.conversions import Converter, Unfit, Unit, converter, to_string
from connector.routing.paths import SchemaTree
from connector.routing.schema_types import WANTED, never_equal, unfit
from connector.routing.sources import Getter, SourceCompiler, Value, json_text
from connector.vendors.base import FieldKind, ShapeMapping, ShapeSource

_TIMES: Final = ("millis", "seconds")
_NEVER_TEXT: Final = ("map", "strings", "string_map", "records", "string_records")


class _Step(NamedTuple):
    field: str
    text: str
    get: Getter
    convert: Converter
    plain: ShapeSource | None


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A compiled mapping. Its result has every field of the vendor; null if nothing is mapped or found."""

    template: Mapping[str, Any]
    steps: tuple[_Step, ...]

    def plain(self) -> ShapeMapping | None:
        """Return the mapping for compiled code; None if a source is more than a path of names or a constant."""
        sources = [step.plain for step in self.steps if step.plain is not None]
        if len(sources) < len(self.steps):
            return None
        return ShapeMapping(tuple(sources), tuple(item for item in self.template.items() if item[1] is not None))

    def apply(self, event: Event, record: Record) -> dict[str, Any]:
        """Return the vendor's fields for one event.

        Raises `Refusal` with cause `invalid` and code `mapping.FIELD.RULE`, the rule being `type`, `bytes`, `utf8`,
        `key`, `nan`, `decimal`, `range`, `local_time`, `cel` or `size`. The vendor's own rule refuses a required field
        that is null.
        """
        # It has every field of the vendor, so that the vendor's code need not check which fields are present.
        fields = dict(self.template)
        for field, text, get, convert, _ in self.steps:
            try:
                fields[field] = convert(get(event, record))
            except Unfit as unfit:
                message = f"{field} from {text}: {unfit.why}"
                raise Refusal("invalid", f"mapping.{field}.{unfit.rule}", message, field=field) from None
        return fields


def compile_mapping(
    fields: Mapping[str, Source],
    wanted: Mapping[str, FieldKind],
    path: str,
    sources: SourceCompiler,
    contract: SchemaTree | None = None,
) -> FieldMapping:
    """Return a route's mapping for one vendor. If `sources.faults` has a fault, it must not be used.

    `wanted` is the vendor's `VendorKind.fields`, `path` the place of the mapping in the file, and `contract` the
    vendor's contract schema, in which a field may be an enum.
    """
    template: dict[str, Any] = dict.fromkeys(wanted)
    steps: list[_Step] = []
    for name, source in fields.items():
        where = f"{path}.{name}"
        if name not in wanted:
            sources.faults.append(ConfigFault(where, f"the vendor has no such field; {suggest(name, wanted)}"))
            continue
        value = sources.compile(source, where)
        if value is None:
            continue
        try:
            _check(value, wanted[name])
            _check_default(source, wanted[name], value.unit)
            if value.constant:
                template[name] = _constant(value, name, wanted[name], contract)
            else:
                steps.append(_step(name, value, wanted[name].type))
        except ValueError as fault:
            sources.faults.append(ConfigFault(where, str(fault)))
    sources.faults += [
        ConfigFault(f"{path}.{name}", "the vendor requires this field: map it")
        for name, field in wanted.items()
        if field.required and name not in fields
    ]
    return FieldMapping(template, tuple(steps))


def _step(name: str, value: Value, wanted: str) -> _Step:
    plain = None if value.names is None else ShapeSource(name, value.names, wanted, value.unit)
    return _Step(name, value.text, value.get, converter(wanted, value.unit), plain)


def _check(value: Value, wanted: FieldKind) -> None:
    """Raise `ValueError` for a source that can never become the field."""
    if value.is_text and wanted.type in _NEVER_TEXT:
        raise ValueError(f"{value.text} is text, and the field wants {WANTED[wanted.type]}; map a field of the event")
    if value.is_time and wanted.type in (*_NEVER_TEXT, "boolean"):
        raise ValueError(f"$timestamp is a time, and the field wants {WANTED[wanted.type]}; map a field of the event")
    if value.unit is not None and not value.is_time and wanted.type not in _TIMES:
        raise ValueError(f"a unit belongs to a time, and the field wants {WANTED[wanted.type]}; leave the unit out")
    reason = None if value.constant else unfit(value.nodes, wanted.type)
    if reason is not None:
        raise ValueError(f"{value.text} can never be this field: {reason}")


def _check_default(source: Source, wanted: FieldKind, unit: Unit | None) -> None:
    """Raise `ValueError` for a default that the field cannot have; a default that is hashed becomes text."""
    if not isinstance(source, PathSource) or source.default is None or source.hash is not None:
        return
    try:
        converter(wanted.type, unit)(source.default if source.case is None else to_string(source.default))
    except Unfit as fault:
        raise ValueError(f"the default cannot be {WANTED[wanted.type]}: {fault.why}") from None


def _constant(value: Value, name: str, wanted: FieldKind, contract: SchemaTree | None) -> Any:
    """Return a converted constant. Raises `ValueError` for one that the field cannot have."""
    constant = value.get(_NO_EVENT, _NO_RECORD)
    try:
        converted = converter(wanted.type, None)(constant)
        # Converted only for its refusal: a constant that JSON cannot represent would refuse every event.
        json_text(converted)
    except Unfit as fault:
        raise ValueError(f"the constant cannot be {WANTED[wanted.type]}: {fault.why}") from None
    if wanted.values and converted is not None and converted not in wanted.values:
        raise ValueError(f"the constant must be one of {', '.join(wanted.values)}; it is {constant!r}")
    if contract is not None and isinstance(converted, str):
        try:
            reason = never_equal(contract.follow((name,)).nodes, converted)
        except ValueError:
            return converted  # a field that the contract schema does not have
        if reason is not None:
            raise ValueError(reason)
    return converted


_NO_EVENT: Final = Event("", {})
_NO_RECORD: Final = Record("", 0, 0, -1, None, None, ())
