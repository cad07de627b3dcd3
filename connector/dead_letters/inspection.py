"""The result of inspecting a dead letter or record by today's configuration: its event, and what would be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preparation:
    """What one destination would be sent by today's rules, or the rule that refuses it and the reason.

    `route` is the index under `routes:` of the route that leads to the destination; set if requested.
    """

    destination: str
    dedup_id: str | None = None
    fragment: str | None = None
    rule: str | None = None
    reason: str | None = None
    route: int | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """A record's event in JSON's types, or the fault because of which there is none, and its destinations.

    `code` is the fault's code if the fault refuses the record.
    """

    schema: str | None
    event: Any
    fault: str | None
    preparations: tuple[Preparation, ...]
    skipped: str | None = None
    """Why the rules send it nowhere, if so."""
    code: str | None = None
    hidden: tuple[str, ...] = ()
    """Texts that routes hash. They must not be shown anywhere."""
