"""Every metric of the connector, defined once: name, kind, labels, meaning, unit, buckets.

`Metrics` makes them in a registry; `docs/metrics.md` is made from `DEFINITIONS`. Children (`metric.labels(…)`) are
cached by those who count, because looking one up costs more than counting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "connector_"
STATES: Final = ("flowing", "throttled", "retrying", "held", "probing")
PARTS: Final = ("poll", "decode", "prepare", "deliver", "commit", "idle")
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric; `name` is without the prefix. `values` says what a label may hold, where that is a fixed list."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    unit: str
    buckets: tuple[float, ...] = ()
    values: str = ""


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_DELAYS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
_WAITS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0)
_BYTES: Final = (256.0, 1024.0, 4096.0, 10_000.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0)

_TIME: Final = (
    "Where the time of a member goes: every second since it joined belongs to one part. `poll`: taking records from "
    "Kafka; `decode`: decoding, and waiting for a schema; `prepare`: routing and encoding; `deliver`: the requests' "
    "own work, and waiting for vendors with the buffer or a map full; `commit`: committing; `idle`: nothing to read."
)

DEFINITIONS: Final = tuple(
    Definition(*row)
    for row in (
        ("records_consumed_total", "counter", ("topic",), "Records read, null values included.", "records"),
        ("records_delivered_total", "counter", ("destination",), "Records that the vendor accepted.", "records"),
        (
            "records_dead_lettered_total",
            "counter",
            ("destination", "cause"),
            "Records acknowledged by the dead-letter topic; without a destination where none was found yet.",
            "records",
            (),
            "cause: decode, route, invalid, refused, too_large, expired, gave_up, unknown_outcome, operator, internal",
        ),
        (
            "records_skipped_total",
            "counter",
            ("reason",),
            "Records that need no delivery (by this member, this time).",
            "records",
            (),
            "reason: null_value, unrouted, other_destination, finished_before",
        ),
        (
            "requests_total",
            "counter",
            ("destination", "verdict"),
            "Requests sent, by what their answer meant.",
            "requests",
            (),
            "verdict: accepted, refused, too_large, throttled, retry, misconfigured",
        ),
        (
            "request_seconds",
            "histogram",
            ("destination",),
            "Time from sending to the whole answer.",
            "seconds",
            _SECONDS,
        ),
        ("batch_records", "histogram", ("destination",), "Records of a request.", "records", _RECORDS),
        ("batch_bytes", "histogram", ("destination",), "Bytes of a request's body.", "bytes", _BYTES),
        (
            "batch_closed_total",
            "counter",
            ("destination", "by"),
            "Batches closed, by what closed them.",
            "batches",
            (),
            "by: records, bytes, linger, group",
        ),
        (
            "delivery_delay_seconds",
            "histogram",
            ("destination",),
            "Time from a record's timestamp to its acceptance.",
            "seconds",
            _DELAYS,
        ),
        (
            "isolation_requests_total",
            "counter",
            ("destination",),
            "Extra requests that looked for the record at fault in a refused batch.",
            "requests",
        ),
        (
            "unknown_outcomes_total",
            "counter",
            ("destination",),
            "Requests of which nobody can say whether the vendor accepted them.",
            "requests",
        ),
        (
            "receipts_total",
            "counter",
            ("result",),
            "Receipts of delivered batches, where receipts.topic is set; a lost one loses no delivery.",
            "receipts",
            (),
            "result: written, lost",
        ),
        (
            "destination_state",
            "gauge",
            ("destination", "state"),
            "1 for the state in which the destination is, 0 for the others.",
            "1",
            (),
            f"state: {', '.join(STATES)}",
        ),
        ("destination_in_flight", "gauge", ("destination",), "Requests under way.", "requests"),
        (
            "rate_limit_wait_seconds",
            "histogram",
            ("destination",),
            "How long a batch that was ready waited for the rate limit.",
            "seconds",
            _WAITS,
        ),
        ("buffer_bytes", "gauge", (), "Memory charged for the records under way.", "bytes"),
        ("buffer_limit_bytes", "gauge", (), "What `limits.buffer` allows.", "bytes"),
        (
            "partition_lag",
            "gauge",
            ("topic", "partition"),
            "Records not done yet; those finished above the watermark are left out.",
            "records",
        ),
        (
            "partition_watermark_age_seconds",
            "gauge",
            ("topic", "partition"),
            "How long the watermark stands although there is work above it; 0 without work.",
            "seconds",
        ),
        (
            "offset_map_used_ratio",
            "gauge",
            ("topic", "partition"),
            "Share of the commit metadata that the finished deliveries above the watermark take.",
            "ratio",
        ),
        ("commits_total", "counter", ("result",), "Commits of offsets.", "commits", (), "result: ok, failed"),
        (
            "rebalances_total",
            "counter",
            ("event",),
            "Changes of the assignment.",
            "events",
            (),
            "event: assigned, revoked, lost",
        ),
        (
            "time_seconds_total",
            "counter",
            ("part",),
            _TIME,
            "seconds",
            (),
            f"part: {', '.join(PARTS)}",
        ),
    )
)


class Observations:
    """One child of a histogram, counted without a lock: all who observe run in one thread."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_since(self, times: Sequence[int], now: float) -> None:
        """Count the seconds from many moments (epoch milliseconds) to now (epoch seconds).

        This is done for every record; those of one batch mostly lie in one bucket.
        """
        if not times:
            return
        bounds, counts = self._bounds, self.counts
        lowest = bisect_left(bounds, now - max(times) / 1000)
        if lowest == bisect_left(bounds, now - min(times) / 1000):
            counts[lowest] += len(times)
        else:
            for time in times:
                counts[bisect_left(bounds, now - time / 1000)] += 1
        self.total += now * len(times) - sum(times) / 1000


