"""The source code as data, for generated documents and for tests of the code itself."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = ("connector", "tests", "tools", "benchmarks")


@dataclass(frozen=True)
class Module:
    """One Python file, parsed. `path` is relative to the repository."""

    path: Path

    @cached_property
    def text(self) -> str:
        """The file's content."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, str(self.path))

    @property
    def name(self) -> str:
        """Its dotted name; a package's `__init__.py` has the package's."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def headline(self) -> str:
        """The first line of its docstring, or an empty text."""
        if self.path.suffix == ".pyx":
            return self.text.partition('"""')[2].partition("\n")[0].removesuffix('"""')
        return (ast.get_docstring(self.tree) or "").partition("\n")[0]

    def imported(self) -> Iterator[tuple[int, str]]:
        """Yield line and dotted name of every import, also inside functions; `from a import b` yields `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def modules(*folders: str) -> list[Module]:
    """Return every Python file of the folders (default: all of the project's), sorted by path."""
    paths = (path for folder in folders or FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [Module(path.relative_to(ROOT)) for path in sorted(paths)]


def compiled() -> list[Module]:
    """Return every Cython file of the package. Python cannot parse them, but each has a headline."""
    return [Module(path.relative_to(ROOT)) for path in sorted((ROOT / "connector").rglob("*.pyx"))]


def tracked() -> list[Path]:
    """Return every file that git tracks or would add, relative to the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines() if (ROOT / line).is_file()]
