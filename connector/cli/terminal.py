"""What commands print for people: consoles of the right width, and text from outside that commands no terminal."""

from __future__ import annotations

import re
import sys
from typing import Final, TextIO

from rich.console import Console
from rich.markup import escape

PIPE_WIDTH: Final = 200
"""Columns where the output is no terminal, so that a line stays a line for grep."""

_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def console_on(stream: TextIO | None) -> Console:
    """Return a console that prints there, on standard output unless said otherwise."""
    stream = sys.stdout if stream is None else stream
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def raw(console: Console, text: str) -> None:
    """Print text that can be copied: not wrapped, nothing in it read as markup."""
    console.print(visible(text), markup=False, soft_wrap=True)


def safe(text: str) -> str:
    """Return text from outside for a table: neither markup nor the terminal's own commands in it do anything."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Return text with its control characters written out, but for ends of lines."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
