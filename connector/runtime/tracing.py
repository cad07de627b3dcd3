"""Traces with OpenTelemetry: one span per request, linked to the trace contexts in its records' headers.

The one module that imports OpenTelemetry, and `app` imports it only if `tracing.enabled` is set. A batch has many
parents, so its span is the root of a trace of its own and names them as links (W3C Trace Context; OpenTelemetry's
conventions for messaging batches). No span contains a record's key or value, a URL's path, or a vendor's message.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from connector import __version__
from connector.config.loader import Settings, TracingSettings
from connector.delivery.request import Span
from connector.pipeline.batching import Batch
from connector.records import Headers
from connector.vendors.base import VERDICTS, Accepted, Request, Response, Verdict

_W3C: Final = TraceContextTextMapPropagator()
_CONTEXT: Final = ("traceparent", "tracestate")


class RequestSpan:
    """The span of one request; `carry` puts its context into the request's headers."""

    __slots__ = ("_carry", "_span")

    def __init__(self, span: OtelSpan, *, carry: bool) -> None:
        self._span = span
        self._carry = carry

    def carried(self, request: Request) -> Request:
        """Note the request's address, and return the request with the span's context if the destination sends it."""
        parts = urlsplit(request.url)
        self._span.set_attribute("http.request.method", request.method)
        self._span.set_attribute("server.address", parts.hostname or "")
        if parts.port is not None:
            self._span.set_attribute("server.port", parts.port)
        if not self._carry:
            return request
        headers = dict(request.headers)
        _W3C.inject(headers, set_span_in_context(self._span))
        return replace(request, headers=headers)

    def end(self, verdict: Verdict | None, response: Response | None) -> None:
        """Note the verdict, and end the span."""
        name = "broken_off" if verdict is None else VERDICTS[type(verdict)]
        self._span.set_attribute("connector.verdict", name)
        if response is not None:
            self._span.set_attribute("http.response.status_code", response.status)
        if not isinstance(verdict, Accepted):
            self._span.set_attribute("error.type", getattr(verdict, "code", None) or name)
            self._span.set_status(Status(StatusCode.ERROR, name))
        self._span.end()


class OtelTracer:
    """Traces requests. `carrying` are the destinations that send the context to the vendor (`traceparent: true`)."""

    def __init__(self, provider: TracerProvider, carrying: frozenset[str]) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("connector", __version__)
        self._carrying = carrying

    def begin(self, destination: str, vendor: str, batch: Batch) -> Span:
        """Begin the span of a batch's next request."""
        span = self._tracer.start_span(
            f"deliver {destination}",
            # Empty, so that no span of the embedding program becomes its parent.
            context=Context(),
            kind=SpanKind.CLIENT,
            links=list(_links(batch)),
            attributes={
                "messaging.system": "kafka",
                "messaging.batch.message_count": len(batch.deliveries),
                "connector.destination": destination,
                "connector.vendor": vendor,
                "connector.attempt": batch.attempts + 1,
            },
        )
        return RequestSpan(span, carry=destination in self._carrying)

    async def close(self, timeout: float) -> None:
        """Send the remaining spans, for a few seconds at most: a collector that is down must not delay a stop."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, timeout)


def open_tracer(settings: Settings) -> OtelTracer:
    """Return a tracer that exports by OTLP over HTTP. OpenTelemetry's own variables (OTEL_…) hold for what is unset."""
    processor = BatchSpanProcessor(make_exporter(settings.tracing))
    # A sampler in the environment is the operator's choice for everything that runs there.
    sampler = None if "OTEL_TRACES_SAMPLER" in os.environ else TraceIdRatioBased(settings.tracing.sample)
    name: Mapping[str, str] = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "connector"}
    resource = Resource.create({**name, "service.version": __version__, "connector.group": settings.kafka.group_id})
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return OtelTracer(
        provider, frozenset(name for name, destination in settings.destinations.items() if destination.traceparent)
    )


def make_exporter(settings: TracingSettings) -> SpanExporter:
    """Return the exporter of spans."""
    return OTLPSpanExporter(endpoint=settings.endpoint)


def _links(batch: Batch) -> Iterator[Link]:
    """Yield one link for each distinct context in the batch's records, with the first such record's position."""
    seen = set()
    for delivery in batch.deliveries:
        record = delivery.record
        carrier = _carrier(record.headers)
        if "traceparent" not in carrier:
            continue
        context = get_current_span(_W3C.extract(carrier, Context())).get_span_context()
        # Records of one trace may share a context, and one link is enough.
        if context.is_valid and (context.trace_id, context.span_id) not in seen:
            seen.add((context.trace_id, context.span_id))
            place: dict[str, str | int] = {
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            }
            yield Link(context, place)


def _carrier(headers: Headers) -> dict[str, str]:
    """Return the first traceparent and tracestate of a record's headers as text."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _CONTEXT and value is not None:
            found.setdefault(name, value.decode("ascii", "replace"))
    return found
