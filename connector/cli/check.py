"""The command `connector check`: the configuration with defaults filled in and secrets masked, or its faults."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from connector.cli.common import (
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    fail,
    in_loop,
    json_line,
    print_line,
    print_pairs,
    print_table,
    read_config,
    say,
)
from connector.config.loader import DestinationSettings, Loaded, RouteSettings, Settings, redacted
from connector.config.reference import duration_text, size_text
from connector.config.routes import CEL, Condition
from connector.config.secrets import hide_literals
from connector.errors import ConfigFault, ConfigurationError, counted
from connector.telemetry.redaction import mask_written


def check(
    *,
    config: File = DEFAULT_FILE,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also ask Kafka, the registry and the vendors: topics, limits, credentials."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Turn warnings into faults, such as no TLS or secrets in the file."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Validate the configuration and print it, with defaults filled in and secrets masked."""
    from connector.operations.trial import refused_types
    from connector.runtime.checks import route_faults, schema_warnings

    try:
        loaded = read_config(config, route_faults)
        unknown = () if online else schema_warnings(loaded)
        _warn([*loaded.warnings, *unknown, *refused_types(loaded)], strict=strict)
        faults = _online_faults(loaded) if online else []
    except ConfigurationError as error:
        if as_json:
            sys.stdout.write(json_line(faults_json(error.faults)))
        raise
    if as_json:
        sys.stdout.write(json_line(settings_json(loaded.settings, faults, online=online)))
    else:
        show(loaded.settings, str(loaded.path))
        if online and not faults:
            print_line("Kafka, the registry and the vendors answer as this configuration needs.")
            print_unprobed(loaded.settings)
    if faults:
        fail("\n".join(faults), FAILED)


def print_unprobed(settings: Settings) -> None:
    """Print which credentials were not checked."""
    from connector.runtime.checks import unprobed

    if names := unprobed(settings):
        names_text = ", ".join(names)
        print_line(f"Not checked: the credentials of {names_text}; their vendors offer no request for that.")


def _warn(warnings: Sequence[ConfigFault], *, strict: bool) -> None:
    """Print warnings. Raises `ConfigurationError` for them if `strict`."""
    if strict and warnings:
        raise ConfigurationError(list(warnings))
    for warning in warnings:
        say(f"warning: {warning}")


def _online_faults(loaded: Loaded) -> list[str]:
    """Return faults outside the configuration. Raises `ConfigurationError` for those that only the registry shows."""
    from connector.runtime import checks
    from connector.telemetry.logs import configure

    configure(loaded.settings.log)
    found = in_loop(checks.registry_schemas(loaded.settings))
    faults = [] if found is None else checks.registry_faults(loaded, found)
    outside = in_loop(checks.check_online(loaded))
    if faults:
        raise ConfigurationError([*faults, *(ConfigFault("", text) for text in outside)])
    return list(outside)


def settings_json(settings: Settings, faults: Sequence[str], *, online: bool) -> dict[str, Any]:
    """Return what `--json` prints: the settings, what follows from them, and faults outside the configuration."""
    derived: dict[str, Any] = {"topics": [name for name, _ in _own_topics(settings)]}
    if online:
        derived["faults"] = list(faults)
    return {"ok": not faults, **derived, "settings": redacted(settings)}


def faults_json(faults: Sequence[ConfigFault]) -> dict[str, Any]:
    """Return what `--json` prints for an invalid configuration."""
    return {"ok": False, "faults": [{"path": fault.path, "message": fault.message} for fault in faults]}


def show(settings: Settings, path: str) -> None:
    """Print the settings for a person."""
    print_line(f"{path} is valid.\n")
    print_pairs(_source_lines(settings))
    print_line("")
    print_table(
        ("name", "vendor", "address", "batch", "requests", "time-out", "also"),
        (_destination_cells(name, each) for name, each in settings.destinations.items()),
        title="Destinations",
    )
    if settings.routes:
        print_table(
            ("#", "topics", "schema", "where", "to", "maps"),
            (_route_cells(index, route) for index, route in enumerate(settings.routes)),
            title="Routes (all that match apply)",
        )
    else:
        print_line("No routes: events of the contract schemas go to their vendor's only destination.\n")
    print_pairs(_other_lines(settings))


