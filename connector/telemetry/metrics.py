"""Every metric of the connector, defined once: name, kind, labels, meaning, unit, buckets.

`Metrics` creates them in a registry of its own; `docs/metrics.md` is generated from `DEFINITIONS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "connector_"
CAUSES: Final = (
    *("decode", "route", "internal", "operator"),
    *("invalid", "refused", "too_large", "expired", "gave_up", "unknown_outcome"),
)
"""Causes of dead letters. Only the first four occur before a record has a destination."""
UNROUTED_CAUSES: Final = CAUSES[:4]
_UNROUTED_ONLY: Final = ("decode", "route")
_DEAD_LETTERED: Final = "records_dead_lettered_total"
STATES: Final = ("flowing", "throttled", "retrying", "held", "probing")
PARTS: Final = ("poll", "decode", "prepare", "deliver", "commit", "idle")
CLOSED_BY: Final = ("records", "bytes", "linger", "group")
"""What closes a batch."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric; `name` is without the prefix. `values` are those of the last label, if they are a fixed list."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    unit: str
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def known_values(self) -> str:
        """The values of the last label, for documents; empty if they are not a fixed list."""
        return f"{self.labels[-1]}: {', '.join(self.values)}" if self.values else ""


_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_DELAYS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
_WAITS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0)
_BYTES: Final = (256.0, 1024.0, 4096.0, 10_000.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0)

_TIME: Final = (
    "How a member spends its time: every second since it joined counts to one part. `poll`: consuming from Kafka; "
    "`decode`: decoding, and waiting for a schema; `prepare`: routing and encoding; `deliver`: work on requests, and "
    "waiting for vendors while the buffer or an offset map is full; `commit`: committing; `idle`: nothing to consume."
)

DEFINITIONS: Final = tuple(
    Definition(*row)
    for row in (
        ("records_consumed_total", "counter", ("topic",), "Records consumed, null values included.", "records"),
        ("records_delivered_total", "counter", ("destination",), "Records that the vendor accepted.", "records"),
        (
            "records_dead_lettered_total",
            "counter",
            ("destination", "cause"),
            "Records written to the dead-letter topic; the destination is empty if none was known yet.",
            "records",
            (),
            CAUSES,
        ),
        (
            "records_skipped_total",
            "counter",
            ("reason",),
            "Records that this member did not have to deliver; `routes[N]`: dropped by that route (`to: []`).",
            "records",
            (),
            ("null_value", "unrouted", "sample", "other_destination", "finished_before", "deleted"),
        ),
        (
            "requests_total",
            "counter",
            ("destination", "verdict"),
            "Requests sent, by the verdict on their response.",
            "requests",
            (),
            ("accepted", "refused", "too_large", "throttled", "retry", "misconfigured"),
        ),
        (
            "request_seconds",
            "histogram",
            ("destination",),
            "Time from sending a request to its complete response.",
            "seconds",
            _SECONDS,
        ),
        ("batch_records", "histogram", ("destination",), "Records per request.", "records", _RECORDS),
        ("batch_bytes", "histogram", ("destination",), "Bytes per request body.", "bytes", _BYTES),
        (
            "batch_closed_total",
            "counter",
            ("destination", "by"),
            "Batches closed, by reason.",
            "batches",
            (),
            CLOSED_BY,
        ),
        (
            "delivery_delay_seconds",
            "histogram",
            ("destination",),
            "Time from a record's timestamp to its acceptance; 0 for a timestamp in the future.",
            "seconds",
            _DELAYS,
        ),
        (
            "isolation_requests_total",
            "counter",
            ("destination",),
            "Extra requests to find the faulty record of a refused batch.",
            "requests",
        ),
        (
            "parameters_dropped_total",
            "counter",
            ("destination", "parameter"),
            "Parameters left out because the vendor's method does not accept them.",
            "parameters",
        ),
        (
            "unknown_outcomes_total",
            "counter",
            ("destination",),
            "Requests for which it is unknown whether the vendor accepted them.",
            "requests",
        ),
        (
            "receipts_total",
            "counter",
            ("result",),
            "Receipts of delivered batches, if receipts.topic is set; a lost receipt loses no delivery.",
            "receipts",
            (),
            ("written", "lost"),
        ),
        (
            "destination_state",
            "gauge",
            ("destination", "state"),
            "1 for the current state of the destination, 0 for the others.",
            "1",
            (),
            STATES,
        ),
        ("destination_in_flight", "gauge", ("destination",), "Requests in flight.", "requests"),
        (
            "record_waiting_seconds",
            "gauge",
            ("destination",),
            "How long the longest waiting of the records that wait alone has waited; 0 if there is none.",
            "seconds",
        ),
        (
            "rate_limit_wait_seconds",
            "histogram",
            ("destination",),
            "How long a ready batch waited for the rate limit.",
            "seconds",
            _WAITS,
        ),
        (
            "records_set_aside",
            "gauge",
            ("destination", "cause"),
            "Records that a storm keeps back, uncommitted; without a destination if not decoded or routed.",
            "records",
            (),
            ("decode", "route", "internal", "invalid", "refused", "too_large"),
        ),
        ("buffer_bytes", "gauge", (), "Memory charged for records in progress.", "bytes"),
        ("buffer_limit_bytes", "gauge", (), "Upper limit of buffer_bytes, from limits.buffer.", "bytes"),
        (
            "partition_lag",
            "gauge",
            ("topic", "partition"),
            "Records that are not done yet, without those finished above the watermark.",
            "records",
        ),
        (
            "partition_watermark_age_seconds",
            "gauge",
            ("topic", "partition"),
            "How long the watermark has not moved although there is work above it; 0 without work.",
            "seconds",
        ),
        (
            "offset_map_used_ratio",
            "gauge",
            ("topic", "partition"),
            "Share of the commit metadata used for deliveries finished above the watermark; 1 while reading waits.",
            "ratio",
        ),
        (
            "config_reloads_total",
            "counter",
            ("result",),
            "Attempts to read the configuration again while the member runs.",
            "reloads",
            (),
            ("ok", "failed"),
        ),
        (
            "config_reload_failed",
            "gauge",
            (),
            "1 while the last attempt to read the configuration again failed: the old one is still used.",
            "1",
        ),
        ("member_ready", "gauge", (), "1 while /readyz passes.", "1"),
        ("assigned_partitions", "gauge", (), "Partitions that this member owns, replay included.", "partitions"),
        (
            "kafka_refused",
            "gauge",
            (),
            "1 while Kafka refuses this member: its credential, its certificate, or a permission.",
            "1",
        ),
        ("commits_total", "counter", ("result",), "Commits of offsets.", "commits", (), ("ok", "failed")),
        (
            "rebalances_total",
            "counter",
            ("event",),
            "Changes of the assignment.",
            "events",
            (),
            ("assigned", "revoked", "lost"),
        ),
        (
            "time_seconds_total",
            "counter",
            ("part",),
            _TIME,
            "seconds",
            (),
            PARTS,
        ),
    )
)


