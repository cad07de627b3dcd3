"""The connector inside another program, as the documentation of `serve` shows it."""

from __future__ import annotations

import asyncio
import inspect
import re
import textwrap
from typing import Any

from connector import vendors
from connector.config.loader import load
from connector.runtime.app import serve
from tests.integration.events import good
from tests.integration.job import Job, Vendor, wait_for

COUNT = 20


async def test_the_documented_program_delivers_and_stops(job: Job) -> None:
    """It delivers every event, ends when it is asked to, and has committed all of them.

    Kills: a stop that cancels what is in flight, and an example that does not run.
    """
    (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(serve) or "", re.DOTALL)
    names: dict[str, Any] = {"asyncio": asyncio, "load": load, "serve": serve, "vendors": vendors}
    exec(textwrap.dedent(code), names)  # noqa: S102 -- running the example is the test
    stop = asyncio.Event()
    job.produce(good(range(COUNT)))
    with Vendor() as vendor:
        file = job.write(job.settings(vendor.destination))
        running = asyncio.create_task(names["deliver"](str(file), stop))
        await asyncio.to_thread(wait_for, lambda: len(vendor.cuids) == COUNT, "all events")
        stop.set()
        await running
        assert set(vendor.cuids.values()) == {1}
    assert job.committed() == job.ends()
