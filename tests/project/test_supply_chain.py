"""The supply chain is documented: each dependency's exposure, and an SBOM of what users install."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools.audit import conclusion, read
from tools.sbom import REQUIREMENTS, document
from tools.source import ROOT, tracked

CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = CONFIGURATION["project"]
PYTHONS = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
LOCKED = dict(
    re.findall(
        r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
)


def test_every_dependency_has_its_exposure_documented() -> None:
    """SECURITY.md has one row for each dependency of pyproject.toml, and none for another."""
    wanted = {re.split(r"[\[>=;]", dependency)[0] for dependency in PROJECT["dependencies"]}
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", page, re.MULTILINE))
    assert set(rows) == wanted
    assert [name for name, cells in rows.items() if len([cell for cell in cells.split("|") if cell.strip()]) != 4] == []
    extras = {re.split(r"[>=]", each)[0] for extra in PROJECT["optional-dependencies"].values() for each in extra}
    assert [name for name in extras if f"`{name}`" not in page] == []


def test_sbom_lists_what_users_install() -> None:
    """Every pinned package is a component with its version and hashes, and two runs give the same document."""
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    found = document()
    assert [(each["name"], each["version"]) for each in found["components"]] == pinned
    assert all(each["externalReferences"] for each in found["components"])
    licensed = [each["name"] for each in found["components"] if each.get("licenses")]
    assert len(licensed) > len(pinned) / 2
    assert document() == found


CHECKED = {"name": "good", "version": "1", "vulns": []}
SKIPPED = {"name": "unknown", "skip_reason": "not found"}
FAULTY = {"name": "bad", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


def test_audit_without_an_answer_is_no_success() -> None:
    """Packages that were not checked are reported. Kills: an audit that passes with an empty database."""
    text, status = conclusion(read([{"dependencies": [SKIPPED]}]), required=False)
    assert ("skipped" in text, status) == (True, 0)
    assert conclusion(read([{"dependencies": [SKIPPED]}]), required=True)[1] == 1
    assert conclusion(read([]), required=True)[1] == 1
    assert conclusion(read([{"dependencies": [CHECKED, SKIPPED]}]), required=True)[1] == 1
    assert conclusion(read([{"dependencies": [CHECKED]}]), required=True)[1] == 0


def test_audit_fails_on_a_vulnerability() -> None:
    """A vulnerability is named once with the version that fixes it, and is a failure."""
    text, status = conclusion(read([{"dependencies": [CHECKED, FAULTY]}, {"dependencies": [FAULTY]}]), required=False)
    assert text.count("bad 1: CVE-1, fixed in 2") == 1
    assert status == 1


def test_every_supported_python_is_tested_and_released() -> None:
    """The classifiers, the matrix of CI and the wheels of a release name the same versions of Python."""
    workflow: Any = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    wheels = CONFIGURATION["tool"]["cibuildwheel"]["build"]
    assert wheels == [f"cp{version.replace('.', '')}-*" for version in PYTHONS]


def test_updates_are_proposed_for_everything_that_is_pinned() -> None:
    """Dependabot looks into each folder that pins packages, images, modules or actions.

    Kills: a new folder of pinned dependencies that no one is told about.
    """
    kinds = {"pyproject.toml": "pip", "Dockerfile": "docker", "compose.yaml": "docker-compose", "pom.xml": "maven"}
    kinds |= {"go.mod": "gomod"}
    pinned = {
        (kinds[path.name], f"/{path.parent}".removesuffix("/.") or "/") for path in tracked() if path.name in kinds
    }
    configured: Any = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    watched = {
        (each["package-ecosystem"], folder)
        for each in configured["updates"]
        for folder in each.get("directories", [each.get("directory")])
    }
    assert watched == pinned | {("github-actions", "/")}


@pytest.mark.parametrize("python", PYTHONS)
def test_one_lock_serves_every_supported_python(python: str) -> None:
    """Each pinned package runs on this Python, and all that it needs there is pinned too, in a version that it accepts.

    Kills: a lock without a package that only another Python needs, so that an installation with hashes fails there.
    """
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    extras = {"confluent-kafka": ("", "schemaregistry")}
    missing = []
    for name in LOCKED:
        about = metadata.metadata(name)
        if not SpecifierSet(about["Requires-Python"] or "").contains(f"{python}.0"):
            missing.append(f"{name} does not run on {python}")
        for text in metadata.requires(name) or ():
            need = Requirement(text)
            if need.marker is None or any(
                need.marker.evaluate(environment | {"extra": extra}) for extra in extras.get(name, ("",))
            ):
                version = LOCKED.get(canonicalize_name(need.name))
                if version is None or not need.specifier.contains(version, prereleases=True):
                    missing.append(f"{name} needs {text}; pinned is {version}")
    assert missing == []
