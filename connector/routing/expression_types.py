"""Types of expressions: what they may return, and comparisons that never hold, as far as tokens and schema show. Pure.

The interpreter knows no types before it has a record. Anything uncertain is treated as unknown, not as a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from connector.routing.expression_tokens import MACROS, Token, chain_at, closing, loop_variables, tokens_of
from connector.routing.paths import SchemaTree, parse_path
from connector.routing.schema_types import STRING, Node, Nodes, a, name_of, never_equal

_BOOLEAN: Final[Node] = {"type": "boolean"}
_LONG: Final[Node] = {"type": "long"}
_DOUBLE: Final[Node] = {"type": "double"}
_ARRAY: Final[Node] = {"type": "array", "items": None}
_MAP: Final[Node] = {"type": "map"}
_TIMESTAMP: Final[Node] = {"type": "long", "logicalType": "timestamp-millis"}
_SUMS: Final = (_LONG, _DOUBLE, STRING, _ARRAY, _TIMESTAMP)
_RESULTS: Final[Mapping[str, Node]] = {
    **dict.fromkeys(("has", "bool", "contains", "startsWith", "endsWith", "matches"), _BOOLEAN),
    **dict.fromkeys(("all", "exists", "exists_one"), _BOOLEAN),
    **dict.fromkeys(("int", "uint", "size", "indexOf", "lastIndexOf"), _LONG),
    **dict.fromkeys(("string", "substring", "charAt", "lowerAscii", "upperAscii", "trim", "replace", "join"), STRING),
    **dict.fromkeys(("sha256", "hmac_sha256"), STRING),
    **dict.fromkeys(("map", "filter", "split"), _ARRAY),
    "double": _DOUBLE,
    "timestamp": _TIMESTAMP,
}
"""The result types of functions; those that depend on the arguments are left out."""
_WORDS: Final[Mapping[str, Nodes]] = {
    "true": (_BOOLEAN,),
    "false": (_BOOLEAN,),
    "null": ({"type": "null"},),
    "topic": (STRING,),
    "timestamp": (_LONG,),
    "headers": (_MAP,),
}
_IN_CEL: Final[Mapping[str, str]] = {
    **dict.fromkeys(("string", "enum", "uuid", "date", "time of day", "local timestamp"), "text"),
    "whole number": "an int",
    **dict.fromkeys(("number", "decimal"), "a double"),
    "boolean": "a boolean",
}
"""The interpreter's types for Avro types that can be added and multiplied."""
_AROUND: Final = frozenset("()[]{}&|?:,")
"""Marks that end an operand of a comparison."""


def types_of(text: str, schema: SchemaTree | None) -> Nodes | None:
    """Return the types that an expression's value may have, apart from null; None if unknown.

    Raises `ValueError` for a path that the schema does not have.
    """
    return _types(tokens_of(text), schema)


def no_condition(text: str, schema: SchemaTree | None) -> str | None:
    """Return why an expression can never be a boolean; None if it can. Raises as `types_of` does."""
    nodes = types_of(text, schema)
    if nodes is None or any(name_of(node) == "boolean" for node in nodes):
        return None
    names = " or ".join(dict.fromkeys(a(name_of(node)) if name_of(node) != "null" else "null" for node in nodes))
    return f"the expression must give true or false; it gives {names}"


