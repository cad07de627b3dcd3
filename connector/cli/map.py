"""The command `connector map`: what each destination would be sent for an event given as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    emit,
    fail,
    print_line,
    print_raw,
    read_event_file,
)
from connector.cli.completion import complete_destination, complete_topic

if TYPE_CHECKING:
    from connector.dead_letters.inspection import Inspection, Preparation
    from connector.operations.offline import WrittenEvent


def map_event(  # noqa: PLR0913 -- each option is one of the command line
    *,
    event: Annotated[
        str,
        typer.Option(metavar="FILE|-", help="JSON: one event, a list, or one on each line; - is standard input."),
    ],
    config: File = DEFAULT_FILE,
    schema: Annotated[
        str | None, typer.Option(metavar="NAME", help="The event's schema. Default: the known schema that it matches.")
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", help="Its topic. Default: that of its route.", autocompletion=complete_topic),
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="TEXT", help="The record's key.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header of the record; repeatable.")
    ] = None,
    time: Annotated[str | None, typer.Option(metavar="TIME", help="The record's time. Default: now.")] = None,
    destination: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this destination.", autocompletion=complete_destination),
    ] = None,
    fail_on_refused: Annotated[
        bool, typer.Option("--fail-on-refused", help="Exit with 1 if the event is refused.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what each destination would be sent for an event, and what would be refused.

    Needs no Kafka, registry or secrets: schemas come from schemas.files. Nothing is sent.
    """
    from connector.operations.offline import EventFault, Offline, load_offline, read_events

    try:
        given = read_events(read_event_file(event, "--event"), "standard input" if event == "-" else event)
        given = [_completed(each, schema, topic, key, header or (), time) for each in given]
        loaded = load_offline(config, os.environ)
        if destination is not None and destination not in loaded.settings.destinations:
            from connector.config.errors import suggest

            hint = suggest(destination, loaded.settings.destinations)
            fail(f"unknown destination {destination!r}; {hint}", BAD_CONFIGURATION)
        offline = Offline(loaded)
        found = [_only(offline.inspect(each), destination) for each in given]
    except EventFault as fault:
        fail(str(fault), BAD_CONFIGURATION)
    emit(found, as_json, _json, lambda every: _show(every, destination))
    refused = [each for each in found if each.fault or any(prepared.rule for prepared in each.preparations)]
    if fail_on_refused and refused:
        raise SystemExit(FAILED)


def _completed(
    given: WrittenEvent,
    schema: str | None,
    topic: str | None,
    key: str | None,
    headers: Sequence[str],
    time: str | None,
) -> WrittenEvent:
    """Return the event completed by the options."""
    from connector.operations.offline import time_of

    pairs = [header.partition("=") for header in headers]
    if wrong := [name for name, equals, _ in pairs if not equals or not name]:
        fail(f"--header must be NAME=VALUE, not {wrong[0]!r}", BAD_CONFIGURATION)
    return replace(
        given,
        schema=schema or given.schema,
        topic=topic or given.topic,
        key=given.key if key is None else key,
        headers=(*given.headers, *((name, value.encode()) for name, _, value in pairs)),
        time=given.time if time is None else time_of(time, "--time"),
    )


def _only(found: Inspection, destination: str | None) -> Inspection:
    if destination is None:
        return found
    return replace(found, preparations=tuple(each for each in found.preparations if each.destination == destination))


def _show(found: Sequence[Inspection], destination: str | None) -> None:
    for number, each in enumerate(found):
        if number:
            print_raw("")
        if each.fault is not None:
            print_line(f"{each.schema}: refused with {each.code}: {each.fault}")
        elif not each.preparations:
            why = f" ({each.skipped})" if each.skipped is not None else ""
            print_line(f"{each.schema}: nothing is sent{'' if destination is None else f' to {destination}'}{why}.")
        for prepared in each.preparations:
            _show_prepared(each, prepared)


def _show_prepared(found: Inspection, prepared: Preparation) -> None:
    by = "its schema or target" if prepared.route is None else f"routes[{prepared.route}]"
    head = f"{prepared.destination} ({found.schema} by {by})"
    if prepared.rule is not None:
        print_line(f"{head}: refused with {prepared.rule}")
        print_line(f"  {prepared.reason}")
        return
    text = prepared.fragment or ""
    print_line(f"{head}: {len(text.encode())} bytes")
    try:
        print_raw(json.dumps(json.loads(text), ensure_ascii=False, indent=2))
    except ValueError:
        print_raw(text)


def _json(found: Inspection) -> Mapping[str, Any]:
    return {
        "schema": found.schema,
        "skipped": found.skipped,
        "refused": None if found.fault is None else {"code": found.code, "message": found.fault},
        "destinations": [
            {
                "destination": each.destination,
                "route": each.route,
                "bytes": None if each.fragment is None else len(each.fragment.encode()),
                "sent": None if each.rule is not None else each.fragment,
                "refused": None if each.rule is None else {"code": each.rule, "message": each.reason},
                "dedup_id": each.dedup_id,
            }
            for each in found.preparations
        ],
    }
