"""Loads the YAML file into frozen models, and reports every fault at once, each with its path and line.

The models are defined in `models` and exported here too. A vendor's own settings are a subclass of
`DestinationSettings` in its module; they are passed to `load`, because this package is below the vendors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from connector.config.base import Model
from connector.config.checks import (
    OWNED_PROPERTIES,
    START_ALIASES,
    check_client,
    check_destination,
    check_kafka,
    check_limits,
    check_poll_interval,
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
    Duration,
    HttpSettings,
    KafkaSettings,
    LimitSettings,
    LogSettings,
    Off,
    ReceiptSettings,
    RegistrySettings,
    ReloadSettings,
    RetrySettings,
    SchemaSettings,
    ServerSettings,
    Settings,
    Size,
    StormSettings,
    TracingSettings,
)
from connector.config.routes import RouteSettings
from connector.config.secrets import redacted, secret_values
from connector.config.warnings import doubtful, insecure
from connector.config.yaml import Resolver, join, parse, read_text
from connector.errors import ConfigFault, ConfigurationError

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
    "ReloadSettings",
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
Further = Callable[[Settings, Mapping[str, str], Path], Iterable[ConfigFault]]
"""An additional check for `load`. Gets the settings, each destination's vendor, and the configuration's folder."""
_PLACEHOLDER: Final = "missing"
"""A placeholder for a missing secret in `routes`, so that other faults there are still found."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, with what is needed to read a destination's secrets again."""

    settings: Settings
    path: Path
    _reader: _Reader
    _raw: Mapping[str, Any]
    _lines: Mapping[str, int]

    @property
    def warnings(self) -> list[ConfigFault]:
        """Settings that are valid, but insecure or doubtful."""
        found = [*insecure(self.settings, self._raw), *doubtful(self.settings)]
        return [_with_line(fault, self._lines) for fault in found]

    @property
    def folder(self) -> Path:
        """The folder of the configuration; relative paths start there."""
        return self._reader.resolver.folder

    def read_again(self) -> Loaded:
        """Read the file again with the same vendors and variables. Raises as `load` does."""
        return load(self.path, self._reader.kinds, self._reader.resolver.env, self._reader.rules)

    def reload(self, name: str) -> DestinationSettings:
        """Return a destination's settings with `${…}` resolved again, so that a rotated secret is used.

        Everything else stays as it was loaded. Reads files, so it may block for a moment. Raises
        `ConfigurationError` if a secret is missing now.
        """
        reader = replace(self._reader, faults=[])
        settings = reader.destination(name, self._raw["destinations"][name])
        if settings is None or reader.faults:
            raise ConfigurationError(reader.faults)
        return reader.with_timeout(name, settings, longest_timeout(self.settings))

    def reload_registry(self) -> RegistrySettings:
        """Return the registry's settings with `${…}` resolved again; otherwise as `reload`."""
        faults: list[ConfigFault] = []
        resolved = self._reader.resolver.resolve(self._raw["schema_registry"], "schema_registry", faults)
        if faults:
            raise ConfigurationError(faults)
        try:
            return RegistrySettings.model_validate(resolved)
        except ValueError:  # its text has the values
            fault = ConfigFault("schema_registry", "is not valid any more with the secrets that are there now")
            raise ConfigurationError([fault]) from None


def load(
    path: str | Path,
    kinds: Kinds,
    env: Mapping[str, str] | None = None,
    rules: Rules | None = None,
    further: Further | None = None,
    *,
    missing: Callable[[str], str] | None = None,
) -> Loaded:
    """Read the file at `path` and return its settings.

    `kinds` gives the settings model of each vendor, and `rules`, if given, the ids of its local rules. `${NAME}` reads
    `env`, by default the process's environment. `further` is an additional check for things that this package does not
    know. It gets everything that could be read, so that its faults are reported with the others. `missing` returns, by
    path, a placeholder for a missing variable or file, for use without secrets. Raises `ConfigurationError` with every
    fault found.
    """
    path = Path(path)
    try:
        tree, faults, lines = parse(read_text(path))
    except ValueError as error:
        raise ConfigurationError([ConfigFault(str(path), str(error))]) from None
    if not isinstance(tree, dict):
        problem = f"the file must be a mapping with kafka and destinations, not {kind(tree)}"
        raise ConfigurationError(faults or [ConfigFault("", problem)])
    resolver = Resolver(os.environ if env is None else env, path.absolute().parent, missing)
    reader = _Reader(kinds, rules or {}, resolver, faults, further)
    settings = reader.settings(tree)
    if settings is None or reader.faults:
        faults = [_with_line(resolver.hide(fault), lines) for fault in dict.fromkeys(reader.faults)]
        raise ConfigurationError(faults)
    return Loaded(settings, path, reader, tree, lines)


