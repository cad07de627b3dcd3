"""The command `connector demo`: everything on this machine alone."""

from __future__ import annotations

from typing import Annotated

import typer

from connector.cli.common import FAILED, in_loop


def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep running after the summary, until interrupted.")] = False,
) -> None:
    """Run everything on this machine alone: a broker, the vendors' simulators, and events, some of them bad.

    Ends with a summary and the dead letters. Exits with 0 only if the simulators' own logs confirm the numbers.
    """
    from connector.demo.demo import run as play

    try:
        raise SystemExit(in_loop(play(keep=keep)))
    except KeyboardInterrupt:
        raise SystemExit(FAILED) from None
