"""The command `connector demo`: everything on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, fail, in_loop, read_event_file


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep running after the summary, until interrupted.")] = False,
    events: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="Deliver your own events (JSON, as for map) with your own configuration."),
    ] = None,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="With --events: the configuration file.")
    ] = DEFAULT_FILE,
) -> None:
    """Run everything on this machine alone: a broker, the vendors' simulators, and events, some of them bad.

    Ends with a summary and the dead letters. Exits with 0 only if the simulators' own logs confirm the numbers.

    With --events it delivers your own events by your own configuration, to simulated vendors: no Kafka, registry or
    secrets are needed. Exits with 1 if an event was refused.
    """
    if events is not None:
        if keep:
            fail("--keep is for the demo's own events; leave out --events", BAD_CONFIGURATION)
        raise SystemExit(_own(config, events))
    from connector.demo.demo import run as play

    try:
        raise SystemExit(in_loop(play(keep=keep)))
    except KeyboardInterrupt:
        raise SystemExit(FAILED) from None


def _own(config: Path, events: str) -> int:
    """Deliver the user's own events; return the exit code."""
    from connector.demo.own import run as deliver
    from connector.operations.offline import EventFault

    text = read_event_file(events, "--events")
    try:
        return in_loop(deliver(config, "standard input" if events == "-" else events, text))
    except EventFault as fault:
        fail(str(fault), BAD_CONFIGURATION)
    except KeyboardInterrupt:
        return FAILED
