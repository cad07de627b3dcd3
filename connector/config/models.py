"""The settings as frozen models: the meaning, unit, default and allowed values of every key.

A vendor's own settings are a subclass of `DestinationSettings` in its module. Once read, durations are seconds and
sizes are bytes. The reference in `docs/configuration.md` and the JSON schema are generated from the descriptions here.
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from connector.config.base import Model
from connector.config.routes import RouteSettings, hashed

_HTTP: Final = ("http", "https")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PORTS: Final = re.compile(r"(\d{1,5})(?:\s*-\s*(\d{1,5}))?")
_LAST_PORT: Final = 65535
_LINKED: Final = ("topic", "partition", "offset")
_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?")
_SIZE_UNITS: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}


class UnreadableSymbol(ValueError):
    """A value that its key does not accept, and that is harmless to repeat. The text completes `must be …`."""


def parse_duration(value: object) -> object:
    """Return seconds for text such as `200ms`, `1.5s`, `1h`; a number is seconds already."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        return float(match[1]) * _DURATION_UNITS[match[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableSymbol("a duration: a number with ms, s, m, h or d, such as 200ms")
    return value


def parse_size(value: object) -> object:
    """Return bytes for text such as `1MiB` or `10kB`; a number is bytes already."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        return int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnreadableSymbol("a size: a whole number with B, kB, KiB, MB, MiB, GB or GiB, such as 1MiB")
    return value


def parse_start(value: object) -> object:
    """Return epoch milliseconds for a point in time; `earliest` and `latest` stay as they are."""
    if value is None or value in ("earliest", "latest"):
        return value
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return int(moment.timestamp() * 1000)
    raise UnreadableSymbol("earliest, latest, epoch milliseconds or a time with a zone, such as 2026-11-20T00:00:00Z")


def parse_ports(value: object) -> object:
    """Return a port as a number, or a range of ports as `FIRST-LAST`."""
    text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = _PORTS.fullmatch(text)
    if match is not None:
        first, last = int(match[1]), int(match[2] or match[1])
        if match[2] is None and first <= _LAST_PORT:
            return first
        if 0 < first <= last <= _LAST_PORT:
            return f"{first}-{last}"
    raise UnreadableSymbol("a port from 0 to 65535, or a range such as 8080-8089")


def _off(value: object) -> object:
    """Accept false for `off`: Helm and YAML 1.1 turn a bare `off` into false."""
    return "off" if value is False else value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": rf"^{_DURATION.pattern}$"},
                {"type": "number", "exclusiveMinimum": 0},
            ],
            "x-kind": "duration",
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": rf"^{_SIZE.pattern}$"}, {"type": "integer", "exclusiveMinimum": 0}],
            "x-kind": "size",
        }
    ),
]
Start = Annotated[
    Literal["earliest", "latest"] | int,
    BeforeValidator(parse_start),
    WithJsonSchema({"type": ["string", "integer"], "x-kind": "earliest, latest or a point in time"}),
]
Ports = Annotated[
    int | str,
    BeforeValidator(parse_ports),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _LAST_PORT},
                {"type": "string", "pattern": rf"^{_PORTS.pattern}$"},
            ],
            "x-kind": "port, or range such as `8080-8089`",
        }
    ),
]
Off = Annotated[Literal["off"], BeforeValidator(_off), WithJsonSchema({"enum": ["off", False], "x-kind": "off"})]


class BatchSettings(Model):
    """How large a batch may become, and how long its first record waits. Unset: the vendor's documented limit."""

    records: int | None = Field(
        default=None, gt=0, description="Maximum records per request. Unset: the vendor's limit."
    )
    bytes: Size | None = Field(default=None, description="Maximum bytes of a request body. Unset: the vendor's limit.")
    linger: Duration = Field(default=0.2, description="How long the first record of a batch waits for more.")


class RetrySettings(Model):
    """Exponential back-off with full jitter. It never gives up unless `give_up_after` is set."""

    initial: Duration = Field(default=0.5, description="Upper bound of the first wait; it doubles with each retry.")
    max: Duration = Field(default=60.0, description="Upper bound of every wait.")
    give_up_after: Duration | None = Field(
        default=None, description="Dead-letters a record after this much time of retries (cause gave_up). Unset: never."
    )


