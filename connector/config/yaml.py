"""From the file's text to plain values: YAML with every duplicate key found, and `${…}` resolved.

Scalars are read as YAML 1.2 does, more strictly: only `true` and `false` are booleans, and a number with a leading
zero, an exponent without a point, a date or a time stays text. So an id or a country code is never turned into
something else. Keys are always text.

No message repeats a value of the file: a password that begins with `*`, `!` or `@` is a syntax error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from connector.errors import Fault

MAX_SECRET_BYTES: Final = 1 << 20

_TAG: Final = "tag:yaml.org,2002:"
_REFERENCE: Final = re.compile(r"(\$\$\{)|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED: Final = re.compile(r"'[^']{2,}'")


class _Loader(yaml.SafeLoader):
    """A loader used for its parser and resolver only; values are built by `_Builder`."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-0123456789"),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def join(path: str, part: str | int) -> str:
    """Return the path of a key or an index below `path`: `a.b`, `a[0]`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if path else part


def parse(text: str) -> tuple[Any, list[Fault]]:
    """Return the file's values, and what is wrong with its YAML: syntax, duplicate keys, unknown tags."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "YAML"
        return None, [Fault(where, f"not YAML: {_problem_of(error)}")]
    except yaml.reader.ReaderError as error:
        return None, [Fault("", f"not YAML: a character at position {error.position} is not allowed")]
    builder = _Builder()
    value = builder.build(node, "") if node is not None else None
    return value, builder.faults


def _problem_of(error: yaml.MarkedYAMLError) -> str:
    """Return the parser's words without the text of an alias, an anchor or a tag: it may be a secret without quotes."""
    problem = error.problem or "cannot be read"
    if not re.search("alias|anchor|tag|directive|start any token", problem):
        return problem
    return f"{_QUOTED.sub('(hidden)', problem)}; text that begins with one of *&!%@` needs quotes"


class _Builder:
    """Builds plain values of YAML nodes and collects what is wrong with them."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: str) -> Any:
        """Return the node's value. An alias inside its own anchor is a fault, not an endless value."""
        if id(node) in self._open:
            self._fault(node, path, "is an alias of something that contains it")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(child, join(path, index)) for index, child in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        """Return a scalar's value by its tag."""
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "merge" | "value":
                return text
            case "null":
                return None
            case "bool" if text.lower() in {"true", "false"}:
                return text.lower() == "true"
            case "int" | "float" as kind:
                try:
                    return int(text) if kind == "int" else float(text)
                except ValueError:
                    self._fault(node, path, "is not the number that its tag says")
            case _:
                self._fault(node, path, "has a YAML tag that is not supported; text that begins with ! needs quotes")
        return None

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        """Return a mapping with text keys; `<<` gives defaults, a key that stands twice is a fault."""
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key is a text, not a list or a mapping")
                continue
            key = key_node.value
            if key_node.tag == f"{_TAG}merge":
                for defaults in self._defaults(value_node, path):
                    merged = {**defaults, **merged}
                continue
            if key in own:
                self._fault(key_node, join(path, key), "stands twice; keep one")
            own[key] = self.build(value_node, join(path, key))
        return {**merged, **own}

    def _defaults(self, node: yaml.Node, path: str) -> Iterator[dict[str, Any]]:
        """Yield the mappings that `<<` names, one or a list."""
        for child in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.build(child, path)
            if isinstance(value, dict):
                yield value
            else:
                self._fault(child, join(path, "<<"), "takes a mapping or a list of mappings")

    def _fault(self, node: yaml.Node, path: str, message: str) -> None:
        """Note a fault with the line where it stands."""
        self.faults.append(Fault(path, f"{message} (line {node.start_mark.line + 1})"))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves `${NAME}`, `${NAME:-default}`, `${file:PATH}`; `$${` stands for `${`.

    A default is taken where the variable is unset or empty, as in a shell. A file's path is relative to `folder`; the
    newline at its end is dropped.
    """

    env: Mapping[str, str]
    folder: Path

    def resolve(self, value: Any, path: str, faults: list[Fault]) -> Any:
        """Return `value` with every reference in its texts resolved; what is missing is added to `faults`."""
        if isinstance(value, dict):
            return {key: self.resolve(child, join(path, key), faults) for key, child in value.items()}
        if isinstance(value, list):
            return [self.resolve(child, join(path, index), faults) for index, child in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        problems: list[str] = []

        def replace(match: re.Match[str]) -> str:
            escaped, reference, closed = match.groups()
            if escaped:
                return "${"
            return self._lookup(reference, problems) if closed else self._problem("${ without }", problems)

        text = _REFERENCE.sub(replace, value)
        faults.extend(Fault(path, problem) for problem in problems)
        return None if problems else text

    @staticmethod
    def _problem(problem: str, problems: list[str]) -> str:
        """Note a problem and return an empty text."""
        problems.append(problem)
        return ""

    def _lookup(self, reference: str, problems: list[str]) -> str:
        """Return what one reference stands for."""
        if reference.startswith("file:"):
            return self._file(reference.removeprefix("file:"), problems)
        name, has_default, default = reference.partition(":-")
        if not _NAME.fullmatch(name):
            return self._problem(
                "${…} takes NAME, NAME:-default or file:PATH; write $${ for the characters themselves", problems
            )
        found = self.env.get(name)
        if has_default:
            return found or default
        if found is None:
            return self._problem(f"the environment variable {name} is not set", problems)
        return found

    def _file(self, name: str, problems: list[str]) -> str:
        """Return a file's text without the newline at its end."""
        try:
            with (self.folder / name).open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            return self._problem(f"the file {name} cannot be read: {reason}", problems)
        if len(content) > MAX_SECRET_BYTES:
            return self._problem(f"the file {name} is larger than {MAX_SECRET_BYTES} bytes", problems)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return self._problem(f"the file {name} is not UTF-8 text", problems)
        return text.removesuffix("\n").removesuffix("\r")
