"""What `connector check` shows: the configuration as it is understood, defaults filled in, secrets hidden."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector.config.loader import DestinationSettings, RouteSettings, Settings, redacted
from connector.config.reference import duration_text, size_text
from connector.errors import Fault

PIPE_WIDTH: Final = 160
"""Columns where the output is no terminal, so that a line stays a line for grep."""


def as_json(settings: Settings, faults: Sequence[str], *, online: bool) -> str:
    """Return one JSON line: the settings, what follows from them, and what is wrong around the connector."""
    names = [name for name, _ in _own_topics(settings)]
    derived: dict[str, Any] = {"topics": names}
    if online:
        derived["faults"] = list(faults)
    return json.dumps({"ok": not faults, **derived, "settings": redacted(settings)}, ensure_ascii=False)


def faults_as_json(faults: Sequence[Fault]) -> str:
    """Return one JSON line that tells why there are no settings."""
    return json.dumps({"ok": False, "faults": [{"path": each.path, "message": each.message} for each in faults]})


def show(settings: Settings, path: str, stream: TextIO | None = None) -> None:
    """Print the settings for a person."""
    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)
    console.print(f"[bold]{escape(path)} is valid.[/bold]\n")
    console.print(_grid(_kafka(settings)))
    console.print(_destinations(settings))
    if settings.routes:
        console.print(_routes(settings.routes))
    else:
        console.print("No routes: events of the contract schemas go to their vendor's only destination.\n")
    console.print(_grid(_surroundings(settings)))


def _grid(rows: Iterator[tuple[str, str]]) -> Table:
    """Return names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(f"[dim]{name}[/dim]", escape(value))
    table.add_row("", "")
    return table


def _kafka(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where records come from."""
    shown = redacted(settings)
    yield "reads", ", ".join(settings.kafka.topics)
    yield "as group", settings.kafka.group_id
    start = settings.kafka.start
    yield "starts at", f"{start} ms since 1970" if isinstance(start, int) else start or "earliest"
    yield "librdkafka", ", ".join(f"{key}={value}" for key, value in shown["kafka"]["client"].items())
    if settings.schema_registry is not None:
        yield "registry", shown["schema_registry"]["url"]
    if settings.schemas.files:
        yield "schema files", ", ".join(settings.schemas.files)


def _own_topics(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the topics that are written to, with what for."""
    yield settings.dead_letter_topic, "dead letters"
    yield settings.replay_topic, "replay"
    for name, topic in settings.results_topics.items():
        yield topic, f"results of {name}"
    if settings.receipts.topic is not None:
        yield settings.receipts.topic, "receipts"
    if settings.console.audit_topic is not None:
        yield settings.console.audit_topic, "audit log"


def _surroundings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what is written and what the process may use."""
    for topic, purpose in _own_topics(settings):
        yield purpose, topic
    yield "topics missing", "are created" if settings.kafka.create_topics else "stop the start (kafka.create_topics)"
    yield "unrouted events", settings.unrouted.replace("_", " ")
    limits = settings.limits
    yield "buffer", size_text(limits.buffer)
    yield "drain, commit", f"{duration_text(limits.drain_timeout)}, every {duration_text(limits.commit_interval)}"
    token = "with a token" if settings.server.token else "actions from loopback only"
    yield "port", f"{settings.server.host}:{settings.server.port}, {token}"
    own = settings.console
    hidden = f", hides {', '.join(own.mask)}" if own.mask else ""
    yield "console", f"{own.host}:{own.port}, {'with a token' if own.token else 'without a token'}{hidden}"


def _destinations(settings: Settings) -> Table:
    """Return one row for each destination."""
    table = Table(title="Destinations", title_justify="left", title_style="bold")
    for column in ("name", "vendor", "address", "batch", "requests", "time-out", "also"):
        table.add_column(column, overflow="fold")
    for name, each in settings.destinations.items():
        records = each.batch.records or each.documented.records
        body = size_text(each.batch.bytes or each.documented.bytes)
        rate = f"{each.rate:g}/s" if each.rate is not None else "no rate limit"
        cells = (
            name,
            each.vendor,
            each.base_url,
            f"{records} records, {body}, {duration_text(each.batch.linger)}",
            f"{rate}, {each.max_in_flight} in flight",
            duration_text(each.timeout),
            "; ".join(_exceptions(each)),
        )
        table.add_row(*map(escape, cells))
    return table


def _exceptions(settings: DestinationSettings) -> Iterator[str]:
    """Yield what is set apart from the defaults and changes what is promised."""
    if settings.hold:
        yield "HELD by the operator"
    if settings.order == "key":
        yield "in order by key"
    if settings.agreed_limits:
        yield "limits agreed with the vendor"
    if settings.rate_limit_share == "fixed":
        yield "each member has the whole rate"
    if settings.retry.give_up_after is not None:
        yield f"gives up after {duration_text(settings.retry.give_up_after)}"
    if settings.on_unknown_outcome == "dead_letter":
        yield "unknown outcomes become dead letters"
    if settings.storm == "off":
        yield "no storm guard"
    yield from (f"code {code}: {reading}" for code, reading in settings.codes.items())
    yield from (f"rule {rule} off" for rule in settings.rules)


def _routes(routes: Sequence[RouteSettings]) -> Table:
    """Return one row for each route."""
    table = Table(title="Routes, all that match apply", title_justify="left", title_style="bold")
    for column in ("#", "topics", "schema", "where", "to", "maps"):
        table.add_column(column, overflow="fold")
    for index, route in enumerate(routes):
        cells = (
            str(index),
            ", ".join(route.topics or ["all"]),
            route.schema_name or "any",
            ", ".join(f"{path} = {value}" for path, value in route.where.items()) or "always",
            ", ".join(route.to),
            "; ".join(f"{vendor}: {len(fields)} fields" for vendor, fields in route.fields.items()) or "as it is",
        )
        table.add_row(*map(escape, cells))
    return table
