"""The command `connector status`: destinations, rates, backlog and holds of all members on one screen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from connector.cli.common import (
    DEFAULT_FILE,
    FAILED,
    File,
    Json,
    begin,
    json_line,
    print_line,
    print_raw,
    print_table,
    say,
    stdout_width,
)
from connector.cli.member import command_options, members_of

if TYPE_CHECKING:
    from connector.console.advice import CommandOptions
    from connector.console.members import DestinationView
    from connector.operations.status import GroupStatus

INTERVAL: Final = 2.0
"""Seconds between two updates with --watch."""
_CLEAR: Final = "\x1b[H\x1b[2J"
_NARROW: Final = 60
"""With fewer columns only the most important ones are shown."""
_FRESH: Final = 2 * INTERVAL
"""A trouble that began at the first update may be older, so no time is shown."""


def status(
    *,
    config: File = DEFAULT_FILE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every two seconds until Ctrl-C.")] = False,
    url: Annotated[
        list[str] | None,
        typer.Option("--url", metavar="URL", help="A running member's port; repeatable. Default: the configured ones."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the destinations, rates, backlog and holds of all running members on one screen.

    Rates are measured for a second. It reads the members' ports only, so it works while Kafka does not.
    """
    loaded = begin(config)
    addresses = members_of(loaded, url).addresses
    with suppress(KeyboardInterrupt):
        found = asyncio.run(
            _show(
                list(loaded.settings.destinations),
                addresses,
                command_options(config, url),
                watch=watch,
                as_json=as_json,
            )
        )
        if not found:
            raise SystemExit(FAILED)


async def _show(names: list[str], addresses: list[str], options: CommandOptions, *, watch: bool, as_json: bool) -> bool:
    """Show the status once, or repeatedly until cancelled; return whether any member answered."""
    from connector.operations.status import follow_status

    async with aclosing(follow_status(names, addresses, INTERVAL)) as seen:
        async for found in seen:
            if watch and not as_json and sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            if as_json:
                sys.stdout.writelines(json_line(row) for row in json_rows(found))
            else:
                _print(found, options)
            sys.stdout.flush()
            if not watch:
                return found.is_reachable
    return True


def json_rows(found: GroupStatus) -> Iterator[Mapping[str, Any]]:
    """Yield a row for each destination, topic and member; `kind` says which."""
    sample = found.sample
    for destination in found.destinations:
        rate = {"accepted_per_second": sample.accepted.get(destination.name)}
        yield {"kind": "destination", **asdict(destination), **rate}
    for topic, backlog in sample.backlog.items():
        yield {"kind": "topic", "topic": topic, "backlog": backlog}
    for member in found.members:
        own = {"partitions": None if member.partitions is None else len(member.partitions)}
        row = {"kind": "member", "address": member.address, "ready": member.ready, "reasons": list(member.reasons)}
        more = {"trouble": member.trouble, "version": member.version, "memory": member.memory}
        yield {**row, **more, **own, "accepted_per_second": found.rates.get(member.address)}


def _print(found: GroupStatus, options: CommandOptions) -> None:
    from connector.console.formatting import duration, short
    from connector.console.members import stopped

    sample, is_stopped = found.sample, stopped(found.members)
    _print_problems(found)
    narrow = stdout_width() < _NARROW
    print_table(
        ("Name", "State", "/s") if narrow else ("Destination", "State", "Accepted/s", "In flight"),
        [
            (
                destination.name,
                "stopped" if is_stopped and destination.state == "flowing" else destination.state,
                short(sample.accepted[destination.name]) if destination.name in sample.accepted else None,
                *(() if narrow else (destination.in_flight,)),
            )
            for destination in found.destinations
        ],
        right=("Accepted/s", "/s", "In flight"),
        whole=("State",),
    )
    for destination in found.destinations:
        for line, command in _troubles(destination, found.at):
            print_line(line)
            if command is not None:
                # Neither wrapped nor styled, so that it can be copied.
                print_raw(f"  {options.added_to(command)}")
    if sample.backlog:
        rows = [(topic, short(backlog)) for topic, backlog in sample.backlog.items()]
        print_table(("Topic", "Backlog"), rows, right=("Backlog",))
    members = []
    for member in found.members:
        state = "unreachable" if member.trouble else "not ready" if member.ready is False else "ready"
        up = None if member.started is None else duration(found.at - member.started)
        memory = None if member.memory is None else f"{member.memory / (1 << 20):.0f} MiB"
        partitions = None if member.partitions is None else len(member.partitions)
        row = (member.address.partition("://")[2], state, partitions, up, memory)
        members.append(row[:2] if narrow else row)
    columns = ("Member", "State", "Partitions", "Up", "Memory")
    print_table(columns[:2] if narrow else columns, members, right=("Partitions", "Memory"), whole=("State",))
    for member in found.members:
        if member.trouble or (member.ready is False and member.reasons):
            say(f"{member.address}: {member.trouble or '; '.join(member.reasons)}")


def _print_problems(found: GroupStatus) -> None:
    """Print the same headline as the console: what is wrong, the worst first, and what to do."""
    from connector.console.formatting import duration
    from connector.console.overview import problems

    troubles = problems(found.members, found.destinations, found.at)
    for trouble in troubles:
        since = "" if trouble.since is None or found.at - trouble.since < _FRESH else found.at - trouble.since
        print_line(f"{trouble.headline}{since and f', for {duration(float(since))}'}. {trouble.detail}")
    if not troubles:
        print_line("Nothing to do: all destinations deliver.")


def _troubles(destination: DestinationView, now: float) -> Iterator[tuple[str, str | None]]:
    """Yield a sentence for each hold and each record that waits alone, with the command that helps."""
    from connector.console.advice import for_hold
    from connector.console.formatting import ago, duration

    for hold in destination.holds:
        code = f" {hold.code}" if hold.code else ""
        since = "" if hold.since is None else f" for {duration(now - hold.since)}"
        probe = "waits for connector release" if hold.next_probe is None else f"next probe {ago(hold.next_probe, now)}"
        aside = "" if hold.set_aside is None else f", {hold.set_aside:,} set aside"
        said = f"{destination.name}: held by {hold.cause}{code}{since}, {probe}{aside}. {hold.message or ''}".rstrip()
        advice = for_hold(destination.name, hold.cause)
        yield f"{said.rstrip('.')}. {advice.action}", advice.command
    for record in destination.waiting[:5]:
        since = "" if record.since is None else f" for {duration(now - record.since)}"
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        command = f"connector skip {record.topic} {record.partition} {record.offset} --destination {destination.name}"
        said = f"{destination.name}: {place} waits alone{since}. {record.reason or ''}".rstrip(". ")
        yield f"{said}. Fix the cause, or skip it:", command
