"""What all commands share: how they start, fail, and print (tables on a terminal, JSON Lines, plain text).

Text from records, vendors and servers is untrusted: `visible` escapes whatever could command a terminal or reorder
what it shows. Everything that a command prints goes through this module.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector.config.loader import Further, Loaded, load, secret_values
from connector.telemetry.terminal import visible as visible  # noqa: PLC0414 -- commands import it from here
from connector.telemetry.terminal import visible_json

FAILED: Final = 1
BAD_CONFIGURATION: Final = 2
PIPE_WIDTH: Final = 200
"""Columns if the output is not a terminal, so that a row stays one line for grep."""
MOST_COLUMNS: Final = 10_000

T = TypeVar("T")

File = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON Lines.")]
DEFAULT_FILE: Final = Path("connector.yaml")


def fail(message: str, code: int) -> NoReturn:
    """Print on standard error what is wrong, and exit."""
    say(message.rstrip())
    raise SystemExit(code)


def say(message: str) -> None:
    """Print a line for a person on standard error."""
    sys.stderr.write(visible(message) + "\n")


def read_config(file: Path, further: Further | None = None) -> Loaded:
    """Read the configuration with the installed vendors, and hide its secrets in logs; `further` as in `load`."""
    from connector.telemetry.logs import register_secrets
    from connector.vendors import kinds

    known = kinds()
    loaded = load(
        file,
        {name: vendor.settings for name, vendor in known.items()},
        rules={name: vendor.rules for name, vendor in known.items()},
        further=further,
    )
    register_secrets(secret_values(loaded.settings))
    return loaded


def begin(file: Path) -> Loaded:
    """Read the configuration and set up logging as it says."""
    from connector.telemetry.logs import configure

    loaded = read_config(file)
    configure(loaded.settings.log)
    # Headers are many small tuples without cycles. At Python's default of 700 the collector takes a quarter of the
    # reading time.
    gc.set_threshold(20_000, 20, 100)
    return loaded


def read_event_file(name: str, option: str) -> str:
    """Return the text of an event file, or of standard input for `-`; exits with 2 if it cannot be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        fail(f"{option} {name} is not UTF-8 text; write the events as JSON", BAD_CONFIGURATION)
    except OSError as error:
        fail(f"{option} {name} cannot be read: {error.strerror}", BAD_CONFIGURATION)


def refuse_unknown(loaded: Loaded, destination: str | None) -> None:
    """Exit with 2 if the configuration has no destination of this name; None is allowed."""
    from connector.config.errors import suggest

    names = loaded.settings.destinations
    if destination is not None and destination not in names:
        fail(f"unknown destination {destination!r}; {suggest(destination, names)}", BAD_CONFIGURATION)


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in uvloop if it is installed, else in asyncio's own loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


def require_terminal(action: str) -> None:
    """Exit with 2 if no person can be asked, because standard input or error is not a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(f"Not a terminal: pass --yes to {action}, or --dry-run to see what it would do.", BAD_CONFIGURATION)


def confirm(question: str, action: str, *, yes: bool) -> bool:
    """Return whether to go on: --yes was given, or a person on a terminal agrees. Exits with 2 without a terminal."""
    if yes:
        return True
    require_terminal(action)
    return typer.confirm(visible(question), err=True)


def emit(
    rows: Iterable[T],
    as_json: bool,  # noqa: FBT001 -- the command's own option, handed on
    to_json: Callable[[T], Mapping[str, Any]],
    show: Callable[[Sequence[T]], None],
) -> None:
    """Print rows: with `as_json` each as one line as soon as it arrives, otherwise all of them with `show`."""
    if not as_json:
        show(list(rows))
        return
    for row in rows:
        sys.stdout.write(json_line(to_json(row)))


def json_line(row: Mapping[str, Any]) -> str:
    """Return a row as one JSON line, in which nothing can command a terminal."""
    return visible_json(json.dumps(row, ensure_ascii=False)) + "\n"


def escape_unprintable() -> None:
    """Escape characters that the output's encoding does not have, such as Chinese in cp1252, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stdout_console() -> Console:
    """Return a console on standard output: as wide as the terminal, or as `COLUMNS`, or as `PIPE_WIDTH`."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _pipe_width(), highlight=False)


def stdout_width() -> int:
    """Return the columns that tables may take."""
    return stdout_console().width


def _pipe_width() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isascii() and given.isdigit() and 0 < int(given) <= MOST_COLUMNS else PIPE_WIDTH


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """Print a table; `right` names the columns of numbers, `whole` those whose cells are never broken (ids)."""
    table = Table(title=safe(title) or None, title_justify="left", title_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in whole)
    for row in rows:
        table.add_row(*(safe("-" if cell is None else str(cell)) for cell in row))
    stdout_console().print(table)


def print_pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(f"[dim]{safe(name)}[/dim]", safe(value))
    stdout_console().print(grid)


def print_heading(text: str, more: str = "") -> None:
    """Print an empty line and a heading; `more` follows it in plain type."""
    stdout_console().print(f"\n[bold]{safe(text)}[/bold]{safe(more)}")


def print_line(text: str) -> None:
    """Print a sentence, wrapped at the terminal's width."""
    stdout_console().print(safe(text))


def print_raw(text: str) -> None:
    """Print text for copying: neither wrapped nor interpreted as markup."""
    stdout_console().print(visible(text), markup=False, soft_wrap=True)


def safe(text: str) -> str:
    """Return untrusted text for a table or a sentence, with markup and control characters escaped.

    Characters that the output's encoding does not have are escaped here, because that changes the width.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return escape(visible(text).encode(encoding, "backslashreplace").decode(encoding))


def bytes_text(data: bytes | None) -> str:
    """Return a key or header as text; bytes that are not UTF-8 are escaped."""
    return "null" if data is None else data.decode(errors="backslashreplace")
