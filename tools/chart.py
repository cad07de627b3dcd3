"""Writes helm/values.schema.json, helm/README.md and helm/templates/_secrets.tpl.

The schema takes the chart's own values from this file and `config` from the connector's models. The README takes its
table from the comments of values.yaml. The template has the connector's own lists of what is secret.

`make docs` runs it, and a test checks that it was run. Helm validates values with it before it renders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from connector.config.reference import json_schema
from connector.config.secrets import HARMLESS_PROPERTIES, HARMLESS_REGISTRY_PROPERTIES
from connector.telemetry import redaction
from connector.vendors import kinds

CHART: Final = Path(__file__).resolve().parent.parent / "helm"
SCHEMA: Final = CHART / "values.schema.json"
README: Final = CHART / "README.md"
SECRETS: Final = CHART / "templates" / "_secrets.tpl"

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1}
_NAME: Final[Schema] = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", "maxLength": 253}
_TEXTS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_OBJECT: Final[Schema] = {"type": "object"}
_OBJECTS: Final[Schema] = {"type": "array", "items": _OBJECT}


def _closed(**properties: Schema) -> Schema:
    """Return the schema of a mapping that allows only these keys."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _choice(*values: str) -> Schema:
    """Return the schema of one of these texts."""
    return {"enum": list(values)}


