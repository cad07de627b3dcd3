"""What every command begins with: the configuration read, the loop it runs in, and how it fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer

from connector.config.loader import Loaded, load, secret_values

FAILED: Final = 1
BAD_CONFIGURATION: Final = 2

T = TypeVar("T")

File = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration file.")]
DEFAULT_FILE: Final = Path("connector.yaml")


def fail(message: str, code: int) -> NoReturn:
    """Say on standard error what is wrong, and exit."""
    sys.stderr.write(message.rstrip() + "\n")
    raise SystemExit(code)


def read_config(file: Path) -> Loaded:
    """Read the configuration with the vendors that are installed, and hide its secrets in logs."""
    from connector.telemetry.logs import register_secrets
    from connector.vendors import kinds

    known = kinds()
    loaded = load(
        file, {name: kind.settings for name, kind in known.items()}, rules={n: kind.rules for n, kind in known.items()}
    )
    register_secrets(secret_values(loaded.settings))
    return loaded


def refuse_unknown(loaded: Loaded, destination: str | None) -> None:
    """End where a destination's name is none of the configuration's; None is no name."""
    from connector.config.errors import suggest

    names = loaded.settings.destinations
    if destination is not None and destination not in names:
        fail(f"no destination is named {destination}; {suggest(destination, names)}", BAD_CONFIGURATION)


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in uvloop where it is installed, else in asyncio's own loop."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
