"""Traces: a span for each request, linked to its records' contexts, carried to a vendor only where that is wanted."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from connector.cli.common import read_config
from connector.delivery.worker import Worker
from connector.errors import ConfigurationError
from connector.pipeline.batching import Delivery
from connector.records import Headers
from connector.runtime import checks as app_checks
from connector.runtime.tracing import OtelTracer, open_tracer
from connector.vendors.base import Request, Response
from tests.unit.delivery.delivery_rig import OK, WORDS, Behave, Reply, Rig, played

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = f"00-{TRACE}-{PARENT}-01".encode()
MINIMAL = """
kafka: {topics: [events], group_id: group, client: {bootstrap.servers: "localhost:9092"}}
destinations:
  one: {vendor: mytracker, id_app: 666, token: a-token}
"""


class Traced:
    """A destination whose requests are traced into memory; `carrying` are those that send the context on."""

    def __init__(self, behave: Behave = lambda _call: OK, *, carrying: frozenset[str] = frozenset()) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.rig = Rig(behave)
        self.sent: list[Request] = []
        inner = self.rig.transport.send

        async def send(request: Request, timeout: float) -> Response:
            self.sent.append(request)
            return await inner(request, timeout)

        self.rig.transport.send = send  # type: ignore[method-assign]
        self.rig.worker = Worker(
            self.rig.destination, self.rig.transport, timeout=20.0, tracer=OtelTracer(provider, carrying)
        )

    async def deliver(self, *headers: Headers) -> list[ReadableSpan]:
        """Deliver one record for each headers, in one batch, and return the finished spans."""
        deliveries: list[Delivery] = []
        for number, own in enumerate(headers):
            delivery = self.rig.delivery(number)
            delivery.record = replace(delivery.record, headers=own)
            deliveries.append(delivery)
        async with self.rig.running():
            self.rig.take(deliveries)
            await self.rig.done()
        return list(self.exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


@played
async def test_a_span_is_linked_to_its_records_contexts() -> None:
    """Each context is one link, with the first record's place; broken and missing ones are none.

    Kills: taking one record's context for the batch's parent.
    """
    other = f"00-{TRACE}-{'1' * 16}-00".encode()
    state = ("tracestate", b"vendor=1")
    traced = Traced()
    (span,) = await traced.deliver(
        [("traceparent", CONTEXT), state],
        [],
        [("traceparent", other)],
        [("traceparent", CONTEXT)],
        [("traceparent", b"00-not-a-context-01"), ("traceparent", None)],
    )
    assert span.parent is None
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" != TRACE
    links = [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links]
    assert links == [(TRACE, PARENT), (TRACE, "1" * 16)]
    assert dict(span.links[0].attributes or {})["messaging.kafka.offset"] == 0
    assert span.links[0].context.trace_state.get("vendor") == "1"
    assert (span.name, span.kind, span.status.status_code) == ("deliver d", SpanKind.CLIENT, StatusCode.UNSET)
    found = attributes(span)
    assert found["messaging.batch.message_count"] == 5
    assert found["http.response.status_code"] == 200
    assert found["server.address"] == "model.example.com"
    assert found["connector.verdict"] == "accepted"


@played
async def test_a_vendor_is_sent_the_context_only_where_that_is_wanted() -> None:
    """With the switch the request carries the span's own context, without it nothing is added to it.

    Kills: sending a trace's ids to a third party by default.
    """
    for wanted in (False, True):
        traced = Traced(carrying=frozenset({"d"}) if wanted else frozenset())
        (span,) = await traced.deliver([("traceparent", CONTEXT)])
        assert span.context is not None
        (request,) = traced.sent
        flags = f"{span.context.trace_flags:02x}"
        own = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{flags}"
        assert request.headers == ({"token": "good", "traceparent": own} if wanted else {"token": "good"})


@played
async def test_every_request_has_a_span_and_says_how_it_ended() -> None:
    """A failure is an error with its verdict, the next attempt a span of its own; no word of the vendor is in it."""
    answers = iter([Reply(500), Reply(cut=True), Reply(400, {"code": "B1"})])
    spans = await Traced(lambda _call: next(answers)).deliver([])
    assert [attributes(span)["connector.verdict"] for span in spans] == ["retry", "retry", "refused"]
    assert [attributes(span)["connector.attempt"] for span in spans] == [1, 2, 3]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}
    assert attributes(spans[2])["error.type"] == "B1"
    assert WORDS not in spans[2].to_json()


def test_off_costs_nothing() -> None:
    """A member without tracing does not even import OpenTelemetry."""
    found = "[m for m in sys.modules if m.startswith('opentelemetry')]"
    code = f"import connector.runtime.app, connector.cli.main, sys; print({found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration that wants traces."""
    path = tmp_path / "connector.yaml"
    path.write_text(MINIMAL + "tracing: {enabled: true, sample: 0.5}\n", encoding="utf-8")
    return path


def test_a_missing_extra_is_a_fault_of_the_configuration(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed, `check` and `run` name the key and the command that installs it."""
    app_checks.check_routes(read_config(file))
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(ConfigurationError, match=r"tracing\.enabled: .*pip install 'connector\[otel\]'"):
        app_checks.check_routes(read_config(file))
    file.write_text(MINIMAL, encoding="utf-8")
    app_checks.check_routes(read_config(file))


def test_a_collector_that_is_down_delays_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer of a configuration is made, and closing it ends in time although no one takes its spans."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    asyncio.run(open_tracer(read_config(file).settings).close(1.0))
