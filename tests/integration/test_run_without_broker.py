"""A member whose broker goes away once it runs: it stops in time, and says by /readyz that it does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from connector import app
from connector.cli_start import read_config
from connector.kafka import consumer, starts
from tests.integration.job import Job, Vendor
from tools.servers import Kafka

DRAIN_SECONDS = 5.0


async def test_a_member_stops_while_its_assignment_waits_for_a_broker(
    job: Job, kafka: Kafka, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker dies between an assignment and its offsets: `run` ends well within its drain time and 5 s.

    Kills: a stop that waits for the poll in which the assignment asks Kafka again and again.
    """
    asked = asyncio.Event()
    real: Callable[..., Awaitable[Any]] = starts.find_starts

    async def broken(*arguments: Any) -> Any:
        kafka.kill()
        asked.set()
        return await real(*arguments)

    monkeypatch.setattr(consumer, "find_starts", broken)
    settings = job.settings(vendor.destination, limits={"drain_timeout": f"{DRAIN_SECONDS:g}s"})
    stop = asyncio.Event()
    running = asyncio.create_task(app.serve(read_config(job.write(settings)), stop))
    done, _ = await asyncio.wait({running, asking := asyncio.create_task(asked.wait())}, return_when="FIRST_COMPLETED")
    assert asking in done
    stop.set()
    async with asyncio.timeout(DRAIN_SECONDS + app.STOP_MARGIN):
        assert await running == 0
