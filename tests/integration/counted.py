"""`connector run` that also appends how many asyncio tasks it has, twice a second, to the file named by `TASKS`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from connector.__main__ import main
from connector.runtime import app

_serve = app.serve


async def _count() -> None:
    path = Path(os.environ["TASKS"])
    while True:
        path.write_text(str(len(asyncio.all_tasks())), encoding="ascii")  # noqa: ASYNC240 -- a few bytes
        await asyncio.sleep(0.5)


async def _counted(*arguments: Any, **named: Any) -> int:
    counting = asyncio.create_task(_count())
    try:
        return await _serve(*arguments, **named)
    finally:
        counting.cancel()


if __name__ == "__main__":
    vars(app)["serve"] = _counted
    main()
