"""The chart as Helm renders it: manifests as data, and the messages with which Helm refuses values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import kubernetes_validate.utils  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from tools.servers import ROOT

CHART: Final = ROOT / "helm"
RELEASE: Final = "r"
VERSIONS: Final[tuple[str, ...]] = tuple(dict.fromkeys(kubernetes_validate.utils.all_versions()))[-3:]
"""The three newest Kubernetes versions whose schemas are installed."""
KUBERNETES: Final = VERSIONS[-1]
CUSTOM: Final = ("PodMonitor", "PrometheusRule", "ScaledObject")
"""Kinds of the chart that Kubernetes itself does not define."""
CRDS: Final = ROOT / ".tools" / "crds"

Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Return the program's path. Skips if it is missing; fails if CI=true and `make tools` could build it."""
    own = ROOT / ".tools" / "bin" / name
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        fault = f"{name} is not installed: run make tools"
        if os.environ.get("CI") == "true" and name == "helm":
            pytest.fail(fault, pytrace=False)
        pytest.skip(fault)
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm."""
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(*values: Path) -> list[Manifest]:
    """Return the rendered manifests for these values files. Fails if Helm refuses them."""
    done = helm("template", RELEASE, str(CHART), "--kube-version", KUBERNETES, *_given(values))
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refusal(folder: Path, values: dict[str, Any]) -> str:
    """Return the message with which Helm refuses these values. Fails if Helm accepts them."""
    file = folder / "values.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    done = helm("template", RELEASE, str(CHART), "--kube-version", KUBERNETES, *_given((file,)))
    assert done.returncode != 0, "these values were taken"
    return done.stderr


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the manifests of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    """Return the manifests that run members."""
    found = of_kind(manifests, "Deployment") + of_kind(manifests, "StatefulSet")
    return [each for each in found if container(each)["name"] == "connector"]


def pod(manifest: Manifest) -> Manifest:
    """Return the pod template's spec of a manifest."""
    spec: Manifest = manifest["spec"]
    return spec if manifest["kind"] == "Pod" else spec["template"]["spec"]


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Return the pod specs of every manifest that creates pods."""
    return [pod(each) for kind in ("Deployment", "StatefulSet", "Job", "Pod") for each in of_kind(manifests, kind)]


def container(manifest: Manifest) -> Manifest:
    """Return the connector's container of a manifest that creates pods; sidecars follow it."""
    first: Manifest = pod(manifest)["containers"][0]
    return first


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[str]:
    """Return the names of the containers in the pods that these labels select."""
    found = []
    for each in of_kind(manifests, "Deployment") + of_kind(manifests, "StatefulSet"):
        own = each["spec"]["template"]["metadata"]["labels"]
        if labels.items() <= own.items():
            found.append(container(each)["name"])
    return found


def configuration(manifests: list[Manifest], name: str = "r-connector") -> dict[str, str]:
    """Return the files of the configuration's ConfigMap, by name."""
    maps = [each for each in of_kind(manifests, "ConfigMap") if "connector.yaml" in each["data"]]
    (found,) = (each for each in maps if len(maps) == 1 or each["metadata"]["name"] == name)
    files: dict[str, str] = found["data"]
    return files


def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the schemas of the operators' own definitions by apiVersion and kind; an unknown field is a fault."""
    if not (CRDS / "stamp").exists():
        fault = "the definitions of KEDA and the Prometheus operator are not in .tools: run make tools (needs Go)"
        if os.environ.get("CI") == "true":
            pytest.fail(fault, pytrace=False)
        pytest.skip(fault)
    found = {}
    for kind in CUSTOM:
        spec = yaml.safe_load((CRDS / f"{kind}.yaml").read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            # The API server, not the definition, knows the fields of every object's metadata.
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", kind] = schema
    return found


def _closed(schema: Any) -> Any:
    """Return a structural schema as JSON Schema in which every object refuses fields that it does not name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        # Go allows a flag after the anchor, Python only in front of it.
        return schema.replace("^(?i)", "(?i)^") if isinstance(schema, str) else schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def _given(values: tuple[Path, ...]) -> list[str]:
    """Return Helm's arguments for the values files."""
    return [argument for file in values for argument in ("--values", str(file))]
