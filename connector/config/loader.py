"""The settings: one YAML file, read into frozen models; every fault at once, each with its path.

The models themselves stand in `config_models` and are named here too. A vendor's own settings are a subclass of
`DestinationSettings` in its module; `load` is given them, because this module stands below the vendors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from connector.config.checks import (
    OWNED_PROPERTIES,
    START_ALIASES,
    check_client,
    check_destination,
    check_kafka,
    check_limits,
    check_routes,
    check_timeout,
    check_topics,
    longest_timeout,
    name_fault,
)
from connector.config.errors import faults_of, kind, suggest
from connector.config.models import (
    BatchSettings,
    ConsoleSettings,
    DeadLetterSettings,
    DestinationSettings,
    DocumentedLimits,
    HttpSettings,
    KafkaSettings,
    LimitSettings,
    LogSettings,
    ReceiptSettings,
    RegistrySettings,
    RetrySettings,
    RouteSettings,
    SchemaSettings,
    ServerSettings,
    Settings,
    StormSettings,
    TracingSettings,
)
from connector.config.values import Duration, Model, Off, Size
from connector.config.yaml import Resolver, join, parse
from connector.errors import ConfigurationError, Fault
from connector.telemetry.redaction import HIDDEN, mask_url, names_secret, url_secrets

__all__ = [
    "OWNED_PROPERTIES",
    "BatchSettings",
    "ConsoleSettings",
    "DeadLetterSettings",
    "DestinationSettings",
    "DocumentedLimits",
    "Duration",
    "HttpSettings",
    "KafkaSettings",
    "LimitSettings",
    "Loaded",
    "LogSettings",
    "Model",
    "Off",
    "ReceiptSettings",
    "RegistrySettings",
    "RetrySettings",
    "RouteSettings",
    "SchemaSettings",
    "ServerSettings",
    "Settings",
    "Size",
    "StormSettings",
    "TracingSettings",
    "load",
    "redacted",
    "secret_values",
]

Kinds = Mapping[str, type[DestinationSettings]]
Rules = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and what is needed to read a destination's secrets again."""

    settings: Settings
    path: Path
    _reader: _Reader
    _raw: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The configuration's folder, from which relative paths are read."""
        return self._reader.resolver.folder

    def reload(self, name: str) -> DestinationSettings:
        """Return a destination's settings with `${…}` resolved again, so that a rotated secret is seen.

        Everything else is as it was when the file was loaded. Reads files, so it may block for a moment. Raises
        `ConfigurationError` where a secret is missing now.
        """
        reader = replace(self._reader, faults=[])
        settings = reader.destination(name, self._raw[name])
        if settings is None or reader.faults:
            raise ConfigurationError(reader.faults)
        return reader.with_timeout(name, settings, longest_timeout(self.settings))


