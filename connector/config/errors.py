"""From pydantic's errors to faults a person can act on: the path in the file, the value's kind, what is allowed.

No value of the file is ever repeated, because any of them may be a secret at the wrong place.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from connector.config.yaml import join
from connector.errors import Fault

_WANTED: Final = {
    "string_type": "allowed: a text",
    "int_type": "allowed: a whole number",
    "int_parsing": "allowed: a whole number",
    "int_parsing_size": "allowed: a smaller whole number",
    "int_from_float": "allowed: a whole number",
    "float_type": "allowed: a number",
    "float_parsing": "allowed: a number",
    "finite_number": "allowed: a finite number",
    "bool_type": "allowed: true or false",
    "bool_parsing": "allowed: true or false",
    "list_type": "allowed: a list",
    "dict_type": "allowed: a mapping",
    "model_type": "allowed: a mapping",
    "model_attributes_type": "allowed: a mapping",
    "none_required": "allowed: nothing",
    "string_too_short": "allowed: a text of at least {min_length} characters",
    "string_too_long": "allowed: a text of at most {max_length} characters",
    "string_pattern_mismatch": "allowed: a text of the form {pattern}",
    "too_short": "allowed: at least {min_length} of them",
    "too_long": "allowed: at most {max_length} of them",
    "greater_than": "allowed: above {gt}",
    "greater_than_equal": "allowed: {ge} or more",
    "less_than": "allowed: below {lt}",
    "less_than_equal": "allowed: at most {le}",
    "literal_error": "allowed: {expected}",
    "enum": "allowed: {expected}",
}


def kind(value: object) -> str:
    """Return what sort of value stands in the file, without the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "a text" if value else "an empty text"
        case dict():
            return "a mapping"
        case _:
            return "a list"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a half-sentence that helps to find the name that was meant: the nearest one, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(names)}" if names else "none is known here"


def faults_of(error: ValidationError, model: type[BaseModel], raw: Any, prefix: str) -> list[Fault]:
    """Return the faults of a failed validation of `raw` against `model`, which stands at `prefix` in the file.

    pydantic reports each member of a union apart: where one of them went deeper (a mapping with a wrong key) only
    its faults count, otherwise what the members allow is joined.
    """
    found: dict[tuple[str | int, ...], list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        parts, value = _walk(detail["loc"], raw, missing=detail["type"] == "missing")
        message = _message(detail["type"], detail.get("ctx", {}), detail["msg"], parts, value, model)
        messages = found.setdefault(parts, [])
        if message not in messages:
            messages.append(message)
    return [
        Fault(_path(prefix, parts), _merge(messages))
        for parts, messages in found.items()
        if not any(len(other) > len(parts) and other[: len(parts)] == parts for other in found)
        or not _replaceable(messages)
    ]


def _replaceable(messages: Sequence[str]) -> bool:
    """Whether messages only tell the wrong type, as the members of a union do that were not meant."""
    return all("allowed:" in message for message in messages)


def _merge(messages: list[str]) -> str:
    """Join what several members of a union allow."""
    if len(messages) == 1 or not all("allowed: " in message for message in messages):
        return "; ".join(messages)
    head = messages[0].partition("allowed: ")[0]
    return head + "allowed: " + ", or ".join(message.partition("allowed: ")[2] for message in messages)


def _walk(loc: tuple[str | int, ...], raw: Any, *, missing: bool) -> tuple[tuple[str | int, ...], Any]:
    """Return the part of `loc` that stands in the file (a union's tags do not), and the value there."""
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


def _message(
    sort: str, context: dict[str, Any], words: str, parts: Sequence[str | int], value: Any, model: type[BaseModel]
) -> str:
    """Return one error in our words."""
    if sort == "missing":
        return "is required"
    if sort == "extra_forbidden":
        return f"unknown key; {suggest(str(parts[-1]), keys_at(model, parts[:-1]))}"
    if sort == "value_error":
        return f"is {kind(value)}; {context.get('error', words)}"
    if sort in _WANTED:
        return f"is {kind(value)}; {_WANTED[sort].format(**context)}"
    return f"is {kind(value)}; {words[:1].lower()}{words[1:]}"


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