def _source_lines(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where records come from."""
    shown = redacted(settings)
    yield "topics", ", ".join(settings.kafka.topics)
    yield "group", settings.kafka.group_id
    start = settings.kafka.start
    yield "starts at", f"{start} ms since 1970" if isinstance(start, int) else start or "earliest"
    yield "librdkafka", ", ".join(f"{key}={value}" for key, value in shown["kafka"]["client"].items())
    if settings.schema_registry is not None:
        yield "registry", shown["schema_registry"]["url"]
    if settings.schemas.files:
        yield "schema files", ", ".join(settings.schemas.files)


def _own_topics(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the topics that the connector writes to, with their purpose."""
    yield settings.dead_letter_topic, "dead letters"
    yield settings.replay_topic, "replay"
    for name, topic in settings.results_topics.items():
        yield topic, f"results of {name}"
    if settings.receipts.topic is not None:
        yield settings.receipts.topic, "receipts"
    if settings.console.audit_topic is not None:
        yield settings.console.audit_topic, "audit log"


def _other_lines(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the topics that are written, and the limits of the process."""
    for topic, purpose in _own_topics(settings):
        yield purpose, topic
    yield "missing topics", "create them" if settings.kafka.create_topics else "refuse to start (kafka.create_topics)"
    yield "unrouted events", settings.unrouted.replace("_", " ")
    limits = settings.limits
    yield "buffer", size_text(limits.buffer)
    yield "drain, commit", f"{duration_text(limits.drain_timeout)}, every {duration_text(limits.commit_interval)}"
    token = "with a token" if settings.server.token else "actions from loopback only"
    yield "port", f"{settings.server.host}:{settings.server.port}, {token}"
    own = settings.console
    hidden = f", masks {', '.join(own.mask)}" if own.mask else ""
    yield "console", f"{own.host}:{own.port}, {'with a token' if own.roles else 'without a token'}{hidden}"


def _destination_cells(name: str, settings: DestinationSettings) -> tuple[str, ...]:
    """Return a destination's row."""
    records = settings.batch.records or settings.documented.records
    body = size_text(settings.batch.bytes or settings.documented.bytes)
    rate = f"{settings.rate:g}/s" if settings.rate is not None else "no rate limit"
    return (
        name,
        settings.vendor,
        mask_written(settings.base_url),
        f"{counted(records, 'record')}, {body}, {duration_text(settings.batch.linger)}",
        f"{rate}, {settings.max_in_flight} in flight",
        duration_text(settings.timeout),
        "; ".join(_exceptions(settings)),
    )


def _exceptions(settings: DestinationSettings) -> Iterator[str]:
    """Yield the settings that differ from the defaults and weaken or change a promise."""
    if settings.hold:
        yield "HELD by the operator"
    if settings.order == "key":
        yield "in order by key"
    if settings.agreed_limits:
        yield "limits agreed with the vendor"
    if settings.rate_limit_share == "fixed":
        yield "each member uses the full rate"
    if settings.retry.give_up_after is not None:
        yield f"gives up after {duration_text(settings.retry.give_up_after)}"
    if settings.on_unknown_outcome == "dead_letter":
        yield "unknown outcomes become dead letters"
    if settings.storm == "off":
        yield "no storm guard"
    yield from (f"code {code}: {reading}" for code, reading in settings.codes.items())
    yield from (f"rule {rule} off" for rule in settings.rules)


def _condition_text(path: str, wanted: Any) -> str:
    """Return one entry of `where` for a person."""
    if path == CEL and isinstance(wanted, str):
        return hide_literals(wanted)
    if isinstance(wanted, Condition):
        written = wanted.model_dump(by_alias=True, exclude_unset=True)
        return ", ".join(f"{path} {name} {value}" for name, value in written.items())
    return f"{path} = {wanted}"


def _route_cells(index: int, route: RouteSettings) -> tuple[str, ...]:
    """Return a route's row."""
    return (
        str(index),
        ", ".join(route.topics or ["all"]),
        route.schema_name or "any",
        ", ".join(_condition_text(path, wanted) for path, wanted in route.where.items()) or "always",
        (", ".join(route.to) or "nowhere: dropped") + (f" (sample {route.sample:g})" if route.sample else ""),
        "; ".join(f"{vendor}: {counted(len(fields), 'field')}" for vendor, fields in route.fields.items())
        or "unchanged",
    )
