"""Reads the configuration again while the member runs: applies what can change, and names what needs a restart.

    applied at once                                            left until a restart
    ---------------------------------------------------------  ------------------------------------------------------
    a destination's account, address, rate, batch limits,      a destination that is added or removed, its vendor,
    linger, retry, time-out, codes, rules, storm, hold         order, max_in_flight, http, traceparent, results_topic
    routes, unrouted (not with other destinations)             everything else of kafka, schemas, limits, topics …
    log.level, log.sample, server.token, server.hosts          what only the console reads (restart the console)

The new file is checked, its routes are compiled and every vendor is built before anything changes, so a faulty file
changes nothing. Requests in flight keep the old settings.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import structlog
from pydantic import BaseModel, SecretStr

from connector import vendors
from connector.clock import Clock
from connector.codec.schemas import known_schemas, own_schemas
from connector.config.loader import DestinationSettings, Loaded, Settings, secret_values
from connector.delivery.transport import file_stamps
from connector.routing.compiler import passed_on, reads_keys
from connector.routing.table import RouteTable
from connector.runtime.pipeline import Pipeline
from connector.tasks import trouble_of
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics
from connector.vendors.base import Vendor

log = structlog.get_logger()

LOOK_SECONDS: Final = 5.0
"""How often files are checked if `reload.watch` is on."""
_FILE: Final = re.compile(r"\$\{file:([^}]+)\}")
FIXED: Final = ("vendor", "order", "max_in_flight", "http", "traceparent", "results_topic")
"""Keys of a destination that need a restart: connections, lanes and producers are built with them."""
# The chart leaves these out of its checksum too; a test compares both lists.
LIVE: Final = ("log.level", "log.sample", "server.token", "server.hosts")


class LooksInto(Protocol):
    """The part of the decoder that depends on the routes."""

    def look_into(self, as_json: frozenset[tuple[str, str]], *, keys: bool) -> None:
        """Decode from now on for routes that read these fields and keys."""
        ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload; the lists are paths of the configuration. `error` is set if nothing changed."""

    applied: Sequence[str] = ()
    left: Sequence[str] = ()
    error: str | None = None


class ConfigFailure(NamedTuple):
    """Why the configuration could not be read again, and since when (epoch seconds) the old one is kept for that."""

    message: str
    since: float


class Configuration:
    """The configuration that this member runs with, and the one way to change it.

    `destination` is set in a member of one destination. `use_server` receives the port's token and host names.
    `running` registers what a reload changes; before that a reload is refused.
    """

    def __init__(
        self,
        loaded: Loaded,
        metrics: Metrics,
        destination: str | None,
        use_server: Callable[[SecretStr | None, Sequence[str]], None],
        clock: Clock,
        asked: asyncio.Event | None = None,
    ) -> None:
        self.loaded = loaded
        self._start = loaded.settings
        """The configuration at the start: it still applies to keys that need a restart."""
        self._of = dict.fromkeys(loaded.settings.destinations, loaded)
        """The configuration that each destination's settings come from: a change that needs a restart keeps the older
        one."""
        self._used = dict(loaded.settings.destinations)
        """The settings of each destination's current vendor."""
        self._metrics = metrics
        self._only = destination
        self._use_server = use_server
        self._clock = clock
        self.asked = asked
        """Set by a signal that requests a reload; None if there is no such signal."""
        self.fault: ConfigFailure | None = None
        """Why the last attempt to read the configuration again failed; None if it did not."""
        self._pipeline: Pipeline | None = None
        self._decoder: LooksInto | None = None
        self._busy = asyncio.Lock()

    def running(self, pipeline: Pipeline, decoder: LooksInto) -> None:
        """Register the objects that a reload changes."""
        self._pipeline, self._decoder = pipeline, decoder

    def renewed(self, name: str) -> Vendor | None:
        """Return a destination's vendor with its secrets read again, as `Loaded.reload`; None if they are the same."""
        settings = self._of[name].reload(name)
        # Registered before anything uses them: a vendor's fault may repeat a new secret.
        logs.register_secrets(secret_values(settings))
        if settings == self._used[name]:
            return None
        vendor = vendors.kinds()[settings.vendor].build(settings)
        self._used[name] = settings
        return vendor

    async def reload(self, by: str) -> Reloaded:
        """Read the file again and apply it. Raises nothing: a fault is in the result, the log and the metrics."""
        async with self._busy:
            try:
                result = await self._reload()
            except (OSError, ValueError) as error:
                # ValueError: a vendor's own check of its settings.
                result = Reloaded(error=str(error))
            except Exception as error:  # noqa: BLE001 - a fault of a vendor's module, or of ours, ends no running member
                result = Reloaded(error=trouble_of(error))
        if self._pipeline is None:
            return result  # too early says nothing of the file
        failed = result.error is not None
        since = self._clock.wall() if self.fault is None else self.fault.since
        self.fault = None if result.error is None else ConfigFailure(result.error, since)
        self._metrics.config_reloads.labels("failed" if failed else "ok").inc()
        self._metrics.config_reload_failed.set(failed)
        if failed:
            log.error("config.reload_failed", by=by, message=result.error)
        else:
            log.info("config.reloaded", by=by, applied=list(result.applied), left=list(result.left))
        return result

    async def follow(self) -> None:
        """Reload whenever it is requested. Runs until cancelled."""
        while self.asked is not None:
            await self.asked.wait()
            self.asked.clear()
            await self.reload("signal")

    async def watch(self) -> None:
        """Reload whenever the file, or a secret file that it names, has changed. Runs until cancelled."""
        seen = await asyncio.to_thread(stamps, self.loaded.path)
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            found = await asyncio.to_thread(stamps, self.loaded.path)
            if found != seen:
                seen = found
                await self.reload("watch")

    async def _reload(self) -> Reloaded:
        pipeline, decoder = self._pipeline, self._decoder
        if pipeline is None or decoder is None:
            return Reloaded(error="this member does not consume yet; try again")
        loaded = await asyncio.to_thread(self.loaded.read_again)
        new = loaded.settings
        applied, left = sorted_out(self._start, self.loaded.settings, new)
        # Registered before anything uses them: a vendor's fault may repeat a new secret.
        logs.register_secrets(secret_values(new))
        built = await asyncio.to_thread(_build, loaded, self._start, only=self._only)
        # From here on nothing can fail and nothing is awaited, so that no record meets a half-changed configuration.
        for name, (settings, vendor) in built.destinations.items():
            pipeline.workers[name].use(settings, vendor)
            self._of[name], self._used[name] = loaded, new.destinations[name]
        if built.routes is not None:
            decoder.look_into(passed_on(new, vendors.kinds()), keys=reads_keys(new))
        kept = {name: settings for name, (settings, _) in built.destinations.items()}
        pipeline.use(self._start.model_copy(update={"destinations": self._start.destinations | kept}), built.routes)
        self._use_server(new.server.token, new.server.hosts)
        if any(path.startswith("log.") for path in applied):
            logs.reconfigure(new.log)
        self.loaded = loaded
        return Reloaded(applied, left)


