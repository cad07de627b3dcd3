"""Checks the pinned requirements for known vulnerabilities with pip-audit, in an environment of its own in .tools/.

Exit status 1: a vulnerability was found. Packages that the vulnerability database does not return count as not checked:
pip-audit itself reports no vulnerability then. If no package could be checked, the audit is reported as skipped; with
AUDIT=required that is a failure too, and so is a single package that was not checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tools.source import ROOT

VERSION: Final = "2.10.1"
ENVIRONMENT: Final = ROOT / ".tools" / "audit"
REQUIREMENTS: Final = tuple(ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "otel", "dev"))


class Audited(NamedTuple):
    """The result of an audit: the packages that were checked, those that were not, and what was found."""

    checked: frozenset[str]
    unchecked: frozenset[str]
    found: tuple[str, ...]


def read(reports: Sequence[Mapping[str, Any]]) -> Audited:
    """Return the result of pip-audit's JSON reports."""
    checked: set[str] = set()
    unchecked: set[str] = set()
    found: dict[str, None] = {}
    for report in reports:
        for package in report["dependencies"]:
            if "skip_reason" in package:
                unchecked.add(package["name"])
                continue
            checked.add(package["name"])
            for fault in package["vulns"]:
                fixed = ", ".join(fault["fix_versions"]) or "no version"
                found[f"{package['name']} {package['version']}: {fault['id']}, fixed in {fixed}"] = None
    return Audited(frozenset(checked), frozenset(unchecked), tuple(found))


def conclusion(result: Audited, *, required: bool) -> tuple[str, int]:
    """Return what to print, and the exit status."""
    lines = [*result.found]
    if not result.checked:
        lines.append("audit: skipped: the vulnerability database returned no package")
    elif result.unchecked:
        lines.append(f"audit: not checked: {', '.join(sorted(result.unchecked))}")
    lines.append(f"audit: {len(result.found)} vulnerabilities in {len(result.checked)} packages")
    incomplete = required and (not result.checked or bool(result.unchecked))
    return "\n".join(lines), int(bool(result.found) or incomplete)


def reports() -> list[Mapping[str, Any]]:
    """Return pip-audit's report for each requirements file; none if it cannot be installed or does not answer."""
    program = ENVIRONMENT / "bin" / "pip-audit"
    if not program.exists():
        print(f"audit: installing pip-audit {VERSION} (half a minute)", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        install = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*install, f"pip-audit=={VERSION}"], check=False).returncode:
            return []
    options = ("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement")
    found: list[Mapping[str, Any]] = []
    for file in REQUIREMENTS:
        command: list[str | Path] = [program, *options, file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found.append(json.loads(done.stdout))
        except ValueError:
            print("\n".join(done.stderr.splitlines()[-3:]), file=sys.stderr)
    return found


def main() -> int:
    """Audit every requirements file and return the exit status."""
    text, status = conclusion(read(reports()), required=os.environ.get("AUDIT") == "required")
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
