"""Checks that a tag can be released and prints the release's notes: `python -m tools.release v0.1.0 > notes.md`.

The release workflow runs it first. It needs no installed package.
"""

from __future__ import annotations

import re
import sys

import connector
from tools.source import ROOT


def faults(tag: str, version: str, chart: str, changelog: str) -> list[str]:
    """Return why `tag` cannot be released. The chart's default image is the one of its `appVersion`."""
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}; connector/__init__.py has the version {version}, so it must be v{version}")
    for key in ("version", "appVersion"):
        value = re.search(rf'^{key}: "?([^"\n]*)"?$', chart, re.MULTILINE)
        if value is None or value[1] != version:
            found.append(f"helm/Chart.yaml: {key} must be {version}")
    if not notes(version, changelog):
        found.append(f"CHANGELOG.md has no section ## {version}; give the section Unreleased this name")
    return found


def notes(version: str, changelog: str) -> str:
    """Return the section of a version without its heading; empty if there is none."""
    section = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section is not None else ""


def main() -> None:
    """Print the notes; exit with 1 and the reasons if the tag cannot be released."""
    (tag,) = sys.argv[1:]
    chart, changelog = ((ROOT / name).read_text(encoding="utf-8") for name in ("helm/Chart.yaml", "CHANGELOG.md"))
    if found := faults(tag, connector.__version__, chart, changelog):
        sys.exit("\n".join(found))
    print(notes(connector.__version__, changelog))


if __name__ == "__main__":
    main()
