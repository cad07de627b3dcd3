"""One route as frozen models: what it matches, where it goes, and the sources of each vendor field.

A source is text (a path, `$key`, …) or a mapping whose keys determine its form. `routing` compiles what sources return
and conditions match. This module checks what can be seen in one mapping alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from connector.config.base import Model

SOURCES: Final = (
    "a dotted path, $key, $key.FIELD, $timestamp, $header.NAME, {const: VALUE}, {path: PATH, …}, {map: {…}}, "
    "{list: […]}, {json: SOURCE} or {cel: TEXT}"
)
"""The forms of a source, for messages."""


class ConstSource(Model):
    """A constant."""

    const: Any = Field(description="The value.")


class PathSource(Model):
    """A path, and what to do with the value there, in the order of the keys."""

    path: str = Field(min_length=1, description="A dotted path, $key, $key.FIELD, $timestamp or $header.NAME.")
    default: Any = Field(default=None, description="The value instead of null, a missing field or an empty text.")
    case: Literal["lower", "upper"] | None = Field(default=None, description="Changes the case of the text.")
    hash: Literal["sha256", "hmac-sha256"] | None = Field(
        default=None, description="Sends the hash of the text in hexadecimal. The plain value is shown nowhere."
    )
    key: SecretStr | None = Field(default=None, min_length=1, description="The key of hmac-sha256.")
    unit: Literal["ms", "s"] | None = Field(default=None, description="The unit of a plain number that is a time.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse a key without hmac-sha256, and a unit for a hash."""
        if (self.key is not None) != (self.hash == "hmac-sha256"):
            raise ValueError("hash: hmac-sha256 and key belong together; sha256 takes no key")
        if self.hash is not None and self.unit is not None:
            raise ValueError("a hash is text and has no unit; keep one of the two")
        return self


