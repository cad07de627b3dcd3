"""Compiles the modules that cost a record most with mypyc while the package is built, each by itself.

`CONNECTOR_COMPILE` says how much that matters: `auto` (the default) builds a package of pure Python where there is no C
compiler, `require` fails, `off` does not try. A compiled module does the same in less time.
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

MODULES = (Path("connector/kafka/reader.py"), Path("connector/vendors/jiguang_event.py"))


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled module beside its source: into the wheel, or into the checkout of an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless this is no wheel."""
        wanted = os.environ.get("CONNECTOR_COMPILE", "auto")
        if self.target_name != "wheel" or wanted == "off":
            return
        self.folder = Path(tempfile.mkdtemp(prefix="compile-"))
        for module in MODULES:
            found = self._compile(module)
            if isinstance(found, str):
                if wanted == "require":
                    raise RuntimeError(f"{module} cannot be compiled, and CONNECTOR_COMPILE=require:\n{found}")
                self.app.display_warning(f"{module} is not compiled and takes longer: {found.splitlines()[-1]}")
                continue
            for library in found:
                if version == "editable":
                    shutil.copy(library, Path(self.root) / module.parent)
                else:
                    build_data["force_include"][str(library)] = str(module.parent / library.name)
                    build_data.update(infer_tag=True, pure_python=False)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed to build."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _compile(self, module: Path) -> list[Path] | str:
        """Return the libraries, or what went wrong. In a folder of its own: setuptools would read pyproject.toml."""
        package = self.folder / module.stem / module.parent
        package.mkdir(parents=True)
        for parent in (package, package.parent):
            (parent / "__init__.py").touch()
        shutil.copy(Path(self.root) / module, package)
        environment = {**os.environ, "MYPYC_OPT_LEVEL": "3"}
        # What it imports is called as Python calls it, whatever its types: installed or not, the result is the same.
        command = [sys.executable, "-m", "mypyc", "--follow-imports=skip", "--ignore-missing-imports", str(module)]
        done = subprocess.run(  # noqa: S603 -- this interpreter, on our own file
            command, cwd=self.folder / module.stem, env=environment, capture_output=True, text=True, check=False
        )
        found = sorted(package.glob("*.so")) + sorted(package.glob("*.pyd"))
        return found if done.returncode == 0 and found else (done.stdout + done.stderr).strip() or "mypyc wrote nothing"
