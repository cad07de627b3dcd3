"""The command `connector simulate`: one vendor's API on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, FAILED, fail, in_loop
from connector.cli.completion import complete_vendor


def simulate(
    vendor: Annotated[
        str,
        typer.Argument(
            metavar="VENDOR", help="jiguang, quick_audience, mytracker, jpush_report.", autocompletion=complete_vendor
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The port to listen on; 0: any free port.")
    ] = 0,
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An event that the account knows; repeatable. Default: it knows all."),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Requests allowed in any second; more are throttled. Default: no limit."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append one JSON line for each request, with its events.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An option of the account, such as token=abc or vip=false; repeatable."
        ),
    ] = None,
) -> None:
    """Serve a vendor's API strictly as documented, with faults on demand. It prints how to control it."""
    from connector.config.errors import suggest
    from connector.testing import SIMULATORS, account
    from connector.testing import simulate as serve

    if vendor not in SIMULATORS:
        fail(f"there is no simulator of {vendor!r}; {suggest(vendor, SIMULATORS)}", BAD_CONFIGURATION)
    try:
        options = account(vendor, option or (), event or ())
    except ValueError as error:
        fail(str(error), BAD_CONFIGURATION)
    try:
        in_loop(serve(vendor, host=host, port=port, requests_per_second=rate, log=log, **options))
    except KeyboardInterrupt:
        return
    except OSError as error:
        if error.filename is not None:
            fail(f"cannot write {error.filename}: {error.strerror or error}", FAILED)
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}", FAILED)
