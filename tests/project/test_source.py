"""Rules for every file of the project: size, docstrings, no reminders, nothing specific to one machine."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tools.source import ROOT, Module, modules, tracked

LONGEST_FILE = 600
LOOKED_AT = {
    "connector/pipeline/intake.py": "one record's way from the poll to its destinations, read from top to bottom",
}
"""Longer files that were looked at and are one thought."""
LONGEST_FUNCTION = 60
ALL = {str(module.path): module for module in modules()}
PACKAGES = {path: module for path, module in ALL.items() if module.path.name == "__init__.py"}


def functions(module: Module) -> list[tuple[str, int]]:
    """Return the name and number of lines of each function in the module."""
    nodes = (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(f"{module.path}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1) for node in nodes]


def test_files_are_short_enough() -> None:
    """No Python file has more than 600 lines."""
    long = {
        path: count
        for path, module in ALL.items()
        if (count := module.text.count("\n")) > LONGEST_FILE and path not in LOOKED_AT
    }
    assert long == {}


def test_functions_are_short_enough() -> None:
    """No function has more than 60 lines."""
    long = [(name, lines) for module in ALL.values() for name, lines in functions(module) if lines > LONGEST_FUNCTION]
    assert long == []


@pytest.mark.parametrize("path", PACKAGES)
def test_every_package_states_its_purpose(path: str) -> None:
    """Every package has a docstring; a connector package's is a paragraph that also says what it never contains."""
    docstring = ast.get_docstring(PACKAGES[path].tree) or ""
    assert docstring
    if len(Path(path).parts) == 3:
        assert len(docstring) > 150


def test_no_module_has_a_vague_name() -> None:
    """No module has a name under which anything could be put."""
    assert [path for path, module in ALL.items() if re.search(r"\b(utils?|helpers?|misc)\b", module.name)] == []


def test_names_of_test_modules_are_unique() -> None:
    """Two test modules never have the same name, so a report identifies one file."""
    counts = Counter(stem for module in modules("tests") if (stem := module.path.stem).startswith("test_"))
    assert [name for name, count in counts.items() if count > 1] == []


LOOSE_ENDS = {
    "something left for later": rf"\b({'TO' + 'DO'}|{'FIX' + 'ME'}|{'XX' + 'X'}|{'HA' + 'CK'})\b",
    "an address of a package index": rf"extra-{'index'}|{'index'}-url|https?://\S*(pypi|pythonhosted|npmjs|repo\d?\.maven)",
    "a folder of one machine": rf"(^|[^A-Za-z0-9_.])/({'wo' + 'rk'}|{'fa' + 'rm'}|home/\w+)/|{re.escape(str(ROOT))}/",
}


SCAFFOLDING = {
    "CHANGELOG.md",
    "README.md",
    "connector/cli/init.py",
    "connector/operations/field_choices.py",
    "connector/operations/scaffold.py",
    "docs/decisions/0022-mapping-tests.md",
    "docs/tutorial.md",
    "tests/unit/cli/test_init.py",
}
"""Files about what `connector init` leaves for the user to fill in."""


@pytest.mark.parametrize("what", LOOSE_ENDS)
def test_no_file_contains_leftovers(what: str) -> None:
    """No file contains a reminder, an index address, or a path of one machine."""
    pattern = re.compile(LOOSE_ENDS[what], re.MULTILINE)
    found = []
    for path in tracked():
        if what == "something left for later" and str(path) in SCAFFOLDING:
            continue
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


def test_requirements_are_pinned_and_hashed() -> None:
    """Each requirement has one version and at least one hash, and development uses the runtime versions."""
    pins: dict[str, set[str]] = {}
    for name in ("runtime", "build", "expressions", "otel", "dev", "docs"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        entries = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        assert entries
        assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+ .*\\$", entry)] == []
        assert len(re.findall(r"\\\n    --hash=sha256:", text)) >= len(entries)
        pins[name] = set(entries)
    assert pins["runtime"] <= pins["otel"] <= pins["dev"]
