"""Writes build/sbom.cdx.json: the runtime's packages with versions, hashes and licences, as CycloneDX 1.6.

`make sbom` runs it. The packages come from requirements/runtime.txt, so the list is the one that users install. The
licences come from the installed packages. The content depends on nothing else, so that two runs give the same file.
"""

from __future__ import annotations

import json
import re
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import connector
from tools.source import ROOT

REQUIREMENTS: Final = ROOT / "requirements" / "runtime.txt"
SBOM: Final = ROOT / "build" / "sbom.cdx.json"
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(.*(?:\n    .*)*)", re.MULTILINE)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def packages() -> list[dict[str, Any]]:
    """Return one CycloneDX component for each pinned package, in the order of the requirements."""
    found = []
    for name, version, rest in _PINNED.findall(REQUIREMENTS.read_text(encoding="utf-8")):
        url = f"pkg:pypi/{name.lower()}@{version}"
        component: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
        licences = _licences(name)
        if licences:
            component["licenses"] = [{"license": {"name": licence}} for licence in licences]
        # A package has one hash for each of its files; an external reference may list them all.
        component["externalReferences"] = [
            {"type": "distribution", "url": url, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for digest in _HASH.findall(rest)
        ]
        found.append(component)
    return found


def _licences(name: str) -> list[str]:
    """Return the licences that an installed package states; empty if it states none or is not installed."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    expressions = stated.get_all("License-Expression") or []
    if expressions:
        return [str(expressions[0])]
    classified = [
        text.rpartition(" :: ")[2] for text in stated.get_all("Classifier") or [] if text.startswith("License")
    ]
    named = str((stated.get_all("License") or [""])[0]).partition("\n")[0]
    return classified or ([named] if named else [])


def document() -> dict[str, Any]:
    """Return the whole document."""
    components = packages()
    text = json.dumps(components, sort_keys=True)
    own = f"pkg:pypi/connector@{connector.__version__}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "connector",
                "version": connector.__version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def main() -> None:
    """Write the file."""
    SBOM.parent.mkdir(exist_ok=True)
    SBOM.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
    print(f"{len(document()['components'])} packages in {Path(SBOM).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
