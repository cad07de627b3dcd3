"""Which Avro types can become which fields, and which can equal which values: the tables of `docs/routing.md`. Pure.

Only what can never work is a fault: a union is refused only if none of its branches can work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from connector.config.errors import kind, suggest

Node = Mapping[str, Any]
"""A type of a schema, as parsed JSON, references resolved."""
Nodes = Sequence[Node]

STRING: Final[Node] = {"type": "string"}

_TIMES: Final = ("timestamp",)
_TEXTS: Final = ("string", "enum", "uuid", "timestamp", "local timestamp", "date", "time of day")
_NUMBERS: Final = ("whole number", "number", "decimal")
_FITS: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({*_TEXTS, *_NUMBERS, "boolean"}),
    "long": frozenset({"string", *_NUMBERS}),
    "boolean": frozenset({"string", "enum", "boolean", "whole number"}),
    "millis": frozenset({"string", *_NUMBERS, *_TIMES}),
    "seconds": frozenset({"string", *_NUMBERS, *_TIMES}),
    "map": frozenset({"record", "map"}),
    "string_map": frozenset({"record", "map"}),
    "strings": frozenset({"array"}),
    "records": frozenset({"array"}),
    "string_records": frozenset({"array"}),
    "id": frozenset({"string", "enum", "uuid", "whole number"}),
    "any": frozenset({*_TEXTS, *_NUMBERS, "boolean", "record", "map", "array"}),
}
_ITEMS: Final = {"strings": "string", "records": "map", "string_records": "map"}
WANTED: Final = {
    "string": "text",
    "long": "a whole number",
    "boolean": "true or false",
    "millis": "a time",
    "seconds": "a time",
    "map": "a map",
    "string_map": "a map of texts",
    "strings": "a list of texts",
    "records": "a list of records",
    "string_records": "a list of records",
    "id": "text, a whole number or a UUID",
    "any": "a JSON value",
}
_PLAIN: Final = {"int": "whole number", "long": "whole number", "float": "number", "double": "number"}
_LOGICAL: Final = {
    "decimal": "decimal",
    "uuid": "uuid",
    "date": "date",
    **{f"time-{unit}": "time of day" for unit in ("millis", "micros")},
    **{f"timestamp-{unit}": "timestamp" for unit in ("millis", "micros", "nanos")},
    **{f"local-timestamp-{unit}": "local timestamp" for unit in ("millis", "micros", "nanos")},
}


def name_of(node: Node) -> str:
    """Return the type's name for people, such as string, decimal, timestamp or array."""
    base = str(node.get("type"))
    logical = _LOGICAL.get(str(node.get("logicalType")))
    return logical or _PLAIN.get(base) or {"error": "record"}.get(base, base)


def a(name: str) -> str:
    """Return a noun with its article."""
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def unfit(nodes: Nodes | None, wanted: str, what: str = "the field") -> str | None:
    """Return why values of these types can never become the type `wanted` of `what`; None if some can."""
    there = [node for node in nodes or () if name_of(node) != "null"]
    # A union may have any of its branches, so one that works is enough. A value of another branch is refused when it
    # comes.
    if not there or any(_fits(node, wanted) for node in there):
        return None
    names = " or ".join(dict.fromkeys(_described(node) for node in there))
    return f"it is {names}, and {what} wants {WANTED[wanted]}"


def _fits(node: Node, wanted: str) -> bool:
    if node.get("hash"):
        return wanted in ("string", "any")
    if name_of(node) not in _FITS[wanted]:
        return False
    items = node.get("items")
    return wanted not in _ITEMS or unfit(items, _ITEMS[wanted]) is None


def _described(node: Node) -> str:
    items = [name_of(item) for item in node.get("items") or () if name_of(item) != "null"]
    if items:
        return f"an array of {' or '.join(dict.fromkeys(items))}"
    return "a hash, which is text" if node.get("hash") else a(name_of(node))


def constant_nodes(value: Any) -> Nodes:
    """Return the type of a value of the configuration."""
    match value:
        case bool():
            return ({"type": "boolean"},)
        case int():
            return ({"type": "long"},)
        case float():
            return ({"type": "double"},)
        case dict():
            return ({"type": "map"},)
        case list():
            return ({"type": "array", "items": [node for each in value for node in constant_nodes(each)]},)
        case _:
            return (STRING,)


def never_equal(nodes: Nodes | None, option: object) -> str | None:
    """Return why a value of these types never equals `option`; None if it may."""
    there = [node for node in nodes or () if name_of(node) != "null"]
    if not there or option is None:
        return None
    if isinstance(option, str):
        enums = [node for node in there if name_of(node) == "enum"]
        symbols = {symbol for node in enums for symbol in node.get("symbols", ())}
        if enums and len(enums) == len(there) and option not in symbols:
            return f"the enum has no symbol '{option}'; {suggest(option, symbols, 'symbols')}"
        names: Iterable[str] = _TEXTS
    else:
        names = ("boolean",) if isinstance(option, bool) else _NUMBERS
    if any(name_of(node) in names for node in there):
        return None
    return _mismatch(there, option)


def never_ordered(nodes: Nodes | None, bound: object) -> str | None:
    """Return why a value of these types is never greater or less than `bound`; None if it may be."""
    there = [node for node in nodes or () if name_of(node) != "null"]
    names = _NUMBERS if not isinstance(bound, str) else tuple(name for name in _TEXTS if name != "enum")
    if not there or any(name_of(node) in names for node in there):
        return None
    return _mismatch(there, bound)


def never_text(nodes: Nodes | None) -> str | None:
    """Return why a value of these types is never text; None if it may be."""
    there = [node for node in nodes or () if name_of(node) != "null"]
    if not there or any(name_of(node) in _TEXTS for node in there):
        return None
    return _mismatch(there, "text")


def never_found(nodes: Nodes | None, is_found: Callable[[str], bool], pattern: str) -> str | None:
    """Return why a pattern matches no symbol of an enum; None if it may match one."""
    there = [node for node in nodes or () if name_of(node) != "null"]
    if not there or any(name_of(node) != "enum" for node in there):
        return None
    symbols = {symbol for node in there for symbol in node.get("symbols", ())}
    if any(map(is_found, symbols)):
        return None
    return f"no symbol of the enum matches '{pattern}'; its symbols: {', '.join(sorted(symbols))}"


def _mismatch(there: Nodes, option: object) -> str:
    names = " or ".join(dict.fromkeys(a(name_of(node)) for node in there))
    return f"the value is {names}, and never equals {kind(option)}"
