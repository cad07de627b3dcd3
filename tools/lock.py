"""Writes requirements/*.txt from pyproject.toml: every version pinned, every file hashed.

`build` is the build backend, which production does not need. The files contain no index address: each user's pip has
its own. `make lock` runs this and installs pip-tools.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = (
    *("--quiet", "--generate-hashes", "--strip-extras", "--allow-unsafe"),
    *("--newline=lf", "--no-annotate", "--no-header", "--no-emit-options"),
)


def lock(name: str, wanted: list[str], upgrade: list[str]) -> None:
    """Resolve `wanted` into requirements/<name>.txt. Existing versions stay unless `upgrade` changes them."""
    target = ROOT / "requirements" / f"{name}.txt"
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *upgrade, "--output-file", str(target), "-"]
    subprocess.run(command, input="\n".join(wanted), text=True, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    head = f"# {name}: pinned and hashed by `make lock`; change pyproject.toml, not this file.\n"
    target.write_text(head + target.read_text(encoding="utf-8").removeprefix(head), encoding="utf-8")


def main() -> None:
    """Lock the runtime first, then the extras and the development tools with the same runtime versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    upgrade = sys.argv[1:]
    runtime, backend = project["project"]["dependencies"], project["build-system"]["requires"]
    lock("runtime", runtime, upgrade)
    lock("build", backend, upgrade)
    pins = f"-c {ROOT / 'requirements' / 'runtime.txt'}"
    optional = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    for name, extra in optional.items():
        lock(name, [pins, *runtime, *extra], upgrade)
    extras = [item for extra in optional.values() for item in extra]
    lock("dev", [pins, *runtime, *backend, *extras, *groups["dev"]], upgrade)
    lock("docs", [pins, *groups["docs"]], upgrade)


if __name__ == "__main__":
    main()
