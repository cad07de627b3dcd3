"""The composition root: builds the rooms, wires, starts, drains and stops them. The one file that knows them all."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

import structlog

from connector import __version__, vendors
from connector.clock import Clock, SystemClock
from connector.codec.codec import Decoder, Encoder
from connector.codec.registry import Registry
from connector.codec.schemas import Schema, load_contracts
from connector.config.loader import DestinationSettings, Loaded, Settings, secret_values
from connector.dead_letters.writer import DeadLetterWriter
from connector.delivery.transport import HttpTransport
from connector.errors import ConnectorError, StartupError
from connector.kafka.consumer import KafkaSource
from connector.kafka.groups import Groups
from connector.kafka.producer import DeliveryFailed, KafkaProducer
from connector.kafka.receipts import ReceiptWriter, ResultsWriter
from connector.kafka.topics import TopicCheck, TopicReport
from connector.pipeline import offset_map as metadata
from connector.records import Commit
from connector.routing.compiler import passed_on
from connector.runtime.checks import check_routes, known_schemas, open_registry, own_schemas, own_topics
from connector.runtime.http import Server
from connector.runtime.member import Member
from connector.runtime.pipeline import QUEUE_SHARE, Edges, build
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from connector.runtime.tracing import OtelTracer

log = structlog.get_logger()

GC_THRESHOLD: Final = 20_000
"""Objects made, less those gone again, before the youngest are looked at; Python's own is 700."""
STOP_MARGIN: Final = 5.0
"""Seconds beyond `limits.drain_timeout` in which a stopping process has ended."""
_LAST_RESORT: Final = 1.0
"""Seconds after that in which one whose event loop does not run any more is ended from outside of it."""


async def run(loaded: Loaded, destination: str | None = None, *, on_ready: Callable[[int], None] | None = None) -> int:
    """Run the connector until SIGTERM or SIGINT and return the exit status.

    `destination` runs one destination alone in a group of its own. `on_ready` is told the server's port. Raises
    `ConnectorError` where it cannot start or go on.
    """
    _calm_collector()
    stop = asyncio.Event()
    _stop_on_signals(stop, loaded.settings.limits.drain_timeout)
    return await serve(loaded, stop, destination, on_ready=on_ready)


async def serve(
    loaded: Loaded,
    stop: asyncio.Event,
    destination: str | None = None,
    *,
    on_ready: Callable[[int], None] | None = None,
) -> int:
    """Run until `stop` is set: `run` without signals, for those who embed the connector."""
    settings = loaded.settings
    check_routes(loaded)
    logs.register_secrets(secret_values(settings))
    clock = SystemClock()
    metrics = Metrics()
    group = settings.kafka.group_id if destination is None else f"{settings.kafka.group_id}.{destination}"
    member = Member(group, clock, settings.limits.drain_timeout)
    metrics.on_scrape(member.update_gauges)
    server = Server(
        host=settings.server.host,
        port=settings.server.port,
        token=settings.server.token,
        metrics=metrics,
        member=member,
    )
    await server.start()
    member.watchdog.start()
    try:
        if on_ready is not None:
            on_ready(server.port)
        log.info("connector.started", version=__version__, group=group, port=server.port)
        report = await _reach(settings, clock, member, stop)
        if report is not None and destination is not None:
            async with Groups(settings.kafka) as groups:
                await _adopt_offsets(groups, settings, destination, group)
        if report is not None:
            await _run(loaded, destination, group, report, member, metrics, clock, stop)
    finally:
        member.watchdog.stop()
        await server.stop()
    log.info("connector.stopped", group=group)
    return 0