def port_settings(path: str | Path, env: Mapping[str, str] | None = None) -> tuple[ServerSettings, list[str] | None]:
    """Return the section `server` and `console.members` of a file whose other sections may be faulty.

    Raises `ConfigurationError` if the section `server` is faulty, or the file is not YAML.
    """
    path = Path(path)
    try:
        tree, faults, _ = parse(read_text(path))
    except ValueError as error:
        raise ConfigurationError([ConfigFault(str(path), str(error))]) from None
    raw = {key: tree.get(key, {}) for key in ("server", "console")} if isinstance(tree, dict) else {}
    if faults and not isinstance(tree, dict):
        raise ConfigurationError(faults)
    resolver = Resolver(os.environ if env is None else env, path.absolute().parent)
    faults = []
    resolved = resolver.resolve(raw.get("server", {}), "server", faults)
    try:
        settings = ServerSettings.model_validate(resolved)
    except ValidationError as error:
        raise ConfigurationError(faults or faults_of(error, ServerSettings, resolved, "server")) from None
    if faults:
        raise ConfigurationError(faults)
    console = raw.get("console")
    members = resolver.resolve(console.get("members"), "console.members", []) if isinstance(console, dict) else None
    is_list = isinstance(members, list) and all(isinstance(each, str) for each in members)
    return settings, members if is_list else None


def _with_line(fault: ConfigFault, lines: Mapping[str, int]) -> ConfigFault:
    """Return a fault with the line of its key, or of the nearest mapping around a key that is missing."""
    path = fault.path
    while fault.line is None and path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return fault if fault.line is not None else replace(fault, line=lines.get(path) if path else None)


