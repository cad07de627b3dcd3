"""The command line: all commands by name, and how an error ends the process.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from connector import __version__
from connector.cli.check import check
from connector.cli.common import BAD_CONFIGURATION, FAILED, escape_unprintable, fail
from connector.cli.console import console
from connector.cli.demo import demo
from connector.cli.dlq import dlq
from connector.cli.erase import erase
from connector.cli.events import events
from connector.cli.explain import explain
from connector.cli.init import init
from connector.cli.list import listing
from connector.cli.map import map_event
from connector.cli.member import hold, probe, release, skip
from connector.cli.offsets import offsets
from connector.cli.preview import preview
from connector.cli.reload import reload
from connector.cli.replay import discard, replay
from connector.cli.run import run
from connector.cli.schema import schema
from connector.cli.simulate import simulate
from connector.cli.status import status
from connector.cli.tap import tap
from connector.cli.test import run_tests
from connector.cli.topics import topics
from connector.errors import ConfigurationError, ConnectorError, counted

_OTHER_WORDS: Final = {
    "start": "run",
    "validate": "check",
    "lint": "check",
    "dead-letters": "dlq",
    "dead_letters": "dlq",
    "pause": "hold",
    "resume": "release",
    "lag": "offsets",
    "reset": "offsets reset",
    "dry-run": "preview",
    "new": "init",
    "scaffold": "init",
    "generate": "init",
    "tail": "tap",
    "follow": "tap",
    "simulator": "simulate",
}
"""Commands of other tools, and ours for the same purpose."""


class Commands(TyperGroup):
    """A group that suggests a command for an unknown one, also from other groups: for `replay`, `dlq replay`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of the arguments. Raises click's `UsageError` with a suggestion for an unknown one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"There is no command '{args[0]}'. {_suggest(ctx, args[0])}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it in one sentence."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("Interrupted.", FAILED)


def _suggest(context: Any, name: str) -> str:
    """Return a suggestion for the command that was probably meant: one of this group, else of any."""
    root = context.find_root()
    own = {path.rsplit(" ", 1)[-1]: f"{context.command_path} {path}" for path in _paths(context.command)}
    every = {path.rsplit(" ", 1)[-1]: path for path in _paths(root.command)} | _OTHER_WORDS
    every = {word: f"{root.command_path} {path}" for word, path in every.items()}
    for known in ({name: every[name]} if name in every and name not in own else {}, own, every):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if near:
            return f"Did you mean `{known[near[0]]}`?"
    return f"Commands: {', '.join(context.command.commands)}."


def _paths(group: TyperGroup, prefix: str = "") -> list[str]:
    """Return the commands of a group and of its subgroups by name; commands nearer to the group win."""
    paths: list[str] = []
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            paths = [*_paths(command, f"{prefix}{name} "), *paths]
        paths.append(f"{prefix}{name}")
    return paths


app = typer.Typer(
    name="connector",
    cls=Commands,
    help="Streams Avro records from Kafka to vendors' HTTP APIs. Exit codes: 0 done, 1 failed, 2 bad usage or "
    "configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command of this process's arguments and exit with its code."""
    escape_unprintable()
    try:
        try:
            app(prog_name="connector")
        finally:
            # Flushed here, where a failure can still be reported: at exit Python itself would print a traceback.
            sys.stdout.flush()
    except ConfigurationError as error:
        fail(f"The configuration has {counted(len(error.faults), 'fault')}:\n{error}", BAD_CONFIGURATION)
    except ConnectorError as error:
        fail(str(error), FAILED)
    except BrokenPipeError:
        _drop_output()
        fail("The reader of the output has closed it.", FAILED)
    except OSError as error:
        _drop_output()
        where = "" if error.filename is None else f" {error.filename}"
        fail(f"Cannot read or write{where}: {error.strerror or error}", FAILED)


def _drop_output() -> None:
    """Discard buffered output, so that writing it does not fail again when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:  # noqa: FBT001 -- typer's signature
    """Print the version and exit."""
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
    """Define the options before a command."""


_COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "run": run,
    "check": check,
    "init": init,
    "test": run_tests,
    "map": map_event,
    "preview": preview,
    "tap": tap,
    "explain": explain,
    "offsets": offsets,
    "topics": topics,
    "hold": hold,
    "release": release,
    "probe": probe,
    "skip": skip,
    "reload": reload,
    "status": status,
    "events": events,
    "console": console,
    "schema": schema,
    "simulate": simulate,
    "demo": demo,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
dlq.command()(replay)
dlq.command()(discard)
dlq.command()(erase)
app.add_typer(dlq, cls=Commands)
app.add_typer(listing, cls=Commands)
