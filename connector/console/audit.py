"""Records who did what: in the log and, with `console.audit_topic`, in a record that Kafka has acknowledged.

An action is recorded before it begins. If the record cannot be written, the action does not happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
import structlog

from connector.clock import Clock

_log = structlog.get_logger()


class AuditTopic(Protocol):
    """Where audit records go in addition to the log."""

    async def write(self, record: bytes) -> None:
        """Return when Kafka has the record. Raises `ConnectorError`."""
        ...


class Audit:
    """The audit log."""

    def __init__(self, topic: AuditTopic | None, clock: Clock) -> None:
        self._topic = topic
        self._clock = clock

    async def note(self, action: str, who: str, what: Mapping[str, Any]) -> None:
        """Record an action. Raises `ConnectorError` if the audit topic does not accept it."""
        at = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        _log.info("console.action", action=action, who=who, **what)
        if self._topic is not None:
            await self._topic.write(orjson.dumps({"at": at, "action": action, "who": who, **what}))
