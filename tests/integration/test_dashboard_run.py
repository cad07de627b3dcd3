"""The dashboard and the alerts over a real run: a member, a Kafka, and a Prometheus that scrapes it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Final

from connector.testing.faults import Fault
from tests.e2e.chart import CHART
from tests.e2e.prometheus import Prometheus, prometheus
from tests.integration.events import Message, datum_bytes, event, good, single_object
from tests.integration.job import DESTINATION, Job, Vendor

DASHBOARD: Final[dict[str, Any]] = json.loads((CHART / "dashboards" / "connector.json").read_text(encoding="utf-8"))
VARIABLES: Final = {"$__rate_interval": "1m", "$job": ".*", "$destination": ".*"}
EVENTS: Final = 600
ROUNDS: Final = 10
SCRAPES: Final = 2.0
"""Seconds in which the test's Prometheus scrapes a few times."""


def _expressions() -> dict[str, list[str]]:
    """Return the queries of each panel as Grafana would send them."""
    found: dict[str, list[str]] = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found.setdefault(panel["title"], []).append(expression)
    return found


def _silent(server: Prometheus) -> list[tuple[str, str]]:
    """Return the queries that have no series, or none with a number."""
    asked = [(title, expression) for title, all_of_it in _expressions().items() for expression in all_of_it]
    return [
        (title, expression)
        for title, expression in asked
        if not any(math.isfinite(float(series["value"][1])) for series in server.query(expression))
    ]


def test_every_panel_shows_a_real_run(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """No query of the dashboard is without data once a run has had some of everything; no alert is in trouble.

    Kills: a gauge that is defined and never set, a query by a label that a member never serves.
    """
    receipts = job.kafka.create_topic(f"{job.group}.receipts")
    settings = job.settings(vendor.destination, receipts={"topic": receipts})
    settings["destinations"][DESTINATION] |= {"requests_per_second": 20, "batch": {"records": 20}}
    refused = single_object(datum_bytes(event(EVENTS, eventName="unknown")))
    bad = [Message(b"no avro"), Message(None, b"key"), Message(refused, b"key")]
    vendor.arm(Fault("cut", after=True, times=1))
    member = job.start(settings)
    with prometheus(tmp_path, [member.port]) as server:
        job.produce([*good(range(EVENTS)), *bad])
        job.until_done(member)
        delivered = f'connector_records_delivered_total{{destination="{DESTINATION}"}}'
        member.wait(lambda: server.value(delivered) == EVENTS == member.metric(delivered), "the last scrape")
        for more in range(1, ROUNDS):
            if not _silent(server):
                break
            # A quantile needs a scrape between two events: where the first scrape saw all of them, more have to come.
            job.produce(good(range(more * EVENTS, (more + 1) * EVENTS)))
            job.until_done(member)
            time.sleep(SCRAPES)
        assert _silent(server) == []
        rules = server.rules()
        assert {rule["name"] for rule in rules if rule["health"] == "err"} == set()
        assert {rule["name"] for rule in rules if rule["state"] == "firing"} == set()
        assert len(rules) >= 7
    assert member.stop() == 0
