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
from connector.config.loader import Loaded, RegistrySettings, Settings, secret_values
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

GC_THRESHOLD: Final = 20_000
"""Net new objects before the collector looks at the youngest; Python's default is 700."""
STOP_MARGIN: Final = 5.0
"""Seconds beyond `limits.drain_timeout` after which a stopping process has ended."""
_LAST_RESORT: Final = 1.0
"""Seconds after that until a process whose event loop no longer runs is ended, and again for one that cannot say so."""


async def run(loaded: Loaded, destination: str | None = None, *, on_ready: Callable[[int], None] | None = None) -> int:
    """Run the connector until SIGTERM or SIGINT and return the exit status; see `_handle_signals`.

    `destination` runs one destination alone in its own group. `on_ready` is called with the server's port. Raises
    `ConnectorError` if it cannot start or go on.
    """
    # Before anything is built: what the imports made lives for ever and is not looked at again.
    _tune_collector()
    stop, reload = asyncio.Event(), asyncio.Event()
    _handle_signals(stop, reload, loaded.settings.limits.drain_timeout)
    try:
        return await serve(loaded, stop, destination, on_ready=on_ready, reload=reload)
    except ConnectorError:
        # What is left is to print the reason; a blocked stderr must not keep the process alive.
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
    """Run until `stop` is set, for programs that embed the connector; whenever `reload` is set, reload."""
    settings = loaded.settings
    # Before Kafka: a fault of the configuration ends the start with its path and line, without waiting for a broker.
    check_routes(loaded)
    logs.register_secrets(secret_values(settings))
    clock = SystemClock()
    metrics = Metrics()
    names = list(settings.destinations) if destination is None else [destination]
    topics = [topic for topic in settings.kafka.topics if not topic.startswith("^")]
    # Every series at 0 from the start, or Prometheus' `increase` misses what happens before its first scrape.
    metrics.begin(names, [*topics, settings.replay_topic])
    group = settings.kafka.group_id if destination is None else f"{settings.kafka.group_id}.{destination}"
    member = Member(
        group,
        clock,
        settings.limits.drain_timeout,
        session_timeout=session_seconds(settings.kafka),
        writes_events=settings.console.events_topic is not None,
    )
    logs.listen(member.timeline.note)
    metrics.watch_process()
    metrics.on_scrape(lambda: member.update_gauges(metrics))
    server = Server(
        host=settings.server.host,
        ports=settings.server.ports,
        hosts=settings.server.hosts,
        token=settings.server.token,
        metrics=metrics,
        member=member,
    )
    configuration = Configuration(loaded, metrics, destination, server.use, clock, reload)
    member.reload, member.config_fault = configuration.reload, lambda: configuration.fault
    # Before Kafka is reached: probes and `/status` have to show what a waiting member waits for.
    await server.start()
    member.watchdog.start()
    try:
        # Only now: a port of 0 is chosen by the system.
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


async def _prepare(settings: Settings, destination: str | None, clock: Clock, member: Member) -> TopicReport:
    """Wait for a broker, check the topics, and take over the other side's progress."""
    async with TopicCheck(settings.kafka, clock=clock) as check:
        # For ever, unlike `check --online`: a broker may come up later than
        # its clients, and the port says what is waited for.
        await check.wait(member.waiting)
        report = await check.check(settings.kafka.topics, own_topics(settings))
    async with Groups(settings.kafka) as groups:
        # After the topics were found and before joining: the first assignment reads the offsets that this writes.
        await take_over(groups, settings, destination, clock)
    return report


