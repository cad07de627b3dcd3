"""What a run shows of itself: its metrics' page as it is served, and its traces, over a real Kafka and a vendor."""

from __future__ import annotations

import asyncio
import re
import subprocess
import urllib.request
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from connector.cli.common import read_config
from connector.config.loader import TracingSettings
from connector.runtime import app
from connector.runtime import tracing as otel
from connector.telemetry.metrics import DEFINITIONS, PREFIX
from connector.testing.faults import Call
from connector.testing.jiguang import JiguangApi
from connector.testing.simulator import Reply
from tests.e2e.chart import tool
from tests.integration.events import KNOWN_EVENT, good
from tests.integration.job import ATTRIBUTES, DESTINATION, Job, Vendor, wait_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
RECORDS = 30


class Listening(JiguangApi):
    """Jiguang's account, which keeps what it was sent in the header `traceparent`."""

    def __init__(self) -> None:
        super().__init__(events={KNOWN_EVENT: ATTRIBUTES})
        self.contexts: list[str | None] = []

    def answer(self, call: Call) -> Reply:
        """Keep the header, and answer."""
        self.contexts.append(call.headers.get("traceparent"))
        return super().answer(call)


async def _until_delivered(job: Job, settings: dict[str, Any], count: int) -> str:
    """Run a member in this process until it has done so many records; return its /metrics of that moment."""
    stop, ports = asyncio.Event(), asyncio.Queue[int]()
    running = asyncio.create_task(app.serve(read_config(job.write(settings)), stop, on_ready=ports.put_nowait))
    url = f"http://127.0.0.1:{await ports.get()}/metrics"

    def page() -> str | None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
        done = re.findall(r"^connector_records_(?:delivered|dead_lettered)_total\{.*\} (\S+)$", text, re.MULTILINE)
        return text if sum(map(float, done)) == count else None

    try:
        return await asyncio.to_thread(wait_for, page, "all records")
    finally:
        stop.set()
        assert await running == 0


async def test_a_run_is_seen(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Served metrics are as Prometheus wants them, labels bounded; requests are traced with their records' contexts.

    Kills: a label whose values come from outside; a trace that ends at Kafka.
    """
    exporter = InMemorySpanExporter()

    def exporting(settings: TracingSettings) -> SpanExporter:
        return exporter

    monkeypatch.setattr(otel, "make_exporter", exporting)
    api = Listening()
    contexts = [f"00-{TRACE}-{number + 1:016x}-01" for number in range(RECORDS)]
    messages = [
        message._replace(headers=(("traceparent", context.encode()),))
        for message, context in zip(good(range(RECORDS)), contexts, strict=True)
    ]
    job.produce([*messages, messages[0]._replace(value=b"no avro")])
    with Vendor(api) as vendor:
        settings = job.settings({**vendor.destination, "traceparent": True}, tracing={"enabled": True})
        page = await _until_delivered(job, settings, RECORDS + 1)
    _check_page(page)

    spans = [span for span in exporter.get_finished_spans() if span.name == f"deliver {DESTINATION}"]
    assert spans
    linked = {f"00-{link.context.trace_id:032x}-{link.context.span_id:016x}-01" for one in spans for link in one.links}
    assert linked == set(contexts)
    own = {f"{one.context.trace_id:032x}-{one.context.span_id:016x}" for one in spans if one.context is not None}
    assert {context[3:52] if context else None for context in api.contexts} == own


def _check_page(page: str) -> None:
    """Check a served page: Prometheus' own tool finds nothing to fix, and labels hold what the definitions say."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=page.encode(), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    allowed = {}
    for metric in DEFINITIONS:
        if metric.values:
            allowed[PREFIX + metric.name] = (metric.labels[-1], set(metric.values))
    seen = set()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            seen.add(sample.name)
            if sample.name in allowed:
                label, known = allowed[sample.name]
                assert sample.labels[label] in known, sample
            assert set(sample.labels) <= {
                "destination",
                "topic",
                "partition",
                "le",
                *(label for label, _ in allowed.values()),
            }
    assert {"connector_time_seconds_total", "connector_records_dead_lettered_total"} <= seen
