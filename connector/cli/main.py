"""The commands: arguments in, one call out, an exit code back: 0 done, 1 failed, 2 bad usage or configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from connector import __version__
from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    FAILED,
    File,
    fail,
    in_loop,
    read_config,
    refuse_unknown,
)
from connector.cli.console import console
from connector.cli.dlq import dlq
from connector.cli.explain import explain
from connector.cli.member import hold, release, skip
from connector.cli.offsets import offsets
from connector.cli.preview import preview
from connector.cli.replay import discard, replay
from connector.cli.topics import topics
from connector.config.loader import Loaded
from connector.errors import ConfigurationError, ConnectorError

app = typer.Typer(
    name="connector",
    help="Streams Avro records from Kafka to vendors' HTTP APIs. Every command exits with 0 when it is done, "
    "1 when it failed, 2 when its arguments or the configuration are wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command of this process's arguments and exit with its code."""
    try:
        app()
    except ConfigurationError as error:
        count = "one fault" if len(error.faults) == 1 else f"{len(error.faults)} faults"
        fail(f"The configuration cannot be used, {count}:\n{error}", BAD_CONFIGURATION)
    except ConnectorError as error:
        fail(f"{type(error).__name__}: {error}", FAILED)
    except BrokenPipeError:
        # Who reads, such as `head`, has enough. What is still buffered must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None


def _version(wanted: bool) -> None:  # noqa: FBT001 -- typer's signature
    """Print the version and end."""
    if wanted:
        typer.echo(f"connector {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def run(
    config: File = DEFAULT_FILE,
    destination: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Run this destination alone, in a consumer group of its own (<group_id>.NAME), so that nothing "
            "another destination does can slow it.",
        ),
    ] = None,
) -> None:
    """Deliver records until stopped; SIGTERM or SIGINT stops cleanly, a second signal at once."""
    from connector.runtime import app as application
    from connector.telemetry.logs import configure

    loaded = read_config(config)
    refuse_unknown(loaded, destination)
    configure(loaded.settings.log)
    raise SystemExit(in_loop(application.run(loaded, destination)))


@app.command()
def check(
    *,
    config: File = DEFAULT_FILE,
    online: Annotated[
        bool, typer.Option("--online", help="Ask Kafka, the registry and vendors too: topics, limits, credentials.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Say how the configuration is understood, without its secrets, or everything that is wrong with it."""
    from connector.cli import check as check_report
    from connector.runtime.checks import check_routes

    try:
        loaded = read_config(config)
        check_routes(loaded)
    except ConfigurationError as error:
        if as_json:
            sys.stdout.write(check_report.faults_as_json(error.faults) + "\n")
        raise
    faults = _online_faults(loaded) if online else []
    if as_json:
        sys.stdout.write(check_report.as_json(loaded.settings, faults, online=online) + "\n")
    else:
        check_report.show(loaded.settings, str(loaded.path))
        if online and not faults:
            sys.stdout.write("Kafka and what is around it answer as the configuration needs them.\n")
    if faults:
        fail("\n".join(faults), FAILED)


def _online_faults(loaded: Loaded) -> list[str]:
    """Return what is wrong around the connector."""
    from connector.runtime import checks as app_checks
    from connector.telemetry.logs import configure

    configure(loaded.settings.log)
    return list(in_loop(app_checks.check_online(loaded)))


@app.command()
def simulate(
    vendor: Annotated[str, typer.Argument(metavar="VENDOR", help="jiguang, quick_audience, mytracker, jpush_report.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: any free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An event that exists there; repeatable. Without: every event does."),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="Requests that are admitted in any second; more are throttled.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append one JSON line for each request, with its events.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An option of the account (token=abc, vip=false); repeatable."
        ),
    ] = None,
) -> None:
    """Serve a vendor's API as its document says, strictly, with faults on demand; it prints how to steer it."""
    from connector.testing import SIMULATORS, account
    from connector.testing import simulate as serve

    if vendor not in SIMULATORS:
        from connector.config.errors import suggest

        fail(f"there is no simulator of {vendor}; {suggest(vendor, SIMULATORS)}", BAD_CONFIGURATION)
    try:
        options = account(vendor, option or (), event or ())
    except ValueError as error:
        fail(str(error), BAD_CONFIGURATION)
    try:
        in_loop(serve(vendor, host=host, port=port, requests_per_second=rate, log=log, **options))
    except KeyboardInterrupt:
        return
    except OSError as error:
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}", FAILED)


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up after the summary, until interrupted.")] = False,
) -> None:
    """Show everything on this machine alone: a broker, the vendors' simulators, events, some of them bad.

    Ends with a summary and the dead letters; exits with 0 only if the numbers add up by the simulators' own logs.
    """
    from connector.demo.demo import run as play

    try:
        raise SystemExit(in_loop(play(keep=keep)))
    except KeyboardInterrupt:
        raise SystemExit(FAILED) from None


for command in (hold, release, skip):
    app.command()(command)
app.command()(explain)
app.command()(preview)
app.command()(offsets)
app.command()(topics)
app.command()(console)
dlq.command()(replay)
dlq.command()(discard)
app.add_typer(dlq)