class MapSource(Model):
    """A map made of parts: the entries of `base` without those in `omit`, then the entries of `map`."""

    entries: dict[str, Source] = Field(default={}, alias="map", description="Key to source.")
    base: str | None = Field(default=None, description="A path to a map or record to begin with; `.` is the event.")
    omit: list[str] = Field(default=[], description="Keys of base to leave out.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse `omit` without `base`."""
        if self.omit and self.base is None:
            raise ValueError("omit leaves out keys of base; add base, or remove omit")
        return self


class ListSource(Model):
    """A list made of parts."""

    sources: list[Source] = Field(alias="list", min_length=1, description="The sources of the elements.")


class JsonSource(Model):
    """JSON text of a source."""

    source: Source = Field(alias="json", description="The source.")


class CelSource(Model):
    """An expression in the Common Expression Language."""

    cel: str = Field(min_length=1, description="The expression; variables: event, key, headers, timestamp, topic.")


_FORMS: Final = {"const": "const", "path": "path", "map": "map", "base": "map", "list": "list", "json": "json"}


def _form(value: Any) -> str | None:
    """Return the form of a source; None if the value is not a source."""
    if isinstance(value, str):
        return "a text"
    if isinstance(value, dict):
        known = [form for key, form in (_FORMS | {"cel": "cel"}).items() if key in value]
        return f"a {known[0]}" if known else None
    return _TAGS.get(type(value))


_TAGS: Final[dict[type, str]] = {
    ConstSource: "a const",
    PathSource: "a path",
    MapSource: "a map",
    ListSource: "a list",
    JsonSource: "a json",
    CelSource: "a cel",
}

Source = Annotated[
    Annotated[str, Tag("a text")]
    | Annotated[ConstSource, Tag("a const")]
    | Annotated[PathSource, Tag("a path")]
    | Annotated[MapSource, Tag("a map")]
    | Annotated[ListSource, Tag("a list")]
    | Annotated[JsonSource, Tag("a json")]
    | Annotated[CelSource, Tag("a cel")],
    Discriminator(
        _form,
        custom_error_type="no_source",
        custom_error_message=f"not a valid source; write {SOURCES}",
    ),
]
"""Where a value comes from."""

Bound = int | float | str


class Condition(Model):
    """A condition on a value; all of its keys must hold."""

    model_config = ConfigDict(coerce_numbers_to_str=False)

    exists: bool | None = Field(default=None, description="Whether the field exists and is not null.")
    negated: Wanted = Field(default=None, alias="not", description="A value, a list or a condition that must not hold.")
    gt: Bound | None = Field(default=None, description="Greater than this number, or later than this time.")
    ge: Bound | None = Field(default=None, description="At least this.")
    lt: Bound | None = Field(default=None, description="Less than this number, or earlier than this time.")
    le: Bound | None = Field(default=None, description="At most this.")
    one_of: list[Any] | None = Field(default=None, alias="in", min_length=1, description="One of these values.")
    matches: str | None = Field(
        default=None, min_length=1, description="A text in which this regular expression is found."
    )

    @field_validator("gt", "ge", "lt", "le", mode="before")
    @classmethod
    def _bound(cls, value: object) -> object:
        """Accept numbers and texts."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError("must be a number or a time such as 2026-11-20T00:00:00Z")
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        """Refuse an empty condition."""
        if not self.model_fields_set:
            raise ValueError("an empty condition; write exists, not, gt, ge, lt, le, in or matches")
        return self


def _sort(value: Any) -> str:
    return "a condition" if isinstance(value, dict | Condition) else "a value"


_Value = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean", "null", "array"]})]
Wanted = Annotated[
    Annotated[Condition, Tag("a condition")] | Annotated[_Value, Tag("a value")],
    Discriminator(_sort),
]
"""What `where` has for a path: a value, a list of values, or a condition."""

CEL: Final = "cel"
"""The key of `where` whose text is an expression."""


class RouteSettings(Model):
    """Which events go to which destinations, and how their fields are mapped."""

    topics: list[str] | None = Field(default=None, description="Only events of these topics (names or ^ patterns).")
    schema_name: str | None = Field(
        default=None, alias="schema", description="Only events written with the schema of this full name."
    )
    where: dict[str, Wanted] = Field(
        default={},
        description="Only events with these values: path, $key or $header.name to a value, a list of values or a "
        "condition ({exists: …}, {not: …}, {gt: …, lt: …}, {in: […]}, {matches: …}); or cel to an expression.",
    )
    to: list[str] = Field(
        description="The destinations, by name. An empty list drops the events that match, whatever other routes say."
    )
    sample: float | None = Field(
        default=None, gt=0, le=1, description="The share of the matching events to take, by dedup id. Unset: all."
    )
    id: str | None = Field(default=None, description="Dotted path of the event's own id.")
    entity: bool = Field(default=False, description="The events are about non-human entities (Quick Audience).")
    fields: dict[str, dict[str, Source]] = Field(
        default={},
        description="Per vendor, for each of its fields a source: a dotted path, $key, $timestamp, $header.name, "
        "{const: …}, {path: …, default: …, case: …, hash: …, key: …, unit: …}, {map: …, base: …, omit: …}, "
        "{list: …}, {json: …} or {cel: …}.",
    )


_HASH_CALL: Final = re.compile(r"(\.?)\s*\b(?:hmac_)?sha256\s*\(")
_LITERAL: Final = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_LOOP: Final = re.compile(
    r"(?:\b(event(?:\s*\.\s*\w+|\[\d+\])+?)|[\w)\]])\s*\.\s*(?:map|filter|all|exists|exists_one)\s*\(\s*(\w+)\s*,"
)
_READ: Final = re.compile(r"(?<![\w.])([A-Za-z_]\w*)((?:\s*\.\s*[A-Za-z_]\w*(?!\w*\s*\()|\[(?:\d+|\0\d+)\])*)")
_STEPS: Final = re.compile(r"\[[0-9]*\]")


def hashed(source: Source) -> Iterator[str]:
    """Yield the fields that a source hashes, in the form of `console.mask`: their plain values must never be shown."""
    match source:
        case PathSource() if source.hash is not None:
            path = _STEPS.sub("", source.path)
            yield "$key" if path.startswith("$key") else path
        case MapSource():
            for entry in source.entries.values():
                yield from hashed(entry)
        case ListSource():
            for each in source.sources:
                yield from hashed(each)
        case JsonSource():
            yield from hashed(source.source)
        case CelSource():
            yield from _hashed_in(source.cel)


def _hashed_in(expression: str) -> Iterator[str]:
    """Yield what an expression reads in a hash's arguments; if the hash is called as a method, all that it reads."""
    literals = _LITERAL.findall(expression)
    numbers = iter(range(len(literals)))
    text = _LITERAL.sub(lambda _: f"\0{next(numbers)}", expression)
    loops = {variable: path for path, variable in _LOOP.findall(text)}
    for call in _HASH_CALL.finditer(text):
        for variable, rest in _READ.findall(text if call[1] else text[call.end() : _closing(text, call.end())]):
            read = f"{loops.get(variable) or variable}{rest}"
            named = re.sub(r"\[\0(\d+)\]", lambda match: f".{literals[int(match[1])][1:-1]}", read)
            root, _, path = re.sub(r"\s|\[\d*\]", "", named).partition(".")
            if root == "key":
                yield "$key"
            elif path and root == "headers":
                yield f"$header.{path}"
            elif path and (root == "event" or root in loops):
                yield path  # of a loop over what another loop gives only the end of the path is known
            elif root in loops:
                yield from (_STEPS.sub("", rest).lstrip(".") for name, rest in _READ.findall(text) if name == "event")


def _closing(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one opened before `start`."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    return len(text)


for _model in (MapSource, ListSource, JsonSource, Condition, RouteSettings):
    _model.model_rebuild()
