"""Compiles the Avro reader by Cython while the package is built.

`CONNECTOR_COMPILE` says how much that matters: `auto` (the default) builds a package of pure Python where there is no C
compiler, `require` fails, `off` does not try. Without the compiled reader fastavro decodes, in several times its time.
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

MODULE = Path("connector/kafka/reader.pyx")


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled module beside its source: into the wheel, or into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is no wheel."""
        wanted = os.environ.get("CONNECTOR_COMPILE", "auto")
        if self.target_name != "wheel":
            return
        if version == "editable":
            # What an edit made old must not be taken for the source, whatever comes of compiling.
            for old in _libraries(Path(self.root) / MODULE.parent):
                old.unlink()
        if wanted == "off":
            return
        self.folder = Path(tempfile.mkdtemp(prefix="compile-"))
        found = self._compile()
        if isinstance(found, str):
            if wanted == "require":
                raise RuntimeError(f"{MODULE} cannot be compiled, and CONNECTOR_COMPILE=require:\n{found}")
            self.app.display_warning(f"{MODULE} is not compiled; fastavro decodes: {found.splitlines()[-1]}")
        elif version == "editable":
            shutil.copy(found, Path(self.root) / MODULE.parent)
        else:
            build_data["force_include"][str(found)] = str(MODULE.parent / found.name)
            build_data.update(infer_tag=True, pure_python=False)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed to build."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _compile(self) -> Path | str:
        """Return the library, or what went wrong. In a folder of its own: setuptools would read pyproject.toml."""
        package = self.folder / MODULE.parent
        package.mkdir(parents=True)
        for parent in (package, package.parent):
            (parent / "__init__.py").touch()
        shutil.copy(Path(self.root) / MODULE, package)
        command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "-3", str(MODULE)]
        done = subprocess.run(  # noqa: S603 -- this interpreter, on our own file
            command, cwd=self.folder, capture_output=True, text=True, check=False
        )
        found = _libraries(package)
        return found[0] if done.returncode == 0 and found else (done.stdout + done.stderr).strip() or "nothing written"


def _libraries(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{MODULE.stem}.*") if path.suffix in {".so", ".pyd"}]
