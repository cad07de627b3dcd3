"""Writes helm/values.schema.json: the chart's own values from this file, `config` from the connector's models.

`make docs` runs it, and a test checks that it was run. Helm validates values with it before it renders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from connector.config.reference import json_schema
from connector.vendors import kinds

SCHEMA: Final = Path(__file__).resolve().parent.parent / "helm" / "values.schema.json"

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
_PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
_HOST: Final[Schema] = {**_NAME, "description": "A DNS name, without a scheme or a port."}
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
)

_OWN: Final[Mapping[str, Schema]] = {
    "nameOverride": _NAME,
    "fullnameOverride": _NAME,
    "replicaCount": _COUNT,
    "partitions": {"type": ["integer", "null"], "minimum": 1},
    "image": _closed(
        repository={"type": "string", "minLength": 1},
        tag=_TEXT,
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy=_choice("Always", "IfNotPresent", "Never"),
    ),
    "imagePullSecrets": {"type": "array", "items": _closed(name=_NAME)},
    "files": _FILES,
    "existingSecret": _NAME,
    "env": _ENV,
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
        ingress=_closed(enabled=_FLAG, className=_NAME, host=_HOST, tlsSecret=_NAME, annotations=_TEXTS),
        ingressFrom=_OBJECTS,
    ),
    "service": _closed(enabled=_FLAG, annotations=_TEXTS),
    "podMonitor": _closed(enabled=_FLAG, interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"}, labels=_TEXTS),
    "prometheusRule": _closed(enabled=_FLAG, labels=_TEXTS),
    "grafanaDashboard": _closed(enabled=_FLAG, labels=_TEXTS),
    "podDisruptionBudget": _closed(enabled=_FLAG, maxUnavailable={"type": ["integer", "string"]}),
    "networkPolicy": _closed(
        enabled=_FLAG, ingressFrom=_OBJECTS, egress=_OBJECTS, vendorPorts={"type": "array", "items": _POSITIVE}
    ),
    "serviceAccount": _closed(create=_FLAG, name=_NAME, annotations=_TEXTS),
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
    """Return the file's content."""
    return json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file."""
    SCHEMA.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
