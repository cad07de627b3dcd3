"""The composition root: builds, wires, starts, drains and stops everything. The one module that knows all packages."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
from collections import ChainMap
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from connector import __version__, vendors
from connector.clock import Clock, SystemClock
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.registry import Registry
from connector.codec.schemas import Schema, known_schemas, load_contracts, own_schemas
from connector.config.loader import Loaded, RegistrySettings, ServerSettings, Settings, secret_values
from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.transport import HttpTransport
from connector.errors import ConfigurationError, ConnectorError, FatalError
from connector.kafka.client import session_seconds
from connector.kafka.consumer import KafkaSource
from connector.kafka.groups import Groups
from connector.kafka.membership import GroupMembership
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.kafka.receipts import ReceiptWriter, ResultsWriter
from connector.kafka.topics import TopicCheck, TopicReport
from connector.routing.compiler import passed_on, reads_keys
from connector.runtime.checks import check_routes, open_registry, own_topics
from connector.runtime.events import write_events
from connector.runtime.handover import OtherSideRuns, give_back, other_side, take_over
from connector.runtime.http import Server
from connector.runtime.member import Member
from connector.runtime.pipeline import QUEUE_SHARE, Edges, build
from connector.runtime.reload import Configuration
from connector.runtime.signals import stop_signals
from connector.tasks import Supervisor, restarted
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from connector.runtime.tracing import OtelTracer

T = TypeVar("T")

log = structlog.get_logger()

STOP_MARGIN: Final = 5.0
"""Seconds beyond `limits.drain_timeout` after which a stopping process has ended."""
_LAST_RESORT: Final = 1.0
"""Seconds after that until a process whose event loop hangs is ended, and again until one that hangs completely is."""


async def run(loaded: Loaded, destination: str | None = None, *, on_ready: Callable[[int], None] | None = None) -> int:
    """Run the connector until SIGTERM or SIGINT and return the exit status; see `_handle_signals`.

    `destination` runs one destination alone in its own group. `on_ready` is called with the server's port. Raises
    `ConnectorError` if the run cannot start or continue.
    """
    # Before anything is built: objects from imports live for ever, so the collector should not visit them again.
    gc.collect()
    gc.freeze()
    stop, reload = asyncio.Event(), asyncio.Event()
    _handle_signals(stop, reload, loaded.settings.limits.drain_timeout)
    try:
        return await serve(loaded, stop, destination, on_ready=on_ready, reload=reload)
    except ConnectorError:
        # Only the reason is left to print, and a blocked stderr must not keep the process alive.
        _end_after(STOP_MARGIN)
        raise


async def serve(
    loaded: Loaded,
    stop: asyncio.Event,
    destination: str | None = None,
    *,
    on_ready: Callable[[int], None] | None = None,
    reload: asyncio.Event | None = None,
) -> int:
    """Run in the current event loop until `stop` is set, for programs that embed the connector. Returns 0.

    It handles no signals and leaves logging as it is. `on_ready` and `destination` are as for `run`. Whenever `reload`
    is set, it reads the configuration file again. After `stop` it waits for requests in flight, at most
    `limits.drain_timeout` seconds, and commits. Raises `ConnectorError` if it cannot start or go on.

    ```python
    async def deliver(file: str, stop: asyncio.Event) -> None:
        settings = {name: kind.settings for name, kind in vendors.kinds().items()}
        await serve(load(file, settings), stop)
    ```
    """
    settings = loaded.settings
    # Before Kafka, so that a faulty configuration is reported without waiting for a broker.
    check_routes(loaded)
    logs.register_secrets(secret_values(settings))
    clock = SystemClock()
    metrics = Metrics()
    names = list(settings.destinations) if destination is None else [destination]
    topics = [topic for topic in settings.kafka.topics if not topic.startswith("^")]
    # Every series is 0 from the start. Otherwise Prometheus' `increase` would miss what happens before its first
    # scrape.
    metrics.begin(names, [*topics, settings.replay_topic])
    group = settings.kafka.group_id if destination is None else f"{settings.kafka.group_id}.{destination}"
    member = _member(group, settings, clock)
    logs.listen(member.timeline.note)
    metrics.watch_process()
    metrics.on_scrape(lambda: member.update_gauges(metrics))
    server = _server(settings.server, metrics, member)
    configuration = Configuration(loaded, metrics, destination, server.use, clock, reload)
    member.reload, member.config_fault = configuration.reload, lambda: configuration.fault
    # Before Kafka is reached: probes and `/status` have to show what a waiting member waits for.
    await server.start()
    member.watchdog.start()
    try:
        # Only now, because the system chooses the port if it is 0.
        member.timeline.member += f":{server.port}"
        if on_ready is not None:
            on_ready(server.port)
        log.info("connector.started", version=__version__, group=group, port=server.port)
        report = await _unless_stopped(_prepare(settings, destination, clock, member), stop)
        if report is not None:
            await _run(configuration, destination, group, report, member, metrics, clock, stop)
    finally:
        member.watchdog.stop()
        await server.stop()
        logs.listen(None)
    log.info("connector.stopped", group=group)
    return 0


def _member(group: str, settings: Settings, clock: Clock) -> Member:
    return Member(
        group,
        clock,
        settings.limits.drain_timeout,
        session_timeout=session_seconds(settings.kafka),
        writes_events=settings.console.events_topic is not None,
    )


def _server(settings: ServerSettings, metrics: Metrics, member: Member) -> Server:
    return Server(
        host=settings.host,
        ports=settings.ports,
        hosts=settings.hosts,
        token=settings.token,
        metrics=metrics,
        member=member,
    )


async def _prepare(settings: Settings, destination: str | None, clock: Clock, member: Member) -> TopicReport:
    """Wait for a broker, check the topics, and take over the other side's progress."""
    async with TopicCheck(settings.kafka, clock=clock) as check:
        # Waits for ever, unlike `check --online`: a broker may start later than its clients, and the port shows the
        # reason to wait.
        await check.wait(member.waiting)
        report = await check.check(settings.kafka.topics, own_topics(settings))
    async with Groups(settings.kafka) as groups:
        # After the topics were found, and before joining, because the first assignment reads the offsets written here.
        await take_over(groups, settings, destination, clock)
    return report


