"""Actions of the console that run in the background end in a way that a person sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

from connector.console.index import Query
from connector.console.jobs import Jobs
from connector.dead_letters.replay import Order, ReplayService, Step
from connector.testing import ManualClock


class Failing:
    """A replay service with a fault of its own."""

    async def discard(self, _order: Order) -> AsyncGenerator[Step, None]:
        """Raise an unexpected error, before any step."""
        yield cast("Step", 1 // 0)

    plan = replay = discard


async def test_a_job_that_meets_an_unexpected_error_has_failed() -> None:
    """It is shown as failed, with the type and the place of the error. Kills: a job that runs for ever on its page."""
    jobs = Jobs(cast("ReplayService", Failing()), ManualClock())
    job = jobs.begin("discard", "who", Query(), Order(), 1)
    jobs.run(job)
    for _ in range(10):
        await asyncio.sleep(0)
    assert job.state == "failed"
    assert "ZeroDivisionError" in (job.trouble or "")
    await jobs.close()
