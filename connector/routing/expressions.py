"""Expressions in the Common Expression Language: `{cel: …}` in `fields`, and `cel` in `where`.

Expressions are compiled at start. The variables are converted once per record, however many expressions read them, and
of the event only the fields that some expression names. The language's only loops are those over lists and maps.
Nested, they may cost the square of the length, in one call that cannot be interrupted. So the cost of an expression is
estimated for each record before it runs (`_Cost`), and a record that is too large for it is refused.

The interpreter is `common-expression-language`, an optional extra.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from connector.config.errors import suggest
from connector.config.secrets import hide_literals
from connector.records import NO_TIMESTAMP, Event, LogicalValue, Record
from connector.routing.conversions import Unfit, exact, to_string
from connector.routing.expression_tokens import (
    MACROS,
    VARIABLES,
    WORDS,
    Token,
    chain_at,
    closing,
    functions_called,
    loop_variables,
    tokens_of,
    variables_read,
)
from connector.routing.expression_types import check_fields
from connector.routing.paths import SchemaTree, parse_path

LONGEST: Final = 2000
"""Characters of an expression."""
MOST_UNITS: Final = 200_000
"""The estimated cost of one evaluation, in units of about a microsecond at most."""
LARGEST_TEXT: Final = 1 << 20
"""Characters of a text that a function returns."""
MISSING: Final = "needs the extra: pip install 'connector[expressions]'"

_GROWING: Final = ("map", "filter")
"""Macros that copy their intermediate result for each element."""
_CORE: Final = frozenset(
    """
    has int uint double string bytes timestamp duration size contains startsWith endsWith matches type dyn getFullYear
    getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds getMilliseconds
    """.split()  # noqa: SIM905 -- 24 names, one a line, would be half a page
) | frozenset(MACROS)
_LIBRARY: Final = frozenset(
    """
    bool min max sum charAt indexOf lastIndexOf substring split lowerAscii upperAscii trim first last math.greatest
    math.least math.abs math.sign math.ceil math.floor math.round math.trunc
    """.split()  # noqa: SIM905 -- as above
)
"""Functions of the interpreter's library whose cost and result are bounded by their arguments."""
_SILENT: Final = logging.CRITICAL + 1
_COUNTED: Final = re.compile(r"\{(\d*),?(\d*)\}")
_MOST_COPIES: Final = 100

Getter = Callable[[Event, Record], Any]


class _Loop(NamedTuple):
    """A loop macro: how many loops are around it, whether it builds a list, and whether its body reads variables.

    `copies` is how often its body reads the element: its result may contain it as often.
    """

    depth: int
    grows: bool
    wide: bool
    copies: int


class _Size(NamedTuple):
    """How large the variables of a record are.

    `weight` counts values, and a thousand characters as one; `length` is the longest list or map, `element` the weight
    of the heaviest element of a list.
    """

    weight: float = 0
    length: int = 0
    element: float = 0
    characters: int = 0


class _Cost(NamedTuple):
    """The parts of an expression's cost that do not depend on the record: its loops, reads, additions and matches."""

    loops: tuple[_Loop, ...]
    reads: int
    additions: int
    outer_additions: int
    splits: bool
    matches: tuple[int, ...]
    literals: int

    def units(self, size: _Size) -> float:
        """Return the estimated cost of an evaluation, in units of about a microsecond at most."""
        additions = 1 + self.additions
        found = self.reads * size.weight + additions * additions * size.characters / 2000
        length = max(size.length, self.literals, size.characters if self.splits else 0) * (1 + self.outer_additions)
        copies = math.prod(max(1, loop.copies) for loop in self.loops if loop.grows)
        for depth in self.matches:
            found += length**depth * (50 + _MOST_COPIES * size.characters / 1000)
        for loop in self.loops:
            turns = float(length) ** (loop.depth + 1)
            heaviest = copies * (size.weight * additions if loop.wide else max(1.0, size.element))
            found += turns * (1 + (size.weight if loop.wide else 0))
            found += turns * length / 2 * heaviest if loop.grows else 0
        return found


