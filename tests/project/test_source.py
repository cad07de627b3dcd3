"""What every file of the project keeps to: size, docstrings, no loose ends, nothing of one machine."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tools.source import ROOT, Module, modules, tracked

LONGEST_FILE = 600
LONGEST_FUNCTION = 60
ALL = {str(module.path): module for module in modules()}
PACKAGES = {path: module for path, module in ALL.items() if module.path.name == "__init__.py"}


def functions(module: Module) -> list[tuple[str, int]]:
    """Return name and number of lines of each function in the module."""
    nodes = (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(f"{module.path}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1) for node in nodes]


def test_files_are_read_in_one_sitting() -> None:
    """No Python file is longer than 600 lines."""
    long = {path: count for path, module in ALL.items() if (count := module.text.count("\n")) > LONGEST_FILE}
    assert long == {}


def test_functions_fit_on_a_screen() -> None:
    """No function is longer than 60 lines."""
    long = [(name, lines) for module in ALL.values() for name, lines in functions(module) if lines > LONGEST_FUNCTION]
    assert long == []


@pytest.mark.parametrize("path", PACKAGES)
def test_a_package_says_what_it_is_for(path: str) -> None:
    """Every package opens with a docstring; that of a room is a paragraph and says what never enters."""
    docstring = ast.get_docstring(PACKAGES[path].tree) or ""
    assert docstring
    if len(Path(path).parts) == 3:
        assert len(docstring) > 150


def test_no_module_is_a_magnet() -> None:
    """No module has a name that anything could be put under."""
    assert [path for path, module in ALL.items() if re.search(r"\b(utils?|helpers?|misc)\b", module.name)] == []


def test_names_of_test_modules_are_unique() -> None:
    """Two test modules never share a name, so that a report names one file."""
    counts = Counter(stem for module in modules("tests") if (stem := module.path.stem).startswith("test_"))
    assert [name for name, count in counts.items() if count > 1] == []


LOOSE_ENDS = {
    "something left for later": rf"\b({'TO' + 'DO'}|{'FIX' + 'ME'}|{'XX' + 'X'}|{'HA' + 'CK'})\b",
    "an address of a package index": rf"extra-{'index'}|{'index'}-url|https?://\S*(pypi|pythonhosted|npmjs|repo\d?\.maven)",
    "a folder of one machine": rf"(^|[^A-Za-z0-9_.])/({'wo' + 'rk'}|{'fa' + 'rm'}|home/\w+)/|{re.escape(str(ROOT))}/",
}


@pytest.mark.parametrize("what", LOOSE_ENDS)
def test_nothing_is_left_lying_about(what: str) -> None:
    """No file holds a reminder, an index's address, or a path that exists on one machine only."""
    pattern = re.compile(LOOSE_ENDS[what], re.MULTILINE)
    found = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


def test_requirements_are_pinned_and_hashed() -> None:
    """Each requirement has one version and at least one hash, and development runs what users run."""
    pins: dict[str, set[str]] = {}
    for name in ("runtime", "otel", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        entries = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        assert entries
        assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+ .*\\$", entry)] == []
        assert len(re.findall(r"\\\n    --hash=sha256:", text)) >= len(entries)
        pins[name] = set(entries)
    assert pins["runtime"] <= pins["otel"] <= pins["dev"]
