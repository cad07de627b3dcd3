"""The rendered chart executed: its command and its configuration as processes, on a real Kafka."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from tests.e2e.chart import CHART, configuration, render, workloads
from tests.integration.events import good
from tests.integration.job import DESTINATION, Job, Vendor

SECRETS: Final = "/run/secrets/connector"
MAY_BE_EMPTY: Final = {"Dead letters and skipped", "Extra requests and unknown outcomes", "Waiting for the rate limit"}
"""Panels that have nothing to show while all is well and no limit is reached."""


def _settings(job: Job, vendor: Vendor, folder: Path) -> dict[str, Any]:
    """Return the configuration of the rendered pods, its secrets in files of ours and its port left to chance."""
    config = job.settings(vendor.destination, limits={"drain_timeout": "20s"})
    del config["server"]
    account = config["destinations"][DESTINATION]
    for key in ("project_secret", "app_key"):
        (folder / key).write_text(account[key] + "\n", encoding="utf-8")
        account[key] = f"${{file:{SECRETS}/{key}}}"
    values = folder / "values.yaml"
    values.write_text(json.dumps({"config": config, "replicaCount": 2, "partitions": 6}), encoding="utf-8")
    manifests = render(values)
    (workload,) = workloads(manifests)
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "-c", "/etc/connector/connector.yaml"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/etc/connector", SECRETS}
    text = configuration(manifests)["connector.yaml"].replace(SECRETS, str(folder))
    settings: dict[str, Any] = json.loads(text)
    settings["server"]["port"] = 0  # pods have an address each; here two share one
    return settings


def _silent_panels(page: str) -> set[str]:
    """Return the titles of the dashboard's panels for which the member serves no series."""
    dashboard = json.loads((CHART / "dashboards" / "connector.json").read_text(encoding="utf-8"))
    served = set(re.findall(r"^(connector_\w+)", page, re.MULTILINE))
    asked = {panel["title"]: json.dumps(panel.get("targets", [])) for panel in dashboard["panels"]}
    names = {title: set(re.findall(r"connector_\w+", queries)) for title, queries in asked.items()}
    return {title for title, wanted in names.items() if not wanted <= served}


def test_a_rolling_update_of_the_rendered_pods_sends_nothing_twice(job: Job, vendor: Vendor, tmp_path: Path) -> None:
    """The new pod starts while the old one works, the old one drains within its time, and each event arrives once.

    The dashboard's panels have what to show of it.
    """
    settings = _settings(job, vendor, tmp_path)
    old = job.start(settings)
    job.produce(good(range(2000)))
    old.wait(lambda: vendor.cuids.total() > 0, "the first deliveries")
    new = job.start(settings)
    new.wait(lambda: new.get("/readyz")[0] == 200, "readiness of the new pod")
    job.produce(good(range(2000, 3000)))
    assert old.stop() == 0
    job.produce(good(range(3000, 4000)))
    job.until_done(new)
    assert new.get("/healthz")[0] == 200
    assert _silent_panels(new.get("/metrics")[1]) <= MAY_BE_EMPTY
    assert new.stop() == 0
    assert set(vendor.cuids.values()) == {1}
    assert vendor.cuids.total() == 4000
