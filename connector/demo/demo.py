"""The demo: broker, vendors, producer and connector in one process, on this machine only.

It checks its result: each produced record is looked up in the vendors' own logs and on the dead-letter topic. The exit
status is 0 only if every record had the expected outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import yaml
from rich.console import Console

from connector.clock import SystemClock
from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts
from connector.config.loader import KafkaSettings, Loaded, load
from connector.demo import scenario
from connector.demo.check import DemoDeadLetter, DemoResult, Place, faults
from connector.demo.display import Display, Progress, dead_letters, summary
from connector.errors import ConnectorError
from connector.kafka.groups import CommittedOffsets
from connector.kafka.producer import KafkaProducer
from connector.kafka.topic_reader import TopicReader
from connector.operations import console as app_console
from connector.records import Record
from connector.runtime import app
from connector.telemetry import logs
from connector.testing.broker import EmbeddedBroker
from connector.testing.jiguang import JiguangApi
from connector.testing.jpush_report import JPushReportApi
from connector.testing.mytracker import MyTrackerApi
from connector.testing.quick_audience import QuickAudienceApi
from connector.testing.simulator import Api, Simulator
from connector.vendors import kinds

PRODUCE_SECONDS: Final = 8.0
READY_SECONDS: Final = 20.0
GIVE_UP_SECONDS: Final = 30.0
_PAGE_WIDTH: Final = 150
_TICK: Final = 0.2
_SEED: Final = 20_230_209
_READ_SECONDS: Final = 10.0


@dataclass(slots=True)
class _Show:
    """Everything that runs during the demo."""

    loaded: Loaded
    broker: EmbeddedBroker
    simulators: Mapping[str, Simulator]
    connector: asyncio.Task[int]
    stop: asyncio.Event
    url: str
    console_url: str
    session: aiohttp.ClientSession
    produced: dict[Place, scenario.Planned] = field(default_factory=dict)


async def run(*, keep: bool = False, console: Console | None = None) -> int:
    """Run the demo and return its exit status: 0 if the totals are right, else 1.

    `keep` leaves everything running after the summary until this is cancelled, which is not a failure.
    """
    console = console or _console()
    with tempfile.TemporaryDirectory(prefix="connector-demo-") as folder:
        log_file = Path(folder) / "connector.log"
        try:
            with log_file.open("w") as log:
                async with _stage(Path(folder), log) as show:
                    wrong = await _play(show, console)
                    if keep and not wrong:
                        await _keep(show, console)
                    show.stop.set()
                    await show.connector
        except ConnectorError as error:
            wrong = [f"the connector stopped: {error}"]
        if wrong:
            _complain(console, wrong, log_file.read_text())
    return 1 if wrong else 0


def _console() -> Console:
    """Return a console on the terminal; without one, a console that is wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_PAGE_WIDTH)


def _apis() -> dict[str, Api]:
    return {
        "jiguang": JiguangApi(events={"page_view": _JIGUANG_ATTRIBUTES, "purchase": _JIGUANG_ATTRIBUTES}),
        "quick_audience": QuickAudienceApi(refusals={"forbidden": scenario.QUICK_AUDIENCE_REFUSAL}),
        "mytracker": MyTrackerApi(),
        "jpush_report": JPushReportApi(results_topic=scenario.RESULTS, missing=range(1_000_000, 1_000_600, 50)),
    }


_JIGUANG_ATTRIBUTES: Final = {"page": "string", "amount": "number", "new": "bool"}


def _configuration(bootstrap: str, simulators: Mapping[str, Simulator]) -> dict[str, Any]:
    """Return the demo's configuration."""
    destinations = {
        name: {**simulator.api.destination(simulator.url), "retry": {"initial": "100ms", "max": "2s"}}
        for name, simulator in simulators.items()
    }
    for name, rules in scenario.RULES.items():
        destinations[name]["rules"] = dict(rules)
    return {
        "kafka": {
            "topics": [scenario.TOPIC],
            "group_id": scenario.GROUP,
            "client": {"bootstrap.servers": bootstrap},
        },
        "destinations": destinations,
        "server": {"port": 0},
        "console": {"port": 0, "interval": "1s"},
        "log": {"format": "json"},
    }


@contextlib.asynccontextmanager
async def _stage(folder: Path, log: Any) -> AsyncIterator[_Show]:
    """Start the broker, the simulators and the connector, and stop them at the end."""
    async with contextlib.AsyncExitStack() as stack:
        simulators = {name: Simulator(api, faults=scenario.FAULTS[name]) for name, api in _apis().items()}
        for simulator in simulators.values():
            await stack.enter_async_context(simulator)
        broker = stack.enter_context(EmbeddedBroker())
        file = folder / "connector.yaml"
        file.write_text(yaml.safe_dump(_configuration(broker.bootstrap, simulators), sort_keys=False))
        known = kinds()
        rules = {name: kind.rules for name, kind in known.items()}
        loaded = load(file, {name: kind.settings for name, kind in known.items()}, rules=rules)
        logs.configure(loaded.settings.log, log)
        for topic in (scenario.TOPIC, *loaded.settings.own_topics):
            broker.create(topic)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        connector, stop, url = await stack.enter_async_context(running(loaded))
        page = await stack.enter_async_context(app_console.serving(loaded, [url]))
        console_url = f"http://127.0.0.1:{page.port}/"
        yield _Show(loaded, broker, simulators, connector, stop, url, console_url, session)


