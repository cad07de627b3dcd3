"""Writes a process's timeline to `console.events_topic`, so that it outlasts the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import orjson
import structlog

from connector.clock import Clock
from connector.errors import ConnectorError
from connector.telemetry.timeline import Timeline

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""How often new events are written. After a SIGKILL the topic lacks what happened within it."""
LAST_SECONDS: Final = 2.0
"""How long a stop waits for the last events."""


async def write_events(timeline: Timeline, write: Callable[[bytes], Awaitable[object]], clock: Clock) -> None:
    """Write events in order until cancelled. An event that Kafka does not accept is retried, and nothing waits for it.

    `write` returns once Kafka has acknowledged a record, or raises `ConnectorError`. Events left at the cancellation
    are tried once more, for at most `LAST_SECONDS`, so that the topic has the events of a stop too.
    """
    is_failing = False
    try:
        while True:
            try:
                await _write_all(timeline, write)
                is_failing = False
            except ConnectorError as error:
                if not is_failing:
                    log.warning("events.unwritten", message=str(error))
                is_failing = True
            await clock.sleep(LOOK_SECONDS)
    finally:
        with suppress(ConnectorError, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await _write_all(timeline, write)


async def _write_all(timeline: Timeline, write: Callable[[bytes], Awaitable[object]]) -> None:
    """Write events in order, one at a time. If one fails, it stays queued and the error is raised."""
    while timeline.unwritten:
        event = timeline.unwritten[0]
        await write(orjson.dumps(event, default=str))
        # The ring may have dropped the event since.
        if timeline.unwritten and timeline.unwritten[0] is event:
            timeline.unwritten.popleft()
