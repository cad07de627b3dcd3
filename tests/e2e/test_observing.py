"""Alerts and dashboard: they query existing metrics, and alerts fire on their fault only."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from connector.telemetry.metrics import DEFINITIONS, PREFIX, Metrics
from tests.e2e.chart import CHART, of_kind, render, tool
from tools.servers import ROOT

RULES: Final = CHART / "rules" / "connector.yaml"
DASHBOARD: Final[dict[str, Any]] = json.loads((CHART / "dashboards" / "connector.json").read_text(encoding="utf-8"))
ALERTS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
SCRAPED: Final = {"job", "instance", "namespace", "pod", "le"}
"""Labels that Prometheus or a histogram adds."""


def _queries() -> Iterator[tuple[str, str]]:
    """Yield title and query of each panel and each alert."""
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    yield from ((alert["alert"], alert["expr"]) for alert in ALERTS)


QUERIES: Final = list(_queries())


def _series() -> dict[str, set[str]]:
    """Return the labels of every series that a member serves, by name."""
    found: dict[str, set[str]] = {}
    for each in DEFINITIONS:
        names = [each.name]
        if each.kind == "histogram":
            names = [f"{each.name}_{part}" for part in ("bucket", "sum", "count")]
        found |= {f"{PREFIX}{name}": set(each.labels) for name in names}
    return found


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[f"{n}-{title}" for n, (title, _) in enumerate(QUERIES)])
def test_queries_use_existing_metrics(title: str, query: str) -> None:
    """Every metric in a query exists, and so does every label that it selects or groups by."""
    series = _series()
    asked = re.findall(rf"\b{PREFIX}\w+", query)
    assert asked
    assert [name for name in asked if name not in series] == []
    labels = {label for name in asked for label in series[name]} | SCRAPED
    used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query))
    used |= {label.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in group.split(",")}
    assert used - labels == set()


def test_every_metric_is_on_the_dashboard() -> None:
    """Every served metric is on the dashboard."""
    asked = {name for _, query in QUERIES for name in re.findall(rf"\b{PREFIX}\w+", query)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert {f"{PREFIX}{each.name}" for each in DEFINITIONS} - shown == set()


def test_panels_have_positions_and_descriptions() -> None:
    """Panel ids are unique, panels do not overlap, and each has a description."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["description"]


def test_dashboard_queries_are_valid(tmp_path: Path) -> None:
    """Each panel's query is valid PromQL after Grafana has replaced its variables."""
    rules = [
        {"record": f"panel:query:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$job", ".*")}
        for number, (_, query) in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        [tool("promtool"), "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_on_their_fault_only(tmp_path: Path) -> None:
    """`promtool test rules`: each alert fires with its text on its fault, and none fires on a healthy member."""
    cases = (ROOT / "tests" / "e2e" / "alerts.yaml").read_text(encoding="utf-8").replace("[RULES]", f"[{RULES}]")
    file = tmp_path / "alerts.yaml"
    file.write_text(cases, encoding="utf-8")
    command = [tool("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = yaml.safe_load(cases)["tests"]
    expected = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    silent = {case["alertname"] for case in tests[0]["alert_rule_test"]}
    assert expected == silent == {alert["alert"] for alert in ALERTS}


def test_prometheus_rule_has_the_tested_alerts() -> None:
    """The chart's PrometheusRule has the rules that promtool tested, with unchanged templates."""
    (rule,) = of_kind(render(CHART / "ci" / "monitoring-values.yaml"), "PrometheusRule")
    assert rule["spec"]["groups"][0]["rules"] == ALERTS


def test_alerts_link_to_their_runbook() -> None:
    """The runbook of each alert is a heading of docs/operations.md."""
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    for alert in ALERTS:
        file, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor in headings


def test_metrics_pass_promtool() -> None:
    """`promtool check metrics` accepts names, units and help texts of all metrics."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=Metrics().render(), capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
