"""The settings as frozen models: what every key means, its unit, its default and what it allows.

A vendor's own settings are a subclass of `DestinationSettings` in its module. Durations are seconds and sizes bytes
once they are read. The reference in `docs/configuration.md` and the JSON schema are made from the descriptions here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from connector.config.values import Duration, Model, Off, Size, Start


class BatchSettings(Model):
    """How large a batch may grow, and how long its first item waits. Unset: the vendor's documented limit."""

    records: int | None = Field(default=None, gt=0, description="Records of one request. Unset: the vendor's limit.")
    bytes: Size | None = Field(default=None, description="Bytes of one request's body. Unset: the vendor's limit.")
    linger: Duration = Field(default=0.2, description="How long the first record of a batch waits for others.")


class RetrySettings(Model):
    """Exponential backoff with full jitter, for ever unless `give_up_after` is set."""

    initial: Duration = Field(default=0.5, description="The upper bound of the first wait; it doubles each time.")
    max: Duration = Field(default=60.0, description="The upper bound of every wait.")
    give_up_after: Duration | None = Field(
        default=None, description="Dead-letters what was tried for this long (cause gave_up). Unset: never."
    )


class StormSettings(Model):
    """A share of refused records among the last `records` above which a destination is held."""

    share: float = Field(default=0.5, gt=0, le=1, description="The share of refused records that starts a hold.")
    records: int = Field(default=500, ge=10, description="How many of the last records are looked at.")


class HttpSettings(Model):
    """How the vendor is reached: a proxy, a CA of one's own, a client certificate (PEM files)."""

    proxy: str | None = Field(default=None, description="The proxy's URL.")
    ca_file: str | None = Field(default=None, description="PEM file of the CAs to trust instead of the system's.")
    cert_file: str | None = Field(default=None, description="PEM file of the client certificate.")
    key_file: str | None = Field(default=None, description="PEM file of the client certificate's key.")


class DocumentedLimits(Model):
    """What a vendor documents (or, where it does not, our default): never exceeded without `agreed_limits`."""

    records: int = Field(description="Records of one request.")
    bytes: int = Field(description="Bytes of one request's body.")
    requests_per_second: float | None = Field(default=None, description="Requests a second; none: not limited.")


class DestinationSettings(Model):
    """What every destination has; a vendor's settings add its account.

    `timeout` is lowered to `drain_timeout` - 2 s by `load` where the file does not set it.
    """

    documented: ClassVar[DocumentedLimits]

    vendor: str = Field(description="The vendor's name.")
    base_url: str = Field(description="The address of the vendor's API.")
    batch: BatchSettings = Field(default=BatchSettings(), description="How large a batch grows.")
    agreed_limits: bool = Field(
        default=False, description="The vendor granted this account more than it documents: its limits may be exceeded."
    )
    max_in_flight: int = Field(default=8, ge=1, le=1024, description="Requests under way at once.")
    order: Literal["none", "key"] = Field(
        default="none", description="`key`: events of one key are accepted in the order of their offsets."
    )
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Requests a second of the whole group. Unset: the vendor's limit."
    )
    rate_limit_share: Literal["group", "fixed"] = Field(
        default="group", description="`group`: members share the rate; `fixed`: each member has it in full."
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="How a failed request is tried again.")
    timeout: Duration = Field(
        default=20.0,
        description="Time for one whole request; at most limits.drain_timeout - 2s, which is also the default "
        "where that is lower.",
    )
    codes: dict[str, Literal["refuse", "retry", "hold"]] = Field(
        default={}, description="Reads a vendor's code in another way than documented."
    )
    rules: dict[str, Off] = Field(default={}, description="Local rules, by id, that are switched off.")
    on_unknown_outcome: Literal["retry", "dead_letter"] = Field(
        default="retry", description="What happens where nobody can say whether the vendor accepted a request."
    )
    storm: StormSettings | Off = Field(
        default=StormSettings(), description="When many refusals hold the destination; `off`: never."
    )
    http: HttpSettings = Field(default=HttpSettings(), description="How the vendor is reached.")
    hold: bool = Field(default=False, description="Held by the operator: nothing is sent.")
    traceparent: bool = Field(
        default=False,
        description="Sends the vendor the trace's context in the header traceparent, where tracing.enabled is set.",
    )

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        """Take an absolute http(s) URL without credentials or query; a closing slash is dropped."""
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("allowed: an address such as https://api.example.com, without query")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address holds no credentials; they have keys of their own")
        return value.rstrip("/")

    @property
    def rate(self) -> float | None:
        """Requests a second of the whole group; None where neither the file nor the vendor limits them."""
        return self.documented.requests_per_second if self.requests_per_second is None else self.requests_per_second