class Expressions:
    """The expressions of one table of routes, and the variables of the current record."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._fields: set[str] | None = set()
        self._functions: dict[str, Callable[..., Any]] = {}
        self._at: tuple[Event, Record] | None = None
        self._context: Any = None
        self._size = _Size()

    def compile(self, text: str, schema: SchemaTree | None = None) -> Getter:
        """Return a function that evaluates an expression for a record, and may raise `Unfit` (`cel`, `size`).

        Raises `ValueError` for a wrong expression, or if the extra is not installed.
        """
        if len(text) > LONGEST:
            raise ValueError(f"the expression has {len(text):,} characters; allowed: {LONGEST:,}")
        try:
            cel = importlib.import_module("cel")
        except ImportError:
            raise ValueError(f"an expression {MISSING}") from None
        # It would log the arguments of its functions, which are a record's values.
        logging.getLogger("cel").setLevel(_SILENT)
        tokens = tokens_of(text)
        names = variables_read(tokens)
        self._check(tokens, schema)
        shown = hide_literals(text)
        try:
            program = cel.compile(text)
        except Exception as error:  # noqa: BLE001 - the parser raises more than it documents
            raise ValueError(f"not a valid expression: {_parse_fault(str(error), shown)}") from None
        cost = _cost(tokens, names)
        self._use(tokens, names)

        def evaluate(event: Event, record: Record) -> Any:
            context = self._variables(cel, event, record)
            if cost.units(self._size) > MOST_UNITS:
                raise Unfit("size", f"the event is too large for the expression {shown}")
            try:
                return program.execute(context)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a panic of the interpreter is no Exception
                raise Unfit("cel", f"{_reason(error)} in {shown}") from None

        return evaluate

    def _use(self, tokens: Sequence[Token], names: set[str]) -> None:
        """Note the variables, fields and functions that an expression names."""
        self._at = None
        self._names |= names
        for index, token in enumerate(tokens):
            if token.text == "event" and token.kind == "name":
                dotted = chain_at(tokens, index)
                if self._fields is not None and len(dotted) > 1:
                    self._fields.add(dotted[1])
                else:
                    self._fields = None
        called = set(functions_called(tokens))
        if called & _OWN.keys():
            self._functions |= {name: _OWN[name] for name in called & _OWN.keys()}
        if called & _LIBRARY:
            library = importlib.import_module("cel.stdlib").STDLIB_FUNCTIONS
            self._functions |= {name: library[name] for name in called & _LIBRARY}

    def _check(self, tokens: Sequence[Token], schema: SchemaTree | None) -> None:
        """Raise `ValueError` for an unknown variable or function, or a field that the schema does not have."""
        known = _CORE | {*_LIBRARY, *_OWN}
        for name in functions_called(tokens):
            if name not in known:
                raise ValueError(f"there is no function {name}; {suggest(name, known, 'functions')}")
        bound = loop_variables(tokens)
        for index, token in enumerate(tokens):
            if token.kind != "name" or token.text in WORDS or (index and tokens[index - 1].text == "."):
                continue
            if index + 1 < len(tokens) and tokens[index + 1].text in ("(", ":"):
                continue
            chain = chain_at(tokens, index)
            if token.text not in VARIABLES and token.text not in bound and token.text != "math":
                raise ValueError(f"there is no variable {token.text}; {suggest(token.text, VARIABLES, 'variables')}")
            if token.text == "event" and "event" not in bound and schema is not None and len(chain) > 1:
                schema.follow(parse_path(".".join(chain[1:])))
        if schema is not None:
            check_fields(tokens, schema)
        for index, token in enumerate(tokens):
            if token.text == "matches" and token.kind == "name":
                _check_pattern(tokens[index + 2] if index + 2 < len(tokens) else None, tokens, index)

    def _variables(self, cel: Any, event: Event, record: Record) -> Any:
        """Return the record's variables, converted once."""
        if self._at is not None and self._at[0] is event and self._at[1] is record:
            return self._context
        datum: Any = event.datum
        if self._fields is not None:
            datum = {name: datum[name] for name in self._fields if name in datum}
        variables: dict[str, Any] = {}
        for name in self._names:
            match name:
                case "event":
                    variables[name] = datum
                case "key":
                    variables[name] = _key_of(event, record)
                case "headers":
                    variables[name] = {name: value and _text_or_bytes(value) for name, value in record.headers}
                case "timestamp":
                    variables[name] = None if record.timestamp == NO_TIMESTAMP else record.timestamp
                case "topic":
                    variables[name] = record.topic
        measure = _Measure()
        converted = {name: measure.convert(value)[0] for name, value in variables.items()}
        self._context = cel.Context(variables=converted, functions=self._functions)
        self._at, self._size = (event, record), measure.size()
        return self._context


def _key_of(event: Event, record: Record) -> Any:
    if event.key is None:
        return record.key and _text_or_bytes(record.key)
    if event.key.fault is not None:
        raise Unfit("key", event.key.fault)
    return event.key.datum


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


