"""The settings described from their models: a JSON schema of the file, and the reference table of all keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from connector.config.models import DestinationSettings, Settings

Schema = dict[str, Any]

_VERBATIM: Final = ("default", "discriminator")
_NAMED: Final = ("properties", "$defs")
"""JSON Schema keywords whose keys are names."""

REFERENCE_PATTERN: Final = r"\$\{"
_QUOTED_PATTERN: Final = rf"{REFERENCE_PATTERN}|^[0-9]+$"
"""Also accepts a whole number as text: in quotes it passes Helm, which rounds numbers above 2^53."""
"""Text with a reference may stand for any kind of value, because it is resolved before validation."""


def duration_text(seconds: float) -> str:
    """Return seconds as a person writes them: 200ms, 20s, 1h."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds) // length}{unit}"
    return f"{seconds:.12g}s" if seconds >= 1 else f"{seconds * 1000:.12g}ms"


def size_text(count: int) -> str:
    """Return bytes as a person writes them: 1MiB, 10kB."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("kB", 1000)):
        if count >= length and count % length == 0:
            return f"{count // length}{unit}"
    return f"{count}B"


def json_schema(kinds: Mapping[str, type[DestinationSettings]]) -> Schema:
    """Return the JSON schema (2020-12) of the file, with a destination's keys by its vendor.

    As `load` does, it accepts `${…}` for every scalar, and numbers for ids that are strings. Rules between keys
    (limits, topics, routes) are checked by `load` only.
    """
    schema = _plain_schema(kinds)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_lenient(schema)}


def _plain_schema(kinds: Mapping[str, type[DestinationSettings]]) -> Schema:
    """Return the models' schema, with a destination as one of the vendors' models."""
    models: list[type[Any]] = [Settings, *kinds.values()]
    references, definitions = models_json_schema([(model, "validation") for model in models])
    defs: dict[str, Schema] = definitions["$defs"]
    schema = dict(defs.pop("Settings"))
    destination = {
        "oneOf": [references[(model, "validation")] for model in kinds.values()],
        "discriminator": {"propertyName": "vendor"},
    }
    known = {"type": "object", "minProperties": 1, "additionalProperties": destination}
    described = schema["properties"]["destinations"]["description"]
    schema["properties"] = {**schema["properties"], "destinations": {**known, "description": described}}
    defs.pop("DestinationSettings", None)
    return {**schema, "$defs": defs}


def _lenient(schema: Any) -> Any:
    """Return the schema with references taken for scalars, and without our own notes (`x-kind`)."""
    if isinstance(schema, list):
        return [_lenient(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _lenient(child) for key, child in schema.items() if key not in {"x-kind", *_VERBATIM, *_NAMED}}
    kept |= {key: schema[key] for key in _VERBATIM if key in schema}
    kept |= {key: {name: _lenient(child) for name, child in schema[key].items()} for key in _NAMED if key in schema}
    kind = kept.get("type")
    if kind == "string" and not {"enum", "const", "pattern"} & kept.keys():
        kept["type"] = ["string", "integer"]
        if kept.get("minLength", 0) <= 1 and "maxLength" not in kept:
            return kept  # else a short reference to a long secret would be refused
    elif (
        kind not in ("integer", "number", "boolean")
        and "enum" not in kept
        and not (kind == "string" and "pattern" in kept)
    ):
        return kept
    notes = {key: kept.pop(key) for key in ("title", "description", "default") if key in kept}
    pattern = _QUOTED_PATTERN if kind == "integer" else REFERENCE_PATTERN
    return {**notes, "anyOf": [kept, {"type": "string", "pattern": pattern}]}


def reference(kinds: Mapping[str, type[DestinationSettings]]) -> str:
    """Return the tables of all keys as Markdown: the file's, every destination's, and each vendor's own."""
    schema = _plain_schema(kinds)
    defs = schema["$defs"]
    parts: list[str] = []
    for name, prop in schema["properties"].items():
        if name != "destinations":
            parts += [f"### `{name}`\n", _table(_rows(name, prop, defs, required=name in schema["required"]))]
            continue
        common = set(DestinationSettings.model_fields)
        vendors = {vendor: defs[model.__name__] for vendor, model in kinds.items()}
        shared = dict(next(iter(vendors.values())))
        shared["properties"] = {
            key: value for key, value in shared["properties"].items() if key in common - {"vendor", "base_url"}
        }
        parts += ["### `destinations.NAME`, for every vendor\n"]
        names = " or ".join(f"`{vendor}`" for vendor in kinds)
        parts += [_table([("vendor", "The vendor's name.", names, "required"), *_keys("", shared, defs)])]
        for vendor, definition in vendors.items():
            own = {key: value for key, value in definition["properties"].items() if key not in common - {"base_url"}}
            parts += [
                f"### `destinations.NAME`, vendor `{vendor}`\n",
                _table(_keys("", {**definition, "properties": own}, defs)),
                f"{_limits(kinds[vendor])}\n",
            ]
    return "\n".join(parts)