async def _unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """Return what `work` returns; None if `stop` came first: then it is cancelled."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        # A start that ended by itself counts, although a stop came in the same turn.
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
    producer = KafkaProducer(base.kafka)
    trouble = _RegistryTrouble()
    avro = _avro(configuration, own, passed_on(base, kinds), clock, trouble)
    dead_letters = _dead_letters(base, producer, metrics, clock)
    receipts = _receipts(base, avro, producer, group, metrics, clock)
    source, tracer = _source(base, group, clock, partial(_other_side, base, destination, clock)), _tracer(base)
    # What the consumer sees later comes first: partitions may be added while the member runs.
    counts = ChainMap(source.counts, dict(report.partitions))
    edges = Edges(
        source=source,
        decoder=avro.decoder,
        dead_letters=dead_letters,
        receipts=receipts,
        answers={
            name: ResultsWriter(avro.encoder, producer, topic, clock) for name, topic in base.results_topics.items()
        },
        transport=lambda name, account: HttpTransport(name, account.http, account.max_in_flight),
        reload=configuration.renewed,
        clock=clock,
        random=Random(),
        cluster_id=report.cluster_id,
        partitions=counts,
        tracer=tracer,
    )
    pipeline = build(base, kinds, metrics, edges, only=destination, schemas=known_schemas(own))
    # The decoder is one of the pipeline's parts, so it exists before that.
    trouble.listener = pipeline.holds.registry_trouble
    configuration.running(pipeline, avro.decoder)
    await producer.start()
    member.running(pipeline, dead_letters, lambda: source.troubles, lambda: source.is_refused)
    try:
        async with _background(configuration, group, source, counts, member, metrics, producer, stop):
            await pipeline.run(stop)
    except OtherSideRuns:
        # This member has delivered nothing, and its group's offsets are no newer than the other side's.
        async with Groups(base.kafka) as groups:
            await give_back(groups, base, destination)
        raise
    finally:
        # Receipts first: they are sent by the producer, and no outcome waits for them.
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

        # A background task that fails stops the run like a signal: it
        # drains and commits, and the exception is raised then.
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
    """Return the writer of receipts, None where there is no topic for them.

    Its encoder reports trouble with the registry to the log only, because deliveries do not wait for receipts.
    """
    topic = settings.receipts.topic
    if topic is None:
        return None
    encoder = Encoder(load_contracts(), clock=clock, registry=avro.registry)
    return ReceiptWriter(encoder, producer, topic, group, metrics=metrics, clock=clock)


async def _other_side(settings: Settings, destination: str | None, clock: Clock) -> OtherSideRuns | None:
    async with Groups(settings.kafka) as groups:
        return await other_side(groups, settings, destination, clock)


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
    """Return the tracer of requests, None where tracing is off; OpenTelemetry is imported only if it is on."""
    if not settings.tracing.enabled:
        return None
    from connector.runtime.tracing import open_tracer  # noqa: PLC0415 -- an extra that need not be installed

    return open_tracer(settings)


async def _leave(source: KafkaSource, stop: asyncio.Event) -> None:
    """Tell the source of a stop, because an assignment may be waiting for a broker that does not answer."""
    await stop.wait()
    source.leave()


def _reloaded_registry(loaded: Loaded) -> RegistrySettings:
    """Read the registry's secrets again; the old ones where they cannot be read now."""
    try:
        settings = loaded.reload_registry()
    except ConfigurationError as error:
        log.warning("registry.secrets_unreadable", message=str(error))
        # The old secrets may still work. There is a registry, or this would not be called.
        return loaded.settings.schema_registry or RegistrySettings(url="http://none")
    logs.register_secrets(secret_values(settings))
    return settings


class _RegistryTrouble:
    """Passes trouble with the registry from the decoder to the pipeline, which is built later."""

    def __init__(self) -> None:
        self.listener: Callable[[str | None], None] = lambda _message: None

    def report(self, message: str | None) -> None:
        """Call the listener."""
        self.listener(message)


def _is_fatal(error: ConnectorError) -> bool:
    return isinstance(error, DeliveryFailed) and error.fatal


def _tune_collector() -> None:
    """Let the cycle collector run less often: records form no cycles, and each run visits all live ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


def _handle_signals(stop: asyncio.Event, reload: asyncio.Event, drain_timeout: float) -> None:
    """Stop on SIGTERM and SIGINT: the first drains, a second ends at once, and so does a drain that hangs.

    SIGHUP reads the configuration again. For a process with a terminal it means that the terminal was closed, and
    stops; where it is ignored (nohup) it stays so. SIGUSR1 lowers the log level by one, SIGUSR2 sets the configured one
    again.
    """
    loop = asyncio.get_running_loop()

    def on_signal(name: str) -> None:
        # A second signal is a person who does not want to wait for the drain. What is unfinished stays uncommitted.
        if stop.is_set():
            log.warning(
                "connector.aborted", signal=name, message="stopped at once; unfinished records are delivered again"
            )
            _exit()
        log.info("connector.stopping", signal=name, seconds=drain_timeout)
        stop.set()
        overdue = drain_timeout + STOP_MARGIN
        # Three ways to end, each for a worse fault: the loop still turns, the interpreter still runs, neither does.
        loop.call_later(overdue, _overdue)
        # A thread that hangs in C can block the loop and the end of the interpreter. This needs neither, and writes to
        # stderr where each thread is.
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
    """Have the kernel end the process after so many seconds, if it still runs.

    Everything else needs the interpreter or stderr, and either may be blocked: a stack dump waits for a full pipe.
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
    # No clean-up: it would wait for the threads and sockets that made the stop hang.
    os._exit(1)
