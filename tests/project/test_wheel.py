"""The built wheel works without the checkout, which would hide missing files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from connector import __version__
from tools.source import ROOT

pytestmark = pytest.mark.timeout(600)
"""The fixture compiles, which takes a minute of CPU."""

PARTS = ("avro", "connector", "hatch_build.py", "LICENSE", "README.md", "connector.example.yaml", "pyproject.toml")


class Installed(NamedTuple):
    """A wheel, and the folder that it was installed into, outside the checkout."""

    wheel: Path
    site: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command that sees the installed wheel and its dependencies, but not the checkout."""
        environment = {**os.environ, "PYTHONPATH": str(self.site), "PYTHONSAFEPATH": "1", "NO_COLOR": "1"}
        return subprocess.run(
            command, cwd=self.site.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build a wheel from a copy of the project and install it without its dependencies, which are already installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / part, source / part)
    python = sys.executable
    build = [python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    site = folder / "site"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return Installed(wheel, site)


def test_wheel_contains_schemas_and_package_only(installed: Installed) -> None:
    """The wheel has every contract schema in `connector/_avro` and the type marker, but no tests or tools."""
    names = zipfile.ZipFile(installed.wheel).namelist()
    schemas = {path.name for path in (ROOT / "avro").glob("*.avsc")}
    assert schemas
    assert {Path(name).name for name in names if name.startswith("connector/_avro/")} >= schemas
    assert "connector/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"connector"}


def test_the_wheel_holds_the_pages(installed: Installed) -> None:
    """Templates and static files of the console are in the wheel, and it renders a page from them."""
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    folder = ROOT / "connector" / "console"
    files = [path for part in ("templates", "static") for path in (folder / part).iterdir()]
    assert len(files) > 5
    assert {str(path.relative_to(ROOT)) for path in files} <= names
    code = (
        "from connector.console.rendering import render; "
        "print(render('sign_in.html', fault=None, csrf='x', group='growth', longest_name=40))"
    )
    done = installed.run(sys.executable, "-c", code)
    assert "<h1>growth</h1>" in done.stdout, done.stderr


def test_installed_command_runs_from_the_wheel(installed: Installed) -> None:
    """`connector --version` runs from the installed wheel and prints the version."""
    where = installed.run(sys.executable, "-c", "import connector; print(connector.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.site)
    done = installed.run(str(installed.site / "bin" / "connector"), "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"connector {__version__}"), done.stderr


def test_installed_command_accepts_the_example(installed: Installed) -> None:
    """The wheel's `connector check` accepts connector.example.yaml."""
    example = str(ROOT / "connector.example.yaml")
    done = installed.run(sys.executable, "-m", "connector", "check", "-c", example)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_package_loads_its_schemas(installed: Installed) -> None:
    """The contract schemas load from the wheel, without an `avro/` folder."""
    code = "from connector.codec.schemas import load_contracts; print(*sorted(load_contracts().schemas))"
    done = installed.run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert {f"connector.events.{path.stem}" for path in (ROOT / "avro").glob("*.avsc")} <= set(done.stdout.split())
