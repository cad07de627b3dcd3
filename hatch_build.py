"""Compiles the Cython modules while the package is built. It needs a C compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (
    Path("connector/codec/reader.pyx"),
    Path("connector/dead_letters/block.pyx"),
    Path("connector/console/scan.pyx"),
)


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled module next to its source: into the wheel, or into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is not a wheel. Raises `RuntimeError` with the compiler's output."""
        if self.target_name != "wheel":
            return
        if version == "editable":
            # A library that is older than its source would hide the edit.
            for old in Path(self.root, "connector").rglob("*.so"):
                old.unlink()
        self.folder = Path(tempfile.mkdtemp(prefix="compile-"))
        self._compile()
        for module in MODULES:
            for library in _libraries(self.folder / module):
                if version == "editable":
                    shutil.copy(library, Path(self.root) / module.parent)
                else:
                    build_data["force_include"][str(library)] = str(module.parent / library.name)
                    build_data.update(infer_tag=True, pure_python=False)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed to build."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _compile(self) -> None:
        """Compile in a folder of its own: setuptools would read pyproject.toml."""
        for module in MODULES:
            package = self.folder / module.parent
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
            for source in (Path(self.root) / module, *(Path(self.root) / module.parent).glob("*.pxi")):
                shutil.copy(source, package)
        command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "-3", *map(str, MODULES)]
        done = subprocess.run(  # noqa: S603 -- this interpreter, on our own files
            command, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not all(_libraries(self.folder / module) for module in MODULES):
            raise RuntimeError(f"compiling failed; install a C compiler (gcc)\n{done.stdout}{done.stderr}")


def _libraries(module: Path) -> list[Path]:
    return [path for path in module.parent.glob(f"{module.stem}.*") if path.suffix in {".so", ".pyd"}]