async def _reach(settings: Settings, clock: Clock, member: Member, stop: asyncio.Event) -> TopicReport | None:
    """Wait for a broker and check the topics; None where it was stopped meanwhile."""
    async with TopicCheck(settings.kafka, clock=clock) as check:
        waiting = asyncio.create_task(check.wait(member.waiting))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([waiting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                return None
            await waiting
        finally:
            for task in (waiting, stopped):
                task.cancel()
            await asyncio.gather(waiting, stopped, return_exceptions=True)
        return await check.check(settings.kafka.topics, own_topics(settings))


async def _adopt_offsets(groups: Groups, settings: Settings, destination: str, group: str) -> None:
    """At the first start of a destination's own group, give it the combined group's offsets and its part of the map.

    Without those it would begin anew and send everything again: it refuses, unless `kafka.start` says where to begin.
    """
    if await groups.committed(group):
        return
    base = settings.kafka.group_id
    adopted = []
    for one in await groups.committed(base):
        try:
            finished = metadata.decode(one.offset, one.metadata)
        except metadata.ForeignMetadata as error:
            log.warning("offsets.foreign_metadata", topic=one.topic, partition=one.partition, message=str(error))
            finished = metadata.FinishedMap()
        watermark, part = metadata.part_of(one.offset, finished, destination)
        adopted.append(Commit(one.topic, one.partition, watermark, metadata.encode(watermark, part).text))
    if not adopted:
        if settings.kafka.start is not None:
            return
        raise StartupError(
            f"group {group} starts for the first time and group {base} has no offsets to begin with: set kafka.start, "
            f"or run the combined group first"
        )
    try:
        await groups.commit(group, adopted)
    except StartupError:
        # Another member of the new group may have come first: then its offsets are there.
        if not await groups.committed(group):
            raise
    log.info("offsets.adopted", group=group, base=base, partitions=len(adopted))


async def _run(
    loaded: Loaded,
    destination: str | None,
    group: str,
    report: TopicReport,
    member: Member,
    metrics: Metrics,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Run one pipeline on real edges."""
    base, kinds, own = loaded.settings, vendors.kinds(), own_schemas(loaded)
    producer = KafkaProducer(base.kafka)
    trouble = _Trouble()
    avro = _avro(base, own, passed_on(base, kinds), clock, trouble)
    dead_letters = DeadLetterWriter(
        producer,
        base.dead_letter_topic,
        base.kafka.group_id,
        metrics=metrics,
        clock=clock,
        drain_timeout=base.limits.drain_timeout,
        is_fatal=_is_fatal,
    )
    receipts = _receipts(base, avro, producer, group, metrics, clock)
    source, tracer = _source(base, group, clock), _tracer(base)
    edges = Edges(
        source=source,
        decoder=avro.decoder,
        dead_letters=dead_letters,
        receipts=receipts,
        answers={
            name: ResultsWriter(avro.encoder, producer, topic, clock) for name, topic in base.results_topics.items()
        },
        transport=lambda name, one: HttpTransport(name, one.http, one.max_in_flight),
        reload=lambda name: kinds[base.destinations[name].vendor].build(_reloaded(loaded, name)),
        clock=clock,
        random=Random(),
        cluster_id=report.cluster_id,
        partitions=ChainMap(source.counts, dict(report.partitions)),
        tracer=tracer,
    )
    pipeline = build(base, kinds, metrics, edges, only=destination, schemas=known_schemas(own))
    trouble.listener = pipeline.holds.registry_trouble
    await producer.start()
    member.running(pipeline, dead_letters, lambda: source.troubles)
    beside = [asyncio.create_task(member.summarize(metrics)), asyncio.create_task(_leave(source, stop))]
    try:
        await pipeline.run(stop)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        if receipts is not None:
            await receipts.close(1.0)
        await producer.close(2.0)
        await avro.close()
        if tracer is not None:
            await tracer.close(1.0)


@dataclass(frozen=True, slots=True)
class _Avro:
    """What reads and writes Avro, and the registry that both ask."""

    decoder: Decoder
    encoder: Encoder
    registry: Registry | None

    async def close(self) -> None:
        """End what is being asked."""
        await self.decoder.close()
        if self.registry is not None:
            await self.registry.close()


def _avro(
    settings: Settings, own: Sequence[Schema], as_json: Iterable[tuple[str, str]], clock: Clock, trouble: _Trouble
) -> _Avro:
    registry = None if settings.schema_registry is None else open_registry(settings.schema_registry)
    contracts, report = load_contracts(), trouble.report
    plain = settings.schemas.plain
    decoder = Decoder(
        contracts, clock=clock, registry=registry, schemas=own, plain=plain, as_json=as_json, on_trouble=report
    )
    return _Avro(decoder, Encoder(contracts, clock=clock, registry=registry, on_trouble=report), registry)


def _receipts(
    settings: Settings, avro: _Avro, producer: KafkaProducer, group: str, metrics: Metrics, clock: Clock
) -> ReceiptWriter | None:
    """Return what writes receipts, None where there are to be none.

    Its encoder tells its registry's trouble to nobody but the log: deliveries do not wait for receipts.
    """
    topic = settings.receipts.topic
    if topic is None:
        return None
    encoder = Encoder(load_contracts(), clock=clock, registry=avro.registry)
    return ReceiptWriter(encoder, producer, topic, group, metrics=metrics, clock=clock)


def _source(settings: Settings, group: str, clock: Clock) -> KafkaSource:
    return KafkaSource(
        settings.kafka,
        topics=[*settings.kafka.topics, settings.replay_topic],
        own_topics=settings.own_topics,
        group_id=group,
        queue_bytes=settings.limits.buffer // QUEUE_SHARE,
        clock=clock,
    )


def _tracer(settings: Settings) -> OtelTracer | None:
    """Return what traces requests; OpenTelemetry is not even imported where nobody wants it."""
    if not settings.tracing.enabled:
        return None
    from connector.runtime.tracing import open_tracer  # noqa: PLC0415 -- an extra that need not be installed

    return open_tracer(settings)


async def _leave(source: KafkaSource, stop: asyncio.Event) -> None:
    """Tell the source of a stop: an assignment may be waiting for a broker that does not answer."""
    await stop.wait()
    source.leave()


def _reloaded(loaded: Loaded, name: str) -> DestinationSettings:
    """Read a destination's secrets again; what is new is hidden in logs before anything can show it."""
    settings = loaded.reload(name)
    logs.register_secrets(secret_values(settings))
    return settings


class _Trouble:
    """Passes the registry's trouble on to who is made later than the decoder."""

    def __init__(self) -> None:
        self.listener: Callable[[str | None], None] = lambda _message: None

    def report(self, message: str | None) -> None:
        """Tell the listener."""
        self.listener(message)


def _is_fatal(error: ConnectorError) -> bool:
    return isinstance(error, DeliveryFailed) and error.fatal


def _calm_collector() -> None:
    """Have the cycle collector look less often: records are made by the thousand, are all alive, and form no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)


def _stop_on_signals(stop: asyncio.Event, drain_timeout: float) -> None:
    """Stop on SIGTERM and SIGINT: the first drains, a second ends at once, and so does a drain that hangs.

    SIGUSR1 logs one level more, SIGUSR2 again as configured.
    """
    loop = asyncio.get_running_loop()

    def on_signal(name: str) -> None:
        if stop.is_set():
            log.warning(
                "connector.aborted", signal=name, message="stopped at once; unfinished records are delivered again"
            )
            _exit()
        log.info("connector.stopping", signal=name, seconds=drain_timeout)
        stop.set()
        overdue = drain_timeout + STOP_MARGIN
        loop.call_later(overdue, _overdue)
        # A client's thread that hangs in C can hold up the loop and the end of the interpreter: this needs neither, and
        # says on stderr where each thread stands.
        faulthandler.dump_traceback_later(overdue + _LAST_RESORT, exit=True)

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, on_signal, one.name)
    loop.add_signal_handler(signal.SIGUSR1, logs.more)
    loop.add_signal_handler(signal.SIGUSR2, logs.as_configured)


def _overdue() -> None:
    log.error(
        "connector.overdue", message="the stop took longer than limits.drain_timeout and its margin; ended at once"
    )
    _exit()


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