class Histogram(Collector):
    """A histogram without locks and without a search of all buckets, because it is observed for every record."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._children: dict[tuple[str, ...], Observations] = {}

    def labels(self, *values: str) -> Observations:
        """Return the child with these labels, made at its first use."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._definition.labels):
                raise ValueError(f"{self._definition.name} has the labels {self._definition.labels}")
            child = self._children[values] = Observations(self._definition.buckets)
        return child

    def describe(self) -> Iterator[Metric]:
        """Yield the family without samples, so that its name is taken once."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Yield the family with cumulative buckets, as the format wants them."""
        family = self._family()
        for values, child in self._children.items():
            count = 0
            buckets: list[tuple[str, float]] = []
            for bound, seen in zip((*self._definition.buckets, float("inf")), child.counts, strict=True):
                count += seen
                buckets.append(("+Inf" if bound == float("inf") else str(bound), count))
            family.add_metric(values, buckets, child.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        """Return the empty family."""
        return HistogramMetricFamily(
            PREFIX + self._definition.name, self._definition.meaning, labels=self._definition.labels
        )


class TimeParts:
    """Gives every moment of one task's time to one of `PARTS`, so that together they are the time that went by.

    Others of the same thread count their own work by `add`; the task counts by `rest` all that nobody else did. The
    counter learns of it by `flush`, before it is read: a batch adds to it five times.
    """

    def __init__(self, seconds: Counter) -> None:
        self._seconds = seconds
        self._uncounted = dict.fromkeys(PARTS, 0.0)
        self.flush()
        self._since = 0.0
        self._counted = 0.0

    def begin(self, now: float) -> None:
        """Count from this moment on."""
        self._since, self._counted = now, 0.0

    def add(self, part: str, seconds: float) -> None:
        """Count work that took so long, without a wait in it."""
        self._uncounted[part] += seconds
        self._counted += seconds

    def rest(self, part: str, now: float) -> None:
        """Count to `part` what is left of the time since the last call, or since `begin`."""
        left = now - self._since - self._counted
        if left > 0:
            self._uncounted[part] += left
            left = 0.0
        # Work begun before and counted after this moment is taken from the next rest.
        self._since, self._counted = now, -left

    def flush(self) -> None:
        """Bring the counter to what was counted."""
        for part, seconds in self._uncounted.items():
            self._seconds.labels(part).inc(seconds)
            self._uncounted[part] = 0.0


class _Refresh(Collector):
    """Calls who keeps gauges current before they are read; yields nothing itself."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def describe(self) -> Iterable[Metric]:
        """Say that no metric comes from here, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Call everyone, and yield nothing."""
        for callback in self.callbacks:
            callback()
        return ()


class Metrics:
    """All metrics of one process, in one registry. Attributes are named after the metrics, without `_total`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        # Creation times double the number of series and nothing here reads them.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._refresh = _Refresh()
        self.registry.register(self._refresh)
        self._definitions = {definition.name: definition for definition in DEFINITIONS}
        self.records_consumed = self._counter("records_consumed_total")
        self.records_delivered = self._counter("records_delivered_total")
        self.records_dead_lettered = self._counter("records_dead_lettered_total")
        self.records_skipped = self._counter("records_skipped_total")
        self.requests = self._counter("requests_total")
        self.request_seconds = self._histogram("request_seconds")
        self.batch_records = self._histogram("batch_records")
        self.batch_bytes = self._histogram("batch_bytes")
        self.batch_closed = self._counter("batch_closed_total")
        self.delivery_delay = self._histogram("delivery_delay_seconds")
        self.isolation_requests = self._counter("isolation_requests_total")
        self.unknown_outcomes = self._counter("unknown_outcomes_total")
        self.receipts = self._counter("receipts_total")
        self.destination_state = self._gauge("destination_state")
        self.destination_in_flight = self._gauge("destination_in_flight")
        self.rate_limit_wait = self._histogram("rate_limit_wait_seconds")
        self.buffer_bytes = self._gauge("buffer_bytes")
        self.buffer_limit_bytes = self._gauge("buffer_limit_bytes")
        self.partition_lag = self._gauge("partition_lag")
        self.partition_watermark_age = self._gauge("partition_watermark_age_seconds")
        self.offset_map_used = self._gauge("offset_map_used_ratio")
        self.commits = self._counter("commits_total")
        self.rebalances = self._counter("rebalances_total")
        self.time_seconds = TimeParts(self._counter("time_seconds_total"))
        self.on_scrape(self.time_seconds.flush)

    def on_scrape(self, callback: Callable[[], None]) -> None:
        """Have `callback` set gauges each time before they are read: it must be quick, and not raise."""
        self._refresh.callbacks.append(callback)

    @staticmethod
    def total(metric: Counter | Gauge) -> float:
        """Return the sum over all labels of a metric."""
        samples = (sample for family in metric.collect() for sample in family.samples)
        return sum(sample.value for sample in samples)

    def set_state(self, destination: str, state: str) -> None:
        """Say in which of `STATES` a destination is."""
        for each in STATES:
            self.destination_state.labels(destination, each).set(1 if each == state else 0)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Drop a partition's gauges: another member reports it from now on."""
        labels = (topic, str(partition))
        for gauge in (self.partition_lag, self.partition_watermark_age, self.offset_map_used):
            gauge.remove_by_labels(dict(zip(("topic", "partition"), labels, strict=True)))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format, whose media type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str) -> Counter:
        """Make a counter of its definition."""
        definition = self._definitions[name]
        return Counter(PREFIX + name, definition.meaning, definition.labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        """Make a gauge of its definition."""
        definition = self._definitions[name]
        return Gauge(PREFIX + name, definition.meaning, definition.labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        """Make a histogram of its definition."""
        histogram = Histogram(self._definitions[name])
        self.registry.register(histogram)
        return histogram