@contextlib.asynccontextmanager
async def running(loaded: Loaded) -> AsyncIterator[tuple[asyncio.Task[int], asyncio.Event, str]]:
    """Run the connector while the context is open; yields its task, the event that stops it, and its port's address."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connector = asyncio.create_task(app.serve(loaded, stop, on_ready=port.set_result), name="connector")
    try:
        await asyncio.wait([port, connector], return_when=asyncio.FIRST_COMPLETED)
        if connector.done():
            connector.result()
        yield connector, stop, f"http://127.0.0.1:{port.result()}"
    finally:
        stop.set()
        await asyncio.gather(connector, return_exceptions=True)


async def _play(show: _Show, console: Console) -> list[str]:
    """Produce, watch until every record has an outcome, print the summary, and return the discrepancies."""
    began = time.monotonic()
    console.print(f"The console for the person on call: {show.console_url}", style="bold", soft_wrap=True)
    console.print(
        f"Four simulated vendors, an embedded broker at {show.broker.bootstrap}, and the connector at "
        f"{show.url}/status and {show.url}/metrics.",
        soft_wrap=not console.is_terminal,
    )
    records = _plan()
    with Display(console) as display:
        if not await _watch(show, display, records, began, READY_SECONDS, lambda at: bool(at.status["partitions"])):
            return [f"the connector had no partitions after {READY_SECONDS:g} s"]
        producing = asyncio.create_task(_produce(show, records))
        done: Callable[[Progress], bool] = lambda at: producing.done() and at.settled == len(records)  # noqa: E731
        settled = await _watch(show, display, records, began, GIVE_UP_SECONDS, done)
    producing.cancel()
    failed = [error for error in await asyncio.gather(producing, return_exceptions=True) if error is not None]
    wrong = [] if settled else [f"some records had no outcome after {GIVE_UP_SECONDS:g} s", *map(repr, failed)]
    evidence = await _evidence(show)
    wrong += faults(evidence)
    _summarize(show, evidence, console)
    if not wrong:
        _add_up(evidence, time.monotonic() - began, console)
    return wrong


async def _watch(
    show: _Show,
    display: Display,
    records: list[scenario.Planned],
    began: float,
    seconds: float,
    reached: Callable[[Progress], bool],
) -> bool:
    """Show the progress until `reached`; return False if time is up or the connector has stopped."""
    until = time.monotonic() + seconds
    while not show.connector.done() and time.monotonic() < until:
        progress = await _progress(show, len(records), time.monotonic() - began)
        display.show(progress)
        if reached(progress):
            return True
        await asyncio.wait([show.connector], timeout=_TICK)
    return False


def _plan() -> list[scenario.Planned]:
    encoder = Encoder(load_contracts(), clock=SystemClock())
    return scenario.plan(encoder.single_object, int(time.time() * 1000), Random(_SEED))


async def _produce(show: _Show, records: list[scenario.Planned]) -> None:
    """Produce the records evenly over some seconds and note the place of each."""
    producer = KafkaProducer(KafkaSettings.model_validate(show.loaded.settings.kafka.model_dump()))
    await producer.start()
    began = time.monotonic()
    try:
        acknowledged = []
        for number, planned in enumerate(records):
            if number % 100 == 0:
                await asyncio.sleep(began + PRODUCE_SECONDS * number / len(records) - time.monotonic())
            acknowledged.append(await producer.enqueue(scenario.TOPIC, key=planned.key, value=planned.value))
            show.produced.update(_known(acknowledged, records, len(show.produced)))
        await asyncio.gather(*acknowledged)
        show.produced.update(_known(acknowledged, records, len(show.produced)))
    finally:
        await producer.close(2.0)


def _known(
    acknowledged: list[asyncio.Future[tuple[int, int]]], records: list[scenario.Planned], start: int
) -> dict[Place, scenario.Planned]:
    """Return the places of the records from `start` on that are acknowledged without a gap."""
    places = {}
    for future, planned in zip(acknowledged[start:], records[start:], strict=False):
        if not future.done():
            break
        places[future.result()] = planned
    return places


async def _progress(show: _Show, planned: int, seconds: float) -> Progress:
    async with show.session.get(f"{show.url}/status") as answer:
        status = await answer.json()
    async with show.session.get(f"{show.url}/metrics") as answer:
        metrics = await answer.text()
    dead = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("connector_records_dead_lettered_total{")
    )
    return Progress(
        seconds=seconds,
        planned=planned,
        produced=len(show.produced),
        settled=sum(entry["watermark"] or 0 for entry in status["partitions"] if entry["topic"] == scenario.TOPIC),
        dead_letters=int(dead),
        status=status,
        stats={name: simulator.stats() for name, simulator in show.simulators.items()},
    )


async def _evidence(show: _Show) -> DemoResult:
    settings = show.loaded.settings
    dead_letters = [
        dead_letter_of(record)
        for record in await asyncio.to_thread(read_topic, settings.kafka, settings.dead_letter_topic)
    ]
    results = [record.key or b"" for record in await asyncio.to_thread(read_topic, settings.kafka, scenario.RESULTS)]
    ends: Counter[int] = Counter()
    for partition, _ in show.produced:
        ends[partition] += 1
    committed = await asyncio.to_thread(_committed, settings.kafka, ends)
    accepted = {
        name: Counter(str(event[scenario.IDENTITY[name]]) for event in simulator.accepted)
        for name, simulator in show.simulators.items()
    }
    return DemoResult(show.produced, accepted, dead_letters, Counter(results), committed, ends)


def read_topic(settings: KafkaSettings, topic: str) -> list[Record]:
    """Return every record of a topic. Blocks."""
    with TopicReader(settings) as reader:
        return list(reader.whole(topic).records())


def _committed(settings: KafkaSettings, ends: Mapping[int, int]) -> dict[int, int]:
    """Return the group's committed offsets; waits some seconds for those that lag. Blocks."""
    partitions = [(scenario.TOPIC, partition) for partition in ends]
    with contextlib.closing(CommittedOffsets(settings, scenario.GROUP)) as offsets:
        until = time.monotonic() + _READ_SECONDS
        while True:
            found = {commit.partition: commit.offset for commit in offsets.committed(partitions).values()}
            if found == dict(ends) or time.monotonic() > until:
                return found
            time.sleep(_TICK)