class StormSettings(Model):
    """The share of refused records among the last `records` that starts a storm."""

    share: float = Field(
        default=0.5, gt=0, le=1, description="The share of records refused for one reason that starts a storm."
    )
    records: int = Field(default=500, ge=10, description="How many of the last records the share is computed from.")


def _http_proxy(value: str) -> str:
    """Return the address of an HTTP proxy. Raises `ValueError` without the value, which may have a password."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be the address of an HTTP proxy, such as http://proxy.example.com:3128")
    return value


class HttpSettings(Model):
    """How to reach the vendor: a proxy, a private CA, a client certificate (PEM files)."""

    proxy: str | None = Field(
        default=None,
        description="The URL of an HTTP proxy, http:// or https://. Variables such as HTTP_PROXY have no effect.",
    )
    ca_file: str | None = Field(default=None, description="PEM file of the CAs to trust instead of the system's.")
    cert_file: str | None = Field(default=None, description="PEM file of the client certificate.")
    key_file: str | None = Field(default=None, description="PEM file of the client certificate's unencrypted key.")

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        """Accept an HTTP proxy only. A proxy with another protocol would never answer."""
        return value if value is None else _http_proxy(value)


class DocumentedLimits(Model):
    """The limits that a vendor documents, or else our defaults; exceeded only with `agreed_limits`."""

    records: int = Field(description="Maximum records per request.")
    bytes: int = Field(description="Maximum bytes of a request body.")
    requests_per_second: float | None = Field(default=None, description="Maximum requests per second; null: no limit.")


class DestinationSettings(Model):
    """The keys of every destination; a vendor's settings add its account.

    `timeout` is lowered to `drain_timeout` - 2 s by `load` unless the file sets it.
    """

    documented: ClassVar[DocumentedLimits]

    vendor: str = Field(description="The vendor's name.")
    base_url: str = Field(description="The address of the vendor's API.")
    batch: BatchSettings = Field(default=BatchSettings(), description="How large a batch may become.")
    agreed_limits: bool = Field(
        default=False,
        description="The vendor granted this account more than it documents, so its documented limits may be exceeded.",
    )
    max_in_flight: int = Field(default=8, ge=1, le=1024, description="Maximum requests in flight.")
    order: Literal["none", "key"] = Field(
        default="none", description="`key`: events with the same key are delivered in offset order."
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Requests per second of the whole group. Unset: the vendor's limit."
    )
    rate_limit_share: Literal["group", "fixed"] = Field(
        default="group", description="`group`: the members share the rate; `fixed`: each member uses the full rate."
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="How a failed request is retried.")
    timeout: Duration = Field(
        default=20.0,
        description="Time-out of one request; at most limits.drain_timeout - 2s, which is also the default if "
        "that is lower.",
    )
    codes: dict[str, Literal["refuse", "retry", "hold"]] = Field(
        default={}, description="Overrides how a response code of the vendor is handled."
    )
    rules: dict[str, Off] = Field(default={}, description="Local rules to switch off, by id.")
    on_unknown_outcome: Literal["retry", "dead_letter"] = Field(
        default="retry", description="What to do when it is unknown whether the vendor accepted a request."
    )
    storm: StormSettings | Off = Field(
        default=StormSettings(),
        description="When refusals for one reason become a storm, which sets further ones aside; `off`: never.",
    )
    http: HttpSettings = Field(default=HttpSettings(), description="How to reach the vendor.")
    hold: bool = Field(default=False, description="Hold the destination in every member: nothing is sent.")
    traceparent: bool = Field(
        default=False,
        description="Sends the trace context to the vendor in the header traceparent; needs tracing.enabled.",
    )

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        """Accept an absolute http(s) URL without credentials or query; drop a closing slash."""
        parts = urlsplit(value)
        if parts.scheme not in _HTTP or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be a URL such as https://api.example.com, without a query")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not contain credentials; they have keys of their own")
        return value.rstrip("/")

    @property
    def rate(self) -> float | None:
        """Requests per second of the whole group; None if neither the file nor the vendor limits them."""
        return self.documented.requests_per_second if self.requests_per_second is None else self.requests_per_second


class KafkaSettings(Model):
    """Where records come from. `client` is passed to librdkafka unchanged."""

    topics: list[str] = Field(
        min_length=1,
        description="Topic names, or patterns that begin with ^ (they never match the connector's own topics).",
    )
    group_id: str = Field(min_length=1, description="The consumer group.")
    start: Start | None = Field(
        default=None,
        description="Where to start in a partition without a committed offset: earliest (the default), latest, epoch "
        "milliseconds, or a time with a zone. Alias: auto.offset.reset under client.",
    )
    create_topics: bool = Field(
        default=False,
        description="Creates the dead-letter, replay, results and receipts topics if they are missing.",
    )
    client: dict[str, str | int | float | bool] = Field(
        description="Properties of librdkafka. bootstrap.servers is required; those the connector sets are refused."
    )


class RegistrySettings(Model):
    """A schema registry with Confluent's API. `client` is passed to its client unchanged."""

    url: str = Field(pattern=r"^https?://[^\s]+$", description="URL of the registry.")
    client: dict[str, Any] = Field(
        default={}, description="Further properties of confluent-kafka's registry client, such as basic.auth.user.info."
    )

    @field_validator("client")
    @classmethod
    def _proxy(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Accept the same proxies as destinations do."""
        if (proxy := value.get("proxy")) is not None:
            try:
                _http_proxy(str(proxy))
            except ValueError as error:
                raise ValueError(f"proxy {error}") from None
        return value


class SchemaSettings(Model):
    """Writer schemas that are known without a registry."""

    files: list[str] = Field(
        default=[], description="Schema files (.avsc), as globs relative to the configuration's folder."
    )
    plain: dict[str, str] = Field(
        default={}, description="For topics with plain Avro values (no header): topic to the full name of its schema."
    )


class DeadLetterSettings(Model):
    """The dead-letter and replay topics; unset: `<group_id>.dead-letters` and `<group_id>.replay`."""

    topic: str | None = Field(default=None, description="Where dead letters go. Unset: <group_id>.dead-letters.")
    replay_topic: str | None = Field(default=None, description="Where replayed records go. Unset: <group_id>.replay.")
    dialect: Literal["connect", "spring"] | None = Field(
        default=None,
        description="Adds the error headers of Kafka Connect or Spring Kafka to dead letters, for other tools.",
    )


class ReceiptSettings(Model):
    """Where receipts are written. Without a topic there are none."""

    topic: str | None = Field(default=None, description="Where to write one small record for each delivered batch.")


class LimitSettings(Model):
    """How much the process may hold in memory, and how long it may take to stop."""

    buffer: Size = Field(default=24 * 2**20, description="Memory for records in progress; above it, intake waits.")
    drain_timeout: Duration = Field(
        default=22.0, ge=3, description="How long a stop or a rebalance waits for requests in flight; at least 3s."
    )
    commit_interval: Duration = Field(default=1.0, description="How often to commit offsets.")


class ServerSettings(Model):
    """Where /metrics, /healthz, /readyz and /status are served."""

    host: str = Field(
        default="127.0.0.1",
        description="The address to listen on; `::`: every address, IPv4 and IPv6. The default is `::1` on a host "
        "without IPv4.",
    )
    port: Ports = Field(
        default=8080, description="The port to listen on; 0: any free port; a range: the first free port of it."
    )
    hosts: list[str] = Field(
        default=[],
        description="Further host names under which /status may be read, without port. Addresses, names without dots "
        "and cluster names (.svc, .local) need no entry.",
    )
    token: SecretStr | None = Field(
        default=None,
        description="Bearer token that every action (hold, release, skip, log) needs. Unset: only this host may act.",
    )

    @property
    def ports(self) -> range:
        """The ports to try, in order."""
        first, _, last = str(self.port).partition("-")
        return range(int(first), int(last or first) + 1)


class ConsoleTokens(Model):
    """One token for each role of the console. `look` sees every page, `act` also starts actions."""

    look: SecretStr | None = Field(default=None, min_length=8, description="Signs in to look at every page.")
    act: SecretStr | None = Field(default=None, min_length=8, description="Signs in to look and to act.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        """Refuse one token for both roles."""
        if self.look is not None and self.look == self.act:
            raise ValueError("look and act must be different tokens")
        return self


class ConsoleProxy(Model):
    """Sign-in by a proxy in front of the console, such as one for single sign-on. It must overwrite `user_header`."""

    addresses: list[str] = Field(
        min_length=1, description="Where the proxy connects from: addresses or networks such as 10.0.0.0/28."
    )
    user_header: str = Field(
        min_length=1, description="The header in which the proxy names the person, such as X-Forwarded-User."
    )
    act: list[str] = Field(default=[], description="The people who may also act; everyone else only looks.")

    @field_validator("addresses")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        """Accept addresses and networks."""
        for network in value:
            ip_network(network)
        return value


class ConsoleSettings(Model):
    """The web page that `connector console` serves."""

    host: str = Field(default="127.0.0.1", description="The address to listen on; any but loopback requires a token.")
    port: int = Field(default=8090, ge=0, le=65535, description="The port to listen on; 0: any free port.")
    tokens: ConsoleTokens = Field(
        default=ConsoleTokens(), description="The tokens to sign in with; once one is set, every visitor needs one."
    )
    token: SecretStr | None = Field(default=None, min_length=8, description="The older name of tokens.act.")
    proxy: ConsoleProxy | None = Field(
        default=None, description="Sign-in by a proxy in front of the console. Unset: no header signs anyone in."
    )
    hosts: list[str] = Field(
        default=[],
        description="Host names under which a browser reaches the page, without port; IP addresses need none.",
    )
    members: list[str] | None = Field(
        default=None,
        description="URLs of the members' ports, http://host:port; a name with several addresses stands for all of "
        "them. Unset: the port of `server` on this machine.",
    )
    interval: Duration = Field(default=5.0, ge=1, description="How often to query members and Kafka.")
    letters: int = Field(
        default=1_000_000,
        ge=100,
        description="How many dead letters to keep in memory, the newest: about 0.2 kB each, 256 MiB at most.",
    )
    mask: list[str] = Field(
        default=[],
        description="What is never shown or exported: properties.phone (wherever an event has this path), $key, "
        "$header.name.",
    )
    links: dict[Literal["topic", "partition", "record"], str] = Field(
        default={},
        description="Addresses on your own Kafka page, with {topic}, {partition} and {offset} to fill in.",
    )
    audit_topic: str | None = Field(default=None, description="Where to record each action, in addition to the log.")
    events_topic: str | None = Field(
        default=None,
        description="Where members and the console write what happens (holds, restarts, rebalances, storms, skips), so "
        "that the timeline outlasts them. Unset: it is kept in memory only.",
    )

    @field_validator("links")
    @classmethod
    def _addresses(cls, value: dict[Literal["topic", "partition", "record"], str]) -> dict[Any, str]:
        """Accept web addresses only, because a page links to them."""
        for link in value.values():
            if urlsplit(link).scheme not in {"http", "https"}:
                raise ValueError("must be an address such as https://kafka.example.com/topics/{topic}")
            for name in re.findall(r"\{(.*?)\}", link):
                if name not in _LINKED:
                    raise ValueError(
                        f"has an unknown {{{name}}}; what is filled in: {{topic}}, {{partition}}, {{offset}}"
                    )
        return value

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        """Refuse `token` next to `tokens.act`: they are the same setting."""
        if self.token is not None and self.tokens.act is not None:
            raise ValueError("token is the older name of tokens.act; set only tokens.act")
        return self

    @property
    def roles(self) -> dict[Literal["look", "act"], str]:
        """The token of each role that has one."""
        act = self.tokens.act or self.token
        found: dict[Literal["look", "act"], SecretStr | None] = {"look": self.tokens.look, "act": act}
        return {role: token.get_secret_value() for role, token in found.items() if token is not None}

    @field_validator("members")
    @classmethod
    def _members(cls, value: list[str] | None) -> list[str] | None:
        """Accept addresses such as http://host:port, without a path."""
        for member in value or ():
            parts = urlsplit(member)
            if parts.scheme not in _HTTP or not parts.hostname or parts.path.strip("/") or parts.query:
                raise ValueError("must be URLs such as http://connector-0.connector:8080, without a path")
            if parts.username is not None or parts.password is not None:
                raise ValueError("must not contain credentials; /status and /metrics need none")
        return value


class LogSettings(Model):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The lowest level to log.")
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto`: console on a terminal, otherwise JSON lines."
    )
    sample: int = Field(
        default=100, ge=1, description="At level debug: follow one in this many records and requests; 1: all."
    )


class TracingSettings(Model):
    """Traces by OpenTelemetry, off by default. OpenTelemetry's own variables (OTEL_…) set the rest."""

    enabled: bool = Field(
        default=False,
        description="One span per request, linked to the W3C contexts in its records' headers. Needs the extra: "
        "pip install 'connector[otel]'.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="Where to send spans, by OTLP over HTTP, such as http://localhost:4318/v1/traces. Unset: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else this machine.",
    )
    sample: float = Field(
        default=1.0, ge=0, le=1, description="The share of requests to trace, unless OTEL_TRACES_SAMPLER is set."
    )


class ReloadSettings(Model):
    """When a running member reads this file again. `connector reload` always works."""

    watch: bool = Field(
        default=False,
        description="Reads the configuration again when the file, or a secret file that it names, has changed. What "
        "cannot change while the member runs is logged and left.",
    )


class Settings(Model):
    """The whole file."""

    kafka: KafkaSettings = Field(description="Where records come from.")
    schema_registry: RegistrySettings | None = Field(default=None, description="A registry with Confluent's API.")
    schemas: SchemaSettings = Field(default=SchemaSettings(), description="Schemas that are known without a registry.")
    destinations: dict[str, DestinationSettings] = Field(description="The vendor accounts, by name.")
    routes: list[RouteSettings] = Field(
        default=[], description="Which events go where. Events of the contract schemas need no route."
    )
    unrouted: Literal["dead_letter", "skip", "stop"] = Field(
        default="dead_letter", description="What happens to an event that matches no route."
    )
    dead_letters: DeadLetterSettings = Field(default=DeadLetterSettings(), description="The dead-letter topics.")
    receipts: ReceiptSettings = Field(default=ReceiptSettings(), description="Records of delivered batches.")
    limits: LimitSettings = Field(default=LimitSettings(), description="Memory and time limits.")
    server: ServerSettings = Field(default=ServerSettings(), description="The HTTP port of `run`.")
    console: ConsoleSettings = Field(default=ConsoleSettings(), description="The page of `connector console`.")
    log: LogSettings = Field(default=LogSettings(), description="What is logged, and how.")
    reload: ReloadSettings = Field(default=ReloadSettings(), description="When the file is read again.")
    tracing: TracingSettings = Field(default=TracingSettings(), description="Traces by OpenTelemetry.")

    @property
    def dead_letter_topic(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letters.topic or f"{self.kafka.group_id}.dead-letters"

    @property
    def replay_topic(self) -> str:
        """The replay topic's name."""
        return self.dead_letters.replay_topic or f"{self.kafka.group_id}.replay"

    @property
    def results_topics(self) -> dict[str, str]:
        """The results topics, by the name of the destination whose settings have a `results_topic`."""
        found = ((name, getattr(settings, "results_topic", None)) for name, settings in self.destinations.items())
        return {name: topic for name, topic in found if topic}

    @property
    def hashed_paths(self) -> list[str]:
        """The fields that routes hash, in the form of `console.mask`."""
        sources = [each for route in self.routes for fields in route.fields.values() for each in fields.values()]
        return sorted({path for source in sources for path in hashed(source)})

    @property
    def own_topics(self) -> frozenset[str]:
        """Every topic that the connector writes to; a pattern in `kafka.topics` never matches one of them."""
        audit = (self.console.audit_topic, self.console.events_topic)
        others = {topic for topic in (self.receipts.topic, *audit) if topic}
        return frozenset({self.dead_letter_topic, self.replay_topic, *self.results_topics.values(), *others})