def _types(tokens: Sequence[Token], schema: SchemaTree | None) -> Nodes | None:
    while tokens and tokens[0].text == "(" and closing(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    if not tokens:
        return None
    outer = dict(_outer(tokens))
    marks = {token.text for token in outer.values() if token.kind == "mark"}
    if "?" in marks:
        return _branches(tokens, outer, schema)
    if marks & {"|", "&", "<", ">", "="} or any(token.text == "in" for token in outer.values() if token.kind == "name"):
        return (_BOOLEAN,)
    if marks & {"+", "-"}:
        return _SUMS
    if marks & {"*", "/", "%"}:
        return (_LONG, _DOUBLE)
    return (_BOOLEAN,) if tokens[0].text == "!" else _primary(tokens, schema)


def _outer(tokens: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """Yield the tokens outside of all brackets, with their indexes."""
    index = 0
    while index < len(tokens):
        if tokens[index].kind == "mark" and tokens[index].text in "([{":
            index = closing(tokens, index)
        else:
            yield index, tokens[index]
        index += 1


def _branches(tokens: Sequence[Token], outer: Mapping[int, Token], schema: SchemaTree | None) -> Nodes | None:
    """Return the types of both branches of `CONDITION ? A : B`."""
    first = next(index for index, token in outer.items() if token.text == "?")
    nested = 0
    for index, token in outer.items():
        if index > first and token.kind == "mark":
            if token.text == ":" and nested == 0:
                found = [_types(tokens[first + 1 : index], schema), _types(tokens[index + 1 :], schema)]
                known = [nodes for nodes in found if nodes is not None]
                return [node for nodes in known for node in nodes] if len(known) == len(found) else None
            nested += (token.text == "?") - (token.text == ":")
    return None


def _primary(tokens: Sequence[Token], schema: SchemaTree | None) -> Nodes | None:
    """Return the types of a literal, a call, or a path into the event."""
    first, last = tokens[0], tokens[-1]
    if len(tokens) == 1 and first.kind != "mark":
        if first.kind == "text":
            return (STRING,) if first.text[0] in "'\"" else None
        return (_DOUBLE if "." in first.text else _LONG,) if first.kind == "number" else _WORDS.get(first.text)
    if first.text in ("[", "{") and closing(tokens, 0) == len(tokens) - 1:
        return (_ARRAY if first.text == "[" else _MAP,)
    if last.text == ")":
        opening = next(index for index in range(len(tokens)) if closing(tokens, index) == len(tokens) - 1)
        is_math = opening > 2 and tokens[opening - 3].text == "math"
        found = _RESULTS.get(tokens[opening - 1].text)
        return None if found is None or is_math else (found,)
    if first.text == "event" and schema is not None and all(_is_step(token) for token in tokens[1:]):
        found_there = schema.follow(parse_path("".join(token.text for token in tokens[2:])))
        return None if found_there.unknown else found_there.nodes
    return None


def _is_step(token: Token) -> bool:
    return token.kind in ("name", "number") or token.text in ".[]"


def check_fields(tokens: Sequence[Token], schema: SchemaTree) -> None:
    """Check how an expression uses the event's fields.

    Raises `ValueError` for a comparison with a literal that the field can never equal, for adding or multiplying values
    of different types, and for a field that the elements of a list do not have.
    """
    if "event" in loop_variables(tokens):
        return
    _check_comparisons(tokens, schema)
    _check_sums(tokens, schema)
    _check_elements(tokens, schema)


def _check_sums(tokens: Sequence[Token], schema: SchemaTree) -> None:
    """Raise `ValueError` for operands of different types: the interpreter converts nothing."""
    for index, token in enumerate(tokens):
        if token.kind != "mark" or token.text not in "+-*/%" or not 0 < index < len(tokens) - 1:
            continue
        left, right = _summand(tokens, _start(tokens, index - 1), schema), _summand(tokens, index + 1, schema)
        if left and right and left.isdisjoint(right):
            one, other = " or ".join(sorted(left)), " or ".join(sorted(right))
            raise ValueError(f"{one} and {other} cannot be combined; convert with int(…), double(…) or string(…)")


def _start(tokens: Sequence[Token], end: int) -> int:
    """Return where the path begins whose last token is at an index."""
    while end > 1 and tokens[end].kind == "name" and tokens[end - 1].text == "." and tokens[end - 2].kind == "name":
        end -= 2
    return end


def _summand(tokens: Sequence[Token], start: int, schema: SchemaTree) -> set[str]:
    """Return the names of the interpreter's types that a field or a literal may have; empty if unknown."""
    token = tokens[start]
    before, after = tokens[start - 1].text if start else "", start + 1
    if before == ".":
        return set()
    nodes: Nodes | None = None
    if token.text == "event" and token.kind == "name":
        path = chain_at(tokens, start)[1:]
        after = start + 2 * len(path) + 1
        place = schema.follow(parse_path(".".join(path)))
        nodes = None if place.unknown or not path else place.nodes
    elif token.kind in ("text", "number"):
        nodes = _primary([token], schema)
    if nodes is None or (after < len(tokens) and tokens[after].text in (".", "[", "(")):
        return set()
    names = {_IN_CEL.get(name_of(node), "") for node in nodes if name_of(node) != "null"}
    return set() if "" in names else names


def _check_elements(tokens: Sequence[Token], schema: SchemaTree) -> None:
    """Raise `ValueError` for `event.items.map(i, i.skuu)` if no item has such a field."""
    for index, token in enumerate(tokens[:-2]):
        if token.kind != "name" or token.text not in MACROS or tokens[index + 1].text != "(" or index < 3:
            continue
        first = _start(tokens, index)
        path = [each.text for each in tokens[first + 2 : index - 1 : 2]]
        if tokens[first].text != "event" or not path or (first and tokens[first - 1].text == "."):
            continue
        place = schema.follow(parse_path(".".join(path)))
        if place.unknown or not any(node.get("type") == "array" for node in place.nodes):
            continue
        variable = tokens[index + 2].text
        for at in range(index + 3, closing(tokens, index + 1)):
            inner = chain_at(tokens, at)[1:] if tokens[at].text == variable and tokens[at - 1].text != "." else []
            if inner:
                schema.follow(parse_path(f"{'.'.join(path)}[].{'.'.join(inner)}"))


def _check_comparisons(tokens: Sequence[Token], schema: SchemaTree) -> None:
    """Raise `ValueError` for a field that is compared with a literal that it can never equal."""
    for index, token in enumerate(tokens):
        path = chain_at(tokens, index)[1:]
        before = tokens[index - 1].text if index else "("
        if token.text != "event" or token.kind != "name" or not path or before == ".":
            continue
        end = index + 2 * len(path) + 1
        options = list(_compared(tokens, end)) if before in _AROUND else []
        if end == len(tokens) or tokens[end].text in _AROUND - {"["}:
            options += _reversed(tokens, index)
        place = schema.follow(parse_path(".".join(path)))
        for option in () if place.unknown else options:
            _check_equal(place.nodes, option)


def _check_equal(nodes: Nodes, option: Any) -> None:
    """Raise `ValueError` if an expression never finds a value of these types equal to a literal."""
    if isinstance(option, str) and nodes and all(name_of(node) in ("timestamp", "null") for node in nodes):
        raise ValueError("the value is a timestamp, and never equals a string; write timestamp('…')")
    reason = never_equal(nodes, option)
    if reason is not None:
        raise ValueError(reason)


def _compared(tokens: Sequence[Token], start: int) -> Iterator[Any]:
    """Yield the literals on the right of a comparison that begins at an index."""
    marks = "".join(token.text for token in tokens[start : start + 2] if token.kind == "mark")
    if tokens[start : start + 1] and tokens[start].text == "in" and tokens[start + 1].text == "[":
        inside = tokens[start + 2 : closing(tokens, start + 1)]
        if all(token.text == "," for token in inside[1::2]):
            yield from (option for token in inside[::2] for option in _literal(token))
        return
    if marks[:1] not in ("=", "!", "<", ">") or marks == "!":
        return
    at = start + (2 if marks[1:] == "=" else 1)
    if at < len(tokens) and (at + 1 == len(tokens) or tokens[at + 1].text in _AROUND):
        yield from _literal(tokens[at])


def _reversed(tokens: Sequence[Token], start: int) -> Iterator[Any]:
    """Yield the literal of `LITERAL == …` that ends before an index."""
    is_equality = start > 2 and tokens[start - 1].text == "=" and tokens[start - 2].text in ("=", "!")
    if is_equality and (start == 3 or tokens[start - 4].text in _AROUND):
        yield from _literal(tokens[start - 3])


def _literal(token: Token) -> Iterator[Any]:
    """Yield the value of a plain literal; nothing for others."""
    if token.text in ("true", "false"):
        yield token.text == "true"
    elif token.kind == "number":
        yield 0
    elif token.kind == "text" and token.text[0] in "'\"" and "\\" not in token.text:
        yield token.text.strip("'\"")
