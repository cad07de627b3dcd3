"""Reads the file's text into plain values: YAML, with every duplicate key reported and `${…}` resolved.

Scalars are read as in YAML 1.2, but more strictly: only `true` and `false` are booleans, and a number with a leading
zero, an exponent without a point, a date or a time stays text. So an id or a country code never becomes something else.
Keys are always text.

No message repeats a value of the file: an unquoted password that begins with `*`, `!` or `@` is a syntax error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from connector.errors import ConfigFault
from connector.telemetry.redaction import HIDDEN

MAX_FILE_BYTES: Final = 1 << 20
"""The largest configuration, and the largest secret file: what Kubernetes allows for a ConfigMap or a Secret."""
MAX_DEPTH: Final = 64
"""How deeply lists and mappings may be nested; the parser is recursive."""
MAX_VALUES: Final = 100_000
"""Maximum values of a file once its aliases are expanded: nested aliases could make 10^10 of them."""

MAX_PATHS: Final = 32 << 20
"""Maximum characters of the paths of all values: each value keeps its own path, and a long key is part of many."""

_TAG: Final = "tag:yaml.org,2002:"
_REFERENCE: Final = re.compile(r"(\$\$\{)|\$\{([^}]*)(\}?)")
_HALF: Final = re.compile("[\ud800-\udfff]")
_NO_TEXT: Final = r"has half of a character (\ud800 to \udfff), which no text has"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHORTEST: Final = 4
_QUOTED: Final = re.compile(r"'[^']{2,}'")


class _Loader(yaml.SafeLoader):
    """A loader of which only the parser and the resolver are used; `_Builder` builds the values."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; a node that is nested too deeply is an error."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                event = self.peek_event()  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(
                    problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=event.start_mark
                )
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self._depth -= 1


# PyYAML's own rules are YAML 1.1: `no` is false, 010 is 8, 2026-11-20 a date. A country, an id or a topic would change.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-0123456789"),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _tag, re.compile(f"^(?:{_pattern})$"), list(_first))


class Document(NamedTuple):
    """A parsed file: its value, the faults of its YAML, and the line of each path, from 1."""

    value: Any
    faults: list[ConfigFault]
    lines: Mapping[str, int]


def join(path: str, part: str | int) -> str:
    """Return the path of a key or an index below `path`: `a.b`, `a[0]`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if path else part


def read_text(path: Path) -> str:
    """Return a file's text; never blocks. Raises `ValueError` with the reason if it cannot be read.

    Pipes and devices are refused: a pipe without a writer would block, and /dev/zero has no end.
    """
    try:
        # O_NONBLOCK, because opening a pipe would wait for a writer before its kind can be checked.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def parse(text: str) -> Document:
    """Return the file's values and the faults of its YAML: syntax, duplicate keys, unknown tags, its size."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "YAML"
        return Document(None, [ConfigFault(where, f"invalid YAML: {_problem_of(error)}")], {})
    except yaml.reader.ReaderError as error:
        return Document(None, [ConfigFault("", f"invalid YAML: control character at position {error.position}")], {})
    builder = _Builder()
    try:
        value = builder.build(node, "") if node is not None else None
    except _TooLargeError as error:
        return Document(None, [ConfigFault("", f"the file {error}")], {})
    return Document(value, builder.faults, builder.lines)


def _problem_of(error: yaml.MarkedYAMLError) -> str:
    """Return the parser's message without the name of an alias, anchor or tag, which may be an unquoted secret."""
    problem = error.problem or "cannot be read"
    if problem.endswith("but got '['"):
        return f"{problem}; quote a path with [] inside braces or brackets"
    # Only these of the parser's messages quote the file.
    if not re.search("alias|anchor|tag|directive|start any token", problem):
        return problem
    return f"{_QUOTED.sub('(hidden)', problem)}; quote text that begins with one of *&!%@`"


class _TooLargeError(Exception):
    """The values would take too much memory for a configuration."""


