"""Metrics are served under the documented names, with right figures, and cheap ones count as exact ones do."""

from __future__ import annotations

import itertools
import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from connector.telemetry.metrics import DEFINITIONS, PREFIX, STATES, Definition, Histogram, Metrics, Observations


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return what is served, by name and labels."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_every_definition_is_served_once() -> None:
    """Each defined metric is served with its kind and meaning, and nothing else is."""
    text = Metrics().render().decode()
    served = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert served == {PREFIX + each.name: each.kind for each in DEFINITIONS}
    for each in DEFINITIONS:
        assert f"# HELP {PREFIX}{each.name} {each.meaning}\n" in text


def test_definitions_follow_the_naming_rules() -> None:
    """Counters end in `_total`, and buckets belong to histograms and rise."""
    for each in DEFINITIONS:
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert bool(each.buckets) == (each.kind == "histogram")
        assert sorted(set(each.buckets)) == list(each.buckets)


def test_every_attribute_is_one_definition() -> None:
    """No definition is left without an attribute to count with."""
    attributes = [value for name, value in vars(Metrics()).items() if not name.startswith("_") and name != "registry"]
    assert len(attributes) == len(DEFINITIONS)


def test_counting_and_totals() -> None:
    """A counter is served with its labels, without a series for its creation time."""
    metrics = Metrics()
    metrics.records_dead_lettered.labels("one", "refused").inc(2)
    metrics.records_dead_lettered.labels("two", "invalid").inc()
    found = samples(metrics)
    labels = frozenset({"destination": "one", "cause": "refused"}.items())
    assert found["connector_records_dead_lettered_total", labels] == 2
    assert not any("_created" in name for name, _ in found)
    assert metrics.total(metrics.records_dead_lettered) == 3


def test_one_state_is_current() -> None:
    """A change of state moves the 1."""
    metrics = Metrics()
    for state in ("held", "flowing"):
        metrics.set_state("one", state)
    found = samples(metrics)
    for state in STATES:
        labels = frozenset({"destination": "one", "state": state}.items())
        assert found["connector_destination_state", labels] == (state == "flowing")


def test_gauges_are_set_before_they_are_read() -> None:
    """What a callback sets is in the same answer, also after another answer."""
    metrics = Metrics()
    values = iter([1.0, 2.0])
    metrics.on_scrape(lambda: metrics.buffer_bytes.set(next(values)))
    assert samples(metrics)["connector_buffer_bytes", frozenset()] == 1.0
    assert samples(metrics)["connector_buffer_bytes", frozenset()] == 2.0


def test_a_revoked_partition_is_forgotten() -> None:
    """Its gauges vanish, others stay, and forgetting an unknown one is nothing."""
    metrics = Metrics()
    for partition in ("0", "1"):
        metrics.partition_lag.labels("events", partition).set(5)
    metrics.forget_partition("events", 0)
    metrics.forget_partition("events", 7)
    lags = [labels for name, labels in samples(metrics) if name == "connector_partition_lag"]
    assert lags == [frozenset({"topic": "events", "partition": "1"}.items())]


def test_many_partitions_are_forgotten_quickly() -> None:
    """Dropping 2,000 partitions does not look at each series. Kills: 16 s in which the event loop stands, at a stop."""
    metrics = Metrics()
    gauges = (metrics.partition_lag, metrics.partition_watermark_age, metrics.offset_map_used)
    for partition in range(2000):
        for gauge in gauges:
            gauge.labels("events", str(partition)).set(5)
    begun = time.process_time()
    for partition in range(2000):
        metrics.forget_partition("events", partition)
    assert time.process_time() - begun < 1.0
    assert metrics.total(metrics.partition_lag) == 0
    assert b'partition="' not in metrics.render()


def test_every_known_series_exists_at_zero() -> None:
    """Before anything happened each destination, topic, cause, result and verdict has its series.

    Kills: an increase from nothing, which Prometheus takes for none.
    """
    metrics = Metrics()
    metrics.begin(["one", "two"], ["events"])
    found = samples(metrics)
    assert set(found.values()) == {0.0}
    for definition in DEFINITIONS:
        # Partitions come and go; which parameters a producer sends too many of is not known before.
        if {"partition", "parameter"} & set(definition.labels) or definition.kind == "histogram":
            continue
        values = {"destination": ["one", "two"], "topic": ["events"]}
        if definition.values:
            values[definition.labels[-1]] = list(definition.values)
        if not values.keys() >= set(definition.labels):
            continue  # a label whose values only the run knows, such as a vendor's parameter
        for labels in itertools.product(*(values[label] for label in definition.labels)):
            if {"decode", "route"}.isdisjoint(labels) or definition.name != "records_dead_lettered_total":
                named = frozenset(zip(definition.labels, labels, strict=True))
                assert (PREFIX + definition.name, named) in found
    for cause in ("decode", "route", "internal", "operator"):
        named = frozenset({"destination": "", "cause": cause}.items())
        assert ("connector_records_dead_lettered_total", named) in found
    assert ("connector_request_seconds_count", frozenset({"destination": "one"}.items())) in found


def test_a_timestamp_in_the_future_counts_as_no_delay() -> None:
    """The sum never falls, whatever producers' clocks say."""
    child = Histogram(Definition("h", "histogram", ("destination",), "Meaning.", "1", BOUNDS)).labels("one")
    child.observe_since([20_000, 15_000], 16.0)
    assert (child.total, child.counts) == (1.0, [1, 1, 0, 0])
    child.observe_since([99_000, 99_000], 16.0)
    assert (child.total, child.counts) == (1.0, [3, 1, 0, 0])


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    """Each `Metrics` has its own registry, so tests and several pipelines do not share figures."""
    one, two = Metrics(), Metrics()
    one.commits.labels("ok").inc()
    assert two.total(two.commits) == 0


def test_wrong_labels_are_an_error() -> None:
    """A child with too many or too few labels is a mistake that is seen at once."""
    with pytest.raises(ValueError, match="request_seconds"):
        Metrics().request_seconds.labels()


BOUNDS = (0.5, 1.0, 2.5)


@given(
    st.lists(st.one_of(st.sampled_from([0.0, *BOUNDS, 0.5000001, 9.0]), st.floats(0, 10))),
    st.lists(st.one_of(st.sampled_from([0, 500, 1000, 2500, 9000]), st.integers(0, 10_000))),
)
def test_a_histogram_counts_as_prometheus_defines_it(single: list[float], ages: list[int]) -> None:
    """A bucket counts what is at most its bound. Kills taking the bound for exclusive, and losing the last bucket.

    `ages` are milliseconds, observed at once as moments before second 16.
    """
    histogram = Histogram(Definition("h", "histogram", ("destination",), "Meaning.", "1", BOUNDS))
    child: Observations = histogram.labels("one")
    child.observe_since([16_000 - age for age in ages], 16.0)
    for value in single:
        child.observe(value)
    values = [*single, *(16.0 - (16_000 - age) / 1000 for age in ages)]
    served = {
        s.labels.get("le", s.name[len(PREFIX) :]): s.value for family in histogram.collect() for s in family.samples
    }
    for bound in BOUNDS:
        assert served[str(bound)] == sum(value <= bound for value in values)
    assert served["+Inf"] == served["h_count"] == len(values)
    assert math.isclose(served["h_sum"], math.fsum(values), abs_tol=1e-9)
    assert histogram.labels("one") is child