def load(path: str | Path, kinds: Kinds, env: Mapping[str, str] | None = None, rules: Rules | None = None) -> Loaded:
    """Read the file at `path` and return its settings.

    `kinds` gives the settings model of each vendor and `rules`, where given, the ids of its local rules. `env` is what
    `${NAME}` reads, the process's environment unless given. Raises `ConfigurationError` with every fault found.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([Fault(str(path), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([Fault(str(path), "is not UTF-8 text")]) from None
    tree, faults = parse(text)
    if not isinstance(tree, dict):
        faults = faults or [Fault("", f"the file is {kind(tree)}; allowed: a mapping with kafka and destinations")]
        raise ConfigurationError(faults)
    resolver = Resolver(os.environ if env is None else env, path.absolute().parent)
    reader = _Reader(kinds, rules or {}, resolver, faults)
    settings = reader.settings(tree)
    if settings is None or reader.faults:
        raise ConfigurationError(list(dict.fromkeys(reader.faults)))
    return Loaded(settings, path, reader, tree["destinations"])


@dataclass(slots=True)
class _Reader:
    """One reading of a file: goes on after a fault, so that all are found."""

    kinds: Kinds
    rules: Rules
    resolver: Resolver
    faults: list[Fault]

    def settings(self, tree: dict[str, Any]) -> Settings | None:
        """Return the whole file's settings; None where kafka, without which there are none, is faulty."""
        raw = self._destinations(tree)
        read = {name: self.destination(name, body) for name, body in raw.items()}
        good = {name: settings for name, settings in read.items() if settings is not None}
        rest = {key: value for key, value in tree.items() if key != "destinations"}
        rest = self._resolve(rest, "")
        settings, faulty = self._sections(rest, good)
        if settings is None:
            kafka = rest.get("kafka")
            if isinstance(kafka, dict) and isinstance(kafka.get("client"), dict):
                self.faults.extend(check_client(kafka["client"], has_start="start" in kafka))
            return None
        self.faults.extend(check_kafka(settings.kafka))
        if "limits" not in faulty:
            longest = longest_timeout(settings)
            good = {name: self.with_timeout(name, each, longest) for name, each in good.items()}
        settings = settings.model_copy(update={"destinations": good, "kafka": _with_start(settings.kafka)})
        self.faults.extend(check_topics(settings))
        self.faults.extend(check_routes(settings, raw, {name: each.vendor for name, each in good.items()}))
        return settings

    def _destinations(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return the destinations as they stand in the file."""
        raw = tree.get("destinations", {})
        if isinstance(raw, dict) and raw:
            return raw
        problem = f"is {kind(raw)}; allowed: a mapping by name" if raw else "at least one is required"
        self.faults.append(Fault("destinations", problem))
        return {}

    def _sections(self, rest: dict[str, Any], good: dict[str, DestinationSettings]) -> tuple[Settings | None, set[str]]:
        """Return the settings without the sections that are faulty, and the names of those.

        So the checks between the others find what is wrong there too.
        """
        try:
            return Settings.model_validate({**rest, "destinations": good}), set()
        except ValidationError as error:
            self._note(error, Settings, rest, "")
            faulty = {str(detail["loc"][0]) for detail in error.errors(include_input=False)}
        try:
            kept = {key: value for key, value in rest.items() if key not in faulty}
            return Settings.model_validate({**kept, "destinations": good}), faulty
        except ValidationError:
            return None, faulty

    def destination(self, name: str, body: Any) -> DestinationSettings | None:
        """Return one destination as its vendor's model reads it; None where it cannot be read."""
        path = join("destinations", name)
        fault = name_fault(name)
        if fault is not None:
            self.faults.append(fault)
        if not isinstance(body, dict):
            self.faults.append(Fault(path, f"is {kind(body)}; allowed: a mapping"))
            return None
        body = self._resolve(body, path)
        model = self._model(f"{path}.vendor", body)
        if model is None:
            return None
        try:
            settings = model.model_validate(body)
        except ValidationError as error:
            self._note(error, model, body, path)
            self.faults.extend(check_limits(path, model, body))
            return None
        folder = self.resolver.folder
        self.faults.extend(check_destination(name, settings, self.rules.get(settings.vendor), folder))
        files = {
            key: str(folder / file)
            for key in ("ca_file", "cert_file", "key_file")
            if (file := getattr(settings.http, key)) is not None
        }
        return settings.model_copy(update={"http": settings.http.model_copy(update=files)}) if files else settings

    def _model(self, path: str, body: dict[str, Any]) -> type[DestinationSettings] | None:
        """Return the settings model of the vendor that a destination names."""
        vendor = body.get("vendor")
        if isinstance(vendor, str) and vendor in self.kinds:
            return self.kinds[vendor]
        problem = "is required" if "vendor" not in body else f"is {kind(vendor)} that names no vendor"
        hint = suggest(vendor, self.kinds) if isinstance(vendor, str) else ""
        hint = f"{hint} " if hint.startswith("did") else ""
        self.faults.append(Fault(path, f"{problem}; {hint}known: {', '.join(sorted(self.kinds))}"))
        return None

    def with_timeout(self, name: str, settings: DestinationSettings, longest: float) -> DestinationSettings:
        """Return a destination with the default of its time-out, which depends on how long a drain may take."""
        if "timeout" not in settings.model_fields_set:
            settings = settings.model_copy(update={"timeout": min(settings.timeout, longest)})
        self.faults.extend(check_timeout(name, settings, longest))
        return settings

    def _resolve(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        """Return the values with every reference resolved."""
        resolved: dict[str, Any] = self.resolver.resolve(value, path, self.faults)
        return resolved

    def _note(self, error: ValidationError, model: type[BaseModel], raw: Any, path: str) -> None:
        """Note a model's faults, but for values whose reference could not be resolved: they have theirs already."""
        told = {fault.path for fault in self.faults}
        self.faults.extend(fault for fault in faults_of(error, model, raw, path) if fault.path not in told)


def _with_start(settings: KafkaSettings) -> KafkaSettings:
    """Return the settings with librdkafka's name for `start` read as what it means."""
    client = dict(settings.client)
    alias = START_ALIASES.get(str(client.pop("auto.offset.reset", None)))
    start = settings.start if settings.start is not None else alias
    return settings.model_copy(update={"client": client, "start": start})


def redacted(settings: BaseModel) -> dict[str, Any]:
    """Return settings as plain values (seconds, bytes) with every secret hidden, by its type and by its key."""
    fields = type(settings).model_fields
    return {field.alias or name: _shown(field.alias or name, getattr(settings, name)) for name, field in fields.items()}


def _shown(name: str, value: Any) -> Any:
    """Return one value as it may be shown."""
    if isinstance(value, SecretStr) or (names_secret(name) and isinstance(value, str)):
        return HIDDEN
    if isinstance(value, BaseModel):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _shown(key, child) for key, child in value.items()}
    if isinstance(value, list):
        return [_shown(name, child) for child in value]
    return mask_url(value) if isinstance(value, str) else value


def secret_values(settings: Any, name: str = "") -> Iterator[str]:
    """Yield every secret text in settings, for `logs.register_secrets`."""
    if isinstance(settings, SecretStr):
        yield settings.get_secret_value()
    elif isinstance(settings, BaseModel):
        for field in type(settings).model_fields:
            yield from secret_values(getattr(settings, field), field)
    elif isinstance(settings, dict):
        for key, child in settings.items():
            yield from secret_values(child, key)
    elif isinstance(settings, list):
        for child in settings:
            yield from secret_values(child, name)
    elif isinstance(settings, str):
        yield from [settings] if names_secret(name) else url_secrets(settings)