class KafkaSettings(Model):
    """Where records come from. `client` is passed to librdkafka as it is."""

    topics: list[str] = Field(
        min_length=1, description="Names, or patterns that begin with ^ (which never match the connector's own topics)."
    )
    group_id: str = Field(min_length=1, description="The consumer group.")
    start: Start | None = Field(
        default=None,
        description="Where reading starts for a partition without a committed offset: earliest (what unset means "
        "too), latest, epoch milliseconds, or a time with its zone. Alias: client's auto.offset.reset.",
    )
    create_topics: bool = Field(
        default=False,
        description="Creates the dead-letter, replay, results and receipts topics where they are missing.",
    )
    client: dict[str, str | int | float | bool] = Field(
        description="Properties of librdkafka; bootstrap.servers is required, those the connector owns are refused."
    )


class RegistrySettings(Model):
    """A schema registry with Confluent's API. `client` is passed to its client as it is."""

    url: str = Field(pattern=r"^https?://[^\s]+$", description="The registry's address.")
    client: dict[str, Any] = Field(
        default={}, description="Further keys of confluent-kafka's registry client, such as basic.auth.user.info."
    )


class SchemaSettings(Model):
    """Writer schemas that are known without a registry: `files` are globs, relative to the configuration's folder.

    `plain` names, for a topic whose values are plain Avro without any header, the full name of their schema.
    """

    files: list[str] = Field(
        default=[], description="Schema files (.avsc), as globs relative to the configuration's folder."
    )
    plain: dict[str, str] = Field(
        default={}, description="By topic with plain Avro values (no header): the full name of their schema."
    )


class RouteSettings(Model):
    """Which events go to which destinations, and how their fields are mapped."""

    topics: list[str] | None = Field(default=None, description="Only events of these topics (names or ^ patterns).")
    schema_name: str | None = Field(
        default=None, alias="schema", description="Only events written with the schema of this full name."
    )
    where: dict[str, Any] = Field(
        default={}, description="Only events with these values, by dotted path or $header.name: a value or a list."
    )
    to: list[str] = Field(min_length=1, description="The destinations, by name.")
    id: str | None = Field(default=None, description="Dotted path of the event's own id.")
    entity: bool = Field(default=False, description="The events are about non-human entities (Quick Audience).")
    fields: dict[str, dict[str, Any]] = Field(
        default={},
        description="By vendor, its field: a dotted path, $key, $timestamp, $header.name, {const: …} or "
        "{path: …, unit: ms}.",
    )


class DeadLetterSettings(Model):
    """The dead-letter and replay topics; unset: `<group_id>.dead-letters` and `<group_id>.replay`."""

    topic: str | None = Field(default=None, description="Where dead letters go. Unset: <group_id>.dead-letters.")
    replay_topic: str | None = Field(default=None, description="Where replayed records go. Unset: <group_id>.replay.")


class ReceiptSettings(Model):
    """Where receipts go; off when there is no topic."""

    topic: str | None = Field(default=None, description="Where one small record for each delivered batch goes.")


class LimitSettings(Model):
    """What the process may hold, and how long it may take to stop."""

    buffer: Size = Field(
        default=24 * 2**20, description="What records under way may hold of memory; intake waits above."
    )
    drain_timeout: Duration = Field(
        default=22.0, ge=3, description="How long a stop or a rebalance waits for requests under way; at least 3s."
    )
    commit_interval: Duration = Field(default=1.0, description="How often offsets are committed.")


