"""The demo with a user's own configuration and events: embedded broker, simulated vendors, and a whole run.

The configuration is used unchanged, except that the broker, the vendors and the accounts are simulated, and schemas
come from `schemas.files`. So no secret, broker or registry is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console

from connector import vendors
from connector.config.loader import DestinationSettings, Loaded, Settings
from connector.config.models import ServerSettings, TracingSettings
from connector.demo.check import DemoDeadLetter
from connector.demo.demo import dead_letter_of, read_topic, running
from connector.demo.display import dead_letters as dead_letter_table
from connector.errors import StartupError
from connector.kafka.producer import KafkaProducer
from connector.operations.offline import Offline, load_offline, read_events
from connector.records import Record
from connector.telemetry import logs
from connector.testing import SIMULATORS
from connector.testing.broker import EmbeddedBroker
from connector.testing.simulator import Simulator

SECONDS: Final = 30.0
_TICK: Final = 0.2
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class _Stage:
    """Everything that runs during the demo."""

    loaded: Loaded
    simulators: Mapping[str, Simulator]
    url: str
    session: aiohttp.ClientSession
    connector: asyncio.Task[int]


async def run(config: Path, events: str, text: str, console: Console | None = None) -> int:
    """Deliver the events in `text` (of the file `events`) and show what arrived; return 0 if nothing was refused.

    Raises `EventFault`, `ConfigurationError` and `StartupError`.
    """
    console = console or Console()
    loaded = load_offline(config, os.environ)
    records = list(Offline(loaded).records(read_events(text, events)))
    with tempfile.TemporaryDirectory(prefix="connector-demo-") as folder, (Path(folder) / "log").open("w") as log:
        async with _stage(loaded, records, log) as stage:
            settled = await _settled(stage, len(records))
            kafka, topic = stage.loaded.settings.kafka, stage.loaded.settings.dead_letter_topic
            refused = [dead_letter_of(each) for each in await asyncio.to_thread(read_topic, kafka, topic)]
    _show(console, stage.simulators, records, refused)
    if not settled:
        console.print(f"Some records had no outcome after {SECONDS:g} s.", style="bold red")
    return 1 if refused or not settled else 0


@contextlib.asynccontextmanager
async def _stage(loaded: Loaded, records: Sequence[Record], log: Any) -> AsyncIterator[_Stage]:
    """Start the broker with the records in it, the simulators and the connector; stop them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        simulators = {name: Simulator(_api(name, each)) for name, each in loaded.settings.destinations.items()}
        for simulator in simulators.values():
            await stack.enter_async_context(simulator)
        broker = stack.enter_context(EmbeddedBroker())
        settings = _diverted(loaded.settings, broker.bootstrap, simulators, {record.topic for record in records})
        loaded = replace(loaded, settings=settings)
        logs.configure(settings.log, log)
        for topic in (*settings.kafka.topics, *settings.own_topics):
            broker.create(topic)
        await _produce(settings, records)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        connector, _, url = await stack.enter_async_context(running(loaded))
        yield _Stage(loaded, simulators, url, session, connector)


def _api(name: str, settings: DestinationSettings) -> Any:
    if settings.vendor not in SIMULATORS:
        known = ", ".join(sorted(SIMULATORS))
        raise StartupError(f"destination {name}: there is no simulator of {settings.vendor}; there are {known}")
    return SIMULATORS[settings.vendor]()


def _diverted(settings: Settings, bootstrap: str, simulators: Mapping[str, Simulator], topics: set[str]) -> Settings:
    """Return the settings with the embedded broker and the simulated accounts, and without a registry."""
    kinds = vendors.kinds()
    destinations = {}
    for name, own in settings.destinations.items():
        simulator = simulators[name]
        account = kinds[own.vendor].settings.model_validate(simulator.api.destination(simulator.url))
        given = {key: getattr(account, key) for key in account.model_fields_set if key != "results_topic"}
        destinations[name] = own.model_copy(update={**given, "hold": False})
    kafka = settings.kafka.model_copy(
        update={"topics": sorted(topics), "client": {"bootstrap.servers": bootstrap}, "start": "earliest"}
    )
    return settings.model_copy(
        update={
            "kafka": kafka,
            "destinations": destinations,
            "schema_registry": None,
            "schemas": settings.schemas.model_copy(update={"plain": {}}),
            "server": ServerSettings(port=0),
            "tracing": TracingSettings(),
            "log": settings.log.model_copy(update={"format": "json"}),
        }
    )


async def _produce(settings: Settings, records: Sequence[Record]) -> None:
    producer = KafkaProducer(settings.kafka)
    await producer.start()
    try:
        headers = [[(name, value) for name, value in record.headers] for record in records]
        acknowledged = [
            await producer.enqueue(record.topic, key=record.key, value=record.value, headers=each)
            for record, each in zip(records, headers, strict=True)
        ]
        await asyncio.gather(*acknowledged)
    finally:
        await producer.close(2.0)


async def _settled(stage: _Stage, count: int) -> bool:
    """Return whether every record got its outcome in time."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and not stage.connector.done():
        async with stage.session.get(f"{stage.url}/status") as answer:
            status = await answer.json()
        own = set(stage.loaded.settings.kafka.topics)
        if sum(each["watermark"] or 0 for each in status["partitions"] if each["topic"] in own) >= count:
            return True
        await asyncio.wait([stage.connector], timeout=_TICK)
    if stage.connector.done():
        stage.connector.result()
    return False


def _show(
    console: Console,
    simulators: Mapping[str, Simulator],
    records: Sequence[Record],
    refused: Sequence[DemoDeadLetter],
) -> None:
    """Print what each simulated vendor accepted, and the dead letters."""
    console.print(f"{len(records)} {'event' if len(records) == 1 else 'events'} produced to an embedded broker.")
    for name, simulator in simulators.items():
        count = len(simulator.accepted)
        console.print(f"{name} accepted {count}{':' if count else '.'}", style="bold green" if count else "")
        for event in simulator.accepted[:_SHOWN]:
            text = json.dumps(event, ensure_ascii=False, default=str)
            console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
        if count > _SHOWN:
            console.print(f"  and {count - _SHOWN} more")
    if refused:
        console.print(dead_letter_table(refused))
