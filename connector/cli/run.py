"""The command `connector run`: deliver records until stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from connector.cli.common import DEFAULT_FILE, File, in_loop, read_config, refuse_unknown
from connector.cli.completion import complete_destination


def run(
    config: File = DEFAULT_FILE,
    destination: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Run this destination alone, in its own consumer group (<group_id>.NAME), so that no other "
            "destination can slow it down.",
            autocompletion=complete_destination,
        ),
    ] = None,
) -> None:
    """Deliver records until stopped. SIGTERM or SIGINT drains first; a second signal stops at once."""
    from connector.runtime import app as application
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    refuse_unknown(loaded, destination)
    configure(loaded.settings.log)
    raise SystemExit(in_loop(application.run(loaded, destination)))
