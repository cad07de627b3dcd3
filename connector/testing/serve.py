"""The simulators by vendor, and one that serves until it is stopped: what `connector simulate` runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from connector.testing.faults import EFFECTS
from connector.testing.jiguang import JiguangApi
from connector.testing.jpush_report import JPushReportApi
from connector.testing.mytracker import MyTrackerApi
from connector.testing.quick_audience import QuickAudienceApi
from connector.testing.simulator import Api, Simulator

SIMULATORS: Final[Mapping[str, Callable[..., Api]]] = {
    "jiguang": JiguangApi,
    "jpush_report": JPushReportApi,
    "mytracker": MyTrackerApi,
    "quick_audience": QuickAudienceApi,
}
"""The simulated account of each vendor; its arguments are its options."""


async def simulate(vendor: str, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
    """Serve one vendor until cancelled, and print where it listens and how it is steered.

    `options` are those of the vendor's API and of `Simulator` (`log`, `requests_per_second`, `faults`, `keep`). Raises
    `ValueError` for a vendor that has no simulator and `OSError` where the port is taken.
    """
    if vendor not in SIMULATORS:
        raise ValueError(f"no simulator of {vendor!r}; there are {', '.join(sorted(SIMULATORS))}")
    server = {name: options.pop(name) for name in ("faults", "requests_per_second", "log", "keep") if name in options}
    simulator = Simulator(SIMULATORS[vendor](**options), **server)
    await simulator.start(host, port)
    try:
        sys.stdout.write(how_to_use(simulator))
        sys.stdout.flush()
        await asyncio.Event().wait()
    finally:
        await simulator.stop()


def how_to_use(simulator: Simulator) -> str:
    """Return where the simulator listens, a destination that speaks to it, and how its faults are armed."""
    url = simulator.url
    settings = "".join(f"    {key}: {_yaml(value)}\n" for key, value in simulator.api.destination(url).items())
    effects = "".join(f"  {name:<14}{meaning}\n" for name, meaning in EFFECTS.items())
    return (
        f"{simulator.api.name} is simulated at {url}\n\n"
        f"destinations:\n  simulated:\n{settings}\n"
        f"curl {url}/_simulator/stats       # counts; also accepted (events), served (requests), faults\n"
        f'curl {url}/_simulator/faults -d \'{{"effect": "status", "status": 503, "every": 10}}\'\n'
        f"curl -X DELETE {url}/_simulator/faults\n\n"
        f"Effects:\n{effects}"
        "Schedules: every N, probability 0 to 1, times N, containing TEXT; after true: the vendor acts first.\n"
    )


def _yaml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
