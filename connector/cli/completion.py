"""Shell completion of destinations, topics and vendors: from the configuration's text, never from the network.

A shell completes while a person types, so nothing is resolved or checked, and a file with faults works too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from connector.cli.common import DEFAULT_FILE

FOUR_VENDORS = ("jiguang", "quick_audience", "mytracker", "jpush_report")


def complete_destination(context: typer.Context, incomplete: str) -> list[str]:
    """Return the configured destinations that begin with the typed text."""
    return _beginning(incomplete, _section(context, "destinations"))


def complete_topic(context: typer.Context, incomplete: str) -> list[str]:
    """Return the configured topics that begin with the typed text, without patterns."""
    topics = _section(context, "kafka").get("topics")
    names = topics if isinstance(topics, list) else []
    return _beginning(incomplete, (str(name) for name in names if not str(name).startswith("^")))


def complete_vendor(incomplete: str) -> list[str]:
    """Return the built-in vendors that begin with the typed text."""
    return _beginning(incomplete, FOUR_VENDORS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _section(context: typer.Context, name: str) -> dict[str, Any]:
    """Return a section of the configuration as written in the file; empty if it cannot be read."""
    from connector.config.yaml import parse, read_text

    try:
        tree = parse(read_text(Path(context.params.get("config") or DEFAULT_FILE))).value
    except ValueError:
        return {}
    section = tree.get(name) if isinstance(tree, dict) else None
    return section if isinstance(section, dict) else {}
