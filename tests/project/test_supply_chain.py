"""The supply chain is documented: each dependency's exposure, and an SBOM of what users install."""

from __future__ import annotations

import re
import tomllib

from tools.audit import conclusion, read
from tools.sbom import REQUIREMENTS, document
from tools.source import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


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
