"""The tokens of an expression, and what they show without a parser: names, functions, loops. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

VARIABLES: Final = ("event", "key", "headers", "timestamp", "topic")
MACROS: Final = ("all", "exists", "exists_one", "map", "filter")
WORDS: Final = frozenset(["true", "false", "null", "in"])
_TOKEN: Final = re.compile(
    r"(?P<text>[rRbB]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"))"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<number>\d[\w.]*)|(?P<mark>\S)",
    re.DOTALL,
)


class Token(NamedTuple):
    """A token of an expression: `text`, `name`, `number` or `mark`. `depth` is how many loops are around it."""

    kind: str
    text: str
    depth: int = 0


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of an expression."""
    found: list[Token] = []
    opened: list[int] = []
    for match in _TOKEN.finditer(text):
        kind, word = str(match.lastgroup), match[0]
        if kind == "mark" and word in "([{":
            is_loop = len(found) > 1 and word == "(" and found[-1].text in MACROS and found[-2].text == "."
            opened.append(int(is_loop))
        found.append(Token(kind, word, sum(opened) - (opened[-1] if kind == "mark" and word in "([{" else 0)))
        if kind == "mark" and word in ")]}" and opened:
            opened.pop()
    return found


def chain_at(tokens: Sequence[Token], index: int) -> list[str]:
    """Return the names of `a.b.c` from a token on, without a method call at the end."""
    names = [tokens[index].text]
    while index + 2 < len(tokens) and tokens[index + 1].text == "." and tokens[index + 2].kind == "name":
        index += 2
        names.append(tokens[index].text)
    is_call = len(names) > 1 and index + 1 < len(tokens) and tokens[index + 1].text == "("
    return names[:-1] if is_call else names


def functions_called(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield the functions that an expression calls; `math.abs` is one name."""
    for index, token in enumerate(tokens[:-1]):
        if token.kind == "name" and tokens[index + 1].text == "(" and token.text not in WORDS:
            is_math = index > 1 and tokens[index - 1].text == "." and tokens[index - 2].text == "math"
            yield f"math.{token.text}" if is_math else token.text


def loop_variables(tokens: Sequence[Token]) -> set[str]:
    """Return the variables that loops bind."""
    return {
        tokens[index + 2].text
        for index, token in enumerate(tokens[:-2])
        if token.kind == "name" and token.text in MACROS and tokens[index + 1].text == "("
    }


def variables_read(tokens: Sequence[Token]) -> set[str]:
    """Return the variables that an expression reads."""
    return {token.text for token in tokens if token.kind == "name" and token.text in VARIABLES}


def names_in(text: str) -> set[str]:
    """Return every name in an expression outside of string literals: variables, fields and functions."""
    return {token.text for token in tokens_of(text) if token.kind == "name"}


def reads_whole_event(text: str) -> bool:
    """Whether an expression uses the event in any other way than through the name of a field."""
    tokens = tokens_of(text)
    return any(
        token.kind == "name" and token.text == "event" and len(chain_at(tokens, index)) == 1
        for index, token in enumerate(tokens)
    )


def closing(tokens: Sequence[Token], opening: int) -> int:
    """Return the index of the bracket that closes the one at an index."""
    depth = 0
    for index in range(opening, len(tokens)):
        depth += (tokens[index].text in "([{") - (tokens[index].text in ")]}") if tokens[index].kind == "mark" else 0
        if depth == 0:
            return index
    return len(tokens)
