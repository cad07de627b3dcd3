"""Runs pytest with the compiled modules built with gcc's sanitizers for addresses and undefined behaviour.

    python -m tools.sanitized tests/unit/codec/test_fuzz.py

The checkout is copied, because the sanitized libraries must not replace the right ones. Ends with pytest's exit code,
or with 0 and one line where gcc or its sanitizers are not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = sorted(path.relative_to(ROOT) for path in ROOT.glob("connector/*/*.pyx"))
_COPIED: Final = ("connector", "tests", "tools", "avro", "pyproject.toml")
_FLAGS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"


def sanitizer() -> str | None:
    """Return the path of gcc's address sanitizer, which is loaded before Python; None if there is none."""
    if shutil.which("gcc") is None:
        return None
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    return path if Path(path).is_absolute() else None


def build(folder: Path) -> None:
    """Copy the checkout into a folder and build its compiled modules with sanitizers."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, folder / name)
    # Cython would take the package's name from its folder; setuptools would read pyproject.toml.
    build_folder = folder / "build"
    for module in SOURCES:
        package = build_folder / module.parent
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        for source in (ROOT / module.parent).glob("*.p*x*"):  # the module and what it includes
            shutil.copy(source, package)
    (build_folder / "connector" / "__init__.py").touch()
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", "-3", *map(str, SOURCES)]
    flags = {"CFLAGS": _FLAGS, "LDFLAGS": _FLAGS}
    subprocess.run(command, cwd=build_folder, env={**os.environ, **flags}, check=True, stdout=subprocess.DEVNULL)
    for module in SOURCES:
        (library,) = (build_folder / module.parent).glob("*.so")
        shutil.copy(library, folder / module.parent)


def main(arguments: list[str]) -> int:
    """Build, then run pytest with these arguments."""
    library = sanitizer()
    if library is None:
        print("sanitized: gcc or its libasan is not installed; the sanitized reader is not built")
        return 0
    with tempfile.TemporaryDirectory(prefix="sanitized-") as name:
        folder = Path(name)
        build(folder)
        environment = {
            **os.environ,
            "LD_PRELOAD": library,
            # Python itself frees little at its end. Its own allocator would hide the bounds of its objects.
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        # What a sanitizer reports goes to the process's own stderr, which pytest would keep.
        options = ("-n", "0", "-q", "-p", "no:cacheprovider", "--capture=sys")
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