_ENV: Final[Schema] = {
    "type": "array",
    "items": {**_closed(name=_TEXT, value=_TEXT, valueFrom=_OBJECT), "required": ["name"]},
}
_FILES: Final[Schema] = {
    **_TEXTS,
    "propertyNames": {"pattern": "^[A-Za-z0-9][-._A-Za-z0-9]*$", "not": {"const": "connector.yaml"}},
}
_RESOURCES: Final = _closed(requests=_OBJECT, limits=_OBJECT, claims=_OBJECTS)
_SHARE: Final[Schema] = {"type": ["integer", "string", "null"], "pattern": "^([0-9]|[1-9][0-9]|100)%$", "minimum": 0}
_PEERS: Final = _closed(
    to=_OBJECTS, ports={"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}}
)
_PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
_HOST: Final[Schema] = {**_NAME, "description": "A DNS name, without a scheme or a port."}
_PROBE: Final = _closed(
    initialDelaySeconds=_COUNT,
    periodSeconds=_POSITIVE,
    timeoutSeconds=_POSITIVE,
    failureThreshold=_POSITIVE,
    successThreshold=_POSITIVE,
)
_SCALING: Final = _closed(
    enabled=_FLAG,
    type=_choice("keda", "hpa"),
    minReplicas=_COUNT,
    maxReplicas=_POSITIVE,
    cooldownSeconds=_COUNT,
    lagPerReplica=_POSITIVE,
    trigger=_choice("kafka", "prometheus"),
    prometheusAddress=_TEXT,
    authenticationRef=_NAME,
    cpuUtilization={"type": "integer", "minimum": 1, "maximum": 100},
    behavior=_OBJECT,
)

_OWN: Final[Mapping[str, Schema]] = {
    "nameOverride": _NAME,
    "fullnameOverride": _NAME,
    "replicaCount": _COUNT,
    "partitions": {"type": ["integer", "null"], "minimum": 1},
    "image": _closed(
        registry={"type": "string", "pattern": "^[^/ ]*(/[^ ]*)?$"},
        repository={"type": "string", "minLength": 1},
        tag=_TEXT,
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy=_choice("Always", "IfNotPresent", "Never"),
    ),
    "imagePullSecrets": {"type": "array", "items": _closed(name=_NAME)},
    "files": _FILES,
    "existingSecret": _NAME,
    "extraSecrets": {"type": "array", "items": _NAME},
    "env": _ENV,
    "envFrom": _OBJECTS,
    "terminationGracePeriodSeconds": _POSITIVE,
    "perDestination": _FLAG,
    "staticMembership": _FLAG,
    "resources": _RESOURCES,
    "autoscaling": _SCALING,
    "topicsJob": _closed(
        enabled=_FLAG,
        partitions={"type": ["integer", "null"], "minimum": 1},
        existingSecret=_NAME,
        backoffLimit=_COUNT,
        activeDeadlineSeconds=_POSITIVE,
    ),
    "console": _closed(
        enabled=_FLAG,
        resources=_RESOURCES,
        service=_closed(port=_PORT, annotations=_TEXTS),
        ingress=_closed(
            enabled=_FLAG,
            className=_NAME,
            host=_HOST,
            extraHosts={"type": "array", "items": _HOST},
            tlsSecret=_NAME,
            allowHttp=_FLAG,
            annotations=_TEXTS,
        ),
        ingressFrom=_OBJECTS,
    ),
    "service": _closed(enabled=_FLAG, annotations=_TEXTS),
    "podMonitor": _closed(
        enabled=_FLAG,
        interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
        scrapeTimeout={"type": "string", "pattern": "^([0-9]+(ms|s|m))?$"},
        labels=_TEXTS,
        annotations=_TEXTS,
        relabelings=_OBJECTS,
        metricRelabelings=_OBJECTS,
    ),
    "prometheusRule": _closed(enabled=_FLAG, labels=_TEXTS),
    "grafanaDashboard": _closed(enabled=_FLAG, labels=_TEXTS),
    "podDisruptionBudget": _closed(enabled=_FLAG, maxUnavailable=_SHARE, minAvailable=_SHARE),
    "networkPolicy": _closed(
        enabled=_FLAG,
        ingressFrom=_OBJECTS,
        dns=_PEERS,
        kafka=_PEERS,
        registry=_PEERS,
        vendors=_PEERS,
        egress=_OBJECTS,
    ),
    "serviceAccount": _closed(create=_FLAG, name=_NAME, annotations=_TEXTS),
    "commonLabels": _TEXTS,
    "commonAnnotations": _TEXTS,
    "workloadAnnotations": _TEXTS,
    "revisionHistoryLimit": _COUNT,
    "podSecurityContext": _OBJECT,
    "securityContext": _OBJECT,
    "startupProbe": _PROBE,
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "lifecycle": _OBJECT,
    "extraVolumes": _OBJECTS,
    "extraVolumeMounts": _OBJECTS,
    "initContainers": _OBJECTS,
    "extraContainers": _OBJECTS,
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    "dnsPolicy": _choice("", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "dnsConfig": _OBJECT,
    "hostAliases": _OBJECTS,
    "podAnnotations": _TEXTS,
    "podLabels": _TEXTS,
    "nodeSelector": _TEXTS,
    "tolerations": _OBJECTS,
    "affinity": _OBJECT,
    "topologySpreadConstraints": _OBJECTS,
    "priorityClassName": _NAME,
    "global": _OBJECT,  # Helm passes it to every chart
}


def values_schema() -> Schema:
    """Return the JSON schema of the chart's values."""
    # Only this project's vendors: the chart cannot know those of other packages.
    config = json_schema({name: kind.settings for name, kind in kinds(others=[]).items()})
    head = {key: config.pop(key) for key in ("$schema", "$defs")}
    given = {"type": "object", "if": {"minProperties": 1}, "then": config}  # empty: the chart's example
    return {**head, **_closed(**_OWN, config=given)}


def text() -> str:
    """Return the schema's content."""
    return json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"


_KEY: Final = re.compile(r"^( *)([A-Za-z]+):(?: (.*))?$")
_HEAD: Final = """\
# Helm chart

Runs the connector in Kubernetes: members, console, a Job that creates topics, autoscaling and monitoring.

```sh
kubectl create secret generic connector-credentials --from-file=jiguang-project-secret --from-file=jiguang-app-key
helm upgrade --install growth helm --values my-values.yaml
helm test growth
```

[docs/operations.md](../docs/operations.md) explains how to size, secure and upgrade it. `ci/` has an example
for each feature, such as a closed [NetworkPolicy](ci/network-policy-values.yaml).

- **Secrets.** Put no secret into values. Keys of `existingSecret` are files: `${file:/run/secrets/connector/KEY}`.
- **Whole numbers** above 2^53 must be in quotes, because Helm rounds them. The chart refuses them without.
- **OpenShift.** The defaults meet the security context constraint restricted-v2. Do not set `runAsUser` or `fsGroup`.
- **Kubernetes** 1.27 or newer. Pods meet the Pod Security Standard *restricted*.

## Values

`make docs` builds this table from `values.yaml`.

| value | default | meaning |
|---|---|---|
"""


def readme() -> str:
    """Return the chart's README: an introduction, and every value with its default and its comment."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    rows: list[str] = []
    path: list[str] = []
    comment: list[str] = []
    for number, line in enumerate(lines):
        stripped = line.strip()
        found = _KEY.match(line)
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip().removeprefix("-- "))
        elif found is None:
            comment = [] if not stripped else comment
        else:
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            following = lines[number + 1] if number + 1 < len(lines) else ""
            if found[3] is not None:
                rows.append(f"| `{'.'.join(path)}` | `{found[3]}` | {' '.join(comment)} |")
            elif following.startswith("  " * (depth + 1)) and comment:
                rows.append(f"| `{'.'.join(path)}` | | {' '.join(comment)} |")
            comment = []
    return _HEAD + "\n".join(rows) + "\n"


def _secret_fields(schema: Any, name: str = "") -> Iterator[str]:
    """Yield the names of the keys whose values are secret by their type."""
    if isinstance(schema, dict):
        if schema.get("writeOnly"):
            yield name
        for key, child in schema.items():
            if key in ("properties", "$defs") and isinstance(child, dict):
                for own, grandchild in child.items():
                    yield from _secret_fields(grandchild, own)
            else:
                yield from _secret_fields(child, name)
    elif isinstance(schema, list):
        for child in schema:
            yield from _secret_fields(child, name)


def secrets() -> str:
    """Return the template that tells the chart what is secret."""
    harmless = sorted(HARMLESS_PROPERTIES | HARMLESS_REGISTRY_PROPERTIES)
    fields = sorted(
        set(_secret_fields(values_schema()["properties"]["config"])) | set(_secret_fields(values_schema()["$defs"]))
    )
    parts = {
        "connector.harmless": json.dumps(harmless),
        "connector.secretFields": json.dumps(fields),
        "connector.secretName": f"(?i){redaction.SECRET_NAME.pattern}",
        "connector.notSecretName": f"(?i){redaction.NOT_SECRET_NAME.pattern}",
    }
    defined = "\n".join(f'{{{{- define "{name}" -}}}}{content}{{{{- end -}}}}' for name, content in parts.items())
    return "{{/* Written by make docs from the connector's own lists. */}}\n" + defined + "\n"


def main() -> None:
    """Write the files."""
    SECRETS.write_text(secrets(), encoding="utf-8")
    SCHEMA.write_text(text(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()