class _Measure:
    """Converts values to the language's types, and measures them."""

    def __init__(self) -> None:
        self._length = self._characters = 0
        self._weight = self._element = 0.0

    def size(self) -> _Size:
        """Return the size of all that was converted."""
        return _Size(self._weight, self._length, self._element, self._characters)

    def convert(self, value: Any) -> tuple[Any, float]:
        """Return a value of the language and its weight."""
        before = self._weight
        found = self._converted(value)
        return found, self._weight - before

    def _converted(self, value: Any) -> Any:
        kind = type(value)
        self._weight += 1
        if kind is str or kind is bytes:
            self._characters += len(value)
            self._weight += len(value) / 1000
            return value
        if value is None or kind in (int, float, bool):
            return value
        if kind is tuple:
            return self._converted(value[1])
        if kind is dict:
            self._length = max(self._length, len(value))
            return {key: self._converted(inner) for key, inner in value.items()}
        if kind is list:
            self._length = max(self._length, len(value))
            found = [self.convert(inner) for inner in value]
            self._element = max(self._element, *(weight for _, weight in found)) if found else self._element
            return [inner for inner, _ in found]
        return _plain(value)


def _plain(value: Any) -> Any:
    """Return a logical value in the language's type; if its logical type does not allow it, as it was written."""
    if type(value) is LogicalValue:
        try:
            value = exact(value)
        except Unfit:
            return value.raw
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, datetime) and value.tzinfo is not None else to_string(value)


def _cost(tokens: Sequence[Token], names: set[str]) -> _Cost:
    loops = []
    for index, token in enumerate(tokens[:-1]):
        if token.kind == "name" and token.text in MACROS and tokens[index + 1].text == "(":
            body = tokens[index + 2 : closing(tokens, index + 1)]
            wide = any(each.kind == "name" and each.text in {*names, *MACROS} for each in body)
            copies = sum(each.kind == "name" and each.text == body[0].text for each in body[1:]) if body else 0
            loops.append(_Loop(token.depth, token.text in _GROWING, wide, copies))
    return _Cost(
        loops=tuple(loops),
        reads=sum(token.kind == "name" and token.text in VARIABLES for token in tokens),
        additions=sum(token.text == "+" for token in tokens),
        outer_additions=sum(token.text == "+" and token.depth == 0 for token in tokens),
        splits=any(token.text == "split" for token in tokens),
        matches=tuple(token.depth for token in tokens if token.text == "matches"),
        literals=sum(token.text == "," for token in tokens),
    )


def _check_pattern(pattern: Token | None, tokens: Sequence[Token], index: int) -> None:
    """Raise `ValueError` for a regular expression that is not a literal, or has large counted repetitions."""
    if pattern is not None and tokens[index - 1].text != ".":
        pattern = tokens[closing(tokens, index + 1) - 1]  # matches(text, pattern)
    if pattern is None or pattern.kind != "text":
        raise ValueError("the pattern of matches must be written as a text")
    copies = 1
    for low, high in _COUNTED.findall(pattern.text):
        copies *= max(int(low or 0), int(high or 0), 1)
    if copies > _MOST_COPIES:
        raise ValueError(f"the counted repetitions of the pattern multiply to {copies}; allowed: {_MOST_COPIES}")


def _parse_fault(message: str, shown: str) -> str:
    """Return the parser's message without the expression, which may contain a secret."""
    found = re.search(r"ERROR: <input>:(\d+):(\d+): ([^\n|]*)", message)
    return shown if found is None else f"line {found[1]}, column {found[2]} of {shown}"


def _reason(error: BaseException) -> str:
    """Return why an evaluation failed, but never the interpreter's own message, which repeats values."""
    match error:
        case KeyError():
            return "a name that is not there (test it with has(…), or use a default)"
        case IndexError():
            return "an index past the end of a list"
        case TypeError():
            return "types that cannot be combined (convert with int(…), double(…) or string(…))"
        case ZeroDivisionError():
            return "a division by zero"
        case OverflowError():
            return "a number of over 64 bits"
        case _:
            return "a function that cannot take its arguments"


def _sha256(text: Any) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()


def _hmac_sha256(text: Any, key: Any) -> str:
    return hmac.digest(_bytes(key), _bytes(text), "sha256").hex()


def _bytes(value: Any) -> bytes:
    if value is None:
        raise ValueError("null has no hash")
    return value if isinstance(value, bytes) else str(to_string(value)).encode()


def _replace(text: str, old: str, new: str, *count: int) -> str:
    if len(text) + (len(text) + 1) * len(new) > LARGEST_TEXT:
        raise ValueError("the result may be too long")
    return text.replace(old, new, *count)


def _join(texts: list[str], separator: str = "") -> str:
    if sum(map(len, texts)) + len(texts) * len(separator) > LARGEST_TEXT:
        raise ValueError("the result is too long")
    return separator.join(texts)


_OWN: Final[Mapping[str, Callable[..., Any]]] = {
    "sha256": _sha256,
    "hmac_sha256": _hmac_sha256,
    "replace": _replace,
    "join": _join,
}
"""Functions that are added to the interpreter, or that replace its unbounded ones."""
