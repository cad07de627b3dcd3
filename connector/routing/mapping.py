"""A route's `fields` for one vendor, compiled once: foreign event in, the vendor's own fields out. Pure.

Each field of the vendor gets one of: a dotted path, `$key`, `$timestamp`, `$header.NAME`, `{const: value}`, or
`{path: source, unit: ms}` where a plain number is a time. What a value becomes is stated in `docs/routing.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from connector.config.errors import kind, suggest
from connector.errors import Fault, Refusal
from connector.records import Record
from connector.routing.conversions import Converter, Unfit, Unit, converter
from connector.routing.sources import Getter, compile_source, path_fault
from connector.vendors.base import FieldKind

_UNITS: Final = ("ms", "s")
_TIMES: Final = ("millis", "seconds")
_NEVER_TEXT: Final = ("map", "strings", "string_map", "records")
_ALLOWED: Final = "a dotted path, $key, $timestamp, $header.NAME, {const: VALUE} or {path: PATH, unit: ms or s}"


class _Step(NamedTuple):
    field: str
    text: str
    get: Getter
    convert: Converter


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """A compiled mapping. Its result has every field the vendor knows; null where nothing is mapped or found."""

    template: Mapping[str, Any]
    steps: tuple[_Step, ...]

    def apply(self, datum: Mapping[str, Any], record: Record) -> dict[str, Any]:
        """Return the vendor's fields for one event.

        Raises `Refusal` with cause `invalid` and code `mapping.FIELD.RULE`, the rule being `type`, `bytes`, `utf8`,
        `nan`, `decimal` or `local_time`. A required field that is null is for the vendor's own rule to refuse.
        """
        fields = dict(self.template)
        for field, text, get, convert in self.steps:
            try:
                fields[field] = convert(get(datum, record))
            except Unfit as unfit:
                message = f"{field} from {text}: {unfit.why}"
                raise Refusal("invalid", f"mapping.{field}.{unfit.rule}", message, field=field) from None
        return fields


def compile_mapping(
    fields: Mapping[str, Any], wanted: Mapping[str, FieldKind], path: str, schema: Any = None
) -> tuple[FieldMapping, list[Fault]]:
    """Return a route's mapping for one vendor, and every fault in it; with a fault the mapping is not to be used.

    `wanted` is the vendor's `VendorKind.fields`, `path` where the mapping stands in the file. With a `schema` (the
    writer's, as parsed JSON) every dotted path is checked against it; without, a path that is not there gives null.
    """
    faults: list[Fault] = []
    template: dict[str, Any] = dict.fromkeys(wanted)
    steps: list[_Step] = []
    for name, entry in fields.items():
        where = f"{path}.{name}"
        if name not in wanted:
            faults.append(Fault(where, f"the vendor has no such field; {suggest(name, wanted)}"))
            continue
        try:
            step = _compile_field(name, entry, wanted[name], schema)
        except ValueError as fault:
            faults.append(Fault(where, str(fault)))
            continue
        if isinstance(step, _Constant):
            template[name] = step.value
        else:
            steps.append(step)
    missing = [name for name, field in wanted.items() if field.required and name not in fields]
    faults += [Fault(f"{path}.{name}", "the vendor requires this field: map it") for name in missing]
    return FieldMapping(template, tuple(steps)), faults


class _Constant(NamedTuple):
    value: Any


def _compile_field(name: str, entry: Any, wanted: FieldKind, schema: Any) -> _Step | _Constant:
    """Return one field's compiled entry; raise `ValueError` with what is wrong and what is allowed."""
    unit: Unit | None = None
    text = entry
    if isinstance(entry, dict):
        if set(entry) == {"const"}:
            return _constant(entry["const"], wanted)
        if "path" not in entry or not set(entry) <= {"path", "unit"}:
            raise ValueError(f"keys {', '.join(map(str, entry)) or 'none'} are not understood; write {_ALLOWED}")
        text, unit = entry["path"], _unit(entry, wanted)
    if not isinstance(text, str):
        raise ValueError(f"{kind(text)} is no source; write {_ALLOWED}")
    source = compile_source(text)
    if source.is_text and wanted.type in _NEVER_TEXT:
        raise ValueError(f"{text} is a text and the field wants a {wanted.type}; map a field of the event")
    if source.is_time:
        if unit is not None:
            raise ValueError("$timestamp needs no unit: it is known to be milliseconds")
        if wanted.type in (*_NEVER_TEXT, "boolean"):
            raise ValueError(f"$timestamp is a time and the field wants a {wanted.type}; map a field of the event")
        unit = "ms"
    if source.path is not None and schema is not None:
        fault = path_fault(source.path, schema)
        if fault is not None:
            raise ValueError(fault)
    return _Step(name, text, source.get, converter(wanted.type, unit))


def _unit(entry: Mapping[str, Any], wanted: FieldKind) -> Unit | None:
    if "unit" not in entry:
        return None
    if wanted.type not in _TIMES:
        raise ValueError(f"a unit belongs to a time, and the field wants a {wanted.type}; leave the unit out")
    unit = entry["unit"]
    if unit not in _UNITS:
        raise ValueError("unit is ms or s")
    return "ms" if unit == "ms" else "s"


def _constant(value: Any, wanted: FieldKind) -> _Constant:
    if value is None:
        raise ValueError("a constant null says nothing; leave the field out")
    try:
        return _Constant(converter(wanted.type, None)(value))
    except Unfit as unfit:
        raise ValueError(f"the constant does not fit a {wanted.type}: {unfit.why}") from None