@dataclass(frozen=True, slots=True)
class _Built:
    """Everything new whose construction may fail, built before anything is changed. `routes` is None if they stay."""

    routes: RouteTable | None
    destinations: Mapping[str, tuple[DestinationSettings, Vendor]]


def _build(loaded: Loaded, start: Settings, *, only: str | None) -> _Built:
    """Build vendors and routes of the new configuration. Raises `ConfigurationError`."""
    kinds, new = vendors.kinds(), loaded.settings
    routes = None
    if _same_destinations(start, new):
        routes = RouteTable.compile(new, kinds, known_schemas(own_schemas(loaded)))
    found = {}
    for name in new.destinations:
        before, after = start.destinations.get(name), new.destinations[name]
        # A destination that is new, removed, or of another vendor needs another worker, so it waits for a restart.
        if before is not None and before.vendor == after.vendor and only in (None, name):
            kept: dict[str, Any] = {key: getattr(before, key) for key in FIXED if key in type(before).model_fields}
            # If one key needs a restart, the destination's other keys still apply. That key is reported as left.
            settings = after.model_copy(update=kept)
            found[name] = (settings, kinds[settings.vendor].build(settings))
    return _Built(routes, found)


def sorted_out(start: Settings, old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the paths that a reload applies, and those that need a restart.

    Applied are differences from the `old` file. Left are differences from the `start`, however often the file was read
    since.
    """
    applied = [path for path in differences(old, new) if _is_live(path, start, new)]
    left = [path for path in differences(start, new) if not _is_live(path, start, new)]
    return list(dict.fromkeys(applied)), list(dict.fromkeys(left))


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which two values of the configuration differ, as deep as both are mappings of one kind."""
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name in type(old).model_fields:
            yield from differences(getattr(old, name), getattr(new, name), f"{path}.{name}" if path else name)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            if name in old and name in new:
                yield from differences(old[name], new[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}"
    elif old != new:
        yield path


def _is_live(path: str, start: Settings, new: Settings) -> bool:
    section, _, rest = path.partition(".")
    if path in {"routes", "unrouted"}:
        return _same_destinations(start, new)
    if section == "destinations":
        names = {**start.destinations, **new.destinations}
        # A destination's name may contain dots, so take the longest that matches.
        name = max((name for name in names if f"{rest}.".startswith(f"{name}.")), key=len, default="")
        keys = rest[len(name) + 1 :]
        before, after = start.destinations.get(name), new.destinations.get(name)
        is_same = before is not None and after is not None and before.vendor == after.vendor
        return is_same and bool(keys) and keys.partition(".")[0] not in FIXED
    return path in LIVE


def _same_destinations(start: Settings, new: Settings) -> bool:
    """Whether routes can change: only with the destinations of the start, which have offset map bits and workers."""
    before, after = (
        {name: destination.vendor for name, destination in settings.destinations.items()} for settings in (start, new)
    )
    return before == after


def stamps(path: Path) -> dict[str, tuple[int, int, int] | None]:
    """Return stamps that change with the content of the configuration and of each secret file that it names."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    files = [str(path), *(str(path.absolute().parent / name) for name in _FILE.findall(text))]
    return dict(zip(files, file_stamps(files), strict=True))