class Observations:
    """One child of a histogram. It needs no lock, because all observations are made in one thread."""

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
        """Count the seconds from many moments (epoch milliseconds) to now (epoch seconds); 0 for one in the future.

        This runs for every record; those of one batch mostly fall into one bucket.
        """
        if not times:
            return
        bounds, counts = self._bounds, self.counts
        latest = max(times)
        if latest / 1000 > now:
            # A producer's clock may be ahead of ours, and to Prometheus a falling sum would look like a restart.
            for time in times:
                self.observe(max(0.0, now - time / 1000))
            return
        lowest = bisect_left(bounds, now - latest / 1000)
        if lowest == bisect_left(bounds, now - min(times) / 1000):
            # If the oldest and the newest are in one bucket, all others are in it too.
            counts[lowest] += len(times)
        else:
            for time in times:
                counts[bisect_left(bounds, now - time / 1000)] += 1
        self.total += now * len(times) - sum(times) / 1000


class Histogram(Collector):
    """A histogram that counts a whole batch at once; prometheus_client's costs twenty times as much (decision 0014)."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._children: dict[tuple[str, ...], Observations] = {}

    def labels(self, *values: str) -> Observations:
        """Return the child with these labels; it is created at its first use."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._definition.labels):
                raise ValueError(f"{self._definition.name} has the labels {self._definition.labels}")
            child = self._children[values] = Observations(self._definition.buckets)
        return child

    def describe(self) -> Iterator[Metric]:
        """Yield the family without samples, so that its name is registered once."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Yield the family with cumulative buckets, as the format requires."""
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
    """Splits all time of one task into `PARTS`, so that their sum is the time that has passed.

    Other code in the same thread counts its work with `add`; the task counts the remaining time with `rest`. `flush`
    updates the counter before a scrape, because otherwise each batch would update it five times.
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
        """Count work of this many seconds that did not wait."""
        self._uncounted[part] += seconds
        self._counted += seconds

    def rest(self, part: str, now: float) -> None:
        """Count the uncounted time since the last call, or since `begin`, to `part`."""
        left = now - self._since - self._counted
        if left > 0:
            self._uncounted[part] += left
            left = 0.0
        # Work that began before now and is counted later is subtracted from the next `rest`.
        self._since, self._counted = now, -left

    def flush(self) -> None:
        """Add the time since the last call to the counter."""
        for part, seconds in self._uncounted.items():
            self._seconds.labels(part).inc(seconds)
            self._uncounted[part] = 0.0


class _Refresh(Collector):
    """Runs callbacks before each scrape, so that gauges are current. Yields no metrics itself."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def describe(self) -> Iterable[Metric]:
        """Return no metrics, so that registering runs no callback."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Run the callbacks, and yield nothing."""
        for callback in self.callbacks:
            callback()
        return ()


