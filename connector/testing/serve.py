"""The simulators by vendor, and the server behind `connector simulate`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final

import orjson

from connector.testing.faults import EFFECTS
from connector.testing.jiguang import JiguangApi
from connector.testing.jpush_report import JPushReportApi
from connector.testing.mytracker import MyTrackerApi
from connector.testing.quick_audience import QuickAudienceApi
from connector.testing.simulator import Api, Simulator

_TYPE_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number"}

SIMULATORS: Final[Mapping[str, Callable[..., Api]]] = {
    "jiguang": JiguangApi,
    "jpush_report": JPushReportApi,
    "mytracker": MyTrackerApi,
    "quick_audience": QuickAudienceApi,
}
"""The simulated account of each vendor; its arguments are its options."""


def account(vendor: str, settings: Sequence[str] = (), events: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of a vendor's simulated account from `NAME=VALUE` settings and the names of its events.

    A value is JSON or a plain string. Raises `ValueError` that names the allowed values.
    """
    api = SIMULATORS[vendor]
    known = (
        {each.name: each for each in fields(api) if each.init} if isinstance(api, type) and is_dataclass(api) else {}
    )
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"{setting}: must be NAME=VALUE; the names for {vendor} are {', '.join(known)}")
        options[name] = _value(known[name], text)
    if events and "events" in known:
        options["events"] = {name: {} for name in events}
    elif events and "event_codes" in known:
        options["event_codes"] = list(events)
    elif events:
        raise ValueError(f"{vendor} accepts any event; --event is for jiguang and quick_audience")
    return options


def _value(option: Field[Any], text: str) -> Any:
    """Return an option's value: a string if its default is one, else JSON."""
    if isinstance(option.default, str):
        return text
    try:
        value = orjson.loads(text)
    except ValueError:
        value = text
    wanted = type(option.default)
    if option.default is not MISSING and wanted in (bool, int, float) and type(value) not in (wanted, int):
        raise ValueError(
            f"{option.name}={text}: must be {_TYPE_NAMES[wanted]}, such as {orjson.dumps(option.default).decode()}"
        )
    return value


async def simulate(vendor: str, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
    """Serve one vendor until cancelled; print its address and how to control it.

    `options` are those of the vendor's API and of `Simulator` (`log`, `requests_per_second`, `faults`, `keep`). Raises
    `ValueError` for a vendor without a simulator, `OSError` if the port is in use or the log cannot be written.
    """
    if vendor not in SIMULATORS:
        raise ValueError(f"unknown vendor {vendor!r}; known vendors: {', '.join(sorted(SIMULATORS))}")
    server = {name: options.pop(name) for name in ("faults", "requests_per_second", "log", "keep") if name in options}
    simulator = Simulator(SIMULATORS[vendor](**options), **server)
    await simulator.start(host, port)
    # A full garbage collection stops the process long enough for requests to queue up and count as one burst.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    try:
        sys.stdout.write(how_to_use(simulator))
        sys.stdout.flush()
        await simulator.serve()
    finally:
        await simulator.stop()


def how_to_use(simulator: Simulator) -> str:
    """Return the simulator's address, a destination for it, and how to arm its faults."""
    url = simulator.url
    settings = "".join(f"    {key}: {_yaml(value)}\n" for key, value in simulator.api.destination(url).items())
    effects = "".join(f"  {name:<14}{meaning}\n" for name, meaning in EFFECTS.items())
    return (
        f"{simulator.api.name} is simulated at {url}\n\n"
        f"destinations:\n  simulated:\n{settings}\n"
        f"curl {url}/_simulator/stats       # counts; also: accepted (events), served (requests), faults\n"
        f'curl {url}/_simulator/faults -d \'{{"effect": "status", "status": 503, "every": 10}}\'\n'
        f"curl -X DELETE {url}/_simulator/faults\n\n"
        f"Effects:\n{effects}"
        "Schedules: every N, probability 0 to 1, times N, containing TEXT. With after: true the vendor accepts first.\n"
    )


def _yaml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
