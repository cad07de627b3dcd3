"""Compiles what costs a record most by Cython while the package is built: the Avro reader, and the text of ids.

`CONNECTOR_COMPILE` says how much that matters: `auto` (the default) builds a package of pure Python where there is no C
compiler, `require` fails, `off` does not try. Without it fastavro decodes, in many times the time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULES = (Path("connector/codec/reader.pyx"),)


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled module beside its source: into the wheel, or into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is no wheel."""
        wanted = os.environ.get("CONNECTOR_COMPILE", "auto")
        if self.target_name != "wheel":
            return
        if version == "editable":
            # What an edit made old must not be taken for the source, nor what is no longer compiled.
            for old in Path(self.root, "connector").rglob("*.so"):
                old.unlink()
        if wanted == "off":
            return
        self.folder = Path(tempfile.mkdtemp(prefix="compile-"))
        said = self._compile()
        for module in MODULES:
            for library in _libraries(self.folder / module):
                if version == "editable":
                    shutil.copy(library, Path(self.root) / module.parent)
                else:
                    build_data["force_include"][str(library)] = str(module.parent / library.name)
                    build_data.update(infer_tag=True, pure_python=False)
        if said is not None:
            if wanted == "require":
                raise RuntimeError(f"CONNECTOR_COMPILE=require, and compiling failed:\n{said}")
            self.app.display_warning(f"not compiled, so that records cost more time: {said.splitlines()[-1]}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed to build."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _compile(self) -> str | None:
        """Compile; return what went wrong. In a folder of its own: setuptools would read pyproject.toml."""
        for module in MODULES:
            package = self.folder / module.parent
            package.mkdir(parents=True, exist_ok=True)
            (package / "__init__.py").touch()
            shutil.copy(Path(self.root) / module, package)
        command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "-3", *map(str, MODULES)]
        done = subprocess.run(  # noqa: S603 -- this interpreter, on our own files
            command, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and all(_libraries(self.folder / module) for module in MODULES):
            return None
        return (done.stdout + done.stderr).strip() or "nothing was written"


def _libraries(module: Path) -> list[Path]:
    return [path for path in module.parent.glob(f"{module.stem}.*") if path.suffix in {".so", ".pyd"}]