class ServerSettings(Model):
    """Where /metrics, /healthz, /readyz and /status are served."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="The port to listen on; 0: any free one.")
    token: SecretStr | None = Field(
        default=None, description="Bearer token for actions (hold, release, skip) that do not come from loopback."
    )


class ConsoleSettings(Model):
    """The page for people, which `connector console` serves."""

    host: str = Field(
        default="127.0.0.1", description="The address to listen on; any but this machine's own demands a token."
    )
    port: int = Field(default=8090, ge=0, le=65535, description="The port to listen on; 0: any free one.")
    token: SecretStr | None = Field(
        default=None, min_length=8, description="What a person signs in with; with one, everybody has to."
    )
    hosts: list[str] = Field(
        default=[],
        description="Names under which a browser reaches the page, without port. Addresses and localhost need none.",
    )
    members: list[str] | None = Field(
        default=None,
        description="The members' ports, http://host:port; a name with several addresses means all of them. Unset: "
        "the port of `server` on this machine.",
    )
    interval: Duration = Field(default=5.0, ge=1, description="How often members and Kafka are asked.")
    letters: int = Field(
        default=200_000, ge=100, description="How many dead letters are kept at hand, the newest, at 1 kB each."
    )
    mask: list[str] = Field(
        default=[],
        description="What is never shown or exported: properties.phone (wherever an event has such a path), $key, "
        "$header.name.",
    )
    audit_topic: str | None = Field(default=None, description="Where each action is recorded, beside the log.")

    @field_validator("members")
    @classmethod
    def _members(cls, value: list[str] | None) -> list[str] | None:
        """Take addresses such as http://host:port, without path."""
        for member in value or ():
            parts = urlsplit(member)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
                raise ValueError("allowed: addresses such as http://connector-0.connector:8080, without path")
            if parts.username is not None or parts.password is not None:
                raise ValueError("an address holds no credentials; /status and /metrics need none")
        return value


class LogSettings(Model):
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The lowest level logged.")
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto`: console on a terminal, JSON lines otherwise."
    )
    sample: int = Field(
        default=100, ge=1, description="At level debug: one record, and one request, in so many is followed; 1: all."
    )


class TracingSettings(Model):
    """Traces by OpenTelemetry: off unless enabled. OpenTelemetry's own variables (OTEL_…) say the rest."""

    enabled: bool = Field(
        default=False,
        description="A span for each request, linked to the W3C contexts in its records' headers. Needs the extra: "
        "pip install 'connector[otel]'.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="Where spans are sent, by OTLP over HTTP, such as http://localhost:4318/v1/traces. Unset: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else this machine.",
    )
    sample: float = Field(
        default=1.0, ge=0, le=1, description="The share of requests that is traced, where OTEL_TRACES_SAMPLER is unset."
    )


class Settings(Model):
    """The whole file."""

    kafka: KafkaSettings = Field(description="Where records come from.")
    schema_registry: RegistrySettings | None = Field(default=None, description="A registry with Confluent's API.")
    schemas: SchemaSettings = Field(default=SchemaSettings(), description="Schemas known without a registry.")
    destinations: dict[str, DestinationSettings] = Field(description="The vendor accounts, by name.")
    routes: list[RouteSettings] = Field(
        default=[], description="Which events go where; none is needed for events of the contract schemas."
    )
    unrouted: Literal["dead_letter", "skip", "stop"] = Field(
        default="dead_letter", description="What happens to an event that no route takes."
    )
    dead_letters: DeadLetterSettings = Field(default=DeadLetterSettings(), description="The dead-letter topics.")
    receipts: ReceiptSettings = Field(default=ReceiptSettings(), description="Records of what was delivered.")
    limits: LimitSettings = Field(default=LimitSettings(), description="Memory and time limits.")
    server: ServerSettings = Field(default=ServerSettings(), description="The HTTP port of `run`.")
    console: ConsoleSettings = Field(default=ConsoleSettings(), description="The page of `connector console`.")
    log: LogSettings = Field(default=LogSettings(), description="What is logged and how.")
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
    def own_topics(self) -> frozenset[str]:
        """Every topic that the connector writes to; a pattern in `kafka.topics` never matches these."""
        others = {topic for topic in (self.receipts.topic, self.console.audit_topic) if topic}
        return frozenset({self.dead_letter_topic, self.replay_topic, *self.results_topics.values(), *others})
