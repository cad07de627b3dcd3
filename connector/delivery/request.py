"""One request for a batch: builds it, sends it once, reads its answer; with metrics, a span and a sampled log line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from connector.delivery.codes import apply_codes, explain_code
from connector.delivery.destination import Destination
from connector.errors import TransportError
from connector.pipeline.batching import Batch, Delivery
from connector.tasks import place_of
from connector.telemetry.logs import sample
from connector.telemetry.metrics import CLOSED_BY
from connector.vendors.answers import sent_at
from connector.vendors.base import VERDICTS, Accepted, Dropping, Request, Response, Retry, Timed, Vendor, Verdict

log = structlog.get_logger()

CLOCKS_DIFFER_MS: Final = 60_000
"""If our clock and the vendor's `Date` differ by more, the vendor's is used."""


class Transport(Protocol):
    """How a request reaches the vendor."""

    async def send(self, request: Request, timeout: float) -> Response:
        """Return the complete answer. Raises `TransportError` if none came within `timeout` seconds."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Span(Protocol):
    """The trace of one request."""

    def carried(self, request: Request) -> Request:
        """Return the request to send, with the span's context if the destination's settings ask for it."""
        ...

    def end(self, verdict: Verdict | None, response: Response | None) -> None:
        """End the span. Without a verdict the request was cancelled."""
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
        self._name = name = destination.name
        self._transport = transport
        self.timeout = timeout
        self._tracer = tracer
        self._clock = destination.ports.clock
        self._compared: str | None = None
        self._take_vendor(destination.vendor)
        self._clocks_differ = False
        self._metrics = metrics = destination.ports.metrics
        self._time = metrics.time_seconds
        # Looked up once, not for each request.
        self._batch_records = metrics.batch_records.labels(name)
        self._batch_bytes = metrics.batch_bytes.labels(name)
        self._closed = {by: metrics.batch_closed.labels(name, by) for by in CLOSED_BY}
        self._request_seconds = metrics.request_seconds.labels(name)
        self._verdicts = {kind: metrics.requests.labels(name, verdict) for kind, verdict in VERDICTS.items()}

    async def send(self, batch: Batch) -> tuple[Verdict, Response | None]:
        """Send the batch and return what the answer means.

        An unexpected exception is an answer that says nothing: one vendor's odd answer, or a record that its request
        cannot hold, must not end the deliveries to all the others.
        """
        try:
            return await self._send(batch)
        except Exception as error:  # noqa: BLE001 - no answer of a vendor may end a run
            return self._unexpected(batch, error), None

    async def _send(self, batch: Batch) -> tuple[Verdict, Response | None]:
        vendor, items, clock, metrics = self._destination.vendor, batch.items, self._clock, self._metrics
        span = (
            None if self._tracer is None else self._tracer.begin(self._name, self._destination.settings.vendor, batch)
        )
        verdict: Verdict
        ended: Verdict | None = None
        response: Response | None = None
        batch.attempts += 1
        prepared = clock.now()
        try:
            wall = clock.wall()
            # Counted at the first attempt only, because a retry is not a new batch.
            if batch.first_attempt is None:
                batch.first_attempt = wall
                self._closed[batch.closed_by].inc()
            request = vendor.request(batch.group, items, int(wall * 1000))
            if span is not None:
                request = span.carried(request)
            size = len(request.body or b"")
            if vendor is not self._vendor:
                self._take_vendor(vendor)
            if self._dropping is not None:
                for parameter, count in self._dropping.take_dropped().items():
                    metrics.parameters_dropped.labels(self._name, parameter).inc(count)
            self._batch_records.observe(len(items))
            self._batch_bytes.observe(size)
            if batch.isolating:
                metrics.isolation_requests.labels(self._name).inc()
            started = clock.now()
            # In the same step as the send, so that nothing can be accepted in between.
            self._destination.evidence.sending(batch, started)
            self._time.add("deliver", started - prepared)
            try:
                response = await self._transport.send(request, self.timeout)
            except TransportError as error:
                # The vendor may have the batch if its body was begun, and only the transport knows whether it was.
                verdict = Retry(error.reason, unknown_outcome=error.unknown_outcome)
            finally:
                answered = clock.now()
                self._request_seconds.observe(answered - started)
            if response is not None:
                if self._timed is not None and response.headers.get("date") != self._compared:
                    self._compare_clocks(self._timed, response)
                verdict = vendor.read(response, batch.group, items, batch.asked)
                if self._destination.settings.codes:
                    verdict = apply_codes(self._destination.settings.codes, verdict, response)
                if not isinstance(verdict, Accepted):
                    verdict = explain_code(self._destination.settings.vendor, verdict)
                self._time.add("deliver", clock.now() - answered)
            # A cancelled request has no verdict, but its span has to end as well.
            ended = verdict
        finally:
            if span is not None:
                span.end(ended, response)
        self._verdicts[type(verdict)].inc()
        if sample.on and sample.takes_next():
            self._follow(batch, verdict, response, size, answered - started)
        return verdict, response

    def _unexpected(self, batch: Batch, error: Exception) -> Verdict:
        reason = f"unexpected {place_of(error)} in a request: a fault of the connector, please report it"
        log.error("request.failed", destination=self._name, records=len(batch.deliveries), message=reason)
        self._verdicts[Retry].inc()
        # It may have been raised before, while or after the request was sent.
        return Retry(reason, unknown_outcome=True)

    def _take_vendor(self, vendor: Vendor) -> None:
        """Note which optional methods the vendor has. Testing for them costs as much as building a request."""
        self._vendor = vendor
        self._dropping = vendor if isinstance(vendor, Dropping) else None
        self._timed = vendor if isinstance(vendor, Timed) else None
        self._compared = None

    def _compare_clocks(self, vendor: Timed, response: Response) -> None:
        """Give the vendor its own clock if ours differs by more than a minute, and warn once for each difference.

        Rules about the present time are the vendor's. Applied with a wrong clock they would refuse good events. The
        vendor's clock may be the wrong one too: the `Date` header is often a proxy's.
        """
        sent = sent_at(response.headers)
        self._compared = response.headers.get("date")
        if sent is None:
            return
        ahead = sent - int(self._clock.wall() * 1000)
        differs = abs(ahead) > CLOCKS_DIFFER_MS
        vendor.set_clock(ahead if differs else 0)
        if differs != self._clocks_differ:
            self._clocks_differ = differs
            if differs:
                log.warning(
                    "destination.clock_differs",
                    destination=self._name,
                    vendor_ahead_seconds=round(ahead / 1000),
                    message="this machine's clock and the vendor's differ by more than a minute: set the wrong one",
                )

    def _follow(self, batch: Batch, verdict: Verdict, response: Response | None, size: int, seconds: float) -> None:
        """Log a sampled request and its verdict, without its content."""
        log.debug(
            "request.ended",
            destination=self._name,
            verdict=VERDICTS[type(verdict)],
            http_status=None if response is None else response.status,
            records=len(batch.deliveries),
            bytes=size,
            seconds=round(seconds, 4),
            attempt=batch.attempts,
            closed_by=batch.closed_by,
        )


def follow_delivered(destination: str, deliveries: Iterable[Delivery], attempts: int) -> None:
    """Log those of the accepted records that are in the sample."""
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
