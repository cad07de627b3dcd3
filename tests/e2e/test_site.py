"""The documents as a site, and the workflows that publish it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.source import ROOT

MKDOCS = Path(sys.executable).with_name("mkdocs")
ACTIONLINT = ROOT / ".tools" / "bin" / "actionlint"


@pytest.mark.timeout(120)
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Every page is in the navigation, every link leads to a page and a heading, and the references are complete."""
    _needed(MKDOCS, "make .venv/.site")
    done = subprocess.run(
        [MKDOCS, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    index = json.loads((tmp_path / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"]: entry["text"] for entry in index["docs"]}
    for location in (
        "commands.html#connector-dlq-replay",
        "codes.html#mytracker",
        "api.html#connector.testing.Simulator",
        "api.html#connector.records.Item",
        "api.html#connector.runtime.app.serve",
        "api.html#connector.config.loader.load",
    ):
        assert location in found
    assert [location for location in found if location.startswith("api.html#") and "._" in location] == []
    assert "4101" in found["codes.html#jiguang"]


def test_workflows_are_valid() -> None:
    """actionlint finds no fault in the workflows."""
    _needed(ACTIONLINT, "tools/install_chart.sh")
    done = subprocess.run([ACTIONLINT, "-no-color"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _needed(program: Path, command: str) -> None:
    """Skip the test where the program is missing; in CI that is a failure."""
    if not program.exists():
        assert os.environ.get("CI") != "true", f"{program.name} is missing: {command}"
        pytest.skip(f"{program.name} is missing: {command}")