Row = tuple[str, str, str, str]


def _limits(model: type[DestinationSettings]) -> str:
    """Return a sentence with the limits that may be exceeded only with `agreed_limits`."""
    documented = model.documented
    rate = documented.requests_per_second
    per_second = f"{rate:g} requests/s" if rate is not None else "no limit of requests/s"
    return f"Limits: {documented.records} records, {size_text(documented.bytes)} a request, {per_second}."


def _table(rows: list[Row] | Iterator[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| key | meaning | value | default |", "|---|---|---|---|"]
    lines += [f"| `{key}` | {meaning} | {value} | {default} |" for key, meaning, value, default in rows]
    return "\n".join(lines).replace(" |  |", " | |") + "\n"


def _keys(path: str, schema: Schema, defs: Mapping[str, Schema]) -> Iterator[Row]:
    """Yield the rows of all keys of a mapping."""
    for name, prop in schema["properties"].items():
        yield from _rows(f"{path}.{name}" if path else name, prop, defs, required=name in schema.get("required", ()))


def _rows(path: str, prop: Schema, defs: Mapping[str, Schema], *, required: bool) -> Iterator[Row]:
    """Yield the row of a key, or the rows of the keys below it if it is a mapping."""
    members = [prop, *prop.get("anyOf", ()), *([prop["items"]] if isinstance(prop.get("items"), dict) else ())]
    nested = [defs[each["$ref"].rpartition("/")[2]] for each in members if "$ref" in each]
    alternatives = [each for each in prop.get("anyOf", ()) if "$ref" not in each and each.get("type") != "null"]
    if not nested or alternatives or prop.get("type") == "array":
        default = "required" if required else _default(prop)
        yield path, _cell(prop.get("description", "")), _cell(_value(prop)), _cell(default)
    below = f"{path}[]" if prop.get("type") == "array" else path
    for schema in nested:
        yield from _keys(below, schema, defs)


def _cell(text: str) -> str:
    """Return text escaped for a table's cell, so that it neither ends the cell nor becomes a tag."""
    return text.replace("|", "\\|").replace("<group_id>", "GROUP_ID")


def _default(prop: Schema) -> str:
    """Return a key's default in the form used in the file."""
    default = prop.get("default")
    kind = next((each["x-kind"] for each in [prop, *prop.get("anyOf", ())] if "x-kind" in each), None)
    if default in (None, {}, []) and not isinstance(default, bool):
        return ""
    if isinstance(default, dict):
        return "as below"
    if kind in {"duration", "size"}:
        return f"`{duration_text(default) if kind == 'duration' else size_text(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _value(prop: Schema) -> str:
    """Return what a key accepts."""
    if "x-kind" in prop:
        return "`off`" if prop["x-kind"] == "off" else str(prop["x-kind"])
    if "anyOf" in prop:
        values = [_value(each) for each in prop["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(values))
    if "enum" in prop or "const" in prop:
        return ", ".join(f"`{each}`" for each in prop.get("enum", [prop.get("const")]))
    if "$ref" in prop:
        return "mapping"
    if prop.get("format") == "password":
        return "secret"
    match prop.get("type"):
        case "array":
            return f"list of {_value(prop['items'])}"
        case "object":
            below = prop.get("additionalProperties")
            return f"mapping to {_value(below)}" if isinstance(below, dict) and below else "mapping"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(prop)
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "text"
        case _:
            return "anything"


def _bounds(prop: Schema) -> str:
    """Return the limits of a number."""
    low = prop.get("minimum", prop.get("exclusiveMinimum"))
    above = ", above " if "exclusiveMinimum" in prop else ", from "
    text = f"{above}{low:g}" if low is not None else ""
    return f"{text} to {prop['maximum']:g}" if "maximum" in prop else text
