"""Writes a process's timeline to `console.events_topic`, so that it outlasts the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog

from connector.clock import Clock
from connector.errors import ConnectorError
from connector.telemetry.timeline import Timeline

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""How often new events are written."""


async def write_events(timeline: Timeline, write: Callable[[bytes], Awaitable[object]], clock: Clock) -> None:
    """Write what happens, in order, until cancelled. What Kafka does not take is tried again, and nothing waits for it.

    `write` returns once Kafka has acknowledged a record, or raises `ConnectorError`.
    """
    is_failing = False
    while True:
        try:
            # In order and one at a time, so that a failure loses none: the
            # first one stays where it is and is tried again.
            while timeline.unwritten:
                event = timeline.unwritten[0]
                await write(orjson.dumps(event, default=str))
                # The ring may have dropped the event meanwhile.
                if timeline.unwritten and timeline.unwritten[0] is event:
                    timeline.unwritten.popleft()
                is_failing = False
        except ConnectorError as error:
            if not is_failing:
                log.warning("events.unwritten", message=str(error))
            is_failing = True
        await clock.sleep(LOOK_SECONDS)