class _Builder:
    """Builds plain values from YAML nodes and collects their faults."""

    def __init__(self) -> None:
        self.faults: list[ConfigFault] = []
        self.lines: dict[str, int] = {}
        self._open: set[int] = set()
        self._values = 0
        self._paths = 0

    def build(self, node: yaml.Node, path: str) -> Any:
        """Return the node's value. An alias inside its own anchor is a fault, not an endless value."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooLargeError(
                f"has more than {MAX_VALUES} values once its aliases are expanded; write fewer aliases"
            )
        self._paths += len(path)
        if self._paths > MAX_PATHS:
            raise _TooLargeError("has keys that are too long for so many values; write shorter keys")
        if id(node) in self._open:
            self._fault(node, path, "the alias refers to something that contains it")
            return None
        self._open.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
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
        if _HALF.search(text):
            self._fault(node, path, _NO_TEXT)
            return None
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
                    self._fault(node, path, "is not a valid number")
            case _:
                self._fault(node, path, "the YAML tag is not supported; quote text that begins with !")
        return None

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        """Return a mapping with text keys; `<<` gives defaults, and a duplicate key is a fault."""
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key must be a string, not a list or a mapping")
                continue
            key = key_node.value
            if _HALF.search(key):
                self._fault(key_node, path, f"a key {_NO_TEXT}")
                continue
            if key_node.tag == f"{_TAG}merge":
                for defaults in self._defaults(value_node, path):
                    merged = {**defaults, **merged}
                continue
            below = join(path, key)
            if key in own:
                self._fault(key_node, below, f"duplicate key; it is also on line {self.lines[below]}")
            # The line of the key, because the value may begin on a later line.
            self.lines.setdefault(below, key_node.start_mark.line + 1)
            own[key] = self.build(value_node, below)
        return {**merged, **own}

    def _defaults(self, node: yaml.Node, path: str) -> Iterator[dict[str, Any]]:
        """Yield the mappings that `<<` names, one or a list."""
        for child in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.build(child, path)
            if isinstance(value, dict):
                yield value
            else:
                self._fault(child, join(path, "<<"), "must be a mapping or a list of mappings")

    def _fault(self, node: yaml.Node, path: str, message: str) -> None:
        """Add a fault with its line."""
        self.faults.append(ConfigFault(path, message, node.start_mark.line + 1))


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves `${NAME}`, `${NAME:-default}` and `${file:PATH}`; `$${` stands for `${`.

    As in a shell, the default is used if the variable is unset or empty. A file's path is relative to `folder`, and the
    newline at its end is dropped. `missing`, if given, returns a placeholder for a missing value by its path.
    """

    env: Mapping[str, str]
    folder: Path
    missing: Callable[[str], str] | None = None
    _resolved: dict[str, str] = field(default_factory=dict)

    def resolve(self, value: Any, path: str, faults: list[ConfigFault], *, missing: str | None = None) -> Any:
        """Return `value` with every reference in its texts resolved; add missing references to `faults`.

        Text with a missing reference becomes the placeholder.
        """
        if isinstance(value, dict):
            return {key: self.resolve(child, join(path, key), faults, missing=missing) for key, child in value.items()}
        if isinstance(value, list):
            return [self.resolve(each, join(path, index), faults, missing=missing) for index, each in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        problems: list[str] = []

        def lookup(match: re.Match[str]) -> str:
            escaped, reference, closed = match.groups()
            if escaped:
                return "${"
            return (
                self._lookup(reference, path, problems) if closed else self._problem("${ without a closing }", problems)
            )

        text = _REFERENCE.sub(lookup, value)
        faults.extend(ConfigFault(path, problem) for problem in problems)
        self._resolved[path] = text
        return missing if problems else text

    def hide(self, fault: ConfigFault) -> ConfigFault:
        """Return a fault without the value of a reference at its path, which may be a misplaced secret."""
        text = self._resolved.get(fault.path)
        if not text:
            return fault
        message = fault.message.replace(f"'{text}'", HIDDEN)
        # Shorter text would also be found inside other words, so only the quoted value is replaced.
        message = message.replace(text, HIDDEN) if len(text) >= _SHORTEST else message
        return replace(fault, message=message)

    @staticmethod
    def _problem(problem: str, problems: list[str]) -> str:
        """Add a problem and return an empty text."""
        problems.append(problem)
        return ""

    def _lookup(self, reference: str, path: str, problems: list[str]) -> str:
        """Return the value of one reference."""
        if reference.startswith("file:"):
            return self._file(reference.removeprefix("file:"), path, problems)
        name, has_default, default = reference.partition(":-")
        if not _NAME.fullmatch(name):
            usage = "write ${NAME}, ${NAME:-default} or ${file:PATH}, and $${ for a literal ${"
            return self._problem(f"invalid reference: {usage}", problems)
        found = self.env.get(name)
        if has_default:
            return found or default
        if found is None and self.missing is not None:
            return self.missing(path)
        if found is None:
            return self._problem(f"the environment variable {name} is not set", problems)
        return found

    def _file(self, name: str, path: str, problems: list[str]) -> str:
        """Return a file's text without the newline at its end."""
        try:
            text = read_text(self.folder / name)
        except ValueError as error:
            if self.missing is not None:
                return self.missing(path)
            # A path with a null byte raises ValueError in the system call.
            reason = "cannot be read: not a valid path" if "\0" in name else error
            return self._problem(f"the file {name} {reason}", problems)
        return text.removesuffix("\n").removesuffix("\r")
