"""One request of a batch: built, sent once, and its answer read; with metrics, a span and a sampled log line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from connector.delivery.codes import apply_codes
from connector.delivery.destination import Destination
from connector.errors import TransportError
from connector.pipeline.batching import Batch, Delivery
from connector.telemetry.logs import sample
from connector.vendors.answers import sent_at
from connector.vendors.base import VERDICTS, Dropping, Request, Response, Retry, Timed, Verdict

log = structlog.get_logger()

CLOCKS_DIFFER_MS: Final = 60_000
"""Difference between our clock and the vendor's `Date` from which the vendor's is used."""


class Transport(Protocol):
    """How a request reaches the vendor."""

    async def send(self, request: Request, timeout: float) -> Response:
        """Return the whole answer. Raises `TransportError` where none came whole within `timeout` seconds."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Span(Protocol):
    """What is traced of one request."""

    def carried(self, request: Request) -> Request:
        """Return the request as it goes out: with the span's context where the destination wants that."""
        ...

    def end(self, verdict: Verdict | None, response: Response | None) -> None:
        """Note how it ended; without a verdict it was cancelled."""
        ...


class Tracer(Protocol):
    """Traces requests. Its methods are quick and never raise."""

    def begin(self, destination: str, vendor: str, batch: Batch) -> Span:
        """Begin the span of a request."""
        ...


class Requests:
    """The requests to one destination's vendor."""

    def __init__(
        self, destination: Destination, transport: Transport, *, timeout: float, tracer: Tracer | None
    ) -> None:
        self._destination = destination
        self._transport = transport
        self.timeout = timeout
        self._tracer = tracer
        self._clock = destination.ports.clock
        self._clocks_differ = False
        self._time = destination.ports.metrics.time_seconds

    async def send(self, batch: Batch) -> tuple[Verdict, Response | None]:
        """Send the batch and return what the answer means."""
        tracer = self._tracer
        if tracer is None:
            return await self._send(batch, None)
        span = tracer.begin(self._destination.name, self._destination.settings.vendor, batch)
        verdict, response = None, None
        try:
            verdict, response = await self._send(batch, span)
        finally:
            span.end(verdict, response)
        return verdict, response

    async def _send(self, batch: Batch, span: Span | None) -> tuple[Verdict, Response | None]:
        destination, clock = self._destination, self._clock
        vendor, items, name = destination.vendor, batch.items, destination.name
        metrics = destination.ports.metrics
        batch.attempts += 1
        if batch.first_attempt is None:
            batch.first_attempt = clock.wall()
            metrics.batch_closed.labels(name, batch.closed_by).inc()
        prepared = clock.now()
        request = vendor.request(batch.group, items, int(clock.wall() * 1000))
        if span is not None:
            request = span.carried(request)
        size = len(request.body or b"")
        if isinstance(vendor, Dropping):
            for parameter, count in vendor.take_dropped().items():
                metrics.parameters_dropped.labels(name, parameter).inc(count)
        metrics.batch_records.labels(name).observe(len(items))
        metrics.batch_bytes.labels(name).observe(size)
        if batch.isolating:
            metrics.isolation_requests.labels(name).inc()
        started = clock.now()
        destination.evidence.sending(batch, started)
        self._time.add("deliver", started - prepared)
        response: Response | None = None
        verdict: Verdict
        try:
            response = await self._transport.send(request, self.timeout)
        except TransportError as error:
            verdict = Retry(error.reason, unknown_outcome=error.unknown_outcome)
        finally:
            answered = clock.now()
            metrics.request_seconds.labels(name).observe(answered - started)
        if response is not None:
            self._compare_clocks(response)
            read = vendor.read(response, batch.group, items, batch.asked)
            verdict = apply_codes(self._destination.settings.codes, read, response)
            self._time.add("deliver", clock.now() - answered)
        if sample.on and sample.takes_next():
            self._follow(batch, verdict, response, size, answered - started)
        return verdict, response

    def _compare_clocks(self, response: Response) -> None:
        """Give the vendor its own clock where ours differs by more than a minute, and warn once for each difference.

        A rule about the present time is the vendor's: with a wrong clock here it would condemn good events.
        """
        vendor, sent = self._destination.vendor, sent_at(response.headers)
        if sent is None or not isinstance(vendor, Timed):
            return
        ahead = sent - int(self._clock.wall() * 1000)
        differs = abs(ahead) > CLOCKS_DIFFER_MS
        vendor.set_clock(ahead if differs else 0)
        if differs != self._clocks_differ:
            self._clocks_differ = differs
            if differs:
                log.warning(
                    "destination.clock_differs",
                    destination=self._destination.name,
                    vendor_ahead_seconds=round(ahead / 1000),
                    message="this machine's clock and the vendor's differ; the vendor's time is used, set the clock",
                )

    def _follow(self, batch: Batch, verdict: Verdict, response: Response | None, size: int, seconds: float) -> None:
        """Log a sampled request: what it was and how it ended, without its content."""
        log.debug(
            "request.ended",
            destination=self._destination.name,
            verdict=VERDICTS[type(verdict)],
            http_status=None if response is None else response.status,
            records=len(batch.deliveries),
            bytes=size,
            seconds=round(seconds, 4),
            attempt=batch.attempts,
            closed_by=batch.closed_by,
        )


def follow_delivered(destination: str, deliveries: Iterable[Delivery], attempts: int) -> None:
    """Log the sampled records among those that were accepted."""
    for delivery in deliveries:
        topic, partition, offset = delivery.record.position
        if sample.takes(topic, partition, offset):
            log.debug(
                "record.delivered",
                destination=destination,
                topic=topic,
                partition=partition,
                offset=offset,
                dedup_id=delivery.dedup_id,
                attempts=attempts,
            )
