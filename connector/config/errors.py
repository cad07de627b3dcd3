"""Turns pydantic's errors into faults that a person can act on: the path, what is allowed, and what the file has.

A message repeats a value only if it cannot be a secret: a number or a symbol (a choice, a duration, a size) under a key
that names no secret. Any other value may be a secret in the wrong place. The same is true of the value of a reference,
which the loader hides.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from connector.config.models import UnreadableSymbol
from connector.config.yaml import join
from connector.errors import ConfigFault
from connector.telemetry.redaction import names_secret

_WANTED: Final = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_pattern_mismatch": "a string that matches {pattern}",
}
"""What a value must be, by pydantic's error type. Several for one value are joined by `or`."""
_LENGTHS: Final = ("string_too_short", "string_too_long", "too_short", "too_long")
_SYMBOLS: Final = {
    *("literal_error", "enum", "bool_parsing"),
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal"),
}
"""Errors whose value is harmless to show: it was meant as a choice, or as a number with a unit, such as `2s`."""
_LONGEST_SHOWN: Final = 40


class _Problem(NamedTuple):
    """One error of a value: either what is `wanted` and what was `found`, or a complete message."""

    message: str
    wanted: str = ""
    found: str = ""


def kind(value: object) -> str:
    """Return the type of a value of the file, without the value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "a string" if value else "an empty string"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def suggest(name: str, known: Iterable[str], things: str = "") -> str:
    """Return a hint at the right name: the most similar one, or else all names.

    `things` is the plural of what is named, such as `vendors`.
    """
    names = sorted(known)
    # One name, or all of them: a reader would have to compare three similar ones.
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    head = f"known {things}" if things else "known"
    return f"{head}: {', '.join(names)}" if names else f"there are no {things or 'names'} to choose from"


def faults_of(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str) -> list[ConfigFault]:
    """Return the faults of a failed validation of `raw` against `model`; `prefix` is its path in the file.

    pydantic reports each member of a union separately. If one of them got deeper into the value (a mapping with a wrong
    key), only its faults are returned. Otherwise the message joins what the members allow.
    """
    found: dict[tuple[str | int, ...], list[_Problem]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        parts, value = _walk(detail["loc"], raw, missing=detail["type"] == "missing")
        is_hidden = any(names_secret(str(part)) for part in parts)
        problem = _problem(detail["type"], detail.get("ctx", {}), detail["msg"], parts, model, value, hidden=is_hidden)
        problems = found.setdefault(parts, [])
        if problem not in problems:
            problems.append(problem)
    return [
        ConfigFault(_path(prefix, parts), _joined(problems))
        for parts, problems in found.items()
        if not any(len(other) > len(parts) and other[: len(parts)] == parts for other in found)
        or not all(problem.wanted for problem in problems)
    ]


def _joined(problems: Sequence[_Problem]) -> str:
    """Return one message for all problems of a value: what the members of a union allow is joined."""
    wanted = [problem.wanted for problem in problems if problem.wanted]
    messages = [problem.message for problem in problems if not problem.wanted]
    if wanted:
        # One member of a union may know that the value is harmless where another does not.
        found = max((problem.found for problem in problems if problem.wanted), key=lambda text: text.startswith("'"))
        messages.append(f"must be {' or '.join(dict.fromkeys(wanted))}, not {found}")
    return "; ".join(messages)


def _walk(loc: tuple[str | int, ...], raw: Any, *, missing: bool) -> tuple[tuple[str | int, ...], Any]:
    """Return the part of `loc` that exists in the file, without a union's tags, and the value there."""
    parts: list[str | int] = []
    value = raw
    for index, part in enumerate(loc):
        children: Any = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(children, dict) and part in children:
            value = children[part]
            parts.append(part)
        elif missing and index == len(loc) - 1:
            parts.append(part)
    return tuple(parts), value


def _path(prefix: str, parts: Sequence[str | int]) -> str:
    """Return the parts as one path below `prefix`."""
    for part in parts:
        prefix = join(prefix, part)
    return prefix


def _problem(
    sort: str,
    context: dict[str, Any],
    message: str,
    parts: Sequence[str | int],
    model: type[BaseModel],
    value: Any,
    *,
    hidden: bool,
) -> _Problem:
    """Return one of pydantic's errors as a problem in plain words."""
    raised = context.get("error")
    if sort == "missing":
        return _Problem("is required")
    if sort == "extra_forbidden":
        return _Problem(f"unknown key; {suggest(str(parts[-1]), keys_at(model, parts[:-1]), 'keys')}")
    if sort == "no_source":
        return _Problem(f"{kind(value)} is {message}")
    # The value was meant as a duration or a size, so it is shown: `10 sec` explains itself.
    if isinstance(raised, UnreadableSymbol):
        return _Problem("", str(raised), _shown(value, symbol=True, hidden=hidden))
    if sort == "value_error":
        return _Problem(str(raised or message))
    if sort in _LENGTHS:
        least = context.get("min_length")
        if least == 1:
            return _Problem("must not be empty")
        bound = f"at least {least}" if least is not None else f"at most {context['max_length']}"
        # A secret's fault has the name of a list's.
        is_text = sort.startswith("string") or context["field_type"] == "Value"
        return _Problem(f"must have {bound} {'characters' if is_text else 'entries'}")
    if sort == "string_pattern_mismatch" and str(context["pattern"]).startswith("^https?://"):
        return _Problem("", "a URL that begins with http:// or https://", _shown(value, symbol=False, hidden=hidden))
    if sort in _WANTED:
        found = _shown(value, symbol=sort in _SYMBOLS, hidden=hidden)
        numbers = {key: f"{bound:.12g}" if isinstance(bound, float) else bound for key, bound in context.items()}
        return _Problem("", _WANTED[sort].format(**numbers), found)
    return _Problem(f"{message[:1].lower()}{message[1:]}")


def _shown(value: object, *, symbol: bool, hidden: bool) -> str:
    """Return a value for a message: itself if it is harmless, otherwise its type."""
    if hidden or not isinstance(value, bool | int | float | str):
        return kind(value)
    if isinstance(value, str):
        harmless = symbol and value and value.isprintable() and len(value) <= _LONGEST_SHOWN
        return f"'{value}'" if harmless else kind(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else kind(value)


def keys_at(model: type[BaseModel], parts: Sequence[str | int]) -> list[str]:
    """Return the keys that the file may have at a path below `model`."""
    models = [model]
    annotations: list[Any] = [model]
    for part in parts:
        fields = [field for each in models for name, field in each.model_fields.items() if part in (name, field.alias)]
        if fields:
            annotations = [field.annotation for field in fields]
        models = list(chain.from_iterable(map(_models_in, annotations)))
    return [field.alias or name for each in models for name, field in each.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