def dead_letter_of(record: Record) -> DemoDeadLetter:
    """Return a record of the dead-letter topic as a dead letter."""
    headers = {name: value.decode() for name, value in record.headers if value is not None}
    return DemoDeadLetter(
        origin=(int(headers["dlq-origin-partition"]), int(headers["dlq-origin-offset"])),
        key=record.key,
        value=record.value,
        destination=headers.get("dlq-destination"),
        cause=headers["dlq-cause"],
        code=headers.get("dlq-code", ""),
        message=headers["dlq-message"],
    )


def _summarize(show: _Show, evidence: DemoResult, console: Console) -> None:
    stats = {name: simulator.stats() for name, simulator in show.simulators.items()}
    shown = Counter(
        {
            name: sum(fault["shown"] for fault in simulator.plan.describe())
            for name, simulator in show.simulators.items()
        }
    )
    distinct = {name: len(identities) for name, identities in evidence.accepted.items()}
    console.print(dead_letters(evidence.dead_letters))
    console.print(summary(stats, evidence.dead_letters, distinct, shown))


def _add_up(evidence: DemoResult, seconds: float, console: Console) -> None:
    accepted = sum(len(identities) for identities in evidence.accepted.values())
    skipped = sum(1 for planned in evidence.produced.values() if planned.skipped)
    console.print(
        f"{len(evidence.produced):,} records produced = {accepted:,} accepted + "
        f"{len(evidence.dead_letters)} dead-lettered + {skipped} skipped (no value). Every bad record was found, every "
        f"question has its result, and every offset is committed. {seconds:.1f} s.",
        style="bold green",
        soft_wrap=not console.is_terminal,
    )


async def _keep(show: _Show, console: Console) -> None:
    """Leave everything running until this is cancelled or the connector stops."""
    console.print(
        f"Running until you press Ctrl+C. The console: {show.console_url}",
        style="bold",
        soft_wrap=not console.is_terminal,
    )
    console.print(f"  the connector: {show.url}/status", soft_wrap=not console.is_terminal)
    for name, simulator in show.simulators.items():
        console.print(f"  {name}: {simulator.url}/_simulator/stats", soft_wrap=not console.is_terminal)
    try:
        await asyncio.wait([show.connector])
    except asyncio.CancelledError:
        # Ctrl+C is the way to end --keep, so it is not a failure, and the connector still has to be stopped.
        if (task := asyncio.current_task()) is not None:
            task.uncancel()


def _complain(console: Console, wrong: list[str], log: str) -> None:
    console.print("The totals are wrong:", style="bold red")
    for sentence in wrong[:40]:
        console.print(f"  {sentence}", soft_wrap=not console.is_terminal, highlight=False, markup=False)
    if len(wrong) > 40:
        console.print(f"  and {len(wrong) - 40} more")
    console.print("The last lines of the connector's log:")
    for line in log.splitlines()[-20:]:
        console.print(f"  {line}", soft_wrap=not console.is_terminal, highlight=False, markup=False)
