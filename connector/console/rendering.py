"""Renders pages: Jinja2 templates that show view models.

Autoescape is on, so every inserted text is escaped. A misspelt name in a template is an error, not an empty text.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined

from connector.console import formatting
from connector.console.advice import NO_OPTIONS, CommandOptions
from connector.errors import counted

_FOLDER: Final = files("connector.console") / "templates"
# Read once at import, so that a page never waits for a disk, and a wheel inside an archive works too.
_SOURCES: Final = {file.name: file.read_text(encoding="utf-8") for file in _FOLDER.iterdir()}


@dataclass(frozen=True, slots=True)
class Page:
    """What every page shows around its content. `now` is epoch seconds, `live` the seconds between refreshes.

    `held`, `unresolved`, `unready` and `running` are the numbers in the navigation: destinations, dead letters, members
    that are not ready or not reachable, actions. `who` is
    the person who signed in, or None if the console needs no token. `may_act` is false for a session that only looks.
    `options` are added to commands.
    """

    group: str
    now: float
    csrf: str
    who: str | None
    held: int = 0
    unresolved: int = 0
    running: int = 0
    unready: int = 0
    title: str = ""
    section: str = ""
    live: int | None = None
    may_act: bool = True
    options: CommandOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class Notice:
    """A line that reports a problem; `kind` is bad, warn, good or calm and gives its colour."""

    kind: str
    text: str


def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader(_SOURCES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("ago", "count", "duration", "iso", "moment", "short"):
        environment.filters[name] = getattr(formatting, name)
    environment.filters["counted"] = counted
    for name in _SOURCES:
        environment.get_template(name)  # compiled now, not while a person waits
    return environment


_ENVIRONMENT: Final = _environment()


def render(template: str, page: Page | None = None, view: object = None, **more: Any) -> str:
    """Return a template's text for a view model."""
    return _ENVIRONMENT.get_template(template).render(page=page, view=view, **more)


def html(text: str, status: int = 200) -> web.Response:
    """Return a response with a page."""
    # JSON may contain a lone surrogate, which UTF-8 cannot write. It must not break the page.
    body = text.encode(errors="replace")
    return web.Response(body=body, status=status, content_type="text/html", charset="utf-8")