async def _unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Return the result of `work`; if `stop` comes first, cancel it and return None."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        # If the start ended in the same turn as the stop came, its result counts.
        return await working if working.done() else None
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


async def _run(
    configuration: Configuration,
    destination: str | None,
    group: str,
    report: TopicReport,
    member: Member,
    metrics: Metrics,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Run one pipeline on real Kafka and HTTP."""
    loaded = configuration.loaded
    base, kinds, own = loaded.settings, vendors.kinds(), own_schemas(loaded)
    producer = KafkaProducer(base.kafka, batch_bytes=report.batch_bytes)
    trouble = _RegistryTrouble()
    avro = _avro(configuration, own, passed_on(base, kinds), clock, trouble)
    dead_letters = _dead_letters(base, producer, metrics, clock)
    receipts = _receipts(base, avro, producer, group, metrics, clock)
    source, tracer = _source(base, group, clock, _other_side(base, destination, clock)), _tracer(base)
    # The counts that the consumer refreshes come first: partitions may be added while the member runs.
    counts = ChainMap(source.counts, dict(report.partitions))
    answers = {name: ResultsWriter(avro.encoder, producer, topic, clock) for name, topic in base.results_topics.items()}
    edges = Edges(
        source=source,
        decoder=avro.decoder,
        dead_letters=dead_letters,
        receipts=receipts,
        answers=answers,
        transport=lambda name, account: HttpTransport(name, account.http, account.max_in_flight),
        reload=configuration.renewed,
        clock=clock,
        random=Random(),
        cluster_id=report.cluster_id,
        partitions=counts,
        tracer=tracer,
    )
    pipeline = build(base, kinds, metrics, edges, only=destination, schemas=known_schemas(own))
    # The decoder and the writers of answers are parts of the pipeline, so they were built before it.
    trouble.listener = pipeline.holds.registry_trouble
    for name in answers.keys() & pipeline.workers.keys():
        answers[name].on_trouble = pipeline.workers[name].destination.note_answers
    configuration.running(pipeline, avro.decoder)
    await producer.start()
    member.running(pipeline, dead_letters, lambda: source.troubles, lambda: source.is_refused)
    try:
        async with _background(configuration, group, source, counts, member, metrics, producer, stop):
            await pipeline.run(stop)
    except OtherSideRuns:
        # This member has delivered nothing since then, and its group's offsets are no newer than the other side's.
        async with Groups(base.kafka) as groups:
            await give_back(groups, base, destination)
        raise
    finally:
        # Receipts first: they need the producer, and no outcome waits for them.
        if receipts is not None:
            await receipts.close(1.0)
        await producer.close(2.0)
        await avro.close()
        if tracer is not None:
            await tracer.close(1.0)


def _dead_letters(settings: Settings, producer: KafkaProducer, metrics: Metrics, clock: Clock) -> DeadLetterWriter:
    return DeadLetterWriter(
        producer,
        settings.dead_letter_topic,
        settings.kafka.group_id,
        metrics=metrics,
        clock=clock,
        drain_timeout=settings.limits.drain_timeout,
        dialect=settings.dead_letters.dialect,
        is_fatal=_is_fatal,
    )


@asynccontextmanager
async def _background(
    configuration: Configuration,
    group: str,
    source: KafkaSource,
    counts: Mapping[str, int],
    member: Member,
    metrics: Metrics,
    producer: KafkaProducer,
    stop: asyncio.Event,
) -> AsyncIterator[None]:
    """Run the pipeline's background tasks. Raises the exception of a task that failed; such a task ends the run."""
    clock, settings = SystemClock(), configuration.loaded.settings
    async with GroupMembership(settings.kafka) as groups:

        def watch() -> Coroutine[Any, Any, None]:
            return member.watch_membership(lambda: groups.why_unassigned(group, counts))

        # A failed background task stops the run like a signal: the run drains and commits, and then raises the
        # exception.
        tasks: Supervisor[None] = Supervisor(stop.set)
        tasks.start(_leave(source, stop), "leave", None)
        tasks.start(
            restarted(lambda: member.summarize(metrics, settings.replay_topic), "summary", clock), "summary", None
        )
        if topic := settings.console.events_topic:
            write = partial(_write_event, producer, topic)
            tasks.start(restarted(lambda: write_events(member.timeline, write, clock), "events", clock), "events", None)
        tasks.start(restarted(watch, "membership", clock), "membership", None)
        if configuration.asked is not None:
            tasks.start(restarted(configuration.follow, "reload by signal", clock), "reload by signal", None)
        if settings.reload.watch:
            tasks.start(restarted(configuration.watch, "reload", clock), "reload", None)
        try:
            yield
            tasks.check()
        finally:
            await tasks.close()


async def _write_event(producer: KafkaProducer, topic: str, record: bytes) -> None:
    await producer.send(topic, key=None, value=record)


@dataclass(frozen=True, slots=True)
class _Avro:
    """The Avro decoder and encoder, and the registry that both use."""

    decoder: Decoder
    encoder: Encoder
    registry: Registry | None

    async def close(self) -> None:
        """Cancel open requests to the registry."""
        await self.decoder.close()
        if self.registry is not None:
            await self.registry.close()


def _avro(
    configuration: Configuration,
    own: Sequence[Schema],
    as_json: Iterable[tuple[str, str]],
    clock: Clock,
    trouble: _RegistryTrouble,
) -> _Avro:
    settings = configuration.loaded.settings
    registry = None
    if settings.schema_registry is not None:
        registry = open_registry(settings.schema_registry, lambda: _reloaded_registry(configuration.loaded))
    contracts, report = load_contracts(), trouble.report
    plain = settings.schemas.plain
    decoder = Decoder(
        contracts,
        clock=clock,
        registry=registry,
        schemas=own,
        plain=plain,
        as_json=as_json,
        keys=reads_keys(settings),
        on_trouble=report,
    )
    return _Avro(decoder, Encoder(contracts, clock=clock, registry=registry, on_trouble=report), registry)


def _receipts(
    settings: Settings, avro: _Avro, producer: KafkaProducer, group: str, metrics: Metrics, clock: Clock
) -> ReceiptWriter | None:
    """Return the writer of receipts, or None if there is no topic for them.

    Its encoder only logs trouble with the registry, because deliveries do not wait for receipts.
    """
    topic = settings.receipts.topic
    if topic is None:
        return None
    encoder = Encoder(load_contracts(), clock=clock, registry=avro.registry)
    return ReceiptWriter(encoder, producer, topic, group, metrics=metrics, clock=clock)


def _other_side(
    settings: Settings, destination: str | None, clock: Clock
) -> Callable[[], Awaitable[OtherSideRuns | None]]:
    """Return what a member asks when it begins, and again when it is back after it was away from its group."""
    is_back = False

    async def ask() -> OtherSideRuns | None:
        nonlocal is_back
        was_back, is_back = is_back, True
        async with Groups(settings.kafka) as groups:
            return await other_side(groups, settings, destination, clock, is_back=was_back)

    return ask


def _source(
    settings: Settings, group: str, clock: Clock, why_not_begin: Callable[[], Awaitable[FatalError | None]]
) -> KafkaSource:
    return KafkaSource(
        settings.kafka,
        topics=[*settings.kafka.topics, settings.replay_topic],
        own_topics=settings.own_topics,
        group_id=group,
        queue_bytes=settings.limits.buffer // QUEUE_SHARE,
        clock=clock,
        why_not_begin=why_not_begin,
    )


def _tracer(settings: Settings) -> OtelTracer | None:
    """Return the tracer of requests, or None if tracing is off; OpenTelemetry is imported only if it is on."""
    if not settings.tracing.enabled:
        return None
    from connector.runtime.tracing import open_tracer  # noqa: PLC0415 -- an extra that need not be installed

    return open_tracer(settings)


async def _leave(source: KafkaSource, stop: asyncio.Event) -> None:
    """Tell the source about a stop, because an assignment may be waiting for a broker that does not answer."""
    await stop.wait()
    source.leave()


def _reloaded_registry(loaded: Loaded) -> RegistrySettings:
    """Read the registry's secrets again; keep the old ones if they cannot be read now."""
    try:
        settings = loaded.reload_registry()
    except ConfigurationError as error:
        log.warning("registry.secrets_unreadable", message=str(error))
        # The old secrets may still work. There is a registry, or this would not be called.
        return loaded.settings.schema_registry or RegistrySettings(url="http://none")
    logs.register_secrets(secret_values(settings))
    return settings


class _RegistryTrouble:
    """Passes the registry's troubles from the decoder to the pipeline, which is built later."""

    def __init__(self) -> None:
        self.listener: Callable[[str | None], None] = lambda _message: None

    def report(self, message: str | None) -> None:
        """Call the listener."""
        self.listener(message)


def _is_fatal(error: ConnectorError) -> bool:
    return isinstance(error, DeliveryFailed) and error.fatal


def _handle_signals(stop: asyncio.Event, reload: asyncio.Event, drain_timeout: float) -> None:
    """Stop on SIGTERM and SIGINT: the first drains, a second ends the run at once, and so does a drain that hangs.

    SIGHUP reads the configuration again. In a process with a terminal it means that the terminal was closed, and stops
    the run. If it is ignored (nohup), it stays ignored. SIGUSR1 lowers the log level by one step, SIGUSR2 restores the
    configured level.
    """
    loop = asyncio.get_running_loop()

    def on_signal(name: str) -> None:
        # A second signal means that a person does not want to wait for the drain. Unfinished records stay uncommitted.
        if stop.is_set():
            log.warning(
                "connector.aborted", signal=name, message="stopped at once; unfinished records are delivered again"
            )
            _exit()
        log.info("connector.stopping", signal=name, seconds=drain_timeout)
        stop.set()
        overdue = drain_timeout + STOP_MARGIN
        # Three ways to end, for ever worse faults: the event loop still runs; only the interpreter does; neither does.
        loop.call_later(overdue, _overdue)
        # A thread that hangs in C can block both the loop and the interpreter's exit. This needs neither, and writes
        # every thread's stack to stderr.
        faulthandler.dump_traceback_later(overdue + _LAST_RESORT, exit=True)
        _end_after(overdue + 2 * _LAST_RESORT)

    stops = stop_signals()
    for stopping in stops:
        if signal.getsignal(stopping) is not signal.SIG_IGN:
            loop.add_signal_handler(stopping, on_signal, stopping.name)
    if signal.SIGHUP not in stops:
        loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.add_signal_handler(signal.SIGUSR1, logs.more)
    loop.add_signal_handler(signal.SIGUSR2, logs.as_configured)


def _end_after(seconds: float) -> None:
    """Have the kernel end the process after this many seconds, if it is still running.

    All other ways need the interpreter or stderr, and either may be blocked: a stack dump waits for a full pipe.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _overdue() -> None:
    log.error(
        "connector.overdue", message="the stop took longer than limits.drain_timeout plus a margin; ended at once"
    )
    _exit()


def _exit() -> None:
    logs.flush(_LAST_RESORT / 2)
    # Without clean-up, which would wait for the threads and sockets that made the stop hang.
    os._exit(1)
