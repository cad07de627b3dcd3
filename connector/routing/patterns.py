"""Regular expressions with bounded cost, so that no record's text can block the event loop. Pure.

Python's engine backtracks. The pattern determines how many steps a search can take. Each long repetition multiplies
them by the text's length, unless what follows it can match at one place only. Each choice (an optional part,
alternatives, a short repetition) multiplies them by the number of options. From that follows the longest text that a
pattern may be applied to. A choice inside a long repetition takes exponential time and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from re import _constants, _parser  # type: ignore[attr-defined] # the only way to see a pattern's structure
from typing import Any, Final, NamedTuple

from connector.routing.conversions import Unfit

MOST_STEPS: Final = 3_000_000
"""About how many steps a search may take: 30 to 100 ms."""
LONGEST: Final = 65_536
"""The longest text that any pattern is applied to, in characters."""
SHORTEST: Final = 64
"""A pattern is refused if it cannot be applied to texts of this many characters."""
_FEW: Final = 16
"""A repetition with at most this many copies counts as short."""
_EXPONENTIAL: Final = (
    "a repetition or a choice inside a repetition, such as (a+)+ or (a|b)+, can take exponential time; write [ab]+, or "
    "repetitions that do not go back: (?:-[a-z]++)*+"
)


class _PatternCost(NamedTuple):
    """A search takes up to `ways` * length ** `powers` steps."""

    powers: int = 0
    ways: int = 1

    def then(self, other: _PatternCost) -> _PatternCost:
        return _PatternCost(self.powers + other.powers, min(self.ways * other.ways, MOST_STEPS))


def bounded_search(pattern: str) -> Callable[[str | None], bool]:
    """Return a function that tests whether the pattern is found in a text; never in null.

    The function raises `Unfit` (`size`) for a text that is too long for the pattern. Raises `ValueError` for a pattern
    that is not a regular expression, or that can take too long.
    """
    try:
        compiled = re.compile(pattern)
        tree = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as fault:
        raise ValueError(f"{pattern!r} is not a regular expression: {fault}") from None
    cost = _cost(tree)
    # Without `^` the search begins again at every character, which costs one more power of the length.
    anchored = bool(tree) and tree[0] == (_constants.AT, _constants.AT_BEGINNING)
    powers = cost.powers + (0 if anchored else 1)
    longest = min(LONGEST, int((MOST_STEPS / cost.ways) ** (1 / powers))) if powers else LONGEST
    if longest < SHORTEST or cost.ways >= MOST_STEPS:
        raise ValueError("the pattern has too many repetitions and choices; write a simpler one")
    search = compiled.match if anchored else compiled.search

    def found(text: str | None) -> bool:
        if text is None:
            return False
        if len(text) > longest:
            raise Unfit("size", f"the text has over {longest:,} characters, too many for the pattern")
        return search(text) is not None

    return found


def _cost(tree: Any) -> _PatternCost:
    cost, scanned = _PatternCost(), 0
    steps = list(tree)
    for (operation, argument), following in zip(steps, [*steps[1:], None], strict=False):
        if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            repeated = _repeated(*argument)
            ends_at_once = argument[1] > _FEW and following is not None and _never_begins(argument[2], following)
            cost = cost.then(_PatternCost() if ends_at_once else repeated)
            scanned = scanned or int(ends_at_once)
        elif operation is _constants.GROUPREF:
            cost = cost.then(_PatternCost(1))
        elif operation is _constants.POSSESSIVE_REPEAT:
            inner = _cost(argument[2])
            cost = cost.then(_PatternCost(inner.powers + 1, inner.ways))
        elif operation is _constants.BRANCH:
            branches = [_cost(branch) for branch in argument[1]]
            cost = cost.then(_PatternCost(max(each.powers for each in branches), sum(each.ways for each in branches)))
        else:
            for part in _parts(argument):
                cost = cost.then(_cost(part))
    return _PatternCost(cost.powers + scanned, cost.ways)


def _repeated(least: int, most: Any, body: Any) -> _PatternCost:
    """Return the cost of a repetition. Raises `ValueError` if it can be exponential."""
    inner = _cost(body)
    if most > _FEW:
        # (a+)+ can match a text of n characters in 2^n ways.
        if inner != _PatternCost():
            raise ValueError(_EXPONENTIAL)
        return _PatternCost(0 if least == most else 1)
    times = max(int(most), 1)
    ways = (int(most) - least + 1) * inner.ways**times
    return _PatternCost(inner.powers * times, min(ways, MOST_STEPS))


def _never_begins(body: Any, following: tuple[Any, Any]) -> bool:
    """Whether a repetition of one character must end where `following` begins, so that it has only one possible end."""
    if len(body) != 1 or following[0] is not _constants.LITERAL:
        return False
    letter = chr(following[1])
    return not any(_takes(body[0], code) for code in {ord(letter), *map(ord, letter.lower() + letter.upper())})


def _takes(step: tuple[Any, Any], code: int) -> bool:
    """Whether a one-character operation matches the character; true if unknown."""
    operation, argument = step
    if operation is _constants.LITERAL:
        return code in (argument, *map(ord, chr(argument).lower() + chr(argument).upper()))
    if operation is _constants.IN and argument[0][0] is not _constants.NEGATE:
        return any(_takes(part, code) for part in argument)
    if operation is _constants.IN:
        return all(part != (_constants.LITERAL, code) for part in argument[1:])
    if operation is _constants.RANGE:
        both = {code, *map(ord, chr(code).lower() + chr(code).upper())}
        return any(argument[0] <= each <= argument[1] for each in both)
    if operation is _constants.CATEGORY and argument in _CATEGORIES:
        return _CATEGORIES[argument].match(chr(code)) is not None
    return True


_CATEGORIES: Final = {
    _constants.CATEGORY_DIGIT: re.compile(r"\d"),
    _constants.CATEGORY_WORD: re.compile(r"\w"),
    _constants.CATEGORY_SPACE: re.compile(r"\s"),
}


def _parts(argument: Any) -> Iterator[Any]:
    """Yield the patterns inside an operation's argument."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _parts(each)
