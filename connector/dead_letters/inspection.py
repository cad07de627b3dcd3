"""What a dead letter or record holds by today's configuration: its event, and what would be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preparation:
    """One destination by today's rules: the text that would be sent, or the rule that forbids it and the reason.

    `route` is the index under `routes:` that leads to the destination, where that was asked for.
    """

    destination: str
    dedup_id: str | None = None
    fragment: str | None = None
    rule: str | None = None
    reason: str | None = None
    route: int | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a record holds: its event in JSON's types, or the fault that hides it, and its destinations.

    `code` is that of the fault, where it refuses the record. `skipped` is why nothing is sent on purpose: `unrouted`,
    `sample`, or the route that drops the record.
    """

    schema: str | None
    event: Any
    fault: str | None
    preparations: tuple[Preparation, ...]
    code: str | None = None
    skipped: str | None = None
    hidden: tuple[str, ...] = ()
    """Texts that routes hash, and that are shown nowhere."""
