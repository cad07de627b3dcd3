"""Two made-up vendors and a small valid configuration, for the tests of the settings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits, Loaded, load


class AcmeSettings(DestinationSettings):
    """A vendor with an account, limits and a results topic."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=100)

    vendor: Literal["acme"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://api.acme.example", description="The address.")
    account: str = Field(description="The account.")
    secret: SecretStr = Field(description="The secret.")
    results_topic: str | None = Field(default=None, description="The results topic.")


class SlowSettings(DestinationSettings):
    """A vendor that limits nothing but the batch."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=20, bytes=10_000)

    vendor: Literal["slow"] = Field(description="The vendor's name.")
    token: SecretStr = Field(description="The token.")


KINDS: dict[str, type[DestinationSettings]] = {"acme": AcmeSettings, "slow": SlowSettings}
RULES = {"acme": frozenset({"acme.name.length", "acme.name.empty"})}
BASE: dict[str, Any] = {
    "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "localhost:9092"}},
    "destinations": {
        "one": {"vendor": "acme", "account": 100102, "secret": "s-one"},
        "two": {"vendor": "slow", "base_url": "http://slow.example/", "token": "t-two"},
    },
}


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` changed at any depth; None removes a key, and `...` stands for a YAML null."""
    result = copy.deepcopy(dict(base))
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = None if value is ... else value
    return result


def read(folder: Path, change: Mapping[str, Any] | None = None, **env: str) -> Loaded:
    """Load the base configuration with a change."""
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(merge(BASE, change or {}), sort_keys=False), encoding="utf-8")
    return load(path, KINDS, env, RULES)
