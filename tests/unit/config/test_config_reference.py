"""The documentation, the example and the JSON schema say what the models say."""

from __future__ import annotations

import re
from typing import Any

import yaml

from connector.config.base import Model
from connector.config.loader import load
from connector.config.models import DestinationSettings, Settings
from connector.config.reference import json_schema
from connector.vendors import kinds
from tools.reference import CONFIGURATION, METRICS, configuration, metrics

ROOT = CONFIGURATION.parent.parent
EXAMPLE = ROOT / "connector.example.yaml"
MODELS = {name: kind.settings for name, kind in kinds(others=[]).items()}
RULES = {name: kind.rules for name, kind in kinds(others=[]).items()}


def test_configuration_page_is_current() -> None:
    """`docs/configuration.md` has the tables of today's models; `python -m tools.reference` makes them."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert text == configuration(text)


def test_metrics_page_is_current() -> None:
    """`docs/metrics.md` has today's metrics; `python -m tools.reference` makes it."""
    assert METRICS.read_text(encoding="utf-8") == metrics()


def test_example_is_valid() -> None:
    """The example loads as it is, with no variable set."""
    settings = load(EXAMPLE, MODELS, {}, RULES).settings
    assert {each.vendor for each in settings.destinations.values()} == set(MODELS)


def test_example_names_every_top_level_key_but_schemas() -> None:
    """A reader of the example sees every section; local schema files are for those who have no registry."""
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert set(Settings.model_fields) - tree.keys() == {"schemas"}


def test_every_key_is_described() -> None:
    """No key is without a meaning, the vendors' included."""
    models: set[type[Model]] = {Settings, *Model.__subclasses__(), *DestinationSettings.__subclasses__()}
    built_in = [each for each in models if each.__module__.startswith("connector.") and each.__name__[0] != "_"]
    bare = [
        f"{each.__name__}.{name}" for each in built_in for name, key in each.model_fields.items() if not key.description
    ]
    assert bare == []


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Whether the schema takes the value: as much of JSON schema as ours uses."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    if not all(any(accepts(each, value, root) for each in schema[key]) for key in ("anyOf", "oneOf") if key in schema):
        return False
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    wanted = schema.get("type", [])
    names = [wanted] if isinstance(wanted, str) else wanted
    fits = [
        isinstance(value, bool) if n == "boolean" else isinstance(value, types[n]) and not isinstance(value, bool)
        for n in names
    ]
    if names and not any(fits):
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= value.keys():
            return False
        return all(
            accepts(known[key], child, root)
            if key in known
            else others is True or (others is not False and accepts(others, child, root))
            for key, child in value.items()
        )
    if isinstance(value, list) and "items" in schema:
        return all(accepts(schema["items"], child, root) for child in value)
    return "enum" not in schema or value in schema["enum"]


def test_json_schema_takes_the_example_and_refuses_a_misspelt_key() -> None:
    """The schema that the chart is checked with agrees with `load` on both, references in numbers included."""
    schema = json_schema(MODELS)
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert accepts(schema, tree, schema)
    tree["server"]["port"] = "${PORT}"
    tree["destinations"]["jiguang-prod"]["project_id"] = 100102
    assert accepts(schema, tree, schema)
    for wrong in ({"polt": 1}, {"port": "http"}):
        assert not accepts(schema, {**tree, "server": wrong}, schema)
    tree["destinations"]["jiguang-prod"]["projekt"] = 1
    assert not accepts(schema, tree, schema)


def test_json_schema_keeps_no_private_note() -> None:
    """What the reference needs in addition to JSON Schema does not leak into it."""
    assert "x-kind" not in str(json_schema(MODELS))