class Metrics:
    """All metrics of one process, in one registry. Attributes are named after the metrics, without `_total`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        # Creation times would double the number of series, and nothing here reads them.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._refresh = _Refresh()
        self.registry.register(self._refresh)
        self._definitions = {definition.name: definition for definition in DEFINITIONS}
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._destinations: frozenset[str] | None = None
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
        self.parameters_dropped = self._counter("parameters_dropped_total")
        self.receipts = self._counter("receipts_total")
        self.destination_state = self._gauge("destination_state")
        self.destination_in_flight = self._gauge("destination_in_flight")
        self.record_waiting = self._gauge("record_waiting_seconds")
        self.rate_limit_wait = self._histogram("rate_limit_wait_seconds")
        self.records_set_aside = self._gauge("records_set_aside")
        self.buffer_bytes = self._gauge("buffer_bytes")
        self.buffer_limit_bytes = self._gauge("buffer_limit_bytes")
        self.partition_lag = self._gauge("partition_lag")
        self.partition_watermark_age = self._gauge("partition_watermark_age_seconds")
        self.offset_map_used = self._gauge("offset_map_used_ratio")
        self.config_reloads = self._counter("config_reloads_total")
        self.config_reload_failed = self._gauge("config_reload_failed")
        self.member_ready = self._gauge("member_ready")
        self.assigned_partitions = self._gauge("assigned_partitions")
        self.kafka_refused = self._gauge("kafka_refused")
        self.commits = self._counter("commits_total")
        self.rebalances = self._counter("rebalances_total")
        self.time_seconds = TimeParts(self._counter("time_seconds_total"))
        self.on_scrape(self.time_seconds.flush)

    def watch_process(self) -> None:
        """Add what Prometheus clients report for every process: memory, CPU, descriptors, and the start time."""
        prometheus_client.ProcessCollector(registry=self.registry)

    def on_scrape(self, callback: Callable[[], None]) -> None:
        """Call `callback` before each scrape, to set gauges; it must be quick and must not raise."""
        self._refresh.callbacks.append(callback)

    @staticmethod
    def total(metric: Counter | Gauge) -> float:
        """Return the sum over all labels of a metric."""
        samples = (sample for family in metric.collect() for sample in family.samples)
        return sum(sample.value for sample in samples)

    def consumed_from(self, topic: str) -> float:
        """Return how many records of a topic were consumed."""
        found = (sample for family in self.records_consumed.collect() for sample in family.samples)
        return sum(sample.value for sample in found if sample.labels.get("topic") == topic)

    def begin(self, destinations: Collection[str], topics: Collection[str]) -> None:
        """Create every series whose labels are known, at 0. Prometheus sees no increase in one that appears at 60."""
        self._destinations = frozenset(destinations)
        known = {"destination": destinations, "topic": topics}
        for definition in DEFINITIONS:
            values = known | ({definition.labels[-1]: definition.values} if definition.values else {})
            if definition.labels and all(label in values for label in definition.labels):
                for labels in product(*(values[label] for label in definition.labels)):
                    if not (definition.name == _DEAD_LETTERED and labels[1] in _UNROUTED_ONLY):
                        self._metrics[definition.name].labels(*labels)
        for cause in UNROUTED_CAUSES:
            self.records_dead_lettered.labels("", cause)

    def count_dead_letter(self, destination: str | None, cause: str) -> None:
        """Count a dead letter. One for an unknown destination counts as one without a destination.

        That name may come from a replayed record's headers, which can hold any number of names.
        """
        known = self._destinations is None or destination in self._destinations
        self.records_dead_lettered.labels((destination if known else None) or "", cause).inc()

    def set_state(self, destination: str, state: str) -> None:
        """Set which of `STATES` a destination is in."""
        for each in STATES:
            self.destination_state.labels(destination, each).set(1 if each == state else 0)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Drop a partition's gauges: another member reports them from now on."""
        for gauge in (self.partition_lag, self.partition_watermark_age, self.offset_map_used):
            # Not `remove_by_labels`, which goes through all series: for 2,000 partitions that takes 16 s.
            gauge.remove(topic, str(partition))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format; its media type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str) -> Counter:
        """Create a counter from its definition."""
        definition = self._definitions[name]
        counter = Counter(PREFIX + name, definition.meaning, definition.labels, registry=self.registry)
        self._metrics[name] = counter
        return counter

    def _gauge(self, name: str) -> Gauge:
        """Create a gauge from its definition."""
        definition = self._definitions[name]
        gauge = Gauge(PREFIX + name, definition.meaning, definition.labels, registry=self.registry)
        self._metrics[name] = gauge
        return gauge

    def _histogram(self, name: str) -> Histogram:
        """Create a histogram from its definition."""
        histogram = Histogram(self._definitions[name])
        self.registry.register(histogram)
        self._metrics[name] = histogram
        return histogram