@dataclass(slots=True)
class _Reader:
    """Reads one file and continues after a fault, so that all faults are found."""

    kinds: Kinds
    rules: Rules
    resolver: Resolver
    faults: list[ConfigFault]
    further: Further | None = None

    def settings(self, tree: dict[str, Any]) -> Settings | None:
        """Return the settings of the whole file; None if `kafka` is faulty, which all others depend on."""
        # Destinations first. The vendor decides which model reads a destination, so they cannot be read as part of the
        # whole file.
        raw = self._destinations(tree)
        read = {name: self.destination(name, body) for name, body in raw.items()}
        good = {name: settings for name, settings in read.items() if settings is not None}
        rest = {key: value for key, value in tree.items() if key not in ("destinations", "routes")}
        rest = self._resolve(rest, "")
        if "routes" in tree:
            rest["routes"] = self.resolver.resolve(tree["routes"], "routes", self.faults, missing=_PLACEHOLDER)
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
        self.faults.extend(check_poll_interval(settings))
        self._add_further(check_routes(settings, raw, {name: each.vendor for name, each in good.items()}))
        if self.further is not None:
            self._add_further(self.further(settings, _vendors(raw), self.resolver.folder))
        return settings

    def _add_further(self, found: Iterable[ConfigFault]) -> None:
        """Add faults, except those that only follow from known ones."""
        reported = {fault.path for fault in self.faults}
        self.faults.extend(fault for fault in found if not _follows(fault.path, reported))

    def _destinations(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return the destinations as written in the file."""
        raw = tree.get("destinations", {})
        if isinstance(raw, dict) and raw:
            return raw
        problem = f"must be a mapping by name, not {kind(raw)}" if raw else "at least one is required"
        self.faults.append(ConfigFault("destinations", problem))
        return {}

    def _sections(self, rest: dict[str, Any], good: dict[str, DestinationSettings]) -> tuple[Settings | None, set[str]]:
        """Return the settings without the faulty sections, and the names of those.

        So that the checks across the other sections still find their faults.
        """
        try:
            return Settings.model_validate({**rest, "destinations": good}), set()
        except ValidationError as error:
            self._note(error, Settings, rest, "")
            faulty = {str(detail["loc"][0]) for detail in error.errors(include_input=False)}
        try:
            kept = {key: value for key, value in rest.items() if key not in faulty}
            if isinstance(rest.get("routes"), list):
                kept["routes"] = _readable(rest["routes"])
            return Settings.model_validate({**kept, "destinations": good}), faulty
        except ValidationError:
            return None, faulty

    def destination(self, name: str, body: Any) -> DestinationSettings | None:
        """Return one destination as its vendor's model; None if it is faulty."""
        path = join("destinations", name)
        fault = name_fault(name)
        if fault is not None:
            self.faults.append(fault)
        if not isinstance(body, dict):
            self.faults.append(ConfigFault(path, f"must be a mapping, not {kind(body)}"))
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
        """Return the settings model of a destination's vendor."""
        vendor = body.get("vendor")
        if isinstance(vendor, str) and vendor in self.kinds:
            return self.kinds[vendor]
        if not isinstance(vendor, str):
            problem = f"must be a string, not {kind(vendor)}; " if "vendor" in body else "is required; "
        else:
            hint = suggest(vendor, self.kinds)
            problem = f"unknown vendor {vendor!r}; {f'{hint} ' if hint.startswith('did') else ''}"
        known = f"known vendors: {', '.join(sorted(self.kinds))}"
        self.faults.append(ConfigFault(path, problem + known))
        return None

    def with_timeout(self, name: str, settings: DestinationSettings, longest: float) -> DestinationSettings:
        """Return a destination with the default of its time-out, which depends on `limits.drain_timeout`."""
        if "timeout" not in settings.model_fields_set:
            settings = settings.model_copy(update={"timeout": min(settings.timeout, longest)})
        self.faults.extend(check_timeout(name, settings, longest))
        return settings

    def _resolve(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        """Return the values with every reference resolved."""
        resolved: dict[str, Any] = self.resolver.resolve(value, path, self.faults)
        return resolved

    def _note(self, error: ValidationError, model: type[BaseModel], raw: Any, path: str) -> None:
        """Add a model's faults, except for values whose reference could not be resolved: they have a fault already."""
        reported = {fault.path for fault in self.faults}
        self.faults.extend(fault for fault in faults_of(error, model, raw, path) if fault.path not in reported)


def _follows(path: str, reported: Collection[str]) -> bool:
    """Whether a fault only follows from another: one at the same key, or a part that `_readable` left out."""
    route, is_mapped, _ = path.partition(".fields")
    if not is_mapped:
        return path in reported
    around = (path, f"{route}.fields", f"{route}.to")
    return any(other in around or other.startswith(f"{path}.") for other in reported)


def _vendors(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the vendor of each destination in the file that has one."""
    return {name: str(body["vendor"]) for name, body in raw.items() if isinstance(body, dict) and "vendor" in body}


def _readable(routes: list[Any]) -> list[Any]:
    """Return the routes without their faulty keys, sources and conditions.

    So that the other faults of a route are still found. A route keeps its index.
    """
    kept: list[Any] = []
    for route in routes:
        whole = dict(route) if isinstance(route, dict) else {}
        for parts in _faulty(whole):
            place = whole
            for part in parts[:-1]:
                place[part] = dict(place[part])
                place = place[part]
            place.pop(parts[-1], None)
        # Keep an empty route, so that later routes keep their index in the file.
        kept.append(whole if not _faulty(whole) else {"to": []})
    return kept


def _faulty(route: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the parts of a route to leave out so that it can be read; a missing `to` is added."""
    route.setdefault("to", [])
    try:
        RouteSettings.model_validate(route)
    except ValidationError as error:
        return list(dict.fromkeys(_whole(detail["loc"], route) for detail in error.errors(include_input=False)))
    return []


def _whole(loc: Sequence[str | int], route: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the key, source or condition that an error is about."""
    deep = {"fields": 3, "where": 2}.get(str(loc[0]), 1)
    parts: list[str] = []
    value: Any = route
    for part in loc[:deep]:
        if not isinstance(value, dict) or part not in value:
            break
        parts.append(str(part))
        value = value[part]
    return tuple(parts)


def _with_start(settings: KafkaSettings) -> KafkaSettings:
    """Return the settings with librdkafka's alias of `start` moved there."""
    client = dict(settings.client)
    alias = START_ALIASES.get(str(client.pop("auto.offset.reset", None)))
    start = settings.start if settings.start is not None else alias
    return settings.model_copy(update={"client": client, "start": start})
