"""The settings: one YAML file, read into frozen models; every fault at once, each with its path.

A vendor's own settings are a subclass of `DestinationSettings` in its module; `load` is given them, because this
module stands below the vendors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from connector.errors import ConfigurationError, Fault

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?")
_SIZE_UNITS = {"B": 1, "kB": 1000, "KB": 1000, "KiB": 1024, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}


def parse_duration(value: object) -> object:
    """Return seconds for text such as `200ms`, `1.5s`, `1h`; a number is seconds already."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("a duration is a number with ms, s, m, h or d, such as 200ms")
        return float(match[1]) * _DURATION_UNITS[match[2]]
    return value


def parse_size(value: object) -> object:
    """Return bytes for text such as `1MiB` or `10kB`; a number is bytes already."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("a size is a whole number with B, kB, KiB, MB, MiB, GB or GiB, such as 1MiB")
        return int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    return value


def _off(value: object) -> object:
    """YAML reads a bare `off` as false; both mean the same here."""
    return "off" if value is False or value == "off" else value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Off = Annotated[Literal["off"], BeforeValidator(_off)]


class Model(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BatchSettings(Model):
    """How large a batch may grow, and how long its first item waits. Unset: the vendor's documented limit."""

    records: int | None = Field(default=None, gt=0)
    bytes: Size | None = None
    linger: Duration = 0.2


class RetrySettings(Model):
    """Exponential backoff with full jitter, for ever unless `give_up_after` is set."""

    initial: Duration = 0.5
    max: Duration = 60.0
    give_up_after: Duration | None = None


class StormSettings(Model):
    """A share of refused records among the last `records` above which a destination is held."""

    share: float = Field(default=0.5, gt=0, le=1)
    records: int = Field(default=500, ge=10)


class HttpSettings(Model):
    """How the vendor is reached: a proxy, a CA of one's own, a client certificate (PEM files)."""

    proxy: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class DocumentedLimits(Model):
    """What a vendor documents (or, where it does not, our default): never exceeded without `agreed_limits`."""

    records: int
    bytes: int
    requests_per_second: float | None = None


class DestinationSettings(Model):
    """What every destination has; a vendor's settings add its account."""

    documented: ClassVar[DocumentedLimits]

    vendor: str
    base_url: str
    batch: BatchSettings = BatchSettings()
    agreed_limits: bool = False
    max_in_flight: int = Field(default=8, ge=1, le=1024)
    order: Literal["none", "key"] = "none"
    requests_per_second: float | None = Field(default=None, gt=0)
    rate_limit_share: Literal["group", "fixed"] = "group"
    retry: RetrySettings = RetrySettings()
    timeout: Duration | None = None
    codes: dict[str, Literal["refuse", "retry", "hold"]] = {}
    rules: dict[str, Off] = {}
    on_unknown_outcome: Literal["retry", "dead_letter"] = "retry"
    storm: StormSettings | Off = StormSettings()
    http: HttpSettings = HttpSettings()
    hold: bool = False

class KafkaSettings(Model):
    """Where records come from. `client` is passed to librdkafka as it is."""

    topics: list[str] = Field(min_length=1)
    group_id: str = Field(min_length=1)
    start: Literal["earliest", "latest"] | int | None = None
    create_topics: bool = False
    client: dict[str, str | int | float | bool]


class RegistrySettings(Model):
    """A schema registry with Confluent's API. `client` is passed to its client as it is."""

    url: str
    client: dict[str, Any] = {}


class SchemaSettings(Model):
    """Writer schemas that are known without a registry: `files` are globs, relative to the configuration's folder.

    `plain` names, for a topic whose values are plain Avro without any header, the full name of their schema.
    """

    files: list[str] = []
    plain: dict[str, str] = {}


class RouteSettings(Model):
    """Which events go to which destinations, and how their fields are mapped."""

    topics: list[str] | None = None
    schema_name: str | None = Field(default=None, alias="schema")
    where: dict[str, Any] = {}
    to: list[str] = Field(min_length=1)
    id: str | None = None
    entity: bool = False
    fields: dict[str, dict[str, Any]] = {}


class DeadLetterSettings(Model):
    """The dead-letter and replay topics; unset: `<group_id>.dead-letters` and `<group_id>.replay`."""

    topic: str | None = None
    replay_topic: str | None = None


class ReceiptSettings(Model):
    """Where receipts go; off when there is no topic."""

    topic: str | None = None


class LimitSettings(Model):
    """What the process may hold, and how long it may take to stop."""

    buffer: Size = 24 * 2**20
    drain_timeout: Duration = 22.0
    commit_interval: Duration = 1.0


class ServerSettings(Model):
    """Where /metrics, /healthz, /readyz and /status are served."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    token: SecretStr | None = None


class LogSettings(Model):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Settings(Model):
    """The whole file."""

    kafka: KafkaSettings
    schema_registry: RegistrySettings | None = None
    schemas: SchemaSettings = SchemaSettings()
    destinations: dict[str, DestinationSettings]
    routes: list[RouteSettings] = []
    unrouted: Literal["dead_letter", "skip", "stop"] = "dead_letter"
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    receipts: ReceiptSettings = ReceiptSettings()
    limits: LimitSettings = LimitSettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
